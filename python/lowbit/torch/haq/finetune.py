"""HAQ's reward as published: the accuracy of an assignment after a little training in simulated quantization."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import lowbit
from lowbit.graph.weights import quantize_weights
from lowbit.torch.autograd import straight_through

_INT = re.compile(r"int:([2-8])/([2-8]|32)")
_CODEBOOK = re.compile(r"codebook:([1-8])")


class FineTuning:
    """Evaluates assignments for :func:`haq_search`: quantize, train a few batches, measure on held-out data.

    Weights and inputs of each layer are rounded as ``convert`` would (scales of the least squared error, per output
    channel for weights; k-means for codebooks), the gradient passes straight through. Every call starts from the same
    weights and draws the same batches, so that an assignment has one accuracy.

    Args:
        net: float network of ``nn.Conv2d`` and ``nn.Linear`` layers; not changed.
        train: (inputs, labels) to calibrate the inputs' ranges and to train on.
        held_out: (inputs, labels) to measure on: other ones.
        steps: batches of training; 0 measures the rounded network as it is.
        batch: items per step.
        rate: of plain SGD with momentum 0.9.
        seed: of the batches.

    Raises:
        ValueError: no data; in a call, an unknown layer or precision, named.

    Example:
        >>> import torch
        >>> from lowbit.torch.haq import FineTuning
        >>> x, y = torch.eye(4).repeat(8, 1), torch.arange(4).repeat(8)
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.eye(4))
        >>> evaluate = FineTuning(net, (x, y), (x, y), steps=2, batch=8)
        >>> evaluate({"0": "int:2/2"})
        100.0
    """

    def __init__(
        self,
        net: nn.Module,
        train: tuple[Tensor, Tensor],
        held_out: tuple[Tensor, Tensor],
        *,
        steps: int = 50,
        batch: int = 128,
        rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        for what, (x, y) in (("train", train), ("held_out", held_out)):
            if not len(x) or len(x) != len(y):
                raise ValueError(f"FineTuning: {what} has {len(x)} inputs and {len(y)} labels")
        self.net = copy.deepcopy(net).eval()
        self.train, self.held_out = train, held_out
        self.steps, self.batch, self.rate, self.seed = steps, batch, rate, seed
        self._layers = {n: m for n, m in self.net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
        self._observers = self._observed(train[0][:256])
        self._weights: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {}
        self._inputs: dict[tuple[str, int], Callable[[Tensor], Tensor]] = {}

    @property
    def identity(self) -> str:
        """Digest of network, data and settings: what a checkpoint of a search belongs to."""
        digest = hashlib.sha256(repr((self.steps, self.batch, self.rate, self.seed)).encode())
        for tensor in (*self.net.state_dict().values(), *self.train, *self.held_out):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, assignment: Mapping[str, str]) -> float:
        """Percent of right answers on the held-out data."""
        net = self.quantized(assignment)
        if self.steps:
            self._tune(net)
        net.eval()
        x, y = self.held_out
        with torch.inference_mode(), parametrize.cached():
            right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True))
        return 100 * right / len(y)

    def quantized(self, assignment: Mapping[str, str]) -> nn.Module:
        """A copy of the network with the layers of an assignment rounded."""
        net = copy.deepcopy(self.net)
        for name, choice in assignment.items():
            if name not in self._layers:
                raise ValueError(f"FineTuning: the network has no layer {name!r}; it has {', '.join(self._layers)}")
            layer, activation_bits = net.get_submodule(name), _activation_bits(name, choice)
            if choice == "float32":
                continue
            parametrize.register_parametrization(layer, "weight", _Rounded(self._weight(name, choice)))
            if activation_bits:
                layer.register_forward_pre_hook(_input_hook(self._input(name, activation_bits)))
        return net

    def _tune(self, net: nn.Module) -> None:
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=self.rate, momentum=0.9)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for rows in _batches(len(self.train[0]), self.batch, self.steps):
                optimizer.zero_grad()
                F.cross_entropy(net(self.train[0][rows]), self.train[1][rows]).backward()
                optimizer.step()

    def _observed(self, x: Tensor) -> dict[str, lowbit.MSEObserver]:
        observers = {name: lowbit.MSEObserver() for name in self._layers}

        def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            return lambda _, inputs: observers[name].observe(inputs[0].detach().contiguous().numpy())

        hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in self._layers.items()]
        with torch.no_grad():
            for part in x.split(64):
                self.net(part)
        for hook in hooks:
            hook.remove()
        return observers

    def _weight(self, name: str, choice: str) -> Callable[[Tensor], Tensor]:
        if (name, choice) not in self._weights:
            weight = self._layers[name].weight.detach()
            rows = weight.flatten(1).float().numpy()
            if book := _CODEBOOK.fullmatch(choice):
                levels = np.sort(lowbit.kmeans1d(rows.ravel(), 1 << int(book[1]))[0])
                self._weights[name, choice] = _nearest(torch.from_numpy(levels).to(weight.dtype))
            else:
                found = _INT.fullmatch(choice)
                bits = int(found[1]) if found else 8
                scale = quantize_weights(rows, True, None, None, bits=bits)[1]
                column = torch.from_numpy(scale).to(weight.dtype)
                top = (1 << (bits - 1)) - 1
                self._weights[name, choice] = _uniform(column.reshape(-1, *[1] * (weight.ndim - 1)), -top, top)
        return self._weights[name, choice]

    def _input(self, name: str, bits: int) -> Callable[[Tensor], Tensor]:
        if (name, bits) not in self._inputs:
            observer = self._observers[name]
            signed = observer.lo < 0
            q = observer.qparams("int8" if signed else "uint8", symmetric=signed, bits=bits)
            self._inputs[name, bits] = _uniform(torch.tensor(float(q.scale)), int(q.qmin), int(q.qmax))
        return self._inputs[name, bits]


class _Rounded(nn.Module):
    """A parametrization: the weight as its codes would keep it."""

    def __init__(self, rounded: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rounded = rounded

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(weight, self.rounded(weight.detach()))


def _input_hook(rounded: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        x = inputs[0]
        value = rounded(x.detach())
        if not x.requires_grad:
            return value
        ends = rounded(torch.stack((x.new_tensor(-3e38), x.new_tensor(3e38))))
        return straight_through(x, value, (x >= ends[0]) & (x <= ends[1]))

    return hook


def _uniform(scale: Tensor, lowest: int, highest: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (x / scale).round_().clamp_(lowest, highest).mul_(scale)


def _nearest(levels: Tensor) -> Callable[[Tensor], Tensor]:
    ends = (levels[1:] + levels[:-1]) / 2
    return lambda x: levels[torch.bucketize(x, ends)]


def _activation_bits(name: str, choice: str) -> int:
    """0 for activations in float."""
    if found := _INT.fullmatch(choice):
        return int(found[2]) % 32
    if choice == "int8":
        return 8
    if choice == "float32" or _CODEBOOK.fullmatch(choice):
        return 0
    raise ValueError(f"FineTuning: layer {name!r}: {choice!r} is not one of float32, int8, int:W/A, codebook:B")


def _batches(items: int, batch: int, steps: int) -> Iterator[Any]:
    done = 0
    while done < steps:
        for rows in torch.randperm(items).split(batch)[: steps - done]:
            yield rows
            done += 1
