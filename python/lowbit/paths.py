"""Where the C++ headers, the shared library and the CMake package of this installation lie."""

from importlib.resources import files
from pathlib import Path


def _installed(part: str) -> str:
    import lowbit._core

    for root in (Path(lowbit._core.__file__).parent, Path(str(files("lowbit")))):
        if (root / part).is_dir():
            return str(root / part)
    raise FileNotFoundError(f"lowbit: {part} is not part of this installation")


def get_include() -> str:
    """Folder to add to a C++ compiler's include path.

    Example:
        >>> import pathlib, lowbit
        >>> (pathlib.Path(lowbit.get_include()) / "lowbit" / "lowbit.h").is_file()
        True
    """
    return _installed("include")


def get_cmake_dir() -> str:
    """Folder for CMake's ``CMAKE_PREFIX_PATH``, so that ``find_package(lowbit)`` finds this installation.

    Example:
        >>> import pathlib, lowbit
        >>> (pathlib.Path(lowbit.get_cmake_dir()) / "lowbitConfig.cmake").is_file()
        True
    """
    return _installed("lib/cmake/lowbit")
