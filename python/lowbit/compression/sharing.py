"""Weight sharing: every weight becomes one of a few, and those few are fine-tuned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.codebook import kmeans1d
from lowbit.compression.pruning import Mask, check_weights

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def codebook_rows(per: str, shape: tuple[int, ...], layer: str = "") -> tuple[int, int]:
    """How many codebooks a layer has, and how many input columns share one.

    Args:
        per: ``tensor``, ``channel`` (a codebook for each output channel), or ``columns:G`` (for each group of G input
            columns of the (oc, k) matrix; the last group may be shorter).
        shape: of the weights, output channels first.
        layer: named in errors.

    Returns:
        (codebooks, columns that share one; 0 but for columns).

    Raises:
        ValueError: another ``per``.

    Example:
        >>> [codebook_rows(per, (8, 3, 3, 4)) for per in ("tensor", "channel", "columns:16")]
        [(1, 0), (8, 0), (3, 16)]
    """
    if per == "tensor":
        return 1, 0
    if per == "channel":
        return shape[0], 0
    size = per.removeprefix("columns:")
    if size == per or not size.isdecimal() or int(size) == 0:
        where = f"layer {layer!r}: " if layer else ""
        raise ValueError(f"{where}per {per!r} is not tensor, channel or columns:G")
    return -(-int(np.prod(shape[1:], dtype=np.int64)) // int(size)), int(size)


def codebook_row(rows: int, group_size: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The codebook that each weight uses, (oc, k) or what broadcasts to it; see :func:`codebook_rows`."""
    if group_size:
        return np.arange(int(np.prod(shape[1:], dtype=np.int64)))[None, :] // group_size
    return np.arange(rows)[:, None]  # one row, or one for each channel


def share_weights(
    weights: Floats, bits: int, *, mask: Mask | None = None, init: str = "linear", per: str = "tensor", layer: str = ""
) -> tuple[Floats, Codes]:
    """Cluster weights by k-means, so that each is one of at most ``2**bits`` values.

    With a mask, or with zeros among the weights that a mask would drop (``mask=weights != 0``), code 0 is 0.0 and
    stands for the dropped weights; the surviving ones share the other ``2**bits - 1`` entries. Weights with no more
    distinct values than there are entries keep them exactly, and the codebook is that much shorter.

    Args:
        weights: float32, any shape.
        bits: 1 to 8.
        mask: True for the weights that survived pruning; None for a dense layer.
        init: ``linear``, ``density``, ``forgy`` or ``optimal``, see ``lowbit.kmeans1d``.
        per: what has a codebook of its own: ``tensor``, ``channel`` or ``columns:G``, see :func:`codebook_rows`.
        layer: named in errors.

    Returns:
        codebook: float32 (k,), k <= 2**bits, ascending but for the 0.0 in front; (rows, k) but for ``tensor``, where
            rows that need fewer entries repeat their last one.
        codes: uint8, shape of ``weights``.

    Raises:
        ValueError: bits outside 1..8, an unknown ``init`` or ``per``, a mask of another shape, weights that are not
            finite.
        TypeError: weights that are not float32.

    Source: Deep Compression (arXiv 1510.00149), section 3.

    Example:
        >>> import numpy as np
        >>> w = np.float32([0.0, 1.0, 1.1, 0.0, -2.0])
        >>> codebook, codes = share_weights(w, 2, mask=w != 0, init="optimal")
        >>> codes
        array([0, 2, 3, 0, 1], dtype=uint8)
    """
    where = f"layer {layer!r}: " if layer else ""
    weights = check_weights(weights, layer)
    if not 1 <= bits <= 8:
        raise ValueError(f"{where}bits is {bits}; it must be 1 to 8")
    if mask is not None and mask.shape != weights.shape:
        raise ValueError(f"{where}the mask is {mask.shape}, the weights are {weights.shape}")
    if per == "tensor":
        return _share_row(weights, bits, mask, init, where)
    rows, group_size = codebook_rows(per, weights.shape, layer)
    matrix = weights.reshape(weights.shape[0], -1)
    codes = np.zeros(matrix.shape, np.uint8)
    books = []
    for row in range(rows):
        part = _part(row, group_size)
        alive = None if mask is None else mask.reshape(matrix.shape)[part]
        book, codes[part] = _share_row(np.ascontiguousarray(matrix[part]), bits, alive, init, where)
        books.append(book)
    entries = max(book.size for book in books)
    return np.stack([np.pad(b, (0, entries - b.size), "edge") for b in books]), codes.reshape(weights.shape)


