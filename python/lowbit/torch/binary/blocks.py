"""Blocks in the order that binary layers need."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.torch.binary.bnn import BinaryConv2d
from lowbit.torch.binary.xnor import XnorConv2d, XnorLinear, _Xnor


class XnorBlock(nn.Sequential):
    """XNOR-Net's order: batch norm, sign, binary convolution, pooling (and a ReLU last, where wanted).

    Pooling before the sign would turn nearly everything into +1: max pooling of signs keeps a +1 wherever one is.
    Source: XNOR-Net, section 3.2 and table 3 (44.2 against 30.3 % top-1).

    Args:
        layer: an :class:`XnorConv2d` or :class:`XnorLinear` (or another binary layer with a sign inside).
        pool: a pooling module, or None.
        relu: add a ReLU after the pooling (max pooling and ReLU commute).
        affine: batch norm with its own scale and shift; the released code has none.

    Example:
        >>> import torch
        >>> from lowbit.torch import XnorBlock, XnorConv2d
        >>> block = XnorBlock(XnorConv2d(4, 8, 3, padding=1), pool=torch.nn.MaxPool2d(2))
        >>> [type(m).__name__ for m in block], block(torch.randn(2, 4, 6, 6)).shape
        (['BatchNorm2d', 'XnorConv2d', 'MaxPool2d'], torch.Size([2, 8, 3, 3]))
    """

    def __init__(
        self,
        layer: XnorConv2d | XnorLinear | BinaryConv2d,
        pool: nn.Module | None = None,
        relu: bool = False,
        affine: bool = False,
    ):
        norm: nn.Module
        if isinstance(layer, nn.Conv2d):
            norm = nn.BatchNorm2d(layer.in_channels, eps=1e-4, affine=affine)
        else:
            norm = nn.BatchNorm1d(layer.in_features, eps=1e-4, affine=affine)
        parts = [norm, layer, *([pool] if pool is not None else []), *([nn.ReLU()] if relu else [])]
        super().__init__(*parts)


class BiRealBlock(nn.Module):
    """A binary 3x3 convolution with a real-valued shortcut around it: ``BN(conv(sign(x))) + shortcut(x)``.

    The sum stays real, so that the next block sees more than 1-bit values. Where stride or channels change, the
    shortcut is average pooling, a real 1x1 convolution and batch norm. Source: Bi-Real Net (Liu et al. 2018),
    sections 3.2 and 3.3.

    Args:
        in_channels, out_channels: channels.
        stride: 1 or 2.
        **options: of the :class:`XnorConv2d` inside; ``activation="approx_sign"`` and ``centre=False`` unless given.

    Example:
        >>> import torch
        >>> from lowbit.torch import BiRealBlock
        >>> BiRealBlock(8, 16, stride=2)(torch.randn(2, 8, 6, 6)).shape
        torch.Size([2, 16, 3, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, **options: Any):
        super().__init__()
        options = {"activation": "approx_sign", "centre": False, **options}
        self.conv = XnorConv2d(in_channels, out_channels, 3, stride, 1, **options)
        self.norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            pool: Iterable[nn.Module] = [nn.AvgPool2d(stride)] if stride != 1 else []
            self.shortcut = nn.Sequential(
                *pool, nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_channels, h, w)`` to ``(n, out_channels, h / stride, w / stride)``."""
        y: Tensor = self.norm(self.conv(x)) + self.shortcut(x)
        return y


@torch.no_grad()
def set_error_decay(model: nn.Module, sharpness: float) -> None:
    """Sets ``t`` of all layers with ``scale="libra"``; a buffer, so that checkpoints keep it.

    Args:
        model: holds :class:`XnorConv2d` or :class:`XnorLinear` layers.
        sharpness: usually ``error_decay_sharpness(epoch / epochs)``, once an epoch.

    Raises:
        ValueError: no layer of the model has one.

    Example:
        >>> from lowbit.torch import XnorLinear, error_decay_sharpness, set_error_decay
        >>> layer = XnorLinear(8, 4, scale="libra")
        >>> set_error_decay(layer, error_decay_sharpness(0.5))
        >>> round(layer.sharpness.item(), 3)
        1.0
    """
    layers = [m for m in model.modules() if isinstance(m, _Xnor) and m.scale == "libra"]
    if not layers:
        raise ValueError('set_error_decay: no layer of the model has scale="libra"')
    for layer in layers:
        layer.sharpness.fill_(sharpness)
