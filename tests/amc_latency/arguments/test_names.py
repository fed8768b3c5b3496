"""What is said of a name that none has."""

from __future__ import annotations

import pytest

from amc_latency.arguments.names import find, known, nearest
from amc_latency.errors import UserError


def test_a_name_that_none_has_is_answered_with_the_nearest() -> None:
    assert find({"red": 1, "green": 2}, "green", "colour") == 2
    with pytest.raises(UserError, match=r"^no colour is called 'gren'; there are red, green, blue\. Did .* 'green'"):
        find(dict.fromkeys(("red", "green", "blue")), "gren", "colour")
    with pytest.raises(UserError, match="there are red and green"):
        find({"red": 1, "green": 2}, "x", "colour")
    assert nearest("resnet5", ["resnet50", "vgg16"]) == "resnet50"
    assert nearest("pixel", ["vgg16", "Pixel1"]) == "Pixel1"


def test_what_is_far_from_all_names_is_answered_with_all_of_them() -> None:
    with pytest.raises(UserError, match=r"^no colour is called 'mauve'; there are red and green$"):
        find({"red": 1, "green": 2}, "mauve", "colour")
    with pytest.raises(UserError, match=r"^no colour is called ''; there are red$"):
        find({"red": 1}, "", "colour")
    assert nearest("resnet5", ["vgg16"]) is None
    assert nearest("resnet5", []) is None
    assert known(["seed", "agent"], "sede") == "; did you mean 'seed'?"
    assert known(["seed", "agent"], "colour") == "; it has seed, agent"
