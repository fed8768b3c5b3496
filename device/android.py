"""An Android phone, or any board that speaks ADB: models are timed there by a program of its own, in blocks."""

from __future__ import annotations

import hashlib
import shlex
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import android_bench
from android_bench.amc_bench import NOT_REACHED
from android_bench.op_profile import OpProfile, parse_op_profile
from android_bench.runner import Job, ParseError, Runner, RunnerError, Sample
from android_bench.script import Block, BlockResult, command_output, parse_block
from device.base import Device, DeviceError, DeviceIdentity, Protocol, Summary, Timing, Workload
from device.conditions import Conditions
from device.install import install
from device.patient import PatientTransport
from device.phone import Phone, PhoneOptions, cores_of
from device.profiles import DeviceProfile
from device.session import Patience, PhoneRun
from device.transport import PushError, Transport
from device.trust import frequencies_khz, hottest_c, sample_doubts, sentinel_doubts, state_doubts

_BATCH_BYTES = 1 << 30
"""Models that lie on the phone at once."""
_FRESH_S = 24 * 3600.0
"""What a killed session's script has timed since then is still taken up."""


class AndroidDevice(Device):
    """Times on `phone` with `runner`, whose files lie in `program_folder` there."""

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
        self.fastest_sentinel_us: float | None = None
        self.stays_hot = False

    @classmethod
    def open(
        cls, transport: Transport, profile: DeviceProfile, options: PhoneOptions, patience: Patience = Patience()
    ) -> Self:
        """The phone behind `transport`, with a program that was found to work there. Raises `DeviceError`."""
        phone = Phone(PatientTransport(transport, patience.reconnect_s), profile)
        wanted = options.runner if options.runner != "auto" else profile.runner
        runner, folder = install(phone, work_folder(phone), wanted, options.runner_path, options.library)
        return cls(phone, runner, folder, patience)

    def close(self) -> None:
        """Leave nothing on the phone, and restore its settings."""
        try:
            with suppress(DeviceError):
                self.phone.transport.run(f"rm -rf {shlex.quote(self.folder)}")
        finally:
            self.phone.close()

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """The workloads in blocks between sentinels; a block that cannot be trusted is repeated after a cool-down.

        A block is what is judged and repeated, not the whole round: a minute's work, not an hour's. So timings may come
        in another order than the workloads.
        """
        if protocol.clock != "wall":
            raise DeviceError("a phone is timed by the wall clock: pass another --lut, or profile again")
        job = self.job(protocol)
        self.phone.prepare()
        run = self._run(protocol, round_index)
        run.begin()
        try:
            yield from _Round(self, run, job, workloads, round_index).timings()
        finally:
            run.remove()
            self.phone.settle()

    def op_profile(self, model: bytes, protocol: Protocol) -> OpProfile:
        """What each operator takes, from a run of its own: profiling slows small layers threefold."""
        job = replace(self.job(protocol), op_profile=True)
        self.phone.prepare()
        run = self._run(protocol, 0, "ops")
        run.begin()
        name = _file_name(model)
        try:
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

    def job(self, protocol: Protocol) -> Job:
        """`protocol` in the words of a program on the phone. Raises `DeviceError` for more threads than cores."""
        cores_of(self.phone.profile, self.phone.topology, protocol.threads)
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

    def _run(self, protocol: Protocol, round_index: int, what: str = "") -> PhoneRun:
        """A run folder that a later session finds again if this one is killed, by what is timed in it."""
        of = repr((self.identity, protocol, round_index, what, self.runner.binary_sha256))
        scope = hashlib.sha256(of.encode()).hexdigest()[:16]
        return PhoneRun(self.phone.transport, self.folder, scope, self.program_folder, self.patience)


def work_folder(phone: Phone) -> str:
    """Where everything of ours lies on the phone."""
    return f"{phone.folder}/amc-latency"


@dataclass
class _File:
    """A model to time: the workloads that it stands for, and how often that was tried."""

    name: str
    size: int
    workloads: list[Workload]
    tries: int = 0
    alone: bool = False
    """in a block of its own: it may have killed the program that others were in"""


