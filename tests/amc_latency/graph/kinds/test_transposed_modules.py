"""Networks with transposed convolutions: traced, cut, refitted and exported, against PyTorch's own forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from amc_latency.lut.tflite.run import run_tflite, tflite_ops
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.export.export import to_tflite
from amc_latency.graph.registry import channels_of, is_weighted, outputs_first
from amc_latency.graph.rewriting.normal_form import normal_form
from amc_latency.graph.trace import trace
from amc_latency.prune.cut import cut
from amc_latency.prune.rank import consumer_l1
from amc_latency.prune.refit import collect, recalibrate_batch_norm, refit
from amc_latency.search.judge.damage import refit_error
from amc_latency.search.judge.forward import CutForward

IMAGE = (3, 6, 8)


class Decoder(nn.Module):
    """An encoder's two convolutions, and a transposed one that is joined to the first."""

    def __init__(self, bias: bool = True, **settings: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, 1)
        self.up = nn.ConvTranspose2d(8, 5, stride=2, bias=bias, **(settings or {"kernel_size": 2}))
        self.norm, self.last = nn.BatchNorm2d(5), nn.Conv2d(11, 4, 3, padding=1)
        for tensor in (self.norm.weight, self.norm.bias, self.norm.running_mean):
            nn.init.normal_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        left = torch.tanh(self.one(x))
        return self.last(torch.cat([left, torch.relu(self.norm(self.up(torch.tanh(self.two(left)))))], 1))


def images(n: int = 4) -> Tensor:
    return torch.randn(n, *IMAGE, generator=torch.Generator().manual_seed(0))


SETTINGS = (
    {"kernel_size": 2},
    {"kernel_size": 4, "padding": 1},
    {"kernel_size": 3, "padding": 1, "output_padding": 1},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_decoder_is_traced_cut_and_exported(bias: bool, settings: dict[str, int], tmp_path: Path) -> None:
    model = Decoder(bias, **settings).eval()
    graph = trace(model, IMAGE)
    assert [group.name for group in graph.groups] == ["one", "two", "up"]
    assert (graph.groups[1].consumers, graph.groups[2].batch_norms) == (("up",), ("norm",))
    k, p, end = settings["kernel_size"], settings.get("padding", 0), settings.get("output_padding", 0)
    extra = f"+{end}" if end else ""
    assert str(graph.architecture.layers[4].shape) == f"transposed 8x3x4>5 k{k} s2 p{p}{extra} relu float32"
    keep = [torch.tensor(kept) for kept in ([0, 2, 5], [1, 2, 4, 7], [0, 3])]
    small = cut(model, graph, keep)
    assert small.up.weight.shape == (4, 2, k, k)
    assert (small.up.in_channels, small.up.out_channels) == (4, 2)
    torch.testing.assert_close(small.up.weight, model.up.weight[keep[1]][:, keep[2]])
    with torch.inference_mode():
        # By PyTorch's own functions, of weights that are zero in place of cut.
        left = torch.tanh(model.one(images()))
        left = left * torch.isin(torch.arange(6), keep[0])[:, None, None]
        right = torch.tanh(model.two(left)) * torch.isin(torch.arange(8), keep[1])[:, None, None]
        right = torch.relu(model.norm(model.up(right))) * torch.isin(torch.arange(5), keep[2])[:, None, None]
        expected = model.last(torch.cat([left, right], 1))
        torch.testing.assert_close(small(images()), expected, rtol=1e-4, atol=1e-5)
    assert trace(small, IMAGE).architecture.shapes() == graph.architecture.shapes([3, 4, 2])
    path = tmp_path / "small.tflite"
    path.write_bytes(to_tflite(small, IMAGE))
    found = np.asarray(run_tflite(path, images().numpy()))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)
    # The batch norm and the ReLU are in it, and the stride-2 convolution's PAD is the only other operator.
    ops = {"CONV_2D": 3, "TANH": 2, "TRANSPOSE_CONV": 1, "CONCATENATION": 1, "PAD": 1} | ({"SLICE": 1} if end else {})
    assert tflite_ops(path.read_bytes()) == ops


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_refit_equals_numpys_least_squares(settings: dict[str, int]) -> None:
    model = Decoder(**settings).eval()
    model.norm = nn.Identity()
    graph = trace(model, IMAGE)
    kept = torch.tensor([0, 2, 3, 6])
    keep = [kept if group.name == "two" else torch.arange(group.channels) for group in graph.groups]
    small = cut(model, graph, keep)
    refit(small, model, graph, collect(model, graph, images(60), points=10**9), keep, ridge=1e-12)
    with torch.no_grad():
        x = torch.tanh(model.two(torch.tanh(model.one(images(60)))))
        outputs = model.up(x).movedim(1, -1).flatten(0, 2).double().numpy()
        # A column for each weight: what comes of an output when that weight alone is 1.
        taps = settings["kernel_size"] ** 2
        unit = torch.eye(taps).view(taps, *2 * [settings["kernel_size"]])
        rest = {key: value for key, value in settings.items() if key != "kernel_size"}
        columns = [
            functional.conv_transpose2d(x[:, [c]], tap[None, None], stride=2, **rest).flatten()
            for c in kept.tolist()
            for tap in unit
        ]
    inputs = np.c_[torch.stack(columns, 1).double().numpy(), np.ones(len(outputs))]
    solution = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
    ours = outputs_first(small.up).detach().flatten(1).numpy()
    np.testing.assert_allclose(np.c_[ours, small.up.bias.detach().numpy()], solution.T, rtol=1e-3, atol=1e-4)


