"""Peak activation memory: by hand on a residual network, against LiteRT's arena, and exact beside milliseconds."""

from __future__ import annotations

import itertools
import math
import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from amc_latency.lut.shapes.architecture import Architecture
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.export.export import export
from amc_latency.graph.trace import trace
from amc_latency.models.load import Network
from amc_latency.models.spec import ModelSpec
from amc_latency.search.costs.clamp import Budget, Clamp
from amc_latency.search.costs.costs import MAX, Counts, LatencyCosts, LayerCosts, PolicyCosts
from amc_latency.search.costs.memory import memory_costs, peak_bytes
from amc_latency.search.solvers.baselines import uniform_policies, uniform_policy
from amc_latency.search.solvers.dynamic import solve
from amc_latency.search.solvers.shares import solutions
from tests.amc_latency.search.costs.test_clamp import CHAIN, RESIDUAL, network, random_cost


class Residual(nn.Module):
    """8 channels of 16x16, whose block widens to 16; then 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.wide, self.narrow = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, image: Tensor) -> Tensor:
        n = image.shape[0]
        x = self.norm(self.stem(image)).relu()
        x = x + self.narrow(self.wide(x).relu())
        return self.head(x.mean((2, 3)).reshape(n, -1))


class Joined(nn.Module):
    """A map that is kept over two layers, joined, and 4 times smaller; it returns both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 2, stride=2), nn.Conv2d(6, 5, 1)
        self.up, self.last = nn.Upsample(scale_factor=2), nn.Conv2d(9, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.a(image)
        small = self.c(self.b(kept).relu())
        return self.last(torch.cat([kept, self.up(small)], 1)), small


@cache
def own(kind: type[nn.Module], size: tuple[int, int, int]) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind().eval()
    return Network(model, ModelSpec("own", input=size, classes=10), trace(model, size), trained=True)


def residual_bytes(a: int, b: int) -> int:
    """By hand: `a` channels on the sum, `b` within the block."""
    pixels = 16 * 16
    stem, wide, narrow, add = 3 + a, a + b, a + b + a, 3 * a
    return 4 * max(pixels * max(stem, wide, narrow, add), pixels * a + a, a + 10)


def test_a_residual_networks_peak_is_while_the_block_narrows_and_the_skip_waits() -> None:
    net = own(Residual, (3, 16, 16))
    assert peak_bytes(net) == 4 * 16 * 16 * (16 + 8 + 8)
    choices = [(1, 2, 5, 8), (1, 4, 16)]
    costs = memory_costs(net, choices)
    for a, b in itertools.product(*choices):
        assert costs.of((a, b)) == residual_bytes(a, b)
    assert costs.of_many([(2, 4), (1, 1)]).tolist() == [residual_bytes(2, 4), residual_bytes(1, 1)]
    # With one channel everywhere the image and the stem are the most.
    assert costs.of((1, 1)) == 4 * 256 * 4


def test_what_is_joined_or_returned_waits() -> None:
    net = own(Joined, (1, 8, 8))
    assert net.graph.architecture.group_channels == (4, 6)
    # c's map is an output, and so whole; a's waits until it is joined.
    for a, b in itertools.product((1, 4), (1, 6)):
        image, kept, mid, small, up = 64, 64 * a, 16 * b, 16 * 5, 64 * 5
        each = [
            image + kept,
            kept + mid,
            kept + mid + small,
            kept + small + up,
            kept + small + up + (kept + up),
            small + (kept + up) + 64 * 2,
        ]
        assert memory_costs(net, [(1, 4), (1, 6)]).of((a, b)) == 4 * max(each)
    assert peak_bytes(net) == 4 * (256 + 80 + 320 + 576)


@pytest.mark.parametrize(("kind", "size"), [(Residual, (3, 16, 16)), (Joined, (1, 8, 8))])
def test_litert_needs_that_much(tmp_path: Path, kind: type[nn.Module], size: tuple[int, int, int]) -> None:
    """Its arena holds the image to the end and aligns tensors to 64 bytes; ours is the least that any plan needs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    net = own(kind, size)
    export(net.model, size, tmp_path / "own.tflite")
    interpreter = Interpreter(
        str(tmp_path / "own.tflite"),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    # What an operator writes, and the image: weights lie in the file.
    written = {int(each) for op in interpreter._get_ops_details() for each in op["outputs"]}
    written |= {each["index"] for each in interpreter.get_input_details()}
    spans = []
    for index in written:
        view = interpreter.tensor(index)()
        start = view.__array_interface__["data"][0]
        spans.append((start, start + view.nbytes))
        del view
    arena = max(end for _, end in spans) - min(start for start, _ in spans)
    assert peak_bytes(net) <= arena <= peak_bytes(net) + 4 * math.prod(size) + 64 * len(spans)


def random_peak(architecture: Architecture, choices: list[tuple[int, ...]], seed: int) -> PolicyCosts:
    """Any table a layer, rising or not: more than memory asks for."""

    def layers(found: tuple[Counts, ...]) -> list[tuple[tuple[int, ...], np.ndarray]]:
        rng = np.random.default_rng(seed)
        scopes = [architecture.scope(layer) for layer in architecture.layers]
        return [(scope, rng.integers(0, 1000, [len(found[g]) for g in scope])) for scope in scopes]

    return PolicyCosts(architecture, choices, layers, combine=MAX)


@pytest.mark.parametrize("links", [CHAIN, RESIDUAL], ids=["chain", "residual"])
@pytest.mark.parametrize("seed", range(6))
def test_clamp_and_dynamic_programming_are_exact_under_milliseconds_and_memory(links, seed: int) -> None:
    groups = 1 + max(group for link in links for group in link if group is not None)
    architecture, choices = network(links, (8,) * groups), [(2, 5, 8)] * groups
    costs = LatencyCosts(architecture, choices, random_cost(seed), offset_ms=-0.1 * (seed % 2))
    memory = random_peak(architecture, choices, seed)
    policies = list(itertools.product(*choices))
    tables = [(scope, table) for scope, table in memory.layers]
    peaks = {
        each: max(int(table[tuple((2, 5, 8).index(each[g]) for g in scope)]) for scope, table in tables)
        for each in policies
    }
    assert {each: memory.of(each) for each in policies} == peaks
    limit = sorted(peaks.values())[len(policies) // 8]
    fitting = sorted(costs.ms(each) for each in policies if peaks[each] <= limit)
    for target_ms in (fitting[0], fitting[len(fitting) // 3], math.inf):
        within = [each for each in policies if costs.ms(each) <= target_ms and peaks[each] <= limit]
        clamp = Clamp(costs, target_ms, [Budget("bytes of activations", memory, limit)])
        assert clamp.fastest_ms == fitting[0]
        assert [each for each in policies if clamp.holds(each)] == within
        for length in range(groups):
            for prefix in itertools.islice(itertools.product(*choices[:length]), 0, None, 5):
                finishable = {each[length] for each in within if each[:length] == prefix}
                assert clamp.allowed(prefix).tolist() == [count in finishable for count in choices[0]]
        damage = [np.array([random.Random(f"{seed}{g}{i}").random() for i in range(3)]) for g in range(groups)]
        lost = {e: sum(damage[g][(2, 5, 8).index(count)] for g, count in enumerate(e)) for e in within}
        solution = solve(costs, damage, clamp.guide_limit, forbidden=clamp.forbidden)
        assert solution.counts in lost
        assert solution.optimal
        assert solution.damage == pytest.approx(min(lost.values()))
        assert set(solutions(clamp, damage, (1.0, 0.97))) <= set(within)
        uniform = [each for each in uniform_policies(costs) if each in lost]
        if uniform:
            assert uniform_policy(costs, target_ms, clamp.budgets) == uniform[0]


def test_three_budgets_end_within_all() -> None:
    architecture, choices = network(RESIDUAL, (8,) * 5), [(2, 5, 8)] * 5
    costs = LatencyCosts(architecture, choices, random_cost(1))
    macs = LayerCosts(architecture, choices, lambda shape: shape.macs)
    memory = random_peak(architecture, choices, 3)
    limit = sorted(memory.of(each) for each in itertools.product(*choices))[120]
    budgets = [Budget("bytes", memory, limit), Budget("MACs", macs, int(0.8 * macs.of((8,) * 5)))]
    clamp = Clamp(costs, 0.85 * costs.full_ms, budgets)
    assert clamp.guide is costs
    for seed in range(20):
        counts: Counts = ()
        for ratio in np.random.default_rng(seed).uniform(0, 1, 5):
            counts = (*counts, clamp.nearest(counts, float(ratio)))
        assert clamp.holds(counts)
        assert memory.of(counts) <= limit


def test_a_limit_that_nothing_holds_names_the_least() -> None:
    net = own(Residual, (3, 16, 16))
    choices = [(2, 8), (4, 16)]
    memory = memory_costs(net, choices)
    # Wide is fast here, so that little memory is slow.
    costs = LatencyCosts(net.graph.architecture, choices, lambda shape: 1.0 / shape.c_out)
    least = residual_bytes(2, 4)
    with pytest.raises(UserError, match=f"{least - 1:,} bytes of activations is out of reach.* cut to is {least:,};"):
        Clamp(costs, math.inf, [Budget("bytes of activations", memory, least - 1)])
    narrow = Budget("bytes of activations", memory, least)
    assert Clamp(costs, math.inf, [narrow]).allowed(()).tolist() == [True, False]
    fastest_ms = costs.ms((2, 4))
    with pytest.raises(UserError, match=rf"out of reach.* within {least:,} bytes of activations is predicted at") as e:
        Clamp(costs, costs.ms((8, 16)), [narrow])
    assert f"{fastest_ms:.4g}"[:4] in str(e.value)
