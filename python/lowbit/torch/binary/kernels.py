"""The packed kernels inside PyTorch: ``torch.ops.lowbit.pack_bits``, ``xnor_gemm``, ``xnor_conv2d``.

They take real tensors and use their signs (x >= 0 is +1). Registered through ``torch.library``: shapes are known to
fake tensors, so that ``torch.export`` and ``torch.compile`` keep them, and they have a gradient, that of the float
path with the hard-tanh estimator for the input and BinaryConnect's unmasked one for the weight. They run on as many
threads as torch has.

A weight is packed at its first use and kept while it does not change, as is a layer's alpha (`tensor_cache.py`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import lowbit
from lowbit.bits import PackedBits
from lowbit.torch.autograd import traced
from lowbit.torch.binary.binarization import binary_connect
from lowbit.torch.binary.estimators import sign
from lowbit.torch.tensor_cache import kept

_PLAIN = (Tensor, torch.nn.Parameter)  # a subclass (fake, traced, distributed) means something else


def _pack(weight: Tensor) -> PackedBits:
    """The weight's bits, channels last."""
    return kept("bits", lambda: _pack_now(weight), weight)


def _pack_now(weight: Tensor) -> PackedBits:
    rows = weight.detach()
    rows = rows.permute(0, 2, 3, 1) if rows.ndim == 4 else rows
    return lowbit.pack_bits(rows.contiguous().numpy())


def _check(name: str, **tensors: Tensor | None) -> None:
    for what, tensor in tensors.items():
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise TypeError(f"{name}: {what} is {tensor.dtype} on {tensor.device}, must be float32 on the CPU")


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().contiguous().numpy()


def scaled(y: Tensor, scale: Tensor | None, input_scale: Tensor | None, bias: Tensor | None, spatial: int) -> Tensor:
    """``y * [scale] * [input_scale] + [bias]`` in the kernels' order; the channels lie before the spatial axes."""
    shape = (-1, *[1] * spatial)
    if scale is not None:
        y = y * scale.view(shape)
    if input_scale is not None:
        y = y * input_scale
    return y if bias is None else y + bias.view(shape)


def padded_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    pad_value: int,
) -> Tensor:
    """The float convolution of x, padded by ``pad_value``."""
    h, w = padding
    if pad_value != 0 and (h or w):
        x, h, w = F.pad(x, (w, w, h, h), value=float(pad_value)), 0, 0
    return F.conv2d(x, weight, bias, tuple(stride), (h, w), tuple(dilation), groups)


@torch.library.custom_op("lowbit::pack_bits", mutates_args=())
def pack_bits(x: Tensor) -> Tensor:
    """Signs along the last axis as bits: ``(..., c)`` float32 to ``(..., ceil(c / 32))`` int32 words.

    Bit j % 32 of word j // 32 is x[..., j] >= 0; the bits beyond c are 0. No gradient.

    Raises:
        TypeError: x is not float32 on the CPU.
        ValueError: a NaN.

    Example:
        >>> import torch
        >>> import lowbit.torch
        >>> torch.ops.lowbit.pack_bits(torch.tensor([[0.5, -2.0, 0.0]])).tolist()
        [[5]]
    """
    _check("pack_bits", x=x)
    return torch.from_numpy(lowbit.pack_bits(_array(x)).words.view("int32"))


@pack_bits.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], (x.shape[-1] + 31) // 32), dtype=torch.int32)


@torch.library.custom_op("lowbit::xnor_gemm", mutates_args=())
def xnor_gemm(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    input_scale: Tensor | None = None,
) -> Tensor:
    """``(sign(x) . sign(weight)) * scale * input_scale + bias`` by xor and popcount.

    Args:
        x: ``(m, k)`` float32.
        weight: ``(n, k)`` float32.
        scale: ``(n,)`` or None; bias likewise.
        bias: ``(n,)`` or None.
        input_scale: ``(m, 1)`` or None.

    Returns:
        ``(m, n)`` float32.

    Raises:
        TypeError: a tensor that is not float32 on the CPU.
        ValueError: shapes that disagree, k = 0, a NaN in x.

    Example:
        >>> import torch
        >>> import lowbit.torch
        >>> x = torch.tensor([[0.5, -2.0, 0.1]], requires_grad=True)
        >>> w = torch.tensor([[0.3, 0.4, 0.5], [-0.3, -0.4, 0.0]])
        >>> y = torch.ops.lowbit.xnor_gemm(x, w, torch.tensor([1.0, 0.5]))
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([[1.0, 0.5]], [[0.5, 0.0, 1.5]])
    """
    _check("xnor_gemm", x=x, weight=weight, scale=scale, bias=bias, input_scale=input_scale)
    bits = lowbit.pack_bits(_array(x), threads=torch.get_num_threads())
    return torch.from_numpy(
        lowbit.xnor_gemm(
            bits,
            _pack(weight),
            scale=_array(scale),
            bias=_array(bias),
            input_scale=None if input_scale is None else _array(input_scale.reshape(-1)),
            out_dtype="float32",
            threads=torch.get_num_threads(),
        )
    )


