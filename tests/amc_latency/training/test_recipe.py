"""What a recipe says of training: each option by its arithmetic, and that a stopped run ends where a whole one does."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pretend_device
import pytest
import torch
from torch import Tensor, nn

from amc_latency.data import InMemory
from amc_latency.data.logits import loss_of
from amc_latency.errors import JobError, OptionError
from amc_latency.pixels import Normalisation
from amc_latency.training.averaging import WeightAverage
from amc_latency.training.distillation import attention_distance, distance, watched
from amc_latency.training.finetune import finetune_config
from amc_latency.training.loop import DivergedError, EpochReport, fit
from amc_latency.training.recipe import Recipe, TrainConfig

SIZE = (8, 8)
ALL = {
    "optimizer": "adamw",
    "ema_decay": 0.9,
    "clip_norm": 0.5,
    "distillation": 0.5,
    "temperature": 3.0,
    "feature_matching": 2.0,
    "schedule": "linear",
    "epoch_steps": 5,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(n: int, channels: int = 1) -> InMemory:
    """Noise with labels of three classes."""
    generator = torch.Generator().manual_seed(n)
    pixels = torch.randint(0, 256, (n, channels, 8, 8), dtype=torch.uint8, generator=generator)
    return InMemory(pixels, torch.arange(n) % 3, Normalisation((0.5,) * channels, (0.25,) * channels))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(6, 3),
    )


def config(epochs: int = 3, **recipe: Any) -> TrainConfig:
    return replace(
        finetune_config(epochs, SIZE, 1, **{"batch_size": 8, "learning_rate": 0.05, "epoch_steps": 1, **recipe})
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


class Stop(Exception):
    """As a kill after an epoch."""


def stop(report: EpochReport) -> None:
    if report.epoch == 2:
        raise Stop


@pytest.mark.parametrize("recipe", [{}, {"optimizer": "adamw"}, {"ema_decay": 0.9}, ALL], ids=str)
def test_a_stopped_run_of_any_recipe_ends_bit_for_bit(recipe: dict[str, Any], tmp_path: Path) -> None:
    split, how, teacher = images(24), config(**recipe), network(5).eval()
    unbroken, resumed = network(), network(9)
    fit(unbroken, split, how, teacher=teacher)
    with pytest.raises(Stop):
        fit(network(), split, how, tmp_path / "state", stop, teacher=teacher)
    fit(resumed, split, how, tmp_path / "state", teacher=teacher)
    assert same(resumed, unbroken)
    assert not same(unbroken, network())


def test_an_average_follows_by_its_decay() -> None:
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, 0.9)
    values = [1.0]
    for step in range(200):
        model.weight.data.fill_(step % 7)
        model.num_batches_tracked.fill_(step)
        average.update(model, step)
        # In the first steps (1 + step) / (10 + step): 0.1, 2/11, 3/12, ... up to 0.9.
        decay = min(0.9, (1 + step) / (10 + step))
        values.append(decay * values[-1] + (1 - decay) * (step % 7))
    assert average.tensors["weight"].item() == pytest.approx(values[-1], rel=1e-5)
    assert average.tensors["num_batches_tracked"].item() == 199


def test_the_average_is_what_training_ends_in() -> None:
    plain, averaged = network(), network()
    fit(plain, images(24), config())
    fit(averaged, images(24), config(ema_decay=0.99))
    # Far from where training went, near where it was on the way there.
    start = network()
    for name in ("0.weight", "6.weight"):
        moved, followed = (m.get_parameter(name) - start.get_parameter(name) for m in (plain, averaged))
        assert 0.2 < followed.norm() / moved.norm() < 1.0


def test_gradients_are_clipped_to_a_norm() -> None:
    ends = {}
    for clip_norm in (0.0, 0.01):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        nn.init.zeros_(model[1].weight)
        nn.init.zeros_(model[1].bias)
        fit(model, images(16), config(1, batch_size=16, clip_norm=clip_norm, momentum=0.0, weight_decay=0.0))
        ends[clip_norm] = torch.cat([tensor.flatten() for tensor in model.parameters()]).detach()
    # A single step of warm-up at the full rate: by the clipped gradient it is as long as the rate times the norm.
    assert ends[0.01].norm() == pytest.approx(0.05 * 0.01, rel=1e-3)
    torch.testing.assert_close(ends[0.01] / ends[0.01].norm(), ends[0.0] / ends[0.0].norm(), rtol=1e-4, atol=1e-5)


def test_adamw_moves_each_weight_by_the_rate_at_first() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    start = model[1].bias.detach().clone()
    how = config(1, optimizer="adamw", batch_size=16, learning_rate=0.01, weight_decay=0.0)
    fit(model, images(16), how)
    torch.testing.assert_close((model[1].bias - start).abs(), torch.full((3,), 0.01), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "kind", "images", "rate"),
    # 227 images: batches of 16, an eighth of 128.
    [
        ("sgd", "train", 8000, 0.1),
        ("sgd", "finetune", 227, 0.005 / 8),
        ("adamw", "train", 8000, 0.002),
        ("adamw", "finetune", 227, 0.001 / math.sqrt(8)),
    ],
)
def test_rates_by_optimizer_kind_and_batch(optimizer: str, kind: str, images: int, rate: float) -> None:
    assert TrainConfig(kind=kind, optimizer=optimizer).plan(images).learning_rate == pytest.approx(rate)


def test_few_images_are_shown_several_times_for_as_many_steps() -> None:
    split = replace(images(12), labels=torch.arange(12))
    how = replace(config(2, batch_size=4, epoch_steps=8), augment=False)
    # 3 steps a pass: 3 passes are 9 steps.
    assert (how.passes(12), how.plan(12).steps) == (3, 9)
    from amc_latency.training.loop import _batches

    labels = torch.cat([some for _, some in _batches(split, how, 0)])
    assert labels.bincount().tolist() == [3] * 12
    assert sorted(labels[:12].tolist()) == list(range(12))


def test_a_temperature_softens_both() -> None:
    logits, said = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 4.0, 0.0]])
    own, wanted = ([math.exp(value / 2) for value in each[0].tolist()] for each in (logits, said))
    p, q = ([value / sum(each) for value in each] for each in (wanted, own))
    expected = 4 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(distance(logits, said, 2.0)) == pytest.approx(expected, rel=1e-5)
    assert float(distance(said, said, 2.0)) == pytest.approx(0.0, abs=1e-6)


def test_mixed_labels_are_shares() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])
    logs = logits.log_softmax(1)
    expected = -(0.7 * logs[0, 0] + 0.3 * logs[0, 1] + logs[1, 2]) / 2
    assert float(loss_of(logits, shares)) == pytest.approx(float(expected))
    whole = torch.eye(3)[[2, 1]]
    assert float(loss_of(logits, whole, "mean", 0.1)) == pytest.approx(
        float(loss_of(logits, torch.tensor([2, 1]), "mean", 0.1))
    )
    one = torch.tensor([[0.5], [-1.0]])
    labels = torch.tensor([1, 0])
    assert float(loss_of(one, torch.eye(2)[labels], "mean", 0.1)) == pytest.approx(
        float(loss_of(one, labels, "mean", 0.1))
    )


def test_attention_is_compared_at_each_resolution_whatever_the_channels() -> None:
    # One channel that looks at the left position against two that look at the right one: squared distance 1 + 1.
    left, right = torch.zeros(2, 1, 1, 2), torch.zeros(2, 2, 1, 2)
    left[..., 0], right[..., 1] = 3.0, 5.0
    assert float(attention_distance({(1, 2): left}, {(1, 2): right})) == pytest.approx(2.0)
    assert float(attention_distance({(1, 2): left, (2, 2): left}, {(1, 2): left * 7})) == 0.0
    assert float(attention_distance({}, {(1, 2): left})) == 0.0


def test_the_last_feature_map_of_each_resolution_is_watched() -> None:
    model = network()
    with watched(model) as maps:
        model(torch.randn(2, 1, 8, 8))
        (features,) = maps.take().values()
    assert features.shape == (2, 6, 8, 8)
    assert bool((features >= 0).all())  # the ReLU's, which is the last
    assert not model[0]._forward_hooks


def test_a_teacher_is_followed_without_labels() -> None:
    split, teacher = images(24), network(5).eval()
    ends = []
    for labels in (split.labels, 2 - split.labels):
        model = network()
        fit(model, replace(split, labels=labels), config(distillation=1.0), teacher=teacher)
        ends.append(model)
    assert same(*ends)


def test_a_loss_that_is_no_number_leaves_the_network_before_it(tmp_path: Path) -> None:
    split, model = images(24), network()
    weights: list[dict[str, Tensor]] = []

    def on_epoch(report: EpochReport) -> None:
        weights.append(copy.deepcopy(model.state_dict()))
        if report.epoch == 2:
            # What comes next is no number: as from a rate that is too high.
            model[6].register_forward_hook(lambda *_: _[2] * math.nan)

    with pytest.raises(DivergedError, match=r"epoch 3: the loss is nan; lower `learning_rate`, 0\.05 now") as error:
        fit(model, split, config(4), on_epoch=on_epoch)
    assert error.value.epoch == 3
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[1][name])
    assert not model.training


class Limited(nn.Module):
    """Has room for so many images at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.net, self.most = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), most
        nn.init.zeros_(self.net[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return self.net(x)


def test_where_memory_runs_out_a_batch_is_computed_in_parts_and_the_step_is_the_same(tmp_path: Path) -> None:
    split, said = images(32), []
    torch.manual_seed(0)
    roomy = Limited(1000)
    narrow = copy.deepcopy(roomy)
    narrow.most = 5
    how = config(2, batch_size=16)
    fit(roomy, split, how)
    fit(narrow, split, how, say=said.append)
    # Batches of 16: 8 are too many, 4 are not; the next step begins with 4.
    assert said == [
        "not enough memory on cpu for a batch of 16: it is halved to 8",
        "not enough memory on cpu for a batch of 8: it is halved to 4",
    ]
    torch.testing.assert_close(narrow.state_dict(), roomy.state_dict(), rtol=1e-4, atol=1e-6)
    narrow.most = 1
    with pytest.raises(JobError, match="not enough memory on cpu even for a batch of 2"):
        fit(narrow, split, how)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizer": "adam"}, "`optimizer`: no optimizer is called 'adam'.*Did you mean 'adamw'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"ema_decay": 1.0}, "`ema_decay` is from 0 to below 1, not 1"),
        ({"distillation": 1.5}, "`distillation` is from 0 to 1, not 1.5"),
        ({"temperature": 0.0}, "`temperature` is a positive number, not 0"),
        ({"clip_norm": -1.0}, "`clip_norm` is at least 0, not -1"),
        ({"clip_norm": math.nan}, "`clip_norm` is nan; give a number"),
        ({"epoch_steps": 0}, "`epoch_steps` is from 1"),
        ({"autocast": "fp16"}, "`autocast`: no autocast is called"),
        ({"weight_decay": math.inf}, "`weight_decay` is at least 0, not inf"),
    ],
)
def test_what_no_recipe_can_be_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Recipe(**wrong)


