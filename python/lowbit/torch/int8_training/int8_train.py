"""Layers that are trained in 8 bits: forward, input gradient and weight gradient run on the int8 kernels.

Source: "Towards Unified INT8 Training for Convolutional Neural Network" (Zhu et al. 2020). Weights, activations and
gradients are symmetric 8-bit codes with one scale per layer; sums are int32; the results, weights and the optimiser's
state are float32.
"""

import math
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

import lowbit
from lowbit import _core
from lowbit.arguments import FloatArray
from lowbit.torch.autograd import traced
from lowbit.torch.geometry import layer_sizes, named_padding, pair
from lowbit.torch.tensor_cache import kept

LEAST_CLIP = 2.0**-50  # below it codes keep this scale, so that products of two scales stay normal numbers
TOP = 127


def _scale(clip: float) -> float:
    return max(clip, LEAST_CLIP) / TOP


def _pixels(x: Tensor) -> FloatArray:
    """(n, c, h, w) as an array (n, h, w, c) in C order; without a copy where x is channels_last."""
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


def _image(array: Any) -> Tensor:
    """(n, h, w, c) as a channels_last tensor."""
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def _nearest(x: FloatArray, scale: float, dtype: type[np.uint8] | type[np.int8]) -> Any:
    codes = np.empty(x.shape, dtype)
    zero = 128 if dtype is np.uint8 else 0
    _core.quantize(x, scale, zero, codes, zero - TOP, zero + TOP, None, torch.get_num_threads())
    return codes


