"""ResNet-20/56, Plain-20 and the grey MobileNetV2: published sizes, coupled groups, and the way from cut to .tflite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.export.export import export
from amc_latency.graph.trace import NetworkGraph, trace
from amc_latency.models.files.checkpoint import load_checkpoint, save_checkpoint
from amc_latency.models.registry import build_model
from amc_latency.models.spec import ModelSpec
from amc_latency.prune.cut import cut
from amc_latency.prune.refit import collect, recalibrate_batch_norm, refit

COLOUR = (3, 32, 32)
SPECS = {
    "resnet20": ModelSpec("resnet20", 1.0, (1, 32, 32), 10),
    "plain20": ModelSpec("plain20", 1.0, (1, 32, 32), 10),
    "mobilenet_v2": ModelSpec("mobilenet_v2", 0.5, (1, 32, 32), 10),
}


def graph_of(spec: ModelSpec) -> NetworkGraph:
    with torch.device("meta"):
        return trace(build_model(spec), spec.input)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # He et al., table 6: 0.27 M and 0.85 M parameters without projections. With them the two published counts of
        # github.com/chenyaofo/pytorch-cifar-models: 0.27 M and 40.81 M, 0.86 M and 125.75 M.
        ("resnet20", 269_722 + 16 * 32 + 32 * 64 + 2 * (32 + 64), 40_551_040 + 16 * 32 * 16**2 + 32 * 64 * 8**2),
        ("resnet56", 853_018 + 16 * 32 + 32 * 64 + 2 * (32 + 64), 125_485_696 + 16 * 32 * 16**2 + 32 * 64 * 8**2),
        ("plain20", 269_722, 40_551_040),
    ],
)
def test_sizes_are_the_published_ones(name: str, params: int, macs: int) -> None:
    spec = ModelSpec(name, input=COLOUR, classes=10)
    assert sum(p.numel() for p in build_model(spec).parameters()) == params
    assert sum(shape.macs for shape in graph_of(spec).architecture.shapes()) == macs


def test_a_plain_network_is_counted_by_hand() -> None:
    stages = [(16, 16, 32), (16, 32, 16), (32, 64, 8)]  # channels in, channels out, size
    convolutions = [3 * 16 * 32**2]
    for inputs, outputs, size in stages:
        convolutions += [inputs * outputs * size**2] + 5 * [outputs * outputs * size**2]
    expected = 9 * sum(convolutions) + 64 * 10
    shapes = graph_of(ModelSpec("plain20", input=COLOUR, classes=10)).architecture.shapes()
    assert sum(shape.macs for shape in shapes) == expected


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 20), ("resnet56", 56), ("plain20", 20)])
def test_depth_is_in_the_name(name: str, layers: int) -> None:
    graph = graph_of(ModelSpec(name, input=COLOUR, classes=10))
    shapes = graph.architecture.shapes()
    assert sum((shape.kind, shape.kernel) in (("conv", 3), ("linear", 1)) for shape in shapes) == layers
    assert sum(shape.kind == "add" for shape in shapes) == (0 if name == "plain20" else (layers - 2) // 2)


@pytest.mark.parametrize(("width", "stages"), [(0.5, {8, 16, 32}), (2.0, {32, 64, 128}), (0.1, {8})])
def test_width_scales_every_stage(width: float, stages: set[int]) -> None:
    assert set(graph_of(ModelSpec("resnet20", width, COLOUR, 10)).architecture.group_channels) == stages


@pytest.mark.parametrize(("depth", "size", "last"), [(1, 8, 2), (3, 9, 3), (1, 28, 7), (3, 64, 16)])
def test_any_square_input_from_8_pixels_on(depth: int, size: int, last: int) -> None:
    graph = graph_of(ModelSpec("resnet20", input=(depth, size, size), classes=10))
    pool = next(shape for shape in graph.architecture.shapes() if shape.kind == "global_pool")
    assert (pool.h, pool.w) == (last, last)


def test_shortcuts_tie_a_stage_and_leave_the_inner_convolutions_free() -> None:
    groups = {group.producers: group.consumers for group in graph_of(SPECS["resnet20"]).groups}
    stages = [
        ("conv", "blocks.0.conv2", "blocks.1.conv2", "blocks.2.conv2"),
        ("blocks.3.conv2", "blocks.3.shortcut.0", "blocks.4.conv2", "blocks.5.conv2"),
        ("blocks.6.conv2", "blocks.6.shortcut.0", "blocks.7.conv2", "blocks.8.conv2"),
    ]
    assert set(groups) == {*stages, *((f"blocks.{block}.conv1",) for block in range(9))}
    assert groups[stages[1]] == ("blocks.4.conv1", "blocks.5.conv1", "blocks.6.conv1", "blocks.6.shortcut.0")
    assert groups[("blocks.4.conv1",)] == ("blocks.4.conv2",)


def test_without_shortcuts_every_convolution_is_a_group() -> None:
    graph = graph_of(SPECS["plain20"])
    assert all(len(group.producers) == len(group.consumers) == 1 for group in graph.groups)
    assert graph.architecture.group_channels == (16,) * 7 + (32,) * 6 + (64,) * 6


def test_a_grey_mobilenet_v2_differs_in_its_stem_alone() -> None:
    grey, colour = (build_model(ModelSpec("mobilenet_v2", 0.5, (depth, 64, 64), 10)) for depth in (1, 3))
    theirs = colour.state_dict()
    differing = [name for name, tensor in grey.state_dict().items() if tensor.shape != theirs[name].shape]
    assert list(grey.state_dict()) == list(theirs)
    assert differing == ["features.0.0.weight"]
    assert grey.state_dict()[differing[0]].shape == (16, 1, 3, 3)
    assert graph_of(SPECS["mobilenet_v2"]).architecture.shapes()[0].text.startswith("conv 1x32x32>16 k3 s2 p1 relu6")


@pytest.mark.parametrize(
    ("name", "width"), [("resnet20", 0), ("mobilenet_v2", -1.0), ("plain20", 17.0), ("mobilenet_v1", float("nan"))]
)
def test_impossible_widths_are_refused(name: str, width: float) -> None:
    with pytest.raises(UserError, match=r"not in 0\.\.16"):
        build_model(ModelSpec(name, width, (1, 32, 32), 10))


def network(name: str) -> nn.Module:
    """Random weights, and batch norms that do something."""
    torch.manual_seed(0)
    model = build_model(SPECS[name])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    recalibrate_batch_norm(model, images(SPECS[name], 32))
    return model


def images(spec: ModelSpec, count: int) -> Tensor:
    return torch.randn(count, *spec.input, generator=torch.Generator().manual_seed(1))


def random_keep(graph: NetworkGraph) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    keep = []
    for group in graph.groups:
        count = int(torch.randint(1, group.channels + 1, (), generator=generator))
        keep.append(torch.randperm(group.channels, generator=generator)[:count].sort().values)
    return keep


def masked_logits(model: nn.Module, graph: NetworkGraph, keep: list[Tensor], x: Tensor) -> Tensor:
    """What `model` answers if its consumers see zeros in place of the channels that are not kept."""

    def mask(kept: Tensor):
        def hook(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            seen = torch.zeros_like(args[0])
            seen[:, kept] = args[0][:, kept]
            return (seen,)

        return hook

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(mask(kept))
        for group, kept in zip(graph.groups, keep, strict=True)
        for name in group.consumers
    ]
    with torch.inference_mode():
        logits = model(x)
    for hook in hooks:
        hook.remove()
    return logits


@pytest.mark.parametrize("name", SPECS)
def test_from_a_cut_to_a_file_on_the_device(name: str, tmp_path: Path) -> None:
    spec, model = SPECS[name], network(name)
    graph = trace(model, spec.input)
    keep, x = random_keep(graph), images(spec, 48)
    small = cut(model, graph, keep)
    counts = tuple(map(len, keep))
    assert trace(small, spec.input).architecture.shapes() == graph.architecture.shapes(counts)
    with torch.inference_mode():
        torch.testing.assert_close(small(x[:4]), masked_logits(model, graph, keep, x[:4]), rtol=1e-4, atol=1e-4)

    refit(small, model, graph, collect(model, graph, x, points=16), keep)
    recalibrate_batch_norm(small, x)
    report = export(small, spec.input, tmp_path / "small.tflite", x[:2])
    with torch.inference_mode():
        largest = float(small(x[:2]).abs().max())
    assert 0 <= report.max_abs_error < 1e-4 * max(1, largest)
    assert report.macs == sum(shape.macs for shape in graph.architecture.shapes(counts))

    save_checkpoint(tmp_path / "small.safetensors", small, replace(spec, channels=counts))
    loaded, found, _ = load_checkpoint(tmp_path / "small.safetensors")
    assert (found.name, found.channels) == (name, counts)
    with torch.inference_mode():
        assert torch.equal(loaded(x[:2]), small(x[:2]))
