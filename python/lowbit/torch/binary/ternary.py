"""Ternary Weight Networks: weights in {-1, 0, +1} times a scale per filter, real inputs."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lowbit.torch.binary.binarization import ternary_alpha, ternary_codes, ternary_weight
from lowbit.torch.binary.kernels import scaled
from lowbit.torch.binary.layers import BinaryWeightConv2d, BinaryWeightLinear, ScaledBinaryWeight


class _Ternary(ScaledBinaryWeight):
    """Codes, scale and gradient of ternary layers; their latent weights are neither scaled nor clipped."""

    factor: float

    def binary_weight(self) -> Tensor:
        """-1, 0 or +1, of the weight's shape, without gradient."""
        return ternary_codes(self.weight, self.factor)

    def alpha(self) -> Tensor:
        """Mean ``|W|`` of the weights that stay, ``(out,)``, without gradient."""
        return ternary_alpha(self.weight, self.factor)

    def training_weight(self) -> Tensor:
        """``alpha`` times the codes; the gradient reaches the latent weight unmasked."""
        return ternary_weight(self.weight, self.factor)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Nothing: ternary latent weights are free."""

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{super().extra_repr()}, factor={self.factor}"


class TernaryLinear(_Ternary, BinaryWeightLinear):
    """A linear layer with ternary weights: ``alpha[o] * (codes . x) + bias``.

    Source: Ternary Weight Networks (Li et al. 2016). Threshold ``factor * mean|W|`` and alpha per filter.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``.
        factor: of the mean ``|W|``, for the threshold.

    Example:
        >>> import torch
        >>> from lowbit.torch import TernaryLinear
        >>> layer = TernaryLinear(4, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.75, -0.1, -0.25, 0.0]]))
        >>> layer.binary_weight().tolist(), layer.alpha().tolist()
        ([[1.0, 0.0, -1.0, 0.0]], [0.5])
        >>> layer(torch.tensor([[4.0, 1.0, 1.0, 9.0]])).tolist()
        [[1.5]]
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, factor: float = 0.7, **factory: Any):
        super().__init__(in_features, out_features, bias, **factory)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_features)`` real to ``(n, out_features)``."""
        if self.training:
            return F.linear(x, self.training_weight(), self.bias)
        return scaled(F.linear(x, self.binary_weight()), self.alpha(), None, self.bias, 0)


class TernaryConv2d(_Ternary, BinaryWeightConv2d):
    """A convolution with ternary weights; its input is real, so ``pad_value`` is 0 unless said otherwise.

    Args:
        in_channels to bias: as in ``nn.Conv2d``.
        pad_value: -1, 0 or +1, what stands outside the image.
        factor: as in :class:`TernaryLinear`.

    Example:
        >>> import torch
        >>> from lowbit.torch import TernaryConv2d
        >>> layer = TernaryConv2d(1, 1, kernel_size=2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[[[0.75, -0.1], [-0.25, 0.0]]]]))
        >>> layer(torch.tensor([[[[4.0, 1.0], [1.0, 9.0]]]])).tolist()
        [[[[1.5]]]]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        pad_value: int = 0,
        factor: float = 0.7,
        **factory: Any,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, pad_value, **factory
        )
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_channels, h, w)`` real to ``(n, out_channels, oh, ow)``."""
        if self.training:
            return self.convolve(x, self.training_weight(), self.bias)
        return scaled(self.convolve(x, self.binary_weight()), self.alpha(), None, self.bias, 2)
