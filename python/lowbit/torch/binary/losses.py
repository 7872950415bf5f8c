"""Losses of the binary papers."""

import torch
from torch import Tensor
from torch.nn import functional as F


def squared_hinge(logits: Tensor, target: Tensor) -> Tensor:
    """``mean(max(0, 1 - t y)^2)`` over batch and classes, with t = +1 for the right class, -1 for the others.

    Source: BinaryConnect, section 3, and its code (the L2-SVM output layer).

    Args:
        logits: ``(n, classes)`` real.
        target: ``(n,)`` class numbers.

    Example:
        >>> import torch
        >>> from lowbit.torch import squared_hinge
        >>> logits = torch.tensor([[0.5, -2.0]], requires_grad=True)
        >>> loss = squared_hinge(logits, torch.tensor([0]))
        >>> loss.backward()
        >>> loss.item(), logits.grad.tolist()
        (0.125, [[-0.5, 0.0]])
    """
    signs = 2.0 * F.one_hot(target, logits.shape[1]).to(logits.dtype) - 1
    return (1 - signs * logits).clamp(min=0).square().mean()


def distribution_loss(x: Tensor, mismatch: float = 1.0) -> Tensor:
    """Keeps activations before a sign from degenerating, saturating and mismatching the gradient.

    With m and s the mean and standard deviation per channel over batch and positions, the mean over channels of
    ``max(0, 2 - |m| - s)^2 + max(0, s - 4)^2`` (values too small to spread, or far outside the sign's gradient), plus
    ``mismatch`` times the mean of ``max(0, m^2 - s^2)`` (nearly all on one side).
    Source: BNN-DL (Ding et al. 2019), in the form of its released code.

    Args:
        x: ``(n, c, ...)``, the input of a binary layer.
        mismatch: weight of the second term.

    Returns:
        One value; add it to the loss, times a small factor.

    Example:
        >>> import torch
        >>> from lowbit.torch import distribution_loss
        >>> x = torch.tensor([[3.0], [5.0]], requires_grad=True)  # mean 4, deviation 1
        >>> loss = distribution_loss(x)
        >>> loss.backward()
        >>> round(loss.item(), 4), x.grad.T.tolist()
        (15.0, [[5.0, 3.0]])
    """
    values = x.transpose(0, 1).flatten(1)
    mean = values.mean(1)
    deviation = (values.var(1, correction=0) + 1e-10).sqrt()
    degenerate = (2 - mean.abs() - deviation).clamp(min=0).square()
    saturated = (deviation - 4).clamp(min=0).square()
    one_sided = (mean.square() - deviation.square()).clamp(min=0)
    return torch.mean(degenerate + saturated + mismatch * one_sided)
