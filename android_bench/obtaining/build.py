"""Builds `amc_bench` for a phone or a computer, and finds the `libLiteRt.so` that goes with it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from amc_latency.android_bench import SOURCES
from amc_latency.android_bench.runner import RunnerError
from amc_latency.android_bench.safe.files import read_bytes, replacing
from amc_latency.android_bench.safe.limits import PROGRAM_BYTES

PROGRAM = "amc_bench"
LIBRARY = "libLiteRt.so"
_MACHINES = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64", "arm64-v8a": "aarch64"}
_ELF_MACHINES = {62: "x86_64", 183: "aarch64", 3: "x86", 40: "arm"}  # e_machine in the ELF specification
_ANDROID_API = 24
_COMPILE_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra")
_LINK_FLAGS = ("-ldl", "-lm")
# Phones with pages of 16 KiB load nothing that is aligned to less.
_BIONIC_FLAGS = ("-fPIE", "-pie", "-Wl,-z,max-page-size=16384")


def amc_bench_files(abi: str, bionic: bool, library: Path | None = None, ndk: Path | None = None) -> dict[str, bytes]:
    """The program `amc_bench` and its `libLiteRt.so`, name to content, for Android (`bionic`) or Linux.

    `abi` is `x86_64`, `aarch64` or `arm64-v8a`. `library` is needed wherever the installed ai-edge-litert has none that
    fits; `ndk` is the Android NDK's folder, else ANDROID_NDK_HOME or ANDROID_NDK_ROOT. The program is built once and
    kept in the user's cache folder. Raises `RunnerError` for what is missing or does not fit.
    """
    machine = _MACHINES.get(abi)
    if machine is None:
        raise RunnerError(f"amc_bench runs on x86_64 and arm64-v8a, not on {abi}: use benchmark_model there")
    # The library first: it is what most users will have to get.
    content = _library(machine, bionic, library)
    compiler = _ndk_compiler(machine, ndk) if bionic else _linux_compiler(machine)
    return {PROGRAM: _program(compiler, _BIONIC_FLAGS if bionic else ()), LIBRARY: content}


def _library(machine: str, bionic: bool, path: Path | None) -> bytes:
    if path is None:
        if bionic or machine != _host_machine():
            system = "Android" if bionic else "Linux"
            raise RunnerError(
                f"amc_bench needs a libLiteRt.so for {system} {machine}: name one, or use benchmark_model"
            )
        path = _installed_library()
    try:
        content = read_bytes(path, PROGRAM_BYTES)
    except OSError as error:
        raise RunnerError(f"cannot read {path}: {error.strerror}") from None
    found = _elf_machine(content)
    if found is None or b"LiteRtCreateCompiledModel\0" not in content:
        raise RunnerError(f"{path} is no libLiteRt.so: take the one of LiteRT 2.1.6 to 2.3")
    if found != machine:
        raise RunnerError(f"{path} was built for {found}, but {machine} is needed: take the one of that architecture")
    # What a library needs from glibc bears this name; Android's is just libc.so.
    if (b"\0libc.so.6\0" in content) == bionic:
        have, need = ("Linux", "Android") if bionic else ("Android", "Linux")
        raise RunnerError(f"{path} was built for {have}, but one for {need} is needed")
    return content


def _elf_machine(content: bytes) -> str | None:
    """The architecture of an ELF file in little-endian order, None for anything else."""
    if len(content) < 20 or content[:4] != b"\x7fELF" or content[5] != 1:
        return None
    number = int.from_bytes(content[18:20], "little")
    return _ELF_MACHINES.get(number, f"ELF machine {number}")


def _installed_library() -> Path:
    """The installed ai-edge-litert's, found without importing it."""
    spec = importlib.util.find_spec("ai_edge_litert")
    for folder in spec.submodule_search_locations or () if spec else ():
        if (path := Path(folder) / LIBRARY).is_file():
            return path
    raise RunnerError(f"there is no {LIBRARY}: install ai-edge-litert 2.1.6 to 2.3, or name a library")


def _host_machine() -> str | None:
    return _MACHINES.get(platform.machine())


def _linux_compiler(machine: str) -> Path:
    native = machine == _host_machine()
    names = ("cc", "gcc") if native else (f"{machine}-linux-gnu-gcc",)
    for name in names:
        if path := shutil.which(name):
            return Path(path)
    raise RunnerError(f"no C compiler for {machine} is at hand: install {names[-1]}, or use benchmark_model")


def _ndk_compiler(machine: str, ndk: Path | None) -> Path:
    named = ndk or os.environ.get("ANDROID_NDK_HOME") or os.environ.get("ANDROID_NDK_ROOT")
    if not named:
        raise RunnerError("amc_bench is built with the Android NDK: set ANDROID_NDK_HOME, or use benchmark_model")
    pattern = f"toolchains/llvm/prebuilt/*/bin/{machine}-linux-android{_ANDROID_API}-clang"
    for path in sorted(Path(named).glob(pattern)):
        return path
    raise RunnerError(f"{named} is no Android NDK (r19 or newer) to build amc_bench with: it has no {pattern}")


def _program(compiler: Path, flags: tuple[str, ...]) -> bytes:
    """The program, from the cache or built; the cache is keyed by source, compiler and flags."""
    from platformdirs import user_cache_path

    folder = SOURCES
    sources = sorted(folder.glob("*.c"))
    command = [str(compiler), *_COMPILE_FLAGS, *flags]
    key = hashlib.sha256("\n".join([*command, *_LINK_FLAGS, _output([str(compiler), "--version"])]).encode())
    for path in sorted([*sources, *folder.glob("*.h")]):
        key.update(f"{path.name}\n".encode() + path.read_bytes())
    cached = user_cache_path("amc-latency") / PROGRAM / key.hexdigest()[:32]
    try:
        if cached.is_file():
            return cached.read_bytes()
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            built = Path(scratch) / PROGRAM
            _output([*command, *map(str, sources), "-o", str(built), *_LINK_FLAGS])
            # Several processes may build at once: each puts a whole file in place.
            with replacing(cached) as temporary:
                temporary.write_bytes(built.read_bytes())
        return cached.read_bytes()
    except OSError as error:
        raise RunnerError(f"cannot keep amc_bench in {cached.parent}: {error.strerror}") from None


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunnerError(f"the compiler {command[0]} cannot be run: {error}") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        raise RunnerError(f"{command[0]} cannot build amc_bench: {errors[0].strip()}")
    return done.stdout
