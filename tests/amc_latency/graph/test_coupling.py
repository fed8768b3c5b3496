"""Coupled groups: labels by hand, groups of small networks, and Torch-Pruning's dependency graph as an oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning
import torchvision
from torch import Tensor, nn

from amc_latency.graph.coupling import MOST_JOINED, ChannelLabels, Grouping
from amc_latency.graph.trace import NetworkGraph, trace
from tests.amc_latency.op_networks import CASES, Written, conv, ending, in_a_row, written


def made_and_read(labels: ChannelLabels, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Makers of so many channels, each with a reader named after it."""
    made = {name: labels.make(name, channels) for name, channels in sizes.items()}
    for name, own in made.items():
        labels.use(f"read_{name}", "consumer", own)
    return made


def order(sizes: dict[str, int]) -> list[str]:
    return [module for name in sizes for module in (name, f"read_{name}")]


def names(grouping: Grouping) -> list[tuple[str, int]]:
    return [(group.name, group.channels) for group in grouping.groups]


def test_what_is_tied_is_one_group_and_nothing_else_is() -> None:
    labels, sizes = ChannelLabels(), {"a": 4, "b": 4, "c": 4, "d": 3}
    made = made_and_read(labels, sizes)
    labels.tie(made["c"], made["a"], "added in sum")
    grouping = labels.groups(order(sizes))
    assert names(grouping) == [("a", 4), ("b", 4), ("d", 3)]
    first = grouping.groups[0]
    assert first.producers == ("a", "c")
    assert first.consumers == ("read_a", "read_c")
    assert [(member.module, member.because) for member in first.members] == [
        *(("a", ""), ("read_a", "reads them"), ("c", "added in sum"), ("read_c", "reads them")),
    ]
    assert [grouping.parts(made[name]) for name in "abcd"] == [0, 1, 0, 2]
    assert str(first).splitlines()[0] == "a: 4 channels"


def test_a_join_has_offsets_and_a_flattening_has_repeats() -> None:
    labels, sizes = ChannelLabels(), {"a": 2, "b": 3}
    made = made_and_read(labels, sizes)
    joined = np.concatenate([made["a"], made["b"], made["a"]])
    labels.join(joined, "cat")
    labels.use("norm", "batch_norm", joined)
    labels.use("linear", "consumer", joined.repeat(4))
    grouping = labels.groups([*order(sizes), "norm", "linear"])
    a, b = grouping.groups
    places = {
        group.name: [(m.module, m.offset, m.repeat) for m in group.members if m.module in ("norm", "linear")]
        for group in (a, b)
    }
    assert places == {
        "a": [("norm", 0, 1), ("norm", 5, 1), ("linear", 0, 4), ("linear", 20, 4)],
        "b": [("norm", 2, 1), ("linear", 8, 4)],
    }
    assert grouping.parts(joined) == ((0, 2), (1, 1))
    assert grouping.parts(joined.repeat(4)) == ((0, 8), (1, 4))
    assert grouping.parts(made["a"].repeat(4)) == 0


def test_channels_that_are_kept_leave_their_whole_group_alone() -> None:
    labels, sizes = ChannelLabels(), {"a": 4, "b": 4, "c": 4}
    made = made_and_read(labels, sizes)
    labels.tie(made["a"], made["b"], "added")
    labels.keep(made["b"][:1], "one of them is the output")
    grouping = labels.groups(order(sizes))
    assert names(grouping) == [("c", 4)]
    assert [(left.module, left.channels, left.reason) for left in grouping.left_whole] == [
        ("a", 4, "one of them is the output"),
        ("b", 4, "one of them is the output"),
    ]
    assert grouping.parts(made["a"]) is None
    assert grouping.parts(np.concatenate([made["a"], made["c"]])) == ((0, 1),)


def test_channels_in_another_order_and_unread_ones_are_left_whole() -> None:
    labels, sizes = ChannelLabels(), {"a": 4, "b": 4}
    made = made_and_read(labels, sizes)
    labels.use("shuffled", "consumer", made["a"][[2, 0, 1, 3]])
    labels.make("unread", 5)
    grouping = labels.groups([*order(sizes), "shuffled", "unread"])
    assert names(grouping) == [("b", 4)]
    assert [left.reason for left in grouping.left_whole] == [
        "shuffled has them in another order, or only some of them",
        "nothing that could be cut reads them",
    ]


def test_a_layer_depends_on_two_groups_at_most_and_the_widest_stays() -> None:
    assert MOST_JOINED == 2
    labels, sizes = ChannelLabels(), {"a": 4, "b": 8, "c": 6, "d": 8}
    made = made_and_read(labels, sizes)
    labels.join(np.concatenate([made["a"], made["b"]]), "cat")  # two are not too many
    grouping = labels.groups(order(sizes))
    assert names(grouping) == [("a", 4), ("b", 8), ("c", 6), ("d", 8)]
    labels.join(np.concatenate([made["b"], made["c"], made["d"]]), "cat_1")
    grouping = labels.groups(order(sizes))
    assert names(grouping) == [("a", 4), ("b", 8)]
    assert [(left.module, left.reason) for left in grouping.left_whole] == [
        ("c", "cat_1 joins 3 groups, of which only the widest is cut"),
        ("d", "cat_1 joins 3 groups, of which only the widest is cut"),
    ]


