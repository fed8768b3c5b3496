"""A network on disk: safetensors, with what it takes to rebuild it as metadata. Nothing is unpickled."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from amc_latency.errors import JobError, UserError
from amc_latency.files import replacing
from amc_latency.models.registry import ModelSpec, build_model

if TYPE_CHECKING:
    import torch
    from torch import nn

SPEC_KEY = "amc_latency_spec"


def bundled_checkpoint() -> Path:
    """MobileNetV1 at width 0.5 for 1 x 64 x 64 images, trained on Fashion-MNIST with `amc-latency train`."""
    return Path(__file__).parent / "mobilenet_v1_050_64_fashion_mnist.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, "torch.Tensor"], metadata: dict[str, str]) -> None:
    """Write a safetensors file in one step: a kill leaves the old file or the new one, never half of one."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(save(plain, metadata))
    except OSError as error:
        raise JobError(f"{path}: can't be written ({error.strerror}); make room or name another path") from error


def read_tensors(path: Path) -> tuple[dict[str, "torch.Tensor"], dict[str, str]]:
    """Read a safetensors file as (tensors, metadata); UserError if missing, truncated or something else."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a safetensors file, or truncated ({error}); copy or make it anew") from error


def check_fit(path: Path, model: "nn.Module", tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Raise UserError naming the first tensor that `model` and the file don't have alike, and both shapes."""
    expected = model.state_dict()
    for name in [*expected, *(name for name in tensors if name not in expected)]:
        wanted = tuple(expected[name].shape) if name in expected else "no such tensor"
        found = tuple(tensors[name].shape) if name in tensors else "no such tensor"
        if wanted != found:
            raise UserError(
                f"{path}: the weights don't fit the network, first at {name}: the network has {wanted}, "
                f"the file {found}; use the file that belongs to this network"
            )


def save_checkpoint(path: Path, model: "nn.Module", spec: ModelSpec, extra: dict[str, str] | None = None) -> None:
    """Write `model` with its `spec`, and `extra` as further metadata.

    Raises UserError if `spec` doesn't describe `model` (a cut network needs `channels`), or the path can't be
    written.
    """
    import torch

    with torch.device("meta"):
        check_fit(path, build_model(spec), model.state_dict())
    write_tensors(path, model.state_dict(), {**(extra or {}), SPEC_KEY: json.dumps(asdict(spec))})


def _parse_spec(path: Path, text: str) -> ModelSpec:
    try:
        fields = json.loads(text)
        channels, (depth, height, width) = fields["channels"], map(int, fields["input"])
        spec = ModelSpec(
            name=str(fields["name"]),
            width=float(fields["width"]),
            input=(depth, height, width),
            classes=int(fields["classes"]),
            channels=None if channels is None else tuple(map(int, channels)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: its network description is broken ({error!r}); write it anew") from error
    return spec


def load_checkpoint(path: Path) -> tuple["nn.Module", ModelSpec, dict[str, str]]:
    """Rebuild the network of a checkpoint: (model in eval mode, its spec, the `extra` it was saved with).

    Raises UserError if the file is no checkpoint, is truncated, or its weights don't fit its own description.
    """
    tensors, metadata = read_tensors(path)
    if SPEC_KEY not in metadata:
        raise UserError(f"{path}: a safetensors file, but no checkpoint of amc-latency (no {SPEC_KEY})")
    spec = _parse_spec(path, metadata.pop(SPEC_KEY))
    model = build_model(spec)
    check_fit(path, model, tensors)
    model.load_state_dict(tensors)
    return model, spec, metadata
