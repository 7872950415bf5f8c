"""Activations in few bits: XNOR-Net's K map, DoReFa's and PACT's quantised activations, learned thresholds."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.torch.estimators import estimator, wants_gradient
from lowbit.torch.weights import quantize_unit

Pair = int | tuple[int, int]


def k_map(x: Tensor, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1) -> Tensor:
    """XNOR-Net's scale per output position: mean ``|x|`` over channels, then over the window.

    ``K = A * k`` with ``A = mean_c |x|`` and k constant ``1 / (kh kw)``, with the convolution's own stride, padding and
    dilation; the padding counts as 0, so that K shrinks at the border. Source: XNOR-Net, section 3.2.

    Args:
        x: real activations ``(n, c, h, w)``.
        kernel_size: one number or (kh, kw).
        stride: as the convolution has it.
        padding: as the convolution has it.
        dilation: as the convolution has it.

    Returns:
        ``(n, 1, oh, ow)``.

    Example:
        >>> import torch
        >>> from lowbit.torch import k_map
        >>> x = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]], [[-1.0, 0.0], [1.0, 0.0]]]], requires_grad=True)
        >>> y = k_map(x, kernel_size=2)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad[0, 0].tolist()
        ([[[[1.0]]]], [[0.125, -0.125], [0.125, 0.0]])
    """
    kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    window = torch.full((1, 1, kh, kw), 1 / (kh * kw), dtype=x.dtype, device=x.device)
    return F.conv2d(x.abs().mean(-3, keepdim=True), window, None, stride, padding, dilation)


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


class LearnedSign(nn.Module):
    """The sign against a learned threshold per channel: ``estimator(x - threshold[c])``.

    The threshold gets minus the sum of x's gradients. At inference the threshold folds into the integer comparison.

    Args:
        channels: size of x's axis 1.
        activation: ``sign``, ``stochastic``, ``approx_sign``, ``sign_swish`` or a callable.

    Example:
        >>> import torch
        >>> from lowbit.torch import LearnedSign
        >>> layer = LearnedSign(2)
        >>> _ = layer.threshold.data.copy_(torch.tensor([0.5, -0.5]))
        >>> y = layer(torch.tensor([[0.3, -0.3], [0.7, -2.0]]))
        >>> y.sum().backward()
        >>> y.tolist(), layer.threshold.grad.tolist()
        ([[-1.0, 1.0], [1.0, -1.0]], [-2.0, -1.0])
    """

    def __init__(self, channels: int, activation: str = "sign"):
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels))
        self.activation = activation
        self._sign = estimator(activation, "LearnedSign")

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, ...)`` to +-1 of the same shape."""
        return self._sign(x - self.threshold.view(-1, *[1] * (x.ndim - 2)))

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{self.threshold.numel()}, activation={self.activation!r}"
