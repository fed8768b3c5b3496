"""The fast forward pass is only believed where PyTorch's own modules say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from amc_latency.data import InMemory
from amc_latency.graph.trace import NetworkGraph, trace
from amc_latency.pixels import Normalisation
from amc_latency.prune import fused
from amc_latency.prune.cut import cut
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.search.judge.checked import CheckedForward
from amc_latency.search.judge.forward import CutForward

IMAGE = (3, 16, 16)
PIXELS = Normalisation((0.5,) * 3, (0.25,) * 3)


class FullMap(nn.Module):
    """A convolution as large as its map, which oneDNN's fused kernel computes wrongly where it has one output."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, outputs, 8), nn.Linear(outputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.b(torch.relu(self.a(x)))).flatten(1))


class Normed(nn.Module):
    """Batch norms, and nothing that is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.Conv2d(12, 8, 3, padding=1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.b(torch.relu(self.norm(self.a(x))))).mean((2, 3)))


@dataclass
class Case:
    model: nn.Module
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(1)
        self.graph: NetworkGraph = trace(self.model, IMAGE)
        self.calibration = torch.randn(64, *IMAGE, generator=draw)
        # Two batches of 20, and one of 7.
        pixels = torch.randint(0, 256, (47, *IMAGE), generator=draw, dtype=torch.uint8)
        with torch.no_grad():
            labels = self.model(InMemory(pixels, torch.zeros(47), PIXELS).inputs(IMAGE[1:])).argmax(1)
        self.split = InMemory(pixels, labels, PIXELS)
        self.images = self.split.inputs(IMAGE[1:])
        self.full = self.graph.architecture.group_channels
        self.forward = self.new()

    def new(self) -> CheckedForward:
        return CheckedForward(
            self.model, self.graph, self.calibration, self.images, self.split.labels, 20, self.said.append
        )

    def logits(self, counts: tuple[int, ...]) -> Tensor:
        return torch.cat(list(self.forward.logits(self.small(counts), counts)))

    def frozen(self, network: nn.Module) -> Tensor:
        found = list(self.forward.frozen(network, self.split))
        assert torch.equal(torch.cat([labels for _, labels in found]), self.split.labels)
        return torch.cat([logits for logits, _ in found])

    def small(self, counts: tuple[int, ...]) -> nn.Module:
        return cut(self.model, self.graph, [torch.arange(count) for count in counts])

    def plain(self, counts: tuple[int, ...]) -> Tensor:
        network = self.small(counts)
        recalibrate_batch_norm(network, self.calibration)
        with torch.no_grad():
            return network(self.images)


def made(model: nn.Module) -> Case:
    return Case(model.eval())


def seeded(outputs: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FullMap(outputs)


@pytest.mark.parametrize(("outputs", "counts"), [(1, (16, 1)), (1, (9, 1)), (4, (16, 4)), (4, (16, 1)), (4, (5, 1))])
def test_a_kernel_as_large_as_its_map_is_pytorchs(outputs: int, counts: tuple[int, ...]) -> None:
    case = made(seeded(outputs))
    torch.testing.assert_close(case.logits(counts), case.plain(counts), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(case.frozen(case.small(counts)), case.plain(counts), rtol=1e-4, atol=1e-5)
    # Known shapes go to the right kernel beforehand: nothing is slow for it.
    assert (case.said, case.forward.is_plain) == ([], False)


def _off_with_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused kernel that is wrong for convolutions of one output, whatever this machine's is."""
    monkeypatch.setattr(fused, "is_miscomputed", lambda conv, x: False)
    whole = fused.FoldedConv.__call__

    def wrong(step: fused.FoldedConv, x: Tensor) -> Tensor:
        result = whole(step, x)
        return -result - 0.1 if step.conv.out_channels == 1 else result

    monkeypatch.setattr(fused.FoldedConv, "__call__", wrong)


