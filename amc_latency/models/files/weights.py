"""Weights on disk: what a file holds, whether it fits a network, and what tells two networks' weights apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amc_latency.android_bench.safe.files import replacing
from amc_latency.android_bench.safe.limits import CHECKPOINT_BYTES
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.errors import JobError, UserError
from amc_latency.models.files.archive import is_archive, why_not_stored
from amc_latency.models.files.file_kinds import WEIGHTS_SUFFIXES, foreign_kind
from amc_latency.models.files.pickles import why_not_old
from amc_latency.models.files.snapshot import snapshot

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".safetensors", *WEIGHTS_SUFFIXES)
_SHOWN = 3
_HOLDERS = ("state_dict", "model")
"""keys under which a training script keeps the tensors beside other things; under any other key they are
taken where one value alone holds any"""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""what DataParallel, torch.compile and most Lightning modules put before every name"""
_AUXILIARY = ("aux", "AuxLogits.")
"""heads that only training uses"""
_COUNTER = "num_batches_tracked"
"""of batch norms: older files lack it, and nothing depends on it"""
_AVERAGED = "n_averaged"
"""how often AveragedModel was updated"""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file in one step: a kill leaves the old file or the new one, never half of one."""
    from safetensors.torch import save

    # Bytes of a path that are no UTF-8 can't be stored.
    metadata = {name: text.encode("utf-8", "backslashreplace").decode() for name, text in metadata.items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(_in_order(save(plain, metadata)))
    except OSError as error:
        raise JobError(f"{path}: can't be written ({error.strerror}); make room or name another path") from error


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted by name: the library's order differs from one process to another."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    # Tensors begin at a multiple of 8 bytes, as the format asks for.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file as (tensors, metadata); UserError if missing, truncated or something else."""
    from safetensors import SafetensorError, safe_open

    with _whole(path) as copy:
        try:
            with safe_open(copy, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            why = str(error).replace(str(copy), str(path))
            raise UserError(f"{path}: not a safetensors file, or truncated ({why}); copy or make it anew") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt, .pth or such file by name. Nothing is unpickled but tensors and plain values.

    Raises UserError for a file that is missing, broken, or holds something else than a state_dict.
    """
    import torch

    if path.suffix == ".safetensors":
        found: Any = read_tensors(path)[0]
    else:
        found = _read_torch(path)
    for holder in _HOLDERS:
        if isinstance(found, Mapping) and isinstance(found.get(holder), Mapping):
            found = found[holder]
    if isinstance(found, Mapping) and not _is_state_dict(found):
        held = {key: value for key, value in found.items() if _is_state_dict(value)}
        if len(held) > 1:
            raise UserError(f"{path} holds tensors under {_keys(held)}: save the one to take as a file")
        found = next(iter(held.values()), found)
    if not _is_state_dict(found):
        items = found.items() if isinstance(found, Mapping) else ()
        others = [key for key, value in items if not isinstance(value, torch.Tensor)]
        keys = f" with {_keys(others)}" if others else ""
        raise UserError(
            f"{path} holds a {type(found).__name__}{keys}, not tensors by name: "
            "write it by torch.save(model.state_dict(), ...)"
        )
    return dict(found)


def _keys(keys: Iterable[object]) -> str:
    """The first few, as text; of what is no text only its type, whose text may be of any length."""
    return ", ".join(shown_line(key) if isinstance(key, str) else f"a {type(key).__name__}" for key in [*keys][:_SHOWN])


def check_fit(source: Path | str, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError with the first three tensors that `model` and the file don't have alike, and both shapes."""
    expected = model.state_dict()
    wrong = []
    for name in [*expected, *(name for name in tensors if name not in expected)]:
        wanted = tuple(expected[name].shape) if name in expected else "no such tensor"
        found = tuple(tensors[name].shape) if name in tensors else "no such tensor"
        if wanted != found:
            wrong.append(f"{name}: the network has {wanted}, the file {found}")
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(
            f"{source}: the weights don't fit the network, first at {'; '.join(wrong[:_SHOWN])}{more}: "
            "use the file that belongs to this network"
        )


def put_weights(source: Path | str, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load `tensors` into `model`, without what only training needs.

    UserError as `check_fit` if they don't fit, and as `converted` if they are no floats.
    """
    from amc_latency.models.files.tensor_kinds import converted
    from amc_latency.models.zoo.wrappers import without_segments

    expected = model.state_dict()
    if _AVERAGED not in expected:
        tensors = {name: tensor for name, tensor in tensors.items() if name != _AVERAGED}
    for prefix in _PREFIXES:
        # A network may have a part of that name itself.
        if all(name.startswith(prefix) for name in tensors) and not tensors.keys() & expected.keys():
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    # Wrapped parts, such as DataParallel's features.
    plain = {name: without_segments(name) for name in tensors if name not in expected}
    tensors = {plain[name] if plain.get(name) in expected else name: tensor for name, tensor in tensors.items()}
    wanted = {name: tensor for name, tensor in tensors.items() if name in expected or not _is_spare(name)}
    for name, tensor in expected.items():
        if name.endswith(_COUNTER):
            wanted.setdefault(name, tensor)
    check_fit(source, model, wanted)
    model.load_state_dict(converted(source, model, wanted))


def weights_digest(model: nn.Module) -> str:
    """The sha256 of every name, shape, type and value in `model`: what tells trained weights apart."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _why_not_old(path: Path) -> str | None:
    """What keeps a file from before zip archives from being read; None also for one that is no such file at all."""
    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            return None
        file.seek(0)
        return why_not_old(file)


def _is_spare(name: str) -> bool:
    return name.startswith(_AUXILIARY) or name.endswith(_COUNTER)


def _is_state_dict(found: Any) -> bool:
    import torch

    if not isinstance(found, Mapping) or not found:
        return False
    return all(isinstance(value, torch.Tensor) for value in found.values())


def _read_torch(path: Path) -> Any:
    import pickle

    import torch

    with _whole(path) as copy:
        kind, archive = foreign_kind(copy, path.suffix), is_archive(copy)
        if kind is not None:
            raise UserError(f"{path} is {kind}")
        reason = why_not_stored(copy) if archive else _why_not_old(copy)
        if reason is not None:
            raise UserError(f"{path}: no file of PyTorch weights: {reason}")
        try:
            # Mapped, a tensor is a part of the file, whatever size the archive says it has.
            return torch.load(copy, map_location="cpu", weights_only=True, mmap=archive)
        except pickle.UnpicklingError as error:
            pickled = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
            what = f"holds more than tensors: {pickled[1]} is" if pickled else "is broken, or holds more than tensors,"
            raise UserError(
                f"{path} {what} pickled in it, as in a whole model or a training script's state, which could run code "
                "when it is read: write it anew by torch.save(model.state_dict(), ...)"
            ) from error
        except Exception as error:  # whatever other bytes make of it
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(str(copy), str(path))
            raise UserError(f"{path}: no file of PyTorch weights, or truncated ({reason})") from error


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """`snapshot` of a file of weights; `UserError` in place of `OSError`."""
    _check_there(path)
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(snapshot(path, CHECKPOINT_BYTES))
        except OSError as error:
            raise UserError(f"{path}: can't be read ({error.strerror})") from error
        yield copy


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
