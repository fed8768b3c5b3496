"""Training: the schedule, the augmentation, and that a stopped run ends where an unbroken one does."""

import copy
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from amc_latency.data import InMemory, Split, load_data
from amc_latency.data.augmentation import Augmentation, shift_and_flip
from amc_latency.errors import JobError, UserError
from amc_latency.models.files.checkpoint import load_checkpoint
from amc_latency.models.files.weights import read_tensors, write_tensors
from amc_latency.models.registry import SCALABLE_MODELS, build_model
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import Normalisation
from amc_latency.training.finetune import finetune_config
from amc_latency.training.loop import (
    EpochReport,
    accuracy,
    fit,
    lagging,
    memory_format,
)
from amc_latency.training.recipe import TrainConfig
from amc_latency.training.train import TrainCommandConfig, train

TINY = ModelSpec("mobilenet_v1", input=(1, 32, 32), classes=10, channels=(8,) * 14)
CONFIG = TrainConfig(
    epochs=3,
    batch_size=16,
    learning_rate=0.05,
    image_size=(32, 32),
    low_resolution_epochs=1,
    low_resolution=(16, 16),
    seed=3,
)


class Stop(Exception):
    """Raised from `on_epoch`, as a kill after that epoch would."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread, for minutes if the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stop_after(epoch: int) -> Callable[[EpochReport], None]:
    def on_epoch(report: EpochReport) -> None:
        if report.epoch == epoch:
            raise Stop

    return on_epoch


def tiny_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(TINY)


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.fixture(scope="module")
def few() -> Split:
    return load_data("bundled").train.take(72)


def test_a_stopped_run_ends_in_the_same_weights(few: Split, tmp_path: Path) -> None:
    unbroken = tiny_model()
    fit(unbroken, few, CONFIG)
    for last in (1, 2):
        path = tmp_path / f"stopped{last}"
        with pytest.raises(Stop):
            fit(tiny_model(), few, CONFIG, path, stop_after(last))
        reports: list[EpochReport] = []
        resumed = tiny_model(seed=99)  # its own weights must not matter
        fit(resumed, few, CONFIG, path, reports.append)
        assert [report.epoch for report in reports] == list(range(last + 1, 4))
        assert same(resumed, unbroken)


@pytest.mark.parametrize("said", [{"epoch": "1000000"}, {"epoch": "-5"}, {"parts": "0"}])
def test_a_state_of_epochs_that_there_are_not_is_damaged(few: Split, tmp_path: Path, said: dict[str, str]) -> None:
    path = tmp_path / "state"
    fit(tiny_model(), few, CONFIG, path)
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, {**metadata, **said})
    with pytest.raises(UserError, match="no whole training state"):
        fit(tiny_model(), few, CONFIG, path)


def test_parameters_without_gradients_are_kept_and_resumed(few: Split, tmp_path: Path) -> None:
    class Unused(nn.Module):
        """Defines a layer that no image passes, as own networks do."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.old_head = tiny_model(), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    def build(seed: int = 0) -> nn.Module:
        torch.manual_seed(7)
        model = Unused()
        model.net.load_state_dict(tiny_model(seed).state_dict())
        return model

    unbroken, resumed = build(), build(seed=99)
    fit(unbroken, few, CONFIG)
    with pytest.raises(Stop):
        fit(build(), few, CONFIG, tmp_path / "state", stop_after(1))
    fit(resumed, few, CONFIG, tmp_path / "state")
    assert same(resumed, unbroken)


def test_dropout_draws_the_same_resumed_or_not_and_leaves_the_global_generator_alone(
    few: Split, tmp_path: Path
) -> None:
    def build() -> nn.Module:
        return nn.Sequential(tiny_model(), nn.Dropout(0.5), nn.Linear(10, 10, bias=False))

    torch.manual_seed(0)
    unbroken = build()
    broken, resumed = (copy.deepcopy(unbroken) for _ in range(2))
    before = torch.get_rng_state()
    fit(unbroken, few, CONFIG)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    with pytest.raises(Stop):
        fit(broken, few, CONFIG, tmp_path / "state", stop_after(1))
    torch.manual_seed(7)
    fit(resumed, few, CONFIG, tmp_path / "state")
    assert same(resumed, unbroken)


def test_a_finished_run_is_loaded_and_not_trained_again(few: Split, tmp_path: Path) -> None:
    done = tiny_model()
    fit(done, few, CONFIG, tmp_path / "state")
    again, reports = tiny_model(seed=5), []
    fit(again, few, CONFIG, tmp_path / "state", reports.append)
    assert reports == []
    assert same(again, done)


