"""Pruning with retraining.

An explicit mask is applied again after every step: masking only the gradient would let momentum and weight decay move
a pruned weight, and masking where the weight is 0 would kill every weight that passes through it.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lowbit.compression.pruning import magnitude_mask


class Pruner:
    """Masks of a model's ``nn.Linear`` and ``nn.Conv2d`` weights; what is pruned stays pruned.

    Args:
        model: its layers are found by name, as ``named_modules`` gives them.

    Attributes:
        masks: layer name -> bool tensor, True where a weight stays.

    Source: Han, Pool, Tran, Dally 2015 (arXiv 1506.02626); Deep Compression (arXiv 1510.00149), section 2.

    Example:
        >>> import torch
        >>> from lowbit.torch import Pruner
        >>> net = torch.nn.Sequential(torch.nn.Linear(10, 10), torch.nn.Linear(10, 2))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> pruner = Pruner(net)
        >>> pruner.attach(optimizer)
        >>> pruner.prune({"0": 0.2})
        >>> net(torch.ones(4, 10)).sum().backward()
        >>> optimizer.step()
        >>> int((net[0].weight != 0).sum())
        20
    """

    def __init__(self, model: nn.Module):
        self.layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        self.masks = {n: torch.ones_like(m.weight, dtype=torch.bool) for n, m in self.layers.items()}

    def prune(self, density: float | Mapping[str, float] | None = None, *, deviations: float | None = None) -> None:
        """Drop the smallest weights, from the masks and from the model.

        Args:
            density: share of each layer's weights to keep, or pattern (``re.fullmatch``) -> share; the first pattern
                that matches wins, layers that none matches keep their masks.
            deviations: instead, keep |w| >= deviations * std of the layer's surviving weights.

        Raises:
            ValueError: a pattern that matches no layer, a share outside (0, 1], weights that are not finite; named.
        """
        if isinstance(density, Mapping):
            for pattern in density:
                if not any(re.fullmatch(pattern, name) for name in self.layers):
                    raise ValueError(f"prune: {pattern!r} matches no layer; they are {', '.join(self.layers)}")
            shares = {n: next((d for p, d in density.items() if re.fullmatch(p, n)), None) for n in self.layers}
        else:
            shares = dict.fromkeys(self.layers, density)
        for name, layer in self.layers.items():
            if shares[name] is None and deviations is None:
                continue
            weight = layer.weight.detach().float().cpu().numpy()
            mask = magnitude_mask(
                weight,
                density=shares[name],
                deviations=deviations if shares[name] is None else None,
                mask=self.masks[name].cpu().numpy(),
                layer=name,
            )
            self.masks[name] = torch.from_numpy(mask).to(layer.weight.device)
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Set the pruned weights to 0."""
        for name, layer in self.layers.items():
            layer.weight.mul_(self.masks[name])

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Apply the masks after each of the optimiser's steps, so that momentum cannot revive a weight."""
        optimizer.register_step_post_hook(lambda *_: self.apply())

    def densities(self) -> dict[str, float]:
        """Share of the weights that are left, by layer."""
        return {name: mask.float().mean().item() for name, mask in self.masks.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The masks."""
        return dict(self.masks)

    def load_state_dict(self, masks: Mapping[str, Tensor]) -> None:
        """Take masks over and apply them.

        Raises:
            ValueError: they are not for these layers.
        """
        found = {name: mask.shape for name, mask in masks.items()}
        wanted = {name: mask.shape for name, mask in self.masks.items()}
        if found != wanted:
            raise ValueError(f"Pruner: masks {found} are not for layers {wanted}")
        self.masks = {name: mask.to(self.masks[name]) for name, mask in masks.items()}
        self.apply()
