"""Sliced networks, against the whole one's forward pass in PyTorch and Torch-Pruning's own slicing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch_pruning
import torchvision
from torch import Tensor, nn

from amc_latency.graph.trace import NetworkGraph, trace
from amc_latency.models.zoo.mobilenet_v1 import mobilenet_v1
from amc_latency.prune.cut import cut

IMAGE = (3, 32, 32)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": lambda: mobilenet_v1(0.25, 10),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(width_mult=0.35, num_classes=10),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "vgg11_bn": lambda: small_vgg(),
    "squeezenet1_1": lambda: torchvision.models.squeezenet1_1(num_classes=10),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "rarities": lambda: Rarities(),
    "decoder": lambda: Decoder(),
}


class Rarities(nn.Module):
    """Oblong kernels, PReLU of a slope a channel and of one, numbers, and a batch norm of features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, 24, (1, 5), padding=(0, 2), bias=False), nn.BatchNorm2d(24), nn.PReLU(24)),
            *(nn.Conv2d(24, 24, (3, 1), 2, groups=24), nn.PReLU(24), nn.Conv2d(24, 32, (3, 1), padding="same")),
            *(nn.PReLU(), nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        )
        self.head = nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(32), nn.Linear(32, 40, bias=False)),
            *(nn.BatchNorm1d(40), nn.PReLU(40), nn.Linear(40, 10)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem((x - 0.5) / 0.25) * 2 - 1)


class Decoder(nn.Module):
    """Transposed convolutions, one behind the other and one joined to what it enlarges to."""

    def __init__(self) -> None:
        super().__init__()
        self.skip = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(12, 24, 3, 4, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.up = nn.Sequential(
            *(nn.ConvTranspose2d(24, 20, 2, 2, bias=False), nn.BatchNorm2d(20), nn.ReLU()),
            *(nn.ConvTranspose2d(20, 16, 3, 2, 1, output_padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        )
        self.head = nn.Sequential(nn.Conv2d(28, 32, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip(x)
        return self.head(torch.cat([self.up(self.down(skip)), skip], 1))


def small_vgg() -> nn.Module:
    """torchvision's VGG without its adaptive pool, so that flattening leaves 2x2 values a channel."""
    model = torchvision.models.vgg11_bn(num_classes=10)
    model.features[-1] = nn.Identity()
    model.avgpool = nn.Identity()
    model.classifier = nn.Sequential(nn.Linear(512 * 2 * 2, 64), nn.ReLU(), nn.Linear(64, 10))
    return model


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    for module in model.modules():
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -1, 1)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return model


def random_keep(graph: NetworkGraph, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = [max(1, round(group.channels * (0.3 + 0.1 * (i % 7)))) for i, group in enumerate(graph.groups)]
    return [
        torch.randperm(group.channels, generator=generator)[:count].sort().values
        for group, count in zip(graph.groups, counts, strict=True)
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_torch_pruning(name: str) -> None:
    model = network(name)
    graph = trace(model, IMAGE)
    keep = random_keep(graph)
    small = cut(model, graph, keep)

    expected = copy.deepcopy(model)
    dependencies = torch_pruning.DependencyGraph().build_dependency(expected, torch.zeros(1, *IMAGE))
    for group, kept in zip(graph.groups, keep, strict=True):
        producer = expected.get_submodule(group.name)
        removed = sorted(set(range(group.channels)) - set(kept.tolist()))
        prune = dependencies.get_pruner_of_module(producer).prune_out_channels
        dependencies.get_pruning_group(producer, prune, removed).prune()

    assert small.state_dict().keys() == expected.state_dict().keys()
    for key, tensor in expected.state_dict().items():
        assert torch.equal(small.state_dict()[key], tensor), key
    images = torch.randn(2, *IMAGE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(small(images), expected(images))
    # what the modules say of themselves agrees: a trace of the sliced network reads those
    counts = [len(kept) for kept in keep]
    assert trace(small, IMAGE).architecture.shapes() == graph.architecture.shapes(counts)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_where_nothing_read_the_channels(name: str) -> None:
    model = network(name)
    graph = trace(model, IMAGE)
    keep = random_keep(graph)
    with torch.no_grad():
        for group, kept in zip(graph.groups, keep, strict=True):
            removed = torch.ones(group.channels, dtype=torch.bool)
            removed[kept] = False
            for member in group.members:
                if member.role == "consumer":
                    weight = model.get_parameter(f"{member.module}.weight")
                    lost = removed.repeat_interleave(member.repeat).nonzero().flatten()
                    if isinstance(model.get_submodule(member.module), nn.ConvTranspose2d):
                        weight = weight.transpose(0, 1)
                    weight[:, member.offset + lost] = 0
        small = cut(model, graph, keep)
        images = torch.randn(2, *IMAGE, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(small(images), model(images), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())


def test_the_original_stays_as_it_was_and_shares_nothing() -> None:
    model = network("mobilenet_v1")
    graph = trace(model, IMAGE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for keep in (random_keep(graph), [torch.arange(group.channels) for group in graph.groups]):
        small = cut(model, graph, keep)
        for tensor in small.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert trace(model, IMAGE) == graph


def test_a_sliced_network_trains() -> None:
    model = network("mobilenet_v1").requires_grad_(True)
    model.classifier.requires_grad_(False)
    graph = trace(model, IMAGE)
    small = cut(model, graph, random_keep(graph)).train()
    small(torch.randn(2, *IMAGE)).sum().backward()
    assert all(p.grad is not None for name, p in small.named_parameters() if not name.startswith("classifier"))
    assert small.classifier.weight.grad is None
    assert all(p.grad is None for p in model.parameters())


def test_channels_last_stays_channels_last() -> None:
    model = network("resnet18").to(memory_format=torch.channels_last)
    graph = trace(model, IMAGE)
    small = cut(model, graph, random_keep(graph))
    assert small.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not small.conv1.weight.is_contiguous()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([0, 8]), "must ascend within 0..7"),
        (torch.tensor([-1, 2]), "must ascend within 0..7"),
        (torch.tensor([3, 2]), "must ascend within 0..7"),
        (torch.tensor([2, 2]), "must ascend within 0..7"),
        (torch.tensor([], dtype=torch.int64), "at least one int64 index"),
        (torch.tensor([0.0, 1.0]), "at least one int64 index"),
        (torch.ones(8, dtype=torch.bool), "at least one int64 index"),
    ],
)
def test_indices_that_do_not_fit_are_refused(bad: Tensor, message: str) -> None:
    model = network("mobilenet_v1")
    graph = trace(model, IMAGE)
    with pytest.raises(ValueError, match=rf"stem\.conv: .*{message}"):
        cut(model, graph, [bad, *random_keep(graph)[1:]])
    with pytest.raises(ValueError, match="13 sets of channels for a network of 14 coupled groups"):
        cut(model, graph, random_keep(graph)[1:])
