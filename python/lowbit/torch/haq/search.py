"""The search: episodes of an agent against a space of bits, resumable to the last draw."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lowbit.atomic import write_aside
from lowbit.torch.haq.agent import Agent, HaqSettings
from lowbit.torch.haq.haq_space import Chosen, HaqSpace

Evaluate = Callable[[dict[str, str]], float]


@dataclass
class HaqResult:
    """The best assignment and how it was found.

    Attributes:
        assignment: layer -> precision.
        accuracy: of that assignment, in percent.
        cost: of that assignment, in the space's unit.
        budget: what it had to keep.
        original: accuracy of the float network.
        history: (reward, accuracy, cost, precisions) of each episode.
        evaluations: how many different assignments were evaluated.

    Example:
        >>> from lowbit.torch import HaqResult
        >>> HaqResult({"conv1": "int8"}, 91.5, 0.2, 0.25, 91.7, [])
        HaqResult(assignment={'conv1': 'int8'}, accuracy=91.5, cost=0.2, budget=0.25, original=91.7, evaluations=0)
    """

    assignment: dict[str, str]
    accuracy: float
    cost: float
    budget: float
    original: float
    history: list[tuple[float, float, float, Chosen]] = field(repr=False)
    evaluations: int = 0


def haq_search(
    space: HaqSpace,
    evaluate: Evaluate,
    budget: float,
    *,
    original: float,
    episodes: int = 600,
    seed: int = 0,
    settings: HaqSettings | None = None,
    checkpoint: str | Path | None = None,
    every: int = 5,
    identity: str = "",
    progress: Callable[[int, int, float], None] | None = None,
) -> HaqResult:
    """Search bits per layer with a DDPG agent under a budget (Wang et al., HAQ, CVPR 2019, section 3).

    An episode goes through the layers, weight bits then activation bits; bits beyond the budget are taken back
    (``HaqSpace.enforce``); the reward, ``0.1 (accuracy - original)``, is given to every step. An assignment is
    evaluated once. Different from the released code, on purpose: the accuracy is whatever ``evaluate`` measures (give
    it a fixed held-out set; the code takes training accuracy), bits are clipped after rounding, costs are looked up by
    bits and never by an index of -2, the last step is terminal and no step follows it, fixed layers take no step.

    Args:
        space: layers, bits, costs.
        evaluate: function of layer -> precision that gives an accuracy in percent; the same for the same assignment.
        budget: most that an assignment may cost, in the space's unit.
        original: accuracy of the float network on the same data, in percent.
        episodes: in all, those of a resumed checkpoint included.
        seed: of everything; the same seed gives the same search.
        settings: of the agent.
        checkpoint: file to keep the search in and to go on from; written whole, then renamed.
        every: episodes between two checkpoints.
        identity: says what is evaluated (a digest of net and data); taken from ``evaluate.identity`` where it has one.
            A checkpoint of another one is refused.
        progress: called as ``progress(episode, episodes, best accuracy)``.

    Returns:
        HaqResult with the best assignment seen.

    Raises:
        ValueError: a budget that cannot be met, an accuracy that is no number from 0 to 100, or a checkpoint of another
            seed, space, budget, net or settings, or one that is no checkpoint.

    Example:
        >>> from lowbit.torch import HaqLayer, HaqSpace, haq_search
        >>> choices = {f"int:{w}/8": (w, 8) for w in range(2, 9)}
        >>> bits = {name: pair[0] for name, pair in choices.items()}
        >>> layers = [HaqLayer(n, choices, 8, 8, 3, 1, 64, 576) for n in "ab"]
        >>> space = HaqSpace(layers, lambda chosen: sum(576 / 8 * bits[c] for c in chosen.values()))
        >>> def evaluate(chosen):  # a hurts, b does not
        ...     return 100 - 2.0 ** (6 - bits[chosen["a"]]) - 0.1 * (8 - bits[chosen["b"]])
        >>> haq_search(space, evaluate, 720, original=100, episodes=30).assignment
        {'a': 'int:8/8', 'b': 'int:2/8'}
    """
    settings = settings or HaqSettings()
    if math.isnan(budget):
        raise ValueError("haq: the budget is NaN")
    space.enforce(space.most, budget)  # a budget that cannot be met is known before the first episode
    if episodes < 1 or every < 1:
        raise ValueError(f"haq: episodes {episodes} and every {every} must be at least 1")
    run = _Run(space, evaluate, float(budget), float(original), seed, settings)
    file = Path(checkpoint) if checkpoint is not None else None
    facts = {
        "seed": str(seed),
        "space": space.digest,
        "budget": repr(float(budget)),
        "net": str(getattr(evaluate, "identity", identity)),
        "original accuracy": repr(float(original)),
        "settings": json.dumps(asdict(settings)),
    }
    if file is not None and file.exists():
        run.load(file, facts)
    while len(run.history) < episodes:
        run.episode()
        if file is not None and (len(run.history) % every == 0 or len(run.history) == episodes):
            run.save(file, facts)
        if progress is not None:
            progress(len(run.history), episodes, run.best[1])
    return run.result()


class _Run:
    """One search under way."""

    def __init__(
        self, space: HaqSpace, evaluate: Evaluate, budget: float, original: float, seed: int, settings: HaqSettings
    ) -> None:
        self.space, self.evaluate, self.budget, self.original = space, evaluate, budget, original
        self.settings = settings
        self.agent = Agent(settings.memory * len(space.layers), settings, seed)
        self.history: list[tuple[float, float, float, Chosen]] = []
        self.known: dict[Chosen, float] = {}

    @property
    def best(self) -> tuple[float, float, float, Chosen]:
        """The episode with the highest reward; of those with the same the cheapest, then the first."""
        return max(self.history, key=lambda episode: (episode[0], -episode[2]))

    def accuracy(self, chosen: Chosen) -> float:
        if chosen not in self.known:
            value = float(self.evaluate(self.space.assignment(chosen)))
            if not 0 <= value <= 100:
                raise ValueError(f"haq: evaluate gave {value}, no accuracy in percent, for {chosen}")
            self.known[chosen] = value
        return self.known[chosen]

    def episode(self) -> None:
        space, agent, number = self.space, self.agent, len(self.history)
        chosen = space.most
        states, actions = [], []
        with _one_thread():
            for step in range(len(space.steps)):
                states.append(space.state(chosen, step))
                actions.append(agent.act(states[-1], number))
                chosen = space.act(chosen, step, actions[-1])
        chosen = space.enforce(chosen, self.budget)
        accuracy = self.accuracy(chosen)
        reward = self.settings.reward_scale * (accuracy - self.original)
        agent.store(np.array(states), np.array(actions, np.float32), reward)
        if number >= self.settings.warmup:
            with _one_thread():
                for _ in range(len(space.steps) * self.settings.updates):
                    agent.learn()
        self.history.append((reward, accuracy, space.cost(chosen), chosen))

    def save(self, file: Path, facts: dict[str, str]) -> None:
        state = {
            "format": "lowbit.haq 1",
            "facts": facts,
            "agent": self.agent.state_dict(),
            "history": self.history,
            "known": list(self.known.items()),
        }
        with write_aside(file) as aside:
            torch.save(state, aside)

    def load(self, file: Path, facts: dict[str, str]) -> None:
        try:
            state: dict[str, Any] = torch.load(file, weights_only=True)
            found = state["facts"] if state["format"] == "lowbit.haq 1" else None
        except Exception as error:
            raise ValueError(f"haq: {file} is no checkpoint of a search: {error}") from error
        if found is None:
            raise ValueError(f"haq: {file} is of format {state['format']!r}, not 'lowbit.haq 1'")
        for name, value in facts.items():
            if found.get(name) != value:
                raise ValueError(
                    f"haq: {file} is of another search: its {name} is {_short(found.get(name))}, here {_short(value)}; "
                    "give the same, or another file"
                )
        self.agent.load_state_dict(state["agent"])
        self.history = [(r, a, c, tuple(chosen)) for r, a, c, chosen in state["history"]]
        self.known = {tuple(chosen): accuracy for chosen, accuracy in state["known"]}

    def result(self) -> HaqResult:
        _, accuracy, cost, chosen = self.best
        assignment = self.space.assignment(chosen)
        return HaqResult(assignment, accuracy, cost, self.budget, self.original, self.history, len(self.known))


@contextmanager
def _one_thread() -> Iterator[None]:
    """The agent's products are small: threads only wait for each other, and the sums would depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:12]
