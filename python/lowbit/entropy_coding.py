"""Huffman coding of small integers: codebook indices, int8 codes, gaps of sparse weights (Deep Compression, section 4).

``docs/huffman.md`` defines the stream. The same symbols give the same bytes on every machine, and every level decodes
every stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit import _core
from lowbit.arguments import Array, view

_LAYOUTS = ("streams", "pivot")
_CACHE_LINE = 64


def huffman_encode(
    symbols: npt.ArrayLike,
    *,
    layout: str = "pivot",
    pack: int | None = None,
    chunk: int = 65536,
    isa: str | None = None,
    threads: int | None = None,
) -> bytes:
    """Codes symbols with the shortest canonical code of at most 15 bits, in chunks that decode alone.

    Deep Compression (Han, Mao, Dally 2015, section 4) codes weights and index gaps this way. Chunks that would not
    shrink are stored as they are.

    Args:
        symbols: uint8 of any shape, which the stream keeps.
        layout: "pivot", a bitmap per tree node, the fastest to decode with AVX-512 or AVX2; "streams", interleaved bit
            streams decoded by table (codes of at most 12 bits), for machines without vector permutes.
        pack: symbols coded together as one byte: 1, 2, 4 or 8, of 8 / pack bits each; by default whichever gives the
            fewest bytes.
        chunk: coded bytes of a chunk, a power of two from 256 to 65536.
        isa: level to run at (`lowbit.isas()`); the best by default. The bytes do not depend on it.
        threads: number of threads; `lowbit.num_threads()` by default.

    Returns:
        The stream.

    Raises:
        TypeError: where symbols are not uint8.
        ValueError: where an option is unknown, or a symbol needs more than 8 / pack bits.

    Example:
        >>> import numpy as np, lowbit
        >>> indices = np.zeros((100, 100), np.uint8)
        >>> indices[::10] = 3
        >>> indices.size, len(lowbit.huffman_encode(indices)) < 400
        (10000, True)
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"huffman_encode: layout {layout!r} is not one of {', '.join(_LAYOUTS)}")
    if pack == 0:
        raise ValueError("huffman_encode: pack is 0, must be 1, 2, 4, 8 or None")
    return _core.huffman_encode(view(symbols), _LAYOUTS.index(layout), pack or 0, chunk, isa, threads)


def huffman_decode(
    buf: Any, *, out: Array | None = None, isa: str | None = None, threads: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decodes what `huffman_encode` wrote.

    Args:
        buf: the stream: bytes, or anything with a buffer of bytes.
        out: receives the symbols: uint8 of the stream's shape, in C order. After an error its contents are unspecified.
        isa: level to run at (`lowbit.isas()`); the best by default.
        threads: number of threads, which share the chunks; `lowbit.num_threads()` by default.

    Returns:
        uint8 of the shape that was encoded.

    Raises:
        FormatError: where the stream is cut off or damaged, with the offset.
        TypeError: where buf is no buffer or out is not uint8.
        ValueError: where out's shape is not the stream's.

    Example:
        >>> import numpy as np, lowbit
        >>> lowbit.huffman_decode(lowbit.huffman_encode(np.array([[1, 2], [3, 250]], np.uint8)))
        array([[  1,   2],
               [  3, 250]], dtype=uint8)
    """
    return HuffmanStream(buf).decode(out=out, isa=isa, threads=threads)


class HuffmanStream:
    """A stream whose header has been read and checked: what it holds, and its chunks one by one.

    Args:
        buf: the stream: bytes, or anything with a buffer of bytes, which must not change.

    Attributes:
        layout: "pivot" or "streams".
        pack: symbols in a coded byte.
        shape: of the symbols.
        symbols: how many there are.
        packed_bytes: coded bytes, ceil(symbols / pack).
        header_bytes: bytes before the first chunk: code table, sizes and checksums.
        nbytes: bytes of the stream.
        chunks: how many there are.
        code_lengths: (256,) uint8, bits of each byte's code, 0 where it has none.

    Raises:
        FormatError: where the header is cut off or damaged, with the offset.

    Example:
        >>> import numpy as np, lowbit
        >>> symbols = (np.arange(600) % 5).astype(np.uint8)
        >>> stream = lowbit.HuffmanStream(lowbit.huffman_encode(symbols, chunk=256, pack=1))
        >>> stream.chunks, stream.chunk_symbols(2), stream.decode_chunk(2)[:3]
        (3, 88, array([2, 3, 4], dtype=uint8))
    """

    def __init__(self, buf: Any) -> None:
        self._stream = stream = _core.HuffmanStream(buf)
        self.layout = _LAYOUTS[stream.layout]
        self.pack = stream.pack
        self.shape = stream.shape
        self.symbols = stream.symbols
        self.packed_bytes = stream.packed_bytes
        self.header_bytes = stream.header_bytes
        self.nbytes = stream.nbytes
        self.chunks = stream.chunks
        self.code_lengths = np.frombuffer(stream.code_lengths, np.uint8)

    def chunk_symbols(self, chunk: int) -> int:
        """Symbols of one chunk."""
        return self._stream.chunk_symbols(chunk)

    def chunk_packed_bytes(self, chunk: int) -> int:
        """Coded bytes of one chunk, ceil(symbols / pack)."""
        return self._stream.chunk_packed_bytes(chunk)

    def chunk_coded_bytes(self, chunk: int) -> int:
        """Bytes of one chunk in the stream."""
        return self._stream.chunk_coded_bytes(chunk)

    def chunk_stored(self, chunk: int) -> bool:
        """Whether one chunk did not shrink and is stored as it is."""
        return self._stream.chunk_stored(chunk)

    def decode(
        self, *, out: Array | None = None, isa: str | None = None, threads: int | None = None
    ) -> npt.NDArray[np.uint8]:
        """All symbols, as `huffman_decode`."""
        return self._decode(out, self.shape, None, False, isa, threads)

    def decode_chunk(self, chunk: int, *, out: Array | None = None, isa: str | None = None) -> npt.NDArray[np.uint8]:
        """The symbols of one chunk, in one dimension."""
        return self._decode(out, (self.chunk_symbols(chunk),), chunk, False, isa, None)

    def decode_packed(
        self, *, out: Array | None = None, isa: str | None = None, threads: int | None = None
    ) -> npt.NDArray[np.uint8]:
        """All coded bytes, in one dimension: `pack` symbols in each, the first in the lowest bits."""
        return self._decode(out, (self.packed_bytes,), None, True, isa, threads)

    def decode_chunk_packed(
        self, chunk: int, *, out: Array | None = None, isa: str | None = None
    ) -> npt.NDArray[np.uint8]:
        """The coded bytes of one chunk, in one dimension."""
        return self._decode(out, (self.chunk_packed_bytes(chunk),), chunk, True, isa, None)

    def _decode(
        self,
        out: Array | None,
        shape: tuple[int, ...],
        chunk: int | None,
        packed: bool,
        isa: str | None,
        threads: int | None,
    ) -> npt.NDArray[np.uint8]:
        if out is None:
            out = _aligned(shape)
        elif not isinstance(out, np.ndarray):
            raise TypeError("huffman_decode: out must be a NumPy array")
        elif out.shape != shape:
            raise ValueError(f"huffman_decode: out is {out.shape}, the result is {shape}")
        self._stream.decode(out, chunk, packed, isa, threads)
        return out


def _aligned(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """A new array that begins on a cache line: 64-byte stores that straddle two lines take twice as long."""
    size = int(np.prod(shape, dtype=np.int64))
    memory = np.empty(size + _CACHE_LINE - 1, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].reshape(shape)