class _Round:
    """One round of some workloads: what is still to be timed, and the judging of what was."""

    def __init__(
        self, device: AndroidDevice, run: PhoneRun, job: Job, workloads: Sequence[Workload], round_index: int
    ) -> None:
        self.device = device
        self.phone = device.phone
        self.trust = device.phone.profile.trust
        self.run = run
        self.job = job
        self.round_index = round_index
        self.workloads = workloads
        self.sentinel = Path(android_bench.__file__).with_name("sentinel.tflite").read_bytes()
        self.sentinel_name = _file_name(self.sentinel)
        self.files: dict[str, _File] = {}
        self.todo: deque[_File] = deque()
        self.batch_bytes = device.batch_bytes
        self.lying: dict[str, int] = {}
        """files on the phone, and their sizes"""

    def timings(self) -> Iterator[Timing]:
        """Every workload's timing, as it is found to be believable or beyond hope."""
        yield from self._build()
        yield from self._left_over()
        while self.todo:
            batch = self._staged()
            blocks = [self.run.block(self._between_sentinels(part)) for part in self._parts(batch)]
            results = self.run.results(blocks, self.device.runner, self.job, self.phone.state_command)
            waiting = {file.name: file for file in batch}
            again: list[_File] = []
            try:
                for block, text in results:
                    for name in block.models:
                        waiting.pop(name, None)
                    verdict = self._judge(block, text)
                    yield from verdict.timings
                    again += verdict.again
                    if verdict.doubtful and verdict.again:
                        break
            except PushError:
                # No room for the script.
                self._make_room(batch)
            finally:
                results.close()
            self.todo.extendleft(reversed([*again, *waiting.values()]))
            if again and not self.device.stays_hot:
                self.device.stays_hot = not self.phone.wait_until_cool(self.device.say)

    def _build(self) -> Iterator[Timing]:
        """Name each workload's file; one that cannot be built is an error at once."""
        for workload in self.workloads:
            try:
                content = workload.build()
            except Exception as error:
                text = " ".join(f"not built: {type(error).__name__}: {error}".split())[:300]
                yield Timing(workload.name, self.round_index, error=text)
                continue
            name = _file_name(content)
            if name not in self.files:
                self.files[name] = _File(name, len(content), [])
                self.todo.append(self.files[name])
            self.files[name].workloads.append(workload)

    def _left_over(self) -> Iterator[Timing]:
        """What an earlier session, killed since, had the phone time: those of its blocks that can be trusted."""
        now_s = self.phone.read_state().time_s
        for text in self.run.leftovers():
            try:
                result = parse_block(text, self.device.runner, self.run.paths)
            except ParseError:
                continue
            age_s = None if now_s is None or result.after.time_s is None else now_s - result.after.time_s
            if age_s is None or not 0 <= age_s < _FRESH_S:
                continue
            verdict = self._judge(Block("0", result.models), text)
            done = {timing.workload for timing in verdict.timings if timing.error is None}
            yield from (timing for timing in verdict.timings if timing.error is None)
            self.todo = deque(
                file for file in self.todo if not any(workload.name in done for workload in file.workloads)
            )
        for file in self.todo:
            file.tries, file.alone = 0, False

    def _staged(self) -> list[_File]:
        """The next files, as many as may lie on the phone at once, and put there."""
        while True:
            batch: list[_File] = []
            size = 0
            while self.todo and (not batch or size + self.todo[0].size <= self.batch_bytes):
                batch.append(self.todo.popleft())
                size += batch[-1].size
            self.lying |= {file.name: file.size for file in batch}
            if sum(self.lying.values()) > self.batch_bytes:
                self.run.forget_models()
                self.lying = {file.name: file.size for file in batch}
            builds: dict[str, Callable[[], bytes]] = {file.name: file.workloads[0].build for file in batch}
            try:
                self.run.stage({self.sentinel_name: lambda: self.sentinel, **builds})
            except PushError:
                self._make_room(batch)
                self.todo.extendleft(reversed(batch))
                continue
            return batch

    def _make_room(self, batch: Sequence[_File]) -> None:
        """After a push that failed: clear the models away and take fewer at once. Raises it where that is no help."""
        self.run.forget_models()
        self.lying = {}
        size = sum(file.size for file in batch)
        if len(batch) == 1 and self.batch_bytes <= size:
            raise  # noqa: PLE0704
        self.batch_bytes = min(self.batch_bytes, size) // 2

    def _parts(self, batch: Sequence[_File]) -> Iterator[list[_File]]:
        part: list[_File] = []
        for file in batch:
            if file.alone:
                yield [file]
                continue
            part.append(file)
            if len(part) == self.trust.sentinel_every:
                yield part
                part = []
        if part:
            yield part

    def _between_sentinels(self, part: Sequence[_File]) -> list[str]:
        return [self.sentinel_name, *(file.name for file in part), self.sentinel_name]

    def _judge(self, block: Block, text: str) -> _Verdict:
        names = [name for name in block.models[1:-1] if name in self.files]
        try:
            result = parse_block(text, self.device.runner, self.run.paths)
            if result.models != block.models:
                raise ParseError(f"a block of other models, '{' '.join(result.models)[:80]}'")
        except ParseError as error:
            return self._unreadable([self.files[name] for name in names], str(error))
        samples = dict(zip(block.models[1:-1], result.samples[1:-1], strict=True))
        sentinel_us = (result.samples[0].median_us, result.samples[-1].median_us)
        doubts = [*state_doubts(self.trust, result.before), *state_doubts(self.trust, result.after)]
        doubts += sentinel_doubts(self.trust, sentinel_us, self.device.fastest_sentinel_us)
        doubts = list(dict.fromkeys(doubts))
        known_us = [us for us in (*sentinel_us, self.device.fastest_sentinel_us) if us]
        self.device.fastest_sentinel_us = min(known_us, default=None)
        self.device.stays_hot = self.device.stays_hot and bool(doubts)
        verdict = _Verdict([], [], doubtful=bool(doubts))
        died = any(result.codes)
        for name in names:
            file, sample = self.files[name], samples[name]
            if sample.error is not None:
                if died and len(names) > 1:
                    # The one that it died of may be to blame, the others never had their turn.
                    file.alone = not sample.error.startswith(NOT_REACHED)
                    verdict.again.append(file)
                else:
                    verdict.timings += self._errors(file, sample.error)
                continue
            file.tries += 1
            why = doubts + sample_doubts(self.trust, sample, self.phone.highest_khz)
            if why and file.tries < self.trust.tries and not (doubts and self.device.stays_hot):
                verdict.again.append(file)
            else:
                verdict.timings += self._timed(file, sample, result, sentinel_us, why)
        return verdict

    def _unreadable(self, files: Sequence[_File], why: str) -> _Verdict:
        verdict = _Verdict([], [], doubtful=False)
        for file in files:
            file.tries += 1
            if file.tries < self.trust.tries:
                verdict.again.append(file)
            else:
                verdict.timings += self._errors(file, f"the phone's program cannot be understood: {why}")
        return verdict

    def _errors(self, file: _File, why: str) -> list[Timing]:
        text = " ".join(why.split())[:300]
        return [Timing(workload.name, self.round_index, error=text) for workload in file.workloads]

    def _timed(
        self,
        file: _File,
        sample: Sample,
        result: BlockResult,
        sentinel_us: tuple[float | None, float | None],
        suspect: Sequence[str],
    ) -> list[Timing]:
        cool_down = self.phone.profile.cool_down
        conditions = Conditions(
            serial=self.phone.transport.serial,
            build=self.phone.info.fingerprint,
            binary_sha256=self.device.runner.binary_sha256,
            flags=self.device.runner.flags(self.job),
            cores=self.phone.cores,
            khz_before=frequencies_khz(sample.before),
            khz_after=frequencies_khz(sample.after),
            temperature_c=(hottest_c(result.before, cool_down), hottest_c(result.after, cool_down)),
            battery_pct=result.after.battery_pct,
            battery_c=result.after.battery_c,
            thermal_status=result.after.thermal_status,
            sentinel_us=sentinel_us,
            delegated=sample.delegated,
            tries=file.tries,
            suspect=tuple(suspect),
            time_s=result.after.time_s,
        )
        wall = Summary(sample.min_us, sample.median_us, sample.mean_us, sample.std_us)
        text = conditions.text
        return [
            Timing(workload.name, self.round_index, sample.n, wall=wall, conditions=text) for workload in file.workloads
        ]


@dataclass
class _Verdict:
    """What a block came to."""

    timings: list[Timing]
    """final ones"""
    again: list[_File]
    """to be timed once more"""
    doubtful: bool
    """whether the phone itself was in no state to be timed"""


def _file_name(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}.tflite"
