"""A whole search: table, episodes under the budgets, cut, fine-tune, export, and the device's word on the result."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

from amc_latency.console import Console
from amc_latency.device.base import Device, source_word
from amc_latency.device.kinds import PhoneOptions
from amc_latency.errors import JobError, UserError
from amc_latency.export.export import export
from amc_latency.lut.prediction.predict import MissingShapeError, Predictor
from amc_latency.lut.shapes.shape import network_text
from amc_latency.lut.table.reference_speed import go_on_at_reference
from amc_latency.lut.table.table import LatencyTable
from amc_latency.measuring.estimating import bench_advice, estimate_device
from amc_latency.measuring.opening import open_device
from amc_latency.measuring.profiling import Grid, complete_table, open_table
from amc_latency.models.files.weights import weights_digest
from amc_latency.models.load import Network, NetworkOptions, check_logits, check_trained, load_network
from amc_latency.models.own_module import from_checkpoint
from amc_latency.models.spec import MODULE, names_own_file
from amc_latency.report import held_out_text, suspect_text
from amc_latency.search.agents.loop import EpisodeRecord
from amc_latency.search.config import BaselineRow, Row, SearchConfig, SearchReport
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts, predicted_costs
from amc_latency.search.costs.rewards import make_reward
from amc_latency.search.delivery.deliver import Delivery
from amc_latency.search.delivery.evidence import Evidence
from amc_latency.search.delivery.timing import PolicyTimer
from amc_latency.search.folder import RunFolder, TimedFile
from amc_latency.search.judge.judge import FINALISTS
from amc_latency.search.judge.judging import MakeJudge, judged_by
from amc_latency.search.judge.weights import weight_network
from amc_latency.search.methods import baseline_rows, check_agent, search_episodes
from amc_latency.search.problem import AgentOptions, Problem
from amc_latency.search.records import REWARDS
from amc_latency.search.report import search_html
from amc_latency.search.solvers.baselines import uniform_policies, uniform_policy
from amc_latency.search.solvers.dynamic import solve
from amc_latency.search.solvers.iterated import EVALUATIONS_A_GROUP
from amc_latency.search.targets.bound import UpperBound
from amc_latency.search.targets.bounds import bounds_named, bounds_text, check_choices, grid_of
from amc_latency.search.targets.budgets import budget_rows, budgets_of
from amc_latency.search.targets.zipped import zipped_bytes
from amc_latency.task import ImageTask, Task


def search(
    config: SearchConfig,
    out: Path,
    console: Console,
    phone: PhoneOptions = PhoneOptions(),
    start: Path | None = None,
) -> SearchReport:
    """Run a search in the folder `out`, or go on with the one that is there; a finished one is only read.

    `start` is the checkpoint that the round before this one ended in, if there was one.
    A target that was not met after all corrections is a report too, with `met` false. Raises `UserError` for bad input,
    such as a target that cannot be reached.
    """
    check_agent(config.searcher)
    network = load_network(config.network)
    check_logits(network)
    check_trained(network, config.network, "a search")
    task = ImageTask(config.data, config.unlabelled)
    return search_for(config, network, task, out, console, lambda: _device(config, phone, console), start)


def search_for(
    config: SearchConfig,
    network: Network,
    task: Task | ImageTask,
    out: Path,
    console: Console,
    opened: Callable[[], AbstractContextManager[Device]],
    start: Path | None = None,
) -> SearchReport:
    """`search` for a network and a task that are there, on the device that `opened` gives."""
    check_agent(config.searcher)
    _check_cuttable(config, network)
    judging = judged_by(task, network, config, console)
    # Other data or other weights on a resume would be another search.
    identity = {**judging.identity, "weights_sha256": weights_digest(network.model)}
    pruned = network if start is None else _started(network, start)
    if start is not None:
        identity["start_sha256"] = weights_digest(pruned.model)
    folder = RunFolder(out, {**asdict(config), **identity})
    console.detail(f"run folder {out.resolve()}")
    done = folder.report()
    if done is not None:
        console.say(f"{out} holds a finished search")
        return done
    with opened() as device:
        return _Search(config, folder, network, pruned, judging.judge, console, device).run()


def check_met(report: SearchReport) -> None:
    """Raise `JobError` if a budget was not met, saying by how much."""
    advice = "a smaller budget"
    over = [
        f"{row.actual:,} {row.name}, {100 * (row.actual / row.limit - 1):.1f} % over the budget of {row.limit:,}"
        for row in report.budgets
        if row.actual > row.limit
    ]
    if report.target_ms is not None and report.measured_ms > report.target_ms:
        over.append(
            f"{source_word(report.estimated)} {report.measured_ms:.4g} ms, "
            f"{100 * (report.measured_ms / report.target_ms - 1):.1f} % over the target of {report.target_ms:.4g} ms"
        )
        wider = "`margin_pct`" if report.confidence is None else "`confidence`"
        advice = f"a larger {wider}"
    if over:
        raise JobError(
            f"not met after {report.attempts} attempts: {'; '.join(over)}. "
            f"The last network is {report.tflite}; search on with another `out` and {advice}"
        )


def _device(config: SearchConfig, phone: PhoneOptions, console: Console) -> Device:
    if config.estimate:
        if phone != PhoneOptions():
            raise UserError("`force`, `transport`, `runner` and the like are for a phone that is there: no `estimate`")
        return estimate_device(config.device, _path(config.lut))
    return open_device(config.device, _path(config.lut), phone, console)


def _started(network: Network, start: Path) -> Network:
    """What the round before ended in; of an own file, built by the one that the user named."""
    if network.spec.name.startswith(MODULE):
        return from_checkpoint(network, start)
    if names_own_file(network.spec.name):
        return load_network(NetworkOptions(network.spec.name, weights=str(start)))
    return load_network(NetworkOptions(str(start)))


def _check_cuttable(config: SearchConfig, network: Network) -> None:
    if not network.graph.groups and config.prune == "channels":
        whole = "; ".join(f"{left.module}: {left.reason}" for left in network.graph.left_whole[:3])
        raise UserError(f"{config.model} has nothing to cut ({whole}); see `amc-latency inspect`, or `prune='weights'`")


class _Search:
    """One run of a search: what its phases share."""

    def __init__(
        self,
        config: SearchConfig,
        folder: RunFolder,
        original: Network,
        network: Network,
        make_judge: MakeJudge,
        console: Console,
        device: Device,
    ) -> None:
        self.began = time.monotonic()
        self.config = config
        self.folder = folder
        self.original = original
        view = weight_network if config.prune == "weights" else _as_it_is
        self.uncut, self.network = view(original), view(network)
        self.console = console
        self.device = device
        self.judge = make_judge(self.network, original, folder.path / "scores.jsonl")
        self._own_table = folder.path / "table.tsv"
        self._is_fresh = False
        self.table = self._table()
        shapes = original.graph.architecture.shapes()
        predictor = Predictor(self.table)
        measured_ms = predictor.measured_ms(shapes)
        try:
            self.predicted_ms = predictor.ms(shapes)
            self.costs = self._costs(predictor)
        except MissingShapeError as error:
            raise UserError(f"{self.table.path} is not whole any more ({error.shape}): name another `out`") from error
        if measured_ms is None:
            raise UserError(f"{self.table.path} is not whole any more (the uncut network): name another `out`")
        self.original_ms = measured_ms
        self.evidence = Evidence(predictor, self.costs, console.say)
        if config.round < config.rounds:
            # Refused before this round's hours: the last one's target must be in reach too.
            self._clamp(replace(config, round=config.rounds))
        self.clamp = self._clamp(config)
        self.target_ms = self.clamp.target_ms
        self.reward = make_reward(config.reward, self.costs)
        self.bound = None
        if config.confidence is not None:
            self.bound = UpperBound(self.clamp, predictor, config.confidence)
            self.bound.check(self.target_ms)
        self._tried: set[Counts] = set()
        folder.start()
        if not self._own_table.exists():
            self.table.save_as(self._own_table)

    @property
    def estimated(self) -> bool:
        """Whether a cost model stands in for the device, or for whoever filled the table that is replayed."""
        return self.device.identity.estimated

    @cached_property
    def delivery(self) -> Delivery:
        # Rounds as the uncut network's, by which a target is named: a smallest sample falls with the number of samples.
        protocol = self.table.protocol
        protocol = replace(protocol, rounds=self.config.timing_rounds or protocol.network_rounds)
        config, folder, costs = self.config, self.folder, self.costs
        original = network_text(self.original.graph.architecture.shapes())
        if config.prune == "weights" and not self.device.is_constant:
            original = "original"
        timer = PolicyTimer(self.device, protocol, original, self.original_ms if config.is_relative else None)
        return Delivery(config, folder, self.judge, costs, self.predicted_ms, timer, self.console)

    def run(self) -> SearchReport:
        self._introduce()
        say, delivery = self.console.say, self.delivery
        told = source_word(self.estimated)
        factor, limit_ms = 1.0, self._limit_ms(1.0)
        report = self._uncut()
        if report is not None:
            return self._ended(report)
        if self.config.has_latency_target and not (self._is_fresh or self.device.is_constant):
            self.evidence.add_drift(self.original_ms, delivery.original_now(), self.config.is_relative)
            factor = max(factor, self.evidence.factor(self.costs.full))
            limit_ms = self._limit_ms(factor)
            if limit_ms is None:
                raise UserError(f"{self.target_ms:.4g} ms is out of reach on a device that is slower by that")
        attempt = -1
        while limit_ms is not None and attempt < self.config.corrections:
            attempt += 1
            records = self._episodes(attempt, limit_ms, factor)
            say(f"judging the {FINALISTS} best policies by {self.judge.for_finalists}")
            holding = [record for record in records if self._holds(record.counts, factor)]
            best = self.judge.choose(holding, limit_ms, self.reward)
            report = None
            timed = delivery.known_over(attempt, best, self.target_ms)
            timed = timed or delivery.quick(attempt, best, self.target_ms)
            if timed.measured_ms <= self.target_ms:
                report = self._finish(attempt, factor, best, limit_ms, records, timed)
                timed = delivery.known_over(attempt, best, self.target_ms)
            if timed is None:
                break
            last = timed
            self.evidence.add(best.counts, best.predicted_ms, timed, self._device_to_ask())
            # Limits only fall from one attempt to the next: see `_episodes`.
            factor = max(factor, self.evidence.factor(best.counts))
            limit_ms = self._limit_ms(factor)
            say(
                f"attempt {attempt + 1}: {told} {timed.measured_ms:.4f} ms is over the target of "
                f"{self.target_ms:.4f} ms; predictions are shifted by {100 * (factor - 1):+.1f} %"
                + ("" if limit_ms else ", and so no reachable network is fast enough")
            )
        return self._ended(report or self._finish(attempt, factor, best, best.predicted_ms, records, last))

    def _ended(self, report: SearchReport) -> SearchReport:
        self.folder.write_text("report.html", search_html(report, self.folder.settings, self.folder.measurements()))
        # Last: a folder with this file holds a finished search.
        self.folder.write_report(report)
        return report

    def _uncut(self) -> SearchReport | None:
        """The uncut network as the result, where it meets every budget and the reward asks for no more; or else None.

        In a later round "uncut" is what the rounds before made, which is still to be compared with the original.
        """
        counts, is_first = self.costs.full, self.network.model is self.original.model
        if not REWARDS[self.config.reward].needs_budget or not is_first:
            return None
        # The table timed this very network, which counts for more than the sum of its layers.
        within = self.original_ms <= self.target_ms and all(budget.holds(counts) for budget in self.clamp.budgets)
        if not (within or self.clamp.holds(counts)) or not self._holds(counts, 1.0):
            return None
        self.console.say("the uncut network meets this already: it is exported and timed, and nothing is searched")
        rows = self.delivery.uncut_rows(self.target_ms)
        if rows is None or any(row.actual > row.limit for row in budget_rows(self.clamp.budgets, rows[-1])):
            self.console.say("by what was measured of its file it does not: the search begins")
            return None
        self.folder.write_json("policy.json", {"counts": list(counts), "keep": [1.0] * len(counts)})
        return self._report(0, 1.0, rows, [], [])

    def _introduce(self) -> None:
        target = f", target {self.target_ms:.4f} ms" if self.config.has_latency_target else ""
        others = "".join(f", at most {budget.limit:,} {budget.name}" for budget in self.clamp.budgets)
        self.console.say(
            f"{self.config.model} on {self.device.text}\n"
            f"table {self.table.path}\n"
            f"{self.judge.source_line}\n"
            f"original {self.original_ms:.4f} ms{target}{others}, fastest reachable {self.clamp.fastest_ms:.4f} ms"
        )
        for line in (*bounds_text(self.config, self.uncut), *self._shortened()):
            self.console.warn(line)
        if self.estimated:
            self.console.warn(f"every latency is {bench_advice(self.device.identity.name)}")
        if self.bound is not None:
            self.console.say(self.bound.text(self.target_ms))

    def _shortened(self) -> list[str]:
        """What cannot be had as it was asked for."""
        config, lines = self.config, self.judge.shortened()
        limit_ms = self._limit_ms(1.0)
        if self.bound is None and config.has_latency_target and limit_ms is not None:
            margin_pct = 100 * (1 - limit_ms / self.target_ms)
            if margin_pct < config.margin_pct - 1e-9:
                lines.append(
                    f"`margin_pct` {config.margin_pct:g}: {margin_pct:.2g} % is held, as no network is faster than that"
                )
        if config.agent_record.counts_policies and config.total_episodes < EVALUATIONS_A_GROUP * self.costs.groups:
            lines.append(
                f"`episodes` {config.total_episodes}: a round of dynamic programming takes about "
                f"{EVALUATIONS_A_GROUP * self.costs.groups:.0f} policies, and one is made at least"
            )
        return lines

    def _costs(self, predictor: Predictor) -> LatencyCosts:
        config, architecture = self.config, self.network.graph.architecture
        choices = grid_of(config).choices_within(self.uncut, architecture.group_channels)
        if config.round == 1:
            check_choices(config, choices)
        if config.prune == "weights":
            # A runtime multiplies zeros as well.
            return LatencyCosts(architecture, choices, lambda shape: 0.0, self.predicted_ms)
        return predicted_costs(architecture, choices, predictor)

    def _clamp(self, config: SearchConfig) -> Clamp:
        target_ms = config.toward(config.target_of(self.original_ms), self.original_ms)
        budgets = budgets_of(config, self.original, self.network, self.costs)
        with bounds_named(config, self.uncut):
            return Clamp(self.costs, target_ms, budgets)

    def _limit_ms(self, factor: float) -> float | None:
        """What the table may predict, so that the device, slower by `factor`, meets the target; None if none does."""
        reachable_ms = self.target_ms / factor
        if self.bound is not None:
            return self.bound.limit_ms(reachable_ms)
        if reachable_ms < self.clamp.fastest_ms:
            return None
        # Near the fastest network there is no room for the margin.
        return max(reachable_ms * (1 - self.config.margin_pct / 100), self.clamp.fastest_ms)

    def _holds(self, counts: Counts, factor: float) -> bool:
        """Whether a policy may win: with the probability asked for, a device slower by `factor` meets the target."""
        return self.bound is None or self.bound.ms(counts) <= self.target_ms / factor

    def _uniform(self, limit_ms: float) -> Counts | None:
        """The uniform width for the same limit, if there is one."""
        try:
            return uniform_policy(self.costs, limit_ms, self.clamp.budgets)
        except UserError:
            return None

    def _table(self) -> LatencyTable:
        """The run folder's own copy if there is one: by other rows a resumed search would be another search."""
        if self._own_table.exists():
            own = LatencyTable.open(self._own_table, self.device.identity)
            go_on_at_reference(self.device, own)
            self._introduce_original()
            return own
        if self.folder.episodes():
            raise UserError(f"{self._own_table} is missing, and the search was made by it: name another `out`")
        self._check_exportable()
        lut = _path(self.config.lut)
        # One that was named is meant to be there: a typo must not begin hours of timing.
        table = open_table(self.device, None, lut, create=lut is None)
        assert table is not None
        self._introduce_original()
        # What later rounds can reach, the first one can too. Zeros are no other layer shapes.
        grid = Grid(1.0) if self.config.prune == "weights" else grid_of(self.config)
        report = complete_table(self.original, self.device, table, grid, self.console)
        # Of a table that was begun earlier the first rows are of another hour, whatever was added now.
        self._is_fresh = report.timed == report.rows
        if report.timed and not self.estimated:
            self.console.say(f"timed {report.timed:,} rows in {report.seconds:.0f} s; {held_out_text(report)}")
        if report.suspect:
            self.console.warn(suspect_text(report))
        return table

    def _introduce_original(self) -> None:
        """Once nothing cheap can be wrong any more, and before hours of timing."""
        self.judge.introduce(self.config.images, self.config.min_accuracy, self.console)

    def _check_exportable(self) -> None:
        """Before anything is timed: what can't be written can't be shipped either."""
        spec = self.network.spec
        with tempfile.TemporaryDirectory() as folder:
            export(self.network.model, spec.input, Path(folder) / "uncut.tflite", self.judge.example_inputs(2))

    def _problem(self, limit_ms: float) -> Problem:
        clamp, first_ms = self.clamp.with_target(limit_ms), self._limit_ms(1.0)
        assert first_ms is not None, "or there would be no attempt"
        origin = self.clamp.with_target(first_ms)
        config = self.config
        bounded = config.min_keep is not None or config.max_keep is not None
        keep = self.costs.ratio_bounds if bounded else (config.least_keep, 1.0)
        return Problem(clamp, self.judge, self.reward, config.seed, keep[0], config.damage, origin, keep[1])

    def _episodes(self, attempt: int, limit_ms: float, factor: float) -> list[EpisodeRecord]:
        config = self.config
        counts_policies = config.agent_record.counts_policies
        wanted = config.total_episodes + attempt * config.correction_episodes
        if counts_policies and attempt:
            wanted = config.correction_episodes
        # A new agent learns the whole log again: the log alone is the state of a search.
        # Targets only fall from one attempt to the next: what is below this one's is a later one's.
        log = [record for record in self.folder.episodes() if record.limit_ms >= limit_ms]
        if log:
            self.console.say(f"going on after {len(log)} episodes")
        self.judge.asked.clear()
        if config.starts_warm or config.agent_record.solves:
            clamp, problem = self.clamp.with_target(limit_ms), self._problem(limit_ms)
            solution = solve(clamp.guide, problem.damages()[0], clamp.guide_limit)
            self.console.say(
                f"dynamic programming: {','.join(map(str, solution.counts))}, damage {solution.damage:.4g}, "
                f"optimality gap {solution.gap:.2g}"
            )
        first = self._uniform(limit_ms) if self.bound is None else self.bound.start(self.target_ms / factor)
        best = max((record.accuracy for record in log), default=0.0)
        with self.console.progress("searching", wanted) as meter:

            def on_episode(record: EpisodeRecord) -> None:
                nonlocal best
                self.folder.append_episode(record)
                best = max(best, record.accuracy)
                note = f"{self.judge.shown(record.accuracy)} held back, best {self.judge.shown(best)}"
                done = len(self.judge.asked) if counts_policies else record.episode + 1
                meter.update(min(done, wanted), note=note)

            if counts_policies:
                self.judge.on_asked = lambda: meter.update(min(len(self.judge.asked), wanted), note="policies tried")
            options = AgentOptions(
                config.searcher,
                config.starts_warm,
                config.warmup_episodes,
                wanted,
                config.state,
                config.ppo_actors,
                config.layer_rewards,
                config.critic_action_layer,
            )
            starts = [] if first is None else [first]
            records = search_episodes(self._problem(limit_ms), options, log, starts, on_episode)
        self.judge.on_asked = lambda: None
        if not counts_policies and all(record.source == "start" for record in records):
            say = self.console.warn
            say(
                f"all {len(records)} episodes went to start policies, so {config.searcher} never acted: `episodes` more"
            )
        # What a replayed log held was not asked again.
        self._tried |= self.judge.asked | {record.counts for record in records}
        return records

    def _finish(
        self,
        attempt: int,
        factor: float,
        best: EpisodeRecord,
        limit_ms: float,
        records: list[EpisodeRecord],
        timed: TimedFile,
    ) -> SearchReport:
        """Fine-tune and export ours and the uniform width, time both beside the original, and run the baselines.

        Where milliseconds are limited and measured, the uniform width is the one that takes as many as ours.
        """
        uniform = self._uniform(limit_ms) or uniform_policies(self.costs)[-1]
        baselines = baseline_rows(self._problem(limit_ms), self.config.baseline_names, len(self._tried), self.console)
        policies = {"original": self.uncut.graph.architecture.group_channels, "uniform": uniform, "ours": best.counts}
        if self._compares_by_timing:
            widths = [counts for counts in uniform_policies(self.costs) if self._within_budgets(counts)]
            uniform = self.delivery.equal_width(attempt, timed, widths) if widths else uniform
            baselines = self.delivery.timed_baselines(attempt, baselines, timed)
            policies["uniform"] = uniform
        self.console.say(f"fine-tuning, exporting and judging ours and the uniform width by {self.judge.for_the_end}")
        rows = self.delivery.rows(attempt, factor, policies, self.target_ms)
        self.folder.write_json("policy.json", {"counts": list(best.counts), "keep": list(best.actions)})
        return self._report(attempt + 1, factor, rows, baselines, records)

    def _device_to_ask(self) -> Device | None:
        """The device, where what it says of layers goes into its own table: the run folder's copy stays as it is."""
        return None if self.device.is_constant or self.table.path == self._own_table else self.device

    @property
    def _compares_by_timing(self) -> bool:
        return self.config.has_latency_target and self.config.prune == "channels" and not self.device.is_constant

    def _within_budgets(self, counts: Counts) -> bool:
        return all(budget.holds(counts) for budget in self.clamp.budgets)

    def _report(
        self,
        attempts: int,
        factor: float,
        rows: list[Row],
        baselines: list[BaselineRow],
        records: list[EpisodeRecord],
    ) -> SearchReport:
        """What `rows`, the original's, the uniform width's and ours, come to."""
        original, by_uniform, ours = rows
        budgets = budget_rows(self.clamp.budgets, ours)
        limited, sparse = math.isfinite(self.target_ms), self.config.prune == "weights"
        facts = self.judge.facts
        return SearchReport(
            original_ms=self.original_ms,
            target_ms=self.target_ms if limited else None,
            predicted_ms=ours.predicted_ms,
            measured_ms=ours.measured_ms,
            met=ours.measured_ms <= self.target_ms and all(row.actual <= row.limit for row in budgets),
            statistic="the cost model" if self.estimated else self.delivery.statistic,
            accuracy_original=original.accuracy,
            accuracy=ours.accuracy,
            accuracy_uniform=by_uniform.accuracy,
            macs=ours.macs,
            episodes=len(records),
            evaluations=len(self._tried),
            attempts=attempts,
            seconds=round(time.monotonic() - self.began, 1),
            data=facts.source,
            unlabelled=facts.unlabelled,
            device=self.device.text,
            table=str(self._own_table),
            tflite=ours.tflite,
            rows=rows,
            budgets=budgets,
            baselines=[replace(row, predicted_ms=row.predicted_ms * factor) for row in baselines],
            confidence=self.config.confidence,
            bound_ms=None if self.bound is None else self.bound.ms(ours.counts) * factor,
            estimated=self.estimated,
            zipped_bytes=[zipped_bytes(Path(row.tflite).read_bytes()) for row in rows] if sparse else [],
            note=f"every latency here is {bench_advice(self.device.identity.name)}" if self.estimated else None,
            phone=self.device.identity.name if self.estimated else None,
            test_images=facts.test_images,
            held_back_images=facts.held_back_images,
            comparisons=self.delivery.comparisons if records else [],
            pixels=facts.pixels,
            measure=facts.measure,
        )


def _as_it_is(network: Network) -> Network:
    return network


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
