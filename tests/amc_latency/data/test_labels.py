"""Labels that a network can tell apart, and labels that say nothing."""

from __future__ import annotations

import pytest
import torch

from amc_latency.console import Console
from amc_latency.data import ImageData, InMemory
from amc_latency.data.labels import check_labels, check_several
from amc_latency.errors import UserError
from amc_latency.pixels import Normalisation


def data(*labels: list[int], unlabelled: bool = False) -> ImageData:
    splits = [
        InMemory(torch.zeros(len(each), 3, 4, 4, dtype=torch.uint8), torch.tensor(each), Normalisation((0.5,), (0.5,)))
        for each in labels
    ]
    return ImageData("photos", *splits, classes=max(map(max, labels)) + 1, unlabelled=unlabelled)


MIXED = data([0, 1, 0, 1], [1, 0], [0, 1])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_one_output_tells_0_from_1(capsys: pytest.CaptureFixture[str]) -> None:
    check_labels(MIXED, "net.py:one", 1, Console())
    assert "net.py:one has one output: taken for the logit of class 1" in said(capsys)
    # What estimates an age, say, has labels of its own kind.
    with pytest.raises(
        UserError, match=r"photos, has 3 classes, and net.py:one has one output, which tells label 0 from"
    ):
        check_labels(data([0, 1, 2], [1, 0], [0, 1]), "net.py:one", 1, Console())


def test_labels_beyond_the_outputs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for outputs in (2, 5):
        with pytest.raises(UserError, match=f"tells {outputs} apart"):
            check_labels(data([0, outputs], [1, 0], [0, 1]), "net", outputs, Console())
    check_labels(MIXED, "net", 2, Console())
    assert said(capsys) == ""
    check_labels(MIXED, "net", 3, Console())
    assert "photos has 2 classes: taken for the first of the network's 3" in said(capsys)


@pytest.mark.parametrize(
    ("unlabelled", "says"),
    [(False, "every image has label 1, .* other `data`"), (True, "net says class 1 of every image")],
)
def test_images_of_one_label_are_refused(unlabelled: bool, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_several(data([1, 1, 1], [1, 1], [1], unlabelled=unlabelled), "net", Console())


def test_a_split_of_one_label_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    check_several(MIXED, "net", Console())
    assert said(capsys) == ""
    check_several(data([0, 1], [1, 1], [0, 1]), "net", Console())
    assert "photos: every held-back image has label 1: accuracy on these says nothing" in said(capsys)
    check_several(data([0, 1], [1, 0], [0, 0], unlabelled=True), "net", Console())
    assert "photos: net says class 0 of every test image" in said(capsys)
    # Each of one label, but not the same.
    check_several(data([0, 0], [1, 1], [0, 0]), "net", Console())
    assert said(capsys).count("says nothing") == 3
