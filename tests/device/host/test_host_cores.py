"""Which cores are alike, and which are timed on, from trees of files as Linux writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from amc_latency.device.host.host_cores import CoreKind, core_kinds, core_list, listed, siblings, timing_order
from hypothesis import given
from hypothesis import strategies as st


def tree(root: Path, files: Mapping[str, object]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def per_core(name: str, values: Iterable[object]) -> dict[str, object]:
    return {f"sys/devices/system/cpu/cpu{core}/{name}": value for core, value in enumerate(values)}


THREADS = per_core("topology/thread_siblings_list", ["0-1", "0-1", "2-3", "2-3", 4, 5, 6, 7])
"""Two P-cores of two threads each, four E-cores."""
HYBRID = THREADS | {"sys/devices/cpu_core/cpus": "0-3", "sys/devices/cpu_atom/cpus": "4-7"}
P_CORES = CoreKind("P-core", (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0", [0]), ("0-3,8", [0, 1, 2, 3, 8]), ("5,1", [1, 5]), ("2-1", [])]
    + [(text, []) for text in ("", "max", "0-", "1,,2", "-1", "0-3 8", "1" * 5000)],
)
def test_core_lists(text: str, cores: list[int]) -> None:
    assert core_list(text) == cores


@given(st.sets(st.integers(0, 500), min_size=1))
def test_a_list_of_cores_is_read_as_it_is_written(cores: set[int]) -> None:
    assert core_list(listed(cores).replace(" ", "")) == sorted(cores)


def test_a_list_is_short() -> None:
    assert listed([8, 0, 1, 2, 3]) == "0-3, 8"


def test_siblings(tmp_path: Path) -> None:
    tree(tmp_path, per_core("topology/thread_siblings_list", ["0,4", "garbage", "0,4"]))
    assert siblings(0, tmp_path) == {0, 4}
    assert siblings(1, tmp_path) == {1}
    assert siblings(7, tmp_path) == {7}


def test_intel_says_which_cores_are_which(tmp_path: Path) -> None:
    assert core_kinds(tree(tmp_path, HYBRID)) == [P_CORES, CoreKind("E-core", (4, 5, 6, 7))]


def test_the_slowest_of_intel_are_told_apart_by_their_clock(tmp_path: Path) -> None:
    # A favoured P-core is still one: 5.1 of 5.4 GHz is 94 %. 2.5 of 3.8 GHz is 66 %.
    clocks = per_core("cpufreq/cpuinfo_max_freq", [5_400_000] * 2 + [5_100_000] * 2 + [3_800_000] * 2 + [2_500_000] * 2)
    kinds = [P_CORES, CoreKind("E-core", (4, 5)), CoreKind("low-power E-core", (6, 7))]
    assert core_kinds(tree(tmp_path, HYBRID | clocks)) == kinds


@pytest.mark.parametrize(
    ("name", "values", "kinds"),
    [
        ("cpu_capacity", [381, 381, 1024, 1024], [CoreKind("fast", (2, 3)), CoreKind("slow", (0, 1))]),
        ("cpu_capacity", [1024, 250, 800], [CoreKind("fast", (0,)), CoreKind("middle", (2,)), CoreKind("slow", (1,))]),
        ("cpufreq/cpuinfo_max_freq", [1_800_000, 2_400_000], [CoreKind("fast", (1,)), CoreKind("slow", (0,))]),
        ("cpufreq/cpuinfo_max_freq", [5_100_000, 5_400_000], []),
        ("cpu_capacity", [1024, 1024], []),
        ("cpu_capacity", ["garbage", ""], []),
    ],
)
def test_kinds_by_speed(tmp_path: Path, name: str, values: list[object], kinds: list[CoreKind]) -> None:
    assert core_kinds(tree(tmp_path, per_core(name, values))) == kinds


def test_a_clock_tells_kinds_apart_that_have_one_capacity(tmp_path: Path) -> None:
    # As on x86, where the system gives every core 1024.
    files = per_core("cpu_capacity", [1024] * 3) | per_core("cpufreq/cpuinfo_max_freq", [5_100_000, 3_300_000])
    assert core_kinds(tree(tmp_path, files)) == [CoreKind("fast", (0,)), CoreKind("slow", (1,))]


def test_four_speeds_have_numbers(tmp_path: Path) -> None:
    kinds = core_kinds(tree(tmp_path, per_core("cpu_capacity", [100, 200, 400, 800])))
    assert [(kind.name, kind.cores) for kind in kinds] == [
        ("speed 1", (3,)),
        ("speed 2", (2,)),
        ("speed 3", (1,)),
        ("speed 4", (0,)),
    ]


@pytest.mark.parametrize(
    ("files", "allowed", "named", "order"),
    [
        ({}, [0, 1, 2], None, [0, 1, 2]),
        ({}, [0, 1, 2], 0, [1, 2, 0]),
        ({}, [], None, []),
        # One thread of each P-core first, then the E-cores, last the other threads.
        (HYBRID, range(8), None, [0, 2, 4, 5, 6, 7, 1, 3]),
        (HYBRID, range(4, 8), None, [4, 5, 6, 7]),
        (HYBRID, range(8), 5, [0, 2, 4, 6, 7, 1, 3, 5]),
        (HYBRID, range(4), 2, [0, 3, 1, 2]),
        (per_core("cpu_capacity", [1024, 1024, 381, 381]), range(4), None, [2, 3, 0, 1]),
        (per_core("cpu_capacity", [381, 381, 1024, 1024]), range(4), None, [0, 1, 2, 3]),
    ],
)
def test_the_order_of_timing(
    tmp_path: Path, files: dict[str, object], allowed: Iterable[int], named: int | None, order: list[int]
) -> None:
    assert timing_order(allowed, tree(tmp_path, files), named) == order
