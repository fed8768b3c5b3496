"""The official `benchmark_model` as a runner.

Two programs bear that name, and `--help` tells them apart: the classic one of TensorFlow Lite, and LiteRT's for its
CompiledModel API.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from amc_latency.android_bench.printed.counts import last_line, one_line, parse_run
from amc_latency.android_bench.runner import Job, ParseError, Runner, RunnerError, Sample

_MARK = "@sample"
_NEEDED = ("graph", "num_runs", "num_threads")
_EXIT_CODE = re.compile("[0-9]{1,3}")
_WRONG_MACHINE = re.compile(r"\x7fELF|not executable|[Ee]xec format error")
_HELP_FLAG = re.compile(r"^[ \t]+--(\w+)=\S*[ \t]+(?:int32|int64|uint64|float|bool|string)\s", re.MULTILINE)
# LiteRT's own log has `ERROR: [file.cc:1] ...` also where it merely found no GPU.
_ERROR = re.compile(r"^ERROR: (?!\[)(.*)", re.MULTILINE)
_UNKNOWN_FLAGS = re.compile(r"^WARN: Unconsumed cmdline flags: *(.*)", re.MULTILINE)
_APPLIED = re.compile(
    r"XNNPACK delegate(?: is explicitly applied)?, (?:and )?the model graph will "
    r"(be completely|be partially|not be) executed"
)
_REPLACED = re.compile(
    r"Replacing ([0-9]+)(?: out of ([0-9]+))? node\(s\) with delegate \(TfLiteXNNPackDelegate\) node, "
    r"yielding ([0-9]+) partitions(?: for subgraph ([0-9]+))?"
)


class BenchmarkModel(Runner):
    """`benchmark_model` with the flags that its `--help` names."""

    name = "benchmark_model"
    models_per_process = 1

    def __init__(self, program: str, binary_sha256: str, known_flags: frozenset[str]) -> None:
        self.binary_sha256 = binary_sha256
        # A bare name would be looked for in the shell's path.
        self._program = program if "/" in program else f"./{program}"
        self._known = known_flags
        compiled_model = "use_cpu" in known_flags
        kernels = "xnnpack" if compiled_model or "use_xnnpack" in known_flags else "built-in kernels"
        self.title = f"benchmark_model{' (LiteRT)' if compiled_model else ''} {binary_sha256[:12]} {kernels}"

    @classmethod
    def from_help(cls, help_text: str, program: str, binary_sha256: str) -> BenchmarkModel:
        """Made from what `program --help` printed, whatever its exit code. Raises `RunnerError`."""
        known = frozenset(_HELP_FLAG.findall(help_text))
        if not known.intersection(_NEEDED):
            raise RunnerError(f"{program} is no benchmark_model: it says '{one_line(help_text)[:150]}'")
        missing = [f"--{flag}" for flag in _NEEDED if flag not in known]
        if missing:
            raise RunnerError(f"{program} is too old: it does not know {', '.join(missing)}. Use a newer one")
        return cls(program, binary_sha256, known)

    def flags(self, job: Job) -> str:
        """The flags that decide how it times. Raises `RunnerError` where it cannot do what `job` asks."""
        wanted: dict[str, object] = {
            "num_threads": job.threads,
            "warmup_runs": job.warmup,
            "warmup_min_secs": f"{job.warmup_ms / 1000:g}",
            "num_runs": job.runs,
            "min_secs": f"{job.min_time_ms / 1000:g}",
            # There is no flag for the most runs. This one would end a slow model early, with fewer runs than asked
            # and without a word, so it must not end anything before the time-out does.
            "max_secs": f"{job.timeout_s:g}",
            # The classic program; explicitly false would even take away the default.
            "use_xnnpack": "true",
            # The LiteRT program. It aborts when `--require_full_delegation` is given with this one.
            "use_cpu": "true",
        }
        if job.op_profile:
            if not self._known.intersection(("enable_op_profiling", "use_profiler")):
                raise RunnerError(f"{self._program} is too old for a profile by operator. Use a newer one")
            # CSV has six digits where the table has whole microseconds; without a file it is printed.
            wanted |= {"enable_op_profiling": "true", "op_profiling_output_mode": "csv", "use_profiler": "true"}
        return " ".join(f"--{flag}={value}" for flag, value in wanted.items() if flag in self._known)

    def command(self, models: Sequence[str], job: Job) -> str:
        """The shell command that times the one model in `models`. Raises `RunnerError` as `flags` does."""
        (model,) = models
        program = f"{shlex.quote(self._program)} {shlex.quote(f'--graph={model}')} {self.flags(job)}"
        lines = [
            # Also what the shell itself says of a program that crashed.
            "exec 2>&1",
            *_reads("before", job.watch),
            # toybox's may say 127 of a program that ended within a few milliseconds: none that timed anything does.
            f"timeout -k 1 {job.timeout_s:g} {program} </dev/null",
            "code=$?",
            # The program's last line may lack its end.
            "echo",
            f"echo {_MARK} exit $code",
            *_reads("after", job.watch),
            f"echo {_MARK} watched {len(job.watch)}",
        ]
        pinned = f"taskset {job.core_mask} " if job.cores else ""
        script = "\n".join(lines)
        return f"{pinned}sh -c {shlex.quote(script)}"

    def parse(self, text: str, models: Sequence[str], code: int) -> list[Sample]:
        """The sample of the one model in `models`; see `Runner.parse`."""
        (model,) = models
        lines = text.replace("\r\n", "\n").split("\n")
        marks = [line.removeprefix(f"{_MARK} ").partition(" ") for line in lines if line.startswith(f"{_MARK} ")]
        names, values = [name for name, _, _ in marks], [value for _, _, value in marks]
        if code and "watched" not in names:
            return [Sample(model, error=f"exit code {code}: {last_line(text)}")]
        watched = names.count("before")
        whole = ["before"] * watched + ["exit"] + ["after"] * watched + ["watched"]
        if names != whole or values[-1] != str(watched) or not _EXIT_CODE.fullmatch(values[watched]):
            raise ParseError(f"the output of benchmark_model is cut off or garbled: it ends in '{last_line(text)}'")
        blank = Sample(model, before=tuple(values[:watched]), after=tuple(values[watched + 1 : -1]))
        output = "\n".join(line for line in lines if not line.startswith(f"{_MARK} "))
        error = failure(output, int(values[watched]))
        if error is not None:
            return [replace(blank, error=error)]
        run = parse_run(output)
        if run.n == 0:
            return [replace(blank, error="benchmark_model ran the model not even once")]
        sample = replace(
            blank,
            n=run.n,
            min_us=run.min_us,
            median_us=run.median_us,
            mean_us=run.mean_us,
            std_us=run.std_us,
            delegated=delegated(output, says="use_xnnpack" in self._known),
        )
        return [sample]

    def op_profile(self, text: str, model: str, code: int) -> str:
        """See `Runner.op_profile`."""
        (sample,) = self.parse(text, [model], code)
        if sample.error is not None:
            raise RunnerError(sample.error)
        return "\n".join(line for line in text.split("\n") if not line.startswith(f"{_MARK} "))


def _reads(when: str, paths: Iterable[str]) -> Iterator[str]:
    """Shell lines that print the first line of each file. `read` is part of the shell: no process, no delay."""
    for path in paths:
        yield f"v=; {{ read -r v < {shlex.quote(path)}; }} 2>/dev/null"
        yield f'echo "{_MARK} {when} ${{v:-?}}"'


def failure(output: str, code: int) -> str | None:
    """Why a program that ended with `code` has no figures, in one line and its own words; None if it should have."""
    if code == 124:
        return "stopped: it took longer than its time-out"
    if code == 137:
        return "killed, for want of memory or after its time-out"
    reasons = [f"benchmark_model does not know {flags}" for flags in _UNKNOWN_FLAGS.findall(output)]
    errors = _ERROR.findall(output)
    reasons += [error for error in errors if error != "Benchmarking failed."] or errors
    if code and not reasons:
        reasons.append(last_line(output))
    if code and _WRONG_MACHINE.search(output):
        reasons.insert(0, "benchmark_model is not built for this kind of processor")
    if not reasons:
        return None
    return one_line((f"exit code {code}: " if code else "") + "; ".join(reasons))


def delegated(output: str, says: bool) -> bool | None:
    """Whether one XNNPACK delegate took the whole main graph; without a word of it, None unless the program `says`."""
    # Partitions are also what stays outside: a single one is everything.
    taken = [
        match[3] == "1" and match[2] in (None, match[1])
        for match in _REPLACED.finditer(output)
        if match[4] in (None, "0")
    ]
    applied = [words == "be completely" for words in _APPLIED.findall(output)]
    if not taken and not applied:
        return False if says else None
    return all(applied) and (any(taken) or not taken)
