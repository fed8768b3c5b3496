"""The fast forward pass, held against PyTorch's own modules before it is believed.

Its kernels are private to PyTorch: nobody promises that they are right for every shape, nor that the next release has
them. So the first networks of a search are run by both, and the modules take over where the two differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from amc_latency.closeness import allowed, close, difference
from amc_latency.data import Split
from amc_latency.data.decoded import Decoded
from amc_latency.data.logits import correct, loss_of
from amc_latency.graph.trace import NetworkGraph
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.forward import CALIBRATION_BATCH, CutForward

RELATIVE = 1e-3
"""of the outputs' range and of the loss; a wrong kernel is off by more than a tenth"""
ABSOLUTE = 1e-4
"""of outputs and of the mean loss in nats"""
LABELS = 0.01
"""Share of the images, or one of them, that may be said to be something else: of two classes with equal logits."""


class CheckedForward:
    """What `CutForward` computes, or the plain modules once it was seen to compute something else.

    Both are asked about the uncut network, the first cut one and the first that goes on from a beginning that was kept,
    on the first two batches and the last, whose size is another; and likewise about the first networks in eval mode.
    Outputs, accuracy and loss are compared. `say` is told of a difference once.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: NetworkGraph,
        calibration: Tensor,
        images: Tensor | Decoded,
        labels: Tensor,
        batch: int,
        say: Callable[[str], None],
    ) -> None:
        self._fast = CutForward(model, graph, calibration, images, batch)
        self._full = graph.architecture.group_channels
        self._shapes = _shapes(model)
        self._calibration, self._device = calibration, calibration.device
        self._size: tuple[int, int] = (images.shape[-2], images.shape[-1])
        self._batch = batch
        self._batches: Sequence[Tensor] = images.split(batch)
        self._labels = labels.split(batch)
        self._say = say
        self._checked: set[str] = set()
        self.is_plain = False
        """whether the modules have taken over"""

    def logits(self, small: nn.Module, counts: Counts) -> Iterator[Tensor]:
        """As `CutForward.logits`."""
        due = {"uncut" if counts == self._full else "cut"}
        if self._fast.knows_beginning(counts):
            due.add("beginning")
        if not self.is_plain and not due <= self._checked:
            self._checked |= due
            fast = list(self._fast.logits(small, counts))
            places = sorted({0, min(1, len(fast) - 1), len(fast) - 1})
            plain = self._plain(small, [self._batches[i] for i in places])
            self._compare([fast[i] for i in places], list(plain), [self._labels[i] for i in places])
            if not self.is_plain:
                return iter(fast)
        return self._plain(small, self._batches) if self.is_plain else self._fast.logits(small, counts)

    def frozen(self, network: nn.Module, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels of each batch of `split`, of a network of the model's structure in eval mode."""
        due = "uncut in eval mode" if _shapes(network) == self._shapes else "cut in eval mode"
        if not self.is_plain and due not in self._checked:
            self._checked.add(due)
            starts = sorted({0, (len(split) - 1) // self._batch * self._batch})
            some = [split.at(slice(start, start + self._batch)).kept() for start in starts]
            images = [part.inputs(self._size).to(self._device) for part in some if len(part)]
            fast, plain = list(self._fast.frozen(network, images)), list(_run(network, images))
            self._compare(fast, plain, [part.labels.to(self._device) for part in some if len(part)])
        run = _run if self.is_plain else self._fast.frozen
        labels: list[Tensor] = []

        def inputs() -> Iterator[Tensor]:
            for images, found in split.parts(self._size, self._batch):
                labels.append(found.to(self._device))
                yield images.to(self._device)

        return ((logits, labels.pop(0)) for logits in run(network, inputs()))

    def _plain(self, small: nn.Module, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        network = copy.deepcopy(small)
        recalibrate_batch_norm(network, self._calibration, CALIBRATION_BATCH)
        return _run(network, batches)

    def _compare(self, fast: Sequence[Tensor], plain: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        got, expected, wanted = torch.cat(list(fast)), torch.cat(list(plain)), torch.cat(list(labels))
        right, expected_right = correct(got, wanted), correct(expected, wanted)
        loss, expected_loss = (loss_of(logits, wanted).reshape(1) for logits in (got, expected))
        is_same = close(got, expected, RELATIVE, ABSOLUTE) and close(loss, expected_loss, RELATIVE, ABSOLUTE)
        if is_same and abs(right - expected_right) <= max(1, LABELS * len(wanted)):
            return
        self.is_plain = True
        self._say(
            "the fused forward pass doesn't compute what PyTorch's own modules do: outputs differ by "
            f"{difference(got, expected):.2g} where {allowed(expected, RELATIVE, ABSOLUTE):.2g} is allowed, accuracy "
            f"is {100 * right / len(wanted):.1f} in place of {100 * expected_right / len(wanted):.1f} %; "
            "networks are judged by the modules from here on, which takes longer"
        )


def _run(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    network.eval()
    for images in batches:
        with torch.inference_mode():
            # A copy: a network may change its input in place.
            logits: Tensor = network(images.clone())
        yield logits


def _shapes(network: nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in network.parameters()]
