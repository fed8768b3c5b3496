"""Building the phone's program: what fits which phone, and what is said when something is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from amc_latency.android_bench.obtaining.build import amc_bench_files
from amc_latency.android_bench.runner import RunnerError

ROOT = Path(__file__).resolve().parents[3]
CROSS = "aarch64-linux-gnu-gcc"
needs_gcc = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("gcc") is None, reason="needs gcc (Debian: gcc) on x86-64"
)
needs_cross_gcc = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which(CROSS) is None,
    reason=f"needs {CROSS} (Debian: gcc-aarch64-linux-gnu) on x86-64",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own cache folder, and no NDK."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    monkeypatch.delenv("ANDROID_NDK_ROOT", raising=False)
    return tmp_path / "cache"


def fake_library(folder: Path, compiler: str, libc: bool) -> Path:
    """A real ELF library with LiteRT's best known symbol; one that needs glibc bears its name."""
    source, library = folder / "fake.c", folder / "libLiteRt.so"
    source.write_text("#include <stdlib.h>\nint LiteRtCreateCompiledModel(void) { return abs(rand()); }\n")
    flags = [] if libc else ["-nostdlib", "-Wl,--unresolved-symbols=ignore-all"]
    subprocess.run([compiler, "-shared", "-fPIC", *flags, source, "-o", library], check=True)
    return library


def fake_ndk(folder: Path, machine: str, compiler: str) -> Path:
    """An NDK's folder whose clang is a gcc for Linux: it takes the same flags."""
    clang = folder / f"ndk/toolchains/llvm/prebuilt/linux-x86_64/bin/{machine}-linux-android24-clang"
    clang.parent.mkdir(parents=True)
    clang.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nexec {compiler} "$@"\n')
    clang.chmod(0o755)
    return folder / "ndk"


def elf_machine(program: bytes) -> int:
    assert program[:4] == b"\x7fELF"
    return int.from_bytes(program[18:20], "little")


@needs_gcc
def test_this_computer_needs_nothing_but_a_compiler(cache: Path) -> None:
    files = amc_bench_files("x86_64", bionic=False)
    assert sorted(files) == ["amc_bench", "libLiteRt.so"]
    assert [elf_machine(content) for content in files.values()] == [62, 62]
    (kept,) = [path for path in cache.rglob("*") if path.is_file()]
    assert kept.read_bytes() == files["amc_bench"]
    # The second time it comes from there.
    kept.write_bytes(b"from the cache")
    assert amc_bench_files("x86_64", bionic=False)["amc_bench"] == b"from the cache"


