from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from android_bench.safe.records import RecordError, from_json, from_toml, from_values


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_is_finite(value: float) -> None:
    with pytest.raises(RecordError, match="finite"):
        from_values({"x": value}, Point)
    with pytest.raises(RecordError, match="finite"):
        from_toml(f"x = {'inf' if value > 0 else '-inf' if value < 0 else 'nan'}", Point)
