"""Binarized Neural Networks: binary weights and binary inputs."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lowbit.torch.binary.binarization import binary_connect
from lowbit.torch.binary.estimators import estimator, hard_sign
from lowbit.torch.binary.kernels import kernel_runs, scaled, xnor_conv2d, xnor_gemm
from lowbit.torch.binary.layers import Activation, BinaryWeight, BinaryWeightConv2d, BinaryWeightLinear


class _Binary(BinaryWeight):
    """Input and training weights of a binarized layer."""

    activation: Activation

    def _set_activation(self, activation: Activation) -> None:
        self.activation = activation
        self._estimator = estimator(activation, type(self).__name__)

    def binary_input(self, x: Tensor) -> Tensor:
        """+-1 with the chosen estimator in training; the plain sign in eval mode."""
        return self._estimator(x) if self.training or callable(self.activation) else hard_sign(x)

    def runs_on_kernels(self, x: Tensor) -> bool:
        """Whether this call runs on xor and popcount."""
        if x.ndim != self.weight.ndim:
            return False
        return kernel_runs(self.training, self.activation, x, self.weight, self.bias)

    def training_weight(self) -> Tensor:
        """+-1; the gradient reaches the latent weight unmasked."""
        return binary_connect(self.weight)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{super().extra_repr()}, activation={self.activation!r}"


class BinaryLinear(_Binary, BinaryWeightLinear):
    """A linear layer of +-1 weights on the signs of its input: what XNOR and popcount compute.

    Source: Binarized Neural Networks (Courbariaux, Hubara et al. 2016), algorithm 1. In a net, batch norm comes before
    it. The first layer of a net keeps its real input: use :class:`BinaryConnectLinear` there.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``.
        activation: the input's estimator in training: ``sign``, ``stochastic``, ``approx_sign``, ``sign_swish`` or a
            callable. In eval mode always the sign (a callable is used in both).

    Example:
        >>> import torch
        >>> from lowbit.torch import BinaryLinear
        >>> layer = BinaryLinear(3, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.3, -0.8, 0.0]]))
        >>> x = torch.tensor([[2.0, 0.5, -0.1]], requires_grad=True)
        >>> y = layer(x)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist(), layer.weight.grad.tolist()
        ([[-1.0]], [[0.0, -1.0, 1.0]], [[1.0, 1.0, -1.0]])
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, activation: Activation = "sign", **factory: Any
    ):
        super().__init__(in_features, out_features, bias, **factory)
        self._set_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` real to ``(..., out_features)``: whole numbers, but for the bias."""
        if self.runs_on_kernels(x):
            y: Tensor = xnor_gemm(x, self.weight, None, self.bias)
            return y
        if self.training:
            return F.linear(self.binary_input(x), self.training_weight(), self.bias)
        return scaled(F.linear(self.binary_input(x), self.binary_weight()), None, None, self.bias, 0)


class BinaryConv2d(_Binary, BinaryWeightConv2d):
    """A convolution of +-1 weights on the signs of its input, padded by ``pad_value`` after the sign.

    Args:
        in_channels to bias: as in ``nn.Conv2d``.
        pad_value: what stands outside the image: +1 (the default, as in :func:`lowbit.xnor_conv2d`) or -1 keep the
            convolution binary; 0 is torch's padding, which the kernels correct for exactly at the border.
        activation: as in :class:`BinaryLinear`.

    Raises:
        ValueError: pad_value or activation is none of these.

    Example:
        >>> import torch
        >>> from lowbit.torch import BinaryConv2d
        >>> x = torch.tensor([[[[0.5, -2.0], [-0.0, 0.1]]]])
        >>> for pad_value in (-1, 0, 1):
        ...     layer = BinaryConv2d(1, 1, 3, padding=1, bias=False, pad_value=pad_value)
        ...     _ = layer.weight.data.fill_(0.5)
        ...     print(layer(x).tolist())
        [[[[-3.0, -3.0], [-3.0, -3.0]]]]
        [[[[2.0, 2.0], [2.0, 2.0]]]]
        [[[[7.0, 7.0], [7.0, 7.0]]]]
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
        pad_value: int = 1,
        activation: Activation = "sign",
        **factory: Any,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, pad_value, **factory
        )
        self._set_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_channels, h, w)`` real to ``(n, out_channels, oh, ow)``: whole numbers, but for the bias."""
        if self.runs_on_kernels(x):
            y: Tensor = xnor_conv2d(x, self.weight, *self.window(), None, self.bias)
            return y
        if self.training:
            return self.convolve(self.binary_input(x), self.training_weight(), self.bias)
        return scaled(self.convolve(self.binary_input(x), self.binary_weight()), None, None, self.bias, 2)
