"""PACT: activations clipped at a learned value."""

from typing import Any

import torch
from torch import Tensor, nn

from lowbit.torch.autograd import wants_gradient
from lowbit.torch.few_bits.dorefa import quantize_unit


class _Pact(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return quantize_unit(x.clamp(min=0).minimum(alpha) / alpha, bits) * alpha

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, alpha = ctx.saved_tensors
        g, above = gradients[0], x >= alpha
        return g * ((x >= 0) & ~above), (g * above).sum().view_as(alpha), None


def pact(x: Tensor, alpha: Tensor, bits: int) -> Tensor:
    """Clip to [0, alpha] with a learned alpha, in ``2^bits`` levels.

    ``y = (|x| - |x - alpha| + alpha) / 2``, quantised over [0, alpha]; gradients ``1[0 <= x < alpha]`` to x and
    ``1[x >= alpha]``, summed, to alpha. Source: PACT (Choi et al. 2018), section 3. Regularise alpha by L2.

    Args:
        x: any shape.
        alpha: one value > 0.
        bits: 1 to 16.

    Raises:
        ValueError: alpha holds more than one value.

    Example:
        >>> import torch
        >>> from lowbit.torch import pact
        >>> x = torch.tensor([-1.0, 0.9, 3.0], requires_grad=True)
        >>> alpha = torch.tensor(2.0, requires_grad=True)
        >>> y = pact(x, alpha, bits=2)
        >>> y.sum().backward()
        >>> [round(v, 3) for v in y.tolist()], x.grad.tolist(), alpha.grad.item()
        ([0.0, 0.667, 2.0], [0.0, 1.0, 0.0], 1.0)
    """
    if alpha.numel() != 1:
        raise ValueError(f"pact: alpha must be one value, not of shape {tuple(alpha.shape)}")
    if wants_gradient(x) or wants_gradient(alpha):
        result: Tensor = _Pact.apply(x, alpha, bits)
        return result
    return quantize_unit(x.clamp(min=0).minimum(alpha) / alpha, bits) * alpha


class Pact(nn.Module):
    """:func:`pact` with its alpha as a parameter.

    Args:
        bits: 1 to 16.
        alpha: initial clip.

    Example:
        >>> import torch
        >>> from lowbit.torch import Pact
        >>> layer = Pact(bits=4, alpha=6.0)
        >>> [round(v, 3) for v in layer(torch.tensor([-1.0, 3.1, 9.0])).tolist()], layer.penalty().item()
        ([0.0, 3.2, 6.0], 36.0)
    """

    def __init__(self, bits: int, alpha: float = 6.0):
        super().__init__()
        self.bits = bits
        self.alpha = nn.Parameter(torch.tensor(alpha))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return pact(x, self.alpha, self.bits)

    def penalty(self) -> Tensor:
        """``alpha^2``: add it to the loss, times a weight decay."""
        return self.alpha.square()

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}"
