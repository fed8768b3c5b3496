"""Which candidates to time next: the plan that learns the device while it is measured.

A coarse grid first; then, in every family, the shapes that are known least, and as many that are drawn at random. How
far these were predicted off, before they were timed, is the family's error: when it is under the goal, the family is
done. Families weigh by their share of the network's time, so a pool of half a microsecond is not refined to a percent.
At the end, candidates drawn from all families show the error of the whole table.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from amc_latency.lut.prediction.interpolate import Staircase, channels, fit_staircases
from amc_latency.lut.shapes.family import Family, family, related
from amc_latency.lut.shapes.shape import NOOP, LayerShape

Timed = Mapping[LayerShape, tuple[float, float]]
"""Of each shape: microseconds, and how far they are off by chance, as a share of them."""

_COARSE = {True: 10, False: 7}
"""Points of a family's coarse grid, by whether it has two channel figures."""
_WINDOW = 7
"""Neighbouring output counts that the largest family of each kernel is timed at: two periods of three, and one more."""
_LARGEST_BATCH = 16
_LOOSEST = 4.0
"""How many times the goal a family may be off that hardly weighs in the network's time."""
NOISE_ROOM = 1.25
"""A prediction can hardly be nearer to a timing than that is to itself: the goal ends at so many times the noise."""
_MOST_STAGES = 10
_CHECKED = 30
"""Candidates drawn at the end, from families as they weigh in the network's time."""
_MOST_CHECKS = 3
"""A check that misses the goal reopens the families that missed it; so often at most, the last time without."""


@dataclass
class _Member:
    """One family while it is learned."""

    name: Family
    candidates: list[LayerShape]
    chosen: dict[LayerShape, None] = field(default_factory=dict)
    share: float = 0.0
    """of the uncut network's time"""
    drawn_us: dict[LayerShape, float] = field(default_factory=dict)
    """what those of the last batch were predicted at that chance picked, before they were timed"""

    @property
    def two_figures(self) -> bool:
        return self.name.two_figures

    def left(self) -> list[LayerShape]:
        return [shape for shape in self.candidates if shape not in self.chosen]


@dataclass(frozen=True)
class Check:
    """How far candidates were off that were drawn by chance, a family as often as it weighs, before they were timed."""

    candidates: int
    mean_pct: float
    standard_error_pct: float
    """of that mean, as one draw has it"""
    max_pct: float
    noise_pct: float
    """how far a timing itself is off by chance, on average over the same candidates"""
    left: int
    """candidates that are not timed"""


