"""A run on the phone: files staged, a script started, its finished blocks collected.

The connection may go and come at any moment (`amc_latency.device.phone.patient`): every command here may be
given twice.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from amc_latency.android_bench.runner import Job, ParseError, Runner
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.android_bench.script import (
    Block,
    Poll,
    RunPaths,
    block_script,
    launch_command,
    parse_poll,
    poll_command,
    stop_command,
)
from amc_latency.device.adb.transport import Transport
from amc_latency.device.base import DeviceError
from amc_latency.device.phone.patient import RECONNECT_S

_PUSH_BYTES = 16 << 20
_LAUNCHES = 3
"""A script that dies so often in a row without finishing a block always will."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what."""

    reconnect_s: float = RECONNECT_S
    """a phone that is away for longer is gone"""
    poll_s: float = 1.0
    """the longest pause between two looks at a running script: a look takes the phone's time"""
    start_s: float = 20.0
    """a script that has not started by then never will"""


class PhoneRun:
    """A folder on the phone in which scripts time blocks, under `root`; gone again after `remove`.

    Raises `DeviceError` when the phone stays away or makes no progress.
    """

    def __init__(
        self,
        transport: Transport,
        root: str,
        scope: str,
        program_folder: str,
        patience: Patience = Patience(),
    ) -> None:
        self.paths = RunPaths(program_folder, f"{root}/models", f"{root}/run-{scope}")
        self._transport = transport
        self._patience = patience
        # Not numbers that would have to be asked for: no two sessions give the same names.
        self._session = secrets.token_hex(4)
        self._named = 0
        self._launched = False
        self._collected: set[str] = set()
        self._whole: set[str] | None = None
        """models on the phone that were verified in this run"""

    def begin(self) -> None:
        """Make the folders, and stop what an earlier session left running here."""
        run = shlex.quote(self.paths.run)
        self._run(f"mkdir -p {shlex.quote(self.paths.models)} {run}/blocks")
        self.stop()

    def leftovers(self) -> list[str]:
        """Texts of the blocks that an earlier session's script finished and nobody judged; none is there any more."""
        finished = self._poll(self._name()).finished
        texts = [self._collect(name, digest) for name, digest in sorted(finished.items())]
        self._run(f"rm -rf {shlex.quote(self.paths.run)}/blocks && mkdir {shlex.quote(self.paths.run)}/blocks")
        return texts

    def block(self, models: Sequence[str]) -> Block:
        """A block with a name of its own."""
        return Block(self._name(), tuple(models))

    def stage(self, models: Mapping[str, Callable[[], bytes]]) -> None:
        """Have these models on the phone, each verified: file name, which is its sha256 and `.tflite`, to content.

        What is there already, whole, is not pushed again. Raises `PushError` when they don't arrive.
        """
        if self._whole is None:
            folder = shlex.quote(self.paths.models)
            listing = self._run(f"find {folder} -name '*.tflite' -exec sha256sum {{}} +", 120.0)
            self._whole = {line.split("  ")[0] + ".tflite" for line in listing.splitlines()}
        pushing: dict[str, bytes] = {}
        for name in (name for name in models if name not in self._whole):
            pushing[name] = models[name]()
            if sum(map(len, pushing.values())) > _PUSH_BYTES:
                self._push(pushing)
                pushing = {}
        self._push(pushing)

    def forget_models(self) -> None:
        """Make room: remove all models."""
        self._whole = None
        self._run(f"rm -f {shlex.quote(self.paths.models)}/*.tflite")

    def results(
        self, blocks: Sequence[Block], runner: Runner, job: Job, state_command: str
    ) -> Generator[tuple[Block, str], None, None]:
        """Time the blocks and yield each with its text when it is finished. Closing the generator stops the script."""
        waiting = {block.name: block for block in blocks}
        done, fruitless = False, 0
        try:
            while waiting:
                if self._launched:
                    # Its shell is dead; what it started may not be.
                    self.stop()
                launch = self._launch(list(waiting.values()), runner, job, state_command)
                before = len(waiting)
                for name, text in self._watch(launch, waiting, job):
                    yield waiting.pop(name), text
                fruitless = fruitless + 1 if len(waiting) == before else 0
                if fruitless == _LAUNCHES:
                    raise self._fruitless(launch)
            done = True
        finally:
            if not done:
                with suppress(DeviceError):
                    self.stop()

    def stop(self) -> None:
        """Kill whatever runs in the folder."""
        self._run(f"( {stop_command(shlex.quote(self.paths.run))} )")

    def forget(self, block: Block) -> None:
        """Remove what was collected and judged: a later session must not judge it again."""
        self._run(f"rm -f {shlex.quote(self.paths.run)}/blocks/{block.name}.*")

    def remove(self) -> None:
        """Stop, and leave nothing of the run; the next session does it on a phone that is gone."""
        with suppress(DeviceError):
            self._run(f"( {stop_command(shlex.quote(self.paths.run))} ); rm -rf {shlex.quote(self.paths.run)}")

    def _name(self) -> str:
        self._named += 1
        return f"{self._session}{self._named:05d}"

    def _push(self, models: Mapping[str, bytes]) -> None:
        assert self._whole is not None
        if models:
            self._transport.push({f"{self.paths.models}/{name}": content for name, content in models.items()})
            self._whole |= set(models)

    def _fruitless(self, launch: str) -> DeviceError:
        """Why a script that dies again and again may do so."""
        run = shlex.quote(self.paths.run)
        said = " ".join(self._run(f"tail -c 300 {run}/log-{launch} 2>/dev/null; df -h {run} | tail -n 1").split())
        return DeviceError(
            f"the script on the phone {self._transport.serial} ends before its first block: is its disk full, or does "
            f"something kill it? It says: {shown_line(said[-200:])}"
        )

    def _launch(self, blocks: Sequence[Block], runner: Runner, job: Job, state_command: str) -> str:
        launch, run = self._name(), self.paths.run
        text = block_script(runner, job, blocks, state_command, self.paths, launch).encode()
        self._transport.push({f"{run}/run-{launch}.sh": text})
        self._launched = True
        self._run(launch_command(run, launch))
        return launch

    def _watch(self, launch: str, waiting: Mapping[str, Block], job: Job) -> Iterator[tuple[str, str]]:
        """Finished blocks of a launch, until its script has ended."""
        most = max((len(block.models) for block in waiting.values()), default=1)
        # Each model is stopped by the phone itself; this is for a phone that has stopped.
        patience_s = self._patience.start_s + 2 * most * (job.timeout_s + 5)
        began = last = time.monotonic()
        pause_s = 0.01
        while True:
            poll = self._poll(launch)
            new = [name for name in sorted(poll.finished) if name in waiting and name not in self._collected]
            for name in new:
                yield name, self._collect(name, poll.finished[name])
            now = time.monotonic()
            if new:
                last, pause_s = now, 0.01
                continue
            if poll.state in ("done", "dead"):
                return
            if poll.state == "starting" and now - began > self._patience.start_s:
                return
            if now - last > patience_s:
                raise DeviceError(
                    f"the phone has finished nothing for {now - last:.0f} s: is it asleep, or out of memory? "
                    "What was timed is kept; run again to go on"
                )
            time.sleep(pause_s)
            pause_s = min(1.3 * pause_s, self._patience.poll_s)

    def _collect(self, name: str, digest: str) -> str:
        content = self._transport.pull(f"{self.paths.run}/blocks/{name}.txt")
        self._collected.add(name)
        if hashlib.sha256(content).hexdigest() != digest:
            # It arrived as it lies there, so it lies there damaged.
            return ""
        return content.decode("utf-8", "backslashreplace")

    def _run(self, command: str, timeout_s: float = 30.0) -> str:
        result = self._transport.run(command, timeout_s)
        if result.code and self._transport.run(f"[ -d {shlex.quote(self.paths.run)} ]").code:
            raise DeviceError(
                f"this run's files are gone from the phone {self._transport.serial}: another session, or somebody, has "
                "removed them. What was timed is kept; run again to go on"
            )
        if result.code:
            said = shown_line(" ".join(result.output.split())[-200:])
            raise DeviceError(f"the phone failed at '{command[:80]}': {said}")
        return result.output

    def _poll(self, launch: str) -> Poll:
        """How a launch does."""
        try:
            return parse_poll(self._run(poll_command(self.paths.run, launch)))
        except ParseError as error:
            raise DeviceError(f"the phone {self._transport.serial} cannot be understood: {error}") from error
