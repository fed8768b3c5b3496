"""The library: what its calls take and give, on a device that answers by arithmetic."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.lut.tflite.run import tflite_ops, tflite_outputs
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

import amc_latency as amc
from amc_latency.errors import OptionError, UserError
from amc_latency.search.config.unused import handed_config

IMAGE = (3, 16, 16)


class ByArithmetic(Device):
    """A microsecond for each kilobyte of a file: all that it may know of one."""

    identity = DeviceIdentity("arithmetic", "none", "bytes")
    protocol = Protocol(rounds=2, statistic="median")

    def __enter__(self) -> ByArithmetic:
        return self

    def __exit__(self, *of: object) -> None:
        pass

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            us = len(workload.build()) / 1000
            summary = Summary(us, us, us, 0.0)
            yield Timing(workload.name, round_index, 1, summary, summary)


class Segmenter(nn.Module):
    """Two scales and a mask in a dict: nothing that a classifier is."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.mask = nn.Conv2d(48, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(x)
        coarse = functional.interpolate(self.middle(self.coarse(fine)), scale_factor=2)
        return {"mask": self.mask(torch.cat([fine, coarse], 1)), "coarse": coarse}


@pytest.fixture(scope="module")
def model() -> Segmenter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Segmenter().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(48, *IMAGE, generator=torch.Generator().manual_seed(1))


