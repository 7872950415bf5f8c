"""A layer's weights as a codebook and codes, dense or sparse, and the byte streams that a file holds of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lowbit._core import FormatError
from lowbit.codebook import PackedIndices, pack_indices, unpack_indices
from lowbit.compression.pruning import Mask
from lowbit.compression.relative import relative_decode, relative_encode
from lowbit.compression.sharing import codebook_row, codebook_rows, share_weights
from lowbit.entropy_coding import huffman_decode, huffman_encode

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Stream:
    """Symbols of up to 8 bits as bytes.

    Attributes:
        data: dense symbols of ``bits`` bits, lowest bit first; or a Huffman stream, its code table included.
        huffman: which of the two.
        bits: of a symbol.
        count: symbols.
    """

    data: Codes
    huffman: bool
    bits: int
    count: int


def code_stream(symbols: Codes, bits: int, huffman: bool) -> Stream:
    """Symbols packed, or Huffman-coded where that is asked for and smaller.

    Example:
        >>> import numpy as np
        >>> code_stream(np.uint8([1, 2, 3, 0]), bits=2, huffman=True).data
        array([57], dtype=uint8)
    """
    flat = np.ascontiguousarray(symbols.reshape(-1))
    packed = pack_indices(flat, bits).data
    if huffman:
        coded = np.frombuffer(huffman_encode(flat), np.uint8)
        if coded.size < packed.size:
            return Stream(coded, True, bits, flat.size)
    return Stream(packed, False, bits, flat.size)


@dataclass(frozen=True, eq=False)
class CodedWeights:
    """Weights of one layer: ``codebook[row, codes]``; every code is stored, or those but 0, with gaps (sparse).

    Attributes:
        shape: of the weights.
        bits: of a code.
        codebook: float32 (k,), k <= 2**bits, for the tensor; (output channels, k), one for each; or, with
            ``group_size``, (groups, k). Sparse: entry 0 is 0.0.
        codes: uint8; one per weight in row-major order, or one per entry.
        gaps: uint8, one per entry, see ``relative_encode``; None where dense.
        gap_bits: of a gap; 0 where dense.
        layer: its name, for errors.
        group_size: input columns that share a codebook; 0 where no columns do.
    """

    shape: tuple[int, ...]
    bits: int
    codebook: Floats
    codes: Codes
    gaps: Codes | None = None
    gap_bits: int = 0
    layer: str = ""
    group_size: int = 0

    def __post_init__(self) -> None:
        where = f"layer {self.layer!r}: " if self.layer else ""
        rows, _ = codebook_rows(self.per, self.shape, self.layer)
        entries = self.codebook.shape[-1] if self.codebook.ndim else 0
        if not 1 <= entries <= 2**self.bits or self.codebook.shape[:-1] != (() if self.per == "tensor" else (rows,)):
            raise FormatError(
                f"{where}a codebook of shape {self.codebook.shape} for {self.bits} bits, one per {self.per}, and "
                f"weights {self.shape}"
            )
        beyond = self.codes >= entries
        if beyond.any():
            at = int(np.argmax(beyond))
            raise FormatError(f"{where}code {self.codes[at]} at {at} in a codebook of {entries}")
        if self.gaps is None and self.codes.size != self.size:
            raise FormatError(f"{where}{self.codes.size} codes for {self.size} weights {self.shape}")
        if self.gaps is not None and self.codebook[..., 0].any():
            zero = self.codebook[..., 0][self.codebook[..., 0] != 0][0] if self.codebook.ndim == 2 else self.codebook[0]
            raise FormatError(f"{where}code 0 of a sparse layer must stand for 0.0, not {zero}")

    @property
    def per(self) -> str:
        """What has a codebook of its own: ``tensor``, ``channel`` or ``columns:G``."""
        if self.group_size:
            return f"columns:{self.group_size}"
        return "channel" if self.codebook.ndim == 2 else "tensor"

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def sparse(self) -> bool:
        """Whether only entries are stored."""
        return self.gaps is not None

    def indices(self) -> Codes:
        """The code of every weight, uint8 in the weights' shape.

        Raises:
            lowbit.FormatError: an entry lies beyond the weights.
        """
        if self.gaps is None:
            return self.codes.reshape(self.shape)
        return relative_decode(self.gaps, self.codes, self.size, self.layer).reshape(self.shape)

    def weights(self) -> Floats:
        """The weights, float32."""
        if self.codebook.ndim == 1:
            return self.codebook[self.indices()]
        row = codebook_row(len(self.codebook), self.group_size, self.shape)
        found: Floats = self.codebook[row, self.indices().reshape(self.shape[0], -1)]
        return found.reshape(self.shape)

    @property
    def kept(self) -> int:
        """Weights whose code is not 0.0."""
        return int(np.count_nonzero(self.weights() if self.codebook.ndim == 2 else self.codebook[self.codes]))

    @property
    def fillers(self) -> int:
        """Entries that only bridge a gap."""
        return int(np.count_nonzero(self.codes == 0)) if self.sparse else 0

    def streams(self, huffman: bool = True) -> dict[str, Stream]:
        """``codes`` and, where sparse, ``gaps``, as bytes."""
        found = {"codes": code_stream(self.codes, self.bits, huffman)}
        if self.gaps is not None:
            found["gaps"] = code_stream(self.gaps, self.gap_bits, huffman)
        return found

    def nbytes(self, huffman: bool = True) -> int:
        """Bytes in a file: codebook and streams."""
        return int(self.codebook.nbytes) + sum(s.data.size for s in self.streams(huffman).values())


def decode_stream(data: Codes, bits: int, count: int, huffman: bool, layer: str = "") -> Codes:
    """The symbols of a :class:`Stream`.

    Raises:
        lowbit.FormatError: damaged or of another length; names the layer.
    """
    where = f"layer {layer!r}: " if layer else ""
    if huffman:
        try:
            symbols: Codes = huffman_decode(data.tobytes()).reshape(-1)
        except FormatError as error:
            raise FormatError(f"{where}{error}") from None
        if symbols.size != count:
            raise FormatError(f"{where}a Huffman stream of {symbols.size} symbols, not {count}")
        return symbols
    if data.size != (count * bits + 7) // 8:
        raise FormatError(f"{where}{data.size} bytes for {count} symbols of {bits} bits")
    return np.asarray(unpack_indices(PackedIndices(data, (count,), bits)))


def code_weights(
    weights: Floats,
    bits: int,
    *,
    mask: Mask | None = None,
    init: str = "linear",
    per: str = "tensor",
    form: str = "auto",
    gap_bits: int | None = None,
    huffman: bool = True,
    layer: str = "",
) -> CodedWeights:
    """Share a layer's weights and choose how they are stored.

    Args:
        weights: float32, any shape.
        bits: of a code, 1 to 8.
        mask: weights that survived pruning; default those that are not 0.
        init: of k-means.
        per: what has a codebook of its own, see ``share_weights``.
        form: ``dense``, ``sparse``, or ``auto``: the one with fewer bytes.
        gap_bits: of a gap, 1 to 8; None for the one with fewest bytes.
        huffman: whether bytes are counted Huffman-coded.
        layer: named in errors.

    Raises:
        ValueError: see ``share_weights``; or an unknown form.
        TypeError: weights that are not float32.

    Example:
        >>> import numpy as np
        >>> w = np.zeros((20, 50), np.float32)
        >>> w[::4, ::10] = 0.5
        >>> coded = code_weights(w, bits=4)
        >>> coded.sparse, coded.codebook, bool((coded.weights() == w).all())
        (True, array([0. , 0.5], dtype=float32), True)
    """
    if form not in ("auto", "dense", "sparse"):
        raise ValueError(f"code_weights: form {form!r} is not auto, dense or sparse")
    alive = weights != 0 if mask is None else mask
    pruned = form == "sparse" or not bool(alive.all())
    codebook, codes = share_weights(weights, bits, mask=alive if pruned else None, init=init, per=per, layer=layer)
    size = codebook_rows(per, weights.shape)[1]
    dense = CodedWeights(weights.shape, bits, codebook, codes.reshape(-1), layer=layer, group_size=size)
    return stored(dense, form if pruned else "dense", gap_bits, huffman)


def stored(dense: CodedWeights, form: str = "auto", gap_bits: int | None = None, huffman: bool = True) -> CodedWeights:
    """The same weights, stored as ``code_weights`` says; code 0 is 0.0 unless ``form`` is ``dense``."""
    if form == "dense":
        return dense

    def sparse(gap: int) -> CodedWeights:
        gaps, kept = relative_encode(dense.indices(), gap)
        return replace(dense, codes=kept, gaps=gaps, gap_bits=gap)

    choices = [sparse(gap) for gap in ([gap_bits] if gap_bits else range(2, 9))]
    if form == "auto":
        choices.append(dense)
    return min(choices, key=lambda c: c.nbytes(huffman))
