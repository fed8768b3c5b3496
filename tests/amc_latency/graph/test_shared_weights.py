"""Parameters are counted and stored by tensor, MACs by call; counts are worked out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.export.export import export, to_tflite
from amc_latency.graph.rewriting.normal_form import normal_form
from amc_latency.graph.trace import trace
from amc_latency.measuring.inspection import inspect
from amc_latency.measuring.prediction import predict
from amc_latency.models.load import Network
from amc_latency.models.spec import ModelSpec
from amc_latency.prune.cut import cut
from amc_latency.search.costs.sizes import bytes_costs, macs_costs, params_costs
from amc_latency.search.judge.weights import weight_network
from amc_latency.search.targets.budgets import file_overhead
from tests.amc_latency.op_networks import Written, conv

IMAGE = (3, 16, 16)
STEM, SHARED, HEAD = 8 * (3 * 9 + 1), 8 * (8 * 9 + 1), 10 * (8 + 1)
MACS = 16 * 16 * 8 * 3 * 9, 16 * 16 * 8 * 8 * 9, 8 * 10


def called_four_times(net: Any, x: Tensor) -> Tensor:
    x = torch.relu(net.stem(x))
    for _ in range(4):
        x = torch.relu(net.shared(x))
    return net.head(x.mean((2, 3)))


def under_two_names(net: Any, x: Tensor) -> Tensor:
    x = torch.relu(net.stem(x))
    for shared in (net.shared, net.other, net.shared, net.other):
        x = torch.relu(shared(x))
    return net.head(x.mean((2, 3)))


def repeated() -> Written:
    layers = {"stem": conv(3, 8, kernel=3, padding=1), "shared": conv(8, 8, kernel=3, padding=1)}
    return Written(called_four_times, **layers, head=nn.Linear(8, 10))


def aliased() -> Written:
    """One module under two names."""
    net = repeated()
    net.written, net.other = under_two_names, net.shared
    return net


def tied() -> Written:
    """Two modules that have the same tensors."""
    net = repeated()
    net.written, net.other = under_two_names, conv(8, 8, kernel=3, padding=1)
    net.other.weight, net.other.bias = net.shared.weight, net.shared.bias
    return net


SHARING = [repeated, aliased, tied]


def network_of(model: nn.Module) -> Network:
    model = normal_form(model.eval(), IMAGE)
    return Network(model, ModelSpec("own.py:build", input=IMAGE, classes=10), trace(model, IMAGE), trained=False)


@pytest.mark.parametrize("build", SHARING)
def test_a_convolution_that_is_called_four_times_is_one_in_every_figure(
    build: Callable[[], Written], tmp_path: Path
) -> None:
    network = network_of(build())
    report = inspect(network, None)
    assert report.params == predict(network, None, None).params == STEM + SHARED + HEAD == 898
    assert report.macs == MACS[0] + 4 * MACS[1] + MACS[2]
    assert [layer.params for layer in report.layers] == [STEM, SHARED, 0, 0, 0, 0, HEAD]
    exported = export(network.model, IMAGE, tmp_path / "x.tflite")
    assert exported.params == 898
    # All else than weights takes less than three more copies of the shared ones would.
    assert exported.bytes < 4 * 898 + 3 * 4 * SHARED


@pytest.mark.parametrize("build", SHARING)
def test_budgets_and_rewards_count_it_once(build: Callable[[], Written]) -> None:
    network = network_of(build())
    (group,) = network.graph.groups
    assert group.channels == 8
    choices = ((2, 5, 8),)
    params, macs = (costs(network.graph.architecture, choices) for costs in (params_costs, macs_costs))
    sizes = bytes_costs(network.graph.architecture, choices, file_overhead(network))
    for (n,) in itertools.product(*choices):
        assert params.of((n,)) == n * (3 * 9 + 1) + n * (n * 9 + 1) + 10 * (n + 1)
        assert macs.of((n,)) == 16 * 16 * 9 * (3 * n + 4 * n * n) + 10 * n
        small = cut(network.model, network.graph, [torch.arange(n)])
        assert sum(p.numel() for p in small.parameters()) == params.of((n,))
        # No more than promised, and not by much less.
        assert 0 <= sizes.of((n,)) - len(to_tflite(small, IMAGE)) < 400


def test_weights_that_are_pruned_are_counted_once() -> None:
    network = weight_network(network_of(repeated()))
    counts = network.graph.architecture.group_channels
    assert counts == (8 * 3 * 9, 8 * 8 * 9, 80)
    choices = tuple((count // 2, count) for count in counts)
    assert params_costs(network.graph.architecture, choices).of(counts) == 898
    # Half of the shared weights are gone once.
    assert params_costs(network.graph.architecture, choices).of((counts[0], counts[1] // 2, 80)) == 898 - 288


@pytest.mark.parametrize("build", [aliased, tied])
def test_tied_modules_compute_the_same_when_cut(build: Callable[[], Written]) -> None:
    """Against the network's own code, where the lost channels are zero."""
    whole, images, kept = build().eval(), torch.randn(2, *IMAGE), torch.tensor([0, 3, 5])
    network = network_of(build())
    network.model.load_state_dict(whole.state_dict(), strict=False)
    lost = [channel for channel in range(8) if channel not in kept]
    with torch.no_grad():
        for layer in (whole.stem, whole.shared):
            layer.weight[lost] = layer.bias[lost] = 0
        torch.testing.assert_close(cut(network.model, network.graph, [kept])(images), whole(images))


def test_what_is_tied_in_part_is_refused_by_name() -> None:
    net = tied()
    net.other.bias = nn.Parameter(torch.zeros(8))
    with pytest.raises(UserError, match=r"other\.weight: is the same tensor as shared\.weight"):
        network_of(net)


def test_a_linear_layer_and_a_prelu_that_are_called_twice() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.slopes(net.stem(x)).flatten(1)
        return net.head(net.slopes_again(net.again(torch.relu(net.again(x)))))

    layers = {"stem": conv(3, 4, kernel=16), "slopes": nn.PReLU(4), "again": nn.Linear(4, 4)}
    network = network_of(Written(forward, **layers, slopes_again=layers["slopes"], head=nn.Linear(4, 2)).eval())
    assert sum(network.graph.architecture.params()) == 4 * (3 * 256 + 1) + 4 + 4 * 5 + 2 * 5
    images = torch.randn(1, *IMAGE)
    assert network.model(images).shape == (1, 2)
