"""The update of latent weights: the step scaled, then the weights constrained; and the shift-based AdaMax."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lowbit.torch.binary.estimators import ap2
from lowbit.torch.binary.layers import BinaryWeight


class BinarySteps:
    """What :func:`binary_steps` hooked to an optimiser; ``remove()`` takes it off again."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, scale: bool, power_of_two: bool):
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        named = [(n, m) for n, m in model.named_modules() if isinstance(m, BinaryWeight)]
        for name, layer in named:
            if layer.weight.requires_grad and id(layer.weight) not in stepped:
                raise ValueError(f"binary_steps: the optimizer does not hold the weight of {name or 'the model'}")
        self.layers = [m for _, m in named]
        self.scales = [layer.step_scale() if scale else 1.0 for layer in self.layers]
        if power_of_two:
            self.scales = [float(ap2(torch.tensor(s, dtype=torch.float64))) for s in self.scales]
        self._before: list[Tensor] = []
        self._handles: list[RemovableHandle] = [
            optimizer.register_step_pre_hook(self._keep),
            optimizer.register_step_post_hook(self._finish),
        ]

    def _scaled(self) -> list[tuple[Tensor, float]]:
        return [(m.weight, s) for m, s in zip(self.layers, self.scales, strict=True) if s != 1.0]

    @torch.no_grad()
    def _keep(self, *_: Any) -> None:
        self._before = [weight.detach().clone() for weight, _ in self._scaled()]

    @torch.no_grad()
    def _finish(self, optimizer: Optimizer, *_: Any) -> None:
        for (weight, scale), before in zip(self._scaled(), self._before, strict=True):
            torch.lerp(before, weight, scale, out=weight)  # w + s (w' - w)
        self._before = []
        for layer in self.layers:
            layer.constrain_()
            curvature = getattr(layer, "curvature", None)
            second = optimizer.state.get(layer.weight, {}).get("exp_avg_sq")
            if curvature is not None and second is not None:
                curvature.copy_(second.sqrt())

    def remove(self) -> None:
        """Leave the optimiser as it was."""
        for handle in self._handles:
            handle.remove()


def binary_steps(optimizer: Optimizer, model: nn.Module, scale: bool = True, power_of_two: bool = False) -> BinarySteps:
    """Hooks to an optimiser what binary weights need at each step: ``w <- clip(w + s (w' - w), -1, 1)``.

    w' is the weight that the optimiser would have left, ``s`` the layer's ``step_scale()``: Glorot's
    ``1 / sqrt(1.5 / (fan_in + fan_out))`` for BinaryConnect's and BNN's layers, 1 for the others. The scale applies
    to the step, so that Adam's normalisation does not cancel it; without it the signs barely flip. Biases and batch
    norm are neither scaled nor clipped. Layers with ``scale="lab"`` read their curvature from Adam's second moment
    here.
    Source: BinaryConnect, section 2.4, and its code. Give those layers no weight decay.

    Args:
        optimizer: any; its schedulers and its ``state_dict`` are as before. Call this before training, once.
        model: the model whose binary layers' weights the optimizer holds.
        scale: False leaves the steps as they are and only constrains.
        power_of_two: round the scales to powers of two (for :class:`ShiftAdaMax`).

    Raises:
        ValueError: a binary layer's weight is not among the optimizer's parameters.

    Example:
        >>> import torch
        >>> from lowbit.torch import BinaryConnectLinear, binary_steps
        >>> layer = BinaryConnectLinear(4, 2, bias=False)  # s = sqrt(6 / 1.5) = 2
        >>> _ = layer.weight.data.fill_(0.25)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.25)
        >>> _ = binary_steps(optimizer, layer)
        >>> layer(torch.tensor([[1.0, 2.0, -1.0, 0.0]])).sum().backward()
        >>> optimizer.step()
        >>> layer.weight[0].tolist()
        [-0.25, -0.75, 0.75, 0.25]
    """
    return BinarySteps(optimizer, model, scale, power_of_two)


class ShiftAdaMax(Optimizer):
    """AdaMax whose multiplications are shifts, but for the momentum's: an option for binarized networks.

    ``m = b1 m + (1 - b1) g``; ``v = max(b2 v, |g|)``; ``step = ap2(lr / (1 - b1^t))``; ``v <- ap2(v) + 2^-27``, which
    is stored; ``w <- w - step m / v``. With ``binary_steps(optimizer, model, power_of_two=True)`` each layer's step
    is scaled by a power of two and clipped. Source: Binarized Neural Networks, section 1.5 and its Torch7 code.

    Args:
        params: parameters or groups.
        lr: learning rate, 2^-6 in the Torch7 code.
        betas: decay of the mean and of the maximum.

    Raises:
        ValueError: lr not positive or betas outside [0, 1).

    Example:
        >>> import torch
        >>> from lowbit.torch import ShiftAdaMax
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> w.grad = torch.tensor([0.3, -4.0])
        >>> ShiftAdaMax([w], lr=2**-6).step()  # step 2^-3, m/v = 0.03/0.25 and -0.4/4
        >>> [round(v, 4) for v in w.tolist()]
        [0.985, 1.0125]
    """

    def __init__(self, params: Iterable[Any], lr: float = 2**-6, betas: tuple[float, float] = (0.9, 0.999)):
        if not lr > 0 or not all(0 <= b < 1 for b in betas):
            raise ValueError(f"ShiftAdaMax: lr {lr} must be positive and betas {betas} in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=0, mean=torch.zeros_like(p), largest=torch.zeros_like(p))
                state["step"] += 1
                mean, largest = state["mean"], state["largest"]
                mean.mul_(beta1).add_(p.grad, alpha=1 - beta1)
                torch.maximum(largest.mul_(beta2), p.grad.abs(), out=largest)
                largest.copy_(ap2(largest) + 2.0**-27)
                rate = group["lr"] / (1 - beta1 ** state["step"])
                p.addcdiv_(mean, largest, value=-(2.0 ** round(math.log2(rate))))
        return loss