# Networks.


def traced(build: Callable[[], nn.Module], image: tuple[int, int, int] = (3, 8, 8)) -> NetworkGraph:
    return trace(build(), image)


def members(graph: NetworkGraph, index: int = 0) -> list[tuple[str, str, int, int]]:
    return [(m.module, m.role, m.offset, m.repeat) for m in graph.groups[index].members]


def test_squeeze_and_excitation_is_cut_with_what_it_scales() -> None:
    graph = traced(CASES["squeeze-and-excitation by linear layers"].build)
    assert [(group.name, group.channels) for group in graph.groups] == [("stem", 8), ("gate.0", 2)]
    assert members(graph) == [
        ("stem", "producer", 0, 1),
        ("gate.0", "consumer", 0, 1),
        ("gate.2", "producer", 0, 1),
        ("ending.2", "consumer", 0, 1),
    ]
    assert graph.groups[0].members[2].because == "multiplied in mul"


def test_a_grouped_convolution_loses_whole_groups() -> None:
    graph = traced(CASES["grouped convolution"].build)
    assert members(graph) == [
        ("0", "producer", 0, 4),
        ("1", "depthwise", 0, 4),
        ("2", "batch_norm", 0, 4),
        ("4.2", "consumer", 0, 4),
    ]
    assert graph.groups[0].channels == 2
    assert graph.architecture.group_widths() == (4,)
    assert graph.groups[0].least == 2  # one group is no group


def test_what_a_network_reshapes_to_a_number_of_channels_is_left_whole() -> None:
    """As long as it isn't in normal form: its own code runs when it is cut."""
    graph = traced(written(lambda net, x: net.stem(x).view(-1, 4, 8, 8), stem=conv()))
    assert not graph.groups
    assert graph.left_whole[0].reason == "view reshapes them to a fixed size"


def test_what_only_an_unread_layer_would_notice_is_left_whole() -> None:
    graph = traced(CASES["a convolution that nothing reads"].build)
    assert [left.reason for left in graph.left_whole if left.module == "stem"] == [
        "unread in unread reads them, whose result is never used"
    ]


def test_both_times_that_a_layer_is_called_its_channels_are_the_same() -> None:
    graph = traced(CASES["a layer that is called twice"].build)
    assert len(graph.groups) == 1  # what `shared` reads the second time, it made the first time
    assert members(graph) == [
        ("stem", "producer", 0, 1),
        ("shared", "consumer", 0, 1),
        ("shared", "producer", 0, 1),
        ("ending.2", "consumer", 0, 1),
    ]


def gated_by_shares(net: Any, x: Tensor) -> Tensor:
    x = torch.relu(net.stem(x))
    return net.ending(x * torch.softmax(net.gate(x.mean((2, 3))), 1).view(x.size(0), -1, 1, 1))


def test_what_a_softmax_mixes_is_left_whole() -> None:
    """The shares of those that stay sum to 1 again where others are cut."""
    layers = {"stem": conv(), "hidden": nn.Linear(4, 6), "last": nn.Linear(6, 3)}
    net = Written(lambda net, x: net.last(torch.softmax(net.hidden(net.stem(x).mean((2, 3))), 1)), **layers)
    graph = trace(net, (3, 8, 8))
    assert [group.name for group in graph.groups] == ["stem"]
    assert [(left.module, left.reason) for left in graph.left_whole] == [
        ("hidden", "a softmax, softmax, mixes all of them"),
        ("last", "they are the network's output"),
    ]
    graph = trace(Written(gated_by_shares, stem=conv(), gate=nn.Linear(4, 4), ending=ending(4)), (3, 8, 8))
    assert graph.groups == ()
    reasons = {left.module: left.reason for left in graph.left_whole}
    assert reasons["stem"] == reasons["gate"] == "a softmax, softmax, mixes all of them"
    pooled = nn.Sequential(conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(-1), nn.Linear(4, 3))
    assert trace(pooled, (3, 8, 8)).left_whole[0].reason == "a softmax, 3, mixes all of them"


def test_a_concatenation_of_a_group_with_itself_has_two_places() -> None:
    graph = traced(CASES["a sum of one thing twice, and an activation after a concatenation"].build)
    assert members(graph) == [
        ("stem", "producer", 0, 1),
        ("ending.2", "consumer", 0, 1),
        ("ending.2", "consumer", 4, 1),
    ]


