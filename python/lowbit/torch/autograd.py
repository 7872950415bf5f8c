"""Values with a gradient of one's own choice, and when there is none to keep or a graph is being made."""

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor | None) -> Tensor:
        if slope is not None:
            ctx.save_for_backward(slope)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0]
        for slope in ctx.saved_tensors:  # one or none
            gradient = gradient * slope.to(gradient.dtype)
        return gradient, None, None


def straight_through(x: Tensor, value: Tensor, slope: Tensor | None = None) -> Tensor:
    """``value`` forward; backward ``slope`` times the incoming gradient, to ``x``: what all estimators are made of.

    Args:
        x: tensor that receives the gradient.
        value: result, of x's shape.
        slope: factor of the gradient, of x's shape or broadcast to it (bool or float); 1 where None.

    Example:
        >>> import torch
        >>> from lowbit.torch import straight_through
        >>> x = torch.tensor([0.2, 1.7], requires_grad=True)
        >>> y = straight_through(x, x.detach().round(), torch.tensor([1.0, 0.5]))
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([0.0, 2.0], [1.0, 0.5])
    """
    result: Tensor = _StraightThrough.apply(x, value, slope)
    return result


def wants_gradient(x: Tensor) -> bool:
    """Whether a slope has to be kept; where not, the estimators leave only plain operators in a traced graph."""
    return torch.is_grad_enabled() and x.requires_grad


def traced() -> bool:
    """Whether a graph is being made of what runs, by torch.export, torch.compile or torch.jit.trace (ONNX)."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()
