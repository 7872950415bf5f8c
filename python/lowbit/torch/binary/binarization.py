"""Weights in one bit or three values, from the real weights that training keeps.

A filter is one row of the weight's first axis: ``weight[o]``, of n = weight[o].numel() values.
"""

from typing import Any

import torch
from torch import Tensor

from lowbit.torch.autograd import straight_through, wants_gradient
from lowbit.torch.binary.estimators import error_decay_sign, hard_sign, stochastic_value


def filter_mean(weight: Tensor) -> Tensor:
    """Mean over each filter, kept in broadcastable shape ``(out, 1, ...)``."""
    return weight.mean(dim=tuple(range(1, weight.ndim)), keepdim=True)


def binary_connect(weight: Tensor, stochastic: bool = False, generator: torch.Generator | None = None) -> Tensor:
    """+-1 weights with an unmasked gradient: what reaches the binary weight reaches the real one.

    Source: BinaryConnect, sections 2.2 to 2.4. The real weights stay in [-1, 1] by clipping after the update
    (:func:`lowbit.torch.binary_steps`), not by a mask.

    Args:
        weight: real weights, any shape.
        stochastic: +1 with probability ``clip((w + 1) / 2, 0, 1)`` instead of the sign.
        generator: source of the draws; torch's global one where None.

    Example:
        >>> import torch
        >>> from lowbit.torch import binary_connect
        >>> w = torch.tensor([-1.5, 0.0, 0.7], requires_grad=True)
        >>> wb = binary_connect(w)
        >>> (wb * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        >>> wb.tolist(), w.grad.tolist()
        ([-1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    """
    value = stochastic_value(weight, generator) if stochastic else hard_sign(weight)
    return straight_through(weight, value) if wants_gradient(weight) else value


def xnor_alpha(weight: Tensor) -> Tensor:
    """The scale per filter that minimises ``|W - alpha sign(W)|^2``: mean of ``|W|``, shape ``(out,)``.

    Source: XNOR-Net, section 3.1, equation 6.

    Example:
        >>> import torch
        >>> from lowbit.torch import xnor_alpha
        >>> xnor_alpha(torch.tensor([[1.0, -3.0], [0.5, 0.0]])).tolist()
        [2.0, 0.25]
    """
    return weight.abs().flatten(1).mean(1)


