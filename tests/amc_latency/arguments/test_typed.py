"""Every option that a program gives is of its type, or is named."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import Field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from amc_latency.device.base import State
from amc_latency.device.kinds import PhoneOptions

from amc_latency.arguments.settings import made, names_of, read_options
from amc_latency.arguments.typed import plain, typed
from amc_latency.data import Streaming
from amc_latency.errors import OptionError, UserError
from amc_latency.measuring.config import BenchConfig, ProfileConfig
from amc_latency.models.load import NetworkOptions
from amc_latency.search.config import SearchConfig, config_of
from amc_latency.search.config.amounts import Amount
from amc_latency.task import ImageTask

RECORDS = (SearchConfig, ProfileConfig, BenchConfig, NetworkOptions, PhoneOptions, ImageTask)
NEEDED: dict[type, dict[str, Any]] = {SearchConfig: {"target_ms": 1.0}, BenchConfig: {"file": Path("x.tflite")}}
"""What a record can't be made without."""
NUMBERS = (1.5, 2, np.float64(1.5), Fraction(1, 2))
NO_NUMBER = (True, False, np.True_, math.nan, b"2", [2], {"all": 2}, 1j, object())
NO_TEXT = (True, 1, 1.5, b"x", ["x"], object())
# By annotation, as it is written: what may stand there, and what may not.
ADMITTED: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "int": ((2, np.int64(2)), (*NO_NUMBER, 1.5, np.float32(2), "2", None)),
    "int | None": ((2, np.int64(2), None), (*NO_NUMBER, 1.5, "2")),
    "float": (NUMBERS, (*NO_NUMBER, "2", None)),
    "float | None": ((*NUMBERS, None), (*NO_NUMBER, "zz")),
    "str": (("x",), (*NO_TEXT, None)),
    "str | None": (("x", Path("x"), None), NO_TEXT),
    "bool": ((True, False), (1, 0, "yes", None, 1.0)),
    "bool | None": ((True, None), (1, 0, "yes", 1.0)),
    "str | Path | None": (("x", Path("x"), None), NO_TEXT),
    "Path": ((Path("x"), "x"), (*NO_TEXT, None)),
    "Path | None": ((Path("x"), "x", None), NO_TEXT),
    "Amount | None": ((6e6, 6, "50%", "6M", None), NO_NUMBER),
    "KeepBound | None": (
        (0.5, np.float32(0.5), {"conv": 0.5}, {"conv": np.float64(0.5)}, "conv=0.5", None),
        (True, "conv=zz", "zz", {"conv": True}, {"conv": "0.5"}, {3: 0.5}, [0.5], object()),
    ),
    "tuple[float, ...] | None": (((50.0, 20.0), [50, np.float64(20)], "50,20", None), (50.0, (50.0, True), ["a"], "a")),
    "tuple[str, ...]": ((("a",), ["a", "b"], ()), ("a", (1,), [True], None)),
    "tuple[Path, ...]": (((Path("a"),), ["a"], ()), ("a", (1,), [True], None)),
    'Literal["learn", "grid"]': (("learn", "grid"), ("lern", 1, True, None, ["grid"])),
    'Literal["auto", "direct", "server"]': (("auto",), ("atuo", 1, None)),
    'Literal["auto", "benchmark_model", "amc_bench"]': (("amc_bench",), ("atuo", 1, None)),
    "State | None": (("hot", "frame", None), ("warm", 1, True)),
    "PhoneOptions": ((PhoneOptions(),), ({}, None, "x")),
    "Streaming | None": ((Streaming(0.5), None), (0.5, "x", True)),
    # A data set of the program's own.
    "Any": ((None,), (True, 1, 1.5, object())),
}
FIELDS = [(record, field) for record in RECORDS for field in fields(record)]
GIVEN = [(record, field) for record, field in FIELDS if "help" in field.metadata or record is ImageTask]
"""Those that a program may give to one of the API's calls."""


def name(value: Any) -> str | None:
    return f"{value.__name__}" if isinstance(value, type) else value.name if isinstance(value, Field) else None


def given(record: type, field: Field[Any], value: Any) -> Any:
    """The record, as a program that gives this field has it."""
    if record is SearchConfig and "help" in field.metadata:
        return config_of({**NEEDED[record], field.name: value})
    if record in (ProfileConfig, NetworkOptions, PhoneOptions):
        return made(record, {field.name: value}, "call")
    if "help" in field.metadata:
        return record(**{**NEEDED[record], **read_options(record, {field.name: value}, "call")})
    return record(**{**NEEDED.get(record, {}), field.name: value})


