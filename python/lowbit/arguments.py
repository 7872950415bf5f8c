"""The arguments that the kernels of `lowbit.ops` take: arrays, sizes and names, read one way for all of them.

The bindings check dtypes and shapes (``csrc/bind/array_argument.h``), so that every error reads alike.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.float32]
Size: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = int | tuple[int, int] | tuple[int, int, int, int]

# Numbers of lowbit::DType and lowbit::Rounding.
_DTYPES: dict[Any, int] = {
    spelling: number
    for number, name in enumerate(("float32", "int8", "uint8", "int32"))
    for spelling in (name, np.dtype(name), np.dtype(name).type)
}
_ROUNDINGS = {"nearest_even": 0, "gemmlowp": 1, "single": 2}


def view(x: Any) -> Array:
    """An array as it is, or a view of anything else through DLPack or ``__array__``."""
    if isinstance(x, np.ndarray):
        return x
    if not hasattr(x, "__dlpack__"):
        return np.asarray(x)
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError) as error:  # another device, a dtype that NumPy lacks, a gradient that is needed
        raise TypeError(f"not an array that NumPy can view: {error}") from error


def optional_view(x: npt.ArrayLike | None) -> Array | None:
    """`view`, where there is one."""
    return None if x is None else view(x)


def pair(name: str, value: Size) -> tuple[int, int]:
    """(height, width) of a stride or dilation given as one number or two."""
    if type(value) is int:  # before `int | ...`, a type made at every call: a tenth of what a small layer costs
        return value, value
    both = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(both) != 2:
        raise ValueError(f"{name} must be one number or two, it is {value}")
    return int(both[0]), int(both[1])


def sides(function: str, padding: Padding) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a padding given as one number, (height, width) or all four."""
    if type(padding) is int:
        return padding, padding, padding, padding
    four = (padding, padding) if isinstance(padding, int | np.integer) else tuple(padding)
    if len(four) == 2:
        four = (*four, *four)
    if len(four) != 4:
        raise ValueError(
            f"{function}: padding must be one number, (height, width) or (top, left, bottom, right), it is {padding}"
        )
    return int(four[0]), int(four[1]), int(four[2]), int(four[3])


def dtype_number(function: str, name: str, dtype: npt.DTypeLike) -> int:
    """The number of a result's dtype in ``lowbit::DType``."""
    number = _DTYPES.get(dtype)
    if number is None:
        raise ValueError(f"{function}: {name} {dtype!r} is not one of float32, int8, uint8, int32")
    return number


def rounding_number(function: str, rounding: str) -> int:
    """The number of a rounding in ``lowbit::Rounding``."""
    number = _ROUNDINGS.get(rounding)
    if number is None:
        raise ValueError(f"{function}: rounding {rounding!r} is not one of {', '.join(_ROUNDINGS)}")
    return number
