"""Forward passes that share their beginnings: the same numbers, less work, bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import Tensor, nn

from amc_latency.graph import NetworkGraph, trace
from amc_latency.models.mobilenet_v1 import mobilenet_v1
from amc_latency.prune.cut import cut
from amc_latency.prune.fused import Step
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.search.forward import CutForward

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
