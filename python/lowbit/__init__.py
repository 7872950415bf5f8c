"""Neural networks in few bits on CPUs: calibrate, quantize and run them on C++/SIMD kernels."""

from lowbit._core import FormatError, best_isa, cpu_name, isas, num_threads, set_num_threads
from lowbit.ops import conv2d_f32, gemm_f32, pack_conv_f32, pack_f32
from lowbit.paths import get_cmake_dir, get_include
from lowbit.qparams import QParams, affine_qparams, dequantize, quantize, symmetric_qparams

__version__ = "0.1.0"

__all__ = [
    "FormatError",
    "QParams",
    "affine_qparams",
    "best_isa",
    "conv2d_f32",
    "cpu_name",
    "gemm_f32",
    "dequantize",
    "get_cmake_dir",
    "get_include",
    "isas",
    "num_threads",
    "pack_conv_f32",
    "pack_f32",
    "quantize",
    "set_num_threads",
    "symmetric_qparams",
]
