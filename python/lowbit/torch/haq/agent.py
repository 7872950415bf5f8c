"""Deep deterministic policy gradient as HAQ uses it: one action in [0, 1] for a state of ten numbers."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lowbit.torch.haq.haq_space import STATE


@dataclass(frozen=True)
class HaqSettings:
    """The agent's numbers, by default those of the paper's code.

    Attributes:
        warmup: episodes of uniform actions, without learning.
        actor_rate: Adam's step for the actor.
        critic_rate: Adam's step for the critic.
        tau: how much of the networks their targets take over after each update.
        gamma: discount.
        batch: transitions per update.
        memory: transitions kept, per layer.
        noise: standard deviation of the exploration after the warm-up.
        noise_decay: its factor per episode.
        baseline_rate: of the moving average that is taken from the rewards.
        reward_scale: reward per point of accuracy.
        updates: per step of an episode.

    Example:
        >>> from lowbit.torch import HaqSettings
        >>> HaqSettings(warmup=10).noise_decay
        0.99
    """

    warmup: int = 20
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    tau: float = 0.01
    gamma: float = 1.0
    batch: int = 64
    memory: int = 128
    noise: float = 0.5
    noise_decay: float = 0.99
    baseline_rate: float = 0.5
    reward_scale: float = 0.1
    updates: int = 1


class Actor(nn.Module):
    """State -> action in [0, 1]; two hidden layers of 300."""

    def __init__(self, hidden: int = 300) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(STATE, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
            nn.Sigmoid(),
        )

    def forward(self, state: Tensor) -> Tensor:
        """(batch, 10) -> (batch, 1)."""
        return self.layers(state)  # type: ignore[no-any-return]


class Critic(nn.Module):
    """State and action -> value; their embeddings of 300 are added, then one more hidden layer."""

    def __init__(self, hidden: int = 300) -> None:
        super().__init__()
        self.state, self.action = nn.Linear(STATE, hidden), nn.Linear(1, hidden)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """(batch, 10), (batch, 1) -> (batch, 1)."""
        return self.rest(self.state(state) + self.action(action))  # type: ignore[no-any-return]


class Agent:
    """Actor, critic, their targets, the memory of transitions, and the one generator that all draws come from."""

    def __init__(self, capacity: int, settings: HaqSettings, seed: int) -> None:
        self.settings = settings
        self.rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):  # the caller's generator stays where it is
            torch.manual_seed(seed)
            self.actor, self.critic = Actor(), Critic()
        self.actor_target, self.critic_target = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=settings.actor_rate)
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=settings.critic_rate)
        # state, action, reward, next state, whether the episode goes on
        self.memory = torch.zeros(capacity, STATE + 1 + 1 + STATE + 1)
        self.stored = 0
        self.baseline: float | None = None

    def act(self, state: NDArray[np.float32], episode: int) -> float:
        """An action: uniform during the warm-up, then the actor's with truncated normal noise."""
        warmup = self.settings.warmup
        if episode < warmup:
            return float(self.rng.uniform())
        with torch.inference_mode():
            mean = float(self.actor(torch.from_numpy(state)[None])[0, 0])
        return truncated_normal(
            mean, self.settings.noise * self.settings.noise_decay ** (episode - warmup), self.rng.uniform()
        )

    def store(self, states: NDArray[np.float32], actions: NDArray[np.float32], reward: float) -> None:
        """One episode: every step has the final reward; only the last one is terminal."""
        n = len(states)
        rows = np.zeros((n, self.memory.shape[1]), np.float32)
        rows[:, :STATE] = states
        rows[:, STATE] = actions
        rows[:, STATE + 1] = reward
        rows[:-1, STATE + 2 : -1] = states[1:]
        rows[:-1, -1] = 1.0
        at = torch.arange(self.stored, self.stored + n) % len(self.memory)
        self.memory[at] = torch.from_numpy(rows)
        self.stored += n

    def learn(self) -> None:
        """One update of critic, actor and targets from a random batch of the memory."""
        s = self.settings
        rows = self.rng.integers(0, min(self.stored, len(self.memory)), s.batch)
        batch = self.memory[torch.from_numpy(rows)]
        state, action, reward, following, goes_on = batch.split([STATE, 1, 1, STATE, 1], dim=1)
        mean = float(reward.mean())
        self.baseline = mean if self.baseline is None else self.baseline + s.baseline_rate * (mean - self.baseline)
        with torch.no_grad():
            value = self.critic_target(following, self.actor_target(following))
            target = reward - self.baseline + s.gamma * goes_on * value
        self.critic_adam.zero_grad()
        nn.functional.mse_loss(self.critic(state, action), target).backward()
        self.critic_adam.step()
        self.actor_adam.zero_grad()
        (-self.critic(state, self.actor(state)).mean()).backward()
        self.actor_adam.step()
        with torch.no_grad():
            for target_net, net in ((self.actor_target, self.actor), (self.critic_target, self.critic)):
                for kept, new in zip(target_net.parameters(), net.parameters(), strict=True):
                    kept.lerp_(new, s.tau)

    def _parts(self) -> dict[str, Any]:
        names = ("actor", "critic", "actor_target", "critic_target", "actor_adam", "critic_adam")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Everything, the generator and the memory included."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        rng = json.dumps(self.rng.bit_generator.state)  # 128-bit integers
        return state | {"memory": self.memory, "stored": self.stored, "baseline": self.baseline, "rng": rng}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on exactly where ``state_dict`` was taken."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.memory.copy_(state["memory"])
        self.stored, self.baseline = state["stored"], state["baseline"]
        self.rng.bit_generator.state = json.loads(state["rng"])


def truncated_normal(mean: float, std: float, uniform: float) -> float:
    """The normal distribution restricted to [0, 1], at the given quantile.

    Example:
        >>> round(truncated_normal(0.5, 0.25, 0.5), 6), round(truncated_normal(0.0, 0.1, 1.0), 6)
        (0.5, 1.0)
    """
    if std < 1e-6:
        return min(max(mean, 0.0), 1.0)
    root = std * math.sqrt(2)
    low, high = math.erf(-mean / root), math.erf((1 - mean) / root)
    p = torch.tensor(low + uniform * (high - low), dtype=torch.float64).clamp(-1, 1)
    return min(max(mean + root * float(torch.special.erfinv(p)), 0.0), 1.0)
