"""Values of a few learned levels (LQ-Nets), as ``lowbit.torch`` writes them: nodes of domain ``lowbit``.

``LevelQuantize(x, basis (A,))``: the level in whose interval x lies; levels are the sums of the basis with bits {0, 1},
intervals end at mid-points, ties go down. ``BasisWeight(planes int8 (W, oc, ...) of +-1, basis (oc, W))``:
sum_p basis[o, p] * planes[p, o, ...], constants that feed a Conv or a Gemm.
"""

from __future__ import annotations

import numpy as np

from lowbit.graph.importer import Importer, Node, rule
from lowbit.graph.net import Array


def _basis(ctx: Importer, node: Node, rank: int) -> Array:
    """Input 1, finite, with 1 to 4 numbers along its last axis."""
    basis: Array = ctx.constant(node, 1).astype(np.float32)
    if basis.ndim != rank or not 1 <= basis.shape[-1] <= 4 or not np.isfinite(basis).all():
        raise node.unsupported(f"a basis of shape {basis.shape}; 1 to 4 finite numbers are needed")
    return basis


@rule("LevelQuantize", domain="lowbit")
def level_quantize(ctx: Importer, node: Node) -> None:
    """An activation in few levels."""
    t = ctx.tensor(node)
    layer = ctx.emit(node, "levels", [t], t.shape, t.perm)
    layer.output.flat = t.flat
    layer.params["basis"] = _basis(ctx, node, 1)
    ctx.set(node, layer.output)


@rule("BasisWeight", domain="lowbit")
def basis_weight(ctx: Importer, node: Node) -> None:
    """Weights in few levels; the layer that they feed keeps their basis."""
    planes, basis = ctx.constant(node, 0), _basis(ctx, node, 2)
    if planes.ndim < 2 or planes.shape[:2] != basis.shape[::-1] or not (np.abs(planes) == 1).all():
        raise node.unsupported(
            f"planes {planes.shape} of +-1 and a basis {basis.shape}: (W, oc, ...) and (oc, W) agree"
        )
    along = basis.T.reshape(*basis.shape[::-1], *(1,) * (planes.ndim - 2)).astype(np.float64)
    ctx.set(node, (along * planes).sum(axis=0).astype(np.float32))
    ctx.bases[node.outputs[0]] = basis
