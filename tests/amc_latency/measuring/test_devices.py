"""`amc-latency devices`: the table of profiles, and what is attached."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
from amc_latency.android_bench.phone.state import PhoneInfo, PhoneState
from amc_latency.device.host.host import cpu_model
from amc_latency.device.phone.attached import AttachedPhone

from amc_latency.cli.main import main
from amc_latency.measuring.devices import devices_report, devices_text

PIXEL = AttachedPhone(
    "R5CX",
    "device",
    "usb",
    "pixel8",
    PhoneInfo(model="Pixel 8", device="shiba", soc="Tensor G3", platform="zuma", android="14", abi="arm64-v8a"),
    PhoneState(battery_pct=83, battery_c=29.3, zones_c={"cpu-0-0": 41.26, "cpu-1-0": 40.0, "charger": 50.0}),
)
LOCKED = AttachedPhone("R5CY", "unauthorized", "usb", problem="unlock it and tap Allow")


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Standard output of `amc-latency devices ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["amc-latency", "devices", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[AttachedPhone]:
    phones: list[AttachedPhone] = []
    asked = [AttachedPhone("10.0.0.7:5555", "no answer", "address", problem="nobody listens")]
    monkeypatch.setattr(
        "amc_latency.measuring.devices.attached_phones",
        lambda addresses: [*phones, *(phone for phone in asked if phone.serial in addresses)],
    )
    return phones


def test_profiles_are_listed_where_nothing_is_attached(attached, monkeypatch, capsys) -> None:
    text = run(monkeypatch, capsys)
    assert f"this computer's CPU: {cpu_model()}" in " ".join(text.replace("│", " ").split())
    assert "shiba, husky, akita" in text
    assert "no phone is attached" in text


def test_json_holds_profiles_and_phones(attached, monkeypatch, capsys) -> None:
    attached += [PIXEL, LOCKED]
    report = json.loads(run(monkeypatch, capsys, "--json", "10.0.0.7:5555"))
    assert set(report["profiles"]) >= {"host", "replay", "android", "pixel1", "cuda"}
    assert cpu_model() in report["profiles"]["host"]["title"]
    assert report["profiles"]["pixel8"] == {
        "title": "Google Pixel 8, 8 Pro, 8a",
        "kind": "android",
        "matches": "device shiba, husky, akita",
    }
    first, second, third = report["attached"]
    assert first == {
        "serial": "R5CX",
        "state": "device",
        "via": "usb",
        "profile": "pixel8",
        "model": "Pixel 8",
        "soc": "Tensor G3",
        "android": "14",
        "abi": "arm64-v8a",
        "battery_pct": 83,
        "temperature_c": 41.26,
        "problem": None,
    }
    assert (second["model"], second["problem"]) == (None, "unlock it and tap Allow")
    assert (third["serial"], third["problem"]) == ("10.0.0.7:5555", "nobody listens")


def test_the_table_shows_what_is_attached(attached, monkeypatch, capsys) -> None:
    attached += [PIXEL, LOCKED]
    text = run(monkeypatch, capsys)
    row = next(line for line in text.splitlines() if "R5CX" in line)
    assert row.replace("│", " ").split() == ["R5CX", "pixel8", "Pixel", "8", "Tensor", "G3", "14", "83", "41.3", "device", "usb"]  # fmt: skip # noqa: E501
    assert "R5CY: unlock it and tap Allow" in text
    assert "no phone is attached" not in text


def test_a_phone_s_words_are_not_markup(attached, capsys) -> None:
    attached.append(AttachedPhone("[red]", "device", "usb", "android", PhoneInfo(model="[bold]X[/bold]"), PhoneState()))
    devices_text(devices_report())
    assert "[bold]X[/bold]" in capsys.readouterr().out


def test_this_computer_is_asked_for_real_phones(monkeypatch, capsys) -> None:
    """The whole way down to what looks for phones."""
    adb = ModuleType("amc_latency.device.adb.adb")
    adb.attached, adb.open_transport = list, None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "amc_latency.device.adb.adb", adb)
    assert json.loads(run(monkeypatch, capsys, "--json"))["attached"] == []
