"""Fine-tuning: what the number of images decides, and that it doesn't end below its start."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from amc_latency.data import ImageData, load_data
from amc_latency.errors import UserError
from amc_latency.models.load import Network, NetworkOptions, load_network
from amc_latency.search.config import SearchConfig
from amc_latency.search.judge.config import JudgeConfig
from amc_latency.search.judge.judge import Judge
from amc_latency.training.distillation import distance
from amc_latency.training.finetune import SHARES, finetune_config, settle
from amc_latency.training.loop import _batches, fit, judged
from amc_latency.training.recipe import TrainConfig, batch_size_for

PHOTOS = 227
SIZE = (64, 64)


@pytest.mark.parametrize(
    ("images", "batch", "steps"),
    # 227 / 16 = 14.2; 2,000 / 16 = 125 = 2,000 / 125 * 125; 8,000 / 128 = 62.5
    [(227, 16, 15), (100, 12, 9), (16, 2, 8), (2000, 125, 16), (8000, 128, 63), (58_000, 128, 454)],
)
def test_batches_of_fine_tuning_by_number_of_images(images: int, batch: int, steps: int) -> None:
    config = finetune_config(1, SIZE, seed=0, epoch_steps=1)
    assert (config.batch(images), config.steps(images)) == (batch, steps)
    # An epoch has 32 steps at least unless set: as many passes over the images as that takes.
    passes = {15: 3, 9: 4, 8: 4, 16: 2, 63: 1, 454: 1}[steps]
    assert finetune_config(1, SIZE, seed=0).steps(images) == passes * steps


def test_a_batch_is_no_more_than_an_eighth_and_an_epoch_shows_every_image_once() -> None:
    split = load_data("bundled").train
    for images in (*range(2, 70), 127, 128, 129, 227, 255, 256, 1000):
        assert batch_size_for(images, SIZE) <= max(2, images / 8)
        few = replace(split.take(images), labels=torch.arange(images))
        config = replace(finetune_config(1, (8, 8), seed=images, epoch_steps=1), augment=False)
        shown = [labels for _, labels in _batches(few, config, 0)]
        assert len(shown) == config.steps(images)
        assert torch.cat(shown).sort().values.tolist() == list(range(images))
        sizes = {len(labels) for labels in shown}
        # One image alone has no variance.
        assert min(sizes) >= 2
        assert max(sizes) - min(sizes) <= 1


def test_batches_of_large_images_are_smaller() -> None:
    # 128 * 96 * 96 / (224 * 224) = 23.5; never fewer than 16 for that.
    assert [batch_size_for(8000, (side, side)) for side in (32, 96, 224, 512)] == [128, 128, 23, 16]
    assert batch_size_for(40, (224, 224)) == 5
    assert finetune_config(1, (224, 224), 0, batch_size=128).batch(8000) == 128


@pytest.mark.parametrize(("images", "sizes"), [(72, [14, 14, 15, 15, 14]), (259, [16] * 16)])
def test_a_batch_that_is_set_drops_little_or_nothing(images: int, sizes: list[int]) -> None:
    # The rest of 72 in batches of 16 is 8 of 72 images; of 259 it is 3.
    split = load_data("bundled").train.take(images)
    shown = _batches(split, TrainConfig(batch_size=16, image_size=(8, 8), low_resolution=(8, 8)), 0)
    assert sorted(len(labels) for _, labels in shown) == sorted(sizes)


def test_what_the_bundled_checkpoint_was_trained_by() -> None:
    config = TrainConfig()
    # 58,000 = 453 * 128 + 16, and those 16 were left out.
    assert (config.batch(58_000), config.steps(58_000), config.rate(58_000)) == (128, 453, 0.1)


def test_smaller_batches_take_smaller_steps_unless_the_rate_is_set() -> None:
    assert finetune_config(2, SIZE, 0).rate(8000) == 0.005
    assert finetune_config(2, SIZE, 0).rate(PHOTOS) == pytest.approx(0.005 * 16 / 128)
    assert finetune_config(2, SIZE, 0, batch_size=32).rate(8000) == pytest.approx(0.005 * 32 / 128)
    assert finetune_config(2, SIZE, 0, batch_size=512).rate(8000) == 0.005
    assert finetune_config(2, SIZE, 0, learning_rate=0.02, batch_size=32).rate(8000) == 0.02


@pytest.mark.parametrize("wrong", [{"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"batch_size": 1}])
def test_a_rate_or_batch_that_trains_nothing_is_refused_at_once(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"not|got|give a number"):
        finetune_config(1, SIZE, 0, **wrong)
    with pytest.raises(UserError, match=f"`{next(iter(wrong))}` is"):
        SearchConfig(speedup=2, **wrong)


def test_a_teacher_is_followed_by_its_share() -> None:
    split = load_data("bundled").train.take(32)
    ends = {}
    for share in (0.0, 0.4, 1.0):
        torch.manual_seed(0)
        model, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2))
        start, bias = (tensor.detach().clone() for tensor in model[1].parameters())
        config = replace(
            finetune_config(1, (8, 8), 0, learning_rate=1.0, batch_size=32, epoch_steps=1),
            distillation=share,
            weight_decay=0.0,
            momentum=0.5,
            warmup_epochs=0.0,
            augment=False,
        )
        fit(model, split, config, teacher=teacher)
        ends[share] = model[1].weight.detach() - start
        if share == 1.0:
            # The gradient of cross entropy to soft targets, by hand; Nesterov's first step is (1 + momentum) of it.
            x = split.inputs((8, 8)).flatten(1)
            with torch.no_grad():
                error = (x @ start.T + bias).softmax(1) - teacher(x.view(-1, 1, 8, 8)).softmax(1)
            torch.testing.assert_close(ends[1.0], -1.5 * error.T @ x / 32, rtol=1e-4, atol=1e-6)
    # One step is linear in the loss.
    torch.testing.assert_close(ends[0.4], 0.6 * ends[0.0] + 0.4 * ends[1.0], rtol=1e-4, atol=1e-6)


def test_a_teacher_of_one_logit_is_followed_too() -> None:
    said = torch.full((4, 1), math.log(3))  # 3 to 1 for the second class
    logits = torch.full((4, 1), -math.log(4))  # 1 to 4
    # (3/4) ln((3/4) / (1/5)) + (1/4) ln((1/4) / (4/5))
    expected = 0.75 * math.log(15 / 4) + 0.25 * math.log(5 / 16)
    assert float(distance(logits, said)) == pytest.approx(expected)
    # Of two logits that say the same.
    both = torch.tensor([[0.0, math.log(3)]] * 4)
    same = torch.tensor([[0.0, -math.log(4)]] * 4)
    assert float(distance(same, both)) == pytest.approx(expected)


class Line(nn.Module):
    """A weight from 0 to 1, and a counter that is no weight."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))
        self.register_buffer("count", torch.tensor(int(at * 10)))