class Int8Train(nn.Module):
    """What the two layers share: clips, the generator's counter, the deviation, how the products are made.

    Attributes:
        input_clip: moving average of the inputs' greatest magnitude, 0 before the first batch.
        gradient_clip: what output gradients are clipped at, 0 before the first backward pass.
        deviation: ``1 - cos(g, quantized g)`` of the last backward pass.
        step: backward passes so far, the number of the generator's stream.
        seed: key of the generator. All of these are buffers, so that a resumed training goes on exactly.
        name: how errors call the layer; ``swap`` sets it.
    """

    GRID = 2.0 ** (-np.arange(24) / 4)  # clips that a refit tries, of the greatest magnitude
    ALPHA, BETA = 20.0, 0.1

    weight: Tensor
    input_clip: Tensor
    gradient_clip: Tensor
    deviation: Tensor
    fitted_deviation: Tensor
    step: Tensor
    seed: Tensor

    def _set_up(self, seed: int, period: int, input_momentum: float, lr_scaling: bool) -> None:
        if period < 1:
            raise ValueError(f"{type(self).__name__}: period {period} is below 1")
        if not 0 <= input_momentum < 1:
            raise ValueError(f"{type(self).__name__}: input_momentum {input_momentum} is not in [0, 1)")
        if not 0 <= seed < 2**63:
            raise ValueError(f"{type(self).__name__}: seed {seed} is not in [0, 2^63)")
        self.name, self.period, self.input_momentum, self.lr_scaling = "", period, input_momentum, lr_scaling
        for name in ("input_clip", "gradient_clip", "deviation", "fitted_deviation"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seed", torch.tensor(seed))

    @classmethod
    def from_float(cls, layer: nn.Linear | nn.Conv2d, **options: Any) -> Self:
        """A layer of this kind with the float layer's sizes, weights, bias and mode.

        Raises:
            ValueError: a convolution's padding_mode is not ``zeros``.
        """
        made = cls(**layer_sizes(cls.__name__, layer), **options)
        made.load_state_dict(layer.state_dict(), strict=False)
        return made.train(layer.training)

    def lr_scale(self) -> float:
        """``max(exp(-20 d), 0.1)`` of the last deviation d: the factor on this layer's learning rate."""
        return max(math.exp(-self.ALPHA * float(self.deviation)), self.BETA)

    def _fail(self, what: str, error: Exception) -> ValueError:
        name = f"{type(self).__name__} {self.name!r}" if self.name else type(self).__name__
        return ValueError(f"{name}: {what}: {error}")

    def _weight_codes(self) -> tuple[Any, float]:
        """int8 codes (oc, kh, kw, c / groups), and their scale."""

        def make() -> tuple[Any, float]:
            w = self.weight.detach()
            rows = _pixels(w) if w.ndim == 4 else w.contiguous().numpy()[:, None, None, :]
            scale = _scale(self._peak("weight", rows))
            return _nearest(rows, scale, np.int8), scale

        return kept("int8 codes", make, self.weight)

    def _peak(self, what: str, x: FloatArray) -> float:
        try:
            lo, hi = _core.finite_range(x, threads=torch.get_num_threads()) if x.size else (0.0, 0.0)
        except ValueError as error:
            raise self._fail(what, error) from error
        return max(-lo, hi)

    def _input_codes(self, x: FloatArray) -> tuple[Any, float]:
        """uint8 codes around 128, and their scale; in training the clip follows the input."""
        clip = float(self.input_clip)
        if self.training or clip == 0:
            peak = self._peak("input", x)
            clip = peak if clip == 0 else self.input_momentum * clip + (1 - self.input_momentum) * peak
            if self.training:
                self.input_clip.fill_(clip)
        scale = _scale(clip)
        return _nearest(x, scale, np.uint8), scale

    def _fit(self, g: FloatArray, peak: float) -> float:
        """The clip of the least deviation."""
        clips = np.maximum(peak * self.GRID, LEAST_CLIP)
        deviations = lowbit.clip_deviations(g, clips, threads=torch.get_num_threads())
        best = int(np.argmin(deviations))  # of equals the widest
        self.gradient_clip.fill_(clips[best])
        self.fitted_deviation.fill_(deviations[best])
        return float(clips[best])

    def _rounded(self, g: FloatArray, clip: float) -> tuple[Any, float, float]:
        """Codes, deviation and greatest magnitude; the random numbers are those of this step and process."""
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        stream, threads = int(self.step) + (rank << 48), torch.get_num_threads()
        try:
            return lowbit.quantize_stochastic(g, _scale(clip), seed=int(self.seed), stream=stream, threads=threads)
        except ValueError as error:
            raise self._fail("output gradient", error) from error

    def _gradient_codes(self, g: FloatArray) -> tuple[Any, float]:
        """uint8 codes around 128 by stochastic rounding, and their scale.

        The clip is fitted every ``period`` steps, and at once where the gradient has outgrown it.
        """
        clip = float(self.gradient_clip)
        if clip == 0 or int(self.step) % self.period == 0:
            peak = self._peak("output gradient", g)
            clip = self._fit(g, peak) if peak > 0 else clip
        codes, deviation, peak = self._rounded(g, clip)
        if deviation > 4 * float(self.fitted_deviation) + 1e-3:
            clip = self._fit(g, peak)
            codes, deviation, peak = self._rounded(g, clip)
        self.deviation.fill_(deviation)
        self.step.add_(1)
        return codes, _scale(clip)


class _Convolution(torch.autograd.Function):
    """The three products of a convolution; a linear layer is one over a row of pixels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: Any) -> Tensor:
        stride, padding, dilation, groups = layer.geometry()
        pixels = _pixels(x)
        codes, x_scale = layer._input_codes(pixels)
        w_codes, w_scale = layer._weight_codes()
        packed = kept("int8 packed", lambda: lowbit.pack_conv2d_i8(w_codes, stride, dilation, groups), weight)
        y = lowbit.conv2d_i8(
            codes,
            packed,
            padding=padding,
            x_zero_point=128,
            scale=x_scale * w_scale,
            bias=None if bias is None else bias.detach().numpy(),
            out_dtype="float32",
            threads=torch.get_num_threads(),
        )
        ctx.layer, ctx.codes, ctx.w_codes, ctx.scales = layer, codes, w_codes, (x_scale, w_scale)
        return _image(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        layer, codes = ctx.layer, ctx.codes
        stride, padding, dilation, groups = layer.geometry()
        (x_scale, w_scale), threads = ctx.scales, torch.get_num_threads()
        g_codes, g_scale = layer._gradient_codes(_pixels(g))
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            w = lowbit.pack_gradient_i8(ctx.w_codes, stride, dilation, groups, threads=threads)
            size = codes.shape[1:3]
            dx = _image(lowbit.input_gradient_i8(g_codes, w, size, padding, scale=g_scale * w_scale, threads=threads))
        rate = layer.lr_scale() if layer.lr_scaling else 1.0
        if ctx.needs_input_grad[1]:
            kernel, scale = ctx.w_codes.shape[1:3], g_scale * x_scale * rate
            sums = lowbit.weight_gradient_i8(
                codes, g_codes, kernel, stride, padding, dilation, groups, scale=scale, threads=threads
            )
            dw = _image(sums).reshape(layer.weight.shape)
        if ctx.needs_input_grad[2]:
            db = g.sum((0, 2, 3)) * rate
        return dx, dw, db, None


class Int8TrainLinear(Int8Train, nn.Linear):
    """A linear layer whose three products, forward and backward, run on the int8 kernels.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``.
        seed: of the stochastic rounding; layers should differ. None takes one from torch's generator.
        period: steps between refits of the gradient's clip (the paper: 100).
        input_momentum: of the moving average of the input's greatest magnitude.
        lr_scaling: scale the weights' gradients by ``max(exp(-20 d), 0.1)``, d the deviation of the quantized output
            gradient: with SGD, momentum or not, that scales the layer's learning rate in this step. For optimisers
            that normalise gradients (Adam) use :func:`lowbit.torch.deviation_steps`.

    Source: Zhu et al. 2020, sections 3.2 to 3.4.

    Example:
        >>> import torch
        >>> from lowbit.torch import Int8TrainLinear
        >>> layer = Int8TrainLinear(2, 1, bias=False, seed=0)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.0]]))
        >>> x = torch.tensor([[2.0, 1.0]], requires_grad=True)
        >>> y = layer(x)
        >>> y.sum().backward()
        >>> [round(v, 2) for v in (y.item(), *x.grad[0].tolist(), *layer.weight.grad[0].tolist())]
        [0.0, 0.5, -1.0, 2.0, 1.01]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        seed: int | None = None,
        period: int = 100,
        input_momentum: float = 0.9,
        lr_scaling: bool = True,
        **factory: Any,
    ):
        nn.Linear.__init__(self, in_features, out_features, bias, **factory)
        self._set_up(_drawn(seed), period, input_momentum, lr_scaling)

    def geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        """Stride, padding, dilation and groups of the product as a convolution."""
        return (1, 1), (0, 0), (1, 1), 1

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``, float32."""
        if traced():
            return F.linear(x, self.weight, self.bias)
        rows = x.float().reshape(1, 1, -1, self.in_features).permute(0, 3, 1, 2)
        y: Tensor = _Convolution.apply(rows, self.weight, self.bias, self)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


class Int8TrainConv2d(Int8Train, nn.Conv2d):
    """A convolution whose three products, forward and backward, run on the int8 kernels.

    Tensors in ``torch.channels_last`` are read and written without a copy; the weight is kept in it.

    Args:
        in_channels to bias: as in ``nn.Conv2d``; zeros as padding, at most dilation * (kernel - 1).
        seed, period, input_momentum, lr_scaling: as in :class:`Int8TrainLinear`.

    Example:
        >>> import torch
        >>> from lowbit.torch import Int8TrainConv2d
        >>> layer = Int8TrainConv2d(1, 1, 3, padding=1, bias=False, seed=0)
        >>> _ = layer.weight.data.fill_(0.5)
        >>> layer(torch.ones(1, 1, 2, 2)).flatten().tolist()
        [2.0, 2.0, 2.0, 2.0]
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
        seed: int | None = None,
        period: int = 100,
        input_momentum: float = 0.9,
        lr_scaling: bool = True,
        **factory: Any,
    ):
        if isinstance(padding, str):
            padding = named_padding(type(self).__name__, padding, kernel_size, stride, dilation)
        nn.Conv2d.__init__(
            self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, **factory
        )
        for p, k, d in zip(pair(padding), pair(kernel_size), pair(dilation), strict=True):
            if p > d * (k - 1):
                raise ValueError(
                    f"{type(self).__name__}: padding {p} is more than dilation * (kernel - 1) = {d * (k - 1)}"
                )
        self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)
        self._set_up(_drawn(seed), period, input_momentum, lr_scaling)

    def geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        """Stride, padding, dilation and groups, as the kernels take them."""
        return pair(self.stride), pair(self.padding), pair(self.dilation), self.groups  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_channels, h, w)`` to ``(n, out_channels, oh, ow)``, float32."""
        if traced():
            return F.conv2d(x, self.weight, self.bias, *self.geometry())
        y: Tensor = _Convolution.apply(x.float(), self.weight, self.bias, self)
        return y


def _drawn(seed: int | None) -> int:
    return int(torch.randint(2**62, ())) if seed is None else seed
