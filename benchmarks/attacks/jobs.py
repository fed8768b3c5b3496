"""Work that takes a second, in processes of its own: a profile, a search, a training, and what must come of each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.attacks.harness import Wrong

if TYPE_CHECKING:
    from amc_latency.device.base import Device

    from amc_latency.models.load import Network

_ROOT = Path(__file__).resolve().parents[2]
FEW_IMAGES = f"{_ROOT / 'tests/integration/few_images.py'}:few_images"
_ANSWER_S = 0.0005
"""Of the device of arithmetic, so that a profile takes long enough to be met in the middle."""
_TEMPORARY = (".tmp", ".new", ".networks", ".resume", ".part")


class Ended(NamedTuple):
    """How a job ended: `ok`, `refused` with the message that a user sees, `traceback`, or `died` by a signal."""

    kind: str
    text: str


class Job:
    """A function in a fork of this process, which has imported all that it needs."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, before: Callable[[], Any] | None = None) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            signal.setitimer(signal.ITIMER_REAL, 0)
            ended = Ended("ok", "")
            try:
                if before is not None:
                    before()
                function(*arguments)
            except BaseException as error:
                ended = _judged(error)
            with contextlib.suppress(OSError):
                os.write(writer, json.dumps(ended).encode()[:60_000])
            sys.stderr.flush()
            os._exit(0)
        os.close(writer)
        self._reader = reader
        self._ended: Ended | None = None

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        if self._ended is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self.wait()
        return self._ended is None

    def kill(self) -> Ended:
        """Without any warning."""
        if self._ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> Ended:
        """Its end."""
        if self._ended is None:
            try:
                parts = list(iter(lambda: os.read(self._reader, 1 << 16), b""))
                _, status = os.waitpid(self.pid, 0)
            except BaseException:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise
            finally:
                os.close(self._reader)
            said = b"".join(parts)
            self._ended = Ended(*json.loads(said)) if said else Ended("died", str(os.waitstatus_to_exitcode(status)))
        return self._ended

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _judged(error: BaseException) -> Ended:
    from amc_latency.errors import exit_code

    if isinstance(error, Exception) and exit_code(error) is not None:
        text = f"{type(error).__name__}: {error}"
        return Ended("refused" if str(error).strip() or isinstance(error, OSError) else "traceback", text)
    return Ended("traceback", traceback.format_exc()[-2500:])


class Work:
    """A kind of job in a folder: how it is done, what it has kept so far, and what it comes to."""

    name = ""

    def prepare(self, folder: Path) -> None:
        """Import, load and make there what every job needs."""

    def do(self, folder: Path) -> None:
        """All of it, or what is left of it."""

    def kept(self, folder: Path) -> set[str]:
        """What is stored so far, in pieces that must never be lost."""
        return set()

    def result(self, folder: Path) -> Any:
        """What it came to, to be compared with another's."""

    def check_tidy(self, folder: Path) -> None:
        """Raise `Wrong` for what was left behind."""
        left = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith(_TEMPORARY)]
        if left:
            raise Wrong(f"left behind for good: {left[:4]}")


class Profile(Work):
    """A latency table of a small network by a device of arithmetic."""

    name = "profile"

    def prepare(self, folder: Path) -> None:
        from amc_latency.models.load import NetworkOptions, load_network
        from amc_latency.models.untrained import with_norm_statistics

        self.network: Network = with_norm_statistics(load_network(NetworkOptions("lenet5", 0.6, weights="random")))

    def table(self, folder: Path) -> Path:
        """Where it grows."""
        return folder / "t.tsv"

    def do(self, folder: Path) -> None:
        from amc_latency.device.base import Protocol
        from amc_latency.lut.building.build import Plan

        from amc_latency.console import Console
        from amc_latency.measuring.profiling import Grid, complete_table, open_table

        device = _device()
        protocol = Protocol(rounds=2, clock="cpu", statistic="median")
        table = open_table(device, protocol, self.table(folder), create=True)
        assert table is not None
        complete_table(self.network, device, table, Grid(step=8), Console(quiet=True), Plan("grid"))

    def kept(self, folder: Path) -> set[str]:
        path = self.table(folder)
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return {line for line in lines if not line.startswith(("#", "key\t"))}

    def result(self, folder: Path) -> Any:
        from amc_latency.lut.table.table import LatencyTable

        table = LatencyTable.open(self.table(folder))
        return {(timing.workload, timing.round): (timing.cpu, timing.error) for timing in table.rows}


def _device() -> Device:
    from amc_latency.device.base import Protocol, Timing, Workload
    from amc_latency.device.host.host import built

    from benchmarks.synthetic_device import SyntheticDevice

    class Building(SyntheticDevice):
        """Builds whole networks, as a device that times them does."""

        def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
            for workload in workloads:
                time.sleep(_ANSWER_S)
                if " + " in workload.name and isinstance(said := built(workload), str):
                    yield Timing(workload.name, round_index, error=said)
                    continue
                yield from super().time_round([workload], protocol, round_index)

    return Building()


