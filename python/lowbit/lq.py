"""LQ-Nets' quantizer on arrays: values in few bits, level by level, with a basis that is fitted to them.

Bit p of a code stands for basis[p] times -1 or +1 (``signed``: weights) or times 0 or 1 (activations after ReLU); a
value's level is the sum. All 2**bits sums, sorted, are the levels; a value takes the level whose interval holds it,
intervals end at the mid-points of neighbouring levels, and a value on a mid-point goes down.

Everything is float32 in a stated order, so that other implementations can give the same bits: a level is the sum of
its terms from p = 0 up, a mid-point ``0.5 * (low + high)``. The fit alone is float64.

Source: Zhang, Yang, Ye, Hua 2018 (LQ-Nets, arXiv 1807.10029), section 3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lowbit.arguments import Array, FloatArray

RIDGE = 1e-4


def levels(basis: npt.ArrayLike, *, signed: bool) -> tuple[FloatArray, Array]:
    """All sums of a basis, sorted, and the code of each.

    Components may be negative and may have crossed: the codes follow the sort.

    Args:
        basis: (..., K), K from 1 to 8.
        signed: bits stand for -1 and +1 instead of 0 and 1.

    Returns:
        levels (..., 2**K) float32, ascending; codes (..., 2**K) uint8, bit p of which belongs to basis[..., p].

    Raises:
        ValueError: no or more than 8 components, or one that is not finite.

    Example:
        >>> from lowbit import lq
        >>> lq.levels([2.0, 0.5], signed=False)
        (array([0. , 0.5, 2. , 2.5], dtype=float32), array([0, 2, 1, 3], dtype=uint8))
        >>> lq.levels([2.0, 0.5], signed=True)[0].tolist()
        [-2.5, -1.5, 1.5, 2.5]
    """
    basis = _checked(basis)
    terms = _terms(basis.shape[-1], signed).astype(np.float32)
    sums = basis[..., :1] * terms[:, 0]
    for p in range(1, basis.shape[-1]):
        sums = sums + basis[..., p : p + 1] * terms[:, p]
    order = np.argsort(sums, axis=-1, kind="stable")
    return np.take_along_axis(sums, order, -1), order.astype(np.uint8)


def thresholds(levels: npt.ArrayLike) -> FloatArray:
    """Mid-points of neighbouring levels, (..., 2**K) to (..., 2**K - 1) float32.

    Example:
        >>> from lowbit import lq
        >>> lq.thresholds([0.0, 0.5, 2.0, 2.5]).tolist()
        [0.25, 1.25, 2.25]
    """
    sums = np.asarray(levels, np.float32)
    return np.asarray(np.float32(0.5) * (sums[..., :-1] + sums[..., 1:]), np.float32)


def assign(x: npt.ArrayLike, basis: npt.ArrayLike, *, signed: bool) -> Array:
    """The code of every value.

    Args:
        x: values; with a basis per row, its first axis is the rows.
        basis: (K,), or (rows, K).
        signed: bits stand for -1 and +1.

    Returns:
        uint8 of x's shape, bit p for basis[..., p].

    Raises:
        ValueError: a NaN, rows that disagree, a basis that :func:`levels` refuses.

    Example:
        >>> from lowbit import lq
        >>> lq.assign([-1.0, 0.25, 0.3, 9.0], [2.0, 0.5], signed=False).tolist()
        [0, 0, 2, 3]
    """
    rows, basis, shape = _rows("assign", x, basis)
    sums, codes = levels(basis, signed=signed)
    return np.take_along_axis(codes, _intervals(rows, sums), -1).reshape(shape)


def quantize(x: npt.ArrayLike, basis: npt.ArrayLike, *, signed: bool) -> FloatArray:
    """The level of every value; arguments and errors as :func:`assign`.

    Example:
        >>> from lowbit import lq
        >>> lq.quantize([[-1.0, 0.2], [0.6, 3.0]], [[1.0], [2.0]], signed=True).tolist()
        [[-1.0, 1.0], [2.0, 2.0]]
    """
    rows, basis, shape = _rows("quantize", x, basis)
    sums, _ = levels(basis, signed=signed)
    return np.take_along_axis(sums, _intervals(rows, sums), -1).reshape(shape)


def qem_step(x: npt.ArrayLike | SortedRows, basis: npt.ArrayLike, *, signed: bool, ridge: float = RIDGE) -> FloatArray:
    """One alternation of quantization error minimisation: codes for this basis, then the best basis for these codes.

    ``(B B^T + ridge I) v = B x + ridge v_old``. With count c_l and sum s_l of the values on level l, whose code is e_l,
    ``B B^T = sum_l c_l e_l e_l^T`` and ``B x = sum_l s_l e_l``: no copy of x per bit. The ridge, for activations too,
    keeps the old components where the codes do not determine them (a constant bit, a dead ReLU, fewer values than
    bits).

    Args:
        x: finite values, as in :func:`assign`; or :class:`SortedRows`, where many steps see the same values.
        basis: (K,), or (rows, K): the old one.
        signed: bits stand for -1 and +1.
        ridge: see above.

    Returns:
        The new basis, float32 of the old one's shape. No moving average: that is the caller's.

    Raises:
        ValueError: values that are not finite, no values, rows that disagree.

    Example:
        >>> from lowbit import lq
        >>> lq.qem_step([0.0, 0.0, 1.0, 3.0], [1.5], signed=False).round(3).tolist()
        [2.0]
        >>> lq.qem_step([0.0, 0.0, 0.0], [1.5], signed=False).tolist()
        [1.5]
    """
    if ridge <= 0:
        raise ValueError(f"qem_step: ridge is {ridge}, must be positive")
    given = _checked(basis)
    old = given if given.ndim == 2 else given.reshape(1, -1)
    rows = x if isinstance(x, SortedRows) else SortedRows(_rows("qem_step", x, given)[0])
    if len(rows) != len(old):
        raise ValueError(f"qem_step: values have {len(rows)} row(s), the basis {len(old)}")
    sums, codes = levels(old, signed=signed)
    counts, totals = rows.by_interval(thresholds(sums))
    terms = _terms(old.shape[-1], signed)[codes]
    squares = np.einsum("rl,rlp,rlq->rpq", counts, terms, terms)
    rest = np.einsum("rl,rlp->rp", totals, terms) - np.einsum("rpq,rq->rp", squares, old)
    # solved for v - v_old, which the ridge pulls to 0: what the codes say nothing about stays as it was, to the bit
    step = np.linalg.solve(squares + ridge * np.eye(old.shape[-1]), rest[..., None])[..., 0]
    return np.asarray(old + step, np.float32).reshape(given.shape)


def initial_basis(bits: int, *, signed: bool, deviation: float = 1.0) -> FloatArray:
    """The paper's basis for normal values, (bits,): the same steps between all levels.

    Signed, ``2^p 0.6745 deviation / 2^(bits - 1)`` for values of that standard deviation; else
    ``2^p 2 0.6745 deviation / (2^bits - 1)`` for their positive part.

    Example:
        >>> from lowbit import lq
        >>> lq.initial_basis(2, signed=True).tolist()
        [0.33724..., 0.67449...]
    """
    _check_bits("initial_basis", bits)
    step = 0.6745 * deviation * (1 / 2 ** (bits - 1) if signed else 2 / (2**bits - 1))
    return np.asarray(step * 2.0 ** np.arange(bits), np.float32)


def fit_basis(x: npt.ArrayLike, bits: int, *, signed: bool, per_row: bool = False, steps: int = 50) -> FloatArray:
    """A basis for given values: :func:`qem_step` until nothing moves, from several starts, the best of them.

    The starts are :func:`initial_basis` for the values' size, 1 to 2.2 times as wide; each row keeps its own best.

    Args:
        x: finite values, any shape.
        bits: 1 to 8.
        signed: bits stand for -1 and +1.
        per_row: one basis per entry of x's first axis instead of one for all.
        steps: at most so many per start.

    Returns:
        (bits,), or (rows, bits), float32.

    Raises:
        ValueError: values that are not finite, none, bits outside 1 to 8.

    Example:
        >>> from lowbit import lq
        >>> lq.fit_basis([0, 0, 1, 1, 2, 3], 2, signed=False).round(3).tolist()
        [1.0, 2.0]
    """
    _check_bits("fit_basis", bits)
    values = np.asarray(x, np.float32)
    rows = SortedRows(values.reshape(len(values), -1) if per_row else values.reshape(1, -1))
    size = np.sqrt(rows.squares / rows.length) * (1 if signed else np.sqrt(2))
    best, least = np.zeros((len(rows), bits), np.float32), np.full(len(rows), np.inf)
    for wide in (1.0, 1.5, 2.2):
        basis = initial_basis(bits, signed=signed) * (wide * size[:, None]).astype(np.float32)
        for _ in range(steps):
            before, basis = basis, qem_step(rows, basis, signed=signed)
            if np.allclose(basis, before, rtol=1e-5, atol=0):
                break
        error = rows.error(basis, signed=signed)
        best[error < least] = basis[error < least]
        least = np.minimum(least, error)
    return best if per_row else best[0]


class SortedRows:
    """Rows of values, sorted, with running sums: what lies in an interval takes two look-ups.

    Args:
        rows: (rows, n) float32, finite, n >= 1.

    Raises:
        ValueError: values that are not finite, or none.

    Example:
        >>> import numpy as np
        >>> from lowbit.lq import SortedRows
        >>> rows = SortedRows(np.array([[3, 1, 2, 10]], np.float32))
        >>> counts, sums = rows.by_interval(np.array([[2.5]]))
        >>> counts.tolist(), sums.tolist()
        ([[2, 2]], [[3.0, 13.0]])
    """

    def __init__(self, rows: FloatArray):
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise ValueError(f"lq: values are {rows.shape}: at least one per row is needed")
        self.values = np.sort(rows, axis=1)
        if not np.isfinite(self.values[:, [0, -1]]).all():
            raise ValueError("lq: values hold NaN or infinity")
        self.length = rows.shape[1]
        self.running = np.zeros((len(rows), self.length + 1))
        np.cumsum(self.values, axis=1, dtype=np.float64, out=self.running[:, 1:])
        self.squares = np.einsum("rn,rn->r", self.values, self.values, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.values)

    def by_interval(self, ends: Array) -> tuple[Array, Array]:
        """Count (int64) and sum (float64) of each row's values in (-inf, end_0], (end_0, end_1], ..., (end_last, inf).

        Args:
            ends: (rows, L), ascending.

        Returns:
            Two of (rows, L + 1).
        """
        positions = np.empty((len(self), ends.shape[1] + 2), np.int64)
        positions[:, 0], positions[:, -1] = 0, self.length
        for row, (values, row_ends) in enumerate(zip(self.values, ends, strict=True)):
            positions[row, 1:-1] = np.searchsorted(values, row_ends, side="right")
        return np.diff(positions), np.diff(np.take_along_axis(self.running, positions, 1))

    def error(self, basis: npt.ArrayLike, *, signed: bool) -> Array:
        """The squared error of each row's quantization, (rows,) float64; basis (rows, K)."""
        sums, _ = levels(basis, signed=signed)
        counts, totals = self.by_interval(thresholds(sums))
        wide = sums.astype(np.float64)
        error: Array = self.squares + (counts * wide * wide - 2 * totals * wide).sum(-1)
        return error


