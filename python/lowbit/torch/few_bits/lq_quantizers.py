"""LQ-Nets' quantizers: few levels for weights and inputs, with bases that follow what they quantize.

A forward pass in training quantizes with the stored basis and then moves it: one step of ``lowbit.lq.qem_step`` gives
v*, and ``basis += (v* - basis) (1 - decay) / (1 - decay^t)`` at step t. That is the moving average that TensorFlow's
default, zero-debiased, makes of the paper's ``0.9 v + 0.1 v*``: the first step replaces the basis, nothing of its start
is left. No gradient flows through a basis. Eval mode uses the stored bases as they are.

Before its first step a basis is fitted to what it meets there (``lowbit.lq.fit_basis``), not left at the paper's
constants, which hold for freshly initialised weights and normalised inputs only.

Source: Zhang, Yang, Ye, Hua 2018 (LQ-Nets, arXiv 1807.10029); the ridge for activations, too, is not in their code.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowbit import lq
from lowbit.torch.autograd import straight_through

_CHUNK = 1 << 17  # values whose passes stay in the second-level cache


class _Levels(torch.autograd.Function):
    """The level of every value; gradient 1 up to the highest level, 0 above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: Tensor, ends: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        # hardtanh's backward wants x < bound
        ctx.bound = float(torch.nextafter(levels[-1], torch.tensor(torch.inf, device=levels.device)))
        return nearest_level(x, levels, ends)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], x, -torch.inf, ctx.bound), None, None


def nearest_level(x: Tensor, levels: Tensor, ends: Tensor) -> Tensor:
    """``levels[number of ends below x]``, in x's dtype and memory format; no gradient.

    Args:
        x: any shape.
        levels: (L,) ascending.
        ends: (L - 1,), see ``lowbit.lq.thresholds``.

    Example:
        >>> import torch
        >>> from lowbit.torch.few_bits.lq_quantizers import nearest_level
        >>> nearest_level(torch.tensor([-1.0, 0.5, 0.6]), torch.tensor([0.0, 1.0]), torch.tensor([0.5])).tolist()
        [0.0, 0.0, 1.0]
    """
    x = x.detach()
    if not (x.is_contiguous() or _channels_last(x)):
        x = x.contiguous()
    y = torch.empty_like(x)
    if x.device.type != "cpu" or float(levels[0]) != 0:
        _flat(y).copy_(levels[torch.bucketize(_flat(x), ends, out_int32=True)])
        return y
    # torch.bucketize and indexing take ten times as long on a CPU. threshold_backward(a, x, t) is "a where x > t, else
    # 0", so that the level is the largest of them.
    above, rest = torch.empty(min(_CHUNK, x.numel()), dtype=x.dtype), levels[1:].to(x.dtype)
    step = torch.ops.aten.threshold_backward.grad_input
    for values, out in zip(_flat(x).split(_CHUNK), _flat(y).split(_CHUNK), strict=True):
        for i, end in enumerate(ends.tolist()):
            target = above[: values.numel()] if i else out
            step(rest[i].expand_as(values), values, end, grad_input=target)
            if i:
                torch.maximum(out, target, out=out)
    return y


def _channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _flat(x: Tensor) -> Tensor:
    """A view of a dense tensor in the order of its memory."""
    return (x if x.is_contiguous() else x.permute(0, 2, 3, 1)).reshape(-1)


class _LevelQuantize(torch.autograd.Function):
    """LQActivation as one node of an ONNX network; ``lowbit.convert`` reads it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, basis: Tensor) -> Tensor:
        return torch.from_numpy(lq.quantize(_array(x), _array(basis), signed=False)).to(x)

    @staticmethod
    def symbolic(g: Any, x: Any, basis: Any) -> Any:
        return g.op("lowbit::LevelQuantize", x, basis).setType(x.type())


class _BasisWeight(torch.autograd.Function):
    """``sum_p basis[:, p] * planes[p]`` as one node of an ONNX network."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, basis: Tensor) -> Tensor:
        return (planes * basis.T.reshape(*planes.shape[:2], *[1] * (planes.ndim - 2))).sum(0)

    @staticmethod
    def symbolic(g: Any, planes: Any, basis: Any) -> Any:
        return g.op("lowbit::BasisWeight", planes, basis).setType(basis.type().with_sizes(planes.type().sizes()[1:]))


class _Basis(nn.Module):
    """What both quantizers share: the stored basis, its moving average, the number of steps."""

    basis: Tensor
    steps: Tensor
    signed: bool

    def __init__(self, bits: int, basis: Tensor, decay: float):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"{type(self).__name__}: decay is {decay}, must be in [0, 1)")
        self.bits, self.decay = bits, decay
        self.register_buffer("basis", basis)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=basis.device))

    @torch.no_grad()
    def fit_(self, values: Tensor) -> None:
        """Set the basis to the best one for these values."""
        fitted = lq.fit_basis(_array(values), self.bits, signed=self.signed, per_row=self.signed)
        self.basis.copy_(torch.from_numpy(fitted))

    @torch.no_grad()
    def _follow(self, values: Tensor) -> None:
        """One step of the moving average."""
        self.steps += 1
        best = torch.from_numpy(lq.qem_step(_array(values), _array(self.basis), signed=self.signed)).to(self.basis)
        share = (1 - self.decay) / (1 - self.decay ** int(self.steps))
        self.basis.lerp_(best, share)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}"


