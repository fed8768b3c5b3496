"""Answers of the host's worker for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def answer(
    samples_ns: Sequence[int],
    sentinel_ns: Sequence[int],
    chunk: Sequence[int] | None = None,
    hot_ns: Sequence[int] = (),
    sentinel_hot_ns: Sequence[int] = (),
) -> dict[str, Any]:
    """A worker's, whose wall times are longer by one factor each: 1.5 and 2."""
    found: dict[str, Any] = {"chunk": list(range(len(samples_ns)) if chunk is None else chunk)}
    runs = {"": (samples_ns, 1.5), "sentinel_": (sentinel_ns, 2)}
    if hot_ns:
        runs |= {"hot_": (hot_ns, 1.5), "sentinel_hot_": (sentinel_hot_ns, 2)}
    for name, (times_ns, wall) in runs.items():
        found[f"{name}cpu_ns"], found[f"{name}wall_ns"] = list(times_ns), [round(wall * ns) for ns in times_ns]
    return found


def framed(samples_ns: Sequence[int], sentinel_ns: Sequence[int]) -> dict[str, Any]:
    """In state `frame`, where second runs of either take 60 %: all goes by one speed."""
    hot_ns, sentinel_hot_ns = ([round(0.6 * ns) for ns in each] for each in (samples_ns, sentinel_ns))
    return answer(samples_ns, sentinel_ns, hot_ns=hot_ns, sentinel_hot_ns=sentinel_hot_ns)
