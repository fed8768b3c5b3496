"""Whether images' labels are ones that a network can tell apart, and that say anything at all."""

from __future__ import annotations

from collections.abc import Sequence

from amc_latency.console import Console
from amc_latency.data.splits import ImageData
from amc_latency.errors import UserError

_NAMED = 5


def check_labels(data: ImageData, name: str, outputs: int, console: Console) -> None:
    """Raise UserError for classes that the network `name`, of so many outputs, can't tell apart.

    What may be meant otherwise is said.
    """
    from amc_latency.data.logits import classes_of

    classes = classes_of(outputs)
    if data.classes > classes and outputs == 1:
        raise UserError(
            f"the data, {data.source}, has {data.classes} classes, and {name} has one output, which tells label 0 from "
            "label 1: name other `data`, or a network with an output a class; what is no classifier can't be searched"
        )
    if data.classes > classes:
        raise UserError(
            f"the data, {data.source}, has {data.classes} classes, and {name} tells {classes} apart: "
            "name other `data`, or a network that was trained on it"
        )
    if outputs == 1:
        console.say(f"{name} has one output: taken for the logit of class 1, which it says above 0, against class 0")
    elif data.classes < classes:
        console.say(f"{data.source} has {data.classes} classes: taken for the first of the network's {classes}")


def check_classes(where: str, labels: Sequence[Sequence[int]], names: Sequence[str], console: Console) -> None:
    """Say which classes are missing among train, held-back or test `labels`.

    Raises UserError where no class is both among those to train on and the held-back ones, as with an image a class.
    """
    train, *others = map(set, labels)
    for part, found in zip(("held-back", "test"), others, strict=True):
        if not found & train:
            raise UserError(
                f"{where}: no class of the {part} images is among the train images: give more images a class"
            )
    for part, found in zip(("train", "held-back", "test"), (train, *others), strict=True):
        if missing := sorted(set(range(len(names))) - found):
            shown = ", ".join(names[label] for label in missing[:_NAMED])
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            console.warn(f"{where}: no {part} image is of class {shown}{more}")


def check_several(data: ImageData, name: str, console: Console) -> None:
    """Raise UserError where all images have one label: a network that always says it is right, whatever it is worth.

    A split of which this is so is said. `name` is the network's, which may have given the labels.
    """
    alone = {}
    for part, split in zip(("train", "held-back", "test"), data.splits, strict=True):
        if bool((split.labels == split.labels[0]).all()):
            alone[part] = int(split.labels[0])
    said = f"{name} says class {{0}} of every {{1}}image" if data.unlabelled else "every {1}image has label {0}"
    if len(alone) == 3 and len(set(alone.values())) == 1:
        what = said.format(alone["train"], "")
        advice = "are the weights and `normalisation` the right ones?" if data.unlabelled else "name other `data`"
        raise UserError(f"{data.source}: {what}, so that a network which always says so is right: {advice}")
    for part, label in alone.items():
        what = said.format(label, f"{part} ")
        console.warn(f"{data.source}: {what}: accuracy on these says nothing, so give more images")
