"""How far quantization turns gradients, layer by layer, and the learning rates that answer it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lowbit.torch.int8_training.int8_train import Int8Train


def gradient_deviations(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Of every 8-bit trained layer by name: its last gradient's deviation and the learning rate's factor.

    A layer whose factor stays near 0.1 hardly learns.

    Example:
        >>> import torch
        >>> from lowbit.torch import Int8TrainLinear, gradient_deviations
        >>> gradient_deviations(torch.nn.Sequential(Int8TrainLinear(2, 2)))
        {'0': (0.0, 1.0)}
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, Int8Train)}
    return {name: (float(m.deviation), m.lr_scale()) for name, m in layers.items()}


class DeviationSteps:
    """What :func:`deviation_steps` hooked to an optimiser; ``remove()`` takes it off again."""

    def __init__(self, optimizer: Optimizer, model: nn.Module):
        self.layers = [m for m in model.modules() if isinstance(m, Int8Train)]
        self._scaling = [layer.lr_scaling for layer in self.layers]
        for layer in self.layers:
            layer.lr_scaling = False
        self._before: list[list[Tensor]] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._keep),
            optimizer.register_step_post_hook(self._finish),
        ]

    @torch.no_grad()
    def _keep(self, *_: Any) -> None:
        self._before = [[p.clone() for p in layer.parameters()] for layer in self.layers]

    @torch.no_grad()
    def _finish(self, *_: Any) -> None:
        for layer, before in zip(self.layers, self._before, strict=True):
            for parameter, old in zip(layer.parameters(), before, strict=True):
                torch.lerp(old, parameter, layer.lr_scale(), out=parameter)  # w + s (w' - w)
        self._before = []

    def remove(self) -> None:
        """Leave the optimiser and the layers as they were."""
        for handle in self._handles:
            handle.remove()
        for layer, scaling in zip(self.layers, self._scaling, strict=True):
            layer.lr_scaling = scaling


def deviation_steps(optimizer: Optimizer, model: nn.Module) -> DeviationSteps:
    """Scales the 8-bit layers' steps, not their gradients: ``w <- w + s (w' - w)``, ``s = max(exp(-20 d), 0.1)``.

    w' is the weight that the optimiser would have left, d the deviation of the layer's last gradient. That is the
    paper's scaling of the learning rate for any optimiser, weight decay included; a layer left alone scales its
    gradients instead, which Adam's normalisation would cancel.
    Source: Zhu et al. 2020, section 3.4.

    Args:
        optimizer: any; its ``state_dict`` is as before. Call this once, before training.
        model: whose `Int8TrainLinear` and `Int8TrainConv2d` layers the optimizer steps.

    Example:
        >>> import torch
        >>> from lowbit.torch import Int8TrainLinear, deviation_steps
        >>> layer = Int8TrainLinear(1, 1, bias=False)
        >>> _ = layer.weight.data.fill_(1.0)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        >>> _ = deviation_steps(optimizer, layer)
        >>> layer.weight.grad = torch.ones(1, 1)
        >>> _ = layer.deviation.fill_(1.0)  # s = 0.1
        >>> optimizer.step()
        >>> round(layer.weight.item(), 3)
        0.95
    """
    return DeviationSteps(optimizer, model)
