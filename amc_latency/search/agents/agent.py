"""What an agent is to the search: something that picks a keep ratio a group, and is told how the episode ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from amc_latency.search.costs.clamp import Clamp


@dataclass(frozen=True)
class Score:
    """How a policy's network did on held-back images, cut and refitted but not fine-tuned."""

    accuracy: float
    """share that it got right, 0..1"""
    loss: float
    """mean cross entropy in nats"""
    images: int
    """how many it was asked; fewer where the first of them left no hope"""
    top5: float | None = None
    """share whose label is among its first five, where that was asked for"""


class Agent(Protocol):
    """Same config, seed and history must give the same actions: a search is resumed by replaying its log."""

    @property
    def warmup(self) -> int:
        """Episodes at the start whose `age` is negative."""
        ...

    def begin(self, clamp: Clamp) -> None:
        """An episode starts under this clamp; one that plans a whole policy does so here."""
        ...

    def act(self, state: np.ndarray, age: int) -> float:
        """The keep ratio wanted for the next group; `age` counts episodes since exploration began."""
        ...

    def learn(self, states: list[np.ndarray], actions: list[float], rewards: list[float], age: int) -> None:
        """An episode has ended: its states (one more than actions), the keep ratios executed, each step's reward.

        Unless layers are rewarded, all rewards are 0 but the last, which is the episode's.
        """
        ...
