"""A program that times models, put on the phone and tried there before anything depends on it."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

from amc_latency.android_bench.amc_bench import AmcBench
from amc_latency.android_bench.benchmark_model import BenchmarkModel
from amc_latency.android_bench.obtaining.find import candidates
from amc_latency.android_bench.runner import Candidate, Job, ParseError, Runner, RunnerError
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.device.base import DeviceError
from amc_latency.device.phone.patient import PhoneGoneError
from amc_latency.device.phone.phone import Phone

from amc_latency import android_bench

_TRIAL = Job(warmup=1, warmup_ms=0.0, runs=2, min_time_ms=0.0, max_runs=2, timeout_s=60.0)
_TRIAL_S = 90.0


def install(phone: Phone, folder: str, wanted: str, path: Path | None, library: Path | None) -> tuple[Runner, str]:
    """The first program that times a layer on the phone, and the folder there to run it in.

    Raises `DeviceError` saying of each why it does not.
    """
    info = phone.info
    reasons = []
    for candidate in candidates(wanted, path, info.abi or "unknown", info.bionic, info.benchmark_models, library):
        try:
            if isinstance(candidate, RunnerError):
                raise candidate
            return _tried(phone, folder, candidate)
        except PhoneGoneError:
            raise
        except (RunnerError, ParseError, DeviceError) as error:
            reasons.append(str(error))
    raise DeviceError(f"no program to time with on {phone.transport.serial} ({info.title}): {'; '.join(reasons)}")


def _tried(phone: Phone, folder: str, candidate: Candidate) -> tuple[Runner, str]:
    transport = phone.transport
    if candidate.files:
        digest = hashlib.sha256(candidate.files[candidate.program]).hexdigest()
        folder = f"{folder}/program-{digest[:16]}"
    transport.run(f"mkdir -p {shlex.quote(folder)}")
    transport.push({f"{folder}/{name}": content for name, content in candidate.files.items()}, 0o755)
    runner = _runner(phone, folder, candidate)
    _try(phone, folder, runner, candidate)
    return runner, folder


def _runner(phone: Phone, folder: str, candidate: Candidate) -> Runner:
    if candidate.name == AmcBench.name:
        return AmcBench(candidate.files)
    program = f"./{candidate.program}" if candidate.files else candidate.program
    # The classic program exits with 1 when it is asked for its flags.
    said = phone.transport.run(f"cd {shlex.quote(folder)} && {shlex.quote(program)} --help 2>&1", _TRIAL_S)
    if said.code in (126, 127):
        raise RunnerError(f"{candidate.source} does not run there: {shown_line(' '.join(said.output.split()))}")
    digest = phone.transport.run(f"cd {shlex.quote(folder)} && sha256sum {shlex.quote(program)}").output.split(" ")[0]
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise RunnerError(f"{candidate.source}: the phone gives no checksum of it, but '{shown_line(digest, 80)}'")
    try:
        return BenchmarkModel.from_help(said.output, program, digest)
    except RunnerError as error:
        raise RunnerError(f"{candidate.source}: {error}") from None


def _try(phone: Phone, folder: str, runner: Runner, candidate: Candidate) -> None:
    """Time a layer. Raises `RunnerError` and `ParseError`."""
    sentinel = f"{folder}/trial.tflite"
    phone.transport.push({sentinel: android_bench.SENTINEL.read_bytes()})
    result = phone.transport.run(f"cd {shlex.quote(folder)} && {runner.command([sentinel], _TRIAL)}", _TRIAL_S)
    (sample,) = runner.parse(result.output, [sentinel], result.code)
    if sample.error is not None:
        raise RunnerError(f"{candidate.source}: {sample.error}")
    statistic = phone.profile.protocol.statistic
    if getattr(sample, f"{statistic}_us") is None:
        raise RunnerError(f"{candidate.source} is too old: it prints no {statistic}. Use a newer one")
