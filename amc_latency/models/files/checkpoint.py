"""A network on disk: safetensors, with what it takes to rebuild it as metadata. Nothing is unpickled."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from amc_latency.android_bench.safe.files import regular_file
from amc_latency.android_bench.safe.limits import CHECKPOINT_BYTES, COUNT, JSON_BYTES, LAYER_SIZE, PARAMETERS
from amc_latency.android_bench.safe.records import RecordError, from_json
from amc_latency.errors import UserError
from amc_latency.models.files.file_kinds import weights_advice
from amc_latency.models.files.tensor_kinds import converted
from amc_latency.models.files.weights import check_fit, read_tensors, write_tensors
from amc_latency.models.registry import build_model
from amc_latency.models.size import without_memory
from amc_latency.models.spec import ModelSpec, names_own_file

if TYPE_CHECKING:
    from torch import Tensor, nn

LayerSize = Annotated[int, msgspec.Meta(ge=1, le=LAYER_SIZE)]
SPEC_KEY = "amc_latency_spec"
_TAKEN_IN = 1_000_000
NORMALISATION_KEY = "normalisation"
"""In `extra`: what the weights were trained with, as `parse_normalisation` reads it. Older checkpoints lack it."""


def bundled_checkpoint() -> Path:
    """MobileNetV1 at width 0.5 for 1 x 64 x 64 images, trained on Fashion-MNIST with `amc-latency train`."""
    return Path(__file__).parents[1] / "zoo" / "mobilenet_v1_050_64_fashion_mnist.safetensors"


Build = Callable[[ModelSpec], "nn.Module"]
"""Makes the network of a spec, whatever its weights."""


def save_checkpoint(
    path: Path, model: "nn.Module", spec: ModelSpec, extra: dict[str, str] | None = None, build: Build | None = None
) -> None:
    """Write `model` with its `spec`, and `extra` as further metadata.

    Raises UserError if `spec` doesn't describe `model` (a cut network needs `channels`), or the path can't be
    written.
    """
    with without_memory():
        check_fit(path, (build or build_model)(spec), model.state_dict())
    write_tensors(path, model.state_dict(), {**(extra or {}), SPEC_KEY: json.dumps(asdict(spec))})


class _Spec(msgspec.Struct):
    """A `ModelSpec` as a checkpoint holds it: all of it, and within what any network has."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    width: float
    input: tuple[LayerSize, LayerSize, LayerSize]
    classes: Annotated[int, msgspec.Meta(ge=1, le=COUNT)]
    channels: Annotated[tuple[LayerSize, ...], msgspec.Meta(max_length=10_000)] | None


class _Header(msgspec.Struct):
    """What a safetensors file begins with, but for its tensors."""

    metadata: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


def _parse_spec(path: Path, text: str) -> ModelSpec:
    try:
        return ModelSpec(**msgspec.structs.asdict(from_json(text, _Spec)))
    except RecordError as error:
        raise UserError(f"{path}: its network description is broken ({error}); write it anew") from error


def load_checkpoint(
    path: Path, own_file: str | None = None, build: Build | None = None
) -> tuple["nn.Module", ModelSpec, dict[str, str]]:
    """Rebuild the network of a checkpoint: (model in eval mode, its spec, the `extra` it was saved with).

    A checkpoint never says whose code is run: the network of an own file is built by `own_file`, "FILE.py:FUNCTION",
    as the user named it. Raises UserError if the file is no checkpoint, is truncated, its weights don't fit its own
    description, or it needs an own file and none was named.
    """
    tensors, metadata = read_tensors(path)
    if SPEC_KEY not in metadata:
        raise UserError(
            f"{path}: a safetensors file, but no checkpoint of amc-latency (no {SPEC_KEY}): if it has weights, say "
            f"{weights_advice(str(path))}"
        )
    spec = _parse_spec(path, metadata.pop(SPEC_KEY))
    if names_own_file(spec.name):
        if own_file is None:
            raise UserError(
                f"{path} holds weights of {spec.name}, whose code is run only if you name it: say "
                f"`model={spec.name}` and `weights={path}`, if you trust that file"
            )
        spec = replace(spec, name=own_file)
    try:
        model = build_model(spec, _most_weights(spec, tensors)) if build is None else build(spec)
    except UserError as error:
        raise UserError(f"{path} holds weights of {spec.name}, which can't be built: {error}") from error
    check_fit(path, model, tensors)
    model.load_state_dict(converted(path, model, tensors))
    return model, spec, metadata


def _most_weights(spec: ModelSpec, tensors: Mapping[str, "Tensor"]) -> int:
    """How many weights the network that is built may have: a few more than the file, unless it is cut once it is made.

    What the normal form takes in, such as batch norms, is not in the file any more.
    """
    if spec.channels is not None and spec.name != "mobilenet_v1":
        return PARAMETERS
    return min(PARAMETERS, 2 * sum(tensor.numel() for tensor in tensors.values()) + _TAKEN_IN)


def is_of_own_file(path: Path) -> bool:
    """Whether the file is a checkpoint of a network that an own file builds, perhaps a cut one."""
    if path.suffix != ".safetensors":
        return False
    try:
        with regular_file(path, CHECKPOINT_BYTES) as file:
            size = int.from_bytes(file.read(8), "little")
            header = from_json(file.read(min(size, JSON_BYTES)), _Header)
    except (OSError, RecordError):
        return False
    text = header.metadata.get(SPEC_KEY)
    return text is not None and names_own_file(_parse_spec(path, text).name)
