"""What all layers with binary weights share: the latent weight, its binary form, its scale, how it is constrained.

Other parts of lowbit (lowering, the eval-mode kernels) rely on these names: ``weight`` (latent, real), ``bias`` (or
None), ``binary_weight()`` (+-1, weight's shape), ``alpha()`` (scale per output channel), ``pad_value``,
``input_scale``. In eval mode a layer computes ``product(input, binary_weight()) * alpha() * [K] + bias`` in that
order, so that the product of binary inputs is a whole number.
"""

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from lowbit.torch.binary.estimators import hard_sign
from lowbit.torch.binary.kernels import padded_conv2d
from lowbit.torch.geometry import layer_sizes, named_padding, pair

Activation = str | Callable[[Tensor], Tensor]


def glorot_scale(weight: Tensor) -> float:
    """BinaryConnect's factor on the optimiser's step, ``1 / sqrt(1.5 / (fan_in + fan_out))``.

    Of a convolution, ``fan_in = c_in kh kw`` and ``fan_out = c_out kh kw``. It undoes the size that Glorot's
    initialisation would have given: the latent weights live in [-1, 1] whatever the layer's width.

    Args:
        weight: ``(out, in, ...)``.

    Example:
        >>> import torch
        >>> from lowbit.torch import glorot_scale
        >>> round(glorot_scale(torch.zeros(1024, 512)), 3), round(glorot_scale(torch.zeros(8, 4, 3, 3)), 3)
        (32.0, 8.485)
    """
    receptive = weight[0, 0].numel()
    return math.sqrt((weight.shape[0] + weight.shape[1]) * receptive / 1.5)


class BinaryWeight(nn.Module):
    """A layer whose latent ``weight`` is used as signs. Linear and convolutional layers mix it in."""

    weight: Tensor
    bias: Any  # Parameter or None
    input_scale: bool = False

    def reset_parameters(self) -> None:
        """Uniform in (-1, 1), not Glorot-sized (BinaryConnect's code); bias 0."""
        nn.init.uniform_(self.weight, -1, 1)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @classmethod
    def from_float(cls, layer: nn.Linear | nn.Conv2d, **options: Any) -> Self:
        """A layer of this kind with the float layer's sizes, weights (scaled into [-1, 1]), bias, device and dtype.

        Raises:
            ValueError: a convolution's padding_mode is not ``zeros``.
        """
        sizes = layer_sizes(cls.__name__, layer)
        made = cls(**sizes, **options, device=layer.weight.device, dtype=layer.weight.dtype)
        with torch.no_grad():
            made.weight.copy_(made._latent_from(layer.weight))
            if layer.bias is not None:
                made.bias.copy_(layer.bias)
        made.constrain_()
        return made.train(layer.training)

    def binary_weight(self) -> Tensor:
        """+-1 of the weight's shape, without gradient: what inference uses."""
        return hard_sign(self.weight)

    def alpha(self) -> Tensor:
        """Scale per output channel, ``(out,)``, without gradient; ones where the method has none."""
        return torch.ones_like(self.weight.detach().flatten(1)[:, 0])

    def training_weight(self) -> Tensor:
        """The weight of the training pass, scale included, with the method's gradient to the latent weight."""
        raise NotImplementedError

    def step_scale(self) -> float:
        """Factor of the optimiser's step on the latent weight (see :func:`lowbit.torch.binary_steps`)."""
        return glorot_scale(self.weight)

    @torch.no_grad()
    def constrain_(self) -> None:
        """What is done to the latent weight after each update: clipping to [-1, 1]."""
        self.weight.clamp_(-1, 1)

    def _latent_from(self, weight: Tensor) -> Tensor:
        """A float layer's weights as latent ones: scaled by their largest value, so that they fill [-1, 1]."""
        return weight / weight.abs().max().clamp(min=2.0**-126)


class ScaledBinaryWeight(BinaryWeight):
    """A binary weight whose alpha keeps its size: latent weights are as large as a float layer's, steps as they are."""

    def reset_parameters(self) -> None:
        """As the float layer."""
        super(BinaryWeight, self).reset_parameters()  # type: ignore[misc]

    def _latent_from(self, weight: Tensor) -> Tensor:
        return weight

    def step_scale(self) -> float:
        """1: steps are not scaled."""
        return 1.0


class BinaryWeightLinear(BinaryWeight, nn.Linear):
    """``nn.Linear`` with binary weights; the subclasses say what happens to the input and to the gradient."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **factory: Any):
        nn.Linear.__init__(self, in_features, out_features, bias, **factory)


class BinaryWeightConv2d(BinaryWeight, nn.Conv2d):
    """``nn.Conv2d`` (weights OIHW) with binary weights and a padding that is a number of its own, ``pad_value``."""

    pad_value: int

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
        **factory: Any,
    ):
        if pad_value not in (-1, 0, 1):
            raise ValueError(f"{type(self).__name__}: pad_value {pad_value} is not -1, 0 or +1")
        if isinstance(padding, str):
            padding = named_padding(type(self).__name__, padding, kernel_size, stride, dilation)
        nn.Conv2d.__init__(
            self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, **factory
        )
        self.pad_value = pad_value

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of x, padded with ``pad_value``."""
        return padded_conv2d(x, weight, bias, *self.window())

    def window(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int, int]:
        """Stride, padding, dilation, groups and pad_value, as the kernels take them."""
        padding = pair(self.padding)  # type: ignore[arg-type]
        return pair(self.stride), padding, pair(self.dilation), self.groups, self.pad_value

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{nn.Conv2d.extra_repr(self)}, pad_value={self.pad_value}"
