"""Products with pruned weights that share a codebook: only the weights that are not 0 are held and multiplied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy.typing as npt

from lowbit import _core
from lowbit._core import PackedSparse
from lowbit.arguments import Array, FloatArray, optional_view, view

if TYPE_CHECKING:
    from lowbit.compression.coded import CodedWeights

__all__ = ["PackedSparse", "pack_sparse", "sparse_gemm"]


def pack_sparse(w: CodedWeights) -> PackedSparse:
    """Pruned weights in the order that `sparse_gemm` reads, made once: three bytes per weight that is not 0.

    Args:
        w: of `lowbit.compression.code_weights`, its first axis the output channels; sparse, or dense with code 0
            standing for 0.0. The other axes, flattened, are at most 65,536 columns.

    Returns:
        PackedSparse, with ``shape`` (n, k), ``entries`` and ``nbytes``.

    Raises:
        ValueError: code 0 is not 0.0, more columns than that, or an entry beyond the weights.

    Example:
        >>> import numpy as np, lowbit
        >>> from lowbit.compression import code_weights
        >>> lowbit.pack_sparse(code_weights(np.float32([[0, 0, 1.5, 0]]), bits=4)).entries
        1
    """
    from lowbit.compression.relative import relative_encode

    n, k = w.shape[0], w.size // w.shape[0] if w.shape[0] else 0
    gaps, codes = (w.gaps, w.codes) if w.gaps is not None else relative_encode(w.codes, 8)
    return _core.pack_sparse(gaps, codes, n, k, w.codebook)


def sparse_gemm(
    x: npt.ArrayLike,
    w: PackedSparse | CodedWeights,
    *,
    bias: npt.ArrayLike | None = None,
    clamp: tuple[float, float] | None = None,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> FloatArray:
    """``clamp(x @ w.T + bias)`` over the weights that are not 0.

    One chain of fused multiply-adds in the order of k: where x is finite, the numbers of ``codebook_gemm`` in float32
    mode, on every level and thread count. An infinity or NaN that meets only zeros does not show.

    Args:
        x: (m, k) float32.
        w: (n, k) packed weights, or what `pack_sparse` takes.
        bias: (n,) float32.
        clamp: least and greatest value of the result, such as (0, inf) for a ReLU.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (m, n) float32.

    Raises:
        TypeError: an array that is not float32.
        ValueError: shapes that disagree; see `pack_sparse`.

    Example:
        >>> import numpy as np, lowbit
        >>> from lowbit.compression import code_weights
        >>> w = lowbit.pack_sparse(code_weights(np.float32([[0, 0, 1.5, 0], [2, 0, 0, -1]]), bits=4))
        >>> lowbit.sparse_gemm(np.float32([[1, 2, 3, 4]]), w)
        array([[ 4.5, -2. ]], dtype=float32)
    """
    packed = w if isinstance(w, PackedSparse) else pack_sparse(w)
    return _core.sparse_gemm(view(x), packed, optional_view(bias), clamp, out, isa, threads)
