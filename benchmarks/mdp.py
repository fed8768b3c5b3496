"""Our dynamic programming on the latency tables that MDP published: its objective beside MDP's own and the optimum.

    git clone https://github.com/NVlabs/MDP
    python -m benchmarks.mdp "MDP/resnet50+ablation" [--steps 1] [--any-first] [--json]

MDP (Sun et al., CVPR 2025) keeps the channels of most importance under a latency budget by a mixed-integer solver. Its
repository holds what the solver was given for MobileNetV1 on a Titan V (`pkls/*_solver_inputs_latv2_2nd.pkl`) and how
many channels it took away (`pkls/pruned_dict_latv2*_2nd.pkl`). The optimum is found a second time by a plain table over
whole microseconds, which shares no line with our solver. As in MDP's code no layer goes, and the first one keeps 16
channels or more unless `--any-first`; step 0 prunes in one go, later ones are another run's, in many steps. Nothing of
the files is run: see `plain_pickle.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import parser_of
from benchmarks.plain_pickle import read_plain

FIRST, FIRST_CHANNELS = "module.features.conv_bn.conv", 16
Group = tuple[str, ...]
"""Layers whose channels go together."""
Term = tuple[tuple[int, ...], np.ndarray]
"""Groups by number, ascending, and microseconds by how many parts of each are kept, from one part on."""


@dataclass(frozen=True)
class Instance:
    """A chain of groups, what keeping so many parts of each is worth, and what the layers then take."""

    groups: list[Group]
    worth: list[np.ndarray]
    """of each group by parts kept, from one part on"""
    terms: list[Term]
    budget: int
    """microseconds"""
    least: list[int]
    """parts of each group that are kept at least"""


@dataclass(frozen=True)
class Kept:
    """A solution."""

    parts: tuple[int, ...]
    importance: int
    microseconds: int


def instance_of(inputs: Sequence[Any], part_channels: Mapping[str, int], any_first: bool = False) -> Instance:
    """What MDP's solver was given: its inputs' first three entries, and the channels that go at once in each layer.

    Raises `ValueError` where a layer reads what is no earlier group.
    """
    latencies, importances, budget = inputs[:3]
    home = {layer: group for group in importances for layer in group}
    before = {group: {latencies[layer][0] for layer in group} - {None, group} for group in importances}
    groups = list(TopologicalSorter(before).static_order())
    if set(groups) != set(importances):
        raise ValueError("a layer reads channels of no group")
    terms: list[Term] = []
    for layer, (source, table) in latencies.items():
        microseconds, own = np.rint(table.value).astype(np.int64), groups.index(home[layer])
        if microseconds.ndim == 1:
            terms.append(((own,), microseconds[1:]))
        else:
            terms.append(((groups.index(source), own), microseconds[1:, 1:].T))
    least = [1] * len(groups)
    if not any_first and FIRST in home:
        least[groups.index(home[FIRST])] = FIRST_CHANNELS // part_channels[FIRST]
    return Instance(groups, [np.array(importances[group][1:]) for group in groups], terms, int(budget), least)


def kept(instance: Instance, parts: Sequence[int]) -> Kept:
    """What keeping so many parts of each group comes to."""
    worth = sum(int(worth[count - 1]) for worth, count in zip(instance.worth, parts, strict=True))
    cost = sum(int(table[tuple(parts[group] - 1 for group in scope)]) for scope, table in instance.terms)
    return Kept(tuple(parts), worth, cost)


def solved(instance: Instance) -> Kept:
    """By our own dynamic programming. Raises `UserError` for a budget that nothing meets."""
    from amc_latency.lut.shapes.architecture import Architecture

    from amc_latency.search.costs.costs import PolicyCosts
    from amc_latency.search.solvers.dynamic import solve

    sizes = tuple(map(len, instance.worth))
    choices = [range(1, size + 1) for size in sizes]
    costs = PolicyCosts(Architecture((), sizes), choices, lambda _: instance.terms)
    damage = [worth.max() - worth.astype(float) for worth in instance.worth]
    for values, least in zip(damage, instance.least, strict=True):
        values[: least - 1] = np.inf
    return kept(instance, solve(costs, damage, instance.budget).counts)


def by_microseconds(instance: Instance) -> Kept:
    """The optimum by a table over whole microseconds; groups must be a chain. Raises `ValueError` for another."""
    own = [np.zeros(len(worth), np.int64) for worth in instance.worth]
    pairs = [np.zeros((len(one), len(two)), np.int64) for one, two in pairwise(own)]
    for scope, table in instance.terms:
        if len(scope) == 1:
            own[scope[0]] += table
        elif scope[1] == scope[0] + 1:
            pairs[scope[0]] += table
        else:
            raise ValueError(f"groups {scope} are no neighbours")
    units, nothing = instance.budget + 1, np.iinfo(np.int64).min // 2
    # best[parts - 1, u]: the most importance of the groups so far in at most u microseconds.
    best = np.full((len(own[0]), units), nothing)
    for index in range(instance.least[0] - 1, len(own[0])):
        best[index, own[0][index] :] = instance.worth[0][index]
    came_from = []
    for group in range(1, len(own)):
        longer = np.full((len(own[group]), units), nothing)
        source = np.zeros(longer.shape, np.int16)
        for index in range(instance.least[group] - 1, len(own[group])):
            for earlier in range(len(best)):
                cost = int(pairs[group - 1][earlier, index] + own[group][index])
                if cost < units:
                    value = np.full(units, nothing)
                    value[cost:] = best[earlier, : units - cost] + instance.worth[group][index]
                    better = value > longer[index]
                    longer[index, better], source[index, better] = value[better], earlier
        came_from.append(source)
        best = longer
    index, left = int(best[:, -1].argmax()), instance.budget
    if best[index, left] < 0:
        raise ValueError("the budget is out of reach")
    parts = [index + 1]
    for group in range(len(own) - 1, 0, -1):
        earlier = int(came_from[group - 1][index, left])
        left -= int(pairs[group - 1][earlier, index] + own[group][index])
        index = earlier
        parts.append(index + 1)
    return kept(instance, parts[::-1])


def published(instance: Instance, pruned: Mapping[str, int], part_channels: Mapping[str, int]) -> Kept:
    """MDP's own solution, from how many channels of each layer it took away."""
    parts = [
        len(worth) - pruned.get(group[0], 0) // part_channels[group[0]]
        for group, worth in zip(instance.groups, instance.worth, strict=True)
    ]
    return kept(instance, parts)


