"""Layers whose weights share a codebook, which learns."""

import copy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.compression.sharing import codebook_row, codebook_rows, share_weights
from lowbit.torch.geometry import layer_sizes


class _Shared(torch.autograd.Function):
    """codebook[row, codes]; the gradient of an entry is the sum over its weights."""

    @staticmethod
    def forward(ctx: Any, codebook: Tensor, codes: Tensor, pinned: bool, row: Tensor | None) -> Tensor:
        index = codes.long()
        if row is not None:
            index += row * codebook.shape[-1]
        ctx.save_for_backward(index)
        ctx.shape, ctx.pinned = codebook.shape, pinned
        return codebook.reshape(-1)[index.reshape(-1)].view(codes.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        weights = gradient.reshape(-1).double()
        out = torch.bincount(index.reshape(-1), weights, minlength=ctx.shape.numel()).to(gradient.dtype).view(ctx.shape)
        if ctx.pinned:
            out[..., 0] = 0
        return out, None, None, None


def shared_weight(codebook: Tensor, codes: Tensor, pinned: bool = False, row: Tensor | None = None) -> Tensor:
    """Weights ``codebook[codes]``, differentiable in the codebook: ``dL/dC_k = sum_ij dL/dW_ij [I_ij = k]``.

    Args:
        codebook: (k,) real; or (rows, k) with ``row``.
        codes: uint8, shape of the weights, all below k.
        pinned: entry 0 stands for pruned weights: its gradient is 0.
        row: int64, the codebook of each weight; broadcasts to the shape of the weights.

    Source: Deep Compression (arXiv 1510.00149), section 3.3.

    Example:
        >>> import torch
        >>> from lowbit.torch import shared_weight
        >>> codebook = torch.tensor([0.0, 0.5], requires_grad=True)
        >>> w = shared_weight(codebook, torch.tensor([1, 0, 1], dtype=torch.uint8))
        >>> (w * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
        >>> codebook.grad
        tensor([2., 5.])
    """
    weight: Tensor = _Shared.apply(codebook, codes, pinned, row)
    return weight


class CodebookWeight(nn.Module):
    """A layer whose weight is ``codebook[codes]``: only the codebook (and the bias) learns.

    Attributes:
        codebook: parameter (k,), k <= 2**bits, or (rows, k); entry 0 is 0.0 and stays so where ``pinned``.
        codes: uint8 buffer of the weight's shape.
        row: int64 buffer that broadcasts to it, the codebook of each weight; None where there is one.
        bits: of a code.
        pinned: code 0 stands for pruned weights.
        latent: parameter of the weight's shape where assignments move (``reassign=True``): every weight has the code
            of the entry nearest to its latent value, which learns by the weight's own gradient; else None. What was
            pruned stays so.

    Example:
        >>> import torch
        >>> from lowbit.torch import CodebookLinear, CodebookWeight
        >>> layer = CodebookLinear.from_float(torch.nn.Linear(4, 4), bits=1)
        >>> isinstance(layer, CodebookWeight), bool((layer.shared == layer.codebook[layer.codes.long()]).all())
        (True, True)
    """

    codebook: Tensor
    codes: Tensor
    row: Tensor | None
    bits: int
    pinned: bool
    latent: nn.Parameter | None

    @property
    def shared(self) -> Tensor:
        """The weight, differentiable in the codebook."""
        if self.latent is not None:
            self._assign(self.latent.detach())
            weight = shared_weight(self.codebook, self.codes, self.pinned, self.row)
            return weight + (self.latent - self.latent.detach())  # the latent value takes the weight's gradient
        return shared_weight(self.codebook, self.codes, self.pinned, self.row)

    @torch.no_grad()
    def _assign(self, latent: Tensor) -> None:
        """The code of the nearest entry of each weight's codebook; of equally near ones any."""
        first = int(self.pinned)  # what was pruned keeps code 0, which nothing else takes
        entries, order = self.codebook.detach()[..., first:].sort(dim=-1)
        middles = (entries[..., 1:] + entries[..., :-1]) / 2
        if self.row is None:
            codes = order[torch.bucketize(latent.contiguous(), middles)] + first
        else:
            rank = torch.zeros_like(self.row)
            for middle in middles.unbind(-1):
                rank += latent > middle[self.row]
            codes = order[self.row, rank] + first
        self.codes.copy_(torch.where(self.codes == 0, 0, codes) if self.pinned else codes)

    def _share(self, weight: Tensor, bits: int, init: str, mask: Tensor | None, per: str, reassign: bool) -> None:
        """Cluster a float weight; without a mask its zeros count as pruned where it has any."""
        order = (0, *range(2, weight.dim()), 1)  # of a file, in which columns are counted
        array = weight.detach().float().permute(order).contiguous().cpu().numpy()
        alive = array != 0 if mask is None else mask.permute(order).cpu().numpy()
        self.pinned = not bool(alive.all())
        codebook, codes = share_weights(array, bits, mask=alive if self.pinned else None, init=init, per=per)
        back = (0, weight.dim() - 1, *range(1, weight.dim() - 1))
        row = None
        if codebook.ndim == 2:
            whole = np.zeros((len(array), array[0].size), np.int64)
            whole += codebook_row(*codebook_rows(per, array.shape), array.shape)
            row = torch.from_numpy(whole).view(array.shape).permute(back).to(weight.device)
        del self._parameters["weight"]
        self.bits = bits
        self.codebook = nn.Parameter(torch.from_numpy(codebook).to(weight))
        self.register_buffer("codes", torch.from_numpy(codes).permute(back).contiguous().to(weight.device))
        self.register_buffer("row", row, persistent=False)
        self.latent = nn.Parameter(weight.detach().clone()) if reassign else None

    def to_float(self) -> nn.Module:
        """A float layer with these weights."""
        raise NotImplementedError

    def _unshare(self, layer: nn.Linear | nn.Conv2d) -> None:
        layer.weight = nn.Parameter(self.shared.detach().clone())
        layer.bias = self.bias  # type: ignore[assignment]
        layer.train(self.training)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"{super().extra_repr()}, bits={self.bits}, entries={tuple(self.codebook.shape)}"


class CodebookLinear(CodebookWeight, nn.Linear):
    """``nn.Linear`` with shared weights, made by :meth:`from_float`.

    Source: Deep Compression (arXiv 1510.00149), section 3.

    Example:
        >>> import torch
        >>> from lowbit.torch import CodebookLinear
        >>> layer = CodebookLinear.from_float(torch.nn.Linear(64, 64), bits=2)
        >>> layer.codebook.shape, layer(torch.ones(1, 64)).shape
        (torch.Size([4]), torch.Size([1, 64]))
    """

    @classmethod
    def from_float(
        cls,
        layer: nn.Linear,
        bits: int = 4,
        init: str = "linear",
        mask: Tensor | None = None,
        per: str = "tensor",
        reassign: bool = False,
    ) -> Self:
        """Share a float layer's weights.

        Args:
            layer: zeros among its weights count as pruned.
            bits: 1 to 8.
            init: of k-means, see ``lowbit.kmeans1d``.
            mask: True where a weight survived; default where it is not 0.
            per: what has a codebook of its own: ``tensor``, ``channel`` (output channel) or ``columns:G``.
            reassign: weights keep latent values and follow them to other entries; else assignments stay.

        Raises:
            ValueError: see ``lowbit.compression.share_weights``.
        """
        made = cls(**layer_sizes(cls.__name__, layer), device="meta")
        made._share(layer.weight, bits, init, mask, per, reassign)
        made.bias = layer.bias
        return made.train(layer.training)

    def to_float(self) -> nn.Linear:
        """``nn.Linear`` with these weights."""
        layer = nn.Linear(**layer_sizes(type(self).__name__, self), device="meta")
        self._unshare(layer)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return F.linear(input, self.shared, self.bias)


class CodebookConv2d(CodebookWeight, nn.Conv2d):
    """``nn.Conv2d`` with shared weights, made by :meth:`from_float`.

    Source: Deep Compression (arXiv 1510.00149), section 3.

    Example:
        >>> import torch
        >>> from lowbit.torch import CodebookConv2d
        >>> layer = CodebookConv2d.from_float(torch.nn.Conv2d(1, 8, 5), bits=3)
        >>> layer(torch.ones(1, 1, 28, 28)).shape
        torch.Size([1, 8, 24, 24])
    """

    @classmethod
    def from_float(
        cls,
        layer: nn.Conv2d,
        bits: int = 8,
        init: str = "linear",
        mask: Tensor | None = None,
        per: str = "tensor",
        reassign: bool = False,
    ) -> Self:
        """Share a float layer's weights; see :meth:`CodebookLinear.from_float`.

        Raises:
            ValueError: see ``lowbit.compression.share_weights``; or the layer's padding_mode is not ``zeros``.
        """
        made = cls(**layer_sizes(cls.__name__, layer), device="meta")
        made._share(layer.weight, bits, init, mask, per, reassign)
        made.bias = layer.bias
        return made.train(layer.training)

    def to_float(self) -> nn.Conv2d:
        """``nn.Conv2d`` with these weights."""
        layer = nn.Conv2d(**layer_sizes(type(self).__name__, self), device="meta")
        self._unshare(layer)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, h, w) to (n, oc, h', w')."""
        return F.conv2d(input, self.shared, self.bias, self.stride, self.padding, self.dilation, self.groups)


def unshared(model: nn.Module) -> nn.Module:
    """A copy whose codebook layers are float layers with the same weights.

    Example:
        >>> import torch
        >>> from lowbit.torch import swap, unshared
        >>> net = swap(torch.nn.Sequential(torch.nn.Linear(8, 8)), {"0": "codebook:2"})
        >>> type(unshared(net)[0]).__name__, unshared(net)[0].weight.unique().numel()
        ('Linear', 4)
    """
    made = copy.deepcopy(model)
    for parent in list(made.modules()):
        for name, child in parent.named_children():
            if isinstance(child, CodebookWeight):
                setattr(parent, name, child.to_float())
    return made.to_float() if isinstance(made, CodebookWeight) else made
