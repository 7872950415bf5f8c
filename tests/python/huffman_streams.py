"""docs/huffman.md in plain Python: a second reader, the checksum, and streams put together by hand."""

import struct
from typing import Any

import numpy as np

PIVOT, CODES = 1, 8


def skewed(n: int, alphabet: int, skew: float, seed: int = 0) -> np.ndarray:
    """Symbols with probabilities proportional to skew ** rank, in shuffled roles."""
    rng = np.random.default_rng(seed)
    p = skew ** np.arange(alphabet)
    roles = rng.permutation(256)[:alphabet] if alphabet > 16 else rng.permutation(alphabet)
    return roles[rng.choice(alphabet, n, p=p / p.sum())].astype(np.uint8)


def gaussian(n: int, sigma: float, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(n) * sigma
    return np.clip(np.rint(x), -127, 127).astype(np.int8).view(np.uint8)


def checksum(data: bytes) -> int:
    padded = np.frombuffer(data + bytes(-len(data) % 256), np.uint8).reshape(-1, 64, 4).astype(np.uint64)
    running = np.cumsum((padded * np.array([1, 3, 5, 7], np.uint64)).sum(2), 0)
    low = np.uint64(0xFFFFFFFF)
    last = running[-1] if len(running) else np.zeros(64, np.uint64)
    words = (last & low) + ((running.sum(0) & low) << np.uint64(32))
    odd = (2 * np.arange(64, dtype=np.uint64) + 1) * np.uint64(0x9E3779B97F4A7C15)
    h = (len(data) + int((words * odd).sum(dtype=np.uint64))) % 2**64
    return (h ^ h >> 32) * 0xD6E8FEB86659FD93 % 2**64 >> 32


def varint(n: int) -> bytes:
    out = b""
    while n >= 128:
        out += bytes([n % 128 + 128])
        n //= 128
    return out + bytes([n])


def length_table(lengths: dict[int, int]) -> bytes:
    """The code table of lengths by byte value."""
    first, last = min(lengths), max(lengths)
    text, before = "", 8
    for b in range(first, last + 1):
        d = (lengths.get(b, 0) - before + 8) % 16 - 8
        text += "0" * (-2 * d - 1 if d < 0 else 2 * d) + "1"
        before = lengths.get(b, 0)
    text += "0" * (-len(text) % 8)
    return bytes([first, last]) + bytes(int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8))


def stream(shape: tuple[int, ...], table: bytes, chunks: list[bytes], flags: int = PIVOT | CODES, log_chunk: int = 16,
           stored: tuple[int, ...] = ()) -> bytes:  # fmt: skip
    """A stream whose checksums are right, whatever else is."""
    out = b"LBHF" + bytes([1, flags, log_chunk, len(shape)]) + b"".join(varint(n) for n in shape) + table
    for i, chunk in enumerate(chunks):
        out += struct.pack("<HI", 0xFFFF if i in stored else len(chunk), checksum(chunk))
    return out + struct.pack("<I", checksum(out)) + b"".join(chunks)


