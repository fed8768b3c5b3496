"""The search as a Gymnasium environment: one step a coupled group, milliseconds in place of AMC's FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, PolicyCosts
from amc_latency.search.judge.score import Reward, Score, negative_error
from amc_latency.search.records import STATES

Evaluate = Callable[[Counts, float], Score]
"""Judges a policy. It may stop early where it sees that the accuracy given, the best so far, is out of reach."""


class ChannelEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """An episode picks a keep ratio for each coupled group in network order, then evaluates the policy.

    Observation: float32 [11], `FEATURES` of the group's layer (its first producer) at full width: group
    index, channels out and in, input height and width, stride, kernel, the layer's cost; then what is saved so
    far, what the layers still to be decided cost, the group's own among them (AMC: those after it), and the keep ratio
    executed last (1 before the first). Costs
    are milliseconds, or what is limited in their place, as shares of the widest policy's summed layers.
    With `state="two-stage"` float32 [8]: group index, channels, kernel height and width, stride, the largest share
    that may be pruned there, the layer's cost.

    Action: float32 [1], the wanted keep ratio. The clamp turns it into the nearest count that the target
    still allows; `info` says what was executed: `action` (that count's keep ratio) and `counts` (so far). An
    action that is no number counts as 1.

    Reward: 0 until the last step, then `reward(evaluate(counts), counts)`; `info` then holds it as `reward`, and the
    `score` and `predicted_ms` too. With `by_layer` a step's reward is what it changes: that of the network cut so far
    less that of the network before, the later groups as wide as they may be. These add up to the episode's reward
    less the widest policy's, and take an evaluation a group.

    `reset(options=...)` takes `target_ms`, to go on under another target, and `score`, to replay an episode
    whose score is known instead of evaluating it.
    """

    def __init__(
        self,
        clamp: Clamp,
        evaluate: Evaluate,
        reward: Reward = negative_error,
        guide: PolicyCosts | None = None,
        state: str = "amc",
        by_layer: bool = False,
    ) -> None:
        self.clamp = clamp
        self.evaluate = evaluate
        self.reward = reward
        self.features = STATES[state]
        self.by_layer = by_layer
        costs = clamp.costs
        lowest, highest = costs.ratio_bounds
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (len(self.features),), np.float32)
        self.action_space = gymnasium.spaces.Box(lowest, highest, (1,), np.float32)
        self._guide = clamp.guide if guide is None else guide
        self._widest = costs.indices(costs.widest)
        self._total = self._guide.layers_total(self._widest)
        self._static = self._static_features()
        # A layer is still to be decided at step t while one of its groups is t or later.
        self._open_layers = [
            [i for i, (scope, _) in enumerate(costs.layers) if scope and scope[-1] >= group]
            for group in range(costs.groups + 1)
        ]
        self._counts: Counts = ()
        self._previous = 1.0
        self._known: Score | None = None
        self._best = 0.0
        self._so_far = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; nothing here is random. Raises `UserError` for a target that can't be reached."""
        super().reset(seed=seed)
        options = options or {}
        if options.get("target_ms", self.clamp.target_ms) != self.clamp.target_ms:
            self.clamp = self.clamp.with_target(options["target_ms"])
            self._best = 0.0
        self._known = options.get("score")
        self._counts, self._previous = (), 1.0
        if self.by_layer:
            self._so_far = self._partial_reward()
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
            score = self._known or self.evaluate(self._counts, self._best)
            self._best = max(self._best, score.accuracy)
            info["score"] = score
            info["predicted_ms"] = self.clamp.costs.ms(self._counts)
            info["reward"] = reward = self.reward(score, self._counts)
        if self.by_layer:
            now = reward if done else self._partial_reward()
            reward, self._so_far = now - self._so_far, now
        return self._observation(), reward, done, False, info

    def _partial_reward(self) -> float:
        """That of the groups decided so far, the others as wide as they may be."""
        counts = (*self._counts, *self.clamp.costs.widest[len(self._counts) :])
        return self.reward(self.evaluate(counts, 0.0), counts)

    def _observation(self) -> np.ndarray:
        costs, group = self._guide, len(self._counts)
        indices = costs.indices(self._counts) + self._widest[group:]
        # After the last step there is no next layer; the terminal state shows the last one with nothing left
        # to decide.
        known = dict(self._static[min(group, costs.groups - 1)])
        known["reduced"] = (self._total - costs.layers_total(indices)) / self._total
        known["rest"] = costs.layers_total(indices, self._open_layers[group]) / self._total
        known["previous"] = self._previous
        return np.clip([known[name] for name in self.features], 0.0, 1.0).astype(np.float32)

    def _static_features(self) -> list[dict[str, float]]:
        """What is known of each group beforehand; sizes are shares of the largest in the network."""
        costs, architecture = self._guide, self._guide.architecture
        rows: list[dict[str, float]] = []
        firsts = [
            next(i for i, layer in enumerate(architecture.layers) if architecture.makes(layer, group))
            for group in range(costs.groups)
        ]
        for group, first in enumerate(firsts):
            shape = architecture.layers[first].shape
            kernel_h, kernel_w = shape.kernel_hw
            sizes = {"n": shape.c_out, "c": shape.c_in, "h": shape.h, "w": shape.w, "stride": shape.stride}
            kernels = {"k": max(kernel_h, kernel_w), "kernel_h": kernel_h, "kernel_w": kernel_w}
            rows.append({"t": group + 1, **sizes, **kernels})
        largest = {name: max(row[name] for row in rows) for row in rows[:1] for name in row}
        for group, (first, row) in enumerate(zip(firsts, rows, strict=True)):
            row.update({name: size / largest[name] for name, size in row.items()})
            row["layer_cost"] = costs.layers_total(self._widest, [first]) / self._total
            row["bound"] = 1 - costs.choices[group][0] / costs.full[group]
        return rows
