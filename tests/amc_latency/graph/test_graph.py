"""Layer shapes and coupled groups of real networks, against PyTorch's FLOP counter and published figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from amc_latency.errors import UserError
from amc_latency.graph.trace import NetworkGraph, trace, with_tensors
from amc_latency.models.zoo.mobilenet_v1 import mobilenet_v1

IMAGE = (3, 224, 224)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "vgg11_bn": torchvision.models.vgg11_bn,
    "squeezenet1_1": torchvision.models.squeezenet1_1,
    "mobilenet_v3_small": torchvision.models.mobilenet_v3_small,
    "densenet121": torchvision.models.densenet121,
    "shufflenet_v2_x1_0": torchvision.models.shufflenet_v2_x1_0,
    "resnext50_32x4d": torchvision.models.resnext50_32x4d,
}


def macs(graph: NetworkGraph) -> int:
    return sum(shape.macs for shape in graph.architecture.shapes())


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_are_those_that_pytorch_counts(name: str) -> None:
    with torch.device("meta"):
        model = NETWORKS[name]().eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, *IMAGE))
    graph = trace(model, IMAGE)
    # DenseNet's batch norms, which no convolution takes in, are multiplications here and none there.
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    layers = zip(graph.layer_names, graph.architecture.shapes(), strict=True)
    assert 2 * sum(shape.macs for name, shape in layers if name not in norms) == counter.get_total_flops()


@pytest.mark.parametrize(("width", "published"), [(1.0, 568_740_352), (0.75, 325_400_448)])
def test_macs_of_mobilenet_v1_are_the_published_ones(width: float, published: int) -> None:
    assert macs(trace(mobilenet_v1(width), IMAGE)) == published


def test_layers_of_mobilenet_v1() -> None:
    graph = trace(mobilenet_v1(), IMAGE)
    texts = [shape.text for shape in graph.architecture.shapes()]
    assert texts[0] == "conv 3x224x224>32 k3 s2 p1 relu6 float32"
    assert texts[1] == "depthwise 32x112x112>32 k3 s1 p1 relu6 float32"
    assert texts[4] == "conv 64x56x56>128 k1 s1 p0 relu6 float32"
    assert texts[-2:] == [
        "global_pool 1024x7x7>1024 k1 s1 p0 none float32",
        "linear 1024x1x1>1000 k1 s1 p0 none float32",
    ]
    assert len(texts) == len(graph.layer_names) == 1 + 2 * 13 + 2
    assert graph.layer_names[:3] == ("stem.conv", "blocks.0.depthwise", "blocks.0.pointwise")


def test_params_are_those_of_the_network_with_batch_norm_folded() -> None:
    model = mobilenet_v1()
    batch_norm = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    expected = sum(p.numel() for p in model.parameters()) - batch_norm  # scale and shift become one bias
    assert sum(shape.params for shape in trace(model, IMAGE).architecture.shapes()) == expected


def test_groups_of_mobilenet_v1() -> None:
    graph = trace(mobilenet_v1(), IMAGE)
    expected = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    assert graph.architecture.group_channels == expected
    assert [group.name for group in graph.groups] == [
        "stem.conv",
        *(f"blocks.{index}.pointwise" for index in range(13)),
    ]
    second = graph.groups[1]
    assert second.producers == ("blocks.0.pointwise",)
    assert second.depthwise == ("blocks.1.depthwise",)
    assert second.consumers == ("blocks.1.pointwise",)
    assert second.batch_norms == ("blocks.0.pointwise_bn", "blocks.1.depthwise_bn")
    depthwise, pointwise, classifier = (
        graph.architecture.layers[1],
        graph.architecture.layers[2],
        graph.architecture.layers[-1],
    )
    assert (depthwise.in_group, depthwise.out_group) == (0, 0)
    assert (pointwise.in_group, pointwise.out_group) == (0, 1)
    assert (classifier.in_group, classifier.out_group) == (13, None)
    assert graph.architecture.layers[0].in_group is None


def test_residual_sums_tie_their_producers() -> None:
    graph = trace(torchvision.models.resnet18(), IMAGE)
    assert len(graph.groups) == 1 + 2 + 3 * 3  # stem and stage 1; a sum and two inner convolutions for each later stage
    stem, stage = graph.groups[0], next(g for g in graph.groups if g.name == "layer2.0.conv2")
    assert stem.producers == ("conv1", "layer1.0.conv2", "layer1.1.conv2")
    assert stem.consumers == ("layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer2.0.downsample.0")
    assert stage.producers == ("layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv2")
    assert "added in add" in str(stem)
    assert str(stem).startswith("conv1: 64 channels\n")
    first_sum = graph.layer_names.index("add")
    assert graph.architecture.layers[first_sum].shape.text == "add 64x56x56>64 k1 s1 p0 relu float32"
    assert graph.architecture.layers[first_sum].in_group == 0


def test_mobilenet_v2_ties_each_residual_width() -> None:
    groups = trace(torchvision.models.mobilenet_v2(), IMAGE).groups
    tied = {group.channels: len(group.producers) for group in groups if len(group.producers) > 1}
    # blocks with a shortcut at each width, and the one before them: Sandler et al., table 2
    assert tied == {24: 2, 32: 3, 64: 4, 96: 3, 160: 3}
    # expansions (the first of 17 blocks has none), widths of block outputs, the first and the last layer
    assert len(groups) == 16 + 7 + 2


def test_flattening_repeats_the_channels_of_a_linear_layer() -> None:
    graph = trace(torchvision.models.vgg11_bn(), IMAGE)
    group = next(g for g in graph.groups if "classifier.0" in g.consumers)
    assert next(m.repeat for m in group.members if m.module == "classifier.0") == 7 * 7
    counts = [8 if g is group else g.channels for g in graph.groups]
    index = graph.layer_names.index("classifier.0")
    assert graph.architecture.shapes(counts)[index].c_in == 8 * 7 * 7


class Functional(nn.Module):
    """A network written with functions, as many are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 5)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.first(x)))
        x = functional.dropout(torch.relu(self.second(x)), training=self.training)
        x = x.mean([2, 3])
        return self.fc(x.view(x.size(0), -1))


