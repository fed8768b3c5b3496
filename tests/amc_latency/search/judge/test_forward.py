"""Forward passes that share their beginnings: the same numbers, less work, bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.graph.trace import NetworkGraph, trace
from amc_latency.models.zoo.mobilenet_v1 import mobilenet_v1
from amc_latency.prune.cut import cut
from amc_latency.prune.fused import Step
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.search.judge.forward import CutForward

IMAGE = (3, 32, 32)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": lambda: mobilenet_v1(0.25, 10),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
}


@dataclass
class Case:
    model: nn.Module
    graph: NetworkGraph
    calibration: Tensor
    images: Tensor

    def counts(self, *shares: float) -> tuple[int, ...]:
        """The shares of the first groups in turn, of all others the last one."""
        padded = [*shares, *[shares[-1]] * len(self.graph.groups)]
        return tuple(
            max(1, int(group.channels * share)) for group, share in zip(self.graph.groups, padded, strict=False)
        )

    def small(self, counts: tuple[int, ...]) -> nn.Module:
        return cut(self.model, self.graph, [torch.arange(count) for count in counts])

    def forward(self, **options: int) -> CutForward:
        return CutForward(self.model, self.graph, self.calibration, self.images, batch=4, **options)


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NETWORKS[request.param]().eval().to(memory_format=torch.channels_last)
        calibration, images = (
            torch.randn(n, *IMAGE).contiguous(memory_format=torch.channels_last) for n in (128 + 7, 10)
        )
    return Case(model, trace(model, IMAGE), calibration, images)


def run(forward: CutForward, case: Case, counts: tuple[int, ...]) -> Tensor:
    return torch.cat(list(forward.logits(case.small(counts), counts)))


def test_logits_are_the_recalibrated_networks_whatever_was_run_before(case: Case) -> None:
    policies = [
        case.counts(0.5, 0.5, 0.4),
        case.counts(0.5, 0.5, 0.6),
        case.counts(0.5, 0.75),
        case.counts(0.5, 0.5, 0.4),
    ]
    used = case.forward()
    for counts in policies:
        logits = run(used, case, counts)
        assert torch.equal(logits, run(case.forward(), case, counts))
        assert torch.equal(logits, run(case.forward(memory_bytes=0), case, counts))
        small = case.small(counts)
        recalibrate_batch_norm(small, case.calibration)
        with torch.no_grad():
            torch.testing.assert_close(logits, small(case.images), rtol=1e-3, atol=1e-3)


def test_what_begins_alike_is_computed_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = case.forward()
    ran: list[str] = []
    plain = Step.run
    monkeypatch.setattr(Step, "run", lambda step, *args: (ran.append(step.node.name), plain(step, *args))[1])
    run(forward, case, case.counts(0.5, 0.5, 0.4))
    first = forward.steps[0].node.name
    assert ran.count(first) == 3  # batches of 4, 4 and 2 images
    early = next(step.node.name for step in forward.steps if len(step.groups) == 2 and max(step.groups) == 1)
    assert ran.count(early) == 3
    run(forward, case, case.counts(0.5, 0.5, 0.6))
    assert ran.count(first) == ran.count(early) == 3
    run(forward, case, case.counts(0.5, 0.75))
    assert (ran.count(first), ran.count(early)) == (3, 6)
    run(forward, case, case.counts(0.25, 0.5))
    assert (ran.count(first), ran.count(early)) == (6, 9)


def test_batches_that_were_not_asked_for_are_caught_up_on(case: Case) -> None:
    forward = case.forward()
    counts = case.counts(0.5)
    next(forward.logits(case.small(counts), counts))
    assert torch.equal(run(forward, case, counts), run(case.forward(), case, counts))


def test_memory_is_bounded(case: Case) -> None:
    unbounded = case.forward()
    policies = [case.counts(0.5), case.counts(0.5, 0.75), case.counts(0.25, 0.5), case.counts(0.75, 0.5)]
    for counts in policies:
        run(unbounded, case, counts)
    limit = held(unbounded) // 2
    bounded = case.forward(memory_bytes=limit)
    for counts in policies:
        run(bounded, case, counts)
        assert 0 < held(bounded) <= limit


def held(forward: CutForward) -> int:
    """Bytes of the feature maps that are kept."""
    return sum(
        tensor.nbytes
        for beginning in forward._kept.values()
        for values in (*beginning.calibration, *beginning.batches.values())
        for tensor in values.values()
        if isinstance(tensor, Tensor)
    )


def test_a_frozen_network_has_its_own_statistics_whatever_its_widths(case: Case) -> None:
    forward = case.forward()
    whole, small = case.model, case.small(case.counts(0.5))
    recalibrate_batch_norm(small, case.calibration)
    for network in (whole, small):
        logits = torch.cat(list(forward.frozen(network, case.images.split(4))))
        with torch.no_grad():
            torch.testing.assert_close(logits, network(case.images), rtol=1e-3, atol=1e-3)


class Dense(nn.Module):
    """Batch norms that stand alone, before and after a concatenation, and one without an activation behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8)
        self.grow = nn.Conv2d(8, 6, 3, padding=1)
        self.joined_norm, self.last = nn.BatchNorm2d(14), nn.Conv2d(14, 8, 1)
        self.last_norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.grow(torch.relu(self.norm(x)))], 1)
        x = self.last_norm(functional.relu6(self.last(functional.relu(self.joined_norm(x), inplace=True))))
        return self.head(x.mean((2, 3)))


class Excited(nn.Module):
    """Squeeze-and-excitation with activations in place, grouped and depthwise convolutions, padding of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 16, 3, 2, bias=False), nn.BatchNorm2d(16))
        self.swish = nn.Hardswish(inplace=True)
        self.grouped = nn.Sequential(nn.Conv2d(16, 16, 3, padding="same", groups=4), nn.BatchNorm2d(16))
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 2, padding="same", groups=16), nn.BatchNorm2d(16), nn.SiLU(True)
        )
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 6, 1), nn.ReLU(True), nn.Conv2d(6, 16, 1))
        self.scale, self.head = nn.Hardsigmoid(inplace=True), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.swish(self.stem(x))
        x = self.depthwise(self.grouped(x)) + x
        x = x * self.scale(self.gate(x))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Shared(nn.Module):
    """A convolution that is called twice, with an activation behind it once, and dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 8, 3, 2, 2, 2), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.shared(self.stem(x)).relu_()).sigmoid_()
        x = functional.avg_pool2d(self.norm(x), 4)
        return self.head(x.view(x.size(0), -1))


@pytest.mark.parametrize("build", [Dense, Excited, Shared])
def test_other_operations_give_the_recalibrated_networks_logits(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    case = Case(model, trace(model, IMAGE), *torch.randn(128 + 20, *IMAGE).split([128, 20]))
    used = case.forward()
    policies = [case.counts(0.5), case.counts(0.5, 0.75), case.counts(1.0), case.counts(0.75, 0.5), case.counts(0.5)]
    for counts in policies:
        small = case.small(counts)
        logits = torch.cat(list(used.logits(small, counts)))
        assert torch.equal(logits, run(case.forward(memory_bytes=0), case, counts))
        recalibrate_batch_norm(small, case.calibration)
        with torch.no_grad():
            expected = small(case.images)
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
        frozen = torch.cat(list(used.frozen(small, case.images.split(7))))
        torch.testing.assert_close(frozen, expected, rtol=1e-3, atol=1e-3)
