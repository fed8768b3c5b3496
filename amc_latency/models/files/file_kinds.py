"""What a file is that was named for a network or weights, by its first bytes, and what to give in its place."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from amc_latency.android_bench.safe.files import regular_file
from amc_latency.android_bench.safe.limits import CHECKPOINT_BYTES
from amc_latency.errors import UserError
from amc_latency.models.spec import names_own_file

WEIGHTS_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin")
"""under which PyTorch's weights are saved, beside .safetensors"""
_PLAIN = "save the plain module's weights by torch.save(model.state_dict(), ...)"
_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file, such as Keras's"),
    (b"TFL3", 4, "a .tflite, a finished file that `amc-latency bench` times"),
    (b"GGUF", 0, "a GGUF file of a language model"),
    (b"\x93NUMPY", 0, "a NumPy array"),
    (b"version https://git-lfs", 0, "a pointer of Git LFS, not the file itself: run `git lfs pull`"),
    (b"<!DOCTYPE", 0, "a web page, not the file: download it anew"),
    (b"<html", 0, "a web page, not the file: download it anew"),
    (b"\x1f\x8b", 0, "a gzip archive: unpack it first"),
)
_MEMBERS = (
    (r"[^/]+/constants\.pkl", "TorchScript, as torch.jit.save writes it, not weights: {plain}"),
    (r"([^/]+/)?(models/\w+\.json|serialized_exported_program\.json)", "what torch.export.save writes: {plain}"),
    (r"([^/]+/)?\.data/extern_modules", "a torch.package, not weights: {plain}"),
    (r"model\.weights\.h5", "a Keras model: only PyTorch's weights are read"),
    (r".+\.npy", "a NumPy archive, not PyTorch's weights"),
)
"""of a zip archive: a member's name, and what has it"""
_NO_NETWORK = {
    ".onnx": "an ONNX file",
    ".tflite": "a .tflite, a finished file that `amc-latency bench` times",
    ".pb": "a TensorFlow graph",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".mlmodel": "a Core ML model",
    ".engine": "a TensorRT engine",
}
_HOW = "A network is built by PyTorch: name it, such as torchvision:resnet18, or a function as FILE.py:FUNCTION"


def foreign_kind(path: Path, suffix: str | None = None) -> str | None:
    """What a file is if its bytes, or its `suffix`, that of `path` unless given, say that it holds no weights of
    PyTorch's; None if they don't. May raise OSError.
    """
    with regular_file(path, CHECKPOINT_BYTES) as file:
        head = file.read(64)
    for magic, at, what in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return what
    if (path.suffix if suffix is None else suffix).lower() == ".onnx":
        return "an ONNX file"
    if head[:4] == b"PK\x03\x04":
        names = _members(path)
        # TorchScript has the constants of its code; plain weights have none.
        for pattern, what in _MEMBERS:
            if any(re.fullmatch(pattern, name) for name in names):
                return what.format(plain=_PLAIN)
    return None


def _members(path: Path) -> list[str]:
    """The names in an archive; none in a damaged one, which whoever reads it says more of."""
    try:
        with regular_file(path, CHECKPOINT_BYTES) as file, zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeDecodeError):
        return []


def check_network_name(name: str) -> None:
    """Raise `UserError` for a file, folder or dotted name that is meant as `model` and is no network, with advice."""
    path = Path(name)
    suffix = path.suffix.lower()
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        which = f"name a checkpoint in it, such as {found[0]}" if found else _HOW[0].lower() + _HOW[1:]
        raise UserError(f"{name} is a folder, not a network: {which}")
    if path.is_file() and suffix != ".safetensors":
        try:
            kind = foreign_kind(path)
        except OSError as error:
            raise UserError(f"{name}: can't be read ({error.strerror})") from error
        if kind is not None:
            raise UserError(f"{name} is {kind}. {_HOW}")
        if suffix in WEIGHTS_SUFFIXES or _is_pickled(path):
            raise UserError(f"{name} holds weights, not the network that they belong to: say {weights_advice(name)}")
    if not path.exists() and suffix in _NO_NETWORK:
        raise UserError(f"{name}: {_NO_NETWORK[suffix]} is no network that can be cut. {_HOW}")
    if not path.exists() and suffix in WEIGHTS_SUFFIXES:
        raise UserError(f"{name}: no such file; weights go with their network: say {weights_advice(name)}")
    dotted = re.fullmatch(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", name)
    if dotted and not names_own_file(name) and dotted[1] not in ("torchvision", "timm"):
        raise UserError(
            f"{name}: a function is named by its file: {dotted[1].replace('.', '/')}.py:{dotted[2]}, or so; "
            "torchvision:NAME and timm:NAME are the only others with a colon"
        )


def _is_pickled(path: Path) -> bool:
    """Whether a file begins as `torch.save` begins one: a zip archive, or a pickle of its older format."""
    with regular_file(path, CHECKPOINT_BYTES) as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))


def weights_advice(file: str) -> str:
    """How to say that a file has the weights of a network that is named beside it."""
    return f"`model=NETWORK` and `weights={file}`, where NETWORK is a name such as mobilenet_v2, or FILE.py:FUNCTION"
