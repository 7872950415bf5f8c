"""Pruned 4096 x 4096 layers, 4-bit codebook: sparse_gemm beside codebook_gemm and dense float, one process, in turns.

python bench/sparse.py [--density 0.08,0.15] [--batch 1,16] [--seconds 0.5]
"""

import argparse

import numpy as np

import lowbit
from lowbit.compression import CodedWeights
from timing import interleave

SIDE = 4096


def contenders(density: float, m: int) -> dict:
    """Calls by name; every one writes the same buffer."""
    rng = np.random.default_rng(0)
    codes = np.where(rng.random((SIDE, SIDE)) < density, rng.integers(1, 16, (SIDE, SIDE)), 0).astype(np.uint8)
    book = np.concatenate([[0], rng.normal(size=15)]).astype(np.float32)
    coded = CodedWeights(codes.shape, 4, book, codes.reshape(-1))
    x, y = rng.normal(size=(m, SIDE)).astype(np.float32), np.empty((m, SIDE), np.float32)
    sparse = lowbit.pack_sparse(coded)
    dense = lowbit.pack_codebook(lowbit.pack_indices(codes, 4), book)
    floats = lowbit.pack_f32(np.ascontiguousarray(book[codes].T))
    levels = [isa for isa in lowbit.isas() if isa in ("avx512_vnni", "avx2", "scalar")]
    calls = {f"sparse {i}": lambda i=i: lowbit.sparse_gemm(x, sparse, isa=i, threads=1, out=y) for i in levels}
    calls["codebook"] = lambda: lowbit.codebook_gemm(x, dense, threads=1, out=y)
    calls["float"] = lambda: lowbit.gemm_f32(x, floats, threads=1, out=y)
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--density", default="0.08,0.15")
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--seconds", type=float, default=0.5)
    args = parser.parse_args()
    for density in (float(d) for d in args.density.split(",")):
        for m in (int(b) for b in args.batch.split(",")):
            times = interleave(contenders(density, m), args.seconds)
            row = ", ".join(f"{name} {t.best * 1e3:.2f} ms" for name, t in times.items())
            print(f"density {density}, batch {m}: {row}", flush=True)


if __name__ == "__main__":
    main()