@needs_gcc
def test_litert_is_not_imported_for_its_library() -> None:
    code = (
        "import sys; from amc_latency.android_bench.obtaining.build import amc_bench_files; "
        "amc_bench_files('x86_64', False); "
        "sys.exit('ai_edge_litert' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@needs_gcc
def test_another_compiler_is_another_program(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    amc_bench_files("x86_64", bionic=False)
    compiler = tmp_path / "bin/cc"
    compiler.parent.mkdir()
    compiler.write_text('#!/bin/sh\nexec /usr/bin/env -i PATH=/usr/bin:/bin gcc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:{os.environ['PATH']}")
    amc_bench_files("x86_64", bionic=False)
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 2


@needs_gcc
def test_a_compiler_that_fails_is_quoted(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cc").write_text('#!/bin/sh\n[ "$1" = --version ] || { echo "x.c:3: error: bad" >&2; exit 1; }\n')
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RunnerError, match=r"cc cannot build amc_bench: x\.c:3: error: bad$"):
        amc_bench_files("x86_64", bionic=False)
    assert not [path for path in cache.rglob("*") if path.is_file()]


@needs_cross_gcc
def test_arm64_linux_is_cross_compiled_for_a_given_library(tmp_path: Path) -> None:
    library = fake_library(tmp_path, CROSS, libc=True)
    for abi in ("arm64-v8a", "aarch64"):
        files = amc_bench_files(abi, bionic=False, library=library)
        assert elf_machine(files["amc_bench"]) == 183
        assert files["libLiteRt.so"] == library.read_bytes()


@needs_cross_gcc
def test_android_is_built_with_the_ndk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = fake_library(tmp_path, CROSS, libc=False)
    ndk = fake_ndk(tmp_path, "aarch64", CROSS)
    files = amc_bench_files("arm64-v8a", bionic=True, library=library, ndk=ndk)
    assert elf_machine(files["amc_bench"]) == 183
    assert "-Wl,-z,max-page-size=16384" in (tmp_path / "calls").read_text()
    for variable in ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(ndk))
            assert amc_bench_files("arm64-v8a", bionic=True, library=library) == files


@needs_gcc
@pytest.mark.parametrize(
    ("abi", "bionic", "message"),
    [
        ("armeabi-v7a", True, "runs on x86_64 and arm64-v8a, not on armeabi-v7a: use benchmark_model"),
        ("arm64-v8a", True, "needs a libLiteRt.so for Android aarch64: name one"),
        ("x86_64", True, "needs a libLiteRt.so for Android x86_64: name one"),
        ("arm64-v8a", False, "needs a libLiteRt.so for Linux aarch64: name one"),
    ],
)
def test_what_is_missing_is_named(abi: str, bionic: bool, message: str) -> None:
    with pytest.raises(RunnerError, match=message):
        amc_bench_files(abi, bionic)


@needs_gcc
def test_a_library_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    library = fake_library(tmp_path, "gcc", libc=True)
    with pytest.raises(RunnerError, match="was built for x86_64, but aarch64 is needed"):
        amc_bench_files("arm64-v8a", bionic=False, library=library)
    with pytest.raises(RunnerError, match="was built for Linux, but one for Android is needed"):
        amc_bench_files("x86_64", bionic=True, library=library)
    fake_library(tmp_path, "gcc", libc=False)
    with pytest.raises(RunnerError, match="was built for Android, but one for Linux is needed"):
        amc_bench_files("x86_64", bionic=False, library=library)
    with pytest.raises(RunnerError, match=r"cannot read .*nothing\.so: No such file or directory"):
        amc_bench_files("x86_64", bionic=False, library=tmp_path / "nothing.so")
    for content in (b"", b"\x7fELF", b"PK\x03\x04" + bytes(100), Path(sys.executable).read_bytes()[:4096]):
        library.write_bytes(content)
        with pytest.raises(RunnerError, match=r"is no libLiteRt\.so"):
            amc_bench_files("x86_64", bionic=False, library=library)


@needs_gcc
def test_an_ndk_is_asked_for_and_checked(tmp_path: Path) -> None:
    library = fake_library(tmp_path, "gcc", libc=False)
    with pytest.raises(RunnerError, match="set ANDROID_NDK_HOME"):
        amc_bench_files("x86_64", bionic=True, library=library)
    with pytest.raises(RunnerError, match=r"is no Android NDK.*x86_64-linux-android24-clang"):
        amc_bench_files("x86_64", bionic=True, library=library, ndk=tmp_path)


@needs_gcc
def test_no_compiler_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunnerError, match="no C compiler for x86_64 is at hand: install gcc"):
        amc_bench_files("x86_64", bionic=False)


@needs_gcc
def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(RunnerError, match=r"cannot keep amc_bench in .*file"):
        amc_bench_files("x86_64", bionic=False)


@pytest.mark.parametrize("compiler", ["gcc", CROSS])
def test_the_sources_compile_without_a_warning(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler} (Debian: gcc or gcc-aarch64-linux-gnu)")
    sources = sorted((ROOT / "android_bench" / "program").glob("*.c"))
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]
    command = [compiler, *flags, *map(str, sources), "-o", str(tmp_path / "out"), "-ldl", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("tool", ["cmake", "ninja"])
def test_cmake_builds_it_too(tool: str, tmp_path: Path) -> None:
    for needed, package in (("cmake", "cmake"), ("gcc", "gcc"), ("ninja", "ninja-build")):
        if shutil.which(needed) is None:
            pytest.skip(f"needs {needed} (Debian: {package})")
    generator = ["-G", "Ninja"] if tool == "ninja" else []
    if not generator and shutil.which("make") is None:
        pytest.skip("needs make (Debian: make)")
    subprocess.run(
        ["cmake", "-S", ROOT / "android_bench" / "program", "-B", tmp_path, *generator], check=True, capture_output=True
    )
    subprocess.run(["cmake", "--build", tmp_path], check=True, capture_output=True)
    done = subprocess.run([tmp_path / "amc_bench", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "amc_bench 1\n")
