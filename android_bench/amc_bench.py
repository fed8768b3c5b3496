"""The project's own program on the phone: many models in one process, a checked JSON line for each."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import signal
import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, TypedDict

from amc_latency.android_bench.obtaining.build import LIBRARY, PROGRAM
from amc_latency.android_bench.runner import Job, ParseError, Runner, RunnerError, Sample
from amc_latency.android_bench.safe.limits import COUNT
from amc_latency.android_bench.safe.records import RecordError, from_values
from amc_latency.android_bench.safe.text import shown_line
from msgspec import Meta

NOT_REACHED = "not reached"
"""What the error of a model begins with that is not to blame: time it in another process."""
_VERSION = "1"  # AMC_BENCH_VERSION in flags.h
_LINE = re.compile(r'(\{.*),"crc":"([0-9a-f]{8})"\}', re.ASCII)
_Count = Annotated[int, Meta(ge=0, le=COUNT)]
_Us = Annotated[float, Meta(ge=0, le=1e12)]


class Line(TypedDict, total=False):
    """The program's first line, one of a model, or its last: what is read of them. A checksum proves no types."""

    program: str
    version: str
    done: _Count
    index: _Count
    model: str
    n: _Count
    min_us: _Us
    median_us: _Us
    mean_us: _Us
    std_us: _Us
    delegated: bool
    before: list[str]
    after: list[str]
    error: str | None
    fatal: bool
    op_profile: str


class AmcBench(Runner):
    """`amc_bench` and its `libLiteRt.so`, given as `amc_bench_files` gives them."""

    name = PROGRAM
    models_per_process = 0

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.binary_sha256 = hashlib.sha256(files[PROGRAM]).hexdigest()
        library_sha256 = hashlib.sha256(files[LIBRARY]).hexdigest()
        self.title = f"{self.name} {self.binary_sha256[:8]}, LiteRT {library_sha256[:8]}, xnnpack"

    def command(self, models: Sequence[str], job: Job) -> str:
        """See `Runner.command`."""
        watch = [f"--watch={path}" for path in job.watch]
        words = [f"./{PROGRAM}", f"--lib=./{LIBRARY}", *_flags(job), *watch, "--", *models]
        return shlex.join(words)

    def flags(self, job: Job) -> str:
        """See `Runner.flags`."""
        return shlex.join(_flags(job))

    def parse(self, text: str, models: Sequence[str], code: int) -> list[Sample]:
        """See `Runner.parse`."""
        return [_sample(row) for row in _rows(text, models, code)]

    def op_profile(self, text: str, model: str, code: int) -> str:
        """See `Runner.op_profile`; the text is as LiteRT words it."""
        (row,) = _rows(text, [model], code)
        if "op_profile" not in row:
            raise RunnerError(shown_line(row.get("error") or "amc_bench gave no op profile"))
        return row["op_profile"]


def _flags(job: Job) -> list[str]:
    flags = {
        "threads": job.threads,
        "warmup": job.warmup,
        "warmup_ms": _decimal(job.warmup_ms),
        "runs": job.runs,
        "min_time_ms": _decimal(job.min_time_ms),
        "max_runs": job.max_runs,
        "timeout_s": _decimal(job.timeout_s),
    }
    if job.cores:
        flags["cores"] = ",".join(map(str, job.cores))
    if job.op_profile:
        flags["op_profile"] = 1
    return [f"--{name}={value}" for name, value in flags.items()]


