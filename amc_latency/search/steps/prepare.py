"""Before anything is searched: the table, what policies cost, the budgets, and whether any policy holds them."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from amc_latency.console import Console
from amc_latency.device.base import Device
from amc_latency.errors import UserError
from amc_latency.export.export import export
from amc_latency.lut.building.build import Plan
from amc_latency.lut.prediction.predict import MissingShapeError, Predictor
from amc_latency.lut.shapes.shape import network_text
from amc_latency.lut.table.reference_speed import go_on_at_reference
from amc_latency.lut.table.table import LatencyTable
from amc_latency.measuring.profiling import complete_table, open_table
from amc_latency.measuring.report import held_out_text, suspect_text
from amc_latency.models.load import Network
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.delivery.deliver import Delivery
from amc_latency.search.delivery.evidence import Evidence
from amc_latency.search.delivery.timing import PolicyTimer
from amc_latency.search.episodes.problem import Problem
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.judging import MakeJudge
from amc_latency.search.judge.rewards import make_reward
from amc_latency.search.judge.score import Reward
from amc_latency.search.results.folder import RunFolder
from amc_latency.search.solvers.baselines import uniform_policy
from amc_latency.search.targets.bound import UpperBound
from amc_latency.search.targets.bounds import bounds_named, check_choices
from amc_latency.search.targets.budgets import Subject, clamp_of
from amc_latency.search.targets.pruning import Pruning


@dataclass(frozen=True)
class Prepared:
    """What the steps of a search share; none of it changes."""

    config: SearchConfig
    folder: RunFolder
    console: Console
    device: Device
    pruning: Pruning
    uncut: Network
    """the original as it is searched: see `Pruning.view`"""
    is_first: bool
    """whether nothing was pruned before: no earlier round"""
    judge: Judge
    table: LatencyTable
    is_fresh: bool
    """whether the whole table was timed just now"""
    original_ms: float
    """what the table's device took for the original"""
    costs: LatencyCosts
    clamp: Clamp
    bound: UpperBound | None
    reward: Reward
    evidence: Evidence
    delivery: Delivery
    began: float
    """by the monotonic clock"""

    @property
    def estimated(self) -> bool:
        """Whether a cost model stands in for the device, or for whoever filled the table that is replayed."""
        return self.device.identity.estimated

    @property
    def compares_by_timing(self) -> bool:
        """Whether others are timed beside ours."""
        return self.config.has_latency_target and self.pruning.shows_in_shapes and not self.device.is_constant

    @property
    def device_to_ask(self) -> Device | None:
        """The device, where what it says of layers goes into its own table: the run folder's copy stays as it is."""
        return None if self.device.is_constant or self.table.path == own_table(self.folder) else self.device

    def limit_ms(self, factor: float) -> float | None:
        """What the table may predict, so that the device, slower by `factor`, meets the target; None if none does."""
        reachable_ms = self.clamp.target_ms / factor
        if self.bound is not None:
            return self.bound.limit_ms(reachable_ms)
        if reachable_ms < self.clamp.fastest_ms:
            return None
        # Near the fastest network there is no room for the margin.
        return max(reachable_ms * (1 - self.config.margin_pct / 100), self.clamp.fastest_ms)

    def holds(self, counts: Counts, factor: float) -> bool:
        """Whether a policy may win: with the probability asked for, a device slower by `factor` meets the target."""
        return self.bound is None or self.bound.ms(counts) <= self.clamp.target_ms / factor

    def uniform(self, limit_ms: float) -> Counts | None:
        """The uniform width for the same limit, if there is one."""
        try:
            return uniform_policy(self.costs, limit_ms, self.clamp.budgets)
        except UserError:
            return None

    def within_budgets(self, counts: Counts) -> bool:
        """Whether a policy holds what is limited beside milliseconds."""
        return all(budget.holds(counts) for budget in self.clamp.budgets)

    def problem(self, limit_ms: float) -> Problem:
        """What a method is given under this limit."""
        clamp, first_ms = self.clamp.with_target(limit_ms), self.limit_ms(1.0)
        assert first_ms is not None, "or there would be no attempt"
        origin = self.clamp.with_target(first_ms)
        config = self.config
        bounded = config.min_keep is not None or config.max_keep is not None
        keep = self.costs.ratio_bounds if bounded else (config.least_keep, 1.0)
        return Problem(clamp, self.judge, self.reward, config.seed, keep[0], config.damage, origin, keep[1])


def own_table(folder: RunFolder) -> Path:
    """The run folder's copy of the table."""
    return folder.path / "table.tsv"


