"""What every program that times models on a phone shares: its job, its command, and what it is read for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class RunnerError(RuntimeError):
    """A program that is not to be had or does not do what is asked of it: what is wrong and what to do, in one line."""


class ParseError(ValueError):
    """Text that no such program prints: the message quotes the line."""


@dataclass(frozen=True)
class Job:
    """How models are timed on the phone."""

    warmup: int = 3
    """runs before the first counted one, at least"""
    warmup_ms: float = 200.0
    """and at least this long"""
    runs: int = 20
    """counted runs, at least"""
    min_time_ms: float = 100.0
    """and at least this long"""
    max_runs: int = 1000
    """and at most so many, where the program can be told"""
    timeout_s: float = 60.0
    """a model that takes longer is stopped"""
    threads: int = 1
    cores: tuple[int, ...] = ()
    """cores to stay on; none means wherever the system likes"""
    watch: tuple[str, ...] = ()
    """small files to read before and after each model: frequencies and temperatures"""
    op_profile: bool = False
    """also print what each operator takes; the timings of such a run mean nothing"""

    @property
    def core_mask(self) -> str:
        """The cores as `taskset` takes them: hexadecimal, without `0x`."""
        return f"{sum(1 << core for core in self.cores):x}"


@dataclass(frozen=True)
class Sample:
    """What a program printed of one model, in microseconds; None is what it did not print."""

    model: str
    """the model's path on the phone, as it was given"""
    n: int = 0
    min_us: float | None = None
    median_us: float | None = None
    mean_us: float | None = None
    std_us: float | None = None
    delegated: bool | None = None
    """whether one XNNPACK delegate took every operator; None if the program does not say"""
    before: tuple[str, ...] = ()
    """contents of the watched files before the model, stripped; `?` for one that could not be read"""
    after: tuple[str, ...] = ()
    error: str | None = None
    """one line, in place of all figures"""


class Runner(ABC):
    """A program on the phone. Makes commands and reads text; it touches no phone itself."""

    name: str
    """`benchmark_model` or `amc_bench`"""
    title: str
    """what tells its timings from others': name, binary hash, delegate"""
    binary_sha256: str
    models_per_process: int
    """how many models one command takes; 0 for any number"""

    @abstractmethod
    def command(self, models: Sequence[str], job: Job) -> str:
        """The shell command that times `models`, quoted, to be run in the folder of the program's files.

        Its standard output and standard error, merged, are what `parse` reads. Pinning and time-outs are part of it.
        """

    @abstractmethod
    def flags(self, job: Job) -> str:
        """The flags that decide how it times, without the model: for the record."""

    @abstractmethod
    def parse(self, text: str, models: Sequence[str], code: int) -> list[Sample]:
        """A sample for each model, in order, from the merged output and the exit code of `command`.

        A model that failed is a sample with an error, also one that a dead process never came to. Raises
        `ParseError` for text that is garbled or cut off where a figure should be: never a wrong number.
        """

    @abstractmethod
    def op_profile(self, text: str, model: str, code: int) -> str:
        """What `printed/op_profile.py` reads, from the output of a job for one model with `op_profile`.

        Raises `RunnerError` if the model failed, and `ParseError`.
        """


@dataclass(frozen=True)
class Candidate:
    """A program that might run on a phone, before it was tried there."""

    name: str
    """`benchmark_model` or `amc_bench`"""
    source: str
    """where it comes from, in words"""
    files: Mapping[str, bytes]
    """to be pushed into one folder: file name to content; empty if it is on the phone"""
    program: str
    """the program among `files`, or its path on the phone"""
