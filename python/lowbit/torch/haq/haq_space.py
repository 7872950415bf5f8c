"""What HAQ's agent sees of a network: layers, the bits that they may have, and how a budget is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Chosen = tuple[str, ...]
"""The precision of each layer, in the layers' order."""

STATE = 10


@dataclass(frozen=True)
class HaqLayer:
    """A layer as HAQ's agent sees it.

    Attributes:
        name: canonical name, as in recipes.
        choices: precision -> (bits of weights, bits of activations). A layer with one choice is not searched.
        in_channels: input channels, or features.
        out_channels: output channels, or features.
        kernel: width of the window; 1 for a fully connected layer.
        stride: of the window; 0 for a fully connected layer.
        area: pixels of the input; 1 for a fully connected layer.
        weights: number of weights.
        depthwise: whether each channel has a window of its own.

    Example:
        >>> from lowbit.torch import HaqLayer
        >>> HaqLayer("conv1", {"int8": (8, 8), "int:4/4": (4, 4)}, 3, 16, 3, 1, 32 * 32, 432).weights
        432
    """

    name: str
    choices: Mapping[str, tuple[int, int]]
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    area: int
    weights: int
    depthwise: bool = False


class HaqSpace:
    """Layers, their precisions, and what an assignment costs.

    Args:
        layers: in the order of the network. Of choices with the same bits the first is used.
        cost: layer -> precision -> cost: milliseconds from a latency table, bytes, ...

    Raises:
        ValueError: no layers, a name twice, a layer without choices, or no layer with two.

    Example:
        >>> from lowbit.torch import HaqLayer, HaqSpace
        >>> choices = {f"int:{w}/8": (w, 8) for w in range(2, 9)}
        >>> layers = [HaqLayer(n, choices, 8, 8, 3, 1, 64, 576) for n in ("first", "middle", "last")]
        >>> space = HaqSpace(layers, lambda chosen: sum(576 / 8 * choices[c][0] for c in chosen.values()))
        >>> space.most, space.cost(space.most)
        (('int:8/8', 'int:8/8', 'int:8/8'), 1728.0)
        >>> space.enforce(space.most, 1500.0)
        ('int:7/8', 'int:7/8', 'int:6/8')
    """

    def __init__(self, layers: Sequence[HaqLayer], cost: Callable[[dict[str, str]], float]) -> None:
        self.layers, self._cost = tuple(layers), cost
        self.names = tuple(layer.name for layer in layers)
        if not layers or len(set(self.names)) != len(layers):
            raise ValueError(f"HaqSpace: layers must be there and have names of their own, not {list(self.names)}")
        self.choices: list[dict[tuple[int, int], str]] = []
        for layer in layers:
            if not layer.choices:
                raise ValueError(f"HaqSpace: layer {layer.name!r} has no choices")
            named: dict[tuple[int, int], str] = {}
            for choice, (w, a) in layer.choices.items():
                named.setdefault((int(w), int(a)), choice)
            self.choices.append(dict(sorted(named.items())))
        self.steps = [(i, side) for i in range(len(layers)) for side in (0, 1) if self._decides(i, side)]
        if not self.steps:
            raise ValueError("HaqSpace: no layer has two choices; there is nothing to search")
        self.most: Chosen = tuple(list(named.values())[-1] for named in self.choices)
        self._bits = [{choice: pair for pair, choice in named.items()} for named in self.choices]
        self._costs: dict[Chosen, float] = {}
        self._shapes = _shapes(self.layers)

    @classmethod
    def of(cls, space: Any, metric: str) -> HaqSpace:
        """That of a ``lowbit.mixed_precision.Space``: its layers, choices and costs in ``latency``, ``size``, ..."""
        from lowbit.mixed_precision import bits_of

        def seen(layer: Any) -> HaqLayer:
            window = layer.op == "conv2d"
            return HaqLayer(
                name=layer.name,
                choices={choice: bits_of(choice) for choice in layer.choices},
                in_channels=layer.in_channels,
                out_channels=layer.out_channels,
                kernel=layer.kernel[1],
                stride=layer.stride[1] if window else 0,
                area=layer.in_size[0] * layer.in_size[1],
                weights=layer.weights,
                depthwise=layer.depthwise,
            )

        return cls([seen(layer) for layer in space.layers], lambda chosen: space.cost(chosen, metric))

    @property
    def digest(self) -> str:
        """sha256 of layers, choices, and the costs of every single change."""
        costs = [self.cost(self._with(self.most, i, c)) for i, named in enumerate(self.choices) for c in named.values()]
        layers = [asdict(layer) | {"choices": list(layer.choices.items())} for layer in self.layers]
        return hashlib.sha256(json.dumps([layers, costs]).encode()).hexdigest()

    def assignment(self, chosen: Chosen) -> dict[str, str]:
        """Layer -> precision."""
        return dict(zip(self.names, chosen, strict=True))

    def cost(self, chosen: Chosen) -> float:
        """What an assignment costs; asked once."""
        if chosen not in self._costs:
            if len(self._costs) > 1 << 18:
                self._costs.clear()
            self._costs[chosen] = float(self._cost(self.assignment(chosen)))
        return self._costs[chosen]

    def bits(self, layer: int, choice: str) -> tuple[int, int]:
        """(bits of weights, bits of activations) of a layer's choice."""
        return self._bits[layer][choice]

    # Actions ----------------------------------------------------------------------------------------------------------

    def _decides(self, layer: int, side: int) -> bool:
        pairs = list(self.choices[layer])
        if side == 0:
            return len({w for w, _ in pairs}) > 1
        return len(pairs) > len({w for w, _ in pairs})

    def _widths(self, layer: int, side: int, weight_bits: int) -> list[int]:
        pairs = self.choices[layer]
        return sorted({w for w, _ in pairs} if side == 0 else {a for w, a in pairs if w == weight_bits})

    def act(self, chosen: Chosen, step: int, action: float) -> Chosen:
        """The assignment after an action in [0, 1]; each number of bits has the same share of the interval.

        With all bits from ``fewest`` to ``most`` this is HAQ's ``round(fewest - 0.5 + action (most - fewest + 1))``,
        clipped *after* the rounding: half goes to even, and an action of 0 gave 0 bits. A change of the weights' bits
        leaves the activations the most bits there are.
        """
        i, side = self.steps[step]
        w, _ = self.bits(i, chosen[i])
        widths = self._widths(i, side, w)
        width = widths[int(np.clip(np.round(action * len(widths) - 0.5), 0, len(widths) - 1))]
        pair = (width, self._widths(i, 1, width)[-1]) if side == 0 else (w, width)
        return self._with(chosen, i, self.choices[i][pair])

    @staticmethod
    def _with(chosen: Chosen, layer: int, choice: str) -> Chosen:
        return (*chosen[:layer], choice, *chosen[layer + 1 :])

    # Budget -----------------------------------------------------------------------------------------------------------

    def cheapest(self) -> Chosen:
        """A cheapest assignment: the layers' cheapest choices, until none changes.

        Exact where a layer's cost does not depend on the others'; fewer bits need not be cheaper.
        """
        chosen = self.most
        for _ in range(10):
            before = chosen
            for i, named in enumerate(self.choices):
                chosen = min((self._with(chosen, i, c) for c in (chosen[i], *named.values())), key=self.cost)
            if chosen == before:
                break
        return chosen

    def enforce(self, chosen: Chosen, budget: float) -> Chosen:
        """The assignment with bits taken back until it costs at most ``budget``, as in HAQ.

        From the last layer to the first, first activations then weights get the next fewer bits, until the budget
        is kept, over and over. On real hardware fewer bits may cost the same or more, so two things differ: bits that
        would not make it cheaper are passed over, and where no single step does, layers take the cheapest
        assignment's precision, from the last on. At the end each layer gets the most bits that cost nothing.

        Raises:
            ValueError: where the cheapest assignment costs more than the budget.
        """
        lowered = True
        while self.cost(chosen) > budget and lowered:
            lowered = False
            for i in reversed(range(len(self.layers))):
                for side in (1, 0):
                    if self.cost(chosen) > budget and (less := self._lower(chosen, i, side)) is not None:
                        chosen, lowered = less, True
        if self.cost(chosen) > budget:
            cheapest = self.cheapest()
            if self.cost(cheapest) > budget:
                raise ValueError(
                    f"haq: the budget {budget:g} cannot be met: the cheapest assignment costs {self.cost(cheapest):g}"
                )
            for i in reversed(range(len(self.layers))):
                if self.cost(chosen) > budget:
                    chosen = self._with(chosen, i, cheapest[i])
        for i in range(len(self.layers)):
            chosen = self._raise(chosen, i)
        return chosen

    def _lower(self, chosen: Chosen, layer: int, side: int) -> Chosen | None:
        """With the next fewer bits on a side of a layer that cost less, the other side's bits kept."""
        own = self.bits(layer, chosen[layer])
        fewer = [p for p in self.choices[layer] if p[side] < own[side] and p[1 - side] == own[1 - side]]
        for pair in sorted(fewer, key=lambda p: -p[side]):
            less = self._with(chosen, layer, self.choices[layer][pair])
            if self.cost(less) < self.cost(chosen):
                return less
        return None

    def _raise(self, chosen: Chosen, layer: int) -> Chosen:
        """With the most bits for a layer that cost no more."""
        w, a = self.bits(layer, chosen[layer])
        more = [p for p in self.choices[layer] if p[0] >= w and p[1] >= a]
        for pair in sorted(more, key=lambda p: (-p[0] - p[1], -p[0])):
            candidate = self._with(chosen, layer, self.choices[layer][pair])
            if self.cost(candidate) <= self.cost(chosen):
                return candidate
        return chosen

    # States -----------------------------------------------------------------------------------------------------------

    def state(self, chosen: Chosen, step: int) -> NDArray[np.float32]:
        """HAQ's ten numbers before a step.

        Depthwise, input channels, output channels, stride, kernel, weights, area and index, each from 0 to 1 over
        the layers; the bits of the step before as a share of the most; and 1 where this step is about weights.
        """
        i, side = self.steps[step]
        previous = 1.0
        if step:
            j, before = self.steps[step - 1]
            previous = self.bits(j, chosen[j])[before] / max(pair[before] for pair in self.choices[j])
        return np.array([*self._shapes[i], previous, side == 0], np.float32)


def _shapes(layers: Sequence[HaqLayer]) -> NDArray[np.float64]:
    rows = [
        (x.depthwise, x.in_channels, x.out_channels, x.stride, x.kernel, x.weights, x.area, i)
        for i, x in enumerate(layers)
    ]
    table = np.array(rows, np.float64)
    span = np.ptp(table, axis=0)
    return np.asarray((table - table.min(axis=0)) / np.where(span > 0, span, 1))  # a column without difference is 0
