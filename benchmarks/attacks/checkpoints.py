"""Checkpoints and weights: damaged, with other descriptions, with the names of code, and with code in them."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.attacks.commands import command
from benchmarks.attacks.harness import Attack, Case, Wrong
from benchmarks.attacks.mutate import damaged, odd_place, odd_value
from benchmarks.attacks.tables import allowed

_SPEC = "amc_latency_spec"
_CODE = "model.py"
_BY_COMMAND = 50


def attacks() -> list[Attack]:
    """Files that anyone may send."""
    return [
        Attack("checkpoints (safetensors)", _checkpoints, 6_000, 200, case_s=20.0),
        Attack("weights (.pt)", _weights, 3_000, 150, case_s=20.0),
        Attack("checkpoints that name code", _that_name_code, len(_NAMES) * len(_COMMANDS), 12, case_s=30.0),
        Attack("weights with code in them", _with_code, len(_PAYLOADS) * 2, len(_PAYLOADS), case_s=30.0),
    ]


class Trap:
    """A `model.py` where the user works. Nobody named it, so it must not run."""

    def __init__(self) -> None:
        self._marker = Path("ran").absolute()
        text = f"open({str(self._marker)!r}, 'w')\nraise SystemExit('ran')\n"
        for name in (_CODE, "build.py", "amc_extra.py"):
            Path(name).write_text(text)

    @property
    def path(self) -> Path:
        """The module."""
        return Path(_CODE).absolute()

    @property
    def marker(self) -> Path:
        """What is there once any of it has run."""
        return self._marker

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        """Raise `Wrong` if it has run, whatever else was said."""
        if self._marker.exists():
            self._marker.unlink()
            raise Wrong("code ran that the user had not named")


def _checkpoint(path: Path) -> bytes:
    from amc_latency.models.files.checkpoint import save_checkpoint
    from amc_latency.models.registry import build_model
    from amc_latency.models.spec import ModelSpec

    spec = ModelSpec("lenet5", 0.2, input=(1, 28, 28), classes=10)
    save_checkpoint(path, build_model(spec), spec, {"epochs": "1"})
    return path.read_bytes()


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def _joined(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def described(content: bytes, **spec: Any) -> bytes:
    """The checkpoint with other words in its description of the network."""
    header, data = _parts(content)
    record = {**json.loads(header["__metadata__"][_SPEC]), **spec}
    header["__metadata__"][_SPEC] = json.dumps(record)
    return _joined(header, data)


def _checkpoints(folder: Path) -> Callable[[Case], None]:
    from amc_latency.models.files.checkpoint import load_checkpoint

    path, trap = folder / "net.safetensors", Trap()
    whole = _checkpoint(path)

    def try_case(case: Case) -> None:
        case.content = _other_checkpoint(case.draw, whole)
        path.write_bytes(case.content)
        with trap:
            with allowed():
                load_checkpoint(path)
            if case.number % _BY_COMMAND == 0:
                command("inspect", "--model", path)

    return try_case


def _other_checkpoint(draw: random.Random, whole: bytes) -> bytes:
    header, data = _parts(whole)
    match draw.randrange(6):
        case 0:
            return damaged(draw, whole)
        case 1:
            return _joined(damaged(draw, json.dumps(header).encode()), data)
        case 2:
            return _joined(_dumped(odd_place(draw, header)), data)
        case 3:
            header["__metadata__"] = _texts(odd_place(draw, header["__metadata__"]))
        case _:
            spec = json.loads(header["__metadata__"][_SPEC])
            header["__metadata__"][_SPEC] = _dumped(odd_place(draw, spec)).decode()
            if draw.random() < 0.2:
                sizes = (1000, 10**6, 10**9, 10**18, 0, -1, 1e9, 1e308)
                odd = {"classes": draw.choice(sizes), "width": draw.choice(sizes), "channels": [draw.choice(sizes)] * 4}
                odd["input"] = [draw.choice(sizes), 28, draw.choice(sizes)]
                name = draw.choice(list(odd))
                header["__metadata__"][_SPEC] = json.dumps({**spec, name: odd[name]})
    return _joined(header, data)


def _dumped(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return b"[" * 100_000


def _texts(value: Any) -> Any:
    """Metadata as safetensors takes it, so that more than its own reader is tried."""
    return {str(key)[:100]: str(item) for key, item in value.items()} if isinstance(value, dict) else value


def _weights(folder: Path) -> Callable[[Case], None]:
    import torch

    from amc_latency.models.files.weights import read_weights
    from amc_latency.models.load import NetworkOptions, load_network
    from amc_latency.models.registry import build_model
    from amc_latency.models.spec import ModelSpec

    tensors = build_model(ModelSpec("lenet5", 0.2, input=(1, 28, 28), classes=10)).state_dict()
    wholes = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save(tensors, file, _use_new_zipfile_serialization=new)
        wholes.append(file.getvalue())
    path, trap = folder / "net.pt", Trap()

    def try_case(case: Case) -> None:
        draw = case.draw
        if draw.random() < 0.3:
            file = io.BytesIO()
            odd = {name: odd_value(draw) if draw.random() < 0.1 else tensor for name, tensor in tensors.items()}
            torch.save(draw.choice((odd, {"state_dict": odd}, {"model": odd_value(draw)}, [odd])), file)
            case.content = file.getvalue()
        else:
            case.content = damaged(draw, draw.choice(wholes))
        path.write_bytes(case.content)
        with trap:
            with allowed():
                read_weights(path)
            if case.number % _BY_COMMAND == 0:
                with allowed():
                    load_network(NetworkOptions("lenet5", 0.2, weights=str(path)))

    return try_case


_NAMES = (
    f"{_CODE}:build",
    f"./{_CODE}:build",
    f"../work/{_CODE}:build",
    "{trap}:build",
    "{os}:abort",
    "{os}:_exit",
    "build:build",
    "build.build",
    "torchvision:../../model",
    "timm:local-dir:.",
    "timm:hf-hub:nobody/nothing",
    f"{_CODE}:build\n",
    f" {_CODE}:build",
    "\x1b[2J",
    "[/x]",
)
_COMMANDS: dict[str, tuple[object, ...]] = {
    "inspect": ("inspect", "--model", "net.safetensors"),
    "predict": ("predict", "--model", "net.safetensors"),
    "export": ("export", "--model", "net.safetensors", "--out", "x.tflite"),
    "finetune": (
        "finetune",
        "--model",
        "net.safetensors",
        "--data",
        "bundled",
        "--epochs",
        1,
        "--out",
        "y.safetensors",
    ),
    "search": ("search", "--model", "net.safetensors", "--speedup", 2, "--data", "bundled", "--out", "run"),
    "weights": ("inspect", "--model", "lenet5", "--weights", "net.safetensors"),
}


def _that_name_code(folder: Path) -> Callable[[Case], None]:
    trap, path = Trap(), Path("net.safetensors")
    whole = _checkpoint(path)

    def try_case(case: Case) -> None:
        name = _NAMES[case.number % len(_NAMES)].format(trap=trap.path, os=os.__file__)
        arguments = list(_COMMANDS.values())[case.number // len(_NAMES) % len(_COMMANDS)]
        case.note = f"{arguments[0]} of a checkpoint of {name!r}"
        case.content = described(whole, name=name, channels=None)
        path.write_bytes(case.content)
        with trap:
            said = command(*arguments)
        if said.code == 0 and "--weights" not in arguments:
            raise Wrong("it was taken")
        for module in ("model", "build"):
            if module in sys.modules:
                raise Wrong(f"{module} was imported")

    return try_case


class _Runs:
    """Whoever unpickles it runs its call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


