"""The run folder: everything that a search wrote, and all that it needs to go on after a kill."""

from __future__ import annotations

import fcntl
import json
import math
import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import msgspec
import tomli_w

from amc_latency.android_bench.safe.files import is_still, read_bytes, remove_leftovers, replacing
from amc_latency.android_bench.safe.limits import CONFIG_BYTES, JSON_BYTES
from amc_latency.android_bench.safe.records import from_json, from_toml
from amc_latency.android_bench.safe.text import shown, shown_line
from amc_latency.arguments.settings import names_of
from amc_latency.errors import JobError, UserError
from amc_latency.jsonl import append_line, drop_torn_line, read_lines
from amc_latency.models.load import NetworkOptions
from amc_latency.models.spec import names_own_file
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.results.result import Ms, SearchReport
from amc_latency.search.results.verdict import Verdict, verdict_of

CONFIG = "config.toml"
REPORT = "report.json"


@dataclass(frozen=True)
class TimedFile:
    """One timing of an exported file."""

    attempt: int
    """from 0; each correction is another"""
    phase: str
    """`cut`, before fine-tuning, or `final` with the row's name; `original` as it was timed before the search; `width`
    and `baseline` of others that are compared with ours
    """
    counts: Counts
    predicted_ms: Ms
    measured_ms: Ms
    target_ms: float | None
    low_ms: Annotated[float, msgspec.Meta(ge=0)]
    """with `high_ms`, where what is measured lies with 95 % confidence"""
    high_ms: Annotated[float, msgspec.Meta(gt=0)] | None
    """None where a single round says nothing of it"""

    def verdict(self, target_ms: float) -> Verdict:
        """Whether a target is met, as far as the interval can tell."""
        return verdict_of(self.measured_ms, self.low_ms, self.high_ms, target_ms)

    @property
    def relative_error(self) -> float:
        """The standard error that the interval stands for, as a share of `measured_ms`; 0 where nothing is known."""
        if self.high_ms is None or self.low_ms <= 0:
            return 0.0
        # The quotient of a file's figures may be no number any more.
        return (math.log(self.high_ms) - math.log(self.low_ms)) / (2 * 1.96)


def check_place(path: Path) -> None:
    """Raise `UserError` where no run folder is and none can be made; what is made to see is taken away again."""
    if (path / CONFIG).exists():
        return
    if path.exists() and (not path.is_dir() or any(entry.suffix != ".tmp" for entry in path.iterdir())):
        raise UserError(f"{path} exists and is not a run folder (no {CONFIG} in it): name another `out`")
    try:
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in new:
            folder.rmdir()
    except OSError as error:
        raise UserError(f"{path} cannot be made ({error.strerror}): name another `out`") from error


def uncut_of(network: NetworkOptions) -> tuple[NetworkOptions, str] | None:
    """The uncut network, and the sha256 of its weights, of the search that a checkpoint is of; None for any other.

    Its run folder says so. It never says whose code is run: an own file counts if the user named it too.
    """
    checkpoint = Path(network.weights if names_own_file(network.model) and network.weights else network.model)
    path = checkpoint.parent / CONFIG
    if not checkpoint.is_file() or not path.is_file():
        return None
    try:
        known = from_toml(read_bytes(path, CONFIG_BYTES).decode(), dict[str, Any])
        wanted = {name: known[name] for name in names_of(NetworkOptions) if name in known}
        found, sha256 = NetworkOptions(**wanted), known["weights_sha256"]
    except (ValueError, OSError, KeyError, UserError):
        return None
    own = names_own_file(found.model) and found.model != network.model
    return None if own or not isinstance(sha256, str) else (found, sha256)


