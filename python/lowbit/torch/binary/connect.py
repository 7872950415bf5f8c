"""BinaryConnect: binary weights, real inputs."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lowbit.torch.binary.binarization import binary_connect
from lowbit.torch.binary.layers import BinaryWeight, BinaryWeightConv2d, BinaryWeightLinear


class _Connect(BinaryWeight):
    """Training and test-time weights of BinaryConnect."""

    stochastic: bool
    test_weights: str

    def _set_mode(self, stochastic: bool, test_weights: str) -> None:
        if test_weights not in ("binary", "real"):
            raise ValueError(f"{type(self).__name__}: test_weights {test_weights!r} is not 'binary' or 'real'")
        self.stochastic, self.test_weights = stochastic, test_weights

    def training_weight(self) -> Tensor:
        """+-1, drawn anew where stochastic; the gradient reaches the latent weight unmasked."""
        return binary_connect(self.weight, self.stochastic)

    def test_weight(self) -> Tensor:
        """What eval mode multiplies by: the signs, or the latent weights where ``test_weights="real"``."""
        return self.binary_weight() if self.test_weights == "binary" else self.weight

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        mode = f"stochastic={self.stochastic}, test_weights={self.test_weights!r}"
        return f"{super().extra_repr()}, {mode}"


class BinaryConnectLinear(_Connect, BinaryWeightLinear):
    """A linear layer whose weights are +-1 in the forward and backward pass, and real where they are updated.

    Source: BinaryConnect (Courbariaux et al. 2015), algorithm 1. Train with :func:`lowbit.torch.binary_steps`.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``; the bias stays real and is never clipped.
        stochastic: draw the training weights, +1 with probability ``clip((w + 1) / 2, 0, 1)``; otherwise their signs.
        test_weights: what eval mode uses. ``binary``: the signs (the paper's choice for deterministic training).
            ``real``: the latent weights (the paper's choice for stochastic training: its 1.18 % on MNIST and 8.27 % on
            CIFAR-10 are not results of binary weights).

    Example:
        >>> import torch
        >>> from lowbit.torch import BinaryConnectLinear
        >>> layer = BinaryConnectLinear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.3, -0.8]]))
        >>> y = layer(torch.tensor([[2.0, 5.0]]))
        >>> y.sum().backward()
        >>> y.tolist(), layer.weight.grad.tolist()
        ([[-3.0]], [[2.0, 5.0]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        stochastic: bool = False,
        test_weights: str = "binary",
        **factory: Any,
    ):
        super().__init__(in_features, out_features, bias, **factory)
        self._set_mode(stochastic, test_weights)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` real to ``(..., out_features)``."""
        return F.linear(x, self.training_weight() if self.training else self.test_weight(), self.bias)


class BinaryConnectConv2d(_Connect, BinaryWeightConv2d):
    """A convolution with BinaryConnect's weights; its input is real, so ``pad_value`` is 0 unless said otherwise.

    Args:
        in_channels to bias: as in ``nn.Conv2d``.
        pad_value: -1, 0 or +1, what stands outside the image.
        stochastic, test_weights: as in :class:`BinaryConnectLinear`.

    Example:
        >>> import torch
        >>> from lowbit.torch import BinaryConnectConv2d
        >>> layer = BinaryConnectConv2d(1, 1, kernel_size=2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[[[0.1, -0.2], [0.3, 0.4]]]]))
        >>> layer(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).tolist()
        [[[[6.0]]]]
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
        stochastic: bool = False,
        test_weights: str = "binary",
        **factory: Any,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, pad_value, **factory
        )
        self._set_mode(stochastic, test_weights)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_channels, h, w)`` real to ``(n, out_channels, oh, ow)``."""
        return self.convolve(x, self.training_weight() if self.training else self.test_weight(), self.bias)
