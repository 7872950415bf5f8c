"""The files that the authors of Deep Compression published: codebooks, codes and 4-bit gaps, without Huffman.

Layout, little-endian: uint32 entries of every layer, then of each layer in turn: codebook float32 (2**bits), bias
float32 (output channels), codes packed to bytes (lowest bits first), gaps packed two to a byte.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit._core import FormatError
from lowbit.compression.coded import CodedWeights, code_stream, decode_stream

GAP_BITS = 4


@dataclass(frozen=True)
class LayerShape:
    """What a file does not say about a layer.

    Attributes:
        name: of the layer.
        shape: of its weights, output channel first (OIHW or (out, in)).
        bits: of a code: 8 for the authors' convolutions, 4 for their fully connected layers.
    """

    name: str
    shape: tuple[int, ...]
    bits: int = 8


def _fire(n: int, inputs: int, squeeze: int) -> list[LayerShape]:
    wide = 4 * squeeze
    return [
        LayerShape(f"fire{n}/conv1x1_1", (squeeze, inputs, 1, 1)),
        LayerShape(f"fire{n}/conv1x1_2", (wide, squeeze, 1, 1)),
        LayerShape(f"fire{n}/conv3x3_2", (wide, squeeze, 3, 3)),
    ]


SQUEEZENET_1_0: tuple[LayerShape, ...] = (
    LayerShape("conv1", (96, 3, 7, 7)),
    *_fire(2, 96, 16),
    *_fire(3, 128, 16),
    *_fire(4, 128, 32),
    *_fire(5, 256, 32),
    *_fire(6, 256, 48),
    *_fire(7, 384, 48),
    *_fire(8, 384, 64),
    *_fire(9, 512, 64),
    LayerShape("conv_final", (1000, 512, 1, 1)),
)
"""Layers of SqueezeNet 1.0 in the order and with the names of the published file (Iandola et al. 2016, table 1)."""


class _Cursor:
    """Reads on through bytes; every error names layer and offset."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, dtype: str, count: int, what: str) -> NDArray[Any]:
        """The next ``count`` values."""
        size = count * np.dtype(dtype).itemsize
        if self.at + size > len(self.data):
            raise FormatError(f"{what} at offset {self.at}: {size} bytes needed, {len(self.data) - self.at} left")
        found = np.frombuffer(self.data, dtype, count, self.at)
        self.at += size
        return found


def read_published(
    source: str | os.PathLike[str] | bytes, layers: Sequence[LayerShape] = SQUEEZENET_1_0
) -> dict[str, tuple[CodedWeights, NDArray[np.float32]]]:
    """Read a published Deep Compression file.

    Args:
        source: a path, or the file's bytes.
        layers: the net's layers in the file's order.

    Returns:
        Layer name -> (weights, sparse, in the layer's shape; bias float32 (output channels)).

    Raises:
        lowbit.FormatError: cut off, too long, an entry beyond the layer, values that are not finite, or a code 0 that
            is not 0.0; names layer and offset.
        OSError: the file cannot be read.

    Source: the decoder in songhan/SqueezeNet-Deep-Compression.

    Example:
        >>> import numpy as np
        >>> file = np.uint32([1]).tobytes() + np.float32([0, 1.5] + [0] * 14).tobytes() + np.float32([7]).tobytes()
        >>> weights, bias = read_published(file + bytes([1, 2]), [LayerShape("fc", (1, 4), 4)])["fc"]
        >>> weights.weights(), bias
        (array([[0. , 0. , 1.5, 0. ]], dtype=float32), array([7.], dtype=float32))
    """
    cursor = _Cursor(source if isinstance(source, bytes) else Path(source).read_bytes())
    counts = cursor.take("<u4", len(layers), "entries of the layers")
    found = {}
    for layer, count in zip(layers, counts.tolist(), strict=True):
        where = f"layer {layer.name!r}"
        start = cursor.at
        size = int(np.prod(layer.shape, dtype=np.int64))
        if not count <= size:
            raise FormatError(f"{where} at offset {start}: {count} entries for {size} weights")
        codebook = cursor.take("<f4", 2**layer.bits, f"{where}: codebook").astype(np.float32)
        bias = cursor.take("<f4", layer.shape[0], f"{where}: bias").astype(np.float32)
        for what, values in (("codebook", codebook), ("bias", bias)):
            if not np.isfinite(values).all():
                raise FormatError(
                    f"{where} at offset {start}: {what} entry {np.argmin(np.isfinite(values))} is not finite"
                )
        streams = [
            decode_stream(cursor.take("u1", (count * bits + 7) // 8, f"{where}: {what}"), bits, count, False)
            for what, bits in (("codes", layer.bits), ("gaps", GAP_BITS))
        ]
        try:
            coded = CodedWeights(layer.shape, layer.bits, codebook, streams[0], streams[1], GAP_BITS, layer.name)
            coded.indices()
        except FormatError as error:
            raise FormatError(f"{error} (the layer begins at offset {start})") from None
        found[layer.name] = (coded, bias)
    if cursor.at != len(cursor.data):
        raise FormatError(f"offset {cursor.at}: {len(cursor.data) - cursor.at} bytes after the last layer")
    return found


def write_published(layers: Sequence[tuple[CodedWeights, NDArray[np.float32]]]) -> bytes:
    """The bytes of a published file: the inverse of :func:`read_published`.

    Args:
        layers: sparse weights with 4-bit gaps, and biases, in the net's order.

    Raises:
        ValueError: a layer that is not sparse, or has other gaps; names it.

    Example:
        >>> import numpy as np
        >>> from lowbit.compression import code_weights
        >>> fc = code_weights(np.float32([[0, 0, 1.5, 0]]), bits=4, form="sparse", gap_bits=4, layer="fc")
        >>> len(write_published([(fc, np.float32([7]))]))
        74
    """
    out = [np.array([coded.codes.size for coded, _ in layers], "<u4").tobytes()]
    for coded, bias in layers:
        if coded.gaps is None or coded.gap_bits != GAP_BITS:
            raise ValueError(f"layer {coded.layer!r}: a published file holds sparse layers with 4-bit gaps")
        codebook = np.zeros(2**coded.bits, "<f4")
        codebook[: coded.codebook.size] = coded.codebook
        streams = (code_stream(coded.codes, coded.bits, False), code_stream(coded.gaps, GAP_BITS, False))
        out += [codebook.tobytes(), bias.astype("<f4").tobytes(), *(s.data.tobytes() for s in streams)]
    return b"".join(out)
