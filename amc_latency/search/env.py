"""The search as a Gymnasium environment: one step a coupled group, milliseconds in place of AMC's FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from amc_latency.search.clamp import Clamp
from amc_latency.search.costs import Counts

FEATURES = ("t", "n", "c", "h", "w", "stride", "k", "layer_ms", "reduced_ms", "rest_ms", "previous")
"""AMC's state (paper, section 3.1), in this order and each scaled into 0..1."""


class ChannelEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """An episode picks a keep ratio for each coupled group in network order, then evaluates the policy.

    Observation: float32 [11], `FEATURES` of the group's layer (its first producer) at full width: group
    index, channels out and in, input height and width, stride, kernel, the layer's ms; then ms saved so far,
    ms of the layers still to be decided, and the keep ratio executed last (1 before the first). All three
    times are shares of one unit, the uncut network's summed layers.

    Action: float32 [1], the wanted keep ratio. The clamp turns it into the nearest count that the target
    still allows; `info` says what was executed: `action` (that count's keep ratio) and `counts` (so far). An
    action that is no number counts as 1.

    Reward: 0 until the last step, then `evaluate(counts) - 1`, AMC's R_err = -error for an accuracy in 0..1;
    `info` then holds `accuracy` and `predicted_ms` too.

    `reset(options=...)` takes `target_ms`, to go on under another target, and `accuracy`, to replay an
    episode whose accuracy is known instead of evaluating it.
    """

    def __init__(self, clamp: Clamp, evaluate: Callable[[Counts], float]) -> None:
        self.clamp = clamp
        self.evaluate = evaluate
        costs = clamp.costs
        lowest = min(counts[0] / channels for counts, channels in zip(costs.choices, costs.full, strict=True))
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)
        self.action_space = gymnasium.spaces.Box(lowest, 1.0, (1,), np.float32)
        self._full = costs.indices(costs.full)
        self._total_ps = costs.layers_ps(self._full)
        self._static = self._static_features()
        # A layer is still to be decided at step t while one of its groups is t or later.
        self._open_layers = [
            [i for i, (scope, _) in enumerate(costs.layers) if scope and scope[-1] >= group]
            for group in range(costs.groups + 1)
        ]
        self._counts: Counts = ()
        self._previous = 1.0
        self._known_accuracy: float | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; nothing here is random. Raises `UserError` for a target that can't be reached."""
        super().reset(seed=seed)
        options = options or {}
        if options.get("target_ms", self.clamp.target_ms) != self.clamp.target_ms:
            self.clamp = self.clamp.with_target(options["target_ms"])
        self._known_accuracy = options.get("accuracy")
        self._counts, self._previous = (), 1.0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Cut the next group. Raises `RuntimeError` when the episode is over."""
        group = len(self._counts)
        if group == self.clamp.costs.groups:
            raise RuntimeError("the episode is over: call reset()")
        wanted = float(np.asarray(action, dtype=np.float64).reshape(-1)[0])
        count = self.clamp.nearest(self._counts, 1.0 if math.isnan(wanted) else min(max(wanted, 0.0), 1.0))
        self._counts = (*self._counts, count)
        self._previous = count / self.clamp.costs.full[group]
        info: dict[str, Any] = {"action": self._previous, "counts": self._counts}
        done = len(self._counts) == self.clamp.costs.groups
        reward = 0.0
        if done:
            known = self._known_accuracy
            info["accuracy"] = self.evaluate(self._counts) if known is None else known
            info["predicted_ms"] = self.clamp.costs.ms(self._counts)
            reward = info["accuracy"] - 1.0
        return self._observation(), reward, done, False, info

    def _observation(self) -> np.ndarray:
        costs, group = self.clamp.costs, len(self._counts)
        indices = costs.indices(self._counts) + self._full[group:]
        reduced = (self._total_ps - costs.layers_ps(indices)) / self._total_ps
        rest = costs.layers_ps(indices, self._open_layers[group]) / self._total_ps
        # After the last step there is no next layer; the terminal state shows the last one with nothing left
        # to decide.
        static = self._static[min(group, costs.groups - 1)]
        return np.clip([*static, reduced, rest, self._previous], 0.0, 1.0).astype(np.float32)

    def _static_features(self) -> np.ndarray:
        costs = self.clamp.costs
        layers = costs.architecture.layers
        rows = []
        for group in range(costs.groups):
            first = next(i for i, layer in enumerate(layers) if layer.out_group == group)
            shape = layers[first].shape
            ms = costs.layers_ps(self._full, [first]) / self._total_ps
            sizes = (shape.c_out, shape.c_in, shape.h, shape.w, shape.stride, shape.kernel)
            rows.append((group + 1, *sizes, ms))
        features = np.array(rows, dtype=np.float64)
        features[:, :-1] /= features[:, :-1].max(axis=0)
        return features