@pytest.mark.parametrize(("record", "field"), FIELDS, ids=name)
def test_a_value_of_another_type_is_refused_by_the_fields_name(record: type, field: Field[Any]) -> None:
    for value in ADMITTED[str(field.type).replace("'", '"')][1]:
        with pytest.raises(OptionError) as refused:
            given(record, field, value)
        assert refused.value.fields == (field.name,), value
        assert str(refused.value).startswith(f"`{field.name}`"), value


@pytest.mark.parametrize(("record", "field"), GIVEN, ids=name)
def test_a_value_of_its_type_is_taken_or_refused_by_what_it_says(record: type, field: Field[Any]) -> None:
    """A number may be too large, and a name one that nothing has: that has nothing to do with its type."""
    for value in ADMITTED[str(field.type).replace("'", '"')][0]:
        try:
            found, refused = getattr(given(record, field, value), field.name), ""
        except UserError as error:
            found, refused = None, str(error)
        assert not any(f" is {words}," in refused for words in ("a whole number", "a number", "text", "a path"))
        # What is written into a run folder is Python's own.
        assert type(found) in (int, float, str, bool, tuple, dict, type(None), PhoneOptions, Streaming, type(Path())), (
            value
        )
        if isinstance(found, int | float | dict):
            json.dumps(found)


def test_counts_are_read_as_on_the_command_line() -> None:
    for unit in ("macs", "params", "bytes", "memory"):
        field = f"target_{unit}"
        for text, number in (("6M", 6e6), ("300k", 3e5), ("1.5G", 1.5e9), ("1200000", 1.2e6), ("50%", "50%")):
            assert getattr(config_of({field: text}), field) == number
        for text in ("6X", "", "M", "0%", "101%"):
            with pytest.raises(OptionError, match=rf"^`{field}`"):
                config_of({field: text})
        with pytest.raises(OptionError, match=rf"^`{field}` is a positive number of (macs|params|bytes), not 0$"):
            config_of({field: 0})
    assert config_of({"target_ms": "20"}).target_ms == 20.0
    assert config_of({"target_ms": "40%"}).speedup == 2.5
    assert config_of({"target_params": 5, "min_keep": "conv=0.3"}).min_keep == {"conv": 0.3}
    assert config_of({"target_params": 5, "min_keep": "0.3"}).min_keep == 0.3


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (int, 1.5, "`n` is a whole number, not 1.5"),
        (int | None, True, "`n` is a whole number, not True"),
        (float, "2", "`n` is a number, not '2'"),
        (float, math.nan, "`n` is nan; give a number"),
        (Amount, None, "`n` is a number or text, not None"),
        (Literal["a", "b"], "c", "`n` is 'a' or 'b', not 'c'"),
        (State, "x", "`n` is 'hot' or 'frame', not 'x'"),
        (tuple[float, ...], 3, "`n` is a list, of which each is a number, not 3"),
        (Mapping[str, float], 3, "`n` is a dictionary, in which each value is a number, not 3"),
        (Path, 3, "`n` is a path, not 3"),
        (str, b"x" * 999, f"`n` is text, not b'{'x' * 98}"),
    ],
)
def test_the_message_says_what_is_wanted(hint: Any, value: Any, text: str) -> None:
    with pytest.raises(OptionError) as refused:
        typed("n", hint, value)
    assert str(refused.value) == text


def test_what_another_library_has_is_made_pythons_own() -> None:
    assert type(plain(int, np.int32(3))) is int
    assert type(plain(float, np.float32(0.5))) is float
    assert plain(Path | None, "a/b") == Path("a/b")
    assert plain(str, Path("a/b")) == "a/b"
    assert plain(tuple[Path, ...], ["a"]) == (Path("a"),)
    assert typed("n", tuple[int, ...] | None, [np.int64(3), 4]) == (3, 4)
    assert typed("n", tuple[int, ...] | None, None) is None


def test_a_name_that_no_field_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"^profile has no option 'steps'; did you mean 'step'\?$"):
        made(ProfileConfig, {"steps": 8}, "profile")
    with pytest.raises(UserError, match=r"^device has no option 'colour'; it has force, transport, .*library$"):
        made(PhoneOptions, {"colour": 8}, "device")
    assert "file" not in names_of(BenchConfig)  # An argument of its own.
