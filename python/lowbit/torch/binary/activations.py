"""Inputs of binary layers: XNOR-Net's scale per position, signs against learned thresholds."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.torch.binary.estimators import estimator

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
