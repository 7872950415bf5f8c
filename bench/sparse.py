"""Pruned layers, 4-bit codebook: sparse_gemm beside codebook_gemm and dense float, one process, in turns.

python bench/sparse.py [--side 4096] [--density 0.08,0.15] [--batch 1,16] [--seconds 0.5]
python bench/sparse.py --crossover     # the density at which sparse_gemm stops paying: the numbers of `sparse_pays`
"""

import argparse

import numpy as np

import lowbit
from lowbit.compression import CodedWeights
from timing import interleave


def contenders(side: int, density: float, m: int, isa: str | None = None) -> dict:
    """Calls by name; every one writes the same buffer."""
    rng = np.random.default_rng(0)
    codes = np.where(rng.random((side, side)) < density, rng.integers(1, 16, (side, side)), 0).astype(np.uint8)
    book = np.concatenate([[0], rng.normal(size=15)]).astype(np.float32)
    coded = CodedWeights(codes.shape, 4, book, codes.reshape(-1))
    x, y = rng.normal(size=(m, side)).astype(np.float32), np.empty((m, side), np.float32)
    sparse = lowbit.pack_sparse(coded)
    dense = lowbit.pack_codebook(lowbit.pack_indices(codes, 4), book)
    if isa is not None:
        return {
            "sparse": lambda: lowbit.sparse_gemm(x, sparse, isa=isa, threads=1, out=y),
            "codebook": lambda: lowbit.codebook_gemm(x, dense, isa=isa, threads=1, out=y),
        }
    floats = lowbit.pack_f32(np.ascontiguousarray(book[codes].T))
    levels = [isa for isa in lowbit.isas() if isa in ("avx512_vnni", "avx2", "scalar")]
    calls = {f"sparse {i}": lambda i=i: lowbit.sparse_gemm(x, sparse, isa=i, threads=1, out=y) for i in levels}
    calls["codebook"] = lambda: lowbit.codebook_gemm(x, dense, threads=1, out=y)
    calls["float"] = lambda: lowbit.gemm_f32(x, floats, threads=1, out=y)
    return calls


def crossover(side: int, m: int, isa: str, seconds: float) -> float:
    """The density at which both take the same time, to 2 %."""
    low, high = 0.0, 1.0
    while high - low > 0.02:
        middle = (low + high) / 2
        times = interleave(contenders(side, middle, m, isa), seconds)
        low, high = (middle, high) if times["sparse"].best < times["codebook"].best else (low, middle)
    return (low + high) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", default="4096")
    parser.add_argument("--density", default="0.08,0.15")
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--crossover", action="store_true")
    parser.add_argument("--isa", default="avx512,avx2", help="levels of --crossover")
    args = parser.parse_args()
    sides, batches = ([int(n) for n in text.split(",")] for text in (args.side, args.batch))
    if args.crossover:
        for isa in args.isa.split(","):
            for side in sides:
                found = ", ".join(f"m {m}: {crossover(side, m, isa, args.seconds):.2f}" for m in batches)
                print(f"{isa}, {side} x {side}: {found}", flush=True)
        return
    for side in sides:
        for density in (float(d) for d in args.density.split(",")):
            for m in batches:
                times = interleave(contenders(side, density, m), args.seconds)
                row = ", ".join(f"{name} {t.best * 1e3:.2f} ms" for name, t in times.items())
                print(f"{side} x {side}, density {density}, batch {m}: {row}", flush=True)


if __name__ == "__main__":
    main()
