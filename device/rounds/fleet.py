"""Several devices of one kind as one: what is to be timed is dealt out to whichever is free."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import cast

from amc_latency.device.base import Device, DeviceError, Interrupted, Protocol, Timing, Workload, differences

BLOCK = 20
"""Workloads that a phone times between two looks at its own speed (`Trust.sentinel_every`)."""
_LAST_WORDS_S = 60.0
"""How long a member that is interrupted may take to clean up."""


class Fleet(Device):
    """Times on all `members` at once; `members` go by what tells them apart, e.g. a serial number.

    A member that fails is out, and the others take over what it had not timed. The fleet closes its members, also those
    that it refuses: raises `DeviceError` for members of several kinds.
    """

    def __init__(self, members: Mapping[str, Device], block: int = BLOCK) -> None:
        self._members = dict(members)
        self._block = block
        self._crew: _Crew | None = None
        self.working: list[str] = list(members)
        """the members that are timed on"""
        self._failures: list[str] = []
        self._building = threading.Lock()
        (first, one), *others = self._members.items()
        self.identity = one.identity
        self.protocol = one.protocol
        self.gives_reference = one.gives_reference
        self.is_this_computer = one.is_this_computer
        for name, other in others:
            for what, (ours, theirs) in differences(one.identity, other.identity).items():
                self.close()
                raise DeviceError(
                    f"{first} and {name} are not alike ({what} '{ours}' and '{theirs}'), so they cannot fill one "
                    f"table: choose one, as `device={one.identity.name}@{first}`, or list those that are"
                )
        for name, member in self._members.items():
            member.say = partial(self._say_of, name)

    def keep(self, name: str) -> None:
        """Time on this member alone from now on."""
        self.working = [name]

    def use_reference(self, protocol: Protocol, reference_us: float, hot_us: float | None = None) -> str | None:
        """All members go on at that speed; what one says of it stands for all."""
        said = [member.use_reference(protocol, reference_us, hot_us) for member in self._members.values()]
        return next(filter(None, said), None)

    def close(self) -> None:
        """Stop, and close every member."""
        with ExitStack() as stack:
            for member in self._members.values():
                stack.callback(member.close)
            self._stop()

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """Each workload is timed by one member, and its timing comes when that member has it.

        Raises `DeviceError` when no member is left.
        """
        if len(self.working) == 1:
            yield from self.time_on(self.working[0], workloads, protocol, round_index)
            return
        deal = _Deal(self._guarded(workloads), len(self.working), self._block)

        def work(member: Device) -> Iterator[Timing]:
            return deal.timings(lambda share: member.time_round(share, protocol, round_index))

        with self._crew_of(work) as crew, closing(deal):
            for name, said in crew.said():
                if isinstance(said, Timing):
                    yield said
                else:
                    self._lose(name, said)

    def time_on(
        self, name: str, workloads: Sequence[Workload], protocol: Protocol, round_index: int
    ) -> Iterator[Timing]:
        """One member times everything while the others rest. Raises `DeviceError` as `time_round`."""
        try:
            yield from self._members[name].time_round(workloads, protocol, round_index)
        except DeviceError as error:
            self._lose(name, error)

    def time_on_each(
        self, workloads: Sequence[Workload], protocol: Protocol, round_index: int
    ) -> dict[str, list[Timing]]:
        """Every member times everything, all at once: timings by member. Raises `DeviceError` as `time_round`.

        Each times the first workload once more before, and waits until all have: they begin together.
        """
        together = threading.Barrier(len(self.working))
        guarded = self._guarded(workloads)

        def work(member: Device) -> Iterator[Timing]:
            try:
                # A phone may have to cool down first.
                yield from member.time_round(guarded[:1], protocol, round_index)
                with suppress(threading.BrokenBarrierError):
                    together.wait()
                yield from member.time_round(guarded, protocol, round_index)
            finally:
                # Where one has failed, the others don't wait for it.
                together.abort()

        found: dict[str, list[Timing]] = {name: [] for name in self.working}
        with self._crew_of(work) as crew:
            for name, said in crew.said():
                if isinstance(said, Timing):
                    found[name].append(said)
                else:
                    self._lose(name, said)
        return {name: found[name] for name in self.working}

    def _guarded(self, workloads: Sequence[Workload]) -> list[Workload]:
        """The same, built by one thread at a time: PyTorch's tracing, which builds networks, fails with several."""

        def build(workload: Workload) -> bytes:
            with self._building:
                return workload.build()

        return [Workload(workload.name, partial(build, workload)) for workload in workloads]

    def _crew_of(self, work: Callable[[Device], Iterator[Timing]]) -> _Crew:
        self._stop()
        self._crew = _Crew({name: self._members[name] for name in self.working}, work)
        return self._crew

    def _stop(self) -> None:
        if self._crew is not None:
            self._crew.stop()

    def _lose(self, name: str, error: DeviceError) -> None:
        self.working.remove(name)
        self._failures.append(str(error))
        if not self.working:
            raise DeviceError("; ".join(dict.fromkeys(self._failures))) from error
        self.say(f"{name} is out: {error}. Going on with {', '.join(self.working)}")

    def _say_of(self, name: str, text: str) -> None:
        self.say(f"{name}: {text}")


