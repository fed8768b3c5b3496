from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from amc_latency.android_bench.safe.records import RecordError, from_json, from_toml, from_values


@dataclass(frozen=True)
class Point:
    x: float
    n: int = 1


def test_a_record_has_its_types() -> None:
    assert from_json('{"x": 1.5}', Point) == Point(1.5, 1)
    assert from_toml("x = 2\nn = 3", Point) == Point(2.0, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"x": "1"}', r"\$\.x"),
        ('{"x": true}', r"\$\.x"),
        ('{"x": NaN}', "malformed"),
        ('{"x": 1e400}', "out of range"),
        ('{"x": 1, "n": 1.5}', r"\$\.n"),
        ("{}", "`x`"),
        ("[1]", "object"),
        ('{"x": 1', "truncated"),
        ('{"x": 1, "n": ' + "9" * 400 + "}", r"1329 bits is too large - at `\$\.n`"),
        ('{"x": 1, "n": ' + "9" * 5000 + "}", r"\$\.n"),
    ],
)
def test_another_type_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        from_json(text, Point)


def test_depth_is_bounded_in_open_parts() -> None:
    assert from_json("[" * 32 + "]" * 32, Any) is not None
    for text in ("[" * 40 + "]" * 40, "[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(RecordError, match="deep"):
            from_json(text, Any)


@pytest.mark.parametrize(
    "text", ["x = " + "9" * 400, "x = " + "9" * 5000, "x = 1\nn = " + "[" * 2000, "x = 1\nx = 1", "x = 1\nn = 1.0"]
)
def test_toml_is_bounded_too(text: str) -> None:
    with pytest.raises(RecordError):
        from_toml(text, Point)


def test_an_open_part_has_no_number_that_is_too_large() -> None:
    with pytest.raises(RecordError, match=r"64 bits is too large - at `\$\.a\[\.\.\.\]`"):
        from_json('{"a": [9223372036854775808]}', dict[str, Any])
    assert from_json('{"a": 0.12345678901234567890}', dict[str, Any]) == {"a": 0.12345678901234568}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_is_finite(value: float) -> None:
    with pytest.raises(RecordError, match="finite"):
        from_values({"x": value}, Point)
    with pytest.raises(RecordError, match="finite"):
        from_toml(f"x = {'inf' if value > 0 else '-inf' if value < 0 else 'nan'}", Point)