class _XnorWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, gradient: str) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.gradient = gradient
        return filter_mean(weight.abs()) * hard_sign(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        g, n = gradients[0], weight[0].numel()
        alpha, signs = filter_mean(weight.abs()), hard_sign(weight)
        if ctx.gradient == "exact":
            return signs * filter_mean(g * signs) + g * alpha * (weight.abs() <= 1), None
        if ctx.gradient == "paper":
            return g * (1 / n + alpha * (weight.abs() <= 1)), None
        centring = 1 - 1 / weight.shape[1] if weight.shape[1] > 1 else 1.0
        return g * (1 / n + alpha * (weight.abs() < 1)) * centring * n, None


def xnor_weight(weight: Tensor, gradient: str = "exact") -> Tensor:
    """``alpha sign(W)`` with alpha the filter's mean ``|W|``, taken anew from the latent weights at each call.

    With g the gradient at the result, n a filter's size and s = sign(W), the latent weight gets

    - ``exact``: ``s_i / n sum_j g_j s_j + g_i alpha 1[|W_i| <= 1]``, the chain rule with the hard-tanh estimator;
    - ``paper``: ``g_i (1/n + alpha 1[|W_i| <= 1])``, as printed in XNOR-Net, section 3.1;
    - ``released``: ``g_i (1/n + alpha 1[|W_i| < 1]) (1 - 1/c_in) n``, as the authors' code does under SGD.
      (1 - 1/c_in stands for the centring and is left out for one channel. For Adam the code multiplies everything by
      1e9 instead of n, which only makes Adam's epsilon vanish.)

    Args:
        weight: latent weights ``(out, in, ...)``.
        gradient: ``exact``, ``paper`` or ``released``.

    Raises:
        ValueError: unknown gradient.

    Example:
        >>> import torch
        >>> from lowbit.torch import xnor_weight
        >>> w = torch.tensor([[0.5, -1.5]], requires_grad=True)
        >>> g = torch.tensor([[1.0, 2.0]])
        >>> for gradient in ("exact", "paper", "released"):
        ...     w.grad = None
        ...     y = xnor_weight(w, gradient)
        ...     y.backward(g)
        ...     print(y.tolist(), w.grad.tolist())
        [[1.0, -1.0]] [[0.5, 0.5]]
        [[1.0, -1.0]] [[1.5, 1.0]]
        [[1.0, -1.0]] [[1.5, 1.0]]
    """
    if gradient not in ("exact", "paper", "released"):
        raise ValueError(f"xnor_weight: gradient {gradient!r} is not 'exact', 'paper' or 'released'")
    result: Tensor = _XnorWeight.apply(weight, gradient)
    return result


def balanced(weight: Tensor) -> Tensor:
    """Filters with mean 0 and standard deviation 1, so that their signs carry most information.

    Source: IR-Net (Qin et al. 2020), section 3.2 (Libra-PB), as recalled in the survey's terms. The standard deviation
    is the unbiased one; a constant filter gives zeros.

    Example:
        >>> import torch
        >>> from lowbit.torch import balanced
        >>> [[round(v, 3) for v in row] for row in balanced(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])).tolist()]
        [[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    centred = weight - filter_mean(weight)
    variance = centred.square().flatten(1).sum(1) / max(weight[0].numel() - 1, 1)
    return centred / variance.clamp(min=1e-24).sqrt().view(-1, *[1] * (weight.ndim - 1))


def libra_alpha(weight: Tensor) -> Tensor:
    """IR-Net's integer shift per filter, ``2^round(log2 mean|balanced(W)|)``, shape ``(out,)``; no gradient.

    Example:
        >>> import torch
        >>> from lowbit.torch import libra_alpha
        >>> libra_alpha(torch.tensor([[1.0, 2.0, 3.0], [-9.0, 0.0, 0.1]])).tolist()
        [0.5, 1.0]
    """
    return torch.exp2(torch.round(torch.log2(xnor_alpha(balanced(weight.detach())).clamp(min=2.0**-126))))


def libra_weight(weight: Tensor, t: float | Tensor = 1.0) -> Tensor:
    """``2^s sign(balanced(W))`` with the error-decay gradient through the sign and the exact one through the balancing.

    Source: IR-Net (Qin et al. 2020), sections 3.2 and 3.3.

    Args:
        weight: latent weights ``(out, in, ...)``.
        t: sharpness of :func:`error_decay_sign`.

    Example:
        >>> import torch
        >>> from lowbit.torch import libra_weight
        >>> libra_weight(torch.tensor([[1.0, 2.0, 3.0], [-9.0, 0.0, 0.1]])).tolist()
        [[-0.5, 0.5, 0.5], [-1.0, 1.0, 1.0]]
    """
    scale = libra_alpha(weight).view(-1, *[1] * (weight.ndim - 1))
    return scale * error_decay_sign(balanced(weight), t)


def ternary_threshold(weight: Tensor, factor: float = 0.7) -> Tensor:
    """``factor`` times each filter's mean ``|W|``: weights up to it become 0 (TWN, section 2.2, equation 6)."""
    return factor * filter_mean(weight.detach().abs())


def ternary_codes(weight: Tensor, factor: float = 0.7) -> Tensor:
    """-1, 0 or +1: the sign where ``|W|`` exceeds the threshold; no gradient.

    Example:
        >>> import torch
        >>> from lowbit.torch import ternary_codes
        >>> ternary_codes(torch.tensor([[0.9, -0.1, -0.6, 0.0]])).tolist()
        [[1.0, 0.0, -1.0, 0.0]]
    """
    weight = weight.detach()
    return torch.where(weight.abs() > ternary_threshold(weight, factor), hard_sign(weight), torch.zeros_like(weight))


def ternary_alpha(weight: Tensor, factor: float = 0.7) -> Tensor:
    """Mean ``|W|`` over the weights that stay, per filter, shape ``(out,)``; 0 for a filter of zeros; no gradient.

    Example:
        >>> import torch
        >>> from lowbit.torch import ternary_alpha
        >>> ternary_alpha(torch.tensor([[0.9, -0.1, -0.6, 0.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
        [0.75, 0.0]
    """
    kept = ternary_codes(weight, factor).abs().flatten(1)
    return (kept * weight.detach().abs().flatten(1)).sum(1) / kept.sum(1).clamp(min=1)


def ternary_weight(weight: Tensor, factor: float = 0.7) -> Tensor:
    """``alpha`` times codes in {-1, 0, +1}, with a straight-through gradient of 1 everywhere.

    Source: Ternary Weight Networks (Li et al. 2016), sections 2.2 and 2.3; threshold and alpha per filter.

    Args:
        weight: latent weights ``(out, in, ...)``.
        factor: of the mean ``|W|``, for the threshold.

    Example:
        >>> import torch
        >>> from lowbit.torch import ternary_weight
        >>> w = torch.tensor([[0.9, -0.1, -0.6, 0.0]], requires_grad=True)
        >>> y = ternary_weight(w)
        >>> y.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        >>> y.tolist(), w.grad.tolist()
        ([[0.75, 0.0, -0.75, 0.0]], [[1.0, 2.0, 3.0, 4.0]])
    """
    shape = (-1, *[1] * (weight.ndim - 1))
    value = ternary_alpha(weight, factor).view(shape) * ternary_codes(weight, factor)
    return straight_through(weight, value) if wants_gradient(weight) else value


def lab_alpha(weight: Tensor, curvature: Tensor) -> Tensor:
    """Loss-aware scale per filter, ``|d w|_1 / |d|_1``, with d a diagonal estimate of the loss's curvature.

    Source: Loss-Aware Binarization (Hou et al. 2017), section 3.2, as recalled in the survey's terms; d is the square
    root of Adam's second moment. With constant d it is XNOR-Net's alpha. No gradient.

    Args:
        weight: latent weights ``(out, in, ...)``.
        curvature: d >= 0, of the same shape; a filter whose d are all 0 gets the mean ``|W|``.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> from lowbit.torch import lab_alpha
        >>> lab_alpha(torch.tensor([[1.0, -3.0]]), torch.tensor([[3.0, 1.0]])).tolist()
        [1.5]
    """
    if weight.shape != curvature.shape:
        raise ValueError(f"lab_alpha: weight {tuple(weight.shape)} but curvature {tuple(curvature.shape)}")
    size, d = weight.detach().abs().flatten(1), curvature.detach().flatten(1)
    total = d.sum(1)
    return torch.where(total > 0, (size * d).sum(1) / total.clamp(min=2.0**-126), size.mean(1))
