"""`amc-latency bench`: a file's milliseconds on a device, alone or beside others, and what they were measured under."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amc_latency.android_bench.safe.records import from_json
from amc_latency.console import Console
from amc_latency.device.base import Device, Protocol
from amc_latency.device.conditions import suspicions
from amc_latency.device.rounds.measure import BadModelError, read_model
from amc_latency.device.rounds.paired import PairedTimings
from amc_latency.device.tflite.tflite_inputs import OPTION, TfliteInput, sized, tflite_inputs
from amc_latency.errors import JobError, OptionError, UserError
from amc_latency.measuring.bench_figures import (
    Compared,
    SpeedupVerdict,
    StateFigures,
    compared,
    speedup_verdict,
    state_figures,
)
from amc_latency.measuring.config import BenchConfig as BenchConfig
from amc_latency.measuring.opening import REPLAY, open_device

_ROUND_MS = 200.0
"""A round of each file goes on for this long, unless its number of runs is set: a p99 needs many, and the speed of the
machine is looked at every 2 ms."""
_MORE_ROUNDS = 4
"""How many times the rounds may be taken until it is decided whether a speed-up is reached."""


@dataclass(frozen=True)
class OpCost:
    """One operator of an op profile."""

    type: str
    name: str
    ms: float


@dataclass(frozen=True)
class Against:
    """Another file, timed in the same rounds."""

    file: str
    inputs: list[str]
    states: dict[str, StateFigures]
    compared: dict[str, Compared]
    """the file that is timed beside this one, by state"""


@dataclass(frozen=True)
class BenchReport:
    """What a file takes; the figures up to `spread` are those of `states[state]`."""

    file: str
    latency_ms: float
    interval_ms: tuple[float, float] | None
    statistic: str
    spread: float | None
    """half the range of the rounds, in percent"""
    state: str
    """the cache state that counts: the device's own, or the one that was asked for"""
    states: dict[str, StateFigures]
    """that one first"""
    runtime: str
    device: str
    n: int
    inputs: list[str]
    """name and shape of each, as they were timed; a GPU puts its profile's batch in place of the first size"""
    suspect: list[str]
    """why rounds cannot be trusted, of any file and state, if some can't"""
    conditions: list[dict[str, Any]]
    """what each round in `state` was measured under, where the device says so: see `amc_latency.device.conditions`"""
    ops: list[OpCost] | None
    """in order of execution; slower than without a profile, so read them as shares"""
    against: list[Against]
    speedup: SpeedupVerdict | None


def bench(config: BenchConfig, console: Console) -> BenchReport:
    """Time the file, and those beside it. Raises `UserError`, `BadModelError` and `DeviceError`."""
    _check(config)
    models = _models(config)
    inputs = {name: tflite_inputs(model) for name, model in models.items()}
    name, *others = models
    with open_device(config.device, None, config.phone, console) as device:
        if config.threads is not None:
            _check_has_threads(device)
        protocols = _protocols(config, device)
        for each in inputs.values():
            _check_batch(each, config, device, protocols[0])
        if config.op_profile and not device.profiles_operators:
            raise UserError(f"an op profile is to be had on a phone only, not on {device.identity.name}")
        if config.op_profile:
            device.check_op_profile(protocols[0])
        _say_what_differs(models, inputs, console)
        timed = _timed(config, device, models, protocols, console)
        ops = None
        if config.op_profile:
            profile = device.op_profile(models[name], protocols[0])
            ops = [OpCost(op.node_type, op.name, op.avg_ms * op.times_called) for op in profile.ops]
    figures = {each: {state: state_figures(paired, each) for state, paired in timed.items()} for each in models}
    counts, own = timed[protocols[0].state], figures[name][protocols[0].state]
    return BenchReport(
        file=name,
        latency_ms=own.latency_ms,
        interval_ms=own.interval_ms,
        statistic=own.statistic,
        spread=own.spread,
        state=counts.protocol.state,
        states=figures[name],
        runtime=device.identity.runtime,
        device=f"{device.identity.name}: {device.identity.model}",
        n=own.n,
        inputs=_titles(inputs[name]),
        suspect=_suspect(timed, models),
        conditions=[from_json(text, dict[str, Any]) for text in counts.measurement(name).conditions],
        ops=ops,
        against=[
            Against(
                other,
                _titles(inputs[other]),
                figures[other],
                {state: compared(paired, name, other) for state, paired in timed.items()},
            )
            for other in others
        ],
        speedup=None if config.speedup is None else speedup_verdict(counts, name, others[0], config.speedup),
    )


def check_speedup(report: BenchReport) -> None:
    """Raise `JobError` if the speed-up that was asked for is not met; within the noise it is not shown to be missed."""
    wanted = report.speedup
    if wanted is not None and wanted.verdict == "not met":
        raise JobError(
            f"{report.file} is {wanted.compared.speedup.value:.4g} times as fast as {wanted.against}, "
            f"not {wanted.asked:g} times"
        )


def _check(config: BenchConfig) -> None:
    """Raise `UserError` for options that contradict each other."""
    if config.device == REPLAY:
        raise UserError("the replay device has no hardware to time a file on: name another `device`")
    if config.speedup is not None and not config.against:
        raise OptionError("speedup", "is over another file: name it with `against`")
    if config.speedup is not None and not (math.isfinite(config.speedup) and config.speedup > 0):
        raise OptionError("speedup", f"is a positive number such as 1.5, not {config.speedup:g}")
    if config.op_profile and config.against:
        raise OptionError("op_profile", "is of one file: leave out `against`, or profile each on its own")