def _array(tensor: Tensor) -> Any:
    return tensor.detach().float().cpu().numpy()


class LQActivation(_Basis):
    """Inputs in 2**bits learned levels, one basis for all of them; codes of {0, 1}, made for values after a ReLU.

    Args:
        bits: 1 to 4.
        decay: of the moving average.
        sample: each training step fits to at most about so many of the batch's values, evenly spaced, another set
            each time: the least squares have ``bits`` unknowns, and sorting every value would cost more than the layer.

    Example:
        >>> import torch
        >>> from lowbit.torch import LQActivation
        >>> layer = LQActivation(bits=1, decay=0.0)
        >>> x = torch.tensor([0.0, 0.0, 1.0, 3.0], requires_grad=True)
        >>> _ = layer(x)  # fits the basis
        >>> y = layer(x)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([0.0, 0.0, 0.0, 3.0], [1.0, 1.0, 1.0, 1.0])
    """

    signed = False

    def __init__(self, bits: int, decay: float = 0.9, sample: int = 1 << 14):
        _check_bits("LQActivation", bits)
        if sample < 1:
            raise ValueError(f"LQActivation: sample is {sample}, must be positive")
        super().__init__(bits, torch.from_numpy(lq.initial_basis(bits, signed=False)), decay)
        self.sample = sample

    def levels(self) -> tuple[Tensor, Tensor]:
        """The sorted levels (2**bits,) and the ends of their intervals (2**bits - 1,)."""
        sums, _ = lq.levels(_array(self.basis), signed=False)
        return torch.from_numpy(sums).to(self.basis), torch.from_numpy(lq.thresholds(sums)).to(self.basis)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same.

        Raises:
            ValueError: a NaN, or an infinity among a training step's sample.
        """
        if torch.onnx.is_in_onnx_export():
            node: Tensor = _LevelQuantize.apply(x, self.basis)
            return node
        if x.numel() and torch.isnan(x.detach().amax()):
            raise ValueError(f"LQActivation: the input {tuple(x.shape)} holds NaN")
        values = self._sampled(x) if self.training and x.numel() else None
        if values is not None and int(self.steps) == 0:
            self.fit_(values)
        y: Tensor = _Levels.apply(x, *self.levels())
        if values is not None:
            self._follow(values)
        return y

    def _sampled(self, x: Tensor) -> Tensor:
        x = x.detach()
        flat = _flat(x) if _channels_last(x) else x.reshape(-1)
        step = max(flat.numel() // self.sample, 1) | 1  # odd: else it would see some of the channels only
        return flat[int(self.steps) * 7919 % min(step, flat.numel()) :: step]


class LQWeight(_Basis):
    """Weights in 2**bits learned levels, a basis per output channel; codes of {-1, +1}.

    Args:
        weight: (out, ...): its size, and what the basis is fitted to for now.
        bits: 1 to 4.
        decay: of the moving average.

    Example:
        >>> import torch
        >>> from lowbit.torch import LQWeight
        >>> weight = torch.tensor([[1.0, -1.0, 3.0, -3.0]])
        >>> LQWeight(weight, bits=1)(weight).tolist()
        [[2.0, -2.0, 2.0, -2.0]]
    """

    signed = True

    def __init__(self, weight: Tensor, bits: int, decay: float = 0.9):
        _check_bits("LQWeight", bits)
        super().__init__(bits, torch.ones(len(weight), bits, device=weight.device), decay)
        if not weight.is_meta:
            self.fit_(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """The quantized weight; its gradient goes to the weight unchanged.

        Raises:
            ValueError: a weight that is not finite.
        """
        if torch.onnx.is_in_onnx_export():
            node: Tensor = _BasisWeight.apply(self.planes(weight), self.basis)
            return node
        if self.training and int(self.steps) == 0:
            self.fit_(weight)  # they may have been loaded or initialised since
        value = torch.from_numpy(lq.quantize(_array(weight), _array(self.basis), signed=True)).to(weight)
        if self.training:
            self._follow(weight)
        return straight_through(weight, value)

    def planes(self, weight: Tensor) -> Tensor:
        """The weight's codes, (bits, *weight.shape) int8 of -1 and +1; times the basis, summed, they are its levels."""
        codes = lq.assign(_array(weight), _array(self.basis), signed=True)
        bits = np.stack([2 * (codes >> p & 1).astype(np.int8) - 1 for p in range(self.bits)])
        return torch.from_numpy(bits).to(weight.device)


def _check_bits(name: str, bits: int) -> None:
    if not 1 <= bits <= 4:
        raise ValueError(f"{name}: bits is {bits}, must be 1 to 4")