class Alike:
    """How near to the original's a network's masks are; trained, it may come nearer."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.images = images
        with torch.no_grad():
            self.wanted = model(images)["mask"]
        self.budgets: set[int | None] = set()

    def calibration(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split(16), self.wanted.split(16), strict=True)

    def score(self, model: nn.Module, budget: int | None = None) -> float:
        assert not model.training
        self.budgets.add(budget)
        with torch.no_grad():
            return -float((model(self.images)["mask"] - self.wanted).square().mean())

    def digest(self) -> str:
        return "alike 1"


class Trained(Alike):
    """With a loop of its own."""

    def train(self, model: nn.Module, teacher: nn.Module) -> str:
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(12):
            with torch.no_grad():
                wanted = teacher(self.images)["mask"]
            loss = (model(self.images)["mask"] - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return "nobody looks at this"


@pytest.fixture(scope="module")
def net(model: Segmenter, images: Tensor) -> amc.Network:
    return amc.network(model, images[:1])


@pytest.fixture(scope="module")
def table(net: amc.Network, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("table") / "a.tsv"
    return amc.profile(net, ByArithmetic(), table=path, quiet=True)


def search(net: amc.Network, table: Any, task: Any, out: Path, **options: Any) -> amc.SearchResult:
    options = {"target_macs": "50%", "baselines": "uniform", "images": 16, **options}
    return amc.search(net, ByArithmetic(), table, task=task, out=out, quiet=True, **options)


def test_a_network_with_a_task_of_its_own_is_cut_trained_and_written(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    task = Trained(model, images)
    result = search(net, table, task, tmp_path / "run")
    assert result.met
    assert task.budgets == {16, None}
    # 3x16x9 + 16x32x9/4 + 32x32x9/4 + 48x2 a pixel, of 16x16.
    whole = 256 * (3 * 16 * 9 + 16 * 32 * 9 // 4 + 32 * 32 * 9 // 4 + 48 * 2)
    assert sum(layer.shape.macs for layer in net.graph.architecture.layers) == whole
    assert result.report.macs <= whole / 2
    with torch.no_grad():
        found = result.network.model(images)
    assert result.report.accuracy == pytest.approx(-float((found["mask"] - task.wanted).square().mean()), rel=1e-4)
    # Training took it nearer than refit had.
    assert result.report.accuracy > result.report.rows[-1].held_back
    shipped = tflite_outputs(result.tflite, images[:2].numpy())
    for got, name in zip(shipped, ("mask", "coarse"), strict=True):
        assert torch.allclose(torch.from_numpy(got), found[name][:2], atol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    again = amc.network(model, images[:1], checkpoint=result.folder / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(again.model(images)["mask"], found["mask"])
    # Finished: it is only read.
    task.budgets.clear()
    assert search(net, table, task, tmp_path / "run").report == result.report
    assert not task.budgets


def test_a_training_that_changes_its_teacher_changes_no_network_of_the_user(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path
) -> None:
    class Spoils(Alike):
        def train(self, model: nn.Module, teacher: nn.Module) -> None:
            with torch.no_grad():
                for tensor in teacher.parameters():
                    tensor.zero_()

    mine = amc.network(model, images[:1])
    before = [tensor.clone() for tensor in mine.model.parameters()]
    search(mine, table, Spoils(model, images), tmp_path / "run")
    assert all(map(torch.equal, mine.model.parameters(), before))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_macs": "5X"}, r"`target_macs` is a number such as 6M, .* not '5X'"),
        ({"target_memory": float("nan")}, "`target_memory` is nan; give a number"),
        ({"target_memory": True}, "`target_memory` is a number or text, not True"),
        ({"seed": 1.5}, r"`seed` is a whole number, not 1\.5"),
        ({"min_keep": "conv=zz"}, "`min_keep` is a share such as .*'conv=zz'"),
    ],
    ids=str,
)
def test_a_value_that_is_none_is_said_by_its_argument(
    options: dict[str, Any],
    message: str,
    model: Segmenter,
    images: Tensor,
    net: amc.Network,
    table: Any,
    tmp_path: Path,
) -> None:
    with pytest.raises(OptionError, match=message):
        search(net, table, Alike(model, images), tmp_path / "run", **options)


def test_without_training_the_network_is_as_refit_left_it(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path
) -> None:
    result = search(net, table, Alike(model, images), tmp_path / "run")
    ours = result.report.rows[-1]
    assert ours.accuracy == ours.held_back
    # It beats a network of as many channels that was not refitted.
    plain = amc.cut(net, ours.counts)
    assert Alike(model, images).score(plain.model.eval()) < ours.accuracy
    # The batch norms of this one never saw an image: estimated anew they would make it another network.
    assert ours.accuracy > -1e-3
    text = (result.folder / "report.html").read_text()
    assert "score at the end" in text
    assert "held back %" not in text


@pytest.mark.parametrize("shift", [0, 90])
def test_a_search_by_scores_of_any_size_goes_on_from_its_logs(
    shift: float, model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path
) -> None:
    """Below 0, and percentages."""
    asked = []

    class Shifted(Alike):
        def score(self, model: nn.Module, budget: int | None = None) -> float:
            asked.append(budget)
            return shift + super().score(model, budget)

    first = search(net, table, Shifted(model, images), tmp_path / "run", episodes=4)
    (first.folder / "report.json").unlink()
    once = len(asked)
    again = search(net, table, Shifted(model, images), tmp_path / "run", episodes=4)
    assert again.report.rows == first.report.rows
    assert len(asked) < 1.8 * once  # What the logs hold was not asked again.


def test_a_search_is_resumed_by_the_same_task_alone(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path
) -> None:
    class Other(Alike):
        def digest(self) -> str:
            return "another"

    search(net, table, Alike(model, images), tmp_path / "run")
    with pytest.raises(UserError, match="task Alike, this one has task Other"):
        search(net, table, Other(model, images), tmp_path / "run")


def broken(**answers: Any) -> Any:
    """A task whose methods answer these, or raise them."""

    class Broken(Alike):
        pass

    def answering(value: Any) -> Any:
        def method(self: Any, *of: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value(self, *of) if callable(value) else value

        return method

    for name, value in answers.items():
        setattr(Broken, name, answering(value))
    return Broken


def reshape(self: Any, model: nn.Module, teacher: nn.Module) -> None:
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.weight = nn.Parameter(first.weight[:, :, :1, :1])


def explode(self: Any, model: nn.Module, teacher: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))


def halve(self: Any, model: nn.Module, teacher: nn.Module) -> None:
    model.half()


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"score": float("nan")}, r"score\(\) returned nan; return a finite number"),
        ({"score": "good"}, r"score\(\) returned str; return a number"),
        ({"score": None}, r"score\(\) returned NoneType"),
        ({"score": True}, r"score\(\) returned bool"),
        ({"score": torch.ones(2)}, r"score\(\) returned Tensor"),
        ({"score": RuntimeError("no masks here\nmore")}, r"score\(\) raised RuntimeError: no masks here$"),
        ({"calibration": []}, r"calibration\(\) gives 0 inputs"),
        ({"calibration": [torch.zeros(4, 1, 16, 16)]}, r"calibration\(\) gives \[4, 1, 16, 16\]; .*\[N, 3, 16, 16\]"),
        ({"calibration": ["x"]}, r"calibration\(\) gives str"),
        ({"calibration": [torch.full((4, *IMAGE), float("inf"))]}, "not finite"),
        ({"calibration": OSError("no disk")}, r"calibration\(\) raised OSError: no disk"),
        ({"digest": 3}, r"digest\(\) returned 3"),
        ({"train": reshape}, r"train\(\) changed the shape of "),
        ({"train": explode}, r"train\(\) left .* not finite"),
        ({"train": halve}, r"train\(\) left .* in torch.float16, and it was torch.float32: call model.to"),
        ({"calibration": lambda self: None}, r"calibration\(\) returned NoneType; give batches"),
        ({"train": lambda self, model, teacher: Segmenter()}, r"train\(\) returned another network: .* in place"),
        ({"train": ValueError("out of data")}, r"train\(\) raised ValueError: out of data"),
    ],
)
def test_what_a_task_does_wrong_is_said(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path, answers: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        search(net, table, broken(**answers)(model, images), tmp_path / "run")


def test_the_users_own_traceback_stands_above_the_message(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path
) -> None:
    def lost(self: Any, model: nn.Module, budget: int | None = None) -> float:
        raise LookupError("no masks")

    with pytest.raises(UserError, match=r"task Broken: score\(\) raised LookupError: no masks") as refused:
        search(net, table, broken(score=lost)(model, images), tmp_path / "run")
    cause = refused.value.__cause__
    assert isinstance(cause, LookupError)
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "lost"


def test_a_wrapped_network_may_be_returned_by_train(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path
) -> None:
    wrapped = broken(train=lambda self, model, teacher: nn.DataParallel(model))(model, images)
    assert search(net, table, wrapped, tmp_path / "run").met


def test_what_is_no_task_is_named(net: amc.Network, table: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task dict has no calibration, score, digest"):
        search(net, table, {}, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 3}, r"no option 'target'; did you mean 'target_"),
        ({"speedup": float("nan")}, "`speedup` is nan"),
        ({"target_macs": None, "reward": "latency"}, r"reward 'latency' trades an accuracy"),
        ({"damage": "taylor"}, "taylor"),
        ({"speedup": "fast"}, "speedup"),
    ],
)
def test_an_option_that_is_none_is_named(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path, options: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        search(net, table, Alike(model, images), tmp_path / "run", **options)


NETWORK_OF_A_NAME = {"model": "a", "width": 0.5, "input": "3x8x8", "classes": 5, "weights": "a", "normalisation": "raw"}


@pytest.mark.parametrize(
    ("options", "task", "why"),
    [
        *(({name: value}, Trained, "the network is given") for name, value in NETWORK_OF_A_NAME.items()),
        *(({name: value}, Trained, "given") for name, value in {"device": "a", "lut": "a", "estimate": True}.items()),
        ({"data": "bundled"}, Trained, "said by the task"),
        ({"unlabelled": "photos"}, Alike, "said by the task"),
        ({"batch_size": 8}, Trained, r"the task's own train\(\) says how to train"),
        ({"learning_rate": 0.1}, Trained, r"the task's own train\(\) says how to train"),
        ({"finetune_epochs": 2}, Trained, r"says how long to train; 0 leaves it out"),
        ({"finetune_epochs": 0}, Alike, r"no train\(\)"),
        ({"batch_size": 8}, Alike, r"no train\(\)"),
        ({"learning_rate": 0.1}, Alike, r"no train\(\)"),
        ({"min_accuracy": 50}, Alike, "scores, and no accuracy"),
        ({"margin_pct": 1.5}, Alike, "no milliseconds are limited"),
        ({"warmup": 3}, Alike, r"`agent='dp-ddpg'` has no random episodes"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path, options: Any, task: Any, why: str
) -> None:
    with pytest.raises(OptionError, match=rf"^`{next(iter(options))}` would change nothing here: .*{why}") as refused:
        search(net, table, task(model, images), tmp_path / "run", **options)
    assert refused.value.fields == tuple(options)


def test_options_beside_an_image_task_are_those_of_the_command_line(net: amc.Network) -> None:
    target, images = {"target_ms": 1.0}, amc.ImageTask("bundled")
    assert handed_config({**target, "batch_size": 8, "min_accuracy": 3}, images).batch_size == 8
    for options, why in (({"data": "bundled"}, "by the task"), ({"finetune_epochs": 0, "batch_size": 8}, "is trained")):
        with pytest.raises(OptionError, match=why):
            handed_config({**target, **options}, images)


def test_training_is_left_out_where_that_is_said(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path
) -> None:
    task = broken(train=RuntimeError("asked to train"))(model, images)
    ours = search(net, table, task, tmp_path / "run", finetune_epochs=0).report.rows[-1]
    assert ours.accuracy == ours.held_back


def test_rounds_go_on_from_each_others_networks(
    model: Segmenter, images: Tensor, net: amc.Network, table: Any, tmp_path: Path
) -> None:
    result = search(net, table, Alike(model, images), tmp_path / "run", rounds=2, episodes=4)
    assert result.folder == tmp_path / "run" / "round-2"
    whole = sum(layer.shape.macs for layer in net.graph.architecture.layers)
    first = json.loads((tmp_path / "run" / "rounds.json").read_text())[0]
    assert whole / 2 < first["actual"]["MACs"] <= whole / 2**0.5
    assert result.report.macs <= whole / 2
    assert result.network.graph.architecture.group_channels == result.report.rows[-1].counts


class BareWeights(nn.Module):
    """Convolutions by function, with parameters and a buffer of the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.shift = nn.Parameter(torch.randn(8))
        self.register_buffer("blur", torch.full((8, 1, 3, 3), 1 / 9))
        self.last = nn.Conv2d(8, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(functional.conv2d(x, self.weight, self.shift, padding=1))
        return self.last(functional.conv2d(x, self.blur, padding=1, groups=8))


def test_parameters_of_the_network_itself_are_layers_like_others(images: Tensor, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = BareWeights().eval()
    names = set(own.state_dict())
    net = amc.network(own, images[:1])
    assert set(own.state_dict()) == names
    with torch.no_grad():
        torch.testing.assert_close(net.model(images), own(images))
    assert net.graph.architecture.group_channels == (8,)
    report = amc.export(amc.cut(net, (4,)), tmp_path / "a.tflite")
    assert report.macs == 256 * 4 * 3 * 9 + 256 * 4 * 9 + 14 * 14 * 16 * 4 * 9


def test_a_parameter_that_two_layers_read_is_refused(images: Tensor) -> None:
    class Twice(BareWeights):
        def forward(self, x: Tensor) -> Tensor:
            again = functional.conv2d(x, self.weight, self.shift, padding=2, dilation=2)
            return super().forward(x) + self.last(again)

    with pytest.raises(UserError, match=r"is the same tensor as .*weights that are shared"):
        amc.network(Twice(), images[:1])


def test_labels_are_asked_of_logits_alone(net: amc.Network, table: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"returns 2x16x16, 32x16x16 .*task of your own"):
        search(net, table, amc.ImageTask("bundled"), tmp_path / "run")


WRAPS = [nn.DataParallel, torch.compile, lambda model: model.train(), lambda model: model.half()]


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_module_is_taken_as_it_is_and_left_so(wrap: Any, images: Tensor) -> None:
    own = Segmenter()
    given = wrap(own)
    was_training, types = own.training, [tensor.dtype for tensor in own.parameters()]
    net = amc.network(given, images[:1])
    assert net.graph.architecture.group_channels == (16, 32)
    assert own.training == was_training
    assert [tensor.dtype for tensor in own.parameters()] == types


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 2, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2)])
def test_a_weight_norm_is_folded_in_the_copy_alone(layer: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), weight_norm(layer), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    images = torch.randn(2, 3, 8, 8)
    expected = model(images)
    net = amc.network(model, images[:1])
    same = amc.cut(net, net.graph.architecture.group_channels)
    for module in (model, same.model):
        torch.testing.assert_close(module(images), expected)


