"""Convolutions and products whose weights are quantized in training, with batch normalisation folded into them."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.torch.geometry import layer_sizes
from lowbit.torch.qat.fake_quantize import FakeQuantize

Norm = nn.BatchNorm1d | nn.BatchNorm2d


class _Dequantized(torch.autograd.Function):
    """Codes of weights as ONNX's DequantizeLinear, in a traced graph."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        along = (-1, *[1] * (codes.ndim - 1)) if scale.ndim else ()
        return (codes.to(torch.int32) - zero.to(torch.int32).view(along)).float() * scale.view(along)

    @staticmethod
    def symbolic(g: Any, codes: Any, scale: Any, zero: Any) -> Any:
        return g.op("DequantizeLinear", codes, scale, zero, axis_i=0)


class QatLayer(nn.Module):
    """What :class:`QatConv2d` and :class:`QatLinear` share: folding, quantized weights, the freeze.

    With ``sigma = sqrt(running_var + eps)`` of the moving average, the weights that inference uses are
    ``w * gamma / sigma`` and its bias is ``beta + (bias - running_mean) * gamma / sigma``. Training quantizes these
    same weights, and corrects the result to the batch's own statistics, which batch normalisation is about:
    ``product(x, q(w * gamma / sigma)) * sigma / sigma_batch + beta - gamma * mean_batch / sigma_batch``. The batch's
    statistics are those of ``product(x, w)``: a second product per step. Frozen, training uses the moving averages
    as inference does, leaves them as they are, and needs no second product.

    The unfolded weights are kept: folding in place would compound gamma / sigma at every step.

    Source: Jacob et al. 2018 (arXiv 1712.05877), section 3.2; TensorFlow's contrib/quantize (correction and freeze).
    """

    weight: Tensor
    bias: Any  # Parameter or None
    norm: Norm | None
    quantizer: FakeQuantize
    freeze_delay: int | None
    steps: Tensor
    is_frozen: Tensor

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's operation."""
        raise NotImplementedError

    @classmethod
    def of_layer(
        cls, layer: nn.Linear | nn.Conv2d, norm: Norm | None, quantizer: FakeQuantize, freeze_delay: int | None = None
    ) -> Self:
        """The same parameters in a new layer; ``norm`` becomes a part of it.

        Raises:
            ValueError: padding other than zeros, or a norm without running statistics.
        """
        sizes = layer_sizes(cls.__name__, layer) | {"bias": False}
        if norm is not None and (not norm.track_running_stats or norm.running_mean is None):
            raise ValueError(f"{cls.__name__}: {norm} keeps no running statistics, which folding needs")
        made = cls(**sizes, device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        made.norm, made.quantizer, made.freeze_delay = norm, quantizer, freeze_delay
        device = layer.weight.device
        made.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=device))
        made.register_buffer("is_frozen", torch.zeros((), dtype=torch.bool, device=device))
        return made

    def freeze(self) -> None:
        """Training uses the moving averages of batch normalisation from here on, and keeps them."""
        self.is_frozen.fill_(True)

    def _per_channel(self, v: Tensor) -> Tensor:
        return v.view(-1, *[1] * (self.weight.ndim - 1))

    def _norm_parts(self) -> tuple[Norm, Tensor, Tensor, Tensor, Tensor]:
        norm = self.norm
        assert norm is not None
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None  # of_layer checks
        gamma = torch.ones_like(mean) if norm.weight is None else norm.weight
        beta = torch.zeros_like(mean) if norm.bias is None else norm.bias
        return norm, mean, variance, gamma, beta

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Float weights and bias as inference has them, before quantization."""
        if self.norm is None:
            return self.weight, self.bias
        norm, mean, variance, gamma, beta = self._norm_parts()
        factor = gamma * (variance + norm.eps).rsqrt()
        shift = -mean if self.bias is None else self.bias - mean
        return self.weight * self._per_channel(factor), beta + shift * factor

    def forward(self, x: Tensor) -> Tensor:
        """As the float layer, and its normalisation if it has one."""
        if self.training:
            self.steps += 1
            if self.freeze_delay is not None and int(self.steps) > self.freeze_delay:
                self.freeze()
        if self.norm is None or not self.training or self.is_frozen:
            weight, bias = self.folded()
            return self.product(x, self.quantizer(weight), bias)
        return self._corrected(x)

    def _corrected(self, x: Tensor) -> Tensor:
        norm, mean, variance, gamma, beta = self._norm_parts()
        y = self.product(x, self.weight, None).float()
        over = [0, *range(2, y.ndim)]
        count = y.numel() // y.shape[1]
        if count < 2:
            raise ValueError(f"{self.quantizer.name}: one value per channel in training, x {tuple(x.shape)}")
        batch_variance, batch_mean = torch.var_mean(y, over, correction=0)
        with torch.no_grad():  # torch's moving variance has Bessel's factor, the normalisation has not
            momentum = norm.momentum if norm.momentum is not None else 1 / float(self.steps)
            shift = 0 if self.bias is None else self.bias
            mean.lerp_(batch_mean + shift, momentum)
            variance.lerp_(batch_variance * (count / (count - 1)), momentum)
        sigma, batch_sigma = (variance + norm.eps).sqrt(), (batch_variance + norm.eps).sqrt()
        weight = self.quantizer(self.weight * self._per_channel(gamma / sigma))
        out_shape = (-1, *[1] * (y.ndim - 2))
        correction = (sigma / batch_sigma).view(out_shape)
        return self.product(x, weight, None) * correction + (beta - gamma * batch_mean / batch_sigma).view(out_shape)

    @torch.no_grad()
    def frozen_codes(self) -> "FrozenQatLayer":
        """What is exported: codes, their scales, the folded bias."""
        weight, bias = self.folded()
        codes, scale, zero = self.quantizer.codes(weight)
        return FrozenQatLayer(self, codes, scale, zero.to(codes.dtype), bias)


class FrozenQatLayer(nn.Module):
    """A layer whose weights are codes: what the exported graph holds."""

    weight: Tensor
    scale: Tensor
    zero_point: Tensor
    bias: Tensor | None

    def __init__(self, layer: QatLayer, codes: Tensor, scale: Tensor, zero: Tensor, bias: Tensor | None):
        super().__init__()
        self.product = layer.product
        for name, value in (("weight", codes), ("scale", scale), ("zero_point", zero), ("bias", bias)):
            self.register_buffer(name, None if value is None else value.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """As the layer in eval mode."""
        y: Tensor = self.product(x, _Dequantized.apply(self.weight, self.scale, self.zero_point), self.bias)
        return y


class QatConv2d(QatLayer, nn.Conv2d):
    """``nn.Conv2d`` whose weights are fake-quantized, with a batch normalisation folded in where one is given.

    Made by :func:`prepare_qat`, or by :meth:`of_layer`. See :class:`QatLayer` for the arithmetic.

    Example:
        >>> import torch
        >>> from lowbit.torch import FakeQuantize, QatConv2d
        >>> conv, norm = torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4)
        >>> layer = QatConv2d.of_layer(conv, norm, FakeQuantize(symmetric=True, axis=0, weight=True))
        >>> x = torch.randn(8, 3, 6, 6)
        >>> y = layer(x)                                   # trains on batch statistics
        >>> bool((y - norm(conv(x))).abs().max() < 0.1)
        True
    """

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution."""
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class QatLinear(QatLayer, nn.Linear):
    """``nn.Linear`` whose weights are fake-quantized; see :class:`QatConv2d`.

    Example:
        >>> import torch
        >>> from lowbit.torch import FakeQuantize, QatLinear
        >>> layer = QatLinear.of_layer(torch.nn.Linear(2, 1), None, FakeQuantize(symmetric=True, weight=True))
        >>> layer(torch.zeros(3, 2)).shape
        torch.Size([3, 1])
    """

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The matrix product."""
        return F.linear(x, weight, bias)


def freeze_batch_norm(model: nn.Module) -> None:
    """Freezes the folded normalisations of every layer that :func:`prepare_qat` made: towards the end of training.

    Raises:
        ValueError: the model has none.

    Example:
        >>> import torch
        >>> from lowbit.torch import freeze_batch_norm, prepare_qat
        >>> net = prepare_qat(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)))
        >>> freeze_batch_norm(net)
    """
    layers = [m for m in model.modules() if isinstance(m, QatLayer) and m.norm is not None]
    if not layers:
        raise ValueError("freeze_batch_norm: the model has no folded batch normalisation (see prepare_qat)")
    for layer in layers:
        layer.freeze()
