"""What is said of a name that none has."""

from __future__ import annotations

import pytest

from amc_latency.errors import UserError
from amc_latency.names import find, nearest


def test_a_name_that_none_has_is_answered_with_the_nearest() -> None:
    assert find({"red": 1, "green": 2}, "green", "colour") == 2
    with pytest.raises(UserError, match=r"^no colour is called 'gren'; there are red, green, blue\. Did .* 'green'"):
        find(dict.fromkeys(("red", "green", "blue")), "gren", "colour")
    with pytest.raises(UserError, match="there are red and green"):
        find({"red": 1, "green": 2}, "x", "colour")
    with pytest.raises(UserError, match=r"there are red\. Did you mean 'red'"):
        find({"red": 1}, "", "colour")
    assert nearest("resnet5", ["resnet50", "vgg16"]) == "resnet50"