@pytest.mark.parametrize(
    ("accuracies", "losses", "share"),
    [
        # At 0, 0.125, 0.25, 0.5, 0.75 and 1 of the way.
        ([80, 81, 82, 85, 84, 83], [9, 8, 7, 6, 5, 4], 1.0),
        ([80, 81, 82, 85, 84, 79], [9, 8, 7, 6, 5, 4], 0.75),
        ([80, 80, 79, 79, 79, 79], [9, 8, 7, 6, 5, 4], 0.125),
        ([80, 81, 82, 85, 84, 83], [9, 8, 5, 5, 6, 7], 0.5),
        ([80, 79, 79, 79, 79, 79], [9, 8, 7, 6, 5, 4], 0.0),
        ([80, 80, 80, 80, 80, 80], [3, 4, 5, 6, 7, 8], 0.0),  # nothing gained
        ([80, 80, 80, 80, 80, 80], [9, 8, 7, 6, math.nan, math.inf], 0.5),
    ],
)
def test_it_ends_where_the_loss_is_lowest_of_what_is_as_accurate(
    accuracies: list[float], losses: list[float], share: float
) -> None:
    scores = dict(zip(sorted({0.0, *SHARES}), zip(accuracies, losses, strict=True), strict=True))
    model = Line(1.0)
    start = {name: tensor.clone() for name, tensor in Line(0.0).state_dict().items()}
    settled = settle(model, start, lambda network: scores[network.at.item()])
    assert (settled.before, settled.after, settled.share) == (80, scores[share][0], share)
    assert settled.trained == accuracies[-1]
    assert model.at.item() == share
    assert model.count.item() == (10 if share else 0)


@pytest.fixture(scope="module")
def photos() -> ImageData:
    whole = load_data("bundled")
    return replace(whole, train=whole.train.take(PHOTOS), held_back=whole.held_back.take(100))


@pytest.fixture(scope="module")
def bundled() -> Network:
    return load_network(NetworkOptions("bundled"))


@pytest.mark.slow
def test_few_photos_do_not_make_a_cut_network_worse(bundled: Network, photos: ImageData) -> None:
    full = bundled.graph.architecture.group_channels
    cut = Judge(bundled, photos, JudgeConfig(10, PHOTOS, PHOTOS)).network(tuple(max(8, c // 24 * 8) for c in full))
    start = {name: tensor.clone() for name, tensor in cut.state_dict().items()}
    for seed in range(5):
        model = copy.deepcopy(cut)
        fit(model, photos.train, finetune_config(2, SIZE, seed), teacher=bundled.model)
        settled = settle(model, start, lambda network: judged(network, photos.held_back, SIZE))
        # By the last epoch alone, too: that it may fall back on the start is not what keeps it.
        assert min(settled.trained, settled.after) >= settled.before
        assert settled.share > 0