def prepare(
    config: SearchConfig,
    folder: RunFolder,
    original: Network,
    network: Network,
    pruning: Pruning,
    make_judge: MakeJudge,
    console: Console,
    device: Device,
) -> Prepared:
    """Time what the table lacks, work out what policies cost, and begin the run folder.

    `network` is what earlier rounds made of `original`. Raises `UserError` for what can't be searched, such as budgets
    that no policy holds, and what timing raises.
    """
    began = time.monotonic()
    uncut, searched = pruning.view(original), pruning.view(network)
    judge = make_judge(searched, original, folder.path / "scores.jsonl")
    table, is_fresh = _table(config, folder, original, searched, pruning, judge, console, device)
    predictor = Predictor(table)
    shapes = original.graph.architecture.shapes()
    original_ms = predictor.measured_ms(shapes)
    try:
        predicted_ms = predictor.ms(shapes)
        costs = _costs(config, uncut, searched, pruning, predictor, predicted_ms)
    except MissingShapeError as error:
        raise UserError(f"{table.path} is not whole any more ({error.shape}): name another `out`") from error
    if original_ms is None:
        raise UserError(f"{table.path} is not whole any more (the uncut network): name another `out`")
    subject = Subject(original, searched, costs)
    with bounds_named(config, uncut):
        if config.round < config.rounds:
            # Refused before this round's hours: the last one's target must be in reach too.
            clamp_of(replace(config, round=config.rounds), subject, original_ms)
        clamp = clamp_of(config, subject, original_ms)
    bound = None
    if config.confidence is not None:
        bound = UpperBound(clamp, predictor, config.confidence)
        bound.check(clamp.target_ms)
    folder.start()
    if not own_table(folder).exists():
        table.save_as(own_table(folder))
    timer = _timer(config, pruning, table, original, original_ms, device)
    return Prepared(
        config=config,
        folder=folder,
        console=console,
        device=device,
        pruning=pruning,
        uncut=uncut,
        is_first=searched.model is original.model,
        judge=judge,
        table=table,
        is_fresh=is_fresh,
        original_ms=original_ms,
        costs=costs,
        clamp=clamp,
        bound=bound,
        reward=make_reward(config.reward, costs),
        evidence=Evidence(predictor, costs, console.say),
        delivery=Delivery(config, folder, judge, costs, predicted_ms, timer, console, pruning.shows_in_shapes),
        began=began,
    )


def _table(
    config: SearchConfig,
    folder: RunFolder,
    original: Network,
    searched: Network,
    pruning: Pruning,
    judge: Judge,
    console: Console,
    device: Device,
) -> tuple[LatencyTable, bool]:
    """The run folder's own copy if there is one: by other rows a resumed search would be another search.

    And whether all of it was timed just now.
    """
    own = own_table(folder)
    if own.exists():
        table = LatencyTable.open(own, device.identity)
        go_on_at_reference(device, table)
        judge.introduce(config.images, config.min_accuracy, console)
        return table, False
    if folder.episodes():
        raise UserError(f"{own} is missing, and the search was made by it: name another `out`")
    _check_exportable(searched, judge)
    # One that was named is meant to be there: a typo must not begin hours of timing.
    found = open_table(device, None, None if config.lut is None else Path(config.lut), create=config.lut is None)
    assert found is not None
    # Once nothing cheap can be wrong any more, and before hours of timing.
    judge.introduce(config.images, config.min_accuracy, console)
    # A table that was named is as exact as its user made it; of our own, learning goes on to its goal.
    plan = Plan() if config.lut is None else Plan("missing")
    report = complete_table(original, device, found, pruning.profiled(config), console, plan)
    if report.timed and not device.identity.estimated:
        console.say(f"timed {report.timed:,} rows in {report.seconds:.0f} s; {held_out_text(report)}")
    if report.suspect:
        console.warn(suspect_text(report))
    # Of a table that was begun earlier the first rows are of another hour, whatever was added now.
    return found, report.timed == report.rows


def _check_exportable(network: Network, judge: Judge) -> None:
    """Before anything is timed: what can't be written can't be shipped either."""
    with tempfile.TemporaryDirectory() as folder:
        export(network.model, network.spec.input, Path(folder) / "uncut.tflite", judge.example_inputs(2))


def _costs(
    config: SearchConfig,
    uncut: Network,
    searched: Network,
    pruning: Pruning,
    predictor: Predictor,
    predicted_ms: float,
) -> LatencyCosts:
    choices = pruning.grid(config).choices_within(uncut, searched.graph.architecture.group_channels)
    costs = pruning.latency(config, searched, choices, predictor, predicted_ms)
    if config.round == 1:
        check_choices(config, costs.choices)
    return costs


def _timer(
    config: SearchConfig, pruning: Pruning, table: LatencyTable, original: Network, original_ms: float, device: Device
) -> PolicyTimer:
    # Rounds as the uncut network's, by which a target is named: a smallest sample falls with the number of samples.
    protocol = replace(table.protocol, rounds=config.timing_rounds or table.protocol.network_rounds)
    key = network_text(original.graph.architecture.shapes())
    if not pruning.shows_in_shapes and not device.is_constant:
        key = "original"
    return PolicyTimer(device, protocol, key, original_ms if config.is_relative else None)
