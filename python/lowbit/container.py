"""The ``.lowbit`` file from Python: write it, and read it to look inside. ``docs/format.md`` is the contract.

The engine has its own reader in C++ (``csrc/model/container.cpp``), which checks more; this one serves ``info`` and
``export``.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit._core import FormatError, crc32
from lowbit.atomic import write_aside

VERSION = 1
ALIGNMENT = 64
MAX_HEADER = 32 << 20
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_CRC_KEY = re.compile(rb'"header_crc32"\s*:\s*"([0-9a-f]{8})"')

Tensors = dict[str, NDArray[Any]]
Json = dict[str, Any]


def to_bytes(tensors: Mapping[str, NDArray[Any]], plan: Mapping[str, Any], manifest: Mapping[str, Any]) -> bytes:
    """The bytes of a ``.lowbit`` file.

    Args:
        tensors: Arrays of dtype float32, int32, int8 or uint8, at most 8 dimensions; written in this order.
        plan: The plan of ``docs/format.md``.
        manifest: Anything that JSON can hold; not needed to run.

    Returns:
        The file: a valid safetensors file.

    Raises:
        TypeError: An array has another dtype.
        ValueError: A name is reserved, a value is not JSON (NaN included), or the header is too large.

    Example:
        >>> data = to_bytes({"w": np.zeros((2, 3), np.int8)}, {"version": 1}, {})
        >>> tensors, plan, _ = read_container(data)
        >>> tensors["w"].shape, plan
        ((2, 3), {'version': 1})
    """
    entries: Json = {}
    crcs: dict[str, str] = {}
    parts: list[bytes] = []
    offset = pads = 0

    def append(name: str, kind: str, shape: tuple[int, ...], data: bytes) -> None:
        nonlocal offset
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)

    for name, array in tensors.items():
        if name == "__metadata__" or name.startswith("__pad_"):
            raise ValueError(f"write_container: the tensor name {name!r} is reserved")
        kind = _NAMES.get(array.dtype.newbyteorder("<"))
        if kind is None:
            raise TypeError(f"write_container: tensor {name!r} is {array.dtype}, not float32, int32, int8 or uint8")
        if gap := -offset % ALIGNMENT:
            append(f"__pad_{pads}", "U8", (gap,), bytes(gap))
            pads += 1
        data = array.astype(_DTYPES[kind], copy=False).tobytes()  # row-major, little-endian
        append(name, kind, array.shape, data)
        crcs[name] = f"{crc32(data):08x}"

    metadata = {
        "format": "lowbit",
        "version": str(VERSION),
        "plan": json.dumps(plan, allow_nan=False),
        "manifest": json.dumps(manifest, allow_nan=False),
        "crc32": json.dumps(crcs),
        "header_crc32": "00000000",
    }
    header = json.dumps({"__metadata__": metadata, **entries}, allow_nan=False).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    if len(header) > MAX_HEADER:
        raise ValueError(f"write_container: a header of {len(header)} bytes exceeds {MAX_HEADER}")
    at = header.index(b'"header_crc32": "00000000"') + len(b'"header_crc32": "')
    header = header[:at] + f"{crc32(header):08x}".encode() + header[at + 8 :]
    return len(header).to_bytes(8, "little") + header + b"".join(parts)


def write_container(
    path: str | os.PathLike[str],
    tensors: Mapping[str, NDArray[Any]],
    plan: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> None:
    """Write a ``.lowbit`` file: aside, then renamed into place, so that no half-written file is ever seen.

    Args:
        path: Where to; an existing file is replaced.
        tensors: See :func:`to_bytes`.
        plan: See :func:`to_bytes`.
        manifest: See :func:`to_bytes`.

    Raises:
        OSError: The file cannot be written; what was there stays.
        TypeError: See :func:`to_bytes`.
        ValueError: See :func:`to_bytes`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_container(f"{folder}/net.lowbit", {}, {"version": 1}, {"note": "empty"})
        ...     read_container(f"{folder}/net.lowbit")[2]
        {'note': 'empty'}
    """
    data = to_bytes(tensors, plan, manifest)
    with write_aside(Path(path)) as aside:
        aside.write_bytes(data)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Json:
    out: Json = {}
    for key, value in pairs:
        if key in out:
            raise FormatError(f"lowbit file: duplicate key {key!r}")
        out[key] = value
    return out


def _object(text: bytes | str, what: str) -> Json:
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"lowbit file: {what}: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"lowbit file: {what} is not a JSON object")
    return value


def _check_header(header: bytes) -> None:
    found = list(_CRC_KEY.finditer(header))
    if len(found) != 1:
        raise FormatError("lowbit file: the header must hold header_crc32 once")
    start, end = found[0].span(1)
    crc = f"{crc32(header[:start] + b'00000000' + header[end:]):08x}".encode()
    if crc != header[start:end]:
        raise FormatError(
            f"lowbit file: the header's checksum is {crc.decode()}, not {header[start:end].decode()}: damaged"
        )


def _tensor(name: str, entry: Any, data: memoryview) -> tuple[int, int, NDArray[Any]]:
    try:
        dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(v) is int and v >= 0 for v in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or set(entry) != {"dtype", "shape", "data_offsets"} or not begin <= end <= len(data):
        raise FormatError(f"lowbit file: tensor {name!r} has a wrong entry {str(entry)[:80]}")
    count = 1
    for size in shape:
        count *= size
    if len(shape) > 8 or count * dtype.itemsize != end - begin:
        raise FormatError(f"lowbit file: tensor {name!r}: {dtype} {shape} is not {end - begin} bytes")
    return begin, end, np.frombuffer(data[begin:end], dtype).reshape(shape)


def read_container(source: str | os.PathLike[str] | bytes) -> tuple[Tensors, Json, Json]:
    """Read a ``.lowbit`` file for its parts; the plan is parsed but not checked (opening the model does that).

    Args:
        source: A path, or the file's bytes.

    Returns:
        Tensors by name in file order (read-only arrays), the plan, the manifest.

    Raises:
        lowbit.FormatError: The bytes are no ``.lowbit`` file of this version, are cut off, or fail a checksum.
        OSError: The file cannot be read.

    Example:
        >>> read_container(b"not a file")
        Traceback (most recent call last):
        ...
        lowbit._core.FormatError: lowbit file: ...
    """
    raw = source if isinstance(source, bytes) else Path(source).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or size > min(MAX_HEADER, len(raw) - 8) or (8 + size) % ALIGNMENT:
        raise FormatError(f"lowbit file: {len(raw)} bytes with a header of {size} are no .lowbit file, or cut off")
    header, data = raw[8 : 8 + size], memoryview(raw)[8 + size :]
    root = _object(header, "header")
    meta = root.pop("__metadata__", None)
    texts = ("format", "version", "plan", "manifest", "crc32", "header_crc32")
    if not isinstance(meta, dict) or set(meta) != set(texts) or not all(isinstance(v, str) for v in meta.values()):
        raise FormatError(f"lowbit file: __metadata__ must hold the texts {', '.join(texts)}")
    if meta["format"] != "lowbit" or meta["version"] != str(VERSION):
        raise FormatError(
            f"lowbit file: format {meta['format']!r} version {meta['version']!r}; this reads 'lowbit' '{VERSION}'"
        )
    _check_header(header)

    spans = sorted(((*_tensor(name, entry, data), name) for name, entry in root.items()), key=lambda s: s[:2])
    tensors: Tensors = {}
    crcs = _object(meta["crc32"], "crc32")
    last = 0
    for begin, end, array, name in spans:
        if begin != last:
            raise FormatError(f"lowbit file: tensor {name!r} begins at {begin}, not at {last}")
        last = end
        if name.startswith("__pad_"):
            continue
        if crcs.pop(name, None) != f"{crc32(data[begin:end]):08x}":
            raise FormatError(f"lowbit file: tensor {name!r} fails its checksum: the file is damaged")
        tensors[name] = array
    if last != len(data) or crcs:
        raise FormatError(
            f"lowbit file: {len(data) - last} bytes too many, or checksums of unknown tensors {list(crcs)[:3]}"
        )
    return tensors, _object(meta["plan"], "plan"), _object(meta["manifest"], "manifest")