class Search(Work):
    """A search of few episodes of a small network by a replayed table, with its export."""

    name = "search"

    def prepare(self, folder: Path) -> None:
        import torch

        from amc_latency.search.judge import judge
        from amc_latency.training.outcome import Outcome
        from benchmarks.small_search import make_small_search

        torch.set_num_threads(1)
        # Most of the time of a short search goes into judging it on test images, of which nothing here is seen.
        outcome = Outcome(torch.zeros(10, dtype=torch.int64), torch.arange(10) < 9, None, 0.0)
        told = judge.Tested(90.0, 10, None, outcome)
        judge.Judge.tested = lambda *_: told  # type: ignore[method-assign, assignment]
        judge.FINALISTS = 2  # type: ignore[misc]
        self.config = replace(
            make_small_search(folder),
            warmup=2,
            episodes=2,
            baselines="uniform",
            images=50,
            calibration_images=32,
        )

    def do(self, folder: Path) -> None:
        from amc_latency.console import Console
        from amc_latency.search.run import search

        search(self.config, folder / "run", Console(quiet=True))

    def kept(self, folder: Path) -> set[str]:
        lines: set[str] = set()
        for path in (folder / "run").glob("*.jsonl"):
            text = path.read_text()
            lines |= {f"{path.name} {line}" for line in text[: text.rfind("\n") + 1].splitlines()}
        return lines

    def result(self, folder: Path) -> Any:
        report = json.loads((folder / "run/report.json").read_text())
        plain = {key: value for key, value in report.items() if "seconds" not in key and not key.endswith("_s")}
        text = json.dumps(plain, sort_keys=True).replace(str(folder), "")
        return text, (folder / "run/model.safetensors").read_bytes()[-5000:]


class Train(Work):
    """A training of three short epochs."""

    name = "train"

    def prepare(self, folder: Path) -> None:
        import torch

        import amc_latency.training.train  # noqa: F401
        from amc_latency.data import load_data

        torch.set_num_threads(1)
        load_data("bundled")

    def do(self, folder: Path) -> None:
        from amc_latency.training.recipe import TrainConfig
        from amc_latency.training.train import TrainCommandConfig, train

        training = TrainConfig(epochs=3, image_size=(16, 16), low_resolution_epochs=0)
        train(TrainCommandConfig(folder / "net.safetensors", "lenet5", 0.3, FEW_IMAGES, training=training))

    def result(self, folder: Path) -> Any:
        from amc_latency.models.files.checkpoint import load_checkpoint
        from amc_latency.models.files.weights import weights_digest

        model, spec, extra = load_checkpoint(folder / "net.safetensors")
        return weights_digest(model), spec, extra


WORKS: dict[str, type[Work]] = {work.name: work for work in (Profile, Search, Train)}


class Undisturbed:
    """What a job comes to if nothing happens to it, and how long that takes."""

    def __init__(self, work: Work, folder: Path) -> None:
        self.work = work
        work.prepare(folder)
        self.folder = folder / "undisturbed"
        self.folder.mkdir()
        began = time.monotonic()
        ended = Job(work.do, self.folder).wait()
        self.seconds = time.monotonic() - began
        if ended.kind != "ok":
            raise RuntimeError(f"{work.name} fails undisturbed: {ended.text}")
        self.result = work.result(self.folder)
        self.kept = work.kept(self.folder)

    def check_same(self, folder: Path) -> None:
        """Raise `Wrong` where the job in `folder` has come to something else, or left something behind."""
        if self.work.result(folder) != self.result:
            raise Wrong(
                f"{self.work.name} came to something else: {_difference(self.result, self.work.result(folder))}"
            )
        self.work.check_tidy(folder)


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        differ = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
        first = differ[0]
        return f"{len(differ)} entries, such as {str(first)[:120]}: {one.get(first)} and {other.get(first)}"
    if isinstance(one, tuple) and isinstance(other, tuple):
        return "; ".join(_difference(a, b) for a, b in zip(one, other, strict=False) if a != b)
    if isinstance(one, str) and isinstance(other, str):
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        return f"{one[max(0, at - 80) : at + 60]!r} and {other[max(0, at - 80) : at + 60]!r}"
    return f"{str(one)[:100]!r} and {str(other)[:100]!r}"


def check_ended(ended: Ended, *right: str) -> None:
    """Raise `Wrong` unless the job ended in one of these ways."""
    if ended.kind not in right:
        raise Wrong(f"it ended so: {ended.kind}: {ended.text[-1500:]}")
