from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Pair = tuple[int, int]
_Four = tuple[int, int, int, int]
_Taps = tuple[_Array, _Array, _Array]

__version__: str

class FormatError(ValueError): ...

def isas() -> list[str]: ...
def best_isa() -> str: ...
def parse_isa(name: str) -> str: ...
def cpu_name() -> str: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...

# gemm_f32
class PackedF32:
    @property
    def k(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class PackedConvF32:
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def groups(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

def pack_f32(b: npt.NDArray[Any]) -> PackedF32: ...
def gemm_f32(
    a: npt.NDArray[Any],
    b: PackedF32,
    bias: npt.NDArray[Any] | None,
    residual: npt.NDArray[Any] | None,
    clamp: tuple[float, float] | None,
    out: npt.NDArray[Any] | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.float32]: ...
def pack_conv_f32(w: npt.NDArray[Any], groups: int) -> PackedConvF32: ...
def conv2d_f32(
    x: npt.NDArray[Any],
    w: PackedConvF32,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    bias: npt.NDArray[Any] | None,
    residual: npt.NDArray[Any] | None,
    clamp: tuple[float, float] | None,
    out: npt.NDArray[Any] | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.float32]: ...

# pointwise: results go into the array that is passed for them
def quantize(
    x: _Array,
    scale: float,
    zero_point: int,
    q: _Array,
    lo: int = -128,
    hi: int = 255,
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def quantize_nchw(
    x: _Array,
    scale: float,
    zero_point: int,
    q: _Array,
    lo: int = -128,
    hi: int = 255,
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def dequantize(
    q: _Array, scale: float, zero_point: int, x: _Array, isa: str | None = None, threads: int | None = None
) -> None: ...
def min_max(x: _Array, isa: str | None = None, threads: int | None = None) -> tuple[float, float]: ...
def lookup(x: _Array, table: _Array, y: _Array, isa: str | None = None, threads: int | None = None) -> None: ...
def add_i8(
    a: _Array,
    a_scale: float,
    a_zero_point: int,
    b: _Array,
    b_scale: float,
    b_zero_point: int,
    y: _Array,
    y_scale: float,
    y_zero_point: int,
    lo: int = -128,
    hi: int = 255,
    rounding: str = "nearest_even",
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def mul_i8(
    a: _Array,
    a_scale: float,
    a_zero_point: int,
    b: _Array,
    b_scale: float,
    b_zero_point: int,
    y: _Array,
    y_scale: float,
    y_zero_point: int,
    lo: int = -128,
    hi: int = 255,
    rounding: str = "nearest_even",
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def binary_f32(
    op: str,
    a: _Array,
    b: _Array,
    y: _Array,
    lo: float = ...,
    hi: float = ...,
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def unary_f32(
    op: str,
    x: _Array,
    y: _Array,
    alpha: float = 0.0,
    beta: float = 0.0,
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def prelu_f32(x: _Array, slope: _Array, y: _Array, isa: str | None = None, threads: int | None = None) -> None: ...
def softmax_f32(x: _Array, y: _Array, isa: str | None = None, threads: int | None = None) -> None: ...
def max_pool(
    x: _Array,
    y: _Array,
    kernel: _Pair,
    stride: _Pair = (1, 1),
    padding: _Four = (0, 0, 0, 0),
    dilation: _Pair = (1, 1),
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def average_pool_i8(
    x: _Array,
    x_scale: float,
    x_zero_point: int,
    y: _Array,
    y_scale: float,
    y_zero_point: int,
    kernel: _Pair,
    stride: _Pair = (1, 1),
    padding: _Four = (0, 0, 0, 0),
    dilation: _Pair = (1, 1),
    count_include_pad: bool = False,
    overhang: _Pair = (0, 0),
    rounding: str = "nearest_even",
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def average_pool_f32(
    x: _Array,
    y: _Array,
    kernel: _Pair,
    stride: _Pair = (1, 1),
    padding: _Four = (0, 0, 0, 0),
    dilation: _Pair = (1, 1),
    count_include_pad: bool = False,
    overhang: _Pair = (0, 0),
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def resize_nearest(
    x: _Array, rows: _Array, cols: _Array, y: _Array, isa: str | None = None, threads: int | None = None
) -> None: ...
def resize_bilinear(
    x: _Array,
    rows: _Taps,
    cols: _Taps,
    y: _Array,
    x_scale: float = 1.0,
    x_zero_point: int = 0,
    y_scale: float = 1.0,
    y_zero_point: int = 0,
    isa: str | None = None,
    threads: int | None = None,
) -> None: ...
def transpose(x: _Array, perm: list[int], y: _Array, threads: int | None = None) -> None: ...
def copy_2d(src: _Array, dst: _Array, row_bytes: int, threads: int | None = None) -> None: ...

# calibrate
def histogram_observe(
    counts: npt.NDArray[np.int64],
    exponent: int,
    count: int,
    lo: float,
    hi: float,
    x: npt.NDArray[np.float32],
    *,
    isa: str | None = None,
    threads: int | None = None,
) -> tuple[int, int, float, float]: ...
def histogram_fold(counts: npt.NDArray[np.int64], exponent: int, target: int) -> None: ...
def finite_range(
    x: npt.NDArray[np.float32], *, isa: str | None = None, threads: int | None = None
) -> tuple[float, float]: ...
def entropy_search(
    counts: npt.NDArray[np.int64], levels: int = 128, *, literal_bin0: bool = False, isa: str | None = None
) -> tuple[int, npt.NDArray[np.float64]]: ...

# requantize, gemm_i8
class PackedI8:
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...

class PackedConvI8:
    @property
    def nbytes(self) -> int: ...

def fixed_point_multiplier(scale: float) -> tuple[int, int]: ...
def requantize(
    acc: npt.NDArray[Any],
    scale: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    zero_point: int,
    dtype: int,
    rounding: int,
    clamp: tuple[float, float] | None,
    residual: npt.NDArray[Any] | None,
    residual_scale: float | None,
    residual_zero_point: int,
    out: npt.NDArray[Any] | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[Any]: ...
def pack_i8(b: npt.NDArray[Any]) -> PackedI8: ...
def gemm_i8(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any] | PackedI8,
    a_zero_point: int,
    b_zero_point: int,
    scale: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    zero_point: int,
    out_dtype: int,
    rounding: int,
    clamp: tuple[float, float] | None,
    residual: npt.NDArray[Any] | None,
    residual_scale: float | None,
    residual_zero_point: int,
    out: npt.NDArray[Any] | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[Any]: ...
def pack_conv2d_i8(
    w: npt.NDArray[Any], stride: tuple[int, int], dilation: tuple[int, int], groups: int
) -> PackedConvI8: ...
def conv2d_i8(
    x: npt.NDArray[Any],
    w: PackedConvI8,
    padding: tuple[int, int, int, int],
    x_zero_point: int,
    w_zero_point: int,
    scale: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    zero_point: int,
    out_dtype: int,
    rounding: int,
    clamp: tuple[float, float] | None,
    residual: npt.NDArray[Any] | None,
    residual_scale: float | None,
    residual_zero_point: int,
    out: npt.NDArray[Any] | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[Any]: ...

# probe
def peak_probe(kind: str, seconds: float = 0.05) -> dict[str, Any]: ...

# depthwise_i8
class PackedDepthwiseI8:
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def nbytes(self) -> int: ...

def pack_depthwise_i8(w: npt.NDArray[Any]) -> PackedDepthwiseI8: ...
def depthwise_conv2d_i8(
    x: npt.NDArray[Any],
    w: PackedDepthwiseI8,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    x_zero_point: int,
    scale: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    zero_point: int,
    out_dtype: int,
    rounding: int,
    clamp: tuple[float, float] | None,
    residual: npt.NDArray[Any] | None,
    residual_scale: float | None,
    residual_zero_point: int,
    out: npt.NDArray[Any] | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[Any]: ...

# whole networks
class Model:
    @staticmethod
    def open(path: str) -> Model: ...
    @staticmethod
    def from_bytes(data: bytes) -> Model: ...
    def inputs(self) -> list[tuple[str, str, tuple[int, ...]]]: ...
    def outputs(self) -> list[tuple[str, str, tuple[int, ...]]]: ...
    def tensors(self) -> list[tuple[str, str, tuple[int, ...]]]: ...
    def plan(self) -> str: ...
    def manifest(self) -> str: ...

class Session:
    def __init__(
        self,
        model: Model,
        threads: int | None = None,
        isa: str | None = None,
        keep_tensors: bool = False,
        profile: bool = False,
    ) -> None: ...
    def run(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]: ...
    def tensor(self, index: int) -> npt.NDArray[np.float32]: ...
    def tensor_codes(self, index: int) -> npt.NDArray[Any]: ...
    def op_ms(self) -> list[float]: ...
    def memory_bytes(self, batch: int) -> int: ...

# xnor: bits are rows of uint32 words
class PackedXnor:
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def groups(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

def pack_bits(
    x: _Array,
    threshold: _Array | None,
    flip: _Array | None,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.uint32]: ...
def pack_planes(
    x: _Array, bits: int, threshold: _Array | None, codes: _Array | None, isa: str | None, threads: int | None
) -> npt.NDArray[np.uint32]: ...
def unpack_levels(
    planes: npt.NDArray[np.uint32], c: int, level: npt.NDArray[np.float32], isa: str | None, threads: int | None
) -> npt.NDArray[np.float32]: ...
def bitserial_pays(pairs: int, m: int, n: int, k: int) -> bool: ...
def unpack_bits(
    bits: _Array, c: int, out: _Array | None, isa: str | None, threads: int | None
) -> npt.NDArray[np.int8]: ...
def max_pool_bits(
    x: _Array,
    c: int,
    kernel: _Pair,
    stride: _Pair,
    padding: _Four,
    dilation: _Pair,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.uint32]: ...
def pack_xnor(rows: _Array, depth: int, groups: int) -> PackedXnor: ...
def xnor_gemm(
    a: _Array,
    k: int,
    b: PackedXnor,
    scale: _Array | None,
    bias: _Array | None,
    input_scale: _Array | None,
    residual: _Array | None,
    threshold: _Array | None,
    flip: _Array | None,
    clamp: tuple[float, float] | None,
    zero_point: int,
    out_dtype: int | None,
    bits: bool,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> Any: ...
def xnor_conv2d(
    x: _Array,
    c: int | None,
    w: PackedXnor,
    stride: _Pair,
    padding: _Four,
    dilation: _Pair,
    pad_value: int,
    scale: _Array | None,
    bias: _Array | None,
    input_scale: _Array | None,
    residual: _Array | None,
    threshold: _Array | None,
    flip: _Array | None,
    clamp: tuple[float, float] | None,
    zero_point: int,
    out_dtype: int | None,
    bits: bool,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> Any: ...
def bitserial_gemm(
    a: _Array,
    k: int,
    zero_one: bool,
    b: list[PackedXnor],
    a_basis: _Array,
    b_basis: _Array,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> _Array: ...
def bitserial_conv2d(
    x: _Array,
    c: int,
    zero_one: bool,
    w: list[PackedXnor],
    stride: _Pair,
    padding: _Four,
    dilation: _Pair,
    pad_value: int,
    x_basis: _Array,
    w_basis: _Array,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> _Array: ...

# huffman
class HuffmanStream:
    def __init__(self, buf: Any) -> None: ...
    @property
    def layout(self) -> int: ...
    @property
    def pack(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def symbols(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def header_bytes(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def code_lengths(self) -> bytes: ...
    @property
    def chunks(self) -> int: ...
    def chunk_symbols(self, chunk: int, /) -> int: ...
    def chunk_packed_bytes(self, chunk: int, /) -> int: ...
    def chunk_coded_bytes(self, chunk: int, /) -> int: ...
    def chunk_stored(self, chunk: int, /) -> bool: ...
    def decode(self, out: _Array, chunk: int | None, packed: bool, isa: str | None, threads: int | None) -> None: ...

def huffman_encode(
    symbols: _Array, layout: int, pack: int, chunk: int, isa: str | None, threads: int | None
) -> bytes: ...

# codebook
class PackedCodebook:
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def bits(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class CodebookPacker:
    def __init__(self, n: int, k: int, bits: int, codebook: _Array, group_size: int | None = None) -> None: ...
    def append(self, indices: _Array) -> None: ...
    def append_packed(self, packed: _Array, bits: int, count: int) -> None: ...
    def finish(self) -> PackedCodebook: ...

class PackedConvCodebook:
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def groups(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

def pack_indices(indices: _Array, bits: int) -> npt.NDArray[np.uint8]: ...
def unpack_indices(
    packed: _Array, shape: tuple[int, ...], bits: int, out: _Array | None, isa: str | None, threads: int | None
) -> npt.NDArray[np.uint8]: ...
def codebook_decode_f32(
    packed: _Array,
    shape: tuple[int, ...],
    bits: int,
    codebook: _Array,
    group_size: int | None,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.float32]: ...
def codebook_decode_i8(
    packed: _Array,
    shape: tuple[int, ...],
    bits: int,
    codebook: _Array,
    group_size: int | None,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.int8]: ...
def quantize_codebook(codebook: _Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]: ...
def pack_codebook(
    packed: _Array, n: int, k: int, bits: int, codebook: _Array, group_size: int | None
) -> PackedCodebook: ...
def codebook_gemm(
    x: _Array,
    w: PackedCodebook,
    int8: bool,
    x_scale: float,
    bias: _Array | None,
    clamp: tuple[float, float] | None,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.float32]: ...
def pack_conv_codebook(
    packed: _Array, shape: tuple[int, ...], bits: int, codebook: _Array, group_size: int | None, groups: int
) -> PackedConvCodebook: ...
def codebook_conv2d(
    x: _Array,
    w: PackedConvCodebook,
    stride: _Pair,
    padding: _Four,
    dilation: _Pair,
    int8: bool,
    x_scale: float,
    bias: _Array | None,
    clamp: tuple[float, float] | None,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.float32]: ...
def kmeans1d(
    x: _Array, k: int, init: int, seed: int, max_iterations: int, threads: int | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]: ...

# crc32
def crc32(data: bytes | memoryview | _Array, previous: int = 0, isa: str | None = None) -> int: ...

# sparse
class PackedSparse:
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def entries(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

def pack_sparse(gaps: _Array, codes: _Array, n: int, k: int, codebook: _Array) -> PackedSparse: ...
def sparse_pays(m: int, n: int, k: int, entries: int) -> bool: ...
def sparse_gemm(
    x: _Array,
    w: PackedSparse,
    bias: _Array | None,
    clamp: tuple[float, float] | None,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.float32]: ...

# stochastic
def quantize_stochastic(
    x: _Array, scale: float, seed: int, stream: int, out: _Array | None, isa: str | None, threads: int | None
) -> tuple[npt.NDArray[np.uint8], float, float]: ...
def clip_deviations(x: _Array, scales: _Array, isa: str | None, threads: int | None) -> npt.NDArray[np.float64]: ...

# gradient_i8
class PackedGradientI8:
    @property
    def nbytes(self) -> int: ...

def pack_gradient_i8(
    w: _Array,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    isa: str | None,
    threads: int | None,
) -> PackedGradientI8: ...
def input_gradient_i8(
    g: _Array,
    w: PackedGradientI8,
    size: tuple[int, int],
    padding: tuple[int, int, int, int],
    scale: float,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.float32]: ...
def weight_gradient_i8(
    x: _Array,
    g: _Array,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    scale: float,
    out: _Array | None,
    isa: str | None,
    threads: int | None,
) -> npt.NDArray[np.float32]: ...