_PAYLOADS: tuple[tuple[str, Any, str], ...] = (
    ("open", open, "w"),
    ("exec", exec, ""),
    ("os.mkdir", os.mkdir, ""),
    ("os.system", os.system, ""),
    ("getattr", getattr, ""),
)


def _with_code(folder: Path) -> Callable[[Case], None]:
    import torch

    trap = Trap()

    def try_case(case: Case) -> None:
        name, function, extra = _PAYLOADS[case.number % len(_PAYLOADS)]
        target = {
            "exec": (f"open({str(trap.marker)!r}, 'w')",),
            "os.system": (f"touch '{trap.marker}'",),
            "getattr": (os, "abort"),
        }.get(name, (str(trap.marker), extra) if extra else (str(trap.marker),))
        case.note = name
        if name == "getattr":
            payload: Any = _Runs(function, "x", "upper")
        else:
            payload = _Runs(function, *target)
        zipped = case.number // len(_PAYLOADS) % 2 == 0
        path = Path("net.pt")
        if zipped:
            torch.save({"a": payload}, path)
        else:
            path.write_bytes(pickle.dumps({"a": payload}))
        case.content = path.read_bytes()
        for arguments in (("--model", "lenet5", "--weights", path), ("--model", path)):
            with trap:
                said = command("inspect", *arguments)
            if said.code != 2:
                raise Wrong(f"it was taken, with exit code {said.code}")

    return try_case
