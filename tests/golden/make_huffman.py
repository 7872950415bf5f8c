"""Makes the golden Huffman streams in ``huffman/``: good ones with their symbols, bad ones with what their error says.

Like make.py it leaves existing files alone: run it only to add some.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

import lowbit  # noqa: E402
from huffman_streams import gaussian, length_table, parsed, resealed, skewed  # noqa: E402


def good() -> dict[str, tuple[np.ndarray, dict]]:
    weights = gaussian(1500, 12).reshape(30, 50)
    return {
        "pivot_weights": (weights, {"chunk": 512}),
        "streams_weights": (weights, {"layout": "streams", "chunk": 512}),
        "pivot_two_bits_packed": (skewed(777, 4, 0.5), {"pack": 4}),
        "pivot_sixteen": (skewed(1000, 16, 0.7), {"pack": 1}),
        "streams_sixteen_packed": (skewed(1000, 16, 0.7), {"layout": "streams", "pack": 2}),
        "long_codes": (
            np.repeat(np.arange(14, dtype=np.uint8), [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377]),
            {},
        ),
        "one_symbol": (np.full((3, 100), 200, np.uint8), {}),
        "empty": (np.zeros((4, 0), np.uint8), {}),
        "stored": (np.random.default_rng(0).permutation(256).astype(np.uint8), {}),
    }


def bad() -> dict[str, tuple[bytes, str]]:
    """Name -> bytes, and words of the error."""
    symbols = skewed(300, 4, 0.8)
    pivot = lowbit.huffman_encode(symbols, pack=1)
    streams = lowbit.huffman_encode(symbols, layout="streams", pack=1)
    h, hs = parsed(pivot), parsed(streams)
    payload = len(pivot) - len(h["chunks"][0])
    return {
        "nothing": (b"", "does not begin with LBHF"),
        "cut_header": (pivot[:12], "cut off in its header"),
        "cut_chunk_table": (pivot[:16], "too short for its 1 chunks"),
        "cut_chunk": (pivot[:-1], "its chunks end at"),
        "longer": (pivot + b"\0", "its chunks end at"),
        "newer_version": (pivot[:4] + b"\2" + pivot[5:], "newer lowbit"),
        "huge_shape": (resealed({**h, "shape": (2**40, 2**40)}, h["chunks"]), "too large"),
        "oversubscribed": (resealed(h, h["chunks"], length_table({0: 1, 1: 1, 2: 2})), "over-subscribed"),
        "incomplete": (resealed(h, h["chunks"], length_table({0: 1, 1: 2})), "incomplete"),
        "flipped_header": (pivot[:8] + bytes([pivot[8] ^ 1]) + pivot[9:], "the header's checksum is wrong"),
        "flipped_code": (pivot[:payload] + bytes([pivot[payload] ^ 1]) + pivot[payload + 1 :], "chunk 0: its checksum"),
        "short_pivot_chunk": (resealed(h, [h["chunks"][0][:-1]]), "chunk 0: cut off"),
        "long_pivot_chunk": (resealed(h, [h["chunks"][0] + b"\0"]), "chunk 0: bytes behind"),
        "long_stream": (resealed(hs, [hs["chunks"][0] + b"\0"]), "chunk 0: a stream does not end"),
        "long_stream_sizes": (resealed(hs, [b"\xff" * 14 + hs["chunks"][0][14:]]), "longer than the chunk"),
    }


def main() -> None:
    folder = HERE / "huffman"
    folder.mkdir(exist_ok=True)
    path = folder / "expected.json"
    expected = json.loads(path.read_text()) if path.exists() else {"good": {}, "bad": {}}
    for name, (symbols, options) in good().items():
        if name not in expected["good"]:
            (folder / f"{name}.lbhf").write_bytes(lowbit.huffman_encode(symbols, **options))
            shape = list(symbols.shape)
            expected["good"][name] = {"options": options, "shape": shape, "symbols": symbols.tobytes().hex()}
    for name, (data, words) in bad().items():
        if name not in expected["bad"]:
            (folder / f"{name}.lbhf").write_bytes(data)
            expected["bad"][name] = words
            try:
                lowbit.huffman_decode(data)
                raise SystemExit(f"{name} decodes")
            except lowbit.FormatError as error:
                if words not in str(error):
                    raise SystemExit(f"{name}: {error}, not {words!r}") from None
    path.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
