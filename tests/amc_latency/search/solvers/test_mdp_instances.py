"""Instances in the format that MDP publishes: read without being run, and solved as brute force solves them."""

from __future__ import annotations

import itertools
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.mdp import FIRST, by_microseconds, instance_of, kept, run, solved
from benchmarks.plain_pickle import read_plain

SIZES = (5, 3, 4)
"""Parts of each group, none included."""
GROUPS = ((FIRST, "dw1.conv1"), ("dw1.conv2", "dw2.conv1"), ("dw2.conv2",))
PART_CHANNELS = {FIRST: 8, "dw1.conv1": 8, "dw1.conv2": 32, "dw2.conv1": 2, "dw2.conv2": 64}


def inputs(seed: int, budget: int) -> list[Any]:
    """A depthwise chain as MDP writes it, the last group first; more channels need not take longer."""
    rng = np.random.default_rng(seed)

    def microseconds(*sizes: int) -> np.ndarray:
        table = rng.integers(5, 60, sizes).astype(float)
        for axis in range(len(sizes)):
            table[(slice(None),) * axis + (0,)] = 0
        return table

    first, second, third = GROUPS
    latencies = {
        "dw2.conv2": (second, microseconds(SIZES[2], SIZES[1])),
        FIRST: (None, microseconds(SIZES[0])),
        "dw1.conv1": (first, microseconds(SIZES[0])),
        "dw1.conv2": (first, microseconds(SIZES[1], SIZES[0])),
        "dw2.conv1": (second, microseconds(SIZES[1])),
    }
    order = (third, first, second)
    sizes = dict(zip(GROUPS, SIZES, strict=True))
    worth = {group: [0, *map(int, rng.integers(1, 50, sizes[group] - 1).cumsum())] for group in order}
    return [latencies, worth, budget, 0, None, "/result"]


def written(path: Path, value: object) -> Path:
    # The protocol of MDP's own files.
    path.write_bytes(pickle.dumps(value, protocol=3))
    return path


def brute(given: list[Any], least_first: int) -> tuple[int, tuple[int, ...], int]:
    """The most importance within the budget, by trying all; by the tables as they stand in the file."""
    latencies, worth, budget = given[:3]
    best = (-1, (0,), 0)
    for parts in itertools.product(*(range(1, size) for size in SIZES)):
        of = dict(zip(GROUPS, parts, strict=True))
        one, two, three = parts
        us = latencies[FIRST][1][one] + latencies["dw1.conv1"][1][one] + latencies["dw1.conv2"][1][two, one]
        us += latencies["dw2.conv1"][1][two] + latencies["dw2.conv2"][1][three, two]
        value = sum(worth[group][count] for group, count in of.items())
        if one >= least_first and us <= budget and value > best[0]:
            best = (value, parts, int(us))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_both_solvers_find_what_trying_all_finds(tmp_path: Path, seed: int) -> None:
    given = inputs(seed, budget=170)
    read = read_plain(written(tmp_path / "inputs.pkl", given))
    for any_first, least in ((False, 2), (True, 1)):
        value, _, _ = brute(given, least)
        instance = instance_of(read, PART_CHANNELS, any_first)
        for found in (solved(instance), by_microseconds(instance)):
            assert found.importance == value
            assert found.microseconds <= 170
            assert found == kept(instance, found.parts)


def test_a_folder_as_mdp_has_it_gives_mdps_own_solution_too(tmp_path: Path) -> None:
    given = inputs(3, budget=170)
    for name in ("pkls", "group_size"):
        (tmp_path / name).mkdir()
    (tmp_path / "group_size" / "mobilenet_group_size.json").write_text(json.dumps(PART_CHANNELS))
    written(tmp_path / "pkls" / "0_solver_inputs_latv2_2nd.pkl", given)
    # 8 of the first group's 32 channels went, and 128 of the last one's 192: 3 and 1 parts are left, and 2 of 2.
    written(tmp_path / "pkls" / "pruned_dict_latv20_2nd.pkl", {FIRST: 8, "dw1.conv1": 8, "dw2.conv2": 128})
    found = run(tmp_path, 0)
    assert found.mdp.parts == (3, 2, 1)
    latencies, worth, _ = given[:3]
    assert found.mdp.importance == worth[GROUPS[0]][3] + worth[GROUPS[1]][2] + worth[GROUPS[2]][1]
    tables = {name: table for name, (_, table) in latencies.items()}
    expected = tables[FIRST][3] + tables["dw1.conv1"][3] + tables["dw1.conv2"][2, 3]
    assert found.mdp.microseconds == expected + tables["dw2.conv1"][2] + tables["dw2.conv2"][1, 2]
    assert found.ours.importance == found.optimum.importance == brute(given, 2)[0]


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([1, Harmful()], "it calls "),
        (np.array([None, 1]), "something else than numbers|no pickle of plain values"),
        ({1, 2}, "it calls builtins set"),
    ],
)
def test_nothing_but_plain_values_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=why):
        read_plain(written(tmp_path / "bad.pkl", value))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x03]", b"\x80\x03a.", b"\x80\x03h\x05.", b"\x80\x03(e.", b"nonsense"])
def test_a_broken_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        read_plain(tmp_path / "broken.pkl")


def test_values_and_arrays_are_what_pickle_reads(tmp_path: Path) -> None:
    shared = (1, -70_000, 2.5, "text", None, True, b"x")
    value = {"a": [shared, shared, ()], (1,): {}, "big": 2**40}
    assert read_plain(written(tmp_path / "plain.pkl", value)) == value
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.zeros(0, np.float32)):
        read = read_plain(written(tmp_path / "array.pkl", [array]))[0].value
        assert (read.dtype, read.tolist()) == (array.dtype, array.tolist())
