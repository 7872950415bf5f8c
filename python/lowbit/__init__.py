"""Neural networks in few bits on CPUs: calibrate, quantize and run them on C++/SIMD kernels."""

from lowbit._core import FormatError, best_isa, cpu_name, isas, num_threads, set_num_threads
from lowbit.paths import get_cmake_dir, get_include

__version__ = "0.1.0"

__all__ = [
    "FormatError",
    "best_isa",
    "cpu_name",
    "get_cmake_dir",
    "get_include",
    "isas",
    "num_threads",
    "set_num_threads",
]
