"""A network on disk: safetensors, with what it takes to rebuild it as metadata. Nothing is unpickled."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from amc_latency.errors import UserError
from amc_latency.models.file_kinds import weights_advice
from amc_latency.models.registry import ModelSpec, build_model
from amc_latency.models.tensor_kinds import converted
from amc_latency.models.weights import check_fit, read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import nn

SPEC_KEY = "amc_latency_spec"
NORMALISATION_KEY = "normalisation"
"""In `extra`: what the weights were trained with, as `parse_normalisation` reads it. Older checkpoints lack it."""


def bundled_checkpoint() -> Path:
    """MobileNetV1 at width 0.5 for 1 x 64 x 64 images, trained on Fashion-MNIST with `amc-latency train`."""
    return Path(__file__).parent / "mobilenet_v1_050_64_fashion_mnist.safetensors"


Build = Callable[[ModelSpec], "nn.Module"]
"""Makes the network of a spec, whatever its weights."""


def save_checkpoint(
    path: Path, model: "nn.Module", spec: ModelSpec, extra: dict[str, str] | None = None, build: Build = build_model
) -> None:
    """Write `model` with its `spec`, and `extra` as further metadata.

    Raises UserError if `spec` doesn't describe `model` (a cut network needs `channels`), or the path can't be
    written.
    """
    import torch

    with torch.device("meta"):
        check_fit(path, build(spec), model.state_dict())
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


def load_checkpoint(path: Path, build: Build = build_model) -> tuple["nn.Module", ModelSpec, dict[str, str]]:
    """Rebuild the network of a checkpoint: (model in eval mode, its spec, the `extra` it was saved with).

    Raises UserError if the file is no checkpoint, is truncated, or its weights don't fit its own description.
    """
    tensors, metadata = read_tensors(path)
    if SPEC_KEY not in metadata:
        raise UserError(
            f"{path}: a safetensors file, but no checkpoint of amc-latency (no {SPEC_KEY}): if it has weights, say "
            f"{weights_advice(str(path))}"
        )
    spec = _parse_spec(path, metadata.pop(SPEC_KEY))
    try:
        model = build(spec)
    except UserError as error:
        raise UserError(f"{path} holds weights of {spec.name}, which can't be built: {error}") from error
    check_fit(path, model, tensors)
    model.load_state_dict(converted(path, model, tensors))
    return model, spec, metadata
