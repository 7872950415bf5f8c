"""Reshaping, slicing, joining, and the shape arithmetic around them."""

from __future__ import annotations

import numpy as np

from lowbit.graph.constants import BATCH_MARK
from lowbit.graph.importer import Importer, Node, marked, rule
from lowbit.graph.net import BATCH, NHWC, Perm, Shape, Tensor


@rule("Identity", "Dropout")
def identity(ctx: Importer, node: Node) -> None:
    """Nothing at inference."""
    if node.op == "Dropout" and len([o for o in node.outputs if o]) > 1:
        raise node.unsupported("the mask output is not supported")
    ctx.alias(node, ctx.tensor(node))


@rule("Cast")
def cast(ctx: Importer, node: Node) -> None:
    """A cast of an activation to float32, or of a comparison to bool, is nothing."""
    if int(node.attrs["to"]) not in (1, 9):
        raise node.unsupported("only a cast to float32 is supported on activations")
    ctx.alias(node, ctx.tensor(node))


@rule("Shape")
def shape_of(ctx: Importer, node: Node) -> None:
    """A shape, known but for the batch."""
    v = ctx.value(node, 0)
    whole = marked(v.onnx_shape) if isinstance(v, Tensor) else np.array(v.shape, dtype=np.int64)
    start, end = int(node.attrs.get("start", 0)), node.attrs.get("end")
    ctx.set(node, whole[start : None if end is None else int(end)])


@rule("Size")
def size_of(ctx: Importer, node: Node) -> None:
    """Number of elements."""
    v = ctx.value(node, 0)
    ctx.set(node, np.array(np.prod(marked(v.onnx_shape)) if isinstance(v, Tensor) else v.size, dtype=np.int64))


def target_shape(ctx: Importer, node: Node, t: Tensor, wanted: list[int]) -> Shape:
    """A Reshape's target with the batch leading."""
    if not wanted:
        raise node.unsupported("it would drop the batch axis")
    lead = wanted[0]
    shape = list(wanted)
    if not node.attrs.get("allowzero", 0):
        shape = [t.onnx_shape[i] if s == 0 else s for i, s in enumerate(shape)]
    rest = shape[1:]
    is_batch = lead in (0, -1, BATCH_MARK) or lead == ctx.exported_batch
    if is_batch and -1 in rest and lead != -1:
        known = int(np.prod([s for s in rest if s != -1]))
        if rest.count(-1) == 1 and known and t.items % known == 0:
            rest[rest.index(-1)] = t.items // known
    if not is_batch or any(s < 1 or s % BATCH_MARK == 0 for s in rest) or int(np.prod(rest, dtype=np.int64)) != t.items:
        shown = ["N" if s == BATCH_MARK else s for s in wanted]
        raise node.unsupported(
            f"{t.onnx_shape} to {shown}: only reshapes that keep the leading batch axis are supported"
        )
    return (BATCH, *rest)


