"""A whole search: prepare, attempt until the device says that the budgets are met, finish."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from amc_latency.accelerator import accelerator_of, launched, say_where
from amc_latency.console import Console
from amc_latency.device.base import Device, source_word
from amc_latency.device.kinds import PhoneOptions
from amc_latency.errors import JobError, UserError
from amc_latency.measuring.estimating import estimate_device
from amc_latency.measuring.opening import open_device
from amc_latency.models.files.weights import weights_digest
from amc_latency.models.load import Network, NetworkOptions, check_logits, load_network
from amc_latency.models.own_module import from_checkpoint
from amc_latency.models.spec import MODULE, names_own_file
from amc_latency.models.untrained import check_trained
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.judge import FINALISTS
from amc_latency.search.judge.judging import judged_by
from amc_latency.search.results.folder import RunFolder
from amc_latency.search.results.result import SearchReport
from amc_latency.search.steps.attempt import introduce, run_attempt
from amc_latency.search.steps.finish import end, finish, finish_uncut
from amc_latency.search.steps.methods import check_agent
from amc_latency.search.steps.prepare import Prepared, prepare
from amc_latency.search.targets.pruning import pruning_of
from amc_latency.task import ImageTask, Task

if TYPE_CHECKING:
    import torch


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
    _check_accelerator(config)
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
    say_where(_check_accelerator(config), console)
    pruning = pruning_of(config)
    pruning.check(config, network)
    judging = judged_by(task, network, config, console, pruning.judge, pruning.task_judge)
    # Other data or other weights on a resume would be another search.
    identity = {**judging.identity, "weights_sha256": weights_digest(network.model)}
    pruned = network if start is None else _started(network, start)
    if start is not None:
        identity["start_sha256"] = weights_digest(pruned.model)
    # Not where it was computed: what another machine has begun may be ended here.
    folder = RunFolder(out, {**asdict(replace(config, accelerator=None)), **identity})
    console.detail(f"run folder {out.resolve()}")
    done = folder.report()
    if done is not None:
        console.say(f"{out} holds a finished search")
        return done
    # A damaged line is said before hours of work, not once it is asked for.
    folder.measurements()
    with opened() as device:
        prepared = prepare(config, folder, network, pruned, pruning, judging.judge, console, device)
        introduce(prepared)
        return end(prepared, finish_uncut(prepared) or _attempts(prepared))


def check_met(report: SearchReport) -> None:
    """Raise `JobError` if a budget was not met, saying by how much."""
    advice = "a smaller budget"
    over = [
        f"{row.actual:,} {row.name}, {100 * (row.actual / row.limit - 1):.1f} % over the budget of {row.limit:,}"
        for row in report.budgets
        if row.actual > row.limit
    ]
    if report.target_ms is not None and not report.latency_verdict.is_under:
        over_pct = 100 * (report.measured_ms / report.target_ms - 1)
        noise = "" if report.latency_verdict.is_decided else ", within the noise,"
        over.append(
            f"{source_word(report.estimated)} {report.measured_ms:.4g} ms, "
            f"{over_pct:.1f} % over{noise} the target of {report.target_ms:.4g} ms"
        )
        wider = "`margin_pct`" if report.confidence is None else "`confidence`"
        advice = f"a larger {wider}"
    if over:
        raise JobError(
            f"not met after {report.attempts} attempts: {'; '.join(over)}. "
            f"The last network is {report.tflite}; search on with another `out` and {advice}"
        )


def _check_accelerator(config: SearchConfig) -> torch.device:
    """Where it is computed, asked before anything is loaded."""
    if launched() is not None:
        raise UserError("a search runs in one process: `accelerate launch` is for training alone")
    return accelerator_of(config.accelerator)


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


def _attempts(prepared: Prepared) -> SearchReport:
    """Search; where the device says that the result is over the target, learn by how much and search on."""
    config, clamp, delivery = prepared.config, prepared.clamp, prepared.delivery
    say, told, target_ms = prepared.console.say, source_word(prepared.estimated), clamp.target_ms
    factor, limit_ms = 1.0, prepared.limit_ms(1.0)
    assert limit_ms is not None, "the clamp and the bound have checked that"
    if config.has_latency_target and not (prepared.is_fresh or prepared.device.is_constant):
        prepared.evidence.add_drift(prepared.original_ms, delivery.original_now(), config.is_relative)
        factor = max(factor, prepared.evidence.factor(prepared.costs.full))
        slower_ms = prepared.limit_ms(factor)
        if slower_ms is None:
            raise UserError(f"{target_ms:.4g} ms is out of reach on a device that is slower by that")
        limit_ms = slower_ms
    tried: set[Counts] = set()
    for number in range(config.corrections + 1):
        attempt = run_attempt(prepared, number, limit_ms, factor)
        tried |= attempt.tried
        say(f"judging the {FINALISTS} best policies by {prepared.judge.for_finalists}")
        holding = [record for record in attempt.records if prepared.holds(record.counts, factor)]
        best = prepared.judge.choose(holding, limit_ms, prepared.reward)
        report = None
        timed = delivery.known_over(number, best, target_ms) or delivery.quick(number, best, target_ms)
        if timed.verdict(target_ms).is_under:
            report = finish(prepared, number, factor, best, limit_ms, attempt.records, timed, tried)
            known = delivery.known_over(number, best, target_ms)
            if known is None:
                return report
            timed = known
        prepared.evidence.add(best.counts, best.predicted_ms, timed, prepared.device_to_ask)
        # Limits only fall from one attempt to the next: see `run_attempt`.
        factor = max(factor, prepared.evidence.factor(best.counts))
        next_ms = prepared.limit_ms(factor)
        say(
            f"attempt {number + 1}: {told} {timed.measured_ms:.4f} ms is over the target of "
            f"{target_ms:.4f} ms; predictions are shifted by {100 * (factor - 1):+.1f} %"
            + ("" if next_ms else ", and so no reachable network is fast enough")
        )
        if next_ms is None:
            break
        limit_ms = next_ms
    return report or finish(prepared, number, factor, best, best.predicted_ms, attempt.records, timed, tried)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
