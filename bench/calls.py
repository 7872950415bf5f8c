"""What a call costs beside its kernel, the entropy search, and the doors from C++ (bench/cpp)."""

import pathlib
import subprocess

import numpy as np

import compare
import lowbit
import ours
from timing import interleave

ROOT = pathlib.Path(__file__).resolve().parents[1]


def doors(isa: str, threads: int, folder: pathlib.Path) -> dict[str, float]:
    """Seconds per product of compare.GEMMS from C++, by the program `gemm_i8_doors` in a CMake build folder."""
    program = next(folder.rglob("gemm_i8_doors"), None)
    if program is None:
        raise FileNotFoundError(
            f"no gemm_i8_doors under {folder}: cmake -S {ROOT} -B {folder} -DLOWBIT_BENCH=ON && cmake --build {folder}"
        )
    shapes = [str(v) for shape in [(1, 1, 1), *compare.GEMMS] for v in shape]
    done = subprocess.run([program, isa, str(threads), *shapes], capture_output=True, text=True, check=True)
    lines = (line.split() for line in done.stdout.splitlines())
    return {f"{m} x {n} x {k}": float(seconds) for m, n, k, seconds in lines}


def overhead(isa: str, seconds: float) -> dict[str, float]:
    """Seconds per call of products so small that the call is all there is; and 64^3 from Python."""
    rng = np.random.default_rng(0)
    a, b = np.ones((1, 1), np.uint8), lowbit.pack_i8(np.ones((1, 1), np.int8))
    x, w = np.ones((1, 1, 1, 1), np.uint8), lowbit.pack_conv2d_i8(np.ones((1, 1, 1, 1), np.int8))
    out, pixel = np.empty((1, 1), np.int32), np.empty((1, 1, 1, 1), np.int32)
    times = interleave(
        {
            "gemm_i8 1 x 1 x 1": lambda: lowbit.gemm_i8(a, b, out=out, isa=isa, threads=1),
            "gemm_i8 1 x 1 x 1, defaults": lambda: lowbit.gemm_i8(a, b),
            "conv2d_i8 1 pixel": lambda: lowbit.conv2d_i8(x, w, out=pixel, isa=isa, threads=1),
            "gemm_i8 64 x 64 x 64": ours.gemm(64, 64, 64, 1, isa, rng),
        },
        seconds,
    )
    return {name: t.best for name, t in times.items()}


def entropy_search(seconds: float) -> dict[str, float]:
    """Seconds of one search over 2048 bins, for a bell, a long tail and a ReLU's output."""
    rng = np.random.default_rng(0)
    samples = {
        "gaussian": rng.standard_normal(200_000),
        "long tail": rng.standard_t(2, 200_000),
        "relu": np.maximum(rng.standard_normal(200_000), 0),
    }
    calls = {}
    for name, x in samples.items():
        observer = lowbit.EntropyObserver(bins=2048)
        observer.observe(x.astype(np.float32))
        counts = np.histogram(np.abs(x), 2048)[0].astype(np.int64)
        calls[f"{name}, search"] = lambda c=counts: lowbit._core.entropy_search(c)
        calls[f"{name}, observer's qparams"] = lambda o=observer: o.qparams(dtype="int8")
    return {name: t.best for name, t in interleave(calls, seconds).items()}
