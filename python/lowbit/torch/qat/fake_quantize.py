"""Simulated quantization: values as codes would hold them, in float, with a gradient.

Source of all: Jacob et al. 2018 (arXiv 1712.05877), section 3; TensorFlow's FakeQuantWithMinMaxVars, which moves
("nudges") a range so that zero is one of its values.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lowbit.qparams import QParams
from lowbit.torch.autograd import traced
from lowbit.torch.qat.ema_range import EmaRange, extent


def nudged(low: Tensor, high: Tensor, lowest: int, highest: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point of the range with an exact zero that stands nearest to ``low..high``.

    ``scale = (high - low) / (highest - lowest)`` and ``zero = clamp(round(lowest - low / scale), lowest, highest)``;
    the nudged range is ``(lowest - zero) * scale`` to ``(highest - zero) * scale``.

    Args:
        low: float32, at most 0.
        high: float32, at least 0.
        lowest: the lowest code in use.
        highest: the highest.

    Returns:
        scale float32 and zero point int32, shaped like ``low``; scale 0 where the range is empty.

    Example:
        >>> import torch
        >>> from lowbit.torch.qat.fake_quantize import nudged
        >>> [v.item() for v in nudged(torch.tensor(-0.9), torch.tensor(14.1), 0, 15)]
        [1.0, 1]
    """
    scale = (high - low) / (highest - lowest)
    zero = (lowest - low / scale.clamp(min=torch.finfo(torch.float32).tiny) + 0.5).floor()
    return scale, zero.clamp(lowest, highest).to(torch.int32)


class _FakeQuantized(torch.autograd.Function):
    """Per tensor with numbers, per slice with tensors that broadcast."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Any, zero: Any, lowest: int, highest: int, owner: "FakeQuantize | None"
    ) -> Tensor:
        low, high = (lowest - zero) * scale, (highest - zero) * scale
        if not isinstance(scale, Tensor):  # as float32 would have them
            low, high = (torch.tensor(v, dtype=torch.float32).item() for v in (low, high))
        y = x.float().clamp(low, high)
        ctx.save_for_backward(y == x)
        ctx.owner = owner
        y.sub_(low).div_(scale).add_(0.5).floor_()
        return y.add_(lowest - zero).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (inside,) = gradients, ctx.saved_tensors
        if ctx.owner is not None:
            ctx.owner.check_gradient(gradient)
        return gradient * inside, None, None, None, None, None


class _QuantizeDequantize(torch.autograd.Function):
    """The pair of ONNX operators, in a traced graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero: int, dtype: str) -> Tensor:
        lowest, highest = (0, 255) if dtype == "uint8" else (-128, 127)
        result: Tensor = torch.fake_quantize_per_tensor_affine(x, scale, zero, lowest, highest)
        return result

    @staticmethod
    def symbolic(g: Any, x: Any, scale: float, zero: int, dtype: str) -> Any:
        s = g.op("Constant", value_t=torch.tensor(scale, dtype=torch.float32))
        z = g.op("Constant", value_t=torch.tensor(zero, dtype=getattr(torch, dtype)))
        return g.op("DequantizeLinear", g.op("QuantizeLinear", x, s, z), s, z).setType(x.type())


