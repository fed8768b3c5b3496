"""What a network's logits [N, outputs] are worth against labels [N]: the one place that knows classes from outputs.

Two outputs or more are a logit a class. One output is the logit of class 1 against class 0, as a binary classifier by
sigmoid has it: it says 1 where it is above 0, and its loss is binary cross entropy.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def classes_of(outputs: int) -> int:
    """How many classes so many outputs tell apart."""
    return 2 if outputs == 1 else outputs


def labels_of(logits: Tensor) -> Tensor:
    """The class that each image is said to be of, int64 [N]."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is said to be what it is, bool [N]; never by a network that says NaN of it.

    Of labels [N, classes], shares of a mixed image, the largest counts.
    """
    return (labels_of(logits) == (labels.argmax(1) if labels.ndim == 2 else labels)) & ~logits.isnan().any(1)


def correct(logits: Tensor, labels: Tensor) -> int:
    """How many images are said to be what they are."""
    return int(right(logits, labels).sum())


def loss_of(logits: Tensor, labels: Tensor, reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy in nats: mean or sum over the images. Raises ValueError for a label that one output can't mean.

    Labels are classes int64 [N], or shares of them float [N, classes], of which there may be fewer than outputs.
    `label_smoothing` is the share of the target that is spread over all classes.
    """
    if labels.ndim == 2:
        missing = classes_of(logits.shape[1]) - labels.shape[1]
        if missing < 0:
            raise ValueError(f"{labels.shape[1]} classes for {logits.shape[1]} outputs")
        labels = functional.pad(labels, (0, missing))
        if logits.shape[1] == 1:
            wanted = labels[:, 1] * (1 - label_smoothing) + label_smoothing / 2
            return functional.binary_cross_entropy_with_logits(logits[:, 0], wanted, reduction=reduction)
    if logits.shape[1] != 1:
        return functional.cross_entropy(logits, labels, reduction=reduction, label_smoothing=label_smoothing)
    if len(labels) and not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError("one output tells label 0 from label 1, and there are others")
    wanted = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits[:, 0], wanted, reduction=reduction)
