"""What is no regular file, or not one's own: pipes, devices, folders, links; and names that are hard to write."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from benchmarks.attacks.commands import command
from benchmarks.attacks.harness import Attack, Case, Wrong

_ROOT = Path(__file__).resolve().parents[2]
_TABLE = _ROOT / "lut/tables/host-epyc-zen4.tsv"
_SECRET = b"not to be overwritten"


def attacks() -> list[Attack]:
    """Odd files to read, odd places to write, and others' links in the way."""
    return [
        Attack("odd files to read", _to_read, len(_KINDS) * len(_READERS), 24, case_s=30.0),
        Attack("odd places to write", _to_write, len(_PLACES) * len(_WRITERS), 12, case_s=60.0),
        Attack("links where temporary files go", _links, 20, 4, case_s=30.0),
    ]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _socket(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _unreadable(path: Path) -> None:
    path.write_bytes(b"#")  # root may read it all the same
    path.chmod(0)


def _nul(path: Path) -> None:
    path.write_bytes(b"\0")


_KINDS: dict[str, Callable[[Path], None]] = {
    "a pipe": _fifo,
    "/dev/zero": _link_to("/dev/zero"),
    "/dev/random": _link_to("/dev/random"),
    "/dev/null": _link_to("/dev/null"),
    "/dev/tty": _link_to("/dev/tty"),
    "/dev/stdin": _link_to("/dev/stdin"),
    "/proc/self/mem": _link_to("/proc/self/mem"),
    "a folder": Path.mkdir,
    "a socket": _socket,
    "a link to itself": _loop,
    "a dangling link": _link_to("nowhere"),
    "an empty file": Path.touch,
    "a file that may not be read": _unreadable,
    "one NUL byte": _nul,
}
_READERS: dict[str, tuple[str, tuple[object, ...]]] = {
    "lut check": ("x.tsv", ("lut", "check", "FILE")),
    "lut show": ("x.tsv", ("lut", "show", "FILE")),
    "lut diff": ("x.tsv", ("lut", "diff", _TABLE, "FILE")),
    "lut merge": ("x.tsv", ("lut", "merge", _TABLE, "FILE", "--out", "DIR/m.tsv")),
    "lut export": ("x.tsv", ("lut", "export", "FILE", "--csv", "DIR/x.csv")),
    "predict --lut": ("x.tsv", ("predict", "--model", "lenet5", "--lut", "FILE")),
    "profile --lut": ("x.tsv", ("profile", "--device", "replay", "--lut", "FILE")),
    "import of a log": ("x.log", ("lut", "import", "FILE", "--model", "lenet5", "--out", "DIR/t.tsv")),
    "import of blocks": ("x.yaml", ("lut", "import", "FILE", "--format", "ofa", "--out", "DIR/t.tsv")),
    "bench": ("x.tflite", ("bench", "FILE")),
    "a checkpoint": ("x.safetensors", ("inspect", "--model", "FILE")),
    "weights": ("x.pt", ("inspect", "--model", "lenet5", "--weights", "FILE")),
    "weights, safetensors": ("x.safetensors", ("inspect", "--model", "lenet5", "--weights", "FILE")),
    "a function's file": ("x.py", ("inspect", "--model", "FILE:build")),
    "data": ("x", ("train", "--data", "folder:FILE", "--epochs", 1, "--out", "DIR/n.safetensors")),
    "a run folder's config": ("config.toml", ("search", "--speedup", 2, "--data", "bundled", "--out", "DIR")),
}


def _to_read(folder: Path) -> Callable[[Case], None]:
    def try_case(case: Case) -> None:
        kind, make = list(_KINDS.items())[case.number % len(_KINDS)]
        # Each of a quick run has another reader.
        reader, (name, arguments) = list(_READERS.items())[(case.number + case.number // len(_KINDS)) % len(_READERS)]
        case.note = f"{kind} for {reader}"
        place = Path(f"read-{case.number}")
        place.mkdir()
        path = place / name
        make(path)
        said = command(*(str(word).replace("FILE", str(path)).replace("DIR", str(place)) for word in arguments))
        if said.code == 0:
            raise Wrong(f"it was taken: {said.out[-200:]}")

    return try_case


def _full_device(path: Path) -> Path:
    path.symlink_to("/dev/full")
    return path


def _made(make: Callable[[Path], None]) -> Callable[[Path], Path]:
    def place(path: Path) -> Path:
        make(path)
        return path

    return place


_PLACES: dict[str, Callable[[Path], Path]] = {
    "a pipe": _made(_fifo),
    "/dev/full": _full_device,
    "a folder": _made(Path.mkdir),
    "a link to itself": _made(_loop),
    "in a file": lambda path: _made(Path.touch)(path) / path.name,
    "a name of 250 bytes": lambda path: path.with_name("x" * (250 - len(path.suffix)) + path.suffix),
    "a name of 84 characters that are 252 bytes": lambda path: path.with_name(
        "\u4e16" * ((252 - len(path.suffix)) // 3) + path.suffix
    ),
    "a name of 300 bytes": lambda path: path.with_name("x" * 300 + path.suffix),
    "a name with control characters": lambda path: path.with_name(f"\x1b[2J\x07{path.name}"),
    "a name that is markup": lambda path: path.with_name(f"[red]a[link=x]{path.name}"),
    "a name that turns the writing": lambda path: path.with_name(f"\u202e{path.name}"),
    "a name that is no text": lambda path: path.with_name(os.fsdecode(b"\xff\xfe") + path.name),
}
_WRITERS: dict[str, tuple[str, tuple[object, ...]]] = {
    "export": ("x.tflite", ("export", "--model", "lenet5", "--width", 0.2, "--weights", "random", "--out")),
    "lut export": ("x.csv", ("lut", "export", "TABLE", "--csv")),
    "lut merge": ("x.tsv", ("lut", "merge", "TABLE", "OTHER", "--out")),
    "train": (
        "x.safetensors",
        ("train", "--model", "lenet5", "--width", 0.2, "--image-size", 16, "--epochs", 1, "--data", "few", "--out"),
    ),
}


def _small_tables(folder: Path) -> tuple[Path, Path]:
    """The first rows of the bundled table, twice."""
    lines = _TABLE.read_bytes().split(b"\n")[:200]
    pair = folder / "one.tsv", folder / "other.tsv"
    for path in pair:
        path.write_bytes(b"\n".join(lines) + b"\n")
    return pair


def _to_write(folder: Path) -> Callable[[Case], None]:
    from benchmarks.attacks.jobs import FEW_IMAGES

    table, other = _small_tables(folder)
    known = {"TABLE": str(table), "OTHER": str(other), "few": FEW_IMAGES}

    def try_case(case: Case) -> None:
        kind, make = list(_PLACES.items())[case.number % len(_PLACES)]
        writer, (name, arguments) = list(_WRITERS.items())[(case.number + case.number // len(_PLACES)) % len(_WRITERS)]
        case.note = f"{writer} to {kind}"
        place = Path(f"write-{case.number}")
        place.mkdir()
        path = make(place / name)
        said = command(*(known.get(str(word), word) for word in arguments), path)
        there = _is_there(path)
        if (said.code == 0) != there:
            raise Wrong(
                f"exit code {said.code}, and the file is {'there' if there else 'not there'}: {said.err[-300:]}"
            )
        if left := [each.name[:40] for each in place.iterdir() if each.name != path.name and each.name != name]:
            raise Wrong(f"left behind: {left}")
        shutil.rmtree(place)

    return try_case


def _is_there(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _links(folder: Path) -> Callable[[Case], None]:
    table, other = _small_tables(folder)
    writers: tuple[tuple[str, tuple[object, ...]], ...] = (
        ("x.tflite", _WRITERS["export"][1]),
        ("x.csv", ("lut", "export", table, "--csv")),
        ("x.tsv", ("lut", "merge", table, other, "--out")),
    )

    def try_case(case: Case) -> None:
        name, arguments = writers[case.number % len(writers)]
        case.note = f"links beside {name}"
        place = Path(f"shared-{case.number}")
        place.mkdir()
        secret = place / "secret"
        secret.write_bytes(_SECRET)
        pid = os.getpid()
        for guess in (f".{name}.{pid}.tmp", f"{name}.{pid}.new", f"..{name}.{pid}.tmp.{pid}.new", f"{name}.tmp"):
            (place / guess).symlink_to("secret")
        if case.number % 2:
            # The target itself is a link: what it points to is somebody's.
            (place / name).symlink_to("secret")
        said = command(*arguments, place / name)
        if secret.read_bytes() != _SECRET:
            raise Wrong(f"a link was followed, and its target overwritten (exit code {said.code})")
        shutil.rmtree(place)

    return try_case
