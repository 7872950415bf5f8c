"""XNOR-Net: binary weights and inputs with a scale per filter and, where wanted, per output position."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lowbit.torch.binary.activations import k_map
from lowbit.torch.binary.binarization import (
    balanced,
    binary_connect,
    lab_alpha,
    libra_alpha,
    libra_weight,
    xnor_alpha,
    xnor_weight,
)
from lowbit.torch.binary.bnn import _Binary
from lowbit.torch.binary.estimators import hard_sign
from lowbit.torch.binary.kernels import scaled, xnor_conv2d, xnor_gemm
from lowbit.torch.binary.layers import Activation, BinaryWeightConv2d, BinaryWeightLinear, ScaledBinaryWeight
from lowbit.torch.geometry import pair
from lowbit.torch.tensor_cache import kept

GRADIENTS = ("exact", "paper", "released")


class _Xnor(_Binary, ScaledBinaryWeight):
    """Scales, gradients and constraints of XNOR-Net's layers."""

    scale: str
    gradient: str
    centre: bool
    curvature: Tensor
    sharpness: Tensor

    def _set_scale(self, scale: str, gradient: str, centre: bool, input_scale: bool) -> None:
        name = type(self).__name__
        if scale not in ("mean", "lab", "libra"):
            raise ValueError(f"{name}: scale {scale!r} is not 'mean', 'lab' or 'libra'")
        if gradient not in GRADIENTS:
            raise ValueError(f"{name}: gradient {gradient!r} is not one of {', '.join(map(repr, GRADIENTS))}")
        self.scale, self.gradient, self.centre, self.input_scale = scale, gradient, centre, input_scale
        if scale == "lab":
            self.register_buffer("curvature", torch.zeros_like(self.weight.detach()))
        if scale == "libra":
            self.register_buffer("sharpness", torch.tensor(0.1))
        self.constrain_()

    def alpha(self) -> Tensor:
        """Scale per filter, ``(out,)``, from the latent weights as they are now."""
        if self.scale == "lab":
            return lab_alpha(self.weight, self.curvature)
        return libra_alpha(self.weight) if self.scale == "libra" else xnor_alpha(self.weight.detach())

    def binary_weight(self) -> Tensor:
        """+-1: the latent weight's sign; of the balanced weight where ``scale="libra"``."""
        return hard_sign(balanced(self.weight.detach()) if self.scale == "libra" else self.weight)

    def _kept_weight(self) -> tuple[Tensor, Tensor]:
        """For the kernels: a tensor whose signs are ``binary_weight()``, and alpha; kept until the weight changes."""
        used = (self.weight, self.curvature) if self.scale == "lab" else (self.weight,)
        signs = kept("signs", self.binary_weight, self.weight) if self.scale == "libra" else self.weight
        return signs, kept("alpha", self.alpha, *used)

    def training_weight(self) -> Tensor:
        """``alpha`` times the signs, with the chosen gradient."""
        if self.scale == "libra":
            return libra_weight(self.weight, self.sharpness)
        if self.scale == "lab":
            return binary_connect(self.weight) * self.alpha().view(-1, *[1] * (self.weight.ndim - 1))
        return xnor_weight(self.weight, self.gradient)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Mean over input channels out at every kernel position (where ``centre``), then clipping to [-1, 1].

        The released code does both before each step; here they belong to the update, so that evaluating a net never
        changes it. A weight of one input channel per filter (depthwise) is not centred: nothing would be left.
        """
        if self.centre and self.weight.shape[1] > 1:
            self.weight.sub_(self.weight.mean(1, keepdim=True))
        if self.scale != "libra":
            self.weight.clamp_(-1, 1)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        chosen = f"scale={self.scale!r}, gradient={self.gradient!r}, centre={self.centre}"
        return f"{super().extra_repr()}, {chosen}, input_scale={self.input_scale}"


class XnorLinear(_Xnor, BinaryWeightLinear):
    """A linear layer of XNOR-Net: ``alpha * (sign(x) . sign(W)) * K + bias``.

    Source: XNOR-Net (Rastegari et al. 2016), section 3. See :class:`XnorConv2d` for the arguments.

    Example:
        >>> import torch
        >>> from lowbit.torch import XnorLinear
        >>> layer = XnorLinear(2, 1, bias=False, centre=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.0]]))
        >>> x = torch.tensor([[3.0, -0.2]], requires_grad=True)
        >>> y = layer(x)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist(), layer.weight.grad.tolist()
        ([[1.5]], [[0.0, -0.75]], [[1.75, -1.75]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        activation: Activation = "sign",
        scale: str = "mean",
        gradient: str = "exact",
        centre: bool = True,
        input_scale: bool = False,
        **factory: Any,
    ):
        super().__init__(in_features, out_features, bias, **factory)
        self._set_activation(activation)
        self._set_scale(scale, gradient, centre, input_scale)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_features)`` real to ``(n, out_features)``."""
        k = x.abs().mean(-1, keepdim=True) if self.input_scale else None
        if self.training:
            return scaled(F.linear(self.binary_input(x), self.training_weight()), None, k, self.bias, 0)
        if self.runs_on_kernels(x):
            y: Tensor = xnor_gemm(x, *self._kept_weight(), self.bias, k)
            return y
        return scaled(F.linear(self.binary_input(x), self.binary_weight()), self.alpha(), k, self.bias, 0)


class XnorConv2d(_Xnor, BinaryWeightConv2d):
    """A convolution of XNOR-Net: ``alpha[o] * (sign(x) * sign(W)) * K + bias``.

    Source: XNOR-Net (Rastegari et al. 2016), section 3; block order batch norm, sign, convolution, pooling
    (:class:`lowbit.torch.XnorBlock`). First and last layers of a net stay real.

    Args:
        in_channels to groups: as in ``nn.Conv2d``; bias False, as the paper needs none.
        pad_value: what stands outside the image after the sign: +1 (default), -1, or 0, which is the paper's padding.
        activation: the input's estimator in training; in eval mode the sign.
        scale: ``mean`` (alpha = mean ``|W|``, the paper's), ``lab`` (weighted by the curvature that
            :func:`lowbit.torch.binary_steps` reads from Adam) or ``libra`` (IR-Net: balanced weights, powers of two,
            error-decay gradient with ``sharpness`` set by :func:`lowbit.torch.set_error_decay`).
        gradient: ``exact``, ``paper`` or ``released`` (see :func:`lowbit.torch.xnor_weight`); for ``scale="mean"``.
        centre: keep the mean over input channels of the latent weights at 0, at every kernel position.
        input_scale: multiply by the K map (:func:`lowbit.torch.k_map`). The released code does not; the paper says
            that it is worth less than 1 point.

    Example:
        >>> import torch
        >>> from lowbit.torch import XnorConv2d
        >>> layer = XnorConv2d(1, 1, kernel_size=2, centre=False, input_scale=True)
        >>> _ = layer.weight.data.copy_(torch.tensor([[[[0.5, -0.5], [0.25, 0.75]]]]))
        >>> x = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]]]])
        >>> layer(x).tolist(), layer.alpha().tolist()  # 4 equal signs, alpha 0.5, K 1.5
        ([[[[3.0]]]], [0.5])
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
        bias: bool = False,
        pad_value: int = 1,
        activation: Activation = "sign",
        scale: str = "mean",
        gradient: str = "exact",
        centre: bool = True,
        input_scale: bool = False,
        **factory: Any,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, pad_value, **factory
        )
        self._set_activation(activation)
        self._set_scale(scale, gradient, centre, input_scale)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_channels, h, w)`` real to ``(n, out_channels, oh, ow)``."""
        stride, padding, dilation = self.window()[:3]
        k = k_map(x, pair(self.kernel_size), stride, padding, dilation) if self.input_scale else None
        if self.training:
            return scaled(self.convolve(self.binary_input(x), self.training_weight()), None, k, self.bias, 2)
        if self.runs_on_kernels(x):
            signs, alpha = self._kept_weight()
            y: Tensor = xnor_conv2d(x, signs, *self.window(), alpha, self.bias, k)
            return y
        return scaled(self.convolve(self.binary_input(x), self.binary_weight()), self.alpha(), k, self.bias, 2)
