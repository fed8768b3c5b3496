"""The uncut network before the search: said, warned about or refused at chance, and why it may be there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from amc_latency.console import Console
from amc_latency.data import ImageData, InMemory
from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from amc_latency.models.load import Network, NetworkOptions
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import Normalisation
from amc_latency.training.finetune import finetune_checkpoint
from amc_latency.training.original import check_original

CLASSES = 6


class Brightness(nn.Module):
    """Says the class that an image's brightness names, class 0 where it names none."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        named = (x.mean((1, 2, 3)) * 255 / 10).round().long()
        named = named.where((named >= 0) & (named < CLASSES), 0)
        order = torch.tensor(self.order)
        return nn.functional.one_hot(order[named], CLASSES).float()


def network(order: list[int]) -> Network:
    spec = ModelSpec("own.py:net", input=(1, 4, 4), classes=CLASSES)
    graph = trace(nn.Sequential(nn.Conv2d(1, CLASSES, 4), nn.Flatten()), spec.input)
    return Network(Brightness(order), spec, graph, trained=True)


def data(labels: list[int], seen: list[int] | None = None, unlabelled: bool = False) -> ImageData:
    """Images whose brightness names `seen`, the label itself unless given."""
    told = torch.tensor(labels)
    pixels = (10 * torch.tensor(seen or labels)).to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    split = InMemory(pixels, told, Normalisation((0.0,), (1.0,)))
    return ImageData("folder:photos", split, split, split, CLASSES, unlabelled)


ALL = [label for label in range(CLASSES) for _ in range(10)]
AS_IT_IS = list(range(CLASSES))


def check(network: Network, images: ImageData, min_accuracy: float | None = None) -> None:
    check_original(network, images, 1000, min_accuracy, Console())


def test_a_good_network_is_told_with_its_images_and_interval(capsys: pytest.CaptureFixture[str]) -> None:
    # Six of 60 are wrong; Wilson: 79.9 to 95.3.
    seen = [0 if i % 10 == 9 and label else label for i, label in enumerate(ALL)]
    check(network(AS_IT_IS), data(ALL, seen))
    said = capsys.readouterr().err
    assert "gets 55 of 60 held-back images right: 91.67 % (95 % between 81.9 and 96.4)" in said
    assert "chance" not in said


def test_classes_in_another_order_are_refused_and_named() -> None:
    with pytest.raises(UserError) as refused:
        check(network(AS_IT_IS[::-1]), data(ALL))
    said = str(refused.value)
    assert "gets 0 of 60 held-back images right: 0.00 % (95 % between 0.0 and 6.0)" in said
    assert "The same answers in any order would get 16.7 %" in said
    assert "With its classes renumbered (5 for 0, 4 for 1, 3 for 2, 2 for 3, ...; folders are sorted by name)" in said
    assert "it is right on 100.0 % of 60 images; " in said
    assert "`min_accuracy=0` goes on all the same" in said
    check(network(AS_IT_IS[::-1]), data(ALL), min_accuracy=0)


def test_one_answer_for_all_is_refused_and_the_usual_causes_named() -> None:
    # 120 images, a sixth right: exactly chance.
    with pytest.raises(
        UserError,
        match=r"20 of 120 .*The same answers in any order would get 16\.7 %\. usual causes: .*`normalisation`",
    ):
        check(network([2] * CLASSES), data(2 * ALL))


def test_too_few_images_to_tell_are_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    # 5 of 12, 4 by chance: 95 % between 19 and 68.
    labels = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5]
    check(network([0, 0, 0, 3, 0, 0]), data(labels, [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5]))
    assert "warning, that may be chance: " in capsys.readouterr().err


@pytest.mark.parametrize(("least", "is_refused"), [(91.0, False), (92.0, True)])
def test_an_accuracy_may_be_asked_for(least: float, is_refused: bool) -> None:
    seen = [0 if i % 10 == 9 and label else label for i, label in enumerate(ALL)]
    if is_refused:
        with pytest.raises(UserError, match="less than `min_accuracy` 92"):
            check(network(AS_IT_IS), data(ALL, seen), least)
    else:
        check(network(AS_IT_IS), data(ALL, seen), least)


def test_a_fair_network_is_never_refused_by_a_few_images() -> None:
    # Half of two classes is chance; of 12 images a network that is right in 70 % may well get 5 right.
    for seed in range(30):
        draw = torch.rand(12, generator=torch.Generator().manual_seed(seed)) < 0.7
        labels = [i % 2 for i in range(12)]
        seen = [label if right else 1 - label for label, right in zip(labels, draw.tolist(), strict=True)]
        if int(draw.sum()) >= 4:
            check(network(AS_IT_IS), data(labels, seen))


def test_without_labels_one_answer_for_all_is_refused() -> None:
    check(network(AS_IT_IS), data(ALL, unlabelled=True))
    with pytest.raises(UserError, match="says class 3 of all 180 images, so agreement with it means nothing"):
        check(network(AS_IT_IS), data([3] * 60, unlabelled=True))


def test_a_network_that_tells_a_rare_class_is_no_chance_though_the_commonest_alone_gets_more() -> None:
    # 950 of class 0, 50 of class 1: 903 and 45 right are 94.8 %, less than 95 % for always saying 0; but such answers
    # in any order would get .908 * .95 + .092 * .05 = 86.7 %.
    labels = [0] * 950 + [1] * 50
    seen = [0] * 903 + [1] * 47 + [1] * 45 + [0] * 5
    check(network(AS_IT_IS), data(labels, seen))
    with pytest.raises(UserError, match=r"950 of 1,000 .*would get 95\.0 %"):
        check(network([0] * CLASSES), data(labels))


REVERSED = """
from amc_latency.data import load_data

def reversed_classes():
    data = load_data("bundled")
    train, test = data.train.take(1000), data.test.take(40)
    labels = {"train_labels": 9 - train.labels, "test_labels": 9 - test.labels}
    return {"train_images": train.images, "test_images": test.images, **labels}
"""


def test_fine_tuning_refuses_it_too(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(REVERSED)
    out, source = tmp_path / "tuned.safetensors", f"{tmp_path / 'data.py'}:reversed_classes"
    with pytest.raises(UserError, match=r"classes renumbered \(9 for 0, 8 for 1, .* it is right on"):
        finetune_checkpoint(NetworkOptions(), out, 1, source, seed=0)
    assert not list(tmp_path.glob("tuned*"))
    with pytest.raises(UserError, match="less than `min_accuracy` 99"):
        finetune_checkpoint(NetworkOptions(), out, 1, source, seed=0, min_accuracy=99)
