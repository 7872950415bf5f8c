"""Modules as ONNX networks, which ``lowbit.convert`` reads."""

import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.torch.binary.estimators import ap2
from lowbit.torch.binary.layers import BinaryWeight
from lowbit.torch.binary.normalization import ShiftBatchNorm
from lowbit.torch.compression.codebook_layers import unshared
from lowbit.torch.qat.folding import QatLayer

OPSET = 17


class _Shifted(nn.Module):
    """A ShiftBatchNorm in eval mode, its powers of two worked out."""

    mean: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, norm: ShiftBatchNorm):
        super().__init__()
        self.register_buffer("mean", norm.running_mean)
        self.register_buffer("scale", ap2(norm.running_inverse) * ap2(norm.weight))
        self.register_buffer("bias", norm.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, ...)`` to the same."""
        mean, scale, bias = (v.view(-1, *[1] * (x.ndim - 2)) for v in (self.mean, self.scale, self.bias))
        y: Tensor = (x - mean) * scale + bias
        return y


@torch.no_grad()
def frozen(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose binary layers hold what they multiply by: signs and scales, no latent weights.
    Layers with shared weights become float layers.

    Their parameters keep their names, so that an exported network's layers have the modules' names.

    Example:
        >>> import torch
        >>> from lowbit.torch import BinaryLinear
        >>> from lowbit.torch.lowering import frozen
        >>> layer = BinaryLinear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.3, -0.2]]))
        >>> frozen(layer).weight.tolist(), [round(w, 1) for w in layer.weight[0].tolist()]
        ([[1.0, -1.0]], [0.3, -0.2])
    """
    made = unshared(module).eval()
    for parent in list(made.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ShiftBatchNorm):
                setattr(parent, name, _Shifted(child))
            elif isinstance(child, QatLayer):
                setattr(parent, name, child.frozen_codes())
    for layer in made.modules():
        if isinstance(layer, BinaryWeight) and getattr(layer, "test_weights", "binary") == "binary":
            _freeze(layer)
    return _Shifted(made) if isinstance(made, ShiftBatchNorm) else made


def _freeze(layer: BinaryWeight) -> None:
    signs, alpha = layer.binary_weight().clone(), layer.alpha().clone()
    layer.weight = nn.Parameter(signs, requires_grad=False)
    layer.register_buffer("frozen_alpha", alpha)
    # Of this one object; setattr, since a type checker would think of the class.
    setattr(layer, "binary_weight", lambda: layer.weight)  # noqa: B010
    setattr(layer, "alpha", lambda: layer.frozen_alpha)  # noqa: B010
    setattr(layer, "runs_on_kernels", lambda x: False)  # noqa: B010  (plain operators, which ONNX has)


def to_onnx(module: nn.Module, example: Any) -> bytes:
    """The network of a module in eval mode, with an open batch, as the bytes of an ONNX file.

    Args:
        module: unchanged.
        example: an input, or a tuple of them.

    Raises:
        ValueError: torch.onnx cannot export the module; says why.

    Example:
        >>> import torch
        >>> from lowbit.torch.lowering import to_onnx
        >>> len(to_onnx(torch.nn.Linear(2, 1), torch.zeros(1, 2))) > 100
        True
    """
    inputs = example if isinstance(example, tuple) else (example,)
    names = [f"input_{i}" if len(inputs) > 1 else "input" for i in range(len(inputs))]
    buffer = io.BytesIO()
    try:
        made = frozen(module)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's about itself
            outputs = made(*inputs)
            count = len(outputs) if isinstance(outputs, tuple | list) else 1
            out_names = [f"output_{i}" if count > 1 else "output" for i in range(count)]
            torch.onnx.export(
                made,
                inputs,
                buffer,  # type: ignore[arg-type]
                input_names=names,
                output_names=out_names,
                dynamic_axes={n: {0: "batch"} for n in (*names, *out_names)},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:
        raise ValueError(f"convert: torch.onnx could not export {type(module).__name__}: {error}") from error
    return buffer.getvalue()