def test_the_seed_decides(few: Split) -> None:
    one, two = tiny_model(), tiny_model()
    fit(one, few, CONFIG)
    fit(two, few, replace(CONFIG, seed=4))
    assert not same(one, two)


def test_state_of_another_run_is_refused(few: Split, tmp_path: Path) -> None:
    path = tmp_path / "state"
    fit(tiny_model(), few, CONFIG, path)
    with pytest.raises(UserError, match="another training run"):
        fit(tiny_model(), few, replace(CONFIG, learning_rate=0.1), path)
    with pytest.raises(UserError, match="another training run"):
        fit(tiny_model(), few.take(50), CONFIG, path)
    wider = build_model(replace(TINY, channels=(8,) * 13 + (16,)))
    with pytest.raises(UserError, match=r"blocks\.12\.pointwise\.weight.*\(16, 8, 1, 1\).*\(8, 8, 1, 1\)"):
        fit(wider, few, CONFIG, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated"):
        fit(tiny_model(), few, CONFIG, path)


def test_reports_follow_the_resolution_schedule(few: Split) -> None:
    reports: list[EpochReport] = []
    fit(tiny_model(), few, CONFIG, on_epoch=reports.append)
    assert [(report.epoch, report.epochs, report.image_size) for report in reports] == [
        (1, 3, (16, 16)),
        (2, 3, (32, 32)),
        (3, 3, (32, 32)),
    ]
    assert all(0 <= report.accuracy <= 100 and report.seconds > 0 for report in reports)


CRASHING = """
import torch
from torch import Tensor, nn
from amc_latency.data import InMemory, Split
from amc_latency.pixels import Normalisation
from amc_latency.training.loop import fit
from amc_latency.training.recipe import TrainConfig

torch.set_num_threads(2)
torch.manual_seed(0)
images = torch.randint(0, 256, (42, 3, 32, 48), dtype=torch.uint8)
split = InMemory(images, torch.arange(42) % 3, Normalisation((0.5,) * 3, (0.25,) * 3))
shortcut = nn.Conv2d(8, 16, 1, 2, bias=False)
model = nn.Sequential(nn.Conv2d(3, 8, 3), shortcut, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
fit(model, split, TrainConfig(epochs=3, batch_size=21, image_size=(32, 48), low_resolution_epochs=0))
print("trained")
"""


def test_batch_norms_that_follow_slowly_are_estimated_anew(few: Split) -> None:
    models = {}
    for momentum in (0.0003, 0.3):
        models[momentum] = model = tiny_model()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        fit(model, few, replace(CONFIG, epochs=3, low_resolution_epochs=0, augment=False))
    slow, fast = (next(m for m in models[key].modules() if isinstance(m, nn.BatchNorm2d)) for key in (0.0003, 0.3))
    assert slow.momentum == 0.0003
    # Neither is what a new batch norm starts from, and the weights, which training alone changes, are the same.
    assert torch.equal(slow.weight, fast.weight)
    assert (slow.running_var - 1).abs().max() > 0.1
    images = few.inputs((32, 32))
    first: list[Tensor] = []
    module = next(m for m in models[0.0003].modules() if isinstance(m, nn.Conv2d))
    with module.register_forward_hook(lambda _, __, output: first.append(output)), torch.no_grad():
        models[0.0003](images)
    whole = len(images) // CONFIG.batch_size * CONFIG.batch_size
    batches = first[0][:whole].split(CONFIG.batch_size)
    expected = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(slow.running_mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("momentum", "steps", "is_lagging"), [(0.1, 22, False), (0.1, 21, True), (0.01, 200, True)])
def test_what_lags(momentum: float, steps: int, is_lagging: bool) -> None:
    # 0.9^22 = 0.098, 0.9^21 = 0.109, 0.99^200 = 0.134
    assert lagging(nn.Sequential(nn.BatchNorm2d(3, momentum=momentum)), steps) == is_lagging
    assert not lagging(nn.Sequential(nn.BatchNorm2d(3, momentum=None)), steps)


def test_what_onednn_crashes_on_is_trained() -> None:
    # A process of its own: without the other layout it ends by SIGSEGV or SIGABRT, or never.
    command = [sys.executable, "-c", CRASHING]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.stdout == "trained\n", process.stderr


def test_only_networks_that_onednn_crashes_on_are_laid_out_otherwise() -> None:
    def layout(*convolutions: nn.Conv2d) -> torch.memory_format:
        return memory_format(nn.Sequential(*convolutions))

    safe = [nn.Conv2d(16, 8, 1, 2), nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 3, 2), nn.Conv2d(32, 32, 1, 2, groups=2)]
    assert layout(*safe) == torch.channels_last
    for unsafe in (nn.Conv2d(15, 32, 1, 2), nn.Conv2d(3, 8, 1, (1, 2)), nn.Conv2d(32, 32, 1, 2, groups=4)):
        assert layout(*safe, unsafe) == torch.contiguous_format