def _decimal(value: float) -> str:
    """A number without an exponent, which the program does not read."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _rows(text: str, models: Sequence[str], code: int) -> list[Line]:
    """A row for each model: as printed, or with an error where a program that died printed none."""
    objects, other = _objects(text, code)
    if not objects:
        if code == 0:
            raise ParseError(f"amc_bench printed nothing: {_quoted(text)}")
        return _unreached(models, [], code, other)
    header, rows = objects[0], objects[1:]
    if header.get("program") != PROGRAM or header.get("version") != _VERSION:
        raise ParseError(f"not the first line of amc_bench {_VERSION}: {_quoted(json.dumps(header))}")
    finished = bool(rows) and "done" in rows[-1]
    done = rows.pop() if finished else None
    if finished and done != {"done": len(models)}:
        raise ParseError(f"amc_bench timed other than these {len(models)} models: {_quoted(json.dumps(done))}")
    for index, row in enumerate(rows):
        if index >= len(models) or row.get("index") != index or row.get("model") != models[index]:
            raise ParseError(f"a line is lost before this one of amc_bench: {_quoted(json.dumps(row))}")
    if len(rows) < len(models) and (finished or code == 0):
        raise ParseError(f"amc_bench's output breaks off after {len(rows)} of {len(models)} models: {_quoted(text)}")
    if code == 0 and not finished:
        raise ParseError(f"amc_bench's last line is missing: {_quoted(text)}")
    return rows + _unreached(models, rows, code, other)


def _objects(text: str, code: int) -> tuple[list[Line], str]:
    """The program's own lines, checked, and the text of all others: LiteRT logs to the same place."""
    objects: list[Line] = []
    other: list[str] = []
    *lines, last = (line.removesuffix("\r") for line in text.split("\n"))
    # A process that died may have done so in the middle of its last line, which is then as good as not there.
    if code == 0 or not last.startswith("{") or _checked(last) is not None:
        lines.append(last)
    for line in lines:
        if not line.startswith("{"):
            other.append(line)
        elif (checked := _checked(line)) is not None:
            objects.append(checked)
        else:
            raise ParseError(f"a garbled line of amc_bench: {_quoted(line)}")
    return objects, "\n".join(other)


def _checked(line: str) -> Line | None:
    match = _LINE.fullmatch(line)
    if match is None or not line.isascii() or zlib.crc32(match[1].encode()) != int(match[2], 16):
        return None
    try:
        return from_values(json.loads(match[1] + "}"), Line)
    except (RecordError, ValueError, RecursionError):
        return None


def _unreached(models: Sequence[str], rows: Sequence[Line], code: int, other: str) -> list[Line]:
    """Error rows for the models after `rows`, which the dead process did not come to."""
    end = f"amc_bench ended with exit code {code}{_signal_name(code)}"
    words = [line for line in other.splitlines() if line.strip() and not line.startswith(("INFO:", "VERBOSE:"))]
    if words:
        end += f": {shown_line(words[-1].strip().removeprefix('amc_bench: '), 300)}"
    errors = [f"{NOT_REACHED}: {end}" for _ in models[len(rows) :]]
    # Where no row says what ended it, it was the next model, or the program itself.
    if errors and not (rows and rows[-1].get("fatal")):
        errors[0] = end
    return [{"model": model, "error": error} for model, error in zip(models[len(rows) :], errors, strict=True)]


def _signal_name(code: int) -> str:
    try:
        return f" ({signal.Signals(code - 128).name})"
    except ValueError:
        return ""


def _sample(row: Line) -> Sample:
    if (error := row.get("error")) is not None:
        return Sample(row["model"], error=shown_line(" ".join(error.split()), 400))
    try:
        return Sample(
            model=row["model"],
            n=row["n"],
            min_us=row["min_us"],
            median_us=row["median_us"],
            mean_us=row["mean_us"],
            std_us=row["std_us"],
            delegated=row["delegated"],
            before=tuple(row["before"]),
            after=tuple(row["after"]),
        )
    except KeyError as missing:
        raise ParseError(f"a line of amc_bench without {missing}: {_quoted(json.dumps(row))}") from None


def _quoted(line: str) -> str:
    """The line for a message, or the end of a long text."""
    line = line.strip().rsplit("\n", 1)[-1]
    return repr(line if len(line) <= 200 else f"{line[:200]}...")