class Learner:
    """Plans the shapes of one network's table, a batch at a time: the same batches for the same timings and seed.

    `candidates` are all shapes that a search may reach, `network` the uncut one, `goal` the mean relative error of
    candidates to get under, in the mean over the network's time; from `limit` shapes on no family is refined.
    """

    def __init__(
        self,
        candidates: Iterable[LayerShape],
        network: Sequence[LayerShape],
        goal: float,
        seed: int = 0,
        limit: float = math.inf,
    ) -> None:
        self.goal = goal
        self._limit = limit
        self.checks: list[Check] = []
        self._seed = seed
        self._stage = 0
        self._network = [shape for shape in network if shape.kind != NOOP.kind]
        self._drawn_us: dict[LayerShape, float] = {}
        by_family: dict[Family, list[LayerShape]] = defaultdict(list)
        for shape in sorted({*candidates, *self._network} - {NOOP}):
            by_family[family(shape)].append(shape)
        self._members = {name: _Member(name, shapes) for name, shapes in by_family.items()}

    def first(self) -> list[LayerShape]:
        """The coarse grid: the no-op, the uncut network's layers, and some shapes of every family."""
        for shape in self._network:
            self._members[family(shape)].chosen[shape] = None
        pilots: dict[tuple[object, ...], _Member] = {}
        for name, member in self._members.items():
            pilots[related(name)] = max(
                pilots.get(related(name), member), member, key=lambda each: len(each.candidates)
            )
        for member in self._members.values():
            member.chosen.update(dict.fromkeys(_coarse(member, self._rng(member.name))))
            if member in pilots.values():
                member.chosen.update(dict.fromkeys(_window(member)))
        return [NOOP, *(shape for member in self._members.values() for shape in member.chosen)]

    def more(self, timed: Timed) -> list[LayerShape]:
        """The next batch, by what was timed of those before; empty when the goal is met or no more can be done.

        A shape that could not be timed is simply not in `timed`.
        """
        self._stage += 1
        known = {
            member.name: {shape: timed[shape][0] for shape in member.chosen if shape in timed}
            for member in self._members.values()
        }
        staircases = fit_staircases(known)
        self._weigh(known)
        if self._check_ends(timed):
            return []
        errors = {name: self._error(self._members[name], staircase, timed) for name, staircase in staircases.items()}
        batch: list[LayerShape] = []
        off = sum(self._members[name].share * error for name, error in errors.items())
        # A check that was not passed knows better than the families' own errors.
        if (self.checks or off > self.goal) and not self._is_full:
            for name, error in errors.items():
                member = self._members[name]
                if member.left() and error > self._goal(member, timed):
                    batch += self._refined(member, staircases[name])
        return batch or self._check(staircases)

    @property
    def _is_full(self) -> bool:
        """Whether as much is timed as a fixed grid would have: learning on can't pay."""
        return self._stage > _MOST_STAGES or sum(len(each.chosen) for each in self._members.values()) >= self._limit

    def _rng(self, *what: object) -> random.Random:
        return random.Random(f"{self._seed}/{what}")

    def _weigh(self, known: Mapping[Family, Mapping[LayerShape, float]]) -> None:
        spent: dict[Family, float] = defaultdict(float)
        for shape in self._network:
            spent[family(shape)] += known[family(shape)].get(shape, 0.0)
        total = sum(spent.values()) or 1.0
        for name, member in self._members.items():
            member.share = spent[name] / total

    def _goal(self, member: _Member, timed: Timed) -> float:
        """What the family's error must get under: looser where it hardly weighs, and not below what noise allows."""
        noise = _mean([timed[shape][1] for shape in member.chosen if shape in timed])
        loosened = min(_LOOSEST, max(1.0, 1 / (len(self._members) * member.share))) if member.share else _LOOSEST
        return max(self.goal * loosened, NOISE_ROOM * noise)

    def _error(self, member: _Member, staircase: Staircase, timed: Timed) -> float:
        """The family's mean relative error: of what chance picked last, or else of each point by all others."""
        if not member.left():
            return 0.0
        drawn = [abs(us / timed[shape][0] - 1) for shape, us in member.drawn_us.items() if shape in timed]
        return _mean(drawn) if len(drawn) > 1 else float(np.abs(staircase.left_out_errors()).mean())

    def _refined(self, member: _Member, staircase: Staircase) -> list[LayerShape]:
        """A family's next batch: half of it drawn by chance, half where the staircase is least known."""
        left = member.left()
        wanted = max(3, min(_LARGEST_BATCH, len(member.chosen) // 3))
        drawn = self._rng(member.name, self._stage).sample(left, min(len(left), (wanted + 1) // 2))
        batch = [*drawn, *_most_doubtful(staircase, [shape for shape in left if shape not in drawn], wanted // 2)]
        member.drawn_us = dict(zip(drawn, staircase.latency_us(channels(drawn)).tolist(), strict=True))
        member.chosen.update(dict.fromkeys(batch))
        return batch

    def _check(self, staircases: Mapping[Family, Staircase]) -> list[LayerShape]:
        """Candidates drawn from all families, as often as these weigh in the network's time."""
        rng = self._rng("check", self._stage)
        open_ = [member for member in self._members.values() if member.name in staircases and member.left()]
        if not open_:
            return []
        weights = [member.share + 1e-9 for member in open_]
        drawn = [rng.choice(member.left()) for member in rng.choices(open_, weights, k=_CHECKED)]
        for shape in dict.fromkeys(drawn):
            member = self._members[family(shape)]
            self._drawn_us[shape] = float(staircases[member.name].latency_us(channels([shape]))[0])
            member.chosen[shape] = None
        return list(self._drawn_us)

    def _check_ends(self, timed: Timed) -> bool:
        """Whether a check was made and there is no more to do; one that missed the goal reopens families instead."""
        drawn = {shape: us for shape, us in self._drawn_us.items() if shape in timed}
        self._drawn_us = {}
        if not drawn:
            return False
        errors = {shape: abs(us / timed[shape][0] - 1) for shape, us in drawn.items()}
        noise = _mean([timed[shape][1] for shape in drawn])
        sizes = np.array(list(errors.values()))
        mean, standard_error = float(sizes.mean()), float(sizes.std() / np.sqrt(len(sizes)))
        largest = float(sizes.max())
        left = sum(len(member.left()) for member in self._members.values())
        self.checks.append(Check(len(drawn), 100 * mean, 100 * standard_error, 100 * largest, 100 * noise, left))
        met = mean <= max(self.goal, NOISE_ROOM * noise)
        if met or self._is_full or len(self.checks) == _MOST_CHECKS:
            return True
        for member in self._members.values():
            own = {shape: us for shape, us in drawn.items() if family(shape) == member.name}
            member.drawn_us = own if len(own) > 1 else member.drawn_us
        return False


def _coarse(member: _Member, rng: random.Random) -> list[LayerShape]:
    """Shapes spread over a family, the smallest and the largest among them."""
    shapes, points = member.candidates, _COARSE[member.two_figures]
    if len(shapes) <= points:
        return shapes
    if not member.two_figures:
        cell = (len(shapes) - 1) / (points - 1)
        # Off the even grid by chance: a period of the device must not be met at one place only.
        inner = [round(i * cell + rng.uniform(-0.45, 0.45) * cell) for i in range(1, points - 1)]
        return [shapes[i] for i in dict.fromkeys([0, *inner, len(shapes) - 1])]
    logs = np.log(channels(shapes))
    chosen = [int(np.argmin(logs.sum(axis=1))), int(np.argmax(logs.sum(axis=1)))]
    while len(chosen) < points:
        nearest = np.min([((logs - logs[i]) ** 2).sum(axis=1) for i in chosen], axis=0)
        # Farthest first, and off by chance, for the same reason.
        chosen.append(int(np.argmax(nearest * np.array([rng.uniform(0.5, 1.0) for _ in shapes]))))
    return [shapes[i] for i in chosen]


def _window(member: _Member) -> list[LayerShape]:
    """Neighbouring counts a third up the range: low enough for a step to be a large share of the latency."""
    shapes = member.candidates
    if member.two_figures:
        middle = sorted({shape.c_in for shape in shapes})
        shapes = [shape for shape in shapes if shape.c_in == middle[len(middle) // 2]]
    start = max(0, min(len(shapes) // 3, len(shapes) - _WINDOW))
    return shapes[start : start + _WINDOW]


def _most_doubtful(staircase: Staircase, shapes: Sequence[LayerShape], n: int) -> list[LayerShape]:
    """Up to `n` shapes of the largest standard error, each beyond the reach of those before."""
    if not shapes or n < 1:
        return []
    points = channels(shapes)
    doubt = staircase.error(points)
    chosen: list[int] = []
    while len(chosen) < min(n, len(shapes)):
        best = int(np.argmax(doubt))
        chosen.append(best)
        apart = ((np.log(points) - np.log(points[best])) ** 2).sum(axis=1)
        doubt = doubt * (1 - np.exp(-apart / (2 * staircase.pattern.reach**2)))
        doubt[chosen] = -1.0
    return [shapes[i] for i in chosen]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