def _models(config: BenchConfig) -> dict[str, bytes]:
    """Every file's content by what it is called: its name, or its path where two have one name."""
    paths = (config.file, *config.against)
    contents = [_content(path, config) for path in paths]
    for index, path in enumerate(paths):
        for earlier in paths[:index]:
            if path.samefile(earlier):
                raise UserError(f"{path} is named twice: `against` takes another file")
    names = [path.name for path in paths]
    called = [path.name if names.count(path.name) == 1 else str(path) for path in paths]
    return dict(zip(called, contents, strict=True))


def _content(path: Path, config: BenchConfig) -> bytes:
    """The file at the sizes that it is to be timed at."""
    try:
        content = read_model(path)
        is_open = any(any(each.open) for each in tflite_inputs(content))
        # Another file that has its sizes is timed at those.
        return sized(content, config.input_shapes if is_open or path == config.file else ())
    except BadModelError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _say_what_differs(models: Mapping[str, bytes], inputs: Mapping[str, list[TfliteInput]], console: Console) -> None:
    """What the user should know of files that are compared."""
    name, *others = models
    for other in others:
        ours, theirs = ([each.shape for each in inputs[file]] for file in (name, other))
        if ours != theirs:
            console.warn(
                f"{name} and {other} have different inputs, {', '.join(_titles(inputs[name]))} and "
                f"{', '.join(_titles(inputs[other]))}: each is timed with its own"
            )
        if models[name] == models[other]:
            console.warn(f"{name} and {other} are the same byte for byte: their ratio shows the noise alone")


def _timed(
    config: BenchConfig,
    device: Device,
    models: Mapping[str, bytes],
    protocols: list[Protocol],
    console: Console,
) -> dict[str, PairedTimings]:
    """All files' timings by state: a round of each state in turn, so that all meet whatever else goes on."""
    timed: dict[str, PairedTimings] = {
        protocol.state: PairedTimings(device, models, protocol) for protocol in protocols
    }
    rounds = protocols[0].rounds
    for _ in range(rounds):
        for paired in timed.values():
            paired.add()
    for paired in timed.values():
        # More where a neighbour was there in nearly all.
        paired.add_until(lambda so_far: True, rounds, 2 * rounds)
    if (speedup := config.speedup) is not None:
        counts = timed[protocols[0].state]
        name, other, *_ = models

        def decided(so_far: PairedTimings) -> bool:
            return so_far.ratio(name, to=other).verdict(1 / speedup) != "within the noise"

        if not decided(counts):
            console.say(f"a speed-up of {speedup:g} is not decided yet: up to {_MORE_ROUNDS * rounds} rounds are timed")
            counts.add_until(decided, rounds, _MORE_ROUNDS * rounds)
    return timed


def _suspect(timed: Mapping[str, PairedTimings], names: Mapping[str, bytes]) -> list[str]:
    found = []
    for name in names:
        of = f"{name}: " if len(names) > 1 else ""
        conditions = [text for paired in timed.values() for text in paired.measurement(name).conditions]
        found += [f"{of}{why}" for text in conditions for why in suspicions(text)]
    return list(dict.fromkeys(found))


def _titles(inputs: list[TfliteInput]) -> list[str]:
    return [f"{each.name} {'x'.join(map(str, each.shape))}" for each in inputs]


def _check_has_threads(device: Device) -> None:
    if not device.has_threads:
        raise OptionError("threads", f"is of a processor's cores, and {device.identity.name} is a GPU: leave it out")


def _protocols(config: BenchConfig, device: Device) -> list[Protocol]:
    """The device's own in each of its states, the one that counts first. Raises `UserError` for a state it lacks."""
    own = device.protocol
    if config.state is not None and config.state not in device.states:
        raise UserError(
            f"{device.identity.name} is timed in state {' or '.join(device.states)} only: leave out `state`"
        )
    runs = own.runs if config.runs is None else config.runs
    threads = own.threads if config.threads is None else config.threads
    # Of more runs the smallest would be smaller, and no longer what a table has.
    longer = config.runs is None and own.statistic != "min"
    protocol = replace(
        own,
        runs=runs,
        min_time_ms=max(own.min_time_ms, _ROUND_MS) if longer else own.min_time_ms,
        max_runs=max(runs, own.max_runs),
        rounds=own.network_rounds if config.rounds is None else config.rounds,
        threads=threads,
        clock="wall" if threads > 1 else own.clock,
    )
    if config.state is not None:
        return [replace(protocol, state=config.state)]
    return [protocol, *(replace(protocol, state=state) for state in device.states if state != own.state)]


def _check_batch(inputs: list[TfliteInput], config: BenchConfig, device: Device, protocol: Protocol) -> None:
    """A GPU's profile says how many images at once: a batch that was asked for is not to be swapped for it."""
    batches = {each.shape[0] for each in inputs if each.shape} - {1, protocol.batch}
    if device.times_batches and config.input_shapes and batches:
        raise UserError(
            f"{device.identity.name} times {protocol.batch} at once, as its profile's `batch` says: give {OPTION} with "
            "a first size of 1, or another profile"
        )