def test_the_image_and_the_logits_are_never_cut() -> None:
    graph = traced(written(lambda net, x: net.last(x + net.stem(x)), stem=conv(3, 3), last=conv(3, 4)))
    assert [group.name for group in graph.groups] == ["last"]
    assert [(left.module, left.reason) for left in graph.left_whole] == [
        ("stem", "they go with the input image's"),
        ("ending.2", "they are the network's output"),
    ]


@pytest.mark.parametrize(
    ("case", "left", "groups"),
    [
        ("shuffle", [("stem", "view_1 deals them out")], []),
        ("shuffle as a module and a function", [("stem", "channel_shuffle deals them out")], []),
        ("chunk", [("stem", "chunk splits them at fixed places")], ["on_right.0"]),
        ("split", [("stem", "split splits them at fixed places")], ["last"]),
    ],
)
def test_what_is_left_whole_says_why(case: str, left: list[tuple[str, str]], groups: list[str]) -> None:
    graph = traced(CASES[case].build, CASES[case].image)
    assert [(each.module, each.reason) for each in graph.left_whole if each.module != "ending.2"] == left
    assert [group.name for group in graph.groups] == groups


def summed_with_a_concatenation(net: Any, x: Tensor) -> Tensor:
    whole, right = net.whole(x), net.right(x)
    return whole + torch.cat([net.left(x), right], 1)


def test_a_sum_with_a_concatenation_is_left_whole() -> None:
    layers = {"whole": conv(), "left": conv(3, 2), "right": conv(3, 2)}
    graph = traced(written(summed_with_a_concatenation, **layers))
    assert graph.groups == ()
    reasons = {left.module: left.reason for left in graph.left_whole}
    assert reasons.keys() == {"whole", "left", "right", "ending.2"}
    assert "only some of them" in reasons["whole"]


def test_flattened_maps_that_are_joined_keep_their_places() -> None:
    graph = traced(CASES["flattened maps that are joined"].build, (3, 2, 3))
    assert members(graph, 0) == [("left", "producer", 0, 1), ("head", "consumer", 0, 6)]
    assert members(graph, 1) == [("right", "producer", 0, 1), ("head", "consumer", 12, 6)]
    assert graph.architecture.shapes((1, 2))[-1].c_in == 3 * 6


def test_a_network_with_nothing_to_cut() -> None:
    graph = traced(in_a_row(nn.ReLU(), channels=3))
    assert graph.groups == ()
    assert [left.module for left in graph.left_whole] == ["1.2"]


def small_vgg() -> nn.Module:
    model = torchvision.models.vgg11_bn(num_classes=10)
    model.avgpool, model.classifier = nn.Identity(), nn.Sequential(nn.Linear(512 * 2 * 2, 16), nn.Linear(16, 10))
    return model


# Torch-Pruning 1.6.1 can't be asked about shufflenet_v2_x1_0, for which it raises a ZeroDivisionError.
ORACLE: dict[str, Callable[[], nn.Module]] = {
    "resnet18": torchvision.models.resnet18,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "vgg11_bn": small_vgg,
    "squeezenet1_1": torchvision.models.squeezenet1_1,
    "mobilenet_v3_small": torchvision.models.mobilenet_v3_small,
    # Of DenseNet's joined channels each block's own are left whole here, as more than two groups make up a layer.
    "densenet121": lambda: torchvision.models.DenseNet(8, (3, 3), 16, num_classes=10),
}


@pytest.mark.parametrize("name", ORACLE)
def test_groups_are_those_of_torch_pruning(name: str) -> None:
    torch.manual_seed(0)
    model = ORACLE[name]().eval()
    graph = trace(model, (3, 64, 64))
    oracle = torch_pruning.DependencyGraph().build_dependency(model, torch.zeros(1, 3, 64, 64))
    assert len(graph.groups) > 3
    for group in graph.groups:
        producer = model.get_submodule(group.name)
        prune = oracle.get_pruner_of_module(producer).prune_out_channels
        for channel in {0, 1, group.channels // 2, group.channels - 1}:
            expected: dict[tuple[str, bool], set[int]] = {}
            for dependency, indices in oracle.get_pruning_group(producer, prune, [channel]):
                module = dependency.target.module
                if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                    reads = oracle.is_in_channel_pruning_fn(dependency.handler) and getattr(module, "groups", 1) == 1
                    key = (dependency.target.name.split(" ")[0], reads and not isinstance(module, nn.BatchNorm2d))
                    expected.setdefault(key, set()).update(indices)
            ours: dict[tuple[str, bool], set[int]] = {}
            for member in group.members:
                first = member.offset + channel * member.repeat
                own = ours.setdefault((member.module, member.role == "consumer"), set())
                own.update(range(first, first + member.repeat))
            assert ours == expected, (group.name, channel)
    # No group is missed, but for the logits' and what is left whole on purpose.
    kept = {left.module for left in graph.left_whole}
    cut = {producer for group in graph.groups for producer in group.producers}
    makers = {
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and getattr(module, "groups", 1) == 1
    }
    assert cut | kept == makers
    assert not cut & kept