def _terms(bits: int, signed: bool) -> Array:
    """(2**bits, bits): what bit p of code l multiplies basis[p] by."""
    ones = np.arange(2**bits)[:, None] >> np.arange(bits) & 1
    return 2 * ones - 1 if signed else ones


def _check_bits(function: str, bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"{function}: bits is {bits}, must be 1 to 8")


def _checked(basis: npt.ArrayLike) -> FloatArray:
    basis = np.asarray(basis, np.float32)
    if not (basis.ndim and 1 <= basis.shape[-1] <= 8):
        raise ValueError(f"lq: the basis is {basis.shape}, must have 1 to 8 components")
    if not np.isfinite(basis).all():
        raise ValueError("lq: the basis holds NaN or infinity")
    return basis


def _rows(function: str, x: npt.ArrayLike, basis: npt.ArrayLike) -> tuple[FloatArray, FloatArray, tuple[int, ...]]:
    """The values as rows, one per basis; the basis as (rows, K); the values' shape."""
    values, basis = np.asarray(x, np.float32), _checked(basis)
    if basis.ndim > 2 or (basis.ndim == 2 and (values.ndim == 0 or len(values) != len(basis))):
        raise ValueError(f"{function}: values {values.shape} and basis {basis.shape} disagree: (K,), or one per row")
    if np.isnan(values).any():
        raise ValueError(f"{function}: values hold NaN")
    return values.reshape(len(basis) if basis.ndim == 2 else 1, -1), basis.reshape(-1, basis.shape[-1]), values.shape


def _intervals(rows: FloatArray, sums: FloatArray) -> Array:
    """Which of the sorted levels each value takes."""
    if not rows.size:
        return np.zeros(rows.shape, np.intp)
    ends = thresholds(sums)
    index = np.zeros(rows.shape, np.uint8)
    for end in ends.T:
        index += rows > end[:, None]
    return index.astype(np.intp)
