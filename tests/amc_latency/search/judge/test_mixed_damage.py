"""Damage of widths and precisions: each measured alone, on one scale; and what policies of both are worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from amc_latency.lut.shapes.mixed import MixedArchitecture
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.graph.trace import trace
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.quantize.error import OutputError
from amc_latency.quantize.fake import Simulator
from amc_latency.search.judge.evaluator import NetworkEvaluator
from amc_latency.search.judge.mixed import PlainForward, RoundedCut
from amc_latency.search.judge.mixed_damage import joined, measured_precisions, measured_widths
from tests.amc_latency.quantize.networks import own_net

BOTH = ("int8", "float32")


def images(n: int = 40) -> Tensor:
    return torch.randn(n, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def narrowed(net: nn.Module, count: int) -> nn.Module:
    """The network with only the first channels of its one group: the others are zero."""
    made = own_net()
    made.load_state_dict(net.state_dict())
    with torch.no_grad():
        made.get_parameter("norm.weight")[count:] = 0
        made.get_parameter("norm.bias")[count:] = 0
    return made


def test_widths_are_as_measured_at_one_count() -> None:
    net = own_net()
    error = OutputError(Simulator(net, trace(net, (2, 4, 4))), net, images())
    refit = [np.array([0.6, 0.3, 0.1, 0.0])]
    (found,) = measured_widths(error, lambda counts: narrowed(net, counts[0]), [(1, 2, 3, 4)], refit, (4,))
    assert found[1] == pytest.approx(error.of(narrowed(net, 2)))
    assert found / found[1] == pytest.approx(refit[0] / 0.3)
    nothing = [np.zeros(4)]
    assert measured_widths(error, lambda counts: net, [(1, 2, 3, 4)], nothing, (4,))[0].tolist() == [0, 0, 0, 0]


def test_precisions_are_tried_in_their_layers_alone() -> None:
    net = own_net()
    graph = trace(net, (2, 4, 4))
    simulator = Simulator(net, graph)
    error, ranges = OutputError(simulator, net, images()), simulator.ranges(net, images())
    allowed = (BOTH, BOTH, ("float32",), BOTH, BOTH, ("int8",), BOTH)
    mixed = MixedArchitecture(graph.architecture, allowed, (0, 0, 2, 3, 4, 5, 6))
    found = measured_precisions(error, mixed, ranges)

    def share(*int8: int) -> float:
        policy = ["int8" if i in (*int8, 5) else "float32" for i in range(7)]
        return error.of(simulator.network(net, policy, ranges))

    variables = [mixed.by_layer[layer] for layer in (0, 3, 4, 6)]
    for variable, layers in zip(variables, [(0, 1), (3,), (4,), (6,)], strict=True):
        assert variable is not None
        assert found[variable].tolist() == [pytest.approx(share(*layers) - share(), rel=1e-4), 0.0]
    assert [len(each) for each in found].count(0) == 1  # the one group's
    widths = [np.array([1.0, 0.0])]
    both = joined(mixed, widths, found)
    assert both[mixed.by_group[0]] is widths[0]
    assert [len(each) for each in both] == [2] * 5


def test_a_policy_is_worth_what_its_cut_and_rounded_network_gets_right() -> None:
    net = own_net()
    graph = trace(net, (2, 4, 4))
    simulator = Simulator(net, graph)
    mixed = MixedArchitecture(graph.architecture, [BOTH] * 7)
    labels = torch.arange(40) % 3
    asked: list[tuple[int, ...]] = []

    def cut(counts: tuple[int, ...]) -> nn.Module:
        asked.append(counts)
        return narrowed(net, counts[0])

    made = RoundedCut(mixed, simulator, cut, images(16))
    forward = PlainForward(images(), torch.device("cpu"), 7)
    evaluate = NetworkEvaluator(net, graph, made, images(16), images(), labels, 7, forward=forward)
    for count, precisions in ((4, ("float32",) * 7), (2, ("float32", *["int8"] * 6)), (2, ("int8",) * 7)):
        alone = narrowed(net, count)
        recalibrate_batch_norm(alone, images(16))
        rounded = simulator.network(alone, precisions, simulator.ranges(alone, images(16)))
        with torch.no_grad():
            logits = rounded(images())
        score = evaluate(mixed.values((count,), precisions))
        assert score.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
        assert score.loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)
    # A network is cut once for all precisions that are tried of it.
    assert asked == [(4,), (2,)]