def test_learning_rises_and_falls() -> None:
    # 10 steps an epoch: 20 of warm-up, then a cosine over the other 20.
    plan = TrainConfig(epochs=4, learning_rate=0.8, warmup_epochs=2.0, batch_size=10).plan(100)
    assert plan.rate_at(0) == pytest.approx(0.8 * 1 / 20)
    assert plan.rate_at(19) == pytest.approx(0.8)
    assert plan.rate_at(20) == pytest.approx(0.8)
    assert plan.rate_at(30) == pytest.approx(0.4)
    assert plan.rate_at(39) == pytest.approx(0.4 * (1 + math.cos(math.pi * 19 / 20)))
    assert replace(plan, schedule="linear").rate_at(30) == pytest.approx(0.4)
    assert replace(plan, schedule="linear").rate_at(39) == pytest.approx(0.8 / 20)
    assert replace(plan, schedule="constant").rate_at(39) == 0.8


def test_two_epochs_learn_to_tell_clothes_apart() -> None:
    bundled = load_data("bundled")
    torch.manual_seed(0)
    model = build_model(replace(TINY, channels=(8, 16, 16, 16, 32, 32, 32, 32, 32, 32, 32, 32, 64, 64)))
    reports: list[EpochReport] = []
    config = replace(CONFIG, epochs=2, batch_size=32, low_resolution_epochs=0)
    fit(model, bundled.train.take(2000), config, on_epoch=reports.append)
    assert not model.training
    assert reports[1].loss < reports[0].loss < math.log(10) + 0.1
    assert accuracy(model, bundled.held_back.take(500), (32, 32)) > 40


def test_batch_norm_and_biases_do_not_decay(few: Split) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    # A model that gets no gradient moves by weight decay alone.
    for parameter in model.parameters():
        parameter.register_hook(torch.zeros_like)
    fit(model, few, replace(CONFIG, weight_decay=0.1))
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, before[name]) == (tensor.ndim == 1), name


def test_a_diverging_run_says_so(few: Split) -> None:
    with pytest.raises(JobError, match="lower `learning_rate`, 1e\\+30 now"):
        fit(tiny_model(), few, replace(CONFIG, learning_rate=1e30))


@pytest.mark.parametrize("changed", [{"epochs": 0}, {"batch_size": 1}])
def test_senseless_settings_are_refused(few: Split, changed: dict[str, int]) -> None:
    with pytest.raises(UserError, match="at least 1 epoch"):
        fit(tiny_model(), few, replace(CONFIG, **changed))


