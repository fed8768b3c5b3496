"""`amc-latency bench`: one file's milliseconds on a device, and what they were measured under."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.opening import REPLAY, open_device
from device.android import AndroidDevice
from device.base import Device, Protocol
from device.conditions import suspicions
from device.cuda import CudaDevice
from device.measure import BadModelError, measure_many, read_model
from device.phone import PhoneOptions
from device.tflite_inputs import OPTION, TfliteInput, sized, tflite_inputs


@dataclass(frozen=True)
class BenchConfig:
    """What to time, and how."""

    file: Path
    device: str = "host"
    rounds: int | None = None
    """as many as a table's whole networks get, unless told"""
    runs: int | None = None
    """counted runs a round, at least; the device's own unless told"""
    threads: int | None = None
    """the device's own unless told"""
    op_profile: bool = False
    """also what each operator takes, from a run of its own"""
    input_shapes: tuple[str, ...] = ()
    """sizes of inputs that the file leaves open, as `device.tflite_inputs.sized` reads them"""
    phone: PhoneOptions = PhoneOptions()


@dataclass(frozen=True)
class OpCost:
    """One operator of an op profile."""

    type: str
    name: str
    ms: float


@dataclass(frozen=True)
class BenchReport:
    """What a file takes."""

    latency_ms: float
    statistic: str
    spread: float | None
    """half the range of the rounds, in percent"""
    runtime: str
    device: str
    n: int
    inputs: list[str]
    """name and shape of each, as they were timed; a GPU puts its profile's batch in place of the first size"""
    suspect: list[str]
    """why rounds cannot be trusted, if some can't"""
    conditions: list[dict[str, Any]]
    """what each round was measured under, where the device says so: see `device.conditions`"""
    ops: list[OpCost] | None
    """in order of execution; slower than without a profile, so read them as shares"""


def bench(config: BenchConfig, console: Console) -> BenchReport:
    """Time the file. Raises `UserError`, `BadModelError` and `DeviceError`."""
    if config.device == REPLAY:
        raise UserError("the replay device has no hardware to time a file on: name another --device")
    try:
        content = sized(read_model(config.file), config.input_shapes)
        inputs = tflite_inputs(content)
    except BadModelError as error:
        raise UserError(str(error) if str(config.file) in str(error) else f"{config.file}: {error}") from error
    with open_device(config.device, None, config.phone, console) as device:
        if config.threads is not None:
            _check_has_threads(device)
        protocol = _protocol(config, device)
        _check_batch(inputs, config, device, protocol)
        if config.op_profile and not isinstance(device, AndroidDevice):
            raise UserError(f"an op profile is to be had on a phone only, not on {device.identity.name}")
        if config.op_profile and isinstance(device, AndroidDevice):
            device.check_op_profile(protocol)
        measured = measure_many(device, {config.file.name: content}, protocol)[config.file.name]
        ops = None
        if config.op_profile and isinstance(device, AndroidDevice):
            profile = device.op_profile(content, protocol)
            ops = [OpCost(op.node_type, op.name, op.avg_ms * op.times_called) for op in profile.ops]
    suspect = [why for text in measured.conditions for why in suspicions(text)]
    return BenchReport(
        latency_ms=measured.latency_ms,
        statistic=measured.statistic,
        spread=measured.spread_pct,
        runtime=device.identity.runtime,
        device=f"{device.identity.name}: {device.identity.model}",
        n=measured.n,
        inputs=[f"{each.names[0]} {'x'.join(map(str, each.shape))}" for each in inputs],
        suspect=list(dict.fromkeys(suspect)),
        conditions=[json.loads(text) for text in measured.conditions],
        ops=ops,
    )


def _check_has_threads(device: Device) -> None:
    from device.cuda import CudaDevice

    if isinstance(device, CudaDevice):
        raise UserError(f"--threads is of a processor's cores, and {device.identity.name} is a GPU: leave it out")


def _protocol(config: BenchConfig, device: Device) -> Protocol:
    own = device.protocol
    runs = own.runs if config.runs is None else config.runs
    threads = own.threads if config.threads is None else config.threads
    return replace(
        own,
        runs=runs,
        max_runs=max(runs, own.max_runs),
        rounds=own.network_rounds if config.rounds is None else config.rounds,
        threads=threads,
        clock="wall" if threads > 1 else own.clock,
    )


def _check_batch(inputs: list[TfliteInput], config: BenchConfig, device: Device, protocol: Protocol) -> None:
    """A GPU's profile says how many images at once: a batch that was asked for is not to be swapped for it."""
    batches = {each.shape[0] for each in inputs if each.shape} - {1, protocol.batch}
    if isinstance(device, CudaDevice) and config.input_shapes and batches:
        raise UserError(
            f"{device.identity.name} times {protocol.batch} at once, as its profile's `batch` says: give {OPTION} with "
            "a first size of 1, or another profile"
        )


def bench_text(report: BenchReport) -> None:
    """For people."""
    spread = "" if report.spread is None else f", ±{report.spread:.1f} %"
    print(
        f"{report.latency_ms:.4f} ms ({report.statistic}{spread}, {report.n} runs) on {report.device}, {report.runtime}"
    )
    print(f"input {', '.join(report.inputs)}")
    if report.suspect:
        print(f"not to be trusted: {'; '.join(report.suspect)}")
    if report.conditions:
        print("measured under:")
        first = report.conditions[0]
        for key in ("serial", "build", "driver", "flags", "cores", "delegated", "clocks_set"):
            if key in first:
                print(f"  {key:16} {first[key]}")
        of_each_round = ("khz_after", "sm_mhz", "memory_mhz", "temperature_c", "battery_pct", "thermal_status")
        for key in (*of_each_round, "sentinel_us", "tries"):
            values = [row.get(key) for row in report.conditions]
            if any(value is not None for value in values):
                print(f"  {key:16} {_rounds_text(values)}")
    if report.ops is not None:
        total_ms = sum(op.ms for op in report.ops)
        print(f"operators, {total_ms:.3f} ms in a run of their own:")
        for op in report.ops:
            print(f"  {100 * op.ms / total_ms if total_ms else 0:5.1f} %  {op.ms:9.3f} ms  {op.type}  {op.name}")


def _rounds_text(values: list[Any]) -> str:
    """A value that all rounds share once, or each round's."""
    return str(values[0]) if all(value == values[0] for value in values) else " | ".join(map(str, values))
