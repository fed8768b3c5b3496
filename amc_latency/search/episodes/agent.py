"""What an agent is to the search: something that picks a keep ratio a group, and is told how the episode ended."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from amc_latency.search.costs.clamp import Clamp


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
