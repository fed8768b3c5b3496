"""Images for a certain network: of its channels, normalised as it expects them, with labels that it can tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from amc_latency.console import Console
from amc_latency.data.labels import check_labels
from amc_latency.data.load import load_data
from amc_latency.data.splits import ImageData, Split
from amc_latency.errors import UserError
from amc_latency.pixels import NORMALISATIONS, Normalisation

if TYPE_CHECKING:
    import torch
    from torch import nn

    from amc_latency.models.load import Network
    from amc_latency.models.spec import ModelSpec


def data_for(
    network: Network,
    source: str = "auto",
    unlabelled: str | None = None,
    console: Console | None = None,
    introduces: bool = True,
) -> ImageData:
    """The images that `source` names (see `load_data`), or those under the folder `unlabelled`, for `network`.

    Pixels are normalised as the network's weights expect, or else by the data's own figures. What has no labels gets
    those that `network` says. Raises UserError for images that don't fit it, and for some without labels where nobody
    knows what it expects of pixels. With `introduces`, `network_line` is said.
    """
    console = console or Console(quiet=True)
    spec, size = network.spec, network.spec.input[1:]
    if unlabelled is not None:
        from amc_latency.data.sets.folders import load_unlabelled

        if network.pixels is None:
            raise UserError(
                f"how {spec.name} wants pixels normalised is not known, and `unlabelled` goes by what it says of them: "
                f"give `normalisation` MEAN,.../STD,... or one of {', '.join(NORMALISATIONS)}"
            )
        data = fitted(load_unlabelled(Path(unlabelled), size, console), spec, network.pixels)
        if introduces:
            console.say(network_line(data, network))
        data = labelled_by(network.model, data, size, console)
        check_labels(data, spec.name, spec.classes, console)
        return data
    data = load_data(source, size=size, console=console)
    check_labels(data, spec.name, spec.classes, console)
    data = fitted(data, spec, network.pixels)
    if introduces:
        console.say(network_line(data, network))
    return data


def network_line(data: ImageData, network: Network) -> str:
    """What the network takes and tells, and by which figures its pixels are normalised, and why those."""
    from amc_latency.models.spec import ModelSpec, names_own_file

    spec, figures = network.spec, data.normalisation
    is_default = names_own_file(spec.name) and spec.input == ModelSpec.input
    hint = " (`input=CxHxW` says another)" if is_default else ""
    pixels = f"by the data's own figures, {figures}: `normalisation` says others"
    if network.pixels is not None:
        pixels = f"{network.pixels_because}: {figures}"
    return (
        f"{spec.name}: input {'x'.join(map(str, spec.input))}{hint}, weights {network.weights}, "
        f"{spec.classes} classes; pixels are normalised {pixels}"
    )


def fitted(data: ImageData, spec: ModelSpec, pixels: Normalisation | None = None) -> ImageData:
    """The same images with the channels of the network `spec`, normalised by `pixels` or else by their own figures.

    A grey image is repeated over three channels. Raises UserError where channels don't fit.
    """
    channels, found = spec.input[0], data.train.images.shape[1]
    if found != channels and (found, channels) != (1, 3):
        raise UserError(
            f"the data, {data.source}, has images of {found} channels, and {spec.name} takes "
            f"{'x'.join(map(str, spec.input))}: name other `data` or another network"
        )
    if pixels is None:
        own = data.normalisation
        pixels = own if found == channels else Normalisation(own.mean * channels, own.std * channels)
    return data.with_splits(
        *(Split(split.images.expand(-1, channels, -1, -1), split.labels, pixels) for split in data.splits)
    )


def labelled_by(model: nn.Module, data: ImageData, size: tuple[int, int], console: Console) -> ImageData:
    """The same images, labelled by what `model` says of each when it is shown them at `size` (h, w)."""
    splits = []
    with console.progress("labelling", sum(map(len, data.splits))) as meter:
        for split in data.splits:
            labels, classes = _said(model, split, size)
            splits.append(replace(split, labels=labels))
            meter.update(meter.done + len(split))
    return replace(data.with_splits(*splits), classes=classes, unlabelled=True)


def _said(model: nn.Module, split: Split, size: tuple[int, int], batch_size: int = 100) -> tuple[torch.Tensor, int]:
    """The model's class for each image, int64 [N], and how many classes it has."""
    import torch

    from amc_latency.data.logits import classes_of, labels_of

    device = next(model.parameters()).device
    model.eval()
    said = []
    # Not inference mode: labels that it makes could not be trained with.
    with torch.no_grad():
        for start in range(0, len(split), batch_size):
            batch = split.at(slice(start, start + batch_size)).inputs(size)
            logits = model(batch.to(device))
            said.append(labels_of(logits).cpu())
    return torch.cat(said), classes_of(logits.shape[1])