@xnor_gemm.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    input_scale: Tensor | None = None,
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]))


def _gemm_reference(
    x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, input_scale: Tensor | None
) -> Tensor:
    return scaled(F.linear(sign(x), binary_connect(weight)), scale, input_scale, bias, 0)


@torch.library.custom_op(
    "lowbit::xnor_conv2d",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1, "
    "int pad_value=1, Tensor? scale=None, Tensor? bias=None, Tensor? input_scale=None) -> Tensor",
)
def xnor_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    pad_value: int = 1,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    input_scale: Tensor | None = None,
) -> Tensor:
    """``conv2d(sign(x), sign(weight)) * scale * input_scale + bias`` by xor and popcount, torch's layouts.

    Args:
        x: ``(n, c, h, w)`` float32; without a copy where its memory is channels-last.
        weight: ``(oc, c / groups, kh, kw)`` float32.
        stride: one number or height, width; default 1.
        padding: likewise; default 0.
        dilation: likewise; default 1.
        groups: divides c and oc.
        pad_value: what padded pixels hold: -1, +1, or 0 exactly.
        scale: ``(oc,)`` or None.
        bias: ``(oc,)`` or None.
        input_scale: ``(n, 1, oh, ow)`` or None.

    Returns:
        ``(n, oc, oh, ow)`` float32, channels-last in memory.

    Raises:
        TypeError: a tensor that is not float32 on the CPU.
        ValueError: shapes that disagree, a NaN in x.

    Example:
        >>> import torch
        >>> import lowbit.torch
        >>> x, w = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
        >>> torch.ops.lowbit.xnor_conv2d(x, w, padding=1, pad_value=0).tolist()
        [[[[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]]]
    """
    _check("xnor_conv2d", x=x, weight=weight, scale=scale, bias=bias, input_scale=input_scale)
    y = lowbit.xnor_conv2d(
        _array(x.permute(0, 2, 3, 1)),
        _pack(weight),
        (stride[0], stride[1]),
        (padding[0], padding[1]),
        (dilation[0], dilation[1]),
        groups,
        pad_value,
        scale=_array(scale),
        bias=_array(bias),
        input_scale=None if input_scale is None else _array(input_scale[:, 0]),
        threads=torch.get_num_threads(),
    )
    return torch.from_numpy(y).permute(0, 3, 1, 2)


@xnor_conv2d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    pad_value: int = 1,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    input_scale: Tensor | None = None,
) -> Tensor:
    n, _, h, w = x.shape
    oc, _, kh, kw = weight.shape
    oh = (h + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (w + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    return x.new_empty((n, oh, ow, oc)).permute(0, 3, 1, 2)


def _conv_reference(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    pad_value: int,
    scale: Tensor | None,
    bias: Tensor | None,
    input_scale: Tensor | None,
) -> Tensor:
    y = padded_conv2d(sign(x), binary_connect(weight), None, stride, padding, dilation, groups, pad_value)
    return scaled(y, scale, input_scale, bias, 2)


def _give_gradient(operator: Any, reference: Any) -> None:
    """Backward of an operator: that of the float path, run again on the same inputs."""

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*[a for a in inputs if isinstance(a, Tensor)])
        ctx.others = [None if isinstance(a, Tensor) else (a,) for a in inputs]

    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors = iter(ctx.saved_tensors)
        inputs = [next(tensors).detach() if other is None else other[0] for other in ctx.others]
        needed = ctx.needs_input_grad  # as long as what the caller gave: defaults at the end are left out
        wanted = [a for a, is_needed in zip(inputs, needed, strict=False) if is_needed]
        with torch.enable_grad():
            for a in wanted:
                a.requires_grad_()
            found = iter(torch.autograd.grad(reference(*inputs), wanted, gradient))
        return tuple(next(found) if is_needed else None for is_needed in needed)

    operator.register_autograd(backward, setup_context=keep)


_give_gradient(xnor_gemm, _gemm_reference)
_give_gradient(xnor_conv2d, _conv_reference)


def kernel_runs(layer_is_training: bool, activation: object, *tensors: Tensor | None) -> bool:
    """Whether a layer's forward pass may run on the kernels.

    In eval mode where no gradient is wanted, with the plain sign as activation, on float32 CPU tensors; while a graph
    is traced the plain operators stay, which other backends and the lowering understand.
    """
    if layer_is_training or not isinstance(activation, str) or traced():
        return False
    given = [t for t in tensors if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return False
    return all(t.dtype == torch.float32 and t.device.type == "cpu" and type(t) in _PLAIN for t in given)