def parsed(buf: bytes) -> dict[str, Any]:
    """Everything of a good stream's header, and its chunks."""
    assert buf[:5] == b"LBHF\1"
    at, shape = 8, []
    for _ in range(buf[7]):
        n = shift = 0
        while True:
            n |= (buf[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if buf[at - 1] < 128:
                break
        shape.append(n)
    lengths: dict[int, int] = {}
    table = b""
    if buf[5] & CODES:
        first, last = buf[at], buf[at + 1]
        text, bit, before = "".join(f"{b:08b}"[::-1] for b in buf[at + 2 : at + 2 + 600]), 0, 8
        for b in range(first, last + 1):
            zeros = text.index("1", bit) - bit
            bit += zeros + 1
            before = (before + (-(zeros + 1) // 2 if zeros % 2 else zeros // 2)) % 16
            if before:
                lengths[b] = before
        table = buf[at : at + 2 + (bit + 7) // 8]
        at += len(table)
    pack = 1 << (buf[5] >> 1 & 3)
    symbols = int(np.prod(shape, dtype=np.int64))
    size = -(-symbols // pack)
    sizes, stored = [], []
    for i in range(-(-size >> buf[6]) if size else 0):
        sizes.append(struct.unpack_from("<H", buf, at + 6 * i)[0])
        stored.append(sizes[-1] == 0xFFFF)
        if stored[-1]:
            sizes[-1] = min(1 << buf[6], size - (i << buf[6]))
    at += 6 * len(sizes) + 4
    chunks = [buf[at + sum(sizes[:i]) : at + sum(sizes[: i + 1])] for i in range(len(sizes))]
    return {"flags": buf[5], "log_chunk": buf[6], "shape": tuple(shape), "symbols": symbols, "pack": pack, "size": size,
            "lengths": lengths, "table": table, "chunks": chunks, "stored": stored}  # fmt: skip


def resealed(header: dict[str, Any], chunks: list[bytes], table: bytes | None = None) -> bytes:
    """The stream of a header with other chunks, or another code table, checksums made right."""
    stored = tuple(i for i, s in enumerate(header["stored"]) if s)
    return stream(header["shape"], header["table"] if table is None else table, chunks, header["flags"],
                  header["log_chunk"], stored)  # fmt: skip


def bits_of(data: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")


def pivot_tree(lengths: dict[int, int]) -> Any:
    """Nested (left, right) pairs; a complete subtree is the list of its values."""
    pieces = []
    for length in range(1, 16):
        values = sorted(b for b, n in lengths.items() if n == length)
        while values:
            w = min(6, length, len(values).bit_length() - 1)
            pieces.append((length - w, w, values[: 1 << w]))
            values = values[1 << w :]
    pieces.sort(key=lambda piece: piece[:2])

    def build(depth: int) -> Any:
        if pieces[0][0] == depth:
            return pieces.pop(0)[2]
        return (build(depth + 1), build(depth + 1))

    return build(0)


def read_pivot(node: Any, data: bytes, at: int, n: int) -> tuple[np.ndarray, int]:
    """The n bytes of a node that begins at data[at], and where the next one begins."""
    if isinstance(node, tuple):
        bits = bits_of(data[at : at + (n + 7) // 8])[:n].astype(bool)
        left, end = read_pivot(node[0], data, at + (n + 7) // 8, n - int(bits.sum()))
        right, end = read_pivot(node[1], data, end, int(bits.sum()))
        out = np.empty(n, np.uint8)
        out[~bits], out[bits] = left, right
        return out, end
    w = len(node).bit_length() - 1
    if w == 1:
        return np.array(node, np.uint8)[bits_of(data[at : at + (n + 7) // 8])[:n]], at + (n + 7) // 8
    codes = np.zeros(n, np.int64)
    for first in range(0, n, 512):
        m = min(512, n - first)
        lanes = m // 8
        rows = np.frombuffer(data[at : at + w * lanes], np.uint8).reshape(w, lanes)
        columns = np.unpackbits(rows.T, axis=1, bitorder="little") if w else np.zeros((lanes, 0), np.uint8)
        at += w * lanes
        last = bits_of(data[at : at + (m % 8 * w + 7) // 8])
        at += (m % 8 * w + 7) // 8
        for i in range(m):
            line, k = (columns[i % lanes], i // lanes) if i < 8 * lanes else (last, i - 8 * lanes)
            codes[first + i] = (line[k * w : (k + 1) * w].astype(np.int64) << np.arange(w)).sum()
    return np.array(node, np.uint8)[codes], at


def read_streams(lengths: dict[int, int], data: bytes, n: int) -> np.ndarray:
    codes, code = {}, 0
    for length in range(1, 16):
        for b in sorted(b for b, m in lengths.items() if m == length):
            codes[f"{code:0{length}b}"] = b
            code += 1
        code <<= 1
    sizes = list(struct.unpack_from("<7H", data))
    segment, at, out = -(-n // 8), 14, []
    for s, size in enumerate([*sizes, len(data) - 14 - sum(sizes)]):
        text, bit = "".join(map(str, bits_of(data[at : at + size]))), 0
        for _ in range(min(n, (s + 1) * segment) - min(n, s * segment)):
            length = next(k for k in range(1, 16) if text[bit : bit + k] in codes)
            out.append(codes[text[bit : bit + length]])
            bit += length
        assert (bit + 7) // 8 == size
        at += size
    return np.array(out, np.uint8)


def reference_decode(buf: bytes) -> np.ndarray:
    """A good stream's symbols."""
    h = parsed(buf)
    parts = []
    for i, chunk in enumerate(h["chunks"]):
        n = min(1 << h["log_chunk"], h["size"] - (i << h["log_chunk"]))
        if h["stored"][i]:
            parts.append(np.frombuffer(chunk, np.uint8))
        elif len(h["lengths"]) == 1:
            parts.append(np.full(n, next(iter(h["lengths"])), np.uint8))
        elif h["flags"] & PIVOT:
            part, end = read_pivot(pivot_tree(h["lengths"]), chunk, 0, n)
            assert end == len(chunk)
            parts.append(part)
        else:
            parts.append(read_streams(h["lengths"], chunk, n))
    coded = np.concatenate([np.zeros(0, np.uint8), *parts])
    width = 8 // h["pack"]
    fields = coded[:, None] >> (width * np.arange(h["pack"], dtype=np.uint8)) & ((1 << width) - 1)
    return fields.ravel()[: h["symbols"]].astype(np.uint8).reshape(h["shape"])
