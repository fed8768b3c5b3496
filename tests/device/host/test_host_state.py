"""What is said of this computer before it is timed on, from trees of files as Linux writes them, and as it doesn't."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from amc_latency.device.conditions import measured_by
from amc_latency.device.host.host_state import (
    HostConditions,
    HostState,
    busy_pct,
    host_conditions,
    host_state,
    on_battery,
    quota_cores,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device.host.test_host_cores import HYBRID, per_core, tree

CGROUP = "sys/fs/cgroup"
CPU = "sys/devices/system/cpu"
SUPPLY = "sys/class/power_supply"
QUIET_DESKTOP: dict[str, object] = {
    "proc/self/cgroup": "0::/user.slice/app.scope",
    f"{CGROUP}/user.slice/app.scope/cpu.max": "max 100000",
    "proc/stat": "cpu  0 0 0 400 0 0 0 0\ncpu0 0 0 0 100 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0",
    f"{CPU}/intel_pstate/no_turbo": 0,
    **per_core("topology/thread_siblings_list", ["0,2", "1,3", "0,2", "1,3"]),
    **per_core("cpufreq/scaling_governor", ["performance"] * 4),
    **per_core("cpufreq/scaling_cur_freq", [4_600_000] * 4),
    **per_core("cpufreq/scaling_max_freq", [4_700_000] * 4),
    **per_core("cpufreq/cpuinfo_max_freq", [4_700_000] * 4),
    **per_core("cpufreq/cpuinfo_min_freq", [800_000] * 4),
    f"{SUPPLY}/hidpp_battery_0/type": "Battery",
    f"{SUPPLY}/hidpp_battery_0/scope": "Device",
    f"{SUPPLY}/hidpp_battery_0/status": "Discharging",
}


def state(
    root: Path, files: dict[str, object], cores: Sequence[int] = (0, 1), threads: int = 1, workers: Sequence[int] = ()
) -> HostState:
    return host_state(cores, threads, workers, tree(root, files), wait=lambda: None)


def the_line(found: HostState) -> str:
    (line,) = found.lines
    return line


def test_a_quiet_desktop_is_not_worth_a_line(tmp_path: Path) -> None:
    assert state(tmp_path, QUIET_DESKTOP) == HostState(
        HostConditions(core=1, governor="performance", khz=4_600_000, turbo=True), ()
    )


def test_nor_is_a_virtual_machine_that_says_nothing(tmp_path: Path) -> None:
    files = per_core("cpu_capacity", [1024, 1024]) | per_core("topology/thread_siblings_list", [0, 1])
    assert state(tmp_path, files, threads=2) == HostState(HostConditions(core=1), ())
    assert state(tmp_path / "nothing", {}, cores=()) == HostState(HostConditions(), ())


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({f"{CGROUP}/cpu.max": "50000 100000"}, 0.5),
        ({f"{CGROUP}/cpu.max": "150000"}, 1.5),
        ({f"{CGROUP}/cpu.max": "max 100000"}, None),
        ({f"{CGROUP}/cpu.max": "max"}, None),
        # The smallest of the process's own and those around it, wherever it stands.
        ({"proc/self/cgroup": "0::/a/b", f"{CGROUP}/a/cpu.max": "30000 20000"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b", f"{CGROUP}/a/cpu.max": "9 1", f"{CGROUP}/a/b/cpu.max": "8 1"}, 8),
        ({"proc/self/cgroup": "0::/a/b", f"{CGROUP}/a/cpu.max": "7 1", f"{CGROUP}/a/b/cpu.max": "8 1"}, 7),
        ({"proc/self/cgroup": "0::/a", f"{CGROUP}/other/cpu.max": "1 1"}, None),
        ({"proc/self/cgroup": "0::/../other", f"{CGROUP}/cpu.max": "2 1", f"{CGROUP}/../other/cpu.max": "1 1"}, 2),
        # Version 1: each controller has its own tree, and -1 is no limit.
        (
            {
                "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/docker/0a\n0::/",
                f"{CGROUP}/cpu,cpuacct/docker/0a/cpu.cfs_quota_us": 25_000,
                f"{CGROUP}/cpu,cpuacct/docker/0a/cpu.cfs_period_us": 100_000,
                f"{CGROUP}/cpu,cpuacct/cpu.cfs_quota_us": -1,
                f"{CGROUP}/cpu,cpuacct/cpu.cfs_period_us": 100_000,
            },
            0.25,
        ),
        # In a container the path is often the host's, and the quota lies at the top.
        (
            {
                "proc/self/cgroup": "1:cpu:/docker/0a",
                f"{CGROUP}/cpu/cpu.cfs_quota_us": 200_000,
                f"{CGROUP}/cpu/cpu.cfs_period_us": 50_000,
            },
            4,
        ),
        ({"proc/self/cgroup": "2:cpuset:/a", f"{CGROUP}/cpu.max": "1 1"}, None),
        ({f"{CGROUP}/cpu.max": "0 100000"}, None),
        ({f"{CGROUP}/cpu.max": "100000 0"}, None),
        ({f"{CGROUP}/cpu.max": "-1 100000"}, None),
    ],
)
def test_quotas(tmp_path: Path, files: dict[str, object], quota: float | None) -> None:
    assert quota_cores(tree(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("quota", "threads", "workers", "says"),
    [
        ("50000 100000", 1, (), ["0.5 of a core, and 1 thread is timed", "--cpus 1)", "thread CPU time does not"]),
        ("100000 100000", 1, (), None),
        ("150000 100000", 2, (), ["1.5 cores, and 2 threads are timed", "--cpus 2)"]),
        ("200000 100000", 2, (), None),
        ("100000 100000", 1, (0, 1), ["1 core, and 2 workers are timed", "--cpus 2)"]),
    ],
)
def test_a_quota_below_the_threads(
    tmp_path: Path, quota: str, threads: int, workers: Sequence[int], says: list[str] | None
) -> None:
    found = state(tmp_path, {f"{CGROUP}/cpu.max": quota}, threads=threads, workers=workers)
    assert found.conditions.quota_cores == int(quota.split()[0]) / 100_000
    if says is None:
        assert found.lines == ()
    else:
        assert [part for part in says if part not in the_line(found)] == []


def test_several_threads_cannot_be_judged_by_thread_time(tmp_path: Path) -> None:
    one, two = (state(tmp_path, {f"{CGROUP}/cpu.max": "1 2"}, threads=threads) for threads in (1, 2))
    assert the_line(one).endswith("or judge by thread CPU time")
    assert the_line(two).endswith("(docker run --cpus 2)")


def test_fewer_cores_than_threads(tmp_path: Path) -> None:
    line = the_line(state(tmp_path, {}, threads=4))
    assert line.startswith("4 threads are timed and this process may use 2 cores: they are not pinned")
    assert "Take at most 2" in line
    assert "may use 1 core:" in the_line(state(tmp_path, {}, cores=[3], threads=2))


def test_two_hyper_threads_of_one_core(tmp_path: Path) -> None:
    line = the_line(state(tmp_path, QUIET_DESKTOP, cores=[2, 0, 3, 1], threads=3))
    assert line.startswith("cores 1 and 3 are hyper-threads of one core and share its hardware")
    assert line.endswith("Take at most 2 threads")
    line = the_line(state(tmp_path, QUIET_DESKTOP, cores=[0, 1, 2, 3], threads=4))
    assert line.startswith("cores 0 and 2; 1 and 3 are hyper-threads of one core each")
    assert state(tmp_path, QUIET_DESKTOP, cores=[2, 3, 0, 1], threads=2).lines == ()


def test_workers_on_hyper_threads_hear_of_it_once(tmp_path: Path) -> None:
    files = QUIET_DESKTOP | {f"{CPU}/intel_pstate/no_turbo": 1}
    first = state(tmp_path, files, cores=[0, 2, 3, 1], workers=[1, 3])
    assert first.lines == ()
    shared, turbo = state(tmp_path, files, cores=[0, 2, 1, 3], workers=[1, 3]).lines
    assert shared.startswith("cores 1 and 3 are hyper-threads of one core")
    assert shared.endswith("Take at most 2 workers")
    assert turbo.startswith("turbo is switched off")


@pytest.mark.parametrize("governor", ["powersave", "ondemand", "schedutil"])
def test_a_clock_that_moves(tmp_path: Path, governor: str) -> None:
    files = QUIET_DESKTOP | {f"{CPU}/cpu1/cpufreq/scaling_governor": governor}
    found = state(tmp_path, files)
    assert found.conditions.governor == governor
    assert f"{governor} moves the clock of core 1 between 0.8 and 4.7 GHz" in the_line(found)
    assert state(tmp_path, files, cores=[1, 0]).lines == ()


def test_a_clock_that_is_held_down(tmp_path: Path) -> None:
    files = QUIET_DESKTOP | {f"{CPU}/cpu1/cpufreq/scaling_max_freq": 2_000_000}
    assert "clock of core 1 is limited to 2 of 4.7 GHz" in the_line(state(tmp_path, files))


@pytest.mark.parametrize(
    ("name", "value", "on"),
    [
        ("intel_pstate/no_turbo", 1, False),
        ("intel_pstate/no_turbo", 0, True),
        ("cpufreq/boost", 0, False),
        ("cpufreq/boost", 1, True),
        ("cpufreq/boost", "garbage", None),
    ],
)
def test_turbo(tmp_path: Path, name: str, value: object, on: bool | None) -> None:
    found = state(tmp_path, {f"{CPU}/{name}": value})
    assert found.conditions.turbo is on
    assert [line[:22] for line in found.lines] == (["turbo is switched off:"] if on is False else [])


@pytest.mark.parametrize(
    ("supplies", "battery"),
    [
        ({"BAT0": ("Battery", "Discharging"), "AC": ("Mains", "0")}, True),
        ({"BAT0": ("Battery", "Discharging")}, True),
        ({"AC": ("Mains", "0")}, True),
        ({"BAT0": ("Battery", "Full"), "AC": ("Mains", "1")}, False),
        ({"BAT0": ("Battery", "Not charging")}, False),
        # At the limit of its charge, or with a weak supply.
        ({"BAT0": ("Battery", "Discharging"), "AC": ("Mains", "1")}, False),
        ({"BAT0": ("Battery", "Charging"), "usb1": ("USB", "1"), "usb2": ("USB", "0")}, False),
        ({"BAT0": ("Battery", "Discharging"), "usb1": ("USB", "0")}, True),
        ({"BAT0": ("Battery", "Unknown")}, None),
        ({"ups": ("UPS", "1")}, None),
        ({}, None),
    ],
)
def test_power(tmp_path: Path, supplies: dict[str, tuple[str, str]], battery: bool | None) -> None:
    for name, (kind, value) in supplies.items():
        values = {"type": kind, "status" if kind == "Battery" else "online": value}
        tree(tmp_path, {f"{SUPPLY}/{name}/{key}": text for key, text in values.items()})
    assert on_battery(tmp_path) is battery
    lines = state(tmp_path, {}).lines
    assert [line[:32] for line in lines] == (["this computer runs on battery, w"] if battery else [])


@pytest.mark.parametrize(
    ("cores", "threads", "workers", "begins", "ends"),
    [
        ([0, 4, 1, 3], 1, (), "core 3 is timed (P-core); an app on", "4-7 (E-core), takes longer"),
        ([0, 4, 1, 3], 2, (), "cores 1, 3 are timed (P-core)", "takes longer"),
        (
            [4, 5],
            1,
            (),
            "core 5 is timed (E-core), which is slower than cores 0-3 of",
            "--cpuset-cpus) to time the fastest",
        ),
        ([0, 4], 1, (), "core 4 is timed (E-core), which is slower", "the program to time the fastest"),
        ([0, 4, 1, 3], 3, (), "threads are timed on cores of different speed: 1, 3 (P-core), 4 (E-core)", "2 threads"),
        ([0, 4, 1, 3], 1, (4, 3), "workers are timed on cores of different speed: 3 (P-core), 4 (E", "1 worker"),
    ],
)
def test_kinds_of_cores(
    tmp_path: Path, cores: list[int], threads: int, workers: Sequence[int], begins: str, ends: str
) -> None:
    line = the_line(state(tmp_path, HYBRID, cores, threads, workers))
    assert line.startswith(begins)
    assert line.endswith(ends)


def test_the_kind_is_a_condition(tmp_path: Path) -> None:
    tree(tmp_path, HYBRID)
    assert [host_conditions(core, tmp_path).core_kind for core in (0, 7, 9)] == ["P-core", "E-core", None]


def jiffies(*cores: str) -> str:
    return (
        "cpu  1 2 3 4 5 6 7 8 9 10\n" + "".join(f"cpu{core} {cells}\n" for core, cells in enumerate(cores)) + "intr 5 0"
    )


def test_how_busy_a_core_is(tmp_path: Path) -> None:
    # user nice system idle iowait irq softirq steal guest guest_nice
    before = jiffies("100 0 0 100 0 0 0 0 50 0", "7 0 0 5 0 0 0 0 0 0", "1 1 1 1 1 1 1 1 0 0", "0 0 0 9")
    after = jiffies("105 0 0 115 0 0 0 0 90 0", "7 0 0 10 5 0 0 0 0 0", "1 2 2 1 2 2 2 6 0 0", "0 0 0 9")
    tree(tmp_path, {"proc/stat": before})
    found = busy_pct(range(5), tmp_path, lambda: tree(tmp_path, {"proc/stat": after}))
    # 5 of 20; 0 of 10; 9 of 10.
    assert found == {0: 25, 1: 0, 2: 90}


def test_a_clock_that_stands_still_or_runs_back_says_nothing(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/stat": jiffies("9 0 0 9 9", "9 0 0 9 9", "9 0 0 9 9")})
    after = jiffies("9 0 0 9 9", "8 0 0 20 9", "20 0 0 9 3")
    assert busy_pct(range(3), tmp_path, lambda: tree(tmp_path, {"proc/stat": after})) == {}


@pytest.mark.parametrize(
    ("after", "workers", "says"),
    [
        ("0 0 0 71|29 0 0 71|0 0 0 71|0 0 0 71", (), None),
        ("70 0 0 30|0 0 0 71|0 0 0 71|0 0 0 71", (), None),
        ("0 0 0 71|20 0 12 68|0 0 0 71|0 0 0 71", (), "core 1 is 32 % busy with other work"),
        ("0 0 0 71|0 0 0 71|0 0 0 71|50 0 0 50", (), "core 3, a hyper-thread of a core that is timed, is 50 % busy"),
        # Another worker.
        ("0 0 0 71|0 0 0 71|0 0 0 71|50 0 0 50", (3, 0), None),
    ],
)
def test_other_work_on_the_core(tmp_path: Path, after: str, workers: Sequence[int], says: str | None) -> None:
    """Of cores 0 and 2, 1 and 3, which are hyper-threads of one, core 1 is timed."""
    files = QUIET_DESKTOP | {"proc/stat": jiffies(*["0 0 0 0 0"] * 4)}
    later = jiffies(*(f"{cells} 0" for cells in after.split("|")))
    root = tree(tmp_path, files)
    found = host_state([0, 1], 1, workers, root, wait=lambda: tree(root, {"proc/stat": later}))
    assert [line.split(":")[0][: len(says or "")] for line in found.lines] == ([] if says is None else [says])


def test_nobody_waits_where_the_load_is_not_to_be_had(tmp_path: Path) -> None:
    def wait() -> None:
        raise AssertionError("waited")

    assert busy_pct([0], tmp_path, wait) == {}
    assert busy_pct([9], tree(tmp_path, {"proc/stat": jiffies("0 0 0 0 0")}), wait) == {}


def test_conditions_hold_what_is_known(tmp_path: Path) -> None:
    files = QUIET_DESKTOP | {
        f"{CGROUP}/cpu.max": "400000 100000",
        f"{SUPPLY}/AC/type": "Mains",
        f"{SUPPLY}/AC/online": 1,
    }
    text = host_conditions(1, tree(tmp_path, files)).text
    assert json.loads(text) == {
        "core": 1,
        "governor": "performance",
        "khz": 4_600_000,
        "turbo": True,
        "quota_cores": 4,
        "on_battery": False,
    }
    assert measured_by(text) == "core 1"
    assert host_conditions(None, tmp_path / "nothing").text == "{}"


EVERYTHING = (
    HYBRID | QUIET_DESKTOP | {f"{SUPPLY}/AC/type": "Mains", f"{SUPPLY}/AC/online": 1, f"{CPU}/cpu0/cpu_capacity": 9}
)
NONSENSE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"\n", b"max", b"max max", b"-1", b"0", b"9" * 5000, b"0-99999999", b"0::/a\0b", b"0::" + b"/x" * 5000]
    ),
    st.text("0123456789-, \n:/.cpu", max_size=40).map(str.encode),
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of all files, which is left as it was: making it takes longer than reading it."""
    return tree(tmp_path_factory.mktemp("everything"), EVERYTHING)