class FakeQuantize(nn.Module):
    """``floor((clamp(x, a, b) - a) / s + 0.5) * s + a``: what codes would keep of x, in float32.

    ``a..b`` is the nudged range: zero is exact. The gradient is that of the clamp, 1 for ``a <= x <= b``, ends
    included, 0 outside. Activations (``weight=False``) follow an :class:`EmaRange` in training mode, and pass through
    unchanged in the first ``delay`` training steps; eval mode always quantizes. Weights have the range that they have
    now, and no delay.

    Args:
        bits: 2 to 8.
        symmetric: int8 codes around zero without the lowest (-127..127), zero point 0; else uint8 codes 0..255.
        narrow_range: uint8 codes 1..255.
        axis: one range for every slice along it; weights only.
        weight: take the range of every tensor given instead of the moving average.
        decay: of the moving averages.
        delay: training steps before activations are quantized.
        name: said in errors; :func:`prepare_qat` gives the module's place in the network.

    Source: Jacob et al. 2018, section 3 and equation 12.

    Example:
        >>> import torch
        >>> from lowbit.torch import FakeQuantize
        >>> quantize = FakeQuantize(bits=2, weight=True)       # codes 0..3
        >>> x = torch.tensor([-1.1, -0.4, 0.0, 0.6, 1.9], requires_grad=True)
        >>> y = quantize(x)                                    # -1.1..1.9 is nudged to -1..2
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([-1.0, 0.0, 0.0, 1.0, 2.0], [0.0, 1.0, 1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        bits: int = 8,
        *,
        symmetric: bool = False,
        narrow_range: bool = False,
        axis: int | None = None,
        weight: bool = False,
        decay: float = 0.999,
        delay: int = 0,
        name: str = "",
    ):
        super().__init__()
        if axis is not None and not weight:
            raise ValueError(f"FakeQuantize {name}: axis={axis} is for weights; activations have one range")
        if delay < 0:
            raise ValueError(f"FakeQuantize {name}: delay {delay} is negative")
        dtype, narrow = ("int8", True) if symmetric else ("uint8", narrow_range)
        codes = QParams(1.0, 0 if symmetric else int(narrow), dtype, bits, narrow_range=narrow)  # checks bits
        self.bits, self.dtype, self.narrow_range = bits, dtype, narrow
        self.lowest, self.highest = codes.qmin, codes.qmax
        self.symmetric, self.axis, self.delay, self.name = symmetric, axis, delay, name
        self.observer = None if weight else EmaRange(decay)
        self.follows_clamp = True  # exported: the layer before it can clamp to the codes in use

    def _error(self, what: object) -> ValueError:
        return ValueError(f"FakeQuantize {self.name or '(without a name)'}: {what}")

    def check_gradient(self, gradient: Tensor) -> None:
        """Raises a ValueError where a weight's gradient is not finite."""
        if not torch.isfinite(gradient.sum()):
            raise self._error("the gradient of the weights holds NaN or infinity")

    def scale_and_zero_point(self, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scale (float32) and zero point (int32), 0-d or of one element per slice.

        Args:
            x: the tensor whose range counts, for weights.

        Raises:
            ValueError: no range was seen, it is not finite, or it holds nothing but zero; named.
        """
        try:
            if self.observer is not None:
                low, high = self.observer.range()
            elif x is not None:
                low, high = extent(x, self.axis)
            else:
                raise ValueError("weights have the range of the tensor that is given")
        except ValueError as error:
            raise self._error(error) from None
        if not torch.isfinite(high - low).all():
            raise self._error("the range holds NaN or infinity")
        if self.symmetric:
            scale = torch.maximum(-low, high) / self.highest
            zero = torch.zeros_like(scale, dtype=torch.int32)
        else:
            scale, zero = nudged(low, high, self.lowest, self.highest)
        empty = scale < torch.finfo(torch.float32).tiny
        if empty.all():
            raise self._error("its range has collapsed: every value was 0 (a dead ReLU, or weights that vanished)")
        return torch.where(empty, torch.ones_like(scale), scale), zero  # a channel of zeros: any scale will do

    def qparams(self, x: Tensor | None = None) -> QParams:
        """The same as ``lowbit.QParams``: what conversion writes down.

        Example:
            >>> import torch
            >>> from lowbit.torch import FakeQuantize
            >>> FakeQuantize(symmetric=True, weight=True).qparams(torch.tensor([-2.54, 1.0])).scale
            0.019999999552965164
        """
        scale, zero = self.scale_and_zero_point(x)
        return QParams(
            scale.detach().cpu().numpy(), zero.cpu().numpy(), self.dtype, self.bits, self.axis, self.narrow_range
        )

    def _broadcast(self, v: Tensor, x: Tensor) -> Tensor:
        if self.axis is None:
            return v
        along = [1] * x.ndim
        along[self.axis] = -1
        return v.view(along)

    @torch.no_grad()
    def codes(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes of ``x`` (``dtype`` of the module), with scale and zero point: exactly what ``forward`` stands for."""
        scale, zero = self.scale_and_zero_point(x)
        s, z = self._broadcast(scale, x), self._broadcast(zero, x)
        low, high = (self.lowest - z) * s, (self.highest - z) * s
        codes = ((x.float().clamp(low, high) - low) / s + 0.5).floor() + self.lowest
        return codes.to(getattr(torch, self.dtype)), scale, zero

    def forward(self, x: Tensor) -> Tensor:
        """Any floating type to float32 of the same shape."""
        if self.observer is not None and self.training:
            try:
                self.observer.observe(x)
            except ValueError as error:
                raise self._error(error) from None
            if int(self.observer.steps) <= self.delay:
                return x
        scale, zero = self.scale_and_zero_point(x)
        owner = self if self.observer is None else None
        result: Tensor
        if self.axis is not None:
            parts = self._broadcast(scale, x), self._broadcast(zero, x)
            result = _FakeQuantized.apply(x, *parts, self.lowest, self.highest, owner)
            return result
        s, z = scale.item(), int(zero)
        if not traced():
            result = _FakeQuantized.apply(x, s, z, self.lowest, self.highest, owner)
            return result
        if (self.lowest, self.highest) not in ((0, 255), (-128, 127)):  # QuantizeLinear has all codes of its type
            if not self.follows_clamp:
                x = _QuantizeDequantize.apply(x, s, z, self.dtype)
            x = x.clamp((self.lowest - z) * s, (self.highest - z) * s)
        result = _QuantizeDequantize.apply(x, s, z, self.dtype)
        return result

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        axis = "" if self.axis is None else f", axis={self.axis}"
        delay = f", delay={self.delay}" if self.delay else ""
        return f"{self.dtype} {self.lowest}..{self.highest}{axis}{delay}"
