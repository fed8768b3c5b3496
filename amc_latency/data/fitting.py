"""Images for a certain network: of its channels, normalised as it expects them, with labels that it can tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amc_latency.console import Console
from amc_latency.data.labels import check_labels
from amc_latency.data.load import Streaming, load_data
from amc_latency.data.splits import ImageData, Split
from amc_latency.errors import UserError
from amc_latency.models.registry import source_of
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
    streaming: Streaming | None = None,
) -> ImageData:
    """The images that `source` names (see `load_data`), or those under the folder `unlabelled`, for `network`.

    Pixels are normalised as the network's weights expect, or else by the data's own figures. What has no labels gets
    those that `network` says. Raises UserError for images that don't fit it, and for some without labels where nobody
    knows what it expects of pixels. With `introduces`, `network_line` is said.
    """
    console = console or Console(quiet=True)
    spec, size = network.spec, network.spec.input[1:]
    crop = source_of(spec.name).crop(spec.name, network.weights)
    if unlabelled is not None:
        from amc_latency.data.sets.folders import load_unlabelled

        if network.pixels is None:
            raise UserError(
                f"how {spec.name} wants pixels normalised is not known, and `unlabelled` goes by what it says of them: "
                f"give `normalisation` MEAN,.../STD,... or one of {', '.join(NORMALISATIONS)}"
            )
        found = load_unlabelled(Path(unlabelled), size, console, crop, streaming)
        data = fitted(found, spec, network.pixels)
        if introduces:
            console.say(network_line(data, network))
        data = labelled_by(network.model, data, size, console)
        check_labels(data, spec.name, spec.classes, console)
        return data
    data = load_data(source, size=size, console=console, crop=crop, streaming=streaming)
    check_labels(data, spec.name, spec.classes, console)
    data = fitted(data, spec, network.pixels)
    if introduces:
        console.say(network_line(data, network))
    return data


def data_of_sets(
    network: Network,
    train: Any,
    held_back: Any | None,
    test: Any | None,
    console: Console,
    streaming: Streaming | None = None,
) -> ImageData:
    """Data sets or loaders of the program's own for `network`. Raises what `load_datasets` and `data_for` raise."""
    from amc_latency.data.sets.datasets import load_datasets

    spec = network.spec
    crop = source_of(spec.name).crop(spec.name, network.weights)
    data = load_datasets(train, held_back, test, spec.input[1:], console, crop, streaming)
    check_labels(data, spec.name, spec.classes, console)
    return fitted(data, spec, network.pixels)


def network_line(data: ImageData, network: Network) -> str:
    """What the network takes and tells, and by which figures its pixels are normalised, and why those."""
    from amc_latency.models.spec import ModelSpec, names_own_file

    spec, figures = network.spec, data.normalisation
    is_default = names_own_file(spec.name) and spec.input == ModelSpec.input
    hint = " (`input=CxHxW` says another)" if is_default else ""
    pixels = f"pixels are normalised by the data's own figures, {figures}: `normalisation` says others"
    if data.takes_as_given:
        pixels = f"inputs are taken as {data.source} gives them"
    elif network.pixels is not None:
        pixels = f"pixels are normalised {network.pixels_because}: {figures}"
    return (
        f"{spec.name}: input {'x'.join(map(str, spec.input))}{hint}, weights {network.weights}, "
        f"{spec.classes} classes; {pixels}"
    )


def fitted(data: ImageData, spec: ModelSpec, pixels: Normalisation | None = None) -> ImageData:
    """The same images with the channels of the network `spec`, normalised by `pixels` or else by their own figures.

    A grey image is repeated over three channels. Raises UserError where channels don't fit.
    """
    channels, found = spec.input[0], data.train.channels
    if found != channels and (found, channels) != (1, 3):
        raise UserError(
            f"the data, {data.source}, has images of {found} channels, and {spec.name} takes "
            f"{'x'.join(map(str, spec.input))}: name other `data` or another network"
        )
    if pixels is None:
        own = data.normalisation
        pixels = own if found == channels else Normalisation(own.mean * channels, own.std * channels)
    return data.with_splits(*(split.fitted(channels, pixels) for split in data.splits))


def labelled_by(model: nn.Module, data: ImageData, size: tuple[int, int], console: Console) -> ImageData:
    """The same images, labelled by what `model` says of each when it is shown them at `size` (h, w)."""
    import torch

    from amc_latency.data.logits import classes_of

    splits, classes = [], 0
    with console.progress("labelling", sum(map(len, data.splits))) as meter:
        for split in data.splits:
            # Numbered, so that what can't be read is told by its absence.
            numbered = split.labelled(torch.arange(len(split)))
            places, labels = [], []
            for some, said, outputs in _said(model, numbered, size):
                places.append(some)
                labels.append(said)
                classes = classes_of(outputs)
                meter.update(meter.done + len(some))
            splits.append(split.at(torch.cat(places)).labelled(torch.cat(labels)))
    return replace(data.with_splits(*splits), classes=classes, unlabelled=True)


def _said(model: nn.Module, numbered: Split, size: tuple[int, int]) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Labels of images, the class that the model says of each, int64 [n], and its outputs; batch by batch."""
    import torch

    from amc_latency.data.logits import labels_of

    device = next(model.parameters()).device
    model.eval()
    for inputs, labels in numbered.parts(size):
        # Not inference mode: labels that it makes could not be trained with.
        with torch.no_grad():
            logits = model(inputs.to(device))
        yield labels, labels_of(logits).cpu(), logits.shape[1]
