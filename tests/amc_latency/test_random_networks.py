"""Properties of random small networks; `RANDOM_NETWORKS=2000 pytest -s` with this file's name asks as many of each."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from amc_latency.lut.tflite.run import run_tflite
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.export.export import to_tflite
from amc_latency.graph.rewriting.normal_form import normal_form
from amc_latency.graph.trace import NetworkGraph, trace
from amc_latency.prune.cut import cut
from tests.amc_latency.random_networks import MIXING, MIXING_MAPS, random_network

COUNT = int(os.environ.get("RANDOM_NETWORKS", "20"))
TOLERANCE = 2e-4
"""of the outputs' range: float32's rounding through a dozen operators"""


def taken(model: nn.Module, image: tuple[int, int, int]) -> tuple[nn.Module, NetworkGraph] | str:
    """What the product makes of a network, which is left as it is, or why it refuses it."""
    try:
        normal = normal_form(copy.deepcopy(model), image)
        return normal, trace(normal, image)
    except UserError as error:
        return str(error)


def assert_alike(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE * (expected.max() - expected.min()) + 1e-6  # false for NaN


def random_keep(graph: NetworkGraph, draw: torch.Generator) -> list[Tensor]:
    """Any channels of each group, as few as it may keep or more."""
    keep = []
    for group in graph.groups:
        count = int(torch.randint(group.least, group.channels + 1, (), generator=draw))
        keep.append(torch.randperm(group.channels, generator=draw)[:count].sort().values)
    return keep


def masked(model: nn.Module, graph: NetworkGraph, keep: list[Tensor], images: Tensor) -> Tensor:
    """The whole network's outputs on `images` where all but `keep` is missing.

    What is missing is NaN, which each layer that reads channels takes for 0; what mixes channels spreads it.
    """

    def spoil(lost: Tensor) -> Callable[..., Tensor]:
        return lambda module, args, output: output.clone().index_fill_(1, lost, torch.nan)

    handles = []
    for group, kept in zip(graph.groups, keep, strict=True):
        is_lost = torch.ones(group.channels, dtype=torch.bool)
        is_lost[kept] = False
        for name in group.producers:
            producer = model.get_submodule(name)
            made = producer.out_features if isinstance(producer, nn.Linear) else producer.out_channels
            values = made // group.channels  # type: ignore[operator]
            handles.append(producer.register_forward_hook(spoil(is_lost.repeat_interleave(values).nonzero().flatten())))
    for module in model.modules():
        is_dense = isinstance(module, nn.Conv2d) and module.groups == 1
        if is_dense or isinstance(module, (nn.Linear, nn.ConvTranspose2d)):
            handles.append(module.register_forward_pre_hook(lambda module, args: args[0].nan_to_num()))
    outputs = model(images)
    for handle in handles:
        handle.remove()
    return outputs


def exported_equals_pytorch(seed: int, path: Path) -> str:
    """What became of the network of that seed: "refused: why" or "exported"; raises where LiteRT says otherwise."""
    model, image = random_network(seed)
    result = taken(model, image)
    if isinstance(result, str):
        return "refused: " + _kind(result)
    images = torch.randn(2, *image, generator=torch.Generator().manual_seed(seed))
    path.write_bytes(to_tflite(result[0], image))
    with torch.inference_mode():
        # As it was written, not in normal form, and one by one.
        expected = torch.cat([model(each[None]) for each in images])
    assert_alike(torch.from_numpy(np.asarray(run_tflite(path, images.numpy()))), expected)
    return "exported"


def sliced_equals_masked(seed: int, path: Path) -> str:
    """As `exported_equals_pytorch`, of a random cut of a network with operators that mix channels, which is "cut"."""
    model, image = random_network(seed, mixing=0.03)
    result = taken(model, image)
    if isinstance(result, str):
        return "refused: " + _kind(result)
    normal, graph = result
    if not graph.groups:
        return "nothing to cut"
    draw = torch.Generator().manual_seed(seed)
    keep, images = random_keep(graph, draw), torch.randn(2, *image, generator=draw)
    small = cut(normal, graph, keep)
    with torch.inference_mode():
        found = small(images)
        assert_alike(found, masked(normal, graph, keep, images))
    again = trace(small, image)
    counts = [len(kept) for kept in keep]
    assert again.architecture.shapes() == graph.architecture.shapes(counts)
    assert again.architecture.params() == graph.architecture.params(counts)
    path.write_bytes(to_tflite(small, image))
    assert_alike(torch.from_numpy(np.asarray(run_tflite(path, images.numpy()))), found)
    return "cut"


def _kind(refusal: str) -> str:
    """A refusal without names and figures."""
    text = refusal.split("; such a network")[0].partition(": ")[2]
    return " ".join(word for word in text.split() if not any(letter.isdigit() for letter in word))


@pytest.mark.timeout(120 + 2 * COUNT)
@pytest.mark.parametrize("ask", [exported_equals_pytorch, sliced_equals_masked])
def test_random_networks(ask: Callable[[int, Path], str], tmp_path: Path) -> None:
    """Each is refused by name, or computes the same in the file, and cut the same as masked."""
    outcomes: Counter[str] = Counter()
    failures: dict[int, str] = {}
    for seed in range(COUNT):
        try:
            outcomes[ask(seed, tmp_path / "x.tflite")] += 1
        except Exception as error:  # all of them are to be told
            failures[seed] = f"seed {seed}: {type(error).__name__}: {str(error)[:300]}"
    print(f"\n{ask.__name__}: seeds 0 to {COUNT - 1}, {len(failures)} failed")
    print("\n".join(f"{count:6} {outcome}" for outcome, count in outcomes.most_common()))
    assert not failures, "\n".join(failures.values())
    # About half are, over thousands; of twenty a quarter may do.
    assert outcomes["exported"] + outcomes["cut"] >= COUNT // 5


@pytest.mark.parametrize("name", [*MIXING, *MIXING_MAPS])
def test_what_mixes_channels_is_refused_by_name(name: str) -> None:
    """No operator that makes a channel of others passes for one that works channel by channel."""
    mix = {**MIXING, **MIXING_MAPS}[name]

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.LazyConv2d(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(mix(self.stem(x))).mean((2, 3))

    model, image = Mixing().eval(), (3, 8, 8)
    model(torch.zeros(1, *image))
    result = taken(model, image)
    if isinstance(result, str):
        assert "amc-latency export" in result  # A refusal to cut it, not a failure on the way.
    else:
        assert "stem" in {left.module for left in result[1].left_whole}
