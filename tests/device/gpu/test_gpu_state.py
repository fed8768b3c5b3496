"""What `nvidia-smi` prints, read; and what of it makes a timing suspect."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceError
from amc_latency.device.conditions import measured_by, suspicions
from amc_latency.device.gpu.gpu_state import (
    GpuProcess,
    GpuState,
    GpuWatch,
    NvidiaSmi,
    conditions_of,
    parse_processes,
    parse_state,
)
from hypothesis import given
from hypothesis import strategies as st

UUID = "GPU-0a1b2c3d-1111-2222-3333-444455556666"
H100 = f"{UUID}, 550.54.15, 1980, 2619, 34, 0, Disabled, 0x0000000000000001"
TITAN = f"{UUID}, 470.82.01, 1404, 5508, 84, 99, [N/A], 0x0000000000000024"


def test_states() -> None:
    assert parse_state(H100) == GpuState(UUID, "550.54.15", 1980, 2619, 34, 0, False, ("idle",))
    hot = parse_state(TITAN)
    assert (hot.sm_mhz, hot.temperature_c, hot.mig) == (1404, 84, False)
    assert hot.slowed_by == hot.reasons == ("power cap", "thermal slowdown")


@pytest.mark.parametrize("unknown", ["[N/A]", "[Not Supported]", "[Unknown Error]", "[GPU requires reset]"])
def test_what_a_gpu_does_not_say(unknown: str) -> None:
    state = parse_state(f"{UUID}, 550.54.15, {', '.join([unknown] * 4)}, Enabled, {unknown}")
    assert (state.sm_mhz, state.memory_mhz, state.temperature_c, state.utilization_pct) == (None,) * 4
    assert state.mig
    assert state.reasons == ()


@given(st.integers(0, 0x1FF))
def test_each_bit_is_a_reason(mask: int) -> None:
    state = parse_state(H100.replace("0x0000000000000001", f"0x{mask:016x}"))
    assert len(state.reasons) == mask.bit_count()
    # Idle, the user's own clocks and the display's are no fault.
    assert len(state.slowed_by) == (mask & ~(0x1 | 0x2 | 0x100)).bit_count()


@given(st.text())
def test_what_is_no_state_is_an_error(text: str) -> None:
    try:
        state = parse_state(text)
    except ValueError:
        return
    assert text.count(",") == 7
    assert isinstance(state.mig, bool)


@given(st.lists(st.tuples(st.integers(1, 1 << 22), st.from_regex(r"[!-~]([ -~]{0,30}[!-~])?", fullmatch=True))))
def test_processes(processes: list[tuple[int, str]]) -> None:
    text = "".join(f"{pid}, {name}\n" for pid, name in processes)
    assert parse_processes(text) == [GpuProcess(pid, name) for pid, name in processes]


def test_nobody_is_no_process() -> None:
    assert parse_processes("") == parse_processes("No running processes found\n") == []


def test_the_conditions_of_a_row() -> None:
    before, after = parse_state(H100), parse_state(H100.replace("1980", "1755").replace(", 34,", ", 61,"))
    row = conditions_of([before, after], "CUDA graph of 12", True, [], UUID)
    assert (row.sm_mhz, row.memory_mhz, row.temperature_c) == ((1980, 1755), (2619, 2619), (34, 61))
    assert (row.clocks_set, row.suspect) == (False, ())
    assert measured_by(row.text) == UUID
    assert suspicions(row.text) == []
    assert json.loads(row.text)["flags"] == "CUDA graph of 12"


def test_what_makes_a_row_suspect() -> None:
    cool = parse_state(H100)
    # In the middle only.
    row = conditions_of([cool, parse_state(TITAN), cool], "3 plain launches", False, [GpuProcess(7, "python3")], UUID)
    assert suspicions(row.text) == [
        "slowed by power cap",
        "slowed by thermal slowdown",
        "shared with python3 (7)",
        "launched without a CUDA graph",
    ]


def test_clocks_that_the_user_has_set() -> None:
    row = conditions_of([parse_state(H100.replace("01", "02"))], "", True, [], UUID)
    assert row.clocks_set
    assert row.suspect == ()


def test_without_an_answer_nothing_is_said() -> None:
    row = conditions_of([], "CUDA graph of 1", True, [], None)
    assert set(json.loads(row.text)) == {"flags", "time_s"}


def program(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> NvidiaSmi:
    """An `nvidia-smi` that is a shell script."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return NvidiaSmi(UUID)


def test_the_program_is_asked_for_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = program(
        tmp_path,
        f'[ "$1" = --id={UUID} ] || exit 6\n'
        f'case "$2" in *compute-apps*) echo "12, a, b";; *query-gpu*) echo "{H100}";; esac',
        monkeypatch,
    )
    assert smi.state() == parse_state(H100)
    assert smi.processes() == [GpuProcess(12, "a, b")]


def test_an_older_driver_is_asked_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = program(
        tmp_path,
        'case "$2" in *clocks_event_reasons*) echo "Field is not a valid field to query."; exit 2;; '
        f'*throttle_reasons.active) echo "{TITAN}";; esac',
        monkeypatch,
    )
    assert smi.state().sm_mhz == 1404
    assert smi.state().sm_mhz == 1404


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'No devices were found'; exit 6", "failed with 6: No devices were found"),
        ("echo garbage", "no state of a GPU: 'garbage'"),
        ("true", "no state of a GPU: ''"),
    ],
)
def test_a_program_without_an_answer(script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=says):
        program(tmp_path, script, monkeypatch).state()


def test_a_program_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"nvidia-smi does not answer: .*No such file"):
        NvidiaSmi(UUID).state()
    with GpuWatch(NvidiaSmi(UUID)) as watch:
        assert watch.since(time.monotonic()) == []


def test_a_watch_sees_what_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Hot every second time.
    smi = program(
        tmp_path,
        f'cd {tmp_path}; if [ -e hot ]; then rm hot; echo "{TITAN}"; else touch hot; echo "{H100}"; fi',
        monkeypatch,
    )
    with GpuWatch(smi, every_s=0.01) as watch:
        began_s = time.monotonic()
        while len(watch.since(began_s)) < 4:
            time.sleep(0.01)
        states = watch.since(began_s)
        assert 1 <= len(watch.since(time.monotonic())) < len(states)
    assert {states[0].sm_mhz, states[1].sm_mhz} == {1980, 1404}
    assert [state.sm_mhz for state in states[2:]] == [state.sm_mhz for state in states[:-2]]
    seen = len(watch.since(began_s))
    time.sleep(0.1)
    assert len(watch.since(began_s)) == seen, "the watch goes on"
