"""torchvision's classifiers: built without its slow initialisation, and the weights it downloads."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING

from amc_latency.arguments.names import nearest
from amc_latency.errors import JobError, UserError
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import Crop, Normalisation

if TYPE_CHECKING:
    from torch import Tensor, nn

# Without its auxiliary heads, which no result depends on; and without an initialisation that takes half a minute.
_LEAN = {"googlenet", "inception_v3"}


def classifiers() -> list[str]:
    """The names of torchvision's classification networks."""
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def described(spec: ModelSpec, name: str) -> ModelSpec:
    """With larger images for the one network that can't do with less."""
    return replace(spec, input=(3, 299, 299)) if name == "inception_v3" else spec


def build(spec: ModelSpec, name: str) -> nn.Module:
    """The network `name` for [N, 3, H, W] with random weights; UserError for a name that torchvision doesn't have."""
    import torchvision

    if name not in classifiers():
        close = nearest(name, classifiers())
        hint = f"it has {', '.join(classifiers())}" if close is None else f"did you mean torchvision:{close}?"
        raise UserError(f"torchvision has no classifier {name}; {hint}")
    lean = {"init_weights": False, "aux_logits": False} if name in _LEAN else {}
    return torchvision.models.get_model(name, weights=None, num_classes=spec.classes, **lean)


def pretrained(name: str, which: str) -> dict[str, Tensor]:
    """The weights that torchvision calls `which`, such as IMAGENET1K_V1; "DEFAULT" and "pretrained" are its best.

    Raises UserError if it has no such weights, JobError if they can't be downloaded.
    """
    import torchvision

    known = torchvision.models.get_model_weights(name).__members__
    wanted = "DEFAULT" if which == "pretrained" else which.rpartition(".")[2]
    if wanted not in known:
        raise UserError(
            f"torchvision has no weights {which} of {name}, and there is no such file; it has {', '.join(known)}"
        )
    try:
        # It prints what it downloads, where only results belong.
        with redirect_stdout(sys.stderr):
            return dict(known[wanted].get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise JobError(
            f"the weights {wanted} of {name} can't be downloaded ({error}); "
            f"give them as a file: `weights=FILE` ({known[wanted].url})"
        ) from error


def normalisation(name: str) -> Normalisation | None:
    """What torchvision's weights of `name` expect; None if it has none."""
    import torchvision

    if name in _LEAN:
        # torchvision undoes ImageNet's figures in the network itself (`transform_input`), for weights from TensorFlow.
        return Normalisation((0.5,) * 3, (0.5,) * 3)
    weights = torchvision.models.get_model_weights(name).__members__
    if "DEFAULT" not in weights:
        return None
    transforms = weights["DEFAULT"].transforms()
    return Normalisation(tuple(transforms.mean), tuple(transforms.std))


def crop(name: str, which: str) -> Crop | None:
    """What of a photo torchvision's weights `which` of `name` are evaluated on; its best ones' where that is no name.

    None if it has none.
    """
    import torchvision

    weights = torchvision.models.get_model_weights(name).__members__
    wanted = which.rpartition(".")[2]
    if not (found := weights.get(wanted, weights.get("DEFAULT"))):
        return None
    transforms = found.transforms()
    return Crop(transforms.crop_size[0] / transforms.resize_size[0], transforms.interpolation.value)