@settings(max_examples=150, deadline=None)
@given(contents=st.dictionaries(st.sampled_from(sorted(EVERYTHING)), NONSENSE), threads=st.integers(1, 5))
def test_no_file_is_an_error_whatever_it_holds(everything: Path, contents: dict[str, bytes], threads: int) -> None:
    try:
        for name, content in contents.items():
            (everything / name).write_bytes(content)
        found = host_state(range(4), threads, (), everything, wait=lambda: None)
    finally:
        tree(everything, {name: EVERYTHING[name] for name in contents})
    assert found.conditions.core == 3
    assert all("\n" not in line and line.isprintable() for line in found.lines)
    assert json.loads(found.conditions.text)["core"] == 3


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_no_file_is_missed(tmp_path: Path, name: str) -> None:
    """Gone, a folder in its place, or a link to itself, which no one can read, root neither."""
    path = tree(tmp_path, EVERYTHING) / name
    path.unlink()
    gone = host_state(range(4), 2, (), tmp_path, wait=lambda: None)
    path.mkdir()
    assert host_state(range(4), 2, (), tmp_path, wait=lambda: None) == gone
    path.rmdir()
    path.symlink_to(path)
    assert host_state(range(4), 2, (), tmp_path, wait=lambda: None) == gone


def test_this_computer_has_a_state() -> None:
    found = host_state([0], wait=lambda: None)
    assert found.conditions.core == 0
