"""The fake phone's own programs, run as its shell runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_phone.programs import BIG_KHZ, LITTLE_KHZ, Core, PhoneState, make_phone

Shell = Callable[[str], str]


@pytest.fixture
def phone(tmp_path: Path) -> PhoneState:
    return make_phone(tmp_path, sdk=31, android="12")


def shell(phone: PhoneState, command: str, code: int = 0) -> str:
    environment = {"PATH": f"{phone.root}/bin:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done
    return done.stdout + done.stderr


def test_properties_by_name_and_as_a_list(phone: PhoneState) -> None:
    assert shell(phone, "getprop ro.product.model") == "Pixel\n"
    assert shell(phone, "getprop ro.no.such") == "\n"
    assert shell(phone, "getprop ro.no.such none") == "none\n"
    phone.set_properties({"ro.product.model": "Pixel 8 Pro"})
    assert "[ro.product.model]: [Pixel 8 Pro]\n" in shell(phone, "getprop")


def test_the_battery_is_what_the_test_says(phone: PhoneState) -> None:
    said = shell(phone, "dumpsys battery")
    assert said.startswith("Current Battery Service state:\n  AC powered: false\n  USB powered: true\n")
    assert "\n  level: 85\n" in said
    assert "\n  temperature: 285\n" in said
    phone.set_battery(level_pct=12, temperature_c=41.3, usb=False)
    said = shell(phone, "dumpsys battery")
    assert "  USB powered: false\n" in said
    assert "  level: 12\n" in said
    assert "  temperature: 413\n" in said
    assert shell(phone, f"cat {phone.root}/sys/class/power_supply/battery/capacity") == "12\n"


def test_the_thermal_service_says_status_and_temperatures(phone: PhoneState) -> None:
    phone.set_thermal_status(2)
    phone.set_temperature(55.26, zone="cpu-1-0")
    said = shell(phone, "dumpsys thermalservice")
    assert "\nThermal Status: 2\n" in said
    assert "\tTemperature{mValue=55.2, mType=0, mName=cpu-1-0, mStatus=0}\n" in said
    assert "\tTemperature{mValue=28.5, mType=2, mName=battery, mStatus=0}\n" in said


def test_an_old_android_has_no_thermal_service_and_no_fixed_performance(tmp_path: Path) -> None:
    phone = make_phone(tmp_path, sdk=28, android="9")
    assert shell(phone, "dumpsys thermalservice") == "Can't find service: thermalservice\n"
    assert "Unknown command" in shell(phone, "cmd power set-fixed-performance-mode-enabled true", code=255)
    assert shell(phone, "getprop ro.soc.model") == "\n"


def test_settings_are_kept_and_deleted(phone: PhoneState) -> None:
    assert shell(phone, "settings get global stay_on_while_plugged_in") == "null\n"
    shell(phone, "svc power stayon usb")
    assert shell(phone, "settings list global") == "stay_on_while_plugged_in=2\n"
    shell(phone, "settings put global stay_on_while_plugged_in 7")
    assert phone.setting("stay_on_while_plugged_in") == "7"
    assert shell(phone, "settings delete global stay_on_while_plugged_in") == "Deleted 1 rows\n"
    assert phone.setting("stay_on_while_plugged_in") is None
    assert "Invalid namespace" in shell(phone, "settings get ../props ro.product.model", code=255)


def test_fixed_performance_is_kept(phone: PhoneState) -> None:
    assert not phone.fixed_performance
    shell(phone, "cmd power set-fixed-performance-mode-enabled true")
    assert phone.fixed_performance
    shell(phone, "cmd power set-fixed-performance-mode-enabled false")
    assert not phone.fixed_performance


def test_a_cluster_shares_its_frequency(tmp_path: Path) -> None:
    phone = make_phone(tmp_path, abi="arm64-v8a")  # two slow cores, two fast ones
    cpu = tmp_path / "sys/devices/system/cpu"
    assert (cpu / "possible").read_text() == "0-3\n"
    assert (cpu / "cpu3/topology/core_siblings_list").read_text() == "2-3\n"
    assert (cpu / "cpufreq/policy2/affected_cpus").read_text() == "2 3\n"
    assert (cpu / "cpu1/cpufreq/cpuinfo_max_freq").read_text() == f"{LITTLE_KHZ}\n"
    phone.set_frequency(3, 1_000_000)
    assert (cpu / "cpu2/cpufreq/scaling_cur_freq").read_text() == "1000000\n"
    assert (cpu / "cpu2/cpufreq/scaling_max_freq").read_text() == f"{BIG_KHZ}\n"
    phone.throttle(1_200_000)
    assert (cpu / "cpu2/cpufreq/scaling_max_freq").read_text() == "1200000\n"
    assert "Thermal Status: 1" in shell(phone, "dumpsys thermalservice")
    phone.unthrottle()
    assert [(cpu / f"cpu{n}/cpufreq/scaling_cur_freq").read_text() for n in (0, 2)] == [
        f"{LITTLE_KHZ}\n",
        f"{BIG_KHZ}\n",
    ]


def test_cores_of_any_number(tmp_path: Path) -> None:
    make_phone(tmp_path, cores=[Core(1, 10), Core(2, 10), Core(5, 20)])
    assert (tmp_path / "sys/devices/system/cpu/online").read_text() == "1-2,5\n"


def test_this_computers_cores_can_be_pinned(phone: PhoneState) -> None:
    assert phone.cores == tuple(sorted(os.sched_getaffinity(0)))
    for core in phone.cores:
        assert shell(phone, f"taskset {1 << core:x} taskset -p $$ | wc -l") == "1\n"


def test_an_emulated_phones_taskset_notes_the_mask(tmp_path: Path) -> None:
    phone = make_phone(tmp_path, abi="arm64-v8a")
    assert shell(phone, "taskset c uname -m") == "aarch64\n"
    assert "Invalid argument" in shell(phone, "taskset f0 true", code=1)
    assert "bad mask" in shell(phone, "taskset -p 1", code=1)
    assert phone.taskset_masks == ["c"]


def test_paths_in_pushed_scripts_lie_on_the_phone(phone: PhoneState) -> None:
    script = phone.root / "data/local/tmp/run.sh"
    script.write_text('cat /sys/class/thermal/thermal_zone2/type "$1"; ls /data/local/tmp; ls -d /usr/../bin; exit 3\n')
    said = shell(phone, f"sh {script} {phone.root}/sys/class/thermal/thermal_zone0/type", code=3)
    assert said == "battery\ncpu-0-0\nrun.sh\n/usr/../bin\n"
    assert shell(phone, "sh -c 'echo $1' name argument") == "argument\n"
