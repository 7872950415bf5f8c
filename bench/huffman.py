"""Huffman coding beside zstd: `python bench/huffman.py [--isa avx512,avx2] [--symbols 1048576] [--markdown]`.

zstd's Huffman coder cannot be had alone; at level 1 its literals are Huffman-coded and matches are rare for symbols of
3.3 bits and more. The faster of two ways counts: into memory that is used again, as for ours, or into new memory. One
thread; our checksums are verified, zstd's frames have none.
"""

import argparse
import heapq
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

import lowbit
from timing import Timing, interleave


def gaussian(n: int, sigma: float, low: int, high: int, zeros: float = 0.0) -> np.ndarray:
    """Rounded normal values, a share of them set to zero; int8 as uint8, narrower ones counted from `low`."""
    rng = np.random.default_rng(0)
    x = np.clip(np.rint(rng.standard_normal(n) * sigma), low, high)
    x[rng.random(n) < zeros] = 0
    return x.astype(np.int8).view(np.uint8) if low == -127 else (x - low).astype(np.uint8)


SOURCES: dict[str, Callable[[int], np.ndarray]] = {
    "int8 Gaussian, 7.0 bits": lambda n: gaussian(n, 31, -127, 127),
    "int8 Gaussian, 5.4 bits": lambda n: gaussian(n, 10.2, -127, 127),
    "5-bit indices": lambda n: gaussian(n, 5, -16, 15),
    "4-bit Gaussian": lambda n: gaussian(n, 2.6, -8, 7),
    "4-bit, 90 % zero": lambda n: gaussian(n, 2.6, -8, 7, 0.885),
    "2-bit indices": lambda n: gaussian(n, 0.8, -2, 1),
}


def optimal_bytes(symbols: np.ndarray) -> float:
    """Of a Huffman code of these symbols, one by one, without limit, table or headers."""
    heap = [int(n) for n in np.bincount(symbols, minlength=256) if n]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        bits += both
        heapq.heappush(heap, both)
    return bits / 8


def rows(name: str, n: int, levels: list[str], seconds: float) -> tuple[dict[str, Timing], dict[str, int], float]:
    """Times by contender, bytes by stream, and the optimum."""
    symbols = SOURCES[name](n)
    plain = lowbit.huffman_encode(symbols, pack=1)
    chosen = lowbit.HuffmanStream(lowbit.huffman_encode(symbols))
    streams = lowbit.huffman_encode(symbols, layout="streams", pack=1)
    sizes = {"pivot": len(plain), "streams": len(streams)}
    memory = lowbit.huffman_decode(plain)  # begins on a cache line
    calls: dict[str, Callable[[], object]] = {}
    packed = memory[: chosen.packed_bytes]
    one = lowbit.HuffmanStream(plain)
    table = lowbit.HuffmanStream(streams)
    for isa in levels:
        calls[f"pivot {isa}"] = lambda isa=isa: one.decode(out=memory, isa=isa, threads=1)
        if chosen.pack > 1:
            calls[f"packed {isa}"] = lambda isa=isa: chosen.decode(out=memory, isa=isa, threads=1)
            calls[f"packed, kept packed {isa}"] = lambda isa=isa: chosen.decode_packed(out=packed, isa=isa, threads=1)
            sizes["packed"] = chosen.nbytes
    calls[f"streams {levels[-1]}"] = lambda: table.decode(out=memory, isa=levels[-1], threads=1)
    calls["encode"] = lambda: lowbit.huffman_encode(symbols, threads=1)
    if find_spec("zstandard"):
        import zstandard

        frame = zstandard.ZstdCompressor(level=1).compress(symbols.tobytes())
        sizes["zstd"] = len(frame)
        reader = zstandard.ZstdDecompressor()
        calls["zstd, new memory"] = lambda: reader.decompress(frame, max_output_size=n)
        calls["zstd"] = lambda: reader.stream_reader(frame).readinto(memory)
    times = interleave(calls, seconds)
    if "zstd" in times:
        times["zstd"] = min(times["zstd"], times.pop("zstd, new memory"), key=lambda t: t.best)
    return times, sizes, optimal_bytes(symbols)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--isa", default="avx512,avx2", help="levels (default avx512,avx2)")
    parser.add_argument("--symbols", type=int, default=1 << 20, help="per source (default 1048576: in the L2 cache)")
    parser.add_argument("--seconds", type=float, default=0.1, help="of measuring per contender (default 0.1)")
    parser.add_argument("--only", default="", help="sources whose name contains this")
    parser.add_argument("--markdown", action="store_true", help="print a table instead of lines")
    args = parser.parse_args()
    asked = args.isa.split(",")
    levels = [isa for isa in asked if isa in lowbit.isas()]
    head = [f"pivot {isa}" for isa in levels] + [f"packed {isa}" for isa in levels]
    head += [f"packed, kept packed {isa}" for isa in levels] + [f"streams {levels[-1]}", "zstd", "encode"]
    if args.markdown:
        titles = [f"G symbols/s, {args.symbols} symbols", *head, "x zstd", "bytes: pivot / packed / zstd"]
        print("| " + " | ".join(titles) + " |")
        print("|---" * (len(head) + 3) + "|")
    for name in SOURCES:
        if args.only not in name:
            continue
        times, sizes, best = rows(name, args.symbols, levels, args.seconds)
        rate = {label: args.symbols / t.best / 1e9 for label, t in times.items()}
        cells = [f"{rate[label]:.2f}" if label in rate else "-" for label in head]
        ratio = f"{rate[head[0]] / rate['zstd']:.1f}" if "zstd" in rate else "-"
        size = " / ".join(f"{sizes[k] / best - 1:+.2%}" if k in sizes else "-" for k in ("pivot", "packed", "zstd"))
        if args.markdown:
            print(f"| {name} | " + " | ".join(cells) + f" | {ratio} | {size} |")
        else:
            print(f"{name}: " + ", ".join(f"{h} {c}" for h, c in zip(head, cells, strict=True)), end="")
            print(f"; {ratio} x zstd; bytes over the optimum: {size}", flush=True)


if __name__ == "__main__":
    main()
