"""What a phone says of itself: the commands in real shells over a made-up phone, and what the parsers refuse."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest
from amc_latency.android_bench.phone.settings import (
    FormerSettings,
    parse_prepared,
    parse_restored,
    prepare_command,
    restore_command,
)
from amc_latency.android_bench.phone.state import (
    INFO_COMMAND,
    STATE_COMMAND,
    TOPOLOGY_COMMAND,
    Cluster,
    PhoneInfo,
    PhoneState,
    parse_info,
    parse_state,
    parse_topology,
    parse_values,
    values_command,
    zone_c,
)
from amc_latency.android_bench.runner import ParseError
from hypothesis import given
from hypothesis import strategies as st

GETPROP = """case "$1" in
ro.product.model) echo "Pixel 8";; ro.product.manufacturer) echo Google;; ro.product.device) echo shiba;;
ro.soc.model) echo "Tensor G3";; ro.board.platform) echo zuma;; ro.build.version.release) echo 14;;
ro.build.version.sdk) echo 34;; ro.product.cpu.abi) echo arm64-v8a;;
ro.build.fingerprint) echo google/shiba/shiba:14/UD1A.230803.041/10808477:user/release-keys;; *) echo "";; esac"""
# As Android 14 words it; makers add lines of their own, here the last two. AP is Samsung's name of the processor.
DUMPSYS = """case "$1" in
battery) printf 'Current Battery Service state:\\n  AC powered: false\\n  USB powered: true
  Max charging current: 500000
  level: 83\\n  scale: 100\\n  temperature: 293\\n  technology: Li-ion\\n  batteryMiscEvent: 0\\n  level: 12\\n';;