@pytest.mark.parametrize(("outputs", "first"), [(1, (16, 1)), (4, (16, 1))])
def test_a_wrong_kernel_is_found_and_left(
    outputs: int, first: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _off_with_one_output(monkeypatch)
    case = made(seeded(outputs))
    if outputs == 4:
        # It is right for the uncut network, and wrong for the first cut one.
        torch.testing.assert_close(case.logits(case.full), case.plain(case.full), rtol=1e-4, atol=1e-5)
        assert not case.said
    assert torch.equal(case.logits(first), torch.cat(list(_by_batch(case, first))))
    for counts in ((3, 1), case.full):
        torch.testing.assert_close(case.logits(counts), case.plain(counts), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(case.frozen(case.small(first)), case.plain(first), rtol=1e-5, atol=1e-6)
    (line,) = case.said  # once
    assert line.startswith("the fused forward pass doesn't compute what PyTorch's own modules do: outputs differ by")
    assert "judged by the modules from here on" in line


def _by_batch(case: Case, counts: tuple[int, ...]) -> Iterator[Tensor]:
    network = case.small(counts)
    with torch.no_grad():
        for images in case.images.split(20):
            yield network(images)


def test_a_wrong_kernel_is_found_in_eval_mode_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _off_with_one_output(monkeypatch)
    case = made(seeded(4))
    small = case.small((16, 1))
    torch.testing.assert_close(case.frozen(case.model), case.plain(case.full), rtol=1e-4, atol=1e-5)
    assert not case.said
    torch.testing.assert_close(case.frozen(small), case.plain((16, 1)), rtol=1e-5, atol=1e-6)
    assert len(case.said) == 1


def test_a_wrong_beginning_that_was_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    case = made(Normed())
    torch.testing.assert_close(case.logits((6, 8)), case.plain((6, 8)), rtol=1e-4, atol=1e-5)
    assert not case.said
    # As if what depends on the first group were taken for what does not.
    for beginning in case.forward._fast._kept.values():
        for values in beginning.batches.values():
            for node, value in values.items():
                values[node] = torch.zeros_like(value)
    torch.testing.assert_close(case.logits((6, 5)), case.plain((6, 5)), rtol=1e-4, atol=1e-5)
    assert len(case.said) == 1


def test_near_ties_are_told_by_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Normed()
    with torch.no_grad():
        # One class far above two that hardly differ, and labels by these: outputs agree to a thousandth of the range.
        model.fc.weight.zero_()
        model.fc.bias.zero_()
        model.fc.weight[1] = 1e-6 * torch.randn(8)
        model.fc.bias[2] = -1000.0
    case = made(model)
    exact = CutForward.logits

    def shifted(self: CutForward, *args: object) -> Iterator[Tensor]:
        for logits in exact(self, *args):  # type: ignore[arg-type]
            yield torch.cat([logits[:, :1] + 0.5, logits[:, 1:]], 1)

    monkeypatch.setattr(CutForward, "logits", shifted)
    case.logits(case.full)
    assert case.forward.is_plain


def test_right_kernels_stay_and_are_checked_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    case = made(Normed())
    checks: list[int] = []
    compare = CheckedForward._compare
    monkeypatch.setattr(
        CheckedForward, "_compare", lambda self, got, *rest: (checks.append(len(got)), compare(self, got, *rest))[1]
    )
    for counts in (case.full, (6, 8), (6, 5), (4, 5), (6, 5), case.full):
        torch.testing.assert_close(case.logits(counts), case.plain(counts), rtol=1e-3, atol=1e-4)
    # The uncut, the first cut, and the first with a beginning that was kept; first, second and last batch.
    assert checks == [3, 3, 3]
    for counts in (case.full, (6, 8), (4, 5)):
        network = case.small(counts)
        recalibrate_batch_norm(network, case.calibration)
        case.frozen(network)
    assert checks == [3, 3, 3, 2, 2]
    assert (case.said, case.forward.is_plain) == ([], False)
