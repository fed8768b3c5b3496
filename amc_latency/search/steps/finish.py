"""After an attempt, or instead of all: the networks of the comparison, delivered, timed and reported."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import replace

from amc_latency.measuring.estimating import bench_advice
from amc_latency.search.costs.costs import Counts
from amc_latency.search.delivery.deliver import Delivered
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.records import REWARDS
from amc_latency.search.results.folder import TimedFile
from amc_latency.search.results.report import search_html
from amc_latency.search.results.result import BaselineRow, SearchReport
from amc_latency.search.solvers.baselines import uniform_policies
from amc_latency.search.steps.methods import baseline_rows
from amc_latency.search.steps.prepare import Prepared, own_table
from amc_latency.search.targets.budgets import budget_rows


def finish_uncut(prepared: Prepared) -> SearchReport | None:
    """The uncut network as the result, where it meets every budget and the reward asks for no more; or else None.

    In a later round "uncut" is what the rounds before made, which is still to be compared with the original.
    """
    config, clamp, counts, say = prepared.config, prepared.clamp, prepared.costs.full, prepared.console.say
    if not REWARDS[config.reward].needs_budget or not prepared.is_first:
        return None
    # The table timed this very network, which counts for more than the sum of its layers.
    within = prepared.original_ms <= clamp.target_ms and prepared.within_budgets(counts)
    if not (within or clamp.holds(counts)) or not prepared.holds(counts, 1.0):
        return None
    say("the uncut network meets this already: it is exported and timed, and nothing is searched")
    found = prepared.delivery.uncut(clamp.target_ms)
    if found is None or any(row.actual > row.limit for row in budget_rows(clamp.budgets, found.rows[-1])):
        say("by what was measured of its file it does not, or not for sure: the search begins")
        return None
    prepared.folder.write_json("policy.json", {**prepared.judge.policy(counts), "keep": [1.0] * len(counts)})
    return _report(prepared, 0, 1.0, found, [], [], ())


def finish(
    prepared: Prepared,
    number: int,
    factor: float,
    best: EpisodeRecord,
    limit_ms: float,
    records: list[EpisodeRecord],
    timed: TimedFile,
    tried: Collection[Counts],
) -> SearchReport:
    """Fine-tune and export ours and the uniform width, time both beside the original, and run the baselines.

    Where milliseconds are limited and measured, the uniform width is the one that takes as many as ours. `tried` are
    the policies of all attempts.
    """
    config, costs, delivery = prepared.config, prepared.costs, prepared.delivery
    uniform = prepared.uniform(limit_ms) or uniform_policies(costs)[-1]
    baselines = baseline_rows(prepared.problem(limit_ms), config.baseline_names, len(tried), prepared.console)
    if prepared.compares_by_timing:
        widths = [counts for counts in uniform_policies(costs) if prepared.within_budgets(counts)]
        uniform = delivery.equal_width(number, timed, widths) if widths else uniform
        baselines = delivery.timed_baselines(number, baselines, timed)
    policies = {"original": prepared.uncut.graph.architecture.group_channels, "uniform": uniform, "ours": best.counts}
    prepared.console.say(
        f"fine-tuning, exporting and judging ours and the uniform width by {prepared.judge.for_the_end}"
    )
    delivered = delivery.rows(number, factor, policies, prepared.clamp.target_ms)
    prepared.folder.write_json("policy.json", {**prepared.judge.policy(best.counts), "keep": list(best.actions)})
    return _report(prepared, number + 1, factor, delivered, baselines, records, tried)


def end(prepared: Prepared, report: SearchReport) -> SearchReport:
    """Write the report: the run folder then holds a finished search."""
    folder = prepared.folder
    folder.write_text("report.html", search_html(report, folder.settings, folder.measurements()))
    # Last: a folder with this file holds a finished search.
    folder.write_report(report)
    return report


def _report(
    prepared: Prepared,
    attempts: int,
    factor: float,
    delivered: Delivered,
    baselines: list[BaselineRow],
    records: list[EpisodeRecord],
    tried: Collection[Counts],
) -> SearchReport:
    """What the rows, the original's, the uniform width's and ours, come to."""
    original, by_uniform, ours = delivered.rows
    clamp, bound, device, estimated = prepared.clamp, prepared.bound, prepared.device, prepared.estimated
    budgets = budget_rows(clamp.budgets, ours)
    facts, verdict = prepared.judge.facts, ours.verdict(clamp.target_ms)
    note = None if verdict.is_decided else verdict.text
    if estimated:
        note = f"every latency here is {bench_advice(device.identity.name)}"
    return SearchReport(
        original_ms=prepared.original_ms,
        target_ms=clamp.target_ms if math.isfinite(clamp.target_ms) else None,
        predicted_ms=ours.predicted_ms,
        measured_ms=ours.measured_ms,
        met=verdict.is_met and all(row.actual <= row.limit for row in budgets),
        statistic="the cost model" if estimated else delivered.statistic,
        accuracy_original=original.accuracy,
        accuracy=ours.accuracy,
        accuracy_uniform=by_uniform.accuracy,
        macs=ours.macs,
        episodes=len(records),
        evaluations=len(tried),
        attempts=attempts,
        seconds=round(time.monotonic() - prepared.began, 1),
        data=facts.source,
        unlabelled=facts.unlabelled,
        device=device.text,
        table=str(own_table(prepared.folder)),
        tflite=ours.tflite,
        rows=delivered.rows,
        budgets=budgets,
        baselines=[replace(row, predicted_ms=row.predicted_ms * factor) for row in baselines],
        confidence=prepared.config.confidence,
        bound_ms=None if bound is None else bound.ms(ours.counts) * factor,
        estimated=estimated,
        zipped_bytes=prepared.pruning.packed([row.tflite for row in delivered.rows]),
        note=note,
        phone=device.identity.name if estimated else None,
        test_images=facts.test_images,
        held_back_images=facts.held_back_images,
        comparisons=delivered.comparisons if records else [],
        pixels=facts.pixels,
        measure=facts.measure,
    )