@dataclass(frozen=True)
class Result:
    """One instance, solved three times."""

    step: int
    budget: int
    mdp: Kept
    ours: Kept
    optimum: Kept
    falling_steps: int
    """steps to one part more of one group that make a layer faster"""
    steps: int


def run(folder: Path, step: int, any_first: bool = False) -> Result:
    """Instance number `step` of MDP's folder. Raises `OSError` and `ValueError` for files that aren't as expected."""
    part_channels = json.loads((folder / "group_size" / "mobilenet_group_size.json").read_text())
    pickles = folder / "pkls"
    inputs = read_plain(pickles / f"{step}_solver_inputs_latv2_2nd.pkl")
    pruned = read_plain(pickles / f"pruned_dict_latv2{step}_2nd.pkl")
    instance = instance_of(inputs, part_channels, any_first)
    changes = [np.diff(table, axis=axis) for _, table in instance.terms for axis in range(table.ndim)]
    return Result(
        step,
        instance.budget,
        published(instance, pruned, part_channels),
        solved(instance),
        by_microseconds(instance),
        sum(int((change < 0).sum()) for change in changes),
        sum(change.size for change in changes),
    )


def main(options: argparse.Namespace) -> None:
    """Print a line an instance."""
    results = [run(options.folder, step, options.any_first) for step in range(options.steps)]
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    print(f"{'step':>4}{'budget us':>11}{'MDP':>13}{'us':>8}{'ours':>13}{'us':>8}{'optimum':>13}{'us':>8}")
    for result in results:
        figures = "".join(
            f"{each.importance:13,}{each.microseconds:8,}" for each in (result.mdp, result.ours, result.optimum)
        )
        print(f"{result.step:4}{result.budget:11,}{figures}")
    falling = f"{results[0].falling_steps} of {results[0].steps:,}"
    print(f"step 0: {falling} steps to more channels make a layer faster, by MDP's own table")
    for name, each in (("MDP", results[0].mdp), ("ours", results[0].ours)):
        print(f"{name:4} keeps {','.join(map(str, each.parts))} parts")


if __name__ == "__main__":
    parser = parser_of(__doc__, json=True)
    parser.add_argument("folder", type=Path, help="resnet50+ablation of a clone of NVlabs/MDP")
    parser.add_argument("--steps", type=int, default=1, help="instances, 1 to 30")
    parser.add_argument("--any-first", action="store_true", help="let the first layer keep fewer channels")
    main(parser.parse_args())