def test_a_module_that_changes_later_changes_nothing(images: Tensor) -> None:
    own = Segmenter().eval()
    net = amc.network(own, images[:1])
    before = net.model(images)["mask"]
    with torch.no_grad():
        own.mask.weight.zero_()
    assert torch.equal(net.model(images)["mask"], before)


def test_a_module_that_changes_before_the_search_changes_nothing(
    model: Segmenter, images: Tensor, table: Any, tmp_path: Path
) -> None:
    own = copy.deepcopy(model)
    net = amc.network(own, images[:1])
    with torch.no_grad():
        own.mask.weight.zero_()
    own.middle = nn.Sequential(nn.Identity())
    result = search(net, table, Alike(model, images), tmp_path / "run")
    # The masks of `model`, which `own` was when it was handed over.
    assert result.report.accuracy_original == pytest.approx(0, abs=1e-9)
    assert result.report.rows[0].counts == (16, 32)


def test_a_distributed_module_is_unwrapped(images: Tensor, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'met'}", rank=0, world_size=1)
    try:
        own = Segmenter().eval()
        net = amc.network(nn.parallel.DistributedDataParallel(own), images[:1])
    finally:
        torch.distributed.destroy_process_group()
    with torch.no_grad():
        assert torch.allclose(net.model(images)["mask"], own(images)["mask"], atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")
def test_a_module_on_a_gpu_is_copied_to_the_processor(images: Tensor) -> None:
    own = Segmenter().eval()
    expected = own(images)["mask"]
    net = amc.network(own.cuda(), images[:1].cuda())
    assert {tensor.device.type for tensor in net.model.state_dict().values()} == {"cpu"}
    assert next(own.parameters()).is_cuda
    assert torch.allclose(net.model(images)["mask"], expected, atol=1e-4)


def test_options_of_devices_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"device has no option 'transprt'; did you mean 'transport'\?"):
        amc.device("pixel1", transprt="direct")
    with pytest.raises(OptionError, match=r"`runner_path` .*none is no file") as refused:
        amc.device("pixel1", runner_path=str(tmp_path / "none"))
    assert refused.value.fields == ("runner_path",)
    with pytest.raises(UserError, match=r"bench has no option 'thread'; did you mean 'threads'\?"):
        amc.bench("x.tflite", thread=2)
    with pytest.raises(OptionError, match="`speedup` is over another file: name it with `against`"):
        amc.bench("x.tflite", speedup=2)
    with pytest.raises(UserError, match="no converter 'theirs'"):
        amc.export(nn.Conv2d(3, 4, 1), tmp_path / "x.tflite", torch.zeros(1, *IMAGE), converter="theirs")


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@pytest.mark.parametrize(
    ("given", "example", "message"),
    [
        (Segmenter(), None, "example_input is missing"),
        (Segmenter(), torch.zeros(1, 3), r"example_input is torch.float32 \[1, 3\]"),
        (Segmenter(), torch.zeros(1, *IMAGE, dtype=torch.uint8), r"give a float tensor"),
        (Segmenter(), [1], "example_input is list"),
        (Segmenter(), torch.zeros(1, 1, 16, 16), r"model can't be run on example_input \[1, 1, 16, 16\]: RuntimeError"),
        (TwoInputs(), torch.zeros(1, *IMAGE), r"model can't be run on example_input .*TypeError"),
        (Segmenter, torch.zeros(1, *IMAGE), r"model is the class Segmenter: call it"),
        (torch.jit.script(nn.Conv2d(3, 4, 1)), torch.zeros(1, *IMAGE), "TorchScript"),
        ({"a": torch.zeros(1)}, torch.zeros(1, *IMAGE), "weights without their network"),
    ],
)
def test_what_is_no_network_is_said(given: Any, example: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        amc.network(given, example)


def test_networks_by_name(tmp_path: Path) -> None:
    net = amc.network("mobilenet_v2", torch.zeros(1, 3, 32, 32), width=0.25, classes=5)
    assert (net.spec.input, net.graph.output_sizes) == ((3, 32, 32), ((5,),))
    with pytest.raises(UserError, match="checkpoint is for a module"):
        amc.network("mobilenet_v2", checkpoint="a.safetensors")
    with pytest.raises(UserError, match="random weights"):
        amc.search(net, ByArithmetic(), task=amc.ImageTask(), target_ms=1, out=tmp_path)


def test_a_checkpoint_of_another_module_is_refused(net: amc.Network, model: Segmenter, tmp_path: Path) -> None:
    from amc_latency.models.files.checkpoint import save_checkpoint

    path = tmp_path / "a.safetensors"
    save_checkpoint(path, net.model, net.spec, build=net.build)
    with pytest.raises(UserError, match=r"Segmenter is a module of a program: .*checkpoint="):
        amc.network(str(path))

    class Smaller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))

    with pytest.raises(UserError):
        amc.network(Smaller(), torch.zeros(1, *IMAGE), checkpoint=path)


