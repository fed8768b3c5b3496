"""One round on a phone: which models go into which block, and what is believed of what comes back."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

from amc_latency.android_bench.amc_bench import NOT_REACHED
from amc_latency.android_bench.runner import Job, ParseError, Runner, Sample
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.android_bench.script import Block, BlockResult, parse_block
from amc_latency.device.adb.transport import PushError
from amc_latency.device.base import DeviceError, Summary, Timing, Workload
from amc_latency.device.conditions import Conditions
from amc_latency.device.phone.phone import Phone
from amc_latency.device.phone.session import PhoneRun
from amc_latency.device.phone.trust import (
    Reference,
    frequencies_khz,
    hottest_c,
    sample_doubts,
    sentinel_doubts,
    state_doubts,
)

from amc_latency import android_bench

_FRESH_S = 24 * 3600
"""What a killed session's script has timed since then is still taken up."""
_MOST_IN_VAIN = 100
"""Blocks whose program died before it came to a model, which may be one for each other model in the block."""
_FIRST_LOOKS = 5
"""Timings of the sentinel before the first block, to know the phone's speed by."""


def file_name(content: bytes) -> str:
    """What a model is called on the phone."""
    return f"{hashlib.sha256(content).hexdigest()}.tflite"


@dataclass
class _File:
    """A model to time: the workloads that it stands for, and how often that was tried."""

    name: str
    size: int
    workloads: list[Workload]
    tries: int = 0
    in_vain: int = 0
    """blocks that it was in and never had its turn"""
    alone: bool = False
    """in a block of its own: it may have killed the program that others were in"""


@dataclass
class _Verdict:
    """What a block came to."""

    timings: list[Timing] = field(default_factory=list)
    """final ones"""
    again: list[_File] = field(default_factory=list)
    """to be timed once more"""
    doubtful: bool = False
    """whether the phone was in no state to be timed, which the next block would meet too"""


@dataclass(frozen=True)
class Station:
    """What rounds are timed with."""

    phone: Phone
    runner: Runner
    reference: Reference
    """how fast the phone is at the job, in this session"""
    batch_bytes: int
    """models that may lie on the phone at once"""
    wait_until_cool: Callable[[], None]
    say: Callable[[str], object]


