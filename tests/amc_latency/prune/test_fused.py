"""Fused steps, against PyTorch's own modules after `recalibrate_batch_norm`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from amc_latency.graph.trace import trace
from amc_latency.models.zoo.mobilenet_v1 import mobilenet_v1
from amc_latency.prune import fused
from amc_latency.prune.fused import fused_steps
from amc_latency.prune.refit import recalibrate_batch_norm

IMAGE = (3, 32, 32)


class Biased(nn.Module):
    """A bias before batch norm, a convolution with none, a functional ReLU6, a ReLU after a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.plain, self.pool = nn.Conv2d(6, 8, 3, stride=2), nn.MaxPool2d(2)
        self.hidden, self.out = nn.Sequential(nn.Linear(8 * 7 * 7, 12), nn.ReLU()), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(nn.functional.relu6(self.plain(self.bn(self.stem(x)))))
        return self.out(self.hidden(x.view(x.size(0), -1)))


def spread_out() -> nn.Module:
    """What does nothing, between convolutions, their batch norms and activations."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.Identity(), nn.BatchNorm2d(6), nn.Dropout(), nn.ReLU()),
        *(nn.Conv2d(6, 8, 3), nn.Dropout2d(), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(8, 4),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    # by hand: 27 convolutions, pool, flatten, linear
    "mobilenet_v1": (lambda: mobilenet_v1(0.25, 10), 30),
    # 20 convolutions, max pool, 8 additions in place with a ReLU in place each, pool, flatten, linear
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), 20 + 1 + 8 * 2 + 3),
    # 2 convolutions, max pool, size and view, 2 linear layers and a ReLU
    "biased": (Biased, 2 + 1 + 2 + 3),
    # 2 convolutions with all as far as their batch norms, dropout, ReLU, pool, flatten, linear
    "spread out": (spread_out, 2 + 2 + 3),
}


@pytest.mark.parametrize("has_kernel", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_recalibrated_network(name: str, has_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_kernel:
        monkeypatch.setattr(fused, "_has_kernel", lambda device: False)
    build, expected_steps = NETWORKS[name]
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            # A second time, a batch norm with weights above zero and no bias would do nothing.
            module.weight.data *= torch.randn_like(module.weight).sign()
            nn.init.normal_(module.bias)
    steps = fused_steps(model, trace(model, IMAGE))
    assert len(steps) == expected_steps
    image = next(iter(steps[0].node.graph.nodes))
    calibration, images = torch.randn(24, *IMAGE).split(8), torch.randn(5, *IMAGE)
    originals = [tensor.clone() for tensor in (*calibration, images)]
    with torch.inference_mode():
        batches, scored = [{image: batch} for batch in calibration], {image: images}
        folded = {}
        for step in steps:
            if step.folds is not None:
                folded[step.folds] = step.fold(model, batches)
            else:
                for values in batches:
                    step.run(model, values, folded)
            step.run(model, scored, folded)
        recalibrate_batch_norm(model, torch.cat(calibration), batch_size=8)
        expected = model(images)
        torch.testing.assert_close(scored[steps[-1].result], expected, rtol=1e-3, atol=1e-3)
        assert list(scored) == [steps[-1].result]  # nothing is held longer than it is read
        frozen, values = {}, {image: images}
        for step in steps:
            if step.folds is not None:
                frozen[step.folds] = step.freeze(model, values)
            step.run(model, values, frozen)
        torch.testing.assert_close(values[steps[-1].result], expected, rtol=1e-3, atol=1e-3)
    for tensor, original in zip((*calibration, images), originals, strict=True):
        assert torch.equal(tensor, original)
