"""What is read of a phone through its transport, the cores that timings are pinned to, and settings put back."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.android_bench.phone.state import PhoneInfo, Topology, parse_topology
from amc_latency.device.adb.transport import CommandResult, Transport, TransportError
from amc_latency.device.base import DeviceError
from amc_latency.device.kinds import DeviceProfile
from amc_latency.device.phone.patient import PatientTransport
from amc_latency.device.phone.phone import Phone, Preparation, cores_of, read_info, read_state, read_topology
from amc_latency.device.profiles import get_profile

ANDROID = get_profile("android")
SETTINGS = """f=$STORE/$3
case $1 in get) [ -e $f ] && cat $f || echo null;; put) echo $4 > $f;; delete) rm -f $f;; esac"""
MISSING = ("setsid", "sha256sum", "timeout", "taskset")


class ShellPhone(Transport):
    """A shell of this computer that sees `root` as a phone's root folder."""

    serial = "SHELL1"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.connected = True
        self.closed = 0
        self.path = f"{root}/bin:{os.environ['PATH']}"
        for name in ("data/local/tmp", "bin", "store"):
            (root / name).mkdir(parents=True)
        for number, khz in enumerate([1600000, 1600000, 2150400, 2150400]):
            cpufreq = root / f"sys/devices/system/cpu/cpu{number}/cpufreq"
            cpufreq.mkdir(parents=True)
            for name in ("cpuinfo_max_freq", "scaling_cur_freq", "scaling_max_freq"):
                (cpufreq / name).write_text(f"{khz}\n")
        self.program("settings", SETTINGS)
        self.program("getprop", "case $1 in ro.product.model) echo Pixel;; ro.build.version.sdk) echo 29;; esac")
        for name in MISSING:
            self.program(name, "true")

    def program(self, name: str, script: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def connect(self) -> None:
        self.connected = True

    def run(self, command: str, timeout_s: float = 30.0) -> CommandResult:
        if not self.connected:
            raise TransportError("the cable was pulled")
        rooted = re.sub(r"(?<!\w)/(?=(sys|data/local|system)/)", f"{self.root}/", command)
        env = {"PATH": self.path, "STORE": str(self.root / "store")}
        shell = ["/bin/sh", "-c", rooted]
        done = subprocess.run(shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, timeout=30)
        return CommandResult(done.returncode, done.stdout)

    def push(self, files: Mapping[str, bytes], mode: int = 0o644) -> None:
        raise NotImplementedError

    def pull(self, path: str) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def shell(tmp_path: Path) -> ShellPhone:
    return ShellPhone(tmp_path / "phone")


@pytest.fixture
def stay_on(shell: ShellPhone) -> Path:
    path = shell.root / "store/stay_on_while_plugged_in"
    path.write_text("3\n")
    return path


def test_a_phone_is_read_through_its_transport(shell: ShellPhone) -> None:
    assert read_info(shell).model == "Pixel"
    assert [cluster.cores for cluster in read_topology(shell).clusters] == [(2, 3), (0, 1)]
    assert read_state(shell).battery_pct is None


def test_an_answer_that_makes_no_sense_names_the_phone(shell: ShellPhone) -> None:
    shell.program("getprop", "printf 'two\\nlines\\n'")
    # Nine properties of two lines each, where twelve lines are.
    with pytest.raises(DeviceError, match=f"SHELL1 cannot be understood: .* {12 + 9} lines before 'end=12'"):
        read_info(shell)


def topology_of(*cores: tuple[int, int], offline: Collection[int] = ()) -> Topology:
    """Cores as number and kHz."""
    lines = []
    for number, khz in cores:
        online = int(number not in offline)
        lines += [f"core=/cpu{number}", f"online={online}", f"max_khz={khz}", "capacity=", "cur_path=", "limit_path="]
    return parse_topology("\n".join([*lines, f"end={len(lines)}"]))


CORES = [*((n, 1700) for n in range(4)), *((n, 2370) for n in range(4, 7)), (7, 2910)]
EIGHT = topology_of(*CORES)


@pytest.mark.parametrize(
    ("cores", "threads", "chosen"),
    [("fastest", 1, (7,)), ("all", 8, tuple(range(8))), ((4, 5), 2, (4, 5)), ((0,), 1, (0,))],
)
def test_cores_are_chosen(cores, threads: int, chosen: tuple[int, ...]) -> None:
    assert cores_of(replace(ANDROID, cores=cores), EIGHT, threads) == chosen


def test_a_phone_that_hides_its_cores_is_not_pinned() -> None:
    assert cores_of(ANDROID, topology_of(), 4) == ()


@pytest.mark.parametrize(
    ("cores", "threads", "says"),
    [
        ("fastest", 2, "2 threads need 2 cores, and the fastest cluster has 1 (7)"),
        ("all", 9, "the phone has 8 (0, 1, 2"),
        ((4, 8), 1, "core 8, which is not online"),
    ],
)
def test_cores_that_cannot_be_had_are_refused(cores, threads: int, says: str) -> None:
    profile = replace(ANDROID, cores=cores)
    with pytest.raises(DeviceError, match=re.escape(says)):
        cores_of(profile, EIGHT, threads)


@pytest.mark.parametrize(("cores", "forced"), [("fastest", (4, 5)), ("all", (0, 1, 2, 3, 4, 5)), ((0, 1), (0, 1))])
def test_cores_that_sleep_are_not_replaced_by_slower_ones(cores, forced: tuple[int, ...]) -> None:
    profile, parked = replace(ANDROID, cores=cores), topology_of(*CORES, offline=(6, 7))
    assert cores_of(profile, parked, force=True) == forced
    if cores == (0, 1):
        assert cores_of(profile, parked) == forced
        return
    with pytest.raises(DeviceError, match=r"cores 6, 7 of the phone are offline.*wake the phone.*`force`") as caught:
        cores_of(profile, parked)
    assert "\n" not in str(caught.value)


def test_a_phone_with_a_core_offline_is_taken_by_force(shell: ShellPhone) -> None:
    (shell.root / "sys/devices/system/cpu/cpu3/online").write_text("0\n")
    with pytest.raises(DeviceError, match="core 3 of the phone is offline"):
        Phone(shell, ANDROID)
    assert Phone(shell, ANDROID, force=True).cores == (2,)


def test_threads_are_the_profiles_unless_told() -> None:
    profile = replace(ANDROID, protocol=replace(ANDROID.protocol, threads=2))
    with pytest.raises(DeviceError, match="2 threads"):
        cores_of(profile, EIGHT)


def test_settings_are_changed_once_and_put_back_once(shell: ShellPhone, stay_on: Path) -> None:
    preparation = Preparation(shell, read_info(shell))
    preparation.restore()
    assert stay_on.read_text() == "3\n"
    for _ in range(2):
        preparation.apply()
        assert stay_on.read_text() == "7\n"
    for _ in range(2):
        preparation.restore()
        assert stay_on.read_text() == "3\n"
        stay_on.write_text("3\n")
    assert list((shell.root / "data/local/tmp").iterdir()) == []


def test_our_own_setting_is_never_taken_for_the_users(shell: ShellPhone, stay_on: Path) -> None:
    preparation = Preparation(shell, read_info(shell))
    preparation.apply()
    (shell.root / "data/local/tmp/amc-latency.settings").unlink()
    preparation.apply()
    preparation.restore()
    assert stay_on.read_text() == "3\n"


@pytest.mark.parametrize("restored", [True, False])
def test_a_restart_between_rounds_does_not_end_the_preparation(
    shell: ShellPhone, stay_on: Path, restored: bool
) -> None:
    shell.program("getprop", "case $1 in ro.build.version.sdk) echo 30;; esac")
    shell.program("cmd", "echo $3 > $STORE/mode")
    phone, mode = Phone(shell, ANDROID), shell.root / "store/mode"
    phone.prepare()
    if restored:
        phone.settle()
        assert mode.read_text() == "false\n"
    else:
        # It is off just when its settings are to be put back; the mode does not survive that, the settings do.
        settings = (shell.root / "bin/settings").read_text()
        shell.program("settings", "exit 1")
        phone.settle()
        (shell.root / "bin/settings").write_text(settings)
        stay_on.write_text("7\n")
        mode.write_text("false\n")
    phone.prepare()
    assert (mode.read_text(), stay_on.read_text()) == ("true\n", "7\n")
    phone.close()
    assert (mode.read_text(), stay_on.read_text()) == ("false\n", "3\n")


def test_a_setting_that_does_not_come_back_is_told(shell: ShellPhone, stay_on: Path) -> None:
    preparation = Preparation(shell, PhoneInfo(temporary=str(shell.root / "data/local/tmp")))
    preparation.apply()
    shell.program("settings", "echo 5")
    with pytest.raises(DeviceError, match="stay_on_while_plugged_in is 5, and was 3"):
        preparation.restore()


def test_a_phone_knows_where_it_is_timed(shell: ShellPhone) -> None:
    phone = Phone(shell, ANDROID)
    assert phone.cores == (2, 3)
    assert phone.highest_khz == (2150400, 2150400)
    assert [Path(path).read_text() for path in phone.frequency_files] == ["2150400\n", "2150400\n"]
    assert phone.folder == str((shell.root / "data/local/tmp").resolve())
    assert phone.title == "Pixel"


def limit(shell: ShellPhone, core: int, khz: str) -> None:
    (shell.root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_max_freq").write_text(f"{khz}\n")


def test_full_speed_is_what_a_power_mode_allows(shell: ShellPhone) -> None:
    phone = Phone(shell, ANDROID)
    limit(shell, 2, "1900000")
    limit(shell, 3, "none")
    phone.prepare()
    assert phone.highest_khz == (1900000, 2150400)  # the third core's limit is unknown, so the hardware's
    limit(shell, 2, "1100000")
    phone.prepare()
    assert phone.highest_khz == (1900000, 2150400)  # throttling is no power mode
    limit(shell, 2, "2000000")
    limit(shell, 3, "2500000")
    phone.prepare()
    assert phone.highest_khz == (2000000, 2150400)


def test_the_limit_is_read_in_the_fixed_performance_mode(shell: ShellPhone) -> None:
    shell.program("getprop", "case $1 in ro.build.version.sdk) echo 30;; esac")
    files = f"{shell.root}/sys/devices/system/cpu/cpu[23]/cpufreq/scaling_max_freq"
    shell.program("cmd", f'[ "$3" = true ] && khz=1800000 || khz=2150400; for f in {files}; do echo $khz > $f; done')
    phone = Phone(shell, ANDROID)
    phone.prepare()
    phone.settle()
    assert phone.highest_khz == (1800000, 1800000)


def test_a_core_without_a_limit_keeps_its_highest_frequency(shell: ShellPhone) -> None:
    for core in (2, 3):
        (shell.root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_max_freq").unlink()
    phone = Phone(shell, ANDROID)
    phone.prepare()
    assert phone.highest_khz == (2150400, 2150400)


def test_files_and_frequencies_stay_together(shell: ShellPhone) -> None:
    (shell.root / "sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq").unlink()
    phone = Phone(shell, ANDROID)
    assert phone.cores == (2, 3)
    assert len(phone.frequency_files) == len(phone.highest_khz) == 1


def test_closing_puts_settings_back_over_a_new_connection(shell: ShellPhone, stay_on: Path) -> None:
    phone = Phone(PatientTransport(shell, 1.0), ANDROID)
    phone.prepare()
    assert stay_on.read_text() == "7\n"
    shell.connected = False
    phone.close()
    assert stay_on.read_text() == "3\n"
    phone.close()
    assert shell.closed == 2


def test_a_phone_that_is_gone_can_be_let_go(shell: ShellPhone, stay_on: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phone = Phone(shell, ANDROID)
    phone.prepare()

    def gone() -> None:
        raise TransportError("no such phone")

    monkeypatch.setattr(shell, "connect", gone)
    shell.connected = False
    phone.close()
    assert shell.closed == 1
    # The next session still knows what the user's setting was.
    shell.connected = True
    later = Phone(shell, ANDROID)
    later.prepare()
    later.close()
    assert stay_on.read_text() == "3\n"


def test_a_phone_that_lacks_programs_is_refused(shell: ShellPhone) -> None:
    (shell.root / "bin/taskset").unlink()
    # Only the phone's own programs, and no shell needs to be found.
    shell.path = str(shell.root / "bin")
    with pytest.raises(DeviceError, match=r"SHELL1 \(Pixel\) lacks taskset"):
        Phone(shell, ANDROID)


def test_a_phone_without_a_folder_is_refused(shell: ShellPhone) -> None:
    (shell.root / "data/local/tmp").rmdir()
    with pytest.raises(DeviceError, match=r"SHELL1 .* has no folder /data/local/tmp"):
        Phone(shell, ANDROID)


def test_a_profile_of_more_threads_than_cores_is_refused(shell: ShellPhone) -> None:
    profile: DeviceProfile = replace(ANDROID, protocol=replace(ANDROID.protocol, threads=4))
    with pytest.raises(DeviceError, match="4 threads need 4 cores"):
        Phone(shell, profile)