class BlockRound:
    """One round of some workloads on a device: what is still to be timed, and the judging of what was."""

    def __init__(
        self, station: Station, run: PhoneRun, job: Job, workloads: Sequence[Workload], round_index: int
    ) -> None:
        self._station = station
        self._phone = station.phone
        self._trust = station.phone.profile.trust
        self._reference = station.reference
        self._run = run
        self._job = job
        self._round_index = round_index
        self._workloads = workloads
        self._sentinel = android_bench.SENTINEL.read_bytes()
        self._sentinel_name = file_name(self._sentinel)
        self._files: dict[str, _File] = {}
        self._todo: deque[_File] = deque()
        self._timed: list[_File] = []
        """in this round, since the phone's speed is known"""
        self._repeated = False
        self._broken = 0
        """blocks in a row whose program failed at its first model"""
        self._batch_bytes = station.batch_bytes
        self._lying: dict[str, int] = {}
        """files on the phone, and their sizes"""

    def timings(self) -> Iterator[Timing]:
        """Every workload's timing, as it is found to be believable or beyond hope."""
        yield from self._build()
        if self._todo and self._reference.us is None:
            self._look()
        yield from self._left_over()
        while self._todo:
            batch = self._staged()
            waiting = {file.name: file for file in batch}
            again: list[_File] = []
            blocks = [self._run.block(self._between_sentinels(part)) for part in self._parts(batch)]
            results = self._results(blocks)
            try:
                for block, text in results:
                    for name in block.models[1:-1]:
                        waiting.pop(name, None)
                    verdict = self._judge(block, text)
                    self._run.forget(block)
                    yield from verdict.timings
                    again += verdict.again
                    if verdict.doubtful and verdict.again:
                        break
            except PushError as error:
                # No room for the script.
                self._make_room(batch, error)
            finally:
                results.close()
            self._todo.extendleft(reversed([*again, *waiting.values()]))
            if again:
                self._station.wait_until_cool()

    def _results(self, blocks: Sequence[Block]) -> Generator[tuple[Block, str], None, None]:
        return self._run.results(blocks, self._station.runner, self._job, self._phone.state_command)

    def _build(self) -> Iterator[Timing]:
        """Name each workload's file; one that cannot be built is an error at once."""
        for workload in self._workloads:
            try:
                content = workload.build()
            except Exception as error:
                text = " ".join(f"not built: {type(error).__name__}: {error}".split())[:300]
                yield Timing(workload.name, self._round_index, error=text)
                continue
            name = file_name(content)
            if name not in self._files:
                self._files[name] = _File(name, len(content), [])
                self._todo.append(self._files[name])
            self._files[name].workloads.append(workload)

    def _look(self) -> None:
        """Learn the phone's speed from the sentinel alone, before anything is judged by it."""
        try:
            self._run.stage({self._sentinel_name: lambda: self._sentinel})
        except PushError:
            # Full of what a killed session left, perhaps.
            self._run.forget_models()
            self._run.stage({self._sentinel_name: lambda: self._sentinel})
        for number in range(1, self._trust.tries + 1):
            ((block, text),) = self._results([self._run.block([self._sentinel_name] * _FIRST_LOOKS)])
            self._run.forget(block)
            try:
                result = self._parsed(block, text)
            except ParseError:
                continue
            sentinel_us = [sample.median_us for sample in result.samples]
            doubts = [*state_doubts(self._trust, result.after), *sentinel_doubts(self._trust, sentinel_us, None)]
            if not doubts or number == self._trust.tries:
                self._reference.learn(sentinel_us)
                return
            self._station.wait_until_cool()

    def _left_over(self) -> Iterator[Timing]:
        """What an earlier session, killed since, had the phone time: those of its blocks that can be trusted."""
        now_s = self._phone.read_state().time_s
        found = []
        for text in self._run.leftovers():
            try:
                result = parse_block(text, self._station.runner, self._run.paths)
            except ParseError:
                continue
            then_s = result.after.time_s
            if now_s is not None and then_s is not None and 0 <= now_s - then_s < _FRESH_S:
                found.append((then_s, result.models, text))
        # The last one first: what was timed twice was not believed before.
        for _, models, text in sorted(found, reverse=True):
            todo = {file.name for file in self._todo}
            kept = [timing for timing in self._judge(Block("0", models), text, todo).timings if timing.error is None]
            done = {timing.workload for timing in kept}
            self._todo = deque(f for f in self._todo if not any(workload.name in done for workload in f.workloads))
            yield from kept
        for file in self._todo:
            file.tries, file.alone = 0, False

    def _staged(self) -> list[_File]:
        """The next files, as many as may lie on the phone at once, and put there."""
        while True:
            batch: list[_File] = []
            size = 0
            while self._todo and (not batch or size + self._todo[0].size <= self._batch_bytes):
                batch.append(self._todo.popleft())
                size += batch[-1].size
            self._lying |= {file.name: file.size for file in batch}
            if sum(self._lying.values()) > self._batch_bytes:
                self._run.forget_models()
                self._lying = {file.name: file.size for file in batch}
            builds: dict[str, Callable[[], bytes]] = {file.name: file.workloads[0].build for file in batch}
            try:
                self._run.stage({self._sentinel_name: lambda: self._sentinel, **builds})
            except PushError as error:
                self._make_room(batch, error)
                self._todo.extendleft(reversed(batch))
                continue
            return batch

    def _make_room(self, batch: Sequence[_File], error: PushError) -> None:
        """Clear the models away and take fewer at once; raises `error` where that is no help."""
        self._run.forget_models()
        self._lying = {}
        size = sum(file.size for file in batch)
        if len(batch) == 1 and self._batch_bytes <= size:
            raise error
        self._batch_bytes = min(self._batch_bytes, size) // 2

    def _parts(self, batch: Sequence[_File]) -> Iterator[list[_File]]:
        part: list[_File] = []
        for file in batch:
            if file.alone:
                yield [file]
                continue
            part.append(file)
            if len(part) == self._trust.sentinel_every:
                yield part
                part = []
        if part:
            yield part

    def _between_sentinels(self, part: Sequence[_File]) -> list[str]:
        return [self._sentinel_name, *(file.name for file in part), self._sentinel_name]

    def _parsed(self, block: Block, text: str) -> BlockResult:
        """A block's text as read. Raises `ParseError`, also for one that its program could not even begin."""
        result = parse_block(text, self._station.runner, self._run.paths)
        if result.models != block.models:
            raise ParseError(f"a block of other models, '{' '.join(result.models)[:80]}'")
        error = result.samples[0].error
        self._broken = 0 if error is None else self._broken + 1
        if self._broken == self._trust.tries:
            raise DeviceError(f"{self._station.runner.name} fails on {self._phone.transport.serial}: {error}")
        if error is not None:
            raise ParseError(error)
        return result

    def _judge(self, block: Block, text: str, among: set[str] | None = None) -> _Verdict:
        """What becomes of the block's files, or of those that are `among` them."""
        names = [name for name in block.models[1:-1] if name in (self._files if among is None else among)]
        try:
            result = self._parsed(block, text)
        except ParseError as error:
            return self._unreadable([self._files[name] for name in names], str(error))
        samples = dict(zip(block.models[1:-1], result.samples[1:-1], strict=True))
        sentinel_us = (result.samples[0].median_us, result.samples[-1].median_us)
        doubts = [*state_doubts(self._trust, result.before), *state_doubts(self._trust, result.after)]
        verdict = _Verdict()
        if not doubts and self._reference.outrun_by(sentinel_us, self._trust.drift_pct):
            self._start_over(verdict)
        doubts += sentinel_doubts(self._trust, sentinel_us, self._reference.us)
        doubts = list(dict.fromkeys(doubts))
        verdict.doubtful = bool(doubts)
        if not doubts:
            self._reference.learn(sentinel_us)
        died = any(result.codes)
        for name in names:
            file, sample = self._files[name], samples[name]
            file.in_vain += sample.error is not None
            if sample.error is not None and died and len(names) > 1 and file.in_vain <= _MOST_IN_VAIN:
                # The one that it died of may be to blame, the others never had their turn.
                file.alone = not sample.error.startswith(NOT_REACHED)
                verdict.again.append(file)
            elif sample.error is not None:
                verdict.timings += self._errors(file, sample.error)
            else:
                file.tries += 1
                why = doubts + sample_doubts(self._trust, sample, self._phone.highest_khz)
                if why and file.tries < self._trust.tries:
                    verdict.again.append(file)
                else:
                    self._timed.append(file)
                    verdict.timings += self._believed(file, sample, result, sentinel_us, why)
        return verdict

    def _start_over(self, verdict: _Verdict) -> None:
        """The phone was slower until now than it can be: what was timed so in this round is timed again, once."""
        self._reference.restart()
        if self._timed and not self._repeated:
            self._station.say(f"the phone has become faster: {len(self._timed)} timings of this round are repeated")
            self._repeated = True
            for file in self._timed:
                file.tries = 0
            verdict.again += self._timed
        self._timed = []

    def _unreadable(self, files: Sequence[_File], why: str) -> _Verdict:
        verdict = _Verdict()
        for file in files:
            file.tries += 1
            if file.tries < self._trust.tries:
                verdict.again.append(file)
            else:
                verdict.timings += self._errors(file, f"the phone's program cannot be understood: {why}")
        return verdict

    def _errors(self, file: _File, why: str) -> list[Timing]:
        text = shown_line(" ".join(why.split()), 300)
        return [Timing(workload.name, self._round_index, error=text) for workload in file.workloads]

    def _believed(
        self,
        file: _File,
        sample: Sample,
        result: BlockResult,
        sentinel_us: tuple[float | None, float | None],
        suspect: Sequence[str],
    ) -> list[Timing]:
        cool_down = self._phone.profile.cool_down
        conditions = Conditions(
            serial=self._phone.transport.serial,
            build=self._phone.info.fingerprint,
            binary_sha256=self._station.runner.binary_sha256,
            flags=self._station.runner.flags(self._job),
            cores=self._phone.cores,
            khz_before=frequencies_khz(sample.before),
            khz_after=frequencies_khz(sample.after),
            temperature_c=(hottest_c(result.before, cool_down), hottest_c(result.after, cool_down)),
            battery_pct=result.after.battery_pct,
            battery_c=result.after.battery_c,
            charging=result.after.charging,
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
            Timing(workload.name, self._round_index, sample.n, wall=wall, conditions=text)
            for workload in file.workloads
        ]
