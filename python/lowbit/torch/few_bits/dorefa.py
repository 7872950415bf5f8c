"""DoReFa-Net: weights, activations and gradients on equidistant levels."""

from typing import Any

import torch
from torch import Tensor

from lowbit.torch.autograd import straight_through, wants_gradient
from lowbit.torch.binary.estimators import hard_sign


def quantize_unit(x: Tensor, bits: int) -> Tensor:
    """DoReFa's ``quantize_k``: x in [0, 1] to the nearest of ``2^bits`` equidistant levels; gradient 1.

    Ties go to even, as ``torch.round`` does.

    Raises:
        ValueError: bits outside 1 to 16.

    Example:
        >>> import torch
        >>> from lowbit.torch import quantize_unit
        >>> [round(v, 3) for v in quantize_unit(torch.tensor([0.0, 0.3, 0.6, 1.0]), 2).tolist()]
        [0.0, 0.333, 0.667, 1.0]
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"quantize_unit: bits {bits} is outside 1 to 16")
    levels = 2**bits - 1
    value = torch.round(x.detach() * levels) / levels
    return straight_through(x, value) if wants_gradient(x) else value


def dorefa_weight(weight: Tensor, bits: int = 1) -> Tensor:
    """DoReFa-Net's weights: ``2 quantize_k(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1``; one bit: ``sign(w) mean|w|``.

    Source: DoReFa-Net (Zhou et al. 2016), section 2.3, as recalled in the survey's terms. In one bit the scale is one
    per layer and the gradient 1.

    Args:
        weight: latent weights, any shape.
        bits: 1 to 16.

    Example:
        >>> import torch
        >>> from lowbit.torch import dorefa_weight
        >>> w = torch.tensor([-0.4, 0.0, 1.0])
        >>> [round(v, 3) for v in dorefa_weight(w).tolist()]
        [-0.467, 0.467, 0.467]
        >>> [round(v, 3) for v in dorefa_weight(w, bits=2).tolist()]
        [-0.333, 0.333, 1.0]
    """
    if bits == 1:
        value = hard_sign(weight) * weight.detach().abs().mean()
        return straight_through(weight, value) if wants_gradient(weight) else value
    squashed = torch.tanh(weight)
    return 2 * quantize_unit(squashed / (2 * squashed.abs().max()) + 0.5, bits) - 1


def dorefa_activation(x: Tensor, bits: int) -> Tensor:
    """``quantize_k(clip(x, 0, 1))``; the gradient is 1 inside [0, 1], 0 outside.

    Source: DoReFa-Net (Zhou et al. 2016), section 2.4.

    Example:
        >>> import torch
        >>> from lowbit.torch import dorefa_activation
        >>> x = torch.tensor([-0.5, 0.3, 2.0], requires_grad=True)
        >>> y = dorefa_activation(x, bits=2)
        >>> y.sum().backward()
        >>> [round(v, 3) for v in y.tolist()], x.grad.tolist()
        ([0.0, 0.333, 1.0], [0.0, 1.0, 0.0])
    """
    return quantize_unit(x.clamp(0, 1), bits)


class _DorefaGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: int, generator: torch.Generator | None) -> Tensor:
        ctx.bits, ctx.generator = bits, generator
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        g = gradients[0]
        top = 2 * g.abs().amax(dim=tuple(range(1, g.ndim)), keepdim=True) if g.ndim > 1 else 2 * g.abs()
        noise = (torch.rand(g.shape, generator=ctx.generator, dtype=g.dtype, device=g.device) - 0.5) / (2**ctx.bits - 1)
        unit = (g / torch.where(top > 0, top, torch.ones_like(top)) + 0.5 + noise).clamp(0, 1)
        return top * (quantize_unit(unit, ctx.bits) - 0.5), None, None


def dorefa_gradient(x: Tensor, bits: int, generator: torch.Generator | None = None) -> Tensor:
    """X forward; backward, the gradient in ``bits`` bits, scaled by each sample's maximum and rounded with noise.

    ``2 m (quantize_k(g / (2 m) + 1/2 + u) - 1/2)`` with m the sample's ``max|g|`` and u uniform in half a step either
    way, so that the rounding is unbiased inside the range. Source: DoReFa-Net (Zhou et al. 2016), section 2.5.

    Args:
        x: ``(n, ...)``.
        bits: 1 to 16.
        generator: source of the noise; torch's global one where None.

    Example:
        >>> import torch
        >>> from lowbit.torch import dorefa_gradient
        >>> x = torch.zeros(1, 2, requires_grad=True)
        >>> dorefa_gradient(x, bits=8).backward(torch.tensor([[1.0, -0.5]]))
        >>> bool((x.grad - torch.tensor([[1.0, -0.5]])).abs().max() < 0.02)
        True
    """
    result: Tensor = _DorefaGradient.apply(x, bits, generator)
    return result