def test_augmented_images_are_shifted_flipped_originals() -> None:
    image = torch.randint(1, 256, (3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    possible = set()
    for flipped in (image, image.flip(2)):
        padded = nn.functional.pad(flipped, (2, 2, 2, 2))
        possible |= {tuple(padded[:, y : y + 5, x : x + 6].flatten().tolist()) for y in range(5) for x in range(5)}
    assert len(possible) == 2 * 5 * 5
    out = shift_and_flip(image.expand(2000, 3, 5, 6), torch.Generator().manual_seed(1), Augmentation(shift=2, flip=0.5))
    assert out.shape == (2000, 3, 5, 6)
    # 2,000 draws of 50 kinds leave one out with probability 50 * 0.98**2000 < 1e-15.
    assert {tuple(one.flatten().tolist()) for one in out} == possible


def test_augmentation_draws_as_it_did_when_the_bundled_checkpoint_was_trained() -> None:
    image = torch.arange(1, 31, dtype=torch.uint8).view(1, 1, 5, 6)
    generator = torch.Generator().manual_seed(7)
    (down,), (right,) = torch.randint(0, 5, (2, 1, 1), generator=generator).flatten(1).tolist()
    flipped = bool(torch.rand((1, 1), generator=generator) < 0.5)
    source = image.flip(3) if flipped else image
    expected = nn.functional.pad(source, (2, 2, 2, 2))[:, :, down : down + 5]
    start = 4 - right if flipped else right
    out = shift_and_flip(image, torch.Generator().manual_seed(7), Augmentation(shift=2, flip=0.5))
    assert torch.equal(out, expected[:, :, :, start : start + 6])


def test_accuracy_counts_right_answers_over_uneven_batches() -> None:
    class First(nn.Module):
        """Says 1 where the image is bright, else 0."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1:] == (1, 14, 14)
            bright = (x.mean((1, 2, 3)) > 0).float()
            return torch.stack([1 - bright, bright], 1)

    images = torch.zeros(7, 1, 28, 28, dtype=torch.uint8)
    images[:3] = 255
    split = InMemory(images, torch.tensor([1, 1, 0, 0, 0, 0, 1]), Normalisation((0.5,), (0.5,)))
    assert accuracy(First(), split, (14, 14), batch_size=3) == pytest.approx(100 * 5 / 7)


def test_finetune_trains_at_full_resolution(few: Split) -> None:
    model, reports = tiny_model(), []
    before = model.get_parameter("classifier.weight").clone()
    fit(model, few, replace(finetune_config(2, (32, 32), seed=0), batch_size=32), on_epoch=reports.append)
    assert [report.image_size for report in reports] == [(32, 32)] * 2
    assert not torch.equal(model.get_parameter("classifier.weight"), before)


def test_train_goes_on_after_a_stop_and_writes_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_data("bundled")
    small = replace(whole, train=whole.train.take(64), held_back=whole.held_back.take(50), test=whole.test.take(50))
    monkeypatch.setattr("amc_latency.training.train.load_data", lambda *_: small)
    seen: list[tuple[int, float]] = []

    def on_epoch(report: EpochReport, held_back: float) -> None:
        seen.append((report.epoch, held_back))
        if len(seen) == 1:
            raise Stop

    config = TrainCommandConfig(tmp_path / "net.safetensors", width=0.1, training=replace(CONFIG, epochs=2))
    with pytest.raises(Stop):
        train(config, on_epoch)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors.resume"]
    result = train(config, on_epoch)
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    model, spec, extra = load_checkpoint(config.output)
    assert spec == ModelSpec("mobilenet_v1", width=0.1, input=(1, 32, 32), classes=10)
    assert seen[-1][1] == result.accuracy_held_back == accuracy(model, small.held_back, (32, 32))
    assert extra["accuracy_test"] == f"{accuracy(model, small.test, (32, 32)):.2f}"
    assert (extra["epochs"], extra["seed"], extra["source"]) == ("2", "3", "bundled")


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_other_networks_train_too_and_a_stop_makes_no_difference(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_data("bundled")
    small = replace(whole, train=whole.train.take(64), held_back=whole.held_back.take(20), test=whole.test.take(20))
    monkeypatch.setattr("amc_latency.training.train.load_data", lambda *_: small)

    def stop(report: EpochReport, _: float) -> None:
        raise Stop

    training = replace(CONFIG, epochs=2, image_size=(16, 16), low_resolution_epochs=0)
    unbroken, stopped = (
        TrainCommandConfig(tmp_path / f"{file}.safetensors", name, 0.25, training=training) for file in ("one", "other")
    )
    train(unbroken)
    with pytest.raises(Stop):
        train(stopped, stop)
    train(stopped)
    model, spec, _ = load_checkpoint(stopped.output)
    assert spec == ModelSpec(name, width=0.25, input=(1, 16, 16), classes=10)
    assert same(model, load_checkpoint(unbroken.output)[0])


def test_a_network_of_another_kind_does_not_go_on_with_this_ones_epochs(few: Split, tmp_path: Path) -> None:
    spec = ModelSpec("resnet20", width=0.5, input=(1, 16, 16), classes=10)
    config = replace(CONFIG, epochs=1, image_size=(16, 16), low_resolution_epochs=0)
    fit(build_model(spec), few.take(16), config, tmp_path / "resume")
    with pytest.raises(UserError, match=r"the weights don't fit the network, first at blocks\.3\.shortcut"):
        fit(build_model(replace(spec, name="plain20")), few.take(16), config, tmp_path / "resume")


def test_a_network_for_colours_is_not_trained_on_grey_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="resnet18 takes colour images") as error:
        train(TrainCommandConfig(tmp_path / "x.safetensors", "resnet18"))
    assert all(name in str(error.value) for name in SCALABLE_MODELS)
    assert "resnet50" not in str(error.value)


def test_another_checkpoint_does_not_go_on_with_this_ones_epochs(few: Split, tmp_path: Path) -> None:
    config = replace(finetune_config(1, (32, 32), seed=0), batch_size=32)
    fit(tiny_model(), few, config, tmp_path / "resume", origin="one")
    with pytest.raises(UserError, match="another training run"):
        fit(tiny_model(), few, config, tmp_path / "resume", origin="other")
