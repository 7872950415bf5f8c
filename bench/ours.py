"""lowbit's side of every comparison, as callables without arguments (see peers.py)."""

from collections.abc import Callable

import numpy as np

import lowbit
import nets

Call = Callable[[], object]

XNOR_PROBES = {"amx": "xnor", "avx512": "xnor"}
PROBES = {"amx": "amx", "avx512": "vnni", "avx512_vnni": "vnni", "avx2": "avx2"}


class Limit:
    """The best reading of the peak probe of a level; called between the rounds of a comparison."""

    def __init__(self, isa: str, probes: dict[str, str] = PROBES):
        self.kind = probes.get(isa)
        self.macs_per_second = 0.0
        self.per_cycle = 0.0

    def __call__(self, seconds: float = 0.005) -> None:
        if not self.kind:
            return
        peak = lowbit._core.peak_probe(self.kind, seconds)
        if peak["valid"] and peak["macs_per_second"] > self.macs_per_second:
            self.macs_per_second, self.per_cycle = peak["macs_per_second"], peak["limit_per_cycle"]


def gemm(m: int, n: int, k: int, threads: int, isa: str, rng: np.random.Generator) -> Call:
    """uint8 activations, int8 packed weights, int32 sums: the work of MatMulInteger."""
    a = rng.integers(0, 256, (m, k), np.uint8)
    b = lowbit.pack_i8(rng.integers(-127, 128, (k, n), np.int8))
    out = np.empty((m, n), np.int32)
    return lambda: lowbit.gemm_i8(a, b, out=out, isa=isa, threads=threads)


def conv(h: int, c: int, oc: int, kernel: int, threads: int, isa: str, rng: np.random.Generator) -> Call:
    """Same-padded, stride 1, NHWC, batch 1; uint8 in and out, a scale per channel: the work of QLinearConv."""
    x = rng.integers(0, 256, (1, h, h, c), np.uint8)
    w = lowbit.pack_conv2d_i8(rng.integers(-127, 128, (oc, kernel, kernel, c), np.int8))
    scale, bias = np.full(oc, 2e-4, np.float32), np.zeros(oc, np.int32)
    out = np.empty((1, h, h, oc), np.uint8)

    def call():
        lowbit.conv2d_i8(
            x, w, padding=kernel // 2, x_zero_point=128, scale=scale, bias=bias, zero_point=128, out_dtype="uint8",
            out=out, isa=isa, threads=threads,
        )  # fmt: skip

    return call


def conv_f32(h: int, c: int, oc: int, kernel: int, threads: int, isa: str, rng: np.random.Generator) -> Call:
    """The same layer in float32."""
    x = rng.standard_normal((1, h, h, c), np.float32)
    w = lowbit.pack_conv_f32(rng.standard_normal((oc, kernel, kernel, c), np.float32))
    return lambda: lowbit.conv2d_f32(x, w, padding=kernel // 2, isa=isa, threads=threads)


def xnor_gemm(m: int, n: int, k: int, threads: int, isa: str, rng: np.random.Generator) -> Call:
    """Bits packed beforehand, int32 sums."""
    a, b = (lowbit.pack_bits(rng.standard_normal((rows, k), np.float32)) for rows in (m, n))
    out = np.empty((m, n), np.int32)
    return lambda: lowbit.xnor_gemm(a, b, out=out, isa=isa, threads=threads)


def xnor_conv(h: int, c: int, kind: str, threads: int, isa: str, rng: np.random.Generator) -> Call:
    """3x3, padded with +1: "float" packs float32 and gives float32 (scale, bias), "bits" goes from bits to bits."""
    x = rng.standard_normal((1, h, h, c), np.float32)
    w = lowbit.pack_bits(rng.standard_normal((c, 3, 3, c), np.float32))
    if kind == "bits":
        bits, out_bits = lowbit.pack_bits(x), lowbit.pack_bits(x)
        threshold = np.zeros(c, np.int32)
        return lambda: lowbit.xnor_conv2d(
            bits, w, padding=1, threshold=threshold, out_dtype="bits", out=out_bits, isa=isa, threads=threads
        )
    scale, bias = np.full(c, 0.01, np.float32), np.zeros(c, np.float32)
    out = np.empty((1, h, h, c), np.float32)
    return lambda: lowbit.xnor_conv2d(x, w, padding=1, scale=scale, bias=bias, out=out, isa=isa, threads=threads)


def codebook_gemm(
    m: int, n: int, k: int, bits: int, mode: str, threads: int, isa: str, rng: np.random.Generator
) -> Call:
    """Weights tiled beforehand, one codebook, float32 in and out."""
    indices = lowbit.pack_indices(rng.integers(0, 1 << bits, (n, k), np.uint8), bits)
    w = lowbit.pack_codebook(indices, rng.standard_normal(1 << bits, np.float32))
    x, out = rng.standard_normal((m, k), np.float32), np.empty((m, n), np.float32)
    return lambda: lowbit.codebook_gemm(x, w, mode=mode, out=out, isa=isa, threads=threads)


def codebook_decode(count: int, bits: int, dtype: str, threads: int, isa: str, rng: np.random.Generator) -> Call:
    """Into a given buffer."""
    indices = lowbit.pack_indices(rng.integers(0, 1 << bits, (1, count), np.uint8), bits)
    codebook, out = np.arange(1 << bits).astype(dtype), np.empty((1, count), dtype)
    return lambda: lowbit.codebook_decode(indices, codebook, dtype, out=out, isa=isa, threads=threads)


_models: dict[str, object] = {}


def model(name: str):
    """The net through `lowbit.convert`, recipe int8 (binary nets: xnor-int8), calibrated on its QDQ twin's images."""
    if name not in _models:
        recipe = "xnor-int8" if nets.NETS[name].twin else "int8"
        images = list(nets.batches(name))
        _models[name] = lowbit.convert(str(nets.float_net(name)), recipe=recipe, calibration=images)
    return _models[name]


def net(name: str, threads: int, isa: str) -> Call:
    """A whole net at batch 1, from Python."""
    converted, x = model(name), next(nets.batches(name, 1))
    return lambda: converted.run(x, threads=threads, isa=isa)
