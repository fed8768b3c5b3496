"""Widths and precisions of a traced network: the best of all policies, one by one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from amc_latency.lut.prediction.calibration import Calibration
from amc_latency.lut.shapes.mixed import mixed_shapes
from amc_latency.lut.shapes.shape import LayerShape
from torch import nn

from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from amc_latency.models.load import Network
from amc_latency.models.spec import ModelSpec
from amc_latency.prune.refit import collect
from amc_latency.quantize.architecture import mixed_architecture
from amc_latency.search.judge.evaluator import RankedCut
from amc_latency.search.judge.score import Score
from amc_latency.search.solvers.mixed import MixedSearch, choose_mixed

CHOICES = [(2, 4), (3, 6)]


class Microseconds:
    """A predictor of arithmetic: int8 is quicker in convolutions, slower in depthwise ones; boundaries take time."""

    def missing(self, shapes: Iterable[LayerShape]) -> list[LayerShape]:
        return []

    def calibration(self, shapes: object) -> Calibration:
        return Calibration(scale=1.1, offset_ms=0.002)

    def layer_us(self, shape: LayerShape) -> float:
        values = shape.c_out * shape.h_out * shape.w_out
        if "quantize" in shape.kind:
            return 0.1 + values / 200
        share = (
            {"conv": 0.3, "depthwise": 1.7, "linear": 0.5}.get(shape.kind, 1.0) if shape.precision == "int8" else 1.0
        )
        return (1 + values / 50 + shape.macs / 100) * share


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 6, 1)
        )
        model = nn.Sequential(*model, nn.ELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()
    size = (2, 6, 6)
    return Network(model, ModelSpec("own", input=size, classes=3), trace(model, size), trained=True)


def test_what_cannot_be_int8_stays_float32(network: Network) -> None:
    mixed = mixed_architecture(network.graph, ["float32", "int8"])
    kinds = [layer.shape.kind for layer in network.graph.architecture.layers]
    assert kinds == ["conv", "depthwise", "conv", "activation", "global_pool", "linear"]
    assert [len(each) for each in mixed.allowed] == [2, 2, 2, 1, 2, 2]  # ELU
    assert mixed.allowed[3] == ("float32",)
    assert {each[0] for each in mixed_architecture(network.graph, ["float32"]).allowed} == {"float32"}


def test_the_best_policy_is_the_best_of_all(network: Network) -> None:
    predictor = Microseconds()
    search = MixedSearch(network, predictor, CHOICES, ["int8", "float32"])  # type: ignore[arg-type]
    architecture, mixed = network.graph.architecture, search.mixed
    seen = torch.randn(64, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    statistics = collect(network.model, network.graph, seen)
    damage = search.damage(seen, RankedCut(network.model, network.graph, statistics), statistics)
    assert all(each[-1] == 0 and (each >= 0).all() for each in damage)

    policies = {}
    for values in itertools.product(*search.costs.choices):
        shapes = mixed_shapes(architecture, mixed.precisions(values), mixed.counts(values))
        policies[values] = 1.1 * sum(map(predictor.layer_us, shapes)) / 1000 + 0.002
        assert search.costs.ms(values) == pytest.approx(policies[values], abs=1e-7)

    def lost(values: tuple[int, ...]) -> float:
        return sum(float(each[i]) for each, i in zip(damage, search.costs.indices(values), strict=True))

    for share in (0.5, 0.7, 0.9):
        target_ms = share * search.costs.full_ms
        found = search.best(damage, target_ms)
        assert found.optimal
        assert found.predicted_ms <= target_ms
        assert found.damage == pytest.approx(min(lost(values) for values, ms in policies.items() if ms <= target_ms))
        assert found.damage == pytest.approx(lost(mixed.values(found.counts, found.precisions)))
    target_ms = 0.7 * search.costs.full_ms
    chosen = choose_mixed(network, predictor, seen, target_ms, CHOICES)  # type: ignore[arg-type]
    assert chosen == search.best(damage, target_ms)
    with pytest.raises(UserError, match="out of reach"):
        search.best(damage, 0.9 * min(policies.values()))

    def evaluate(values: tuple[int, ...]) -> Score:
        return Score(0.0, lost(values), 1)

    # A target that is met by the fastest alone before anything is measured.
    target_ms = 0.6 * search.costs.full_ms
    start = replace(search.best([np.zeros_like(each) for each in damage], target_ms), optimal=False)
    around = search.around(start, evaluate, target_ms, rounds=3)
    assert around.predicted_ms <= target_ms
    assert lost(mixed.values(around.counts, around.precisions)) <= lost(mixed.values(start.counts, start.precisions))