class RunFolder:
    """`config.toml`, `events.jsonl` (an episode a line), `measurements.jsonl`, `policy.json`, checkpoints, `*.tflite`.

    One that is there is gone on with if its config is the same; a new one is made by `start`, so that a search which
    turns out to be impossible leaves nothing behind. Raises `UserError` for a folder that is none, belongs to another
    config or is in use.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        # TOML has no null: what is None is left out.
        wanted = {name: _stored(value) for name, value in config.items() if value is not None}
        self.settings = tomllib.loads(tomli_w.dumps(wanted))
        self._events = path / "events.jsonl"
        self._measurements = path / "measurements.jsonl"
        self._held: TextIO | None = None
        if (path / CONFIG).exists():
            self._lock()
            self._check_config()
            remove_leftovers(path)
            for log in (self._events, self._measurements):
                drop_torn_line(log)
        else:
            check_place(path)

    def start(self) -> None:
        """Make the folder, if it is new. Raises `UserError` if another search was faster, `JobError` if it can't."""
        if self._held is not None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Of two searches that start at once both must meet at one file, and its lock.
            with suppress(FileExistsError), replacing(self.path / CONFIG, new=True) as temporary:
                temporary.write_text(tomli_w.dumps(self.settings))
        except OSError as error:
            raise JobError(f"cannot write {self.path / CONFIG}: {error.strerror}") from error
        self._lock()
        self._check_config()

    def episodes(self) -> list[EpisodeRecord]:
        """Every finished episode, in order."""
        return read_lines(self._events, EpisodeRecord)

    def append_episode(self, record: EpisodeRecord) -> None:
        """Log one episode."""
        self._check_held()
        append_line(self._events, record)

    def measurements(self) -> list[TimedFile]:
        """Every timing of an exported file, in order."""
        return read_lines(self._measurements, TimedFile)

    def append_measurement(self, timed: TimedFile) -> None:
        """Log one timing of an exported file."""
        self._check_held()
        append_line(self._measurements, timed)

    def report(self) -> SearchReport | None:
        """The report of a search that is done, its paths those of the folder as it lies now. Raises `UserError`."""
        path = self.path / REPORT
        if not path.exists():
            return None
        try:
            return SearchReport.from_json(from_json(read_bytes(path, JSON_BYTES), dict[str, Any]), self.path)
        except (ValueError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{path} is damaged ({why}): delete it, and the search ends once more") from error

    def write_report(self, report: SearchReport) -> None:
        """Say that the search is done: from now on it is only read."""
        self.write_json(REPORT, report.to_json())

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file in one step."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a file in one step, so that a kill leaves the old one or the new. Raises `JobError` if it can't."""
        self._check_held()
        try:
            with replacing(self.path / name) as temporary:
                temporary.write_text(text)
        except OSError as error:
            raise JobError(
                f"cannot write {self.path / name}: {error.strerror}. Set it right and run again to go on"
            ) from error

    def _lock(self) -> None:
        # Held until the process ends: two searches in one folder would tear each other's logs.
        if not (self.path / CONFIG).is_file():
            raise UserError(f"{self.path / CONFIG} is no file: name another `out`")
        # A pipe that came in its place meanwhile is not waited for.
        descriptor = os.open(self.path / CONFIG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._held = os.fdopen(descriptor)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another search is running in {self.path}: wait for it, or name another `out`") from None

    def _check_held(self) -> None:
        """Raise `JobError` where the folder is another than the one that is held: its logs are another search's."""
        if self._held is not None and not is_still(self._held.fileno(), self.path / CONFIG):
            raise JobError(
                f"{self.path} was moved, removed or replaced while the search ran: what it wrote before is where that "
                "went. Put it back and run again to go on"
            )

    def _check_config(self) -> None:
        wanted = self.settings
        try:
            found = from_toml(read_bytes(self.path / CONFIG, CONFIG_BYTES).decode(), dict[str, Any])
            if not found:
                raise ValueError("it is empty")
        except (ValueError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{self.path / CONFIG} cannot be read ({why}): name another `out`") from error
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                theirs, ours = (shown_line(str(of.get(name, "not given"))) for of in (found, wanted))
                raise UserError(
                    f"{self.path} belongs to a search with {shown_line(name)} = {theirs}, this one has {ours}: "
                    "use the same settings to go on, or name another `out`"
                )


def _stored(value: Any) -> Any:
    """A setting as TOML can hold it: bytes of a path that are no UTF-8 are written out."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, list | tuple):
        return [_stored(each) for each in value]
    return {name: _stored(each) for name, each in value.items()} if isinstance(value, Mapping) else value
