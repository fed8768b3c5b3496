"""What every channel count costs: predicted milliseconds, MACs, ... as an exact sum over a network's layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import numpy as np

from amc_latency.errors import UserError
from amc_latency.lut.building.plan import reachable_shapes
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.architecture import Searched
from amc_latency.lut.shapes.shape import LayerShape

PS_PER_MS = 10**9
Counts = tuple[int, ...]
"""Channels kept, one count a coupled group in network order: a policy as the network sees it."""
Scope = tuple[int, ...]
Term = tuple[Scope, np.ndarray]
"""Coupled groups, ascending, and what their choices cost: an axis a group."""

_NOTHING: Term = ((), np.array(0, np.int64))


@dataclass(frozen=True)
class Combine:
    """How the costs of layers make that of a network; 0 is what no layer costs."""

    arrays: np.ufunc
    numbers: Callable[[Iterable[int]], int]


SUM = Combine(np.add, sum)
"""Milliseconds, MACs, bytes of weights: each layer adds its own."""
MAX = Combine(np.maximum, lambda costs: max(costs, default=0))
"""What one layer needs at a time, as memory: only the largest counts."""


class PolicyCosts:
    """What every policy costs in whole units: `offset` and its layers' costs, combined by `combine`.

    `layers` are (scope, table): the groups that a layer's cost depends on, ascending, and units by their choices'
    indices. Sums of integers are exact in any order, so what the clamp allows and what a report adds up can never
    disagree.
    Raises `UserError` for choices that don't fit the architecture.
    """

    def __init__(
        self,
        architecture: Searched,
        choices: Sequence[Sequence[int]],
        layers: Callable[[tuple[Counts, ...]], list[Term]],
        offset: int = 0,
        combine: Combine = SUM,
    ) -> None:
        self.architecture = architecture
        self.choices: tuple[Counts, ...] = tuple(tuple(counts) for counts in choices)
        self._check_choices()
        self._index = [{count: i for i, count in enumerate(counts)} for counts in self.choices]
        self.offset = offset
        self.combine = combine
        self.layers = layers(self.choices)
        self._terms = _merged(self.layers, combine)

    @property
    def groups(self) -> int:
        """How many coupled groups there are."""
        return len(self.choices)

    @property
    def full(self) -> Counts:
        """The uncut network's counts, which keep ratios are of. A policy only if every group may keep all."""
        return self.architecture.full

    @property
    def widest(self) -> Counts:
        """The policy that keeps most: `full`, unless the choices end before it."""
        return tuple(counts[-1] for counts in self.choices)

    @property
    def ratio_bounds(self) -> tuple[float, float]:
        """The smallest and the largest keep ratio of any group."""
        ratios = [count / full for counts, full in zip(self.choices, self.full, strict=True) for count in counts]
        return min(ratios, default=1.0), max(ratios, default=1.0)

    def has(self, counts: Sequence[int]) -> bool:
        """Whether each count of a whole policy is a choice of its group."""
        return len(counts) == self.groups and all(
            count in index for count, index in zip(counts, self._index, strict=True)
        )

    def of(self, counts: Sequence[int]) -> int:
        """Cost of a whole policy. Raises `UserError` for a count that is no choice of its group."""
        return self.total(self.indices(counts))

    def of_many(self, counts: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
        """Cost of many policies, one a row of `counts`.

        Raises `UserError` for a count that is no choice of its group, and for rows of another length.
        """
        policies = np.asarray(counts)
        if policies.ndim != 2 or policies.shape[1] != self.groups or policies.dtype.kind not in "iu":
            raise UserError(
                f"policies are rows of {self.groups} whole channel counts, not {policies.dtype} {policies.shape}"
            )
        by_group = np.ascontiguousarray(policies.T, dtype=np.int64)
        indices = [self._many_indices(group, column) for group, column in enumerate(by_group)]
        total = np.full(len(policies), self.offset, dtype=np.int64)
        for scope, table in self._terms:
            self.combine.arrays(total, table[tuple(indices[group] for group in scope)], out=total)
        return total

    def indices(self, counts: Sequence[int]) -> Counts:
        """Where each count stands among its group's choices; a prefix of a policy will do."""
        if len(counts) > self.groups:
            raise UserError(f"{len(counts)} channel counts for a network of {self.groups} coupled groups")
        for group, count in enumerate(counts):
            if count not in self._index[group]:
                self._refuse(group, count)
        return tuple(index[count] for index, count in zip(self._index, counts, strict=False))

    def total(self, indices: Sequence[int]) -> int:
        """Cost of a whole policy given by its choices' indices."""
        if len(indices) != self.groups:
            raise UserError(f"{len(indices)} channel counts for a network of {self.groups} coupled groups")
        return self.offset + self._combined(self._terms, indices)

    def layers_total(self, indices: Sequence[int], which: Iterable[int] | None = None) -> int:
        """Cost of the layers `which` (all, if not given) without the offset."""
        chosen = self.layers if which is None else [self.layers[i] for i in which]
        return self._combined(chosen, indices)

    def _combined(self, terms: Iterable[Term], indices: Sequence[int]) -> int:
        return self.combine.numbers(int(table[tuple([indices[group] for group in scope])]) for scope, table in terms)

    def _many_indices(self, group: int, counts: np.ndarray) -> np.ndarray:
        choices = np.array(self.choices[group])
        index_of = np.zeros(choices[-1] + 1, dtype=np.intp)
        index_of[choices] = np.arange(len(choices))
        indices = index_of.take(counts, mode="clip")
        wrong = np.flatnonzero(choices[indices] != counts)
        if len(wrong):
            self._refuse(group, int(counts[wrong[0]]))
        return indices

    def _refuse(self, group: int, count: int) -> NoReturn:
        near = min(self.choices[group], key=lambda choice: abs(choice - count))
        raise UserError(f"group {group} can't keep {count} channels; the nearest choice is {near}")

    def _check_choices(self) -> None:
        if len(self.choices) != len(self.full):
            raise UserError(f"choices for {len(self.choices)} groups, but the network has {len(self.full)}")
        for group, (counts, channels) in enumerate(zip(self.choices, self.full, strict=True)):
            if not counts or list(counts) != sorted(set(counts)) or counts[0] < 1 or counts[-1] > channels:
                raise UserError(
                    f"group {group}'s choices must rise from at least 1 to at most all {channels} channels: {counts}"
                )


class LayerCosts(PolicyCosts):
    """A sum over layers: `offset + sum of layer_cost(shape)`.

    A layer whose channels are set by one coupled group has a cost for each of that group's choices, one
    between two groups a cost for each pair, and so on; the others are constant.
    With `once` a module that is called several times costs so much once, as weights do.
    Raises `UserError` for choices that don't fit the architecture, and whatever `layer_cost` raises.
    """

    def __init__(
        self,
        architecture: Searched,
        choices: Sequence[Sequence[int]],
        layer_cost: Callable[[LayerShape], int],
        offset: int = 0,
        once: bool = False,
    ) -> None:
        cost = cache(layer_cost)

        def layers(choices: tuple[Counts, ...]) -> list[Term]:
            return [
                _NOTHING if once and layer.again else _layer_factor(architecture, choices, layer, cost)
                for layer in architecture.layers
            ]

        super().__init__(architecture, choices, layers, offset)


class LatencyCosts(LayerCosts):
    """Predicted ms of every policy, kept as whole picoseconds, a layer's rounded up.

    `layer_ms` says a layer shape's milliseconds. Raises what `LayerCosts` raises, and `UserError` for what is no
    latency.
    """

    def __init__(
        self,
        architecture: Searched,
        choices: Sequence[Sequence[int]],
        layer_ms: Callable[[LayerShape], float],
        offset_ms: float = 0.0,
    ) -> None:
        offset_ps = _picoseconds(offset_ms, "the calibration's offset")
        super().__init__(
            architecture, choices, lambda shape: _picoseconds(layer_ms(shape), f"layer {shape.text}"), offset_ps
        )

    @property
    def full_ms(self) -> float:
        """Predicted ms of the uncut network; `UserError` where that is no policy."""
        return self.ms(self.full)

    def ms(self, counts: Sequence[int]) -> float:
        """Predicted ms of a whole policy. Raises `UserError` for a count that is no choice of its group."""
        return self.of(counts) / PS_PER_MS

    def ms_many(self, counts: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
        """Predicted ms of many policies, one a row of `counts`: to the last digit what `ms` says of each.

        Raises what `of_many` raises.
        """
        return self.of_many(counts) / PS_PER_MS


def predicted_costs(architecture: Searched, choices: Sequence[Sequence[int]], predictor: Predictor) -> LatencyCosts:
    """Costs whose `ms` is the predictor's, calibration included. Raises `MissingShapeError`."""
    # All at once, which is much quicker than one by one.
    predictor.missing(reachable_shapes(architecture, choices))
    calibration = predictor.calibration(architecture.shapes())

    def layer_ms(shape: LayerShape) -> float:
        # A calibration is linear, so each layer has its own part in it.
        return calibration.ms(predictor.layer_us(shape) / 1000, calibration.amount([shape])) - calibration.offset_ms

    return LatencyCosts(architecture, choices, layer_ms, calibration.offset_ms)


def _layer_factor(
    architecture: Searched, choices: tuple[Counts, ...], layer: Any, cost: Callable[[LayerShape], int]
) -> Term:
    scope = architecture.scope(layer)
    table = np.empty([len(choices[group]) for group in scope], dtype=np.int64)
    counts = list(architecture.full)
    for indices in itertools.product(*(range(size) for size in table.shape)):
        for group, index in zip(scope, indices, strict=True):
            counts[group] = choices[group][index]
        table[indices] = sum(map(cost, architecture.shapes_of(layer, counts)))
    return scope, table


def _merged(terms: Sequence[Term], combine: Combine) -> list[Term]:
    """Terms of the same total, but fewer: each is combined with one whose scope holds its own."""
    tables: dict[Scope, np.ndarray] = {}
    for scope, table in sorted(terms, key=lambda term: -len(term[0])):
        wider = next((other for other in tables if set(scope) <= set(other)), None)
        if wider is None:
            tables[scope] = table.copy()
        else:
            sizes = tables[wider].shape
            shape = [size if group in scope else 1 for group, size in zip(wider, sizes, strict=True)]
            combine.arrays(tables[wider], table.reshape(shape), out=tables[wider])
    return list(tables.items())


def _picoseconds(ms: float, what: str) -> int:
    if not math.isfinite(ms) or abs(ms) > 1e6:
        raise UserError(f"{what} costs {ms} ms, which is no latency; measure it again")
    return math.ceil(ms * PS_PER_MS)
