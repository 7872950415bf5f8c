"""Neural networks in few bits on CPUs: calibrate, quantize and run them on C++/SIMD kernels."""

from lowbit._core import FormatError, best_isa, cpu_name, isas, num_threads, set_num_threads
from lowbit.bits import PackedBits, binarize, max_pool_bits, pack_bits, unpack_bits, xnor_conv2d, xnor_gemm
from lowbit.bitserial import bit_planes, bitserial_conv2d, bitserial_gemm, level_planes
from lowbit.calibration import (
    CalibrationTable,
    EntropyObserver,
    MinMaxObserver,
    MSEObserver,
    PercentileObserver,
    calibrate,
)
from lowbit.codebook import (
    CodebookPacker,
    PackedCodebook,
    PackedConvCodebook,
    PackedIndices,
    codebook_conv2d,
    codebook_decode,
    codebook_gemm,
    kmeans1d,
    pack_codebook,
    pack_conv_codebook,
    pack_indices,
    quantize_codebook,
    unpack_indices,
)
from lowbit.compare import compare
from lowbit.compression import compress
from lowbit.data import Dataset
from lowbit.entropy_coding import HuffmanStream, huffman_decode, huffman_encode
from lowbit.gradients import (
    PackedGradientI8,
    clip_deviations,
    input_gradient_i8,
    pack_gradient_i8,
    quantize_stochastic,
    weight_gradient_i8,
)
from lowbit.graph.convert import convert
from lowbit.graph.net import UnsupportedError
from lowbit.mixed_precision import search
from lowbit.model import Model, load
from lowbit.ops import (
    conv2d_f32,
    conv2d_i8,
    depthwise_conv2d_i8,
    gemm_f32,
    gemm_i8,
    pack_conv2d_i8,
    pack_conv_f32,
    pack_depthwise_i8,
    pack_f32,
    pack_i8,
    requantize,
)
from lowbit.paths import get_cmake_dir, get_include
from lowbit.preprocessing import Preprocessing
from lowbit.qparams import QParams, affine_qparams, dequantize, quantize, symmetric_qparams
from lowbit.report import Report
from lowbit.sparse import PackedSparse, pack_sparse, sparse_gemm

__version__ = "0.1.0"

__all__ = [
    "CalibrationTable",
    "CodebookPacker",
    "Dataset",
    "EntropyObserver",
    "FormatError",
    "HuffmanStream",
    "MSEObserver",
    "MinMaxObserver",
    "Model",
    "PackedBits",
    "PackedCodebook",
    "PackedConvCodebook",
    "PackedGradientI8",
    "PackedIndices",
    "PackedSparse",
    "PercentileObserver",
    "Preprocessing",
    "QParams",
    "Report",
    "UnsupportedError",
    "affine_qparams",
    "best_isa",
    "binarize",
    "bit_planes",
    "bitserial_conv2d",
    "bitserial_gemm",
    "calibrate",
    "clip_deviations",
    "codebook_conv2d",
    "codebook_decode",
    "codebook_gemm",
    "compare",
    "compress",
    "conv2d_f32",
    "conv2d_i8",
    "convert",
    "cpu_name",
    "depthwise_conv2d_i8",
    "dequantize",
    "gemm_f32",
    "gemm_i8",
    "get_cmake_dir",
    "get_include",
    "huffman_decode",
    "huffman_encode",
    "input_gradient_i8",
    "isas",
    "kmeans1d",
    "level_planes",
    "load",
    "max_pool_bits",
    "num_threads",
    "pack_bits",
    "pack_codebook",
    "pack_conv2d_i8",
    "pack_conv_codebook",
    "pack_conv_f32",
    "pack_depthwise_i8",
    "pack_f32",
    "pack_gradient_i8",
    "pack_i8",
    "pack_indices",
    "pack_sparse",
    "quantize",
    "quantize_codebook",
    "quantize_stochastic",
    "requantize",
    "search",
    "set_num_threads",
    "sparse_gemm",
    "symmetric_qparams",
    "unpack_bits",
    "unpack_indices",
    "weight_gradient_i8",
    "xnor_conv2d",
    "xnor_gemm",
]
