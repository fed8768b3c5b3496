"""An Android phone, or any board that speaks ADB: models are timed there by a program of its own, in blocks."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Self

from amc_latency.android_bench.printed.op_profile import OpProfile, parse_op_profile
from amc_latency.android_bench.runner import Job, ParseError, Runner, RunnerError
from amc_latency.android_bench.script import command_output, stop_command
from amc_latency.device.adb.transport import Transport
from amc_latency.device.base import Device, DeviceError, DeviceIdentity, Protocol, Timing, Workload
from amc_latency.device.kinds import DeviceProfile, PhoneOptions
from amc_latency.device.phone.blocks import BlockRound, Station, file_name
from amc_latency.device.phone.install import install
from amc_latency.device.phone.lock import PhoneLock
from amc_latency.device.phone.patient import PatientTransport
from amc_latency.device.phone.phone import Phone, cores_of
from amc_latency.device.phone.session import Patience, PhoneRun
from amc_latency.device.phone.trust import Reference

_BATCH_BYTES = 1 << 30
"""Models that lie on the phone at once."""
_IN_VAIN_S = 3600.0
"""How long a phone that would not cool is not waited for again."""


class AndroidDevice(Device):
    """Times on `phone` with `runner`, whose files lie in `program_folder` there."""

    profiles_operators = True

    def __init__(
        self, phone: Phone, runner: Runner, program_folder: str, patience: Patience = Patience(), batch_bytes: int = 0
    ) -> None:
        self.phone = phone
        self.runner = runner
        self.program_folder = program_folder
        self.patience = patience
        self.folder = work_folder(phone)
        self.batch_bytes = batch_bytes or _BATCH_BYTES
        cores = ",".join(map(str, phone.cores)) or "any"
        self.identity = DeviceIdentity(phone.profile.name, f"{phone.title}, cores {cores}", runner.title)
        self.protocol = phone.profile.protocol
        self._references: dict[Job, Reference] = {}
        self._scopes: set[str] = set()
        self._wait_again_s = 0.0
        self._lock: PhoneLock | None = None
        self._patient: PatientTransport | None = None

    @classmethod
    def open(
        cls, transport: Transport, profile: DeviceProfile, options: PhoneOptions, patience: Patience = Patience()
    ) -> Self:
        """The phone behind `transport`, with a program that was found to work there. Raises `DeviceError`."""
        lock = PhoneLock(transport.serial)
        patient = PatientTransport(transport, patience.reconnect_s)
        try:
            phone = Phone(patient, profile, options.force)
            root = work_folder(phone)
            lock.claim(patient, root)
            # Sessions that were killed left their scripts running, and everything else lying.
            patient.run(
                f"( {stop_command(f'{shlex.quote(root)}/run-*')} ); "
                f"find {shlex.quote(root)}/ -maxdepth 1 -name 'run-*' -mtime +0 -exec rm -rf {{}} + 2>/dev/null; true"
            )
            wanted = options.runner if options.runner != "auto" else profile.runner
            try:
                runner, folder = install(phone, root, wanted, options.runner_path, options.library)
            except BaseException:
                with suppress(DeviceError):
                    patient.run(_clean_command(root, ()))
                raise
        except BaseException:
            lock.release()
            raise
        device = cls(phone, runner, folder, patience)
        device._lock, device._patient = lock, patient
        patient.say = lambda text: device.say(text)
        return device

    def close(self) -> None:
        """Leave nothing of this session on the phone, and restore its settings."""
        try:
            with suppress(DeviceError):
                self.phone.transport.run(_clean_command(self.folder, self._scopes))
            self.phone.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    def interrupt(self) -> None:
        """A block that is being timed is given up."""
        if self._patient is not None:
            self._patient.interrupt()

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """The workloads in blocks between sentinels; a block that cannot be trusted is repeated after a cool-down.

        A block is what is judged and repeated, not the whole round: a minute's work, not an hour's. So timings may come
        in another order than the workloads. A phone that turns out to have been slow until then gives second timings.
        """
        if protocol.clock != "wall":
            raise DeviceError("a phone is timed by the wall clock: pass another `table`, or profile again")
        job = self.job(protocol)
        run = self._run(protocol, str(round_index))
        self.phone.prepare()
        try:
            with self._patient.interruptible() if self._patient else nullcontext():
                run.begin()
                self.wait_until_cool()
                station = Station(
                    self.phone, self.runner, self.reference(job), self.batch_bytes, self.wait_until_cool, self.say
                )
                yield from BlockRound(station, run, job, workloads, round_index).timings()
        finally:
            run.remove()
            self.phone.settle()

    def op_profile(self, model: bytes, protocol: Protocol) -> OpProfile:
        """What each operator takes, from a run of its own: profiling slows small layers threefold."""
        job = replace(self.job(protocol), op_profile=True)
        run = self._run(protocol, "ops")
        name = file_name(model)
        self.phone.prepare()
        try:
            run.begin()
            run.stage({name: lambda: model})
            results = run.results([run.block([name])], self.runner, job, self.phone.state_command)
            output, code = command_output(next(results)[1])
            path = f"{run.paths.models}/{name}"
            return parse_op_profile(self.runner.op_profile(output, path, code))
        except (ParseError, RunnerError) as error:
            raise DeviceError(f"no op profile on {self.phone.transport.serial}: {error}") from error
        finally:
            run.remove()
            self.phone.settle()

    def check_op_profile(self, protocol: Protocol) -> None:
        """Raises `DeviceError` if the program there cannot tell operators apart."""
        try:
            self.runner.flags(replace(self.job(protocol), op_profile=True))
        except RunnerError as error:
            raise DeviceError(f"no op profile on {self.phone.transport.serial}: {error}") from error

    def job(self, protocol: Protocol) -> Job:
        """`protocol` in the words of a program on the phone. Raises `DeviceError` for more threads than cores."""
        cores_of(self.phone.profile, self.phone.topology, protocol.threads, force=True)
        return Job(
            warmup=protocol.warmup,
            warmup_ms=protocol.warmup_ms,
            runs=protocol.runs,
            min_time_ms=protocol.min_time_ms,
            max_runs=protocol.max_runs,
            timeout_s=protocol.timeout_s,
            threads=protocol.threads,
            cores=self.phone.cores,
            watch=self.phone.frequency_files,
        )

    def reference(self, job: Job) -> Reference:
        """How fast the phone is at such a job, in this session."""
        return self._references.setdefault(job, Reference())

    def wait_until_cool(self) -> None:
        """Wait until the phone may be timed; one that would not cool is not waited for again soon."""
        if time.monotonic() >= self._wait_again_s and not self.phone.wait_until_cool(self.say):
            self._wait_again_s = time.monotonic() + _IN_VAIN_S
        # What a hot phone allowed its cores is not the most that they may.
        self.phone.prepare()

    def _run(self, protocol: Protocol, what: str) -> PhoneRun:
        """A run folder that a later session finds again if this one is killed, by what is timed in it."""
        of = repr((self.identity, protocol, self.runner.binary_sha256))
        scope = hashlib.sha256(of.encode()).hexdigest()[:16]
        self._scopes.add(scope)
        return PhoneRun(self.phone.transport, self.folder, f"{scope}-{what}", self.program_folder, self.patience)


def work_folder(phone: Phone) -> str:
    """Where everything of ours lies on the phone."""
    return f"{phone.folder}/amc-latency"


def _clean_command(folder: str, scopes: Sequence[str] | set[str]) -> str:
    """Removes a session's files; what a killed one of another kind has timed stays, for a day, to be taken up."""
    root = shlex.quote(folder)
    runs = " ".join(f"{root}/run-{scope}-*" for scope in scopes)
    return (
        f"rm -rf {root}/program-* {root}/models {root}/trial.tflite {root}/owner {runs}; rmdir {root} 2>/dev/null; true"
    )