thermalservice) printf 'IsStatusOverride: false\\nThermal Status: 1\\nCached temperatures:
\\tTemperature{mValue=84.208, mType=0, mName=BIG, mStatus=0}
\\tTemperature{mValue=83.5, mType=0, mName=remembered, mStatus=0}\\nHAL Ready: true\\nCurrent temperatures from HAL:
\\tTemperature{mValue=41.2, mType=0, mName=BIG, mStatus=0}
\\tTemperature{mValue=38.5, mType=0, mName=AP, mStatus=0}
\\tTemperature{mValue=37.5, mType=0, mName=CPU0, mStatus=0}
\\tTemperature{mValue=NaN, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
\\tTemperature{mValue=31.75, mType=2, mName=battery, mStatus=0}\\nCurrent cooling devices from HAL:\\n';;
esac"""
SETTINGS = """f=$STORE/$3
case $1 in get) [ -e $f ] && cat $f || echo null;; put) echo $4 > $f;; delete) rm -f $f;; esac"""
SHELLS = ["sh", "bash", "mksh"]

Say = Callable[[str], str]


def write_program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """A phone's files: 4 slow cores, 2 fast ones of which one is offline, and 2 more with the fast ones' frequency."""
    for number, khz, capacity in [
        (0, 1704000, 200), (1, 1704000, 200), (2, 1704000, 200), (3, 1704000, 200),
        (4, 2914000, 1024), (5, 2914000, 1024), (6, 2914000, 800), (7, 2914000, 800),
    ]:  # fmt: skip
        core = tmp_path / f"sys/devices/system/cpu/cpu{number}"
        (core / "cpufreq").mkdir(parents=True)
        (core / "cpu_capacity").write_text(f"{capacity}\n")
        if number:
            (core / "online").write_text("0\n" if number == 5 else "1\n")
        (core / "cpufreq/cpuinfo_max_freq").write_text(f"{khz}\n")
        (core / "cpufreq/scaling_cur_freq").write_text(f"{khz // 2}\n")
        (core / "cpufreq/scaling_max_freq").write_text(f"{khz}\n")
    (tmp_path / "sys/devices/system/cpu/cpufreq").mkdir()
    for number, (name, temp) in enumerate(
        [("BIG", "45120"), ("tsens_tz_sensor1", "412"), ("pa", "-273000"), ("cpu-0-0", "38000"), ("cpu-0-0", "40100")]
    ):
        zone = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{name}\n")
        (zone / "temp").write_text(f"{temp}\n")
    (tmp_path / "real").mkdir()
    (tmp_path / "data/local").mkdir(parents=True)
    (tmp_path / "data/local/tmp").symlink_to(tmp_path / "real")
    (tmp_path / "system/bin").mkdir(parents=True)
    (tmp_path / "system/bin/linker64").touch()
    write_program(tmp_path / "bin", "getprop", GETPROP)
    write_program(tmp_path / "bin", "dumpsys", DUMPSYS)
    write_program(tmp_path / "bin", "settings", SETTINGS)
    (tmp_path / "store").mkdir()
    return tmp_path


def run(root: Path, command: str, shell: str = "sh", path: str | None = None) -> str:
    """What `command` prints where `root` is the phone's root folder."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here: apt-get install {shell}")
    rooted = re.sub(r"(?<!\w)/(?=(sys|data|system)/)", f"{root}/", command)
    env = {"PATH": path or f"{root}/bin:{os.environ['PATH']}", "STORE": str(root / "store")}
    done = subprocess.run([program, "-c", rooted], capture_output=True, text=True, env=env, timeout=30)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_a_phone_is_read(phone: Path, shell: str) -> None:
    write_program(phone / "real", "benchmark_model_arm64", "true")
    (phone / "real/benchmark_model.txt").touch()
    assert parse_info(run(phone, INFO_COMMAND, shell)) == PhoneInfo(
        model="Pixel 8",
        manufacturer="Google",
        device="shiba",
        soc="Tensor G3",
        platform="zuma",
        android="14",
        sdk=34,
        abi="arm64-v8a",
        fingerprint="google/shiba/shiba:14/UD1A.230803.041/10808477:user/release-keys",
        bionic=True,
        temporary=str((phone / "real").resolve()),
        missing=tuple(name for name in ("setsid", "sha256sum", "timeout", "taskset") if shutil.which(name) is None),
        benchmark_models=(f"{phone}/data/local/tmp/benchmark_model_arm64",),
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_its_cores_are_read(phone: Path, shell: str) -> None:
    topology = parse_topology(run(phone, TOPOLOGY_COMMAND, shell))
    assert topology.clusters == (
        Cluster((4,), 2914000), Cluster((6, 7), 2914000), Cluster((0, 1, 2, 3), 1704000),
    )  # fmt: skip
    fourth = next(core for core in topology.cores if core.number == 4)
    assert fourth.cur_path is not None
    assert fourth.limit_path is not None
    assert Path(fourth.cur_path).read_text() == "1457000\n"
    assert Path(fourth.limit_path).read_text() == "2914000\n"
    assert topology.offline == (5,)


@pytest.mark.parametrize("shell", SHELLS)
def test_numbers_in_files_are_read(phone: Path, shell: str) -> None:
    (phone / "odd name's").write_text("performance\n")
    (phone / "last").write_text("12")
    names = ["sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "missing", "odd name's", "last"]
    command = values_command(f"{phone}/{name}" for name in names)
    assert parse_values(run(phone, command, shell), 4) == [1704000, None, None, 12]
    with pytest.raises(ParseError, match=r"'value=12' where the end"):
        parse_values(run(phone, command, shell), 3)
    assert parse_values(run(phone, values_command([]), shell), 0) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_its_state_is_read(phone: Path, shell: str) -> None:
    state = parse_state(run(phone, STATE_COMMAND, shell))
    # Of two zones with a name the hotter counts; -273 degrees is none; and none of what the service only remembers.
    sensors_c = {"cpu BIG": 41.2, "cpu AP": 38.5, "CPU0": 37.5, "battery": 31.75}
    zones_c = {**sensors_c, "BIG": 45.12, "tsens_tz_sensor1": 41.2, "cpu-0-0": 40.1}
    assert state == PhoneState(state.time_s, 83, 29.3, True, 1, zones_c)
    assert state.time_s is not None
    assert state.time_s > 1_700_000_000


@pytest.mark.parametrize("shell", SHELLS)
def test_a_makers_backslash_adds_no_line(phone: Path, shell: str) -> None:
    write_program(
        phone / "bin",
        "dumpsys",
        """cat <<'END'
  level: 83\\n\\c
  temperature: 293
\tTemperature{mValue=41.2, mType=3, mName=a\\nb, mStatus=0}
Thermal Status: 2
END""",
    )
    state = parse_state(run(phone, STATE_COMMAND, shell))
    assert (state.battery_pct, state.battery_c, state.thermal_status) == (None, 29.3, 2)


def test_the_commands_run_with_toybox_alone(phone: Path) -> None:
    toybox = shutil.which("toybox")
    if toybox is None:
        pytest.skip("no toybox here: apt-get install toybox")
    for name in ("uname", "date", "cat", "rm"):
        (phone / "bin" / name).symlink_to(toybox)
    path = str(phone / "bin")
    info = parse_info(run(phone, INFO_COMMAND, "mksh", path))
    assert (info.model, info.missing) == ("Pixel 8", ("setsid", "sha256sum", "timeout", "taskset"))
    assert len(parse_topology(run(phone, TOPOLOGY_COMMAND, "mksh", path)).cores) == 7
    assert parse_state(run(phone, STATE_COMMAND, "mksh", path)).time_s


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_missing_is_unknown(tmp_path: Path, shell: str) -> None:
    info = parse_info(run(tmp_path, INFO_COMMAND, shell))
    machine = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}.get(os.uname().machine)
    assert (info.model, info.sdk, info.abi, info.bionic, info.temporary) == (None, None, machine, False, None)
    assert info.title == "a phone without a name"
    assert parse_topology(run(tmp_path, TOPOLOGY_COMMAND, shell)).clusters == ()
    state = parse_state(run(tmp_path, STATE_COMMAND, shell))
    assert state == PhoneState(time_s=state.time_s)


def test_a_core_that_says_nothing_is_still_a_core(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"sys/devices/system/cpu/cpu{number}").mkdir(parents=True)
    topology = parse_topology(run(tmp_path, TOPOLOGY_COMMAND))
    assert topology.clusters == (Cluster((0, 1), None),)
    assert topology.cores[0].cur_path is None


def test_it_leaves_the_script_around_it_alone(phone: Path) -> None:
    """A script of the phone's embeds the command as a function."""
    text = run(phone, f'n=7; IFS=,; state() {{\n{STATE_COMMAND}\n}}\nstate >/dev/null; echo "$n$IFS"')
    assert text == "7,\n"


@pytest.mark.parametrize(
    ("value", "celsius"),
    [(45120, 45.12), (412, 41.2), (41, 41.0), (125, 125.0), (126, 12.6), (0, 0.0), (-5000, -5.0)]
    + [(value, None) for value in (-273000, -274, 200001, 2147483647)],
)
def test_a_zone_means_degrees(value: int, celsius: float | None) -> None:
    assert zone_c(value) == celsius


@pytest.mark.parametrize("former", ["null", "0", "3"])
@pytest.mark.parametrize("shell", SHELLS)
def test_settings_come_back_as_they_were(phone: Path, shell: str, former: str) -> None:
    write_program(phone / "bin", "cmd", 'echo "$@" >> $STORE/cmd')
    stored = phone / "store/stay_on_while_plugged_in"
    if former != "null":
        stored.write_text(f"{former}\n")
    record = f"{phone}/real/record"
    prepared = parse_prepared(run(phone, prepare_command(34, record), shell))
    assert prepared == FormerSettings(former, True)
    assert stored.read_text() == "7\n"
    assert parse_restored(run(phone, restore_command(prepared, record), shell)) == former
    assert (stored.read_text() == f"{former}\n") if former != "null" else not stored.exists()
    assert not Path(record).exists()
    modes = [f"power set-fixed-performance-mode-enabled {mode}\n" for mode in ("true", "false")]
    assert (phone / "store/cmd").read_text() == "".join(modes)


def test_a_killed_run_does_not_lose_the_former_setting(phone: Path) -> None:
    (phone / "store/stay_on_while_plugged_in").write_text("2\n")
    record = f"{phone}/real/record"
    run(phone, prepare_command(29, record))
    assert parse_prepared(run(phone, prepare_command(29, record))) == FormerSettings("2", False)


def test_a_mode_that_the_phone_lacks_is_not_turned_off(phone: Path) -> None:
    write_program(phone / "bin", "cmd", 'echo "Failed to set FIXED_PERFORMANCE mode" >&2; exit 255')
    prepared = parse_prepared(run(phone, prepare_command(34, f"{phone}/real/record")))
    assert prepared == FormerSettings("null", False)
    assert "set-fixed" not in restore_command(prepared, "record")


@pytest.mark.parametrize("why", ["no settings program", "the record cannot be written"])
def test_a_setting_that_could_not_be_kept_is_not_changed(phone: Path, why: str) -> None:
    record = f"{phone}/real/record"
    if why == "no settings program":
        (phone / "bin/settings").unlink()
    else:
        record = f"{phone}/missing/record"
    prepared = parse_prepared(run(phone, prepare_command(29, record)))
    assert prepared == FormerSettings(None, False)
    assert not (phone / "store/stay_on_while_plugged_in").exists()
    assert parse_restored(run(phone, restore_command(prepared, record))) is None


INFO = """model=Pixel 8\nmanufacturer=Google\ndevice=shiba\nsoc=Tensor G3\nplatform=zuma\nandroid=14\nsdk=34
abi=arm64-v8a\nfingerprint=google/shiba\nmachine=aarch64\nbionic=1\ntemporary=/data/local/tmp\nmissing=taskset\nend=13\n"""
TOPOLOGY = """core=/sys/devices/system/cpu/cpu10\nonline=1\nmax_khz=2150400\ncapacity=1024
cur_path=/sys/cur\nlimit_path=/sys/limit\nend=6\n"""
STATE = """time=1795281853\nbattery=  USB powered: true\nbattery=  level: 83\nbattery=  scale: 100
battery=  temperature: 293\nthermal=Thermal Status: 1\ncurrent=
sensor=\tTemperature{mValue=31.75, mType=2, mName=battery, mStatus=0}\nzone=BIG\ntemp=45120\nend=10\n"""
TEXTS = [(parse_info, INFO), (parse_topology, TOPOLOGY), (parse_state, STATE)]
texts = st.sampled_from(TEXTS)


def numbers(value: object) -> set[float]:
    """Every number in a dataclass's fields."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {value}
    if isinstance(value, dict):
        value = tuple(value.values())
    return set().union(*map(numbers, value)) if isinstance(value, tuple) else set()


@pytest.mark.parametrize(("parse", "text"), TEXTS)
def test_a_terminals_line_ends_mean_nothing(parse, text: str) -> None:
    assert parse(text.replace("\n", "\r\n")) == parse(text)
    assert parse(text.removesuffix("\n")) == parse(text)


@given(texts, st.data())
def test_text_that_is_cut_off_is_refused(case, data) -> None:
    parse, text = case
    end = data.draw(st.integers(0, len(text) - 2))
    with pytest.raises(ParseError, match=re.escape(text[:end].split("\n")[-1].replace("\t", r"\t")) or None):
        parse(text[:end])


@given(texts, st.data())
def test_a_lost_or_doubled_line_is_refused(case, data) -> None:
    parse, text = case
    lines = text.splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    for copies in (0, 2):
        with pytest.raises(ParseError):
            parse("".join(lines[:index] + copies * [lines[index]] + lines[index + 1 :]))


@given(texts, st.data())
def test_a_garbled_character_never_makes_another_number(case, data) -> None:
    parse, text = case
    index = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(exclude_characters="0123456789-.", codec="utf-8"))
    try:
        parsed = parse(text[:index] + other + text[index + 1 :])
    except ParseError:
        return
    assert numbers(astuple(parsed)) <= numbers(astuple(parse(text)))


@given(texts, st.text())
def test_other_text_is_refused_and_nothing_worse(case, text: str) -> None:
    with pytest.raises(ParseError):
        case[0](text)


@pytest.mark.parametrize(
    ("parse", "text", "old", "new", "quoted"),
    [
        (parse_info, INFO, "bionic=1", "bionic=2", "'2'"),
        (parse_info, INFO, "=/data", "=data", "data/local/tmp"),
        (parse_info, INFO, "missing=taskset", "missing=grep", "grep"),
        (parse_topology, TOPOLOGY, "cpu10\n", "cpu1o\n", "cpu1o"),
        (parse_topology, TOPOLOGY, "online=1", "online=yes", "yes"),
        (parse_state, STATE, "thermal=", "thermel=", "thermel=Thermal Status: 1"),
    ],
)
def test_nonsense_of_ours_is_quoted(parse, text: str, old: str, new: str, quoted: str) -> None:
    assert text.count(old) == 1
    with pytest.raises(ParseError, match=re.escape(quoted)):
        parse(text.replace(old, new))


@pytest.mark.parametrize(
    ("parse", "text", "old", "new", "name", "value"),
    [
        (parse_info, INFO, "sdk=34", "sdk=3x", "sdk", None),
        (parse_topology, TOPOLOGY, "=2150400", "=<unsupported>", "clusters", (Cluster((10,), None),)),
        (parse_state, STATE, "time=1", "time=:1", "time_s", None),
        (parse_state, STATE, "level: 83", "level: 183", "battery_pct", None),
        (parse_state, STATE, "level: 83", "level: -1", "battery_pct", None),
        # The battery's own line is odd, and the maker's, which follows, is about another.
        (parse_state, STATE, "83\nbattery=  scale: 100", "83 %\nbattery=  level: 12", "battery_pct", None),
        (parse_state, STATE, "temperature: 293", "temperature: 29.3", "battery_c", None),
        (parse_state, STATE, "powered: true", "powered: yes", "charging", None),
        (parse_state, STATE, "Status: 1", "Status: 9", "thermal_status", None),
        (parse_state, STATE, "temp=45120", "temp=45.1", "zones_c", {"battery": 31.75}),
        (parse_state, STATE, "mValue=31.75", "mValue=?", "zones_c", {"BIG": 45.12}),
        (parse_state, STATE, "mType=2", "mType=CPU", "zones_c", {"BIG": 45.12}),
        (parse_state, STATE, "mName=battery", "mName=", "zones_c", {"BIG": 45.12}),
        (parse_state, STATE, "2, mName=battery", "0, mName=", "zones_c", {"BIG": 45.12}),
        (parse_state, STATE, "2, mName=battery", "0, mName=MID", "zones_c", {"BIG": 45.12, "cpu MID": 31.75}),
    ],
)
def test_an_odd_line_of_anothers_is_unknown(parse, text: str, old: str, new: str, name: str, value: object) -> None:
    assert text.count(old) == 1
    assert getattr(parse(text.replace(old, new)), name) == value


BATTERY_LINES = ["  USB powered: true", "  level: 83", "  scale: 100", "  temperature: 293"]
SENSOR_LINE = "\tTemperature{mValue=31.75, mType=0, mName=AP, mStatus=0}"
one_line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30)


@st.composite
def odd_lines(draw, lines: list[str]) -> list[str]:
    """Some of these lines, with any text, or none, in place of some of theirs."""
    odd = []
    for line in draw(st.lists(st.sampled_from(lines), max_size=6)):
        start, end = sorted(draw(st.tuples(*2 * [st.integers(0, len(line))])))
        odd.append(line[:start] + draw(st.just(line[start:end]) | one_line) + line[end:])
    return odd


@given(odd_lines(BATTERY_LINES), odd_lines(["Thermal Status: 1"]), odd_lines([SENSOR_LINE]), one_line)
def test_whatever_others_print_a_phone_has_a_state(battery, statuses, sensors, temp) -> None:
    pairs = [("time", "1"), *(("battery", line) for line in battery), *(("thermal", line) for line in statuses)]
    pairs += [*(("sensor", line) for line in sensors), ("zone", "z"), ("temp", temp)]
    state = parse_state("\n".join([*(f"{key}={value}" for key, value in pairs), f"end={len(pairs)}"]))
    whole = {int(number) for line in [*battery, *statuses] for number in re.findall("-?[0-9]+", line)}
    decimal = {float(number) for line in sensors for number in re.findall("-?[0-9]+[.][0-9]+(?:E-?[0-9]+)?", line)}
    scales = {number for number in whole if number > 0} | {100}
    assert state.battery_pct in {None, *(100 * n // scale for n in whole for scale in scales if 0 <= n <= scale)}
    assert state.battery_c in {None, *(n / 10 for n in whole if -400 <= n <= 2000)}
    assert state.thermal_status in {None, *(n for n in whole if 0 <= n <= 6)}
    zone = state.zones_c.get("z")
    readings = {name: value for name, value in state.zones_c.items() if name != "z"}
    assert set(readings.values()) <= decimal
    assert zone is None or temp.lstrip("-").isdecimal()