def test_predict_cut_and_export(net: amc.Network, table: Any, tmp_path: Path) -> None:
    whole, half = amc.predict(net, table), amc.predict(net, table.path, channels=(8, 16))
    assert whole.macs == sum(layer.shape.macs for layer in net.graph.architecture.layers)
    assert half.raw_ms is not None
    assert whole.raw_ms is not None
    assert half.raw_ms < whole.raw_ms
    small = amc.cut(net, (8, 16))
    assert small.graph.architecture.group_channels == (8, 16)
    report = amc.export(small, tmp_path / "a.tflite")
    assert report.macs == half.macs
    assert tflite_ops((tmp_path / "a.tflite").read_bytes())["CONV_2D"] == 4
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert amc.export(own, tmp_path / "b.tflite", torch.zeros(1, *IMAGE)).macs == 14 * 14 * 3 * 4 * 9
    with pytest.raises(UserError, match="example_input is missing"):
        amc.export(own, tmp_path / "b.tflite")
    # A device node would be replaced by the file.
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OptionError, match=r"`path` .*pipe is no file that can be replaced"):
        amc.export(small, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_the_door_opens_at_once_and_names_are_functions() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import amc_latency as amc; took = time.perf_counter() - began\n"
        "loaded = [name for name in ('torch', 'numpy', 'typer', 'rich', 'scipy') if name in sys.modules]\n"
        "import amc_latency.search.run, amc_latency.measuring.bench, amc_latency.export.export\n"
        "from amc_latency import search, export, bench, device\n"
        "kinds = [type(getattr(amc, name)).__name__ for name in ('search', 'export', 'bench', 'device', 'profile')]\n"
        "import json; print(json.dumps([loaded, kinds, amc.search is search, sorted(amc.__all__)[:3]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, kinds, same, _ = json.loads(done.stdout.splitlines()[-1])
    assert loaded == []
    assert kinds == ["function"] * 5
    assert same


def readme_example() -> str:
    """The Python in the README's section of that name."""
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    return text.partition("```python\n")[2].partition("```")[0]


class Twentieth(ByArithmetic):
    """Slow: the network below takes 36 ms of it."""

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for timing in super().time_round(workloads, protocol, round_index):
            assert timing.cpu is not None
            us = 1000 * timing.cpu.min_us
            summary = Summary(us, us, us, 0.0)
            yield replace(timing, cpu=summary, wall=summary)


def test_the_readmes_lines_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data import TensorDataset

    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(96, 3, 32, 32, generator=generator)
    labels = (pixels.mean((1, 2, 3)) > 0).long()
    train_set, held_back_set = TensorDataset(pixels[:64], labels[:64]), TensorDataset(pixels[64:], labels[64:])

    def accuracy(model: nn.Module, images: TensorDataset) -> float:
        x, y = images.tensors
        with torch.no_grad():
            return float((model(x).argmax(1) == y).float().mean())

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 48, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 2)),
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("amc_latency.api.open_device", lambda *_, **__: Twentieth())
    code = readme_example()
    # Imports and the heads of class and methods aside.
    heads = ("import ", "from ", "class ", "def ")
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith(heads)]) <= 15
    mine = {"model": model, "train_set": train_set, "held_back_set": held_back_set}
    scope: dict[str, Any] = {**mine, "accuracy": accuracy}
    exec(compile(code, "README.md", "exec"), scope)
    result = scope["result"]
    assert result.met
    assert result.report.measured_ms <= 20 < result.report.original_ms
    assert (tmp_path / "small.tflite").stat().st_size < 1000 * 20


def test_a_device_that_nobody_has_answers_by_estimate() -> None:
    with amc.device("pixel1", estimate=True) as phone:
        assert phone.identity.estimated
    with pytest.raises(UserError):
        amc.device("host", estimate=True)
    with pytest.raises(UserError, match="force: for a phone that is there"):
        amc.device("pixel1", estimate=True, force=True)