def _blocks(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of old and new axes with equal sizes: (2, 6) -> (2, 3, 2) is [([0], [0]), ([1], [1, 2])]."""
    out = [([0], [0])]
    i = j = 1
    while i < len(old) or j < len(new):
        a: list[int] = []
        b: list[int] = []
        left = right = 1
        while True:
            if left <= right and i < len(old) and (left < right or not a):
                left *= old[i]
                a.append(i)
                i += 1
            elif j < len(new) and (right < left or not b):
                right *= new[j]
                b.append(j)
                j += 1
            else:
                break
        if not a and not b:
            break
        out.append((a, b))
    return out


def reshape_to(ctx: Importer, node: Node, t: Tensor, shape: Shape) -> Tensor:
    """``t`` with ONNX shape ``shape``, moving data only where the stored order asks for it."""
    old = t.onnx_shape
    if t.flat is not None and shape == old:
        return t
    if t.flat is None and t.perm == NHWC and shape == (BATCH, t.items):
        _, h, w, c = t.shape
        out = ctx.emit(node, "reshape", [t], shape).output
        out.flat = (h, w, c) if h * w > 1 and c > 1 else None
        return out
    if t.flat is None and not t.is_plain:
        order = _regroup(old, shape, t.perm)
        if order is not None:
            return ctx.emit(node, "reshape", [t], [shape[p] for p in order], order).output
        t = _settle(ctx, t, old, shape)
        order = _regroup(old, shape, t.perm)
        if order is not None:
            return ctx.emit(node, "reshape", [t], [shape[p] for p in order], order).output
    return ctx.emit(node, "reshape", [ctx.plain(t)], shape).output


def _regroup(old: Shape, new: Shape, perm: Perm) -> Perm | None:
    """The stored order after a reshape that leaves memory alone, or None where there is no such order."""
    stored = [p for p in perm if old[p] != 1 or p == 0]
    order: list[int] = []
    used: set[int] = set()
    blocks = _blocks(old, new)
    position = 0
    by_first = {
        next((x for x in a if old[x] != 1 or x == 0), None): (a, b)
        for a, b in blocks
        if any(old[x] != 1 or x == 0 for x in a)
    }
    while position < len(stored):
        block = by_first.get(stored[position])
        if block is None:
            return None
        wanted = [x for x in block[0] if old[x] != 1 or x == 0]
        if stored[position : position + len(wanted)] != wanted:
            return None
        order += block[1]
        used.update(block[1])
        position += len(wanted)
    ones = [j for j in range(len(new)) if j not in used]
    if any(new[j] != 1 for j in ones):
        return None
    if len(new) == 4 and ones:  # put images' unit axes where NHWC has them
        merged = [p for p in NHWC if p in order or p in ones]
        if [p for p in merged if p in order] == order:
            return tuple(merged)
    return (order[0], *ones, *order[1:])


def _settle(ctx: Importer, t: Tensor, old: Shape, new: Shape) -> Tensor:
    """The stored order nearest to t's in which the axes that merge lie together, in order."""
    blocks = _blocks(old, new)
    place = {p: i for i, p in enumerate(t.perm)}
    blocks.sort(
        key=lambda block: max((place[x] for x in block[0] if old[x] != 1), default=-1) if block[0] != [0] else -2
    )
    return ctx.to_perm(t, tuple(x for a, _ in blocks for x in a))


@rule("Reshape")
def reshape(ctx: Importer, node: Node) -> None:
    """Reshape with a known target."""
    t = ctx.tensor(node)
    ctx.set(node, reshape_to(ctx, node, t, target_shape(ctx, node, t, [int(s) for s in ctx.constant(node, 1)])))


@rule("Flatten")
def flatten(ctx: Importer, node: Node) -> None:
    """Flatten everything but the batch."""
    t = ctx.tensor(node)
    if int(node.attrs.get("axis", 1)) % t.rank != 1:
        raise node.unsupported(f"axis {node.attrs['axis']} would merge the batch; only 1 is supported")
    ctx.set(node, reshape_to(ctx, node, t, (BATCH, t.items)))


@rule("Squeeze")
def squeeze(ctx: Importer, node: Node) -> None:
    """Drop axes of size 1."""
    t = ctx.tensor(node)
    given = ctx.axes(node, 1)
    axes = [i for i, s in enumerate(t.onnx_shape) if s == 1] if given is None else [a % t.rank for a in given]
    if any(t.onnx_shape[a] != 1 for a in axes):
        raise node.unsupported(f"axes {axes} of {t.onnx_shape} are not all 1 (the batch cannot be squeezed)")
    ctx.set(node, reshape_to(ctx, node, t, tuple(s for i, s in enumerate(t.onnx_shape) if i not in axes)))


@rule("Unsqueeze")
def unsqueeze(ctx: Importer, node: Node) -> None:
    """Add axes of size 1."""
    t = ctx.tensor(node)
    given = ctx.axes(node, 1) or []
    rank = t.rank + len(given)
    axes = {a % rank for a in given}
    if 0 in axes:
        raise node.unsupported("an axis before the batch is not supported")
    sizes = iter(t.onnx_shape)
    ctx.set(node, reshape_to(ctx, node, t, tuple(1 if i in axes else next(sizes) for i in range(rank))))


@rule("Transpose")
def transpose(ctx: Importer, node: Node) -> None:
    """Nothing moves: only the names of the axes change."""
    t = ctx.tensor(node)
    perm = [int(p) for p in node.attrs.get("perm", range(t.rank)[::-1])]
    if perm[0] != 0:
        raise node.unsupported(f"perm {perm} moves the batch axis")
    if t.flat is not None:
        t = ctx.plain(t)
    where = {p: i for i, p in enumerate(perm)}
    out = ctx.emit(node, "reshape", [t], t.shape, tuple(where[p] for p in t.perm)).output
    ctx.set(node, out)


@rule("Concat")
def concat(ctx: Importer, node: Node) -> None:
    """Concat of activations."""
    parts = [ctx.tensor(node, i) for i in range(len(node.inputs))]
    axis = int(node.attrs["axis"]) % parts[0].rank
    if axis == 0:
        raise node.unsupported("along the batch axis is not supported")
    if len(parts) == 1:
        ctx.alias(node, parts[0])
        return
    plain = tuple(range(parts[0].rank))
    perm = next((p.perm for p in parts if p.flat is None and p.perm != plain), plain)
    parts = [ctx.to_perm(p, perm) for p in parts]
    stored = perm.index(axis)
    shape = list(parts[0].shape)
    shape[stored] = sum(p.shape[stored] for p in parts)
    for p in parts:
        if [s for i, s in enumerate(p.shape) if i != stored] != [s for i, s in enumerate(shape) if i != stored]:
            raise node.unsupported(f"shapes {[p.onnx_shape for p in parts]} differ beyond axis {axis}")
    ctx.set(node, ctx.emit(node, "concat", parts, shape, perm, axis=stored).output)


def _slice(ctx: Importer, node: Node, t: Tensor, cuts: dict[int, tuple[int, int, int]], output: int = 0) -> Tensor:
    """cuts: ONNX axis -> (start, size, step)."""
    if t.flat is not None:
        t = ctx.plain(t)
    starts = [cuts.get(p, (0, 0, 1))[0] for p in t.perm]
    steps = [cuts.get(p, (0, 0, 1))[2] for p in t.perm]
    shape = [cuts[p][1] if p in cuts else s for p, s in zip(t.perm, t.shape, strict=True)]
    if any(s < 1 for s in shape[1:]):
        raise node.unsupported(f"an empty slice of {t.onnx_shape}")
    layer = ctx.emit(node, "slice", [t], shape, t.perm, node.outputs[output], starts=starts, steps=steps)
    return layer.output


@rule("Slice")
def slice_(ctx: Importer, node: Node) -> None:
    """Slice with known bounds; the batch axis must stay whole."""
    t = ctx.tensor(node)
    starts, ends = ([int(v) for v in ctx.constant(node, i)] for i in (1, 2))
    axes = ctx.axes(node, 3) or list(range(len(starts)))
    given = ctx.optional(node, 4)
    steps = [1] * len(starts) if given is None else [int(v) for v in given]
    cuts = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= t.rank
        if axis == 0:
            if start == 0 and step == 1 and end >= BATCH_MARK:
                continue
            raise node.unsupported("slicing the batch axis is not supported")
        picked = range(t.onnx_shape[axis])[slice(start, max(end, -(1 << 40)), step)]
        cuts[axis] = (picked.start, len(picked), step)
    ctx.set(node, _slice(ctx, node, t, cuts) if cuts else t)


@rule("Split")
def split(ctx: Importer, node: Node) -> None:
    """Split as slices."""
    t = ctx.tensor(node)
    axis = int(node.attrs.get("axis", 0)) % t.rank
    if axis == 0:
        raise node.unsupported("splitting the batch axis is not supported")
    size, n = t.onnx_shape[axis], len(node.outputs)
    sizes = ctx.axes(node, 1, "split")
    if sizes is None:
        each = -(-size // n)
        sizes = [each] * (n - 1) + [size - each * (n - 1)]
    start = 0
    for i, s in enumerate(sizes):
        if node.outputs[i]:
            ctx.set(node, _slice(ctx, node, t, {axis: (start, s, 1)}, i), i)
        start += s


@rule("Gather")
def gather(ctx: Importer, node: Node) -> None:
    """Gather of evenly spaced indices, which is a slice."""
    t, index = ctx.tensor(node), ctx.constant(node, 1)
    axis = int(node.attrs.get("axis", 0)) % t.rank
    at = np.ravel(index) % t.onnx_shape[axis] if axis else np.ravel(index)
    step = int(at[1] - at[0]) if at.size > 1 else 1
    if axis == 0 or index.ndim > 1 or step == 0 or not np.array_equal(at, at[0] + step * np.arange(at.size)):
        raise node.unsupported("only evenly spaced constant indices off the batch axis are supported")
    out = _slice(ctx, node, t, {axis: (int(at[0]), at.size, step)})
    if index.ndim == 0:
        out = reshape_to(ctx, node, out, tuple(s for i, s in enumerate(out.onnx_shape) if i != axis))
    ctx.set(node, out)


@rule("Pad")
def pad(ctx: Importer, node: Node) -> None:
    """Constant padding; negative amounts crop."""
    t = ctx.tensor(node)
    if node.attrs.get("mode", "constant") != "constant":
        raise node.unsupported(f"mode {node.attrs['mode']!r}; only 'constant' is supported")
    amounts = [int(p) for p in ctx.constant(node, 1)]
    value = ctx.optional(node, 2)
    axes = ctx.axes(node, 3) or list(range(t.rank))
    before, after = [0] * t.rank, [0] * t.rank
    for i, axis in enumerate(axes):
        before[axis % t.rank], after[axis % t.rank] = amounts[i], amounts[i + len(axes)]
    if before[0] or after[0]:
        raise node.unsupported("padding the batch axis is not supported")
    crops = {
        i: (max(-b, 0), t.onnx_shape[i] - max(-b, 0) - max(-a, 0), 1)
        for i, (b, a) in enumerate(zip(before, after, strict=True))
        if b < 0 or a < 0
    }
    if crops:
        t = _slice(ctx, node, t, crops)
        before, after = [max(b, 0) for b in before], [max(a, 0) for a in after]
    if not any(before) and not any(after):
        ctx.set(node, t)
        return
    if t.flat is not None:
        t = ctx.plain(t)
    b, a = [before[p] for p in t.perm], [after[p] for p in t.perm]
    shape = [BATCH, *(s + i + j for s, i, j in zip(t.shape[1:], b[1:], a[1:], strict=True))]
    number = 0.0 if value is None or value.size == 0 else float(np.ravel(value)[0])
    ctx.set(node, ctx.emit(node, "pad", [t], shape, t.perm, before=b, after=a, value=number).output)


@rule("DepthToSpace", "SpaceToDepth")
def depth_to_space(ctx: Importer, node: Node) -> None:
    """Blocks of pixels and channels: reshape, transpose, reshape."""
    t = ctx.tensor(node)
    n, c, h, w = t.onnx_shape
    b = int(node.attrs["blocksize"])
    if node.op == "SpaceToDepth":
        split_to, turn, joined = (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4), (n, c * b * b, h // b, w // b)
    elif node.attrs.get("mode", "DCR") == "DCR":
        split_to, turn, joined = (n, b, b, c // b // b, h, w), (0, 3, 4, 1, 5, 2), (n, c // b // b, h * b, w * b)
    else:
        split_to, turn, joined = (n, c // b // b, b, b, h, w), (0, 1, 4, 2, 5, 3), (n, c // b // b, h * b, w * b)
    t = reshape_to(ctx, node, t, split_to)
    where = {p: i for i, p in enumerate(turn)}
    t = ctx.emit(node, "reshape", [t], t.shape, tuple(where[p] for p in t.perm)).output
    ctx.set(node, reshape_to(ctx, node, t, joined))