def shares(workloads: Sequence[Workload], members: int, block: int) -> list[list[Workload]]:
    """The workloads as they are dealt out: large shares of whole blocks first, and at last an equal one a member.

    Large, because each share costs a start; but none is more than half of what a member can expect.
    """
    cut: list[list[Workload]] = []
    rest = list(workloads)
    while len(rest) > members * block:
        size = max(1, len(rest) // (2 * members * block)) * block
        cut.append(rest[:size])
        rest = rest[size:]
    for left in range(members, 0, -1):
        size = -(-len(rest) // left)
        cut.append(rest[:size])
        rest = rest[size:]
    return [share for share in cut if share]


class _Deal:
    """What of a round is still to be timed: dealt out in shares to whoever asks."""

    def __init__(self, workloads: Iterable[Workload], members: int, block: int) -> None:
        self._members = members
        self._block = block
        self._waiting = deque(shares(list(workloads), members, block))
        self._out = 0
        """shares that are being timed"""
        self._closed = False
        self._changed = threading.Condition()

    def close(self) -> None:
        """Deal out no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def timings(self, time_share: Callable[[list[Workload]], Iterator[Timing]]) -> Iterator[Timing]:
        """One member's part: share after share until all is timed. Gives back what it has not timed when it fails."""
        while share := self._take():
            left = {workload.name: workload for workload in share}
            try:
                with closing(cast("Generator[Timing]", time_share(share))) as timings:
                    for timing in timings:
                        left.pop(timing.workload, None)
                        yield timing
                left.clear()
            finally:
                self._end(list(left.values()))

    def _take(self) -> list[Workload]:
        """The next share; none when all is timed. Waits while others may yet give theirs back."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._out or self._closed)
            if self._closed or not self._waiting:
                return []
            self._out += 1
            return self._waiting.popleft()

    def _end(self, left: list[Workload]) -> None:
        with self._changed:
            self._out -= 1
            if left:
                self._members = max(1, self._members - 1)
                rest = [*left, *(workload for share in self._waiting for workload in share)]
                self._waiting = deque(shares(rest, self._members, self._block))
            self._changed.notify_all()


@dataclass(frozen=True)
class _End:
    """A member's thread has ended: well, or by what."""

    error: BaseException | None = None


class _Crew:
    """A thread for each member, for as long as it stands in a `with`."""

    def __init__(self, members: Mapping[str, Device], work: Callable[[Device], Iterator[Timing]]) -> None:
        self._members = members
        self._work = work
        self._said: SimpleQueue[tuple[str, Timing | _End]] = SimpleQueue()
        self._stopped = False
        # Daemons: a member that hangs must not keep the program from ending.
        self._threads = {name: threading.Thread(target=self._run, args=(name,), daemon=True) for name in members}

    def __enter__(self) -> _Crew:
        for thread in self._threads.values():
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def said(self) -> Iterator[tuple[str, Timing | DeviceError]]:
        """Each timing and each failure, with whose it is, until all have ended. Raises what is no `DeviceError`."""
        for _ in self._threads:
            while True:
                name, said = self._said.get()
                if isinstance(said, _End):
                    if isinstance(said.error, DeviceError):
                        yield name, said.error
                    elif said.error is not None:
                        raise said.error
                    break
                yield name, said

    def stop(self) -> None:
        """Have all threads end, and wait for them; harmless when they have ended."""
        self._stopped = True
        for _ in range(int(_LAST_WORDS_S / 0.1)):
            busy = [name for name, thread in self._threads.items() if thread.is_alive()]
            for name in busy:
                self._members[name].interrupt()
            if not busy:
                return
            self._threads[busy[0]].join(0.1)

    def _run(self, name: str) -> None:
        end = _End()
        try:
            with closing(cast("Generator[Timing]", self._work(self._members[name]))) as timings:
                for timing in timings:
                    self._said.put((name, timing))
                    if self._stopped:
                        break
        except Interrupted:
            pass
        except BaseException as error:
            end = _End(error)
        self._said.put((name, end))