def test_a_search_runs_it_as_it_runs_the_others() -> None:
    """Importance, damage, the fused forward pass: of weights [in, out, height, width]."""
    model = Decoder().eval()
    graph = trace(model, IMAGE)
    expected = model.up.weight.detach().abs().sum((1, 2, 3))
    torch.testing.assert_close(consumer_l1(model, graph)[1], expected)
    statistics = collect(model, graph, images(40))
    damage = refit_error(model, graph, statistics, [(3, 6), (4, 8), (2, 5)])
    assert all(0 < lost[0] < 1 and lost[1] == 0 for lost in damage)
    keep = [torch.arange(3), torch.arange(4), torch.arange(2)]
    small = cut(model, graph, keep)
    (found,) = CutForward(model, graph, images(16), images()).logits(small, (3, 4, 2))
    recalibrate_batch_norm(small, images(16))
    with torch.inference_mode():
        torch.testing.assert_close(found, small(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (nn.ConvTranspose2d(4, 4, 2, groups=2), "with groups or with dilation"),
        (nn.ConvTranspose2d(4, 4, 2, dilation=2), "with groups or with dilation"),
        (nn.ConvTranspose2d(4, 4, 2, stride=(1, 2)), r"stride \(1, 2\)"),
        (nn.ConvTranspose2d(4, 4, 3, stride=2, output_padding=(1, 0)), r"output_padding \(1, 0\)"),
        (nn.ConvTranspose2d(4, 4, 3, padding=3), "padding must be smaller than the kernel"),
    ],
)
def test_what_is_refused_is_named(module: nn.Module, complaint: str) -> None:
    with pytest.raises(UserError, match=rf"^1: .*{complaint}"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 1), module), IMAGE)


def test_a_size_that_is_told_is_refused() -> None:
    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 3, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.down(x), output_size=[6, 8])

    with pytest.raises(UserError, match=r"^up: .* given its output's size"):
        trace(Told(), IMAGE)


def test_a_function_with_a_modules_own_parameters_is_a_module() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return functional.conv_transpose2d(x, self.weight, stride=2, padding=(0, 1))

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Own()).eval()
    normal = normal_form(model, IMAGE)
    assert str(trace(normal, IMAGE).architecture.layers[1].shape) == "transposed 4x6x8>3 k2x3 s2 p0x1 none float32"
    with torch.inference_mode():
        torch.testing.assert_close(normal(images()), model(images()))


def test_modules_without_channels_are_named() -> None:
    with pytest.raises(TypeError, match="ReLU has no channels"):
        channels_of(nn.ReLU())
    assert [is_weighted(module) for module in (None, nn.ReLU(), nn.BatchNorm2d(2), nn.PReLU())] == [False] * 4
    assert [is_weighted(m) for m in (nn.Conv2d(1, 1, 1), nn.Linear(1, 1), nn.ConvTranspose2d(1, 1, 1))] == [True] * 3
