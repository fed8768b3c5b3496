"""What every channel count costs: a network's predicted milliseconds as a sum over its layers' choices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from amc_latency.errors import UserError
from lut.architecture import Architecture, Layer
from lut.predict import Predictor
from lut.shape import LayerShape

PS_PER_MS = 10**9
Counts = tuple[int, ...]
"""Channels kept, one count a coupled group in network order: a policy as the network sees it."""


class LatencyCosts:
    """Predicted ms of every policy: `offset_ms + sum over layers of layer_cost(shape)`.

    A layer whose channels are set by one coupled group has a cost for each of that group's choices, one
    between two groups a cost for each pair; the others are constant. Costs are kept as whole picoseconds,
    rounded up: such sums are exact in any order, so what the clamp allows and what a report adds up can never
    disagree.
    Raises `UserError` for choices that don't fit the architecture, and whatever `layer_cost` raises.
    """

    def __init__(
        self,
        architecture: Architecture,
        choices: Sequence[Sequence[int]],
        layer_cost: Callable[[LayerShape], float],
        offset_ms: float = 0.0,
    ) -> None:
        self.architecture = architecture
        self.choices: tuple[Counts, ...] = tuple(tuple(counts) for counts in choices)
        self._check_choices()
        self._index = [{count: i for i, count in enumerate(counts)} for counts in self.choices]
        self.offset_ps = _picoseconds(offset_ms, "the calibration's offset")
        cache: dict[LayerShape, int] = {}

        def cost(shape: LayerShape) -> int:
            if shape not in cache:
                cache[shape] = _picoseconds(layer_cost(shape), f"layer {shape.text}")
            return cache[shape]

        self.layers = [self._layer_factor(layer, cost) for layer in architecture.layers]
        """One (scope, table) a layer: the groups it depends on, ascending; ps by their choices' indices."""

    @property
    def groups(self) -> int:
        """How many coupled groups there are."""
        return len(self.choices)

    @property
    def full(self) -> Counts:
        """The uncut network's counts."""
        return self.architecture.group_channels

    @property
    def full_ms(self) -> float:
        """Predicted ms of the uncut network."""
        return self.ms(self.full)

    def ms(self, counts: Sequence[int]) -> float:
        """Predicted ms of a whole policy. Raises `UserError` for a count that is no choice of its group."""
        return self.total_ps(self.indices(counts)) / PS_PER_MS

    def indices(self, counts: Sequence[int]) -> Counts:
        """Where each count stands among its group's choices; a prefix of a policy will do."""
        if len(counts) > self.groups:
            raise UserError(f"{len(counts)} channel counts for a network of {self.groups} coupled groups")
        for group, count in enumerate(counts):
            if count not in self._index[group]:
                near = min(self.choices[group], key=lambda choice: abs(choice - count))
                raise UserError(f"group {group} can't keep {count} channels; the nearest choice is {near}")
        return tuple(index[count] for index, count in zip(self._index, counts, strict=False))

    def total_ps(self, indices: Sequence[int]) -> int:
        """Cost in ps of a whole policy given by its choices' indices."""
        if len(indices) != self.groups:
            raise UserError(f"{len(indices)} channel counts for a network of {self.groups} coupled groups")
        return self.offset_ps + self.layers_ps(indices)

    def layers_ps(self, indices: Sequence[int], which: Iterable[int] | None = None) -> int:
        """Cost in ps of the layers `which` (all, if not given) without the offset."""
        chosen = self.layers if which is None else [self.layers[i] for i in which]
        return sum(int(table[tuple(indices[group] for group in scope)]) for scope, table in chosen)

    def _check_choices(self) -> None:
        if len(self.choices) != len(self.full):
            raise UserError(f"choices for {len(self.choices)} groups, but the network has {len(self.full)}")
        for group, (counts, channels) in enumerate(zip(self.choices, self.full, strict=True)):
            if not counts or list(counts) != sorted(set(counts)) or counts[0] < 1 or counts[-1] != channels:
                raise UserError(
                    f"group {group}'s choices must rise from at least 1 to all {channels} channels: {counts}"
                )

    def _layer_factor(self, layer: Layer, cost: Callable[[LayerShape], int]) -> tuple[tuple[int, ...], np.ndarray]:
        scope = tuple(sorted({group for group in (layer.in_group, layer.out_group) if group is not None}))
        table = np.empty([len(self.choices[group]) for group in scope], dtype=np.int64)
        counts = list(self.full)
        for indices in itertools.product(*(range(size) for size in table.shape)):
            for group, index in zip(scope, indices, strict=True):
                counts[group] = self.choices[group][index]
            table[indices] = cost(self.architecture.shape_of(layer, counts))
        return scope, table


def predicted_costs(architecture: Architecture, choices: Sequence[Sequence[int]], predictor: Predictor) -> LatencyCosts:
    """Costs whose `ms` is the predictor's, calibration included. Raises `MissingShapeError`."""
    calibration = predictor.calibration(architecture.shapes())

    def layer_ms(shape: LayerShape) -> float:
        return calibration.scale * predictor.layer_us(shape) / 1000

    return LatencyCosts(architecture, choices, layer_ms, calibration.offset_ms)


def _picoseconds(ms: float, what: str) -> int:
    if not math.isfinite(ms) or abs(ms) > 1e6:
        raise UserError(f"{what} costs {ms} ms, which is no latency; measure it again")
    return math.ceil(ms * PS_PER_MS)
