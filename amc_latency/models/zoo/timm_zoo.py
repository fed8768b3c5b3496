"""timm's networks, where timm is installed: an optional extra."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from amc_latency.arguments.names import nearest
from amc_latency.errors import JobError, UserError
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import Crop, Normalisation

if TYPE_CHECKING:
    from torch import Tensor, nn


def build(spec: ModelSpec, name: str) -> nn.Module:
    """The network `name` with random weights; UserError for a name that timm doesn't have, or without timm."""
    try:
        timm, channels = _known(name), spec.input[0]
        return timm.create_model(name, pretrained=False, num_classes=spec.classes, in_chans=channels)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"timm can't build {name}: {error}") from error


def described(spec: ModelSpec, name: str) -> ModelSpec:
    """With channels, height and width of the images that timm's weights of `name` were trained on."""
    channels, height, width = _config(name).input_size
    return replace(spec, input=(channels, height, width))


def pretrained(name: str, which: str) -> dict[str, Tensor]:
    """timm's weights of `name`; `which` is "pretrained" or "DEFAULT", other ones are a part of timm's name.

    Raises UserError if there are none, JobError if they can't be downloaded.
    """
    timm = _known(name)
    if which not in ("pretrained", "DEFAULT"):
        raise UserError(
            f"{which}: no such file; timm's own weights are `weights='pretrained'`, others have a tag: timm:{name}.TAG"
        )
    if not timm.is_model_pretrained(name):
        raise UserError(f"timm has no weights of {name}: give a file, or leave `weights` out for random ones")
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # whatever the hub's client raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JobError(
            f"timm's weights of {name} can't be downloaded ({reason}); give them as a file: `weights=FILE`"
        ) from error


def normalisation(name: str) -> Normalisation:
    """What timm's weights of `name` expect."""
    config = _config(name)
    return Normalisation(tuple(config.mean), tuple(config.std))


def crop(name: str, which: str) -> Crop:
    """What of a photo timm's weights of `name` are evaluated on."""
    config = _config(name)
    known = config.interpolation if config.interpolation in ("bilinear", "bicubic") else "bicubic"
    return Crop(config.crop_pct, known)


def _config(name: str) -> Any:
    return _known(name).get_pretrained_cfg(name)


def _known(name: str) -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"timm:{name} needs timm: pip install 'amc-latency[timm]'") from error
    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        hint = "`timm.list_models()` names them" if near is None else f"did you mean timm:{near}?"
        raise UserError(f"timm has no network {name}; {hint}")
    return timm
