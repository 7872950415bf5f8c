"""Checkpoints in safetensors files: float tensors in, compressed tensors out, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit._core import FormatError
from lowbit.atomic import write_aside
from lowbit.compression.coded import CodedWeights, code_weights, decode_stream
from lowbit.compression.pruning import magnitude_mask

Array = NDArray[Any]
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_NAMES = {np.dtype(text): name for name, text in _DTYPES.items() if name != "BF16"}
_KEY = "lowbit.compressed"


def compress_tensors(
    tensors: Mapping[str, Array],
    bits: int = 8,
    sparsity: float = 0.0,
    *,
    huffman: bool = True,
    init: str = "linear",
    per: str = "tensor",
) -> dict[str, CodedWeights | Array]:
    """Prune and share every float32 tensor of two or more axes; others stay as they are.

    Args:
        tensors: name -> array, such as a state dict's.
        bits: of a code, 1 to 8.
        sparsity: share of each tensor's weights to drop, 0 <= s < 1.
        huffman: whether the form is chosen by Huffman-coded bytes.
        init: of k-means.
        per: what has a codebook of its own, see ``share_weights``; columns are those of (first axis, the others).

    Raises:
        ValueError: a sparsity or bits out of range, weights that are not finite; names the tensor.

    Example:
        >>> import numpy as np
        >>> found = compress_tensors({"fc.weight": np.eye(4, dtype=np.float32), "fc.bias": np.zeros(4, np.float32)})
        >>> {name: type(value).__name__ for name, value in found.items()}
        {'fc.weight': 'CodedWeights', 'fc.bias': 'ndarray'}
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"compress_tensors: sparsity is {sparsity}; it must be at least 0 and below 1")
    out: dict[str, CodedWeights | Array] = {}
    for name, w in tensors.items():
        if w.dtype != np.float32 or w.ndim < 2 or not w.size:
            out[name] = w
            continue
        if sparsity:
            w = w * magnitude_mask(w, density=1 - sparsity, layer=name)
        out[name] = code_weights(w, bits, init=init, per=per, huffman=huffman, layer=name)
    return out


def save_compressed(
    path: str | os.PathLike[str], tensors: Mapping[str, CodedWeights | Array], huffman: bool = True
) -> None:
    """Write compressed tensors as a safetensors file: ``NAME.codebook``, ``NAME.codes``, ``NAME.gaps``, and plain ones.

    What the codes need (shape, bits, counts, which streams are Huffman-coded) is JSON in the file's metadata.

    Raises:
        TypeError: a plain tensor of a dtype that safetensors does not have.
        OSError: the file cannot be written; what was there stays.
    """
    arrays: dict[str, Array] = {}
    layers: dict[str, Any] = {}
    for name, value in tensors.items():
        if not isinstance(value, CodedWeights):
            arrays[name] = value
            continue
        streams = value.streams(huffman)
        arrays[f"{name}.codebook"] = value.codebook
        arrays |= {f"{name}.{role}": stream.data for role, stream in streams.items()}
        layers[name] = {
            "shape": list(value.shape),
            "bits": value.bits,
            "gap_bits": value.gap_bits,
            "group_size": value.group_size,
            "entries": int(value.codes.size),
            "huffman": {role: stream.huffman for role, stream in streams.items()},
        }
    write_safetensors(path, arrays, {_KEY: json.dumps(layers)})


def load_compressed(path: str | os.PathLike[str]) -> dict[str, CodedWeights | Array]:
    """Read a file of :func:`save_compressed`; any other safetensors file gives its tensors as they are.

    ``value.weights()`` of a compressed tensor is its float32 array.

    Raises:
        lowbit.FormatError: damaged; names the tensor and, in streams, the offset.
        OSError: the file cannot be read.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> w = np.float32([[0, 0.5], [0.5, -1]])
        >>> save_compressed(path, compress_tensors({"fc.weight": w}, bits=2))
        >>> bool((load_compressed(path)["fc.weight"].weights() == w).all())
        True
    """
    arrays, metadata = read_safetensors(path)
    out: dict[str, CodedWeights | Array] = {}
    try:
        layers: dict[str, Any] = json.loads(metadata.get(_KEY, "{}"))
        for name, entry in layers.items():
            codebook, gap_bits = arrays.pop(f"{name}.codebook"), int(entry["gap_bits"])
            streams = {
                role: decode_stream(arrays.pop(f"{name}.{role}"), width, int(entry["entries"]), bool(flag), name)
                for (role, flag), width in zip(entry["huffman"].items(), (int(entry["bits"]), gap_bits), strict=False)
            }
            coded = CodedWeights(
                tuple(entry["shape"]),
                int(entry["bits"]),
                codebook,
                streams["codes"],
                streams.get("gaps"),
                gap_bits,
                name,
                int(entry.get("group_size", 0)),
            )
            coded.indices()
            out[name] = coded
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{os.fspath(path)}: what is said of the compressed tensors is wrong: {error!r}") from None
    return out | arrays


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write arrays as a safetensors file, without the safetensors package."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts: list[bytes] = []
    offset = 0
    for name, array in tensors.items():
        kind = _NAMES.get(array.dtype.newbyteorder("<"))
        if kind is None:
            raise TypeError(f"tensor {name!r} is {array.dtype}, which safetensors does not have")
        data = array.astype(_DTYPES[kind], copy=False).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with write_aside(Path(path)) as aside:
        aside.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *parts]))


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors (bfloat16 as float32) and metadata of a safetensors file.

    Raises:
        lowbit.FormatError: no such file's bytes; names the tensor whose entry is wrong.
    """
    raw = Path(path).read_bytes()
    size, where = int.from_bytes(raw[:8], "little"), os.fspath(path)
    try:
        header = json.loads(raw[8 : 8 + size]) if 8 + size <= len(raw) else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise FormatError(f"{where}: {len(raw)} bytes with a header of {size} are no safetensors file, or cut off")
    metadata = header.pop("__metadata__", {})
    out: dict[str, Array] = {}
    for name, entry in header.items():
        try:
            kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            dtype = np.dtype(_DTYPES[kind])
            count = int(np.prod(shape, dtype=np.int64))
            if not 0 <= begin <= end <= len(raw) - 8 - size or count * dtype.itemsize != end - begin:
                raise ValueError
            array = np.frombuffer(raw, dtype, count, 8 + size + begin).reshape(shape)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise FormatError(f"{where}: tensor {name!r} has a wrong entry {str(entry)[:80]}") from None
        out[name] = (array.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else array
    return out, metadata
