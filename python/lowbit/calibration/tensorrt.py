"""The text of TensorRT's calibration cache.

The first line names TensorRT's version and the calibrator, ``TRT-8601-EntropyCalibration2``; every other line is a
tensor and its scale T / 127 (real = scale * code), as the 8 hexadecimal digits of a big-endian float32: ``conv1:
3c010a14``.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping

from lowbit._core import FormatError

_HEADER = re.compile(r"TRT-\d+-\w+")
_LINE = re.compile(r"(?P<name>.+): ?(?P<scale>[0-9a-fA-F]{8})")


def cache_text(scales: Mapping[str, float], version: str = "8601") -> str:
    """The cache's text.

    Example:
        >>> from lowbit.calibration.tensorrt import cache_text
        >>> print(cache_text({"conv1": 1 / 127}), end="")
        TRT-8601-EntropyCalibration2
        conv1: 3c010204
    """
    header = f"TRT-{version}-EntropyCalibration2"
    if not _HEADER.fullmatch(header):
        raise ValueError(f"save_tensorrt: version {version!r} is not digits")
    lines = [header]
    for name, scale in scales.items():
        if not name or len(name.splitlines()) != 1:
            raise ValueError(f"save_tensorrt: tensor name {name!r} does not fit in a line")
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"


def parse_cache(raw: bytes) -> dict[str, float]:
    """Scales by tensor name. lowbit.FormatError with the line number where a line is wrong."""
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError as e:
        number = raw.count(b"\n", 0, e.start) + 1
        raise FormatError(f"line {number}: not UTF-8") from None
    if not lines or not _HEADER.fullmatch(lines[0].rstrip()):
        raise FormatError(f"line 1: {lines[0] if lines else ''!r:.80} is not TRT-<version>-<calibrator>")
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        if not match:
            raise FormatError(f"line {number}: {line!r:.80} is not 'tensor: <8 hexadecimal digits>'")
        name, scale = match["name"], struct.unpack(">f", bytes.fromhex(match["scale"]))[0]
        if not math.isfinite(scale) or scale < 0 or scale * 127.0 > 3.4028234663852886e38:
            raise FormatError(f"line {number}: scale {scale} of tensor {name!r} is not finite and >= 0")
        if name in scales:
            raise FormatError(f"line {number}: tensor {name!r} again")
        scales[name] = scale
    return scales