def test_functions_are_layers_too() -> None:
    graph = trace(Functional().requires_grad_(False).train(), (1, 28, 28))
    assert [shape.text.removesuffix(" float32") for shape in graph.architecture.shapes()] == [
        "conv 1x28x28>4 k5 s1 p0 relu",
        "max_pool 4x24x24>4 k2 s2 p0 none",
        "conv 4x12x12>6 k3 s1 p1 relu",
        "global_pool 6x12x12>6 k1 s1 p0 none",
        "linear 6x1x1>3 k1 s1 p0 none",
    ]
    assert graph.architecture.group_channels == (4, 6)


def test_tracing_leaves_the_network_as_it_was() -> None:
    model = Functional().requires_grad_(False).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace(model, (1, 28, 28))
    assert model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_copies_share_nothing_and_keep_ties() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    copy = with_tensors(model, lambda _, tensor: tensor.clone())
    assert copy[0].weight is copy[1].weight
    copy[0].weight.data.zero_()
    copy[0].out_features = 7
    assert model[0].weight.abs().sum() > 0
    assert model[0].out_features == 2


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def tied() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[4].weight = model[2].weight
    return model


def classifier(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (tied, r"4\.weight: is the same tensor as 2\.weight"),
        (Branching, r"test_graph\.py:\d+: the network can't be traced: .*control flow"),
        (lambda: nn.Linear(5, 4), "linear: a bare parameter or constant is used, weight"),
    ],
)
def test_what_can_be_no_network_of_ours_is_told(build: Callable[[], nn.Module], message: str) -> None:
    with torch.device("meta"):
        model = build()
    with pytest.raises(UserError, match=message):
        trace(model, IMAGE)


def test_a_network_that_ends_in_a_convolution_keeps_its_outputs() -> None:
    model = classifier(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1))
    graph = trace(model, (3, 16, 16))
    assert [group.name for group in graph.groups] == ["0"]
    assert graph.architecture.layers[1].out_group is None


KEEPING_SIZE = (nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU6(inplace=True), nn.Hardswish(), nn.Hardsigmoid(True), nn.SiLU())


@pytest.mark.parametrize("module", KEEPING_SIZE, ids=repr)
def test_a_module_that_is_not_run_gives_the_size_that_it_would(module: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), module, nn.MaxPool2d(2)).eval()
    expected = tuple(model(torch.zeros(2, 3, 9, 8)).shape[1:])
    assert trace(model, (3, 9, 8)).output_sizes == (expected,)


def test_a_batch_norm_of_other_channels_is_still_refused() -> None:
    with pytest.raises(UserError, match=r"can't be run on a 3x8x8 input"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(5)), (3, 8, 8))