def test_training_elsewhere_leaves_nothing_on_the_cpu_and_ends_in_the_same() -> None:
    split, ends = images(24), []
    teacher = network(5).eval()
    for is_elsewhere in (False, True):
        model = network()
        model[5].p = 0.0
        if is_elsewhere:
            with pretend_device.pretend_device() as device:
                fit(model.to(device), split, config(**ALL), teacher=copy.deepcopy(teacher).to(device))
                ends.append(copy.deepcopy(model).cpu())
        else:
            fit(model, split, config(**ALL), teacher=teacher)
            ends.append(model)
    torch.testing.assert_close(ends[1].state_dict(), ends[0].state_dict(), rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", ["off", "bfloat16", "float16"])
def test_a_gpu_trains(autocast: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that PyTorch can use")
    split, how, teacher = images(240), config(6, **{**ALL, "autocast": autocast}), network(5).eval().to("cuda")
    unbroken, resumed = network().to("cuda"), network(9).to("cuda")
    reports: list[EpochReport] = []
    fit(unbroken, split, how, on_epoch=reports.append, teacher=teacher)
    assert reports[-1].loss < reports[0].loss
    with pytest.raises(Stop):
        fit(network().to("cuda"), split, how, tmp_path / "state", stop, teacher=teacher)
    fit(resumed, split, how, tmp_path / "state", teacher=teacher)
    torch.testing.assert_close(resumed.state_dict(), unbroken.state_dict(), rtol=1e-4, atol=1e-5)