def is_shared(weights: Floats, bits: int, per: str = "tensor") -> bool:
    """Whether :func:`share_weights` would keep weights as they are; zeros count as pruned where there are any.

    Example:
        >>> w = np.float32([[1, 2], [3, 4]])
        >>> is_shared(w, 1), is_shared(w, 1, "channel")
        (False, True)
    """
    rows, group_size = codebook_rows(per, weights.shape)
    matrix, entries = weights.reshape(weights.shape[0], -1), 2**bits - (not bool(weights.all()))
    parts = (_part(row, group_size) if per != "tensor" else np.s_[:] for row in range(rows))
    return all(_few(values[values != 0], entries) is not None for values in (matrix[part].ravel() for part in parts))


def _part(row: int, group_size: int) -> Any:
    """The weights of a (oc, k) matrix that a codebook of its own serves."""
    return np.s_[:, row * group_size : (row + 1) * group_size] if group_size else np.s_[row]


def _few(values: Floats, most: int) -> Floats | None:
    """The distinct values, if there are no more than that; a layer that was not shared yet shows it early."""
    distinct = np.unique(values[: 64 * most])
    if distinct.size <= most:
        distinct = np.unique(values)
    return distinct if distinct.size <= most else None


def _share_row(weights: Floats, bits: int, mask: Mask | None, init: str, where: str) -> tuple[Floats, Codes]:
    """The weights that one codebook serves."""
    flat = weights.reshape(-1)
    alive = np.ones(flat.size, np.bool_) if mask is None else mask.reshape(-1)
    entries = 2**bits - (mask is not None)
    values = flat[alive]
    distinct = _few(values, entries)
    if distinct is not None:
        book, chosen = distinct, np.searchsorted(distinct, values).astype(np.uint8)
    else:
        try:
            book, chosen = kmeans1d(values, entries, init=init)
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None
    codes = np.zeros(flat.size, np.uint8)
    if mask is None:
        return book, chosen.reshape(weights.shape)
    codes[alive] = chosen + 1
    return np.concatenate([np.zeros(1, np.float32), book]), codes.reshape(weights.shape)


def codebook_gradient(gradient: NDArray[Any], codes: Codes, entries: int, *, pinned: bool = False) -> NDArray[Any]:
    """Gradient of each centroid: the SUM over its weights, ``dL/dC_k = sum_ij dL/dW_ij [I_ij = k]``.

    Args:
        gradient: dL/dW, any real dtype.
        codes: uint8, same shape.
        entries: size of the codebook.
        pinned: entry 0 stands for pruned weights and must stay 0.0: its gradient is 0.

    Returns:
        (entries,), float64 summed, of the gradient's dtype.

    Raises:
        ValueError: shapes differ, or a code is not below ``entries``.

    Source: Deep Compression (arXiv 1510.00149), section 3.3, equation 3.

    Example:
        >>> codebook_gradient(np.float32([1, 2, 4]), np.uint8([1, 0, 1]), 2)
        array([2., 5.], dtype=float32)
    """
    if gradient.shape != codes.shape:
        raise ValueError(f"codebook_gradient: the gradient is {gradient.shape}, the codes are {codes.shape}")
    if codes.size and int(codes.max()) >= entries:
        raise ValueError(f"codebook_gradient: code {codes.max()} in a codebook of {entries}")
    out = np.bincount(codes.reshape(-1), gradient.reshape(-1).astype(np.float64), minlength=entries)
    if pinned:
        out[0] = 0.0
    return out.astype(gradient.dtype)


def finetune_codebook(
    codebook: Floats,
    codes: Codes,
    gradient: Callable[[Floats], NDArray[Any]],
    *,
    rate: float,
    steps: int,
    momentum: float = 0.0,
    pinned: bool = False,
) -> Floats:
    """Gradient descent on the centroids, assignments fixed: ``C_k -= rate * dL/dC_k``.

    Args:
        codebook: float32 (k,), where it starts.
        codes: uint8, the shape of the weights.
        gradient: called with the weights, float32 of that shape; returns dL/dW.
        rate: step size.
        steps: how many.
        momentum: of the heavy ball, 0 <= momentum < 1.
        pinned: entry 0 stays as it is.

    Returns:
        A new codebook.

    Raises:
        ValueError: see :func:`codebook_gradient`; or the gradient is not finite.

    Source: Deep Compression (arXiv 1510.00149), section 3.3.

    Example:
        >>> target = np.float32([0.0, 1.0, 3.0])
        >>> book = finetune_codebook(np.float32([0, 1]), np.uint8([0, 1, 1]), lambda w: w - target, rate=0.4, steps=20)
        >>> book.round(3)
        array([0., 2.], dtype=float32)
    """
    book, speed = codebook.astype(np.float64), np.zeros(codebook.size)
    for step in range(steps):
        slope = codebook_gradient(gradient(book.astype(np.float32)[codes]), codes, book.size, pinned=pinned)
        if not np.isfinite(slope).all():
            raise ValueError(f"finetune_codebook: the gradient of step {step} is not finite")
        speed = momentum * speed + slope
        book -= rate * speed
    return book.astype(np.float32)
