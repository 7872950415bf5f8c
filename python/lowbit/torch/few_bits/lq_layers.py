"""LQ-Nets: layers whose weights and inputs take few learned levels.

Source: Zhang, Yang, Ye, Hua 2018 (LQ-Nets, arXiv 1807.10029).
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.torch.few_bits.lq_quantizers import LQActivation, LQWeight
from lowbit.torch.geometry import layer_sizes


class LQLayer(nn.Module):
    """A layer with both quantizers. Linear and convolutional layers mix it in.

    Attributes:
        quantize_weight: :class:`LQWeight`.
        quantize_input: :class:`LQActivation`, or None (inputs stay as they are).
    """

    weight: Tensor
    bias: Any  # Parameter or None
    quantize_weight: LQWeight
    quantize_input: LQActivation | None

    def _add_quantizers(self, w_bits: int, a_bits: int, decay: float, sample: int) -> None:
        self.quantize_weight = LQWeight(self.weight.detach(), w_bits, decay)
        self.quantize_input = None if a_bits == 32 else LQActivation(a_bits, decay, sample).to(self.weight.device)

    def quantized(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input and weight, quantized."""
        return x if self.quantize_input is None else self.quantize_input(x), self.quantize_weight(self.weight)

    @classmethod
    def from_float(cls, layer: nn.Linear | nn.Conv2d, **options: Any) -> Self:
        """A layer of this kind with the float layer's sizes, weights, bias, device and dtype.

        Raises:
            ValueError: a convolution's padding_mode is not ``zeros``.
        """
        sizes = layer_sizes(cls.__name__, layer)
        made = cls(**sizes, **options, device=layer.weight.device, dtype=layer.weight.dtype)
        with torch.no_grad():
            made.weight.copy_(layer.weight)
            made.quantize_weight.fit_(made.weight)
            if layer.bias is not None:
                made.bias.copy_(layer.bias)
        return made.train(layer.training)


class LQLinear(LQLayer, nn.Linear):
    """``nn.Linear`` with learned levels for its weights and inputs.

    Args:
        in_features: as ``nn.Linear``.
        out_features: as ``nn.Linear``.
        bias: as ``nn.Linear``; stays float.
        w_bits: of a weight, 1 to 4.
        a_bits: of an input, 1 to 4; 32 keeps inputs as they are.
        decay: of the moving averages.
        sample: see :class:`LQActivation`.
        **factory: device.

    Raises:
        ValueError: bits outside these.

    Example:
        >>> import torch
        >>> from lowbit.torch import LQLinear
        >>> layer = LQLinear(8, 4, w_bits=1, a_bits=2)
        >>> _ = layer(torch.rand(16, 8))  # a training step: the bases follow
        >>> layer.eval().quantize_weight(layer.weight)[0].abs().unique().numel(), layer.quantize_input.basis.shape
        (1, torch.Size([2]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        w_bits: int = 2,
        a_bits: int = 2,
        decay: float = 0.9,
        sample: int = 1 << 14,
        **factory: Any,
    ):
        nn.Linear.__init__(self, in_features, out_features, bias, **factory)
        self._add_quantizers(w_bits, a_bits, decay, sample)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        x, weight = self.quantized(input)
        return F.linear(x, weight, self.bias)


class LQConv2d(LQLayer, nn.Conv2d):
    """``nn.Conv2d`` (weights OIHW) with learned levels for its weights and inputs. Padded pixels are 0.

    Arguments and errors as ``nn.Conv2d`` (``padding_mode`` is zeros) and :class:`LQLinear`.

    Example:
        >>> import torch
        >>> from lowbit.torch import LQConv2d
        >>> layer = LQConv2d(3, 8, 3, padding=1, w_bits=2, a_bits=32)
        >>> layer(torch.rand(2, 3, 8, 8)).shape, layer.quantize_weight.basis.shape
        (torch.Size([2, 8, 8, 8]), torch.Size([8, 2]))
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
        w_bits: int = 2,
        a_bits: int = 2,
        decay: float = 0.9,
        sample: int = 1 << 14,
        **factory: Any,
    ):
        nn.Conv2d.__init__(
            self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, **factory
        )
        self._add_quantizers(w_bits, a_bits, decay, sample)

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, h, w) to (n, oc, h', w')."""
        x, weight = self.quantized(input)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
