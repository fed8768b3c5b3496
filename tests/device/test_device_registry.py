"""Devices by name: profiles, serial numbers and addresses, over phones that only say what they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from amc_latency.device.adb.transport import CommandResult, Transport, TransportError, UnauthorizedError
from amc_latency.device.base import DeviceError, DeviceIdentity
from amc_latency.device.host.host import HostDevice, allowed_cores, separate_cores
from amc_latency.device.kinds import DeviceProfile, PhoneOptions
from amc_latency.device.phone.attached import attached_phones
from amc_latency.device.profiles import UnknownDeviceError
from amc_latency.device.registry import get_device, get_devices, known_devices

PIXEL_8 = ("Pixel 8", "shiba", "Tensor G3")
PIXEL_9 = ("Pixel 9", "tokay", "Tensor G4")
OTHER = ("X1", "x1", "MT6771")


@dataclass(frozen=True)
class Attached:
    serial: str
    state: str = "device"
    via: str = "usb"


class SayingPhone(Transport):
    """Says what it is and no more."""

    def __init__(self, serial: str, model: str, device: str, soc: str) -> None:
        self.serial = serial
        self.info = {"model": model, "device": device, "soc": soc, "android": "14", "bionic": "1"}
        self.open = True

    def connect(self) -> None:
        self.open = True

    def run(self, command: str, timeout_s: float = 30.0) -> CommandResult:
        if "dumpsys" in command:
            return CommandResult(0, "time=1\nbattery=  level: 83\nzone=cpu-0\ntemp=41500\nend=4\n")
        keys = [
            "model",
            "manufacturer",
            "device",
            "soc",
            "platform",
            "android",
            "sdk",
            "abi",
            "fingerprint",
            "machine",
            "bionic",
            "temporary",
        ]
        return CommandResult(0, "".join(f"{key}={self.info.get(key, '')}\n" for key in keys) + f"end={len(keys)}\n")

    def push(self, files: Mapping[str, bytes], mode: int = 0o644) -> None:
        raise NotImplementedError

    def pull(self, path: str) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        self.open = False


@dataclass
class FakePhone:
    """What `AndroidDevice.open` was asked for."""

    transport: Transport
    profile: DeviceProfile
    options: PhoneOptions

    def close(self) -> None:
        self.transport.close()

    @property
    def identity(self) -> DeviceIdentity:
        return DeviceIdentity(self.profile.name, "", "")


@dataclass
class World:
    """What is attached, in place of `amc_latency.device.adb.adb` and `amc_latency.device.phone.android`."""

    phones: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    opened: list[SayingPhone] = field(default_factory=list)
    broken: str | None = None

    def attached(self) -> list[Attached]:
        if self.broken:
            raise DeviceError(self.broken)
        serials = [serial for serial in self.phones if ":" not in serial]
        return [Attached(serial, self.states.get(serial, "device")) for serial in [*serials, *self.states]]

    def open_transport(self, serial: str, transport: str = "auto", answer_s: float = 20.0) -> Transport:
        if serial not in self.phones:
            raise TransportError(f"no answer from {serial}")
        self.opened.append(SayingPhone(serial, *self.phones[serial]))
        return self.opened[-1]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    adb, android = ModuleType("amc_latency.device.adb.adb"), ModuleType("amc_latency.device.phone.android")
    adb.attached, adb.open_transport = world.attached, world.open_transport  # type: ignore[attr-defined]
    android.AndroidDevice = type("AndroidDevice", (), {"open": staticmethod(FakePhone)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "amc_latency.device.adb.adb", adb)
    monkeypatch.setitem(sys.modules, "amc_latency.device.phone.android", android)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return world


def chosen(name: str, options: PhoneOptions = PhoneOptions()) -> tuple[str, str]:
    """The serial number and the profile that a name leads to."""
    device = get_device(name, options)
    assert isinstance(device, FakePhone)
    assert device.options == options
    return device.transport.serial, device.profile.name


def test_the_host_is_described_by_its_cpu() -> None:
    device = get_device("host")
    assert device.protocol == HostDevice().protocol
    assert isinstance(device, HostDevice)
    assert device.identity.model in known_devices()["host"]
    assert set(known_devices()) >= {"host", "android", "pixel1", "pixel8", "titan-xp", "cuda"}


@pytest.mark.parametrize("name", ["hots", "Host", "hosts"])
def test_a_misspelt_name_gets_the_nearest(world: World, name: str) -> None:
    with pytest.raises(UnknownDeviceError, match=rf"no device '{name}'.*Did you mean 'host'"):
        get_device(name)


def test_a_name_like_no_other_gets_the_list(world: World) -> None:
    world.phones = {"R5CX": PIXEL_8}
    with pytest.raises(UnknownDeviceError, match=r"known are: host, .*, R5CX") as caught:
        get_device("nothing-like-it")
    assert "mean" not in str(caught.value)
    with pytest.raises(UnknownDeviceError, match="Did you mean 'R5CX'"):
        get_device("R5CY")
    world.broken = "adb is broken"
    with pytest.raises(UnknownDeviceError, match="known are: host"):
        get_device("nothing-like-it")


@pytest.mark.parametrize("name", ["pixel8@R5CX", "R5CX", "10.0.0.7:5555", "pixel8@10.0.0.7:5555", "pixel8", "android"])
def test_a_phone_has_several_names(world: World, name: str) -> None:
    world.phones = {"R5CX": PIXEL_8, "10.0.0.7:5555": PIXEL_8}
    serial = "10.0.0.7:5555" if "5555" in name else "R5CX"
    assert chosen(name) == (serial, "android" if name == "android" else "pixel8")
    assert [phone.open for phone in world.opened] == [True]


def test_a_phone_that_no_profile_knows_is_any_phone(world: World) -> None:
    world.phones = {"R5CX": OTHER}
    assert chosen("R5CX") == ("R5CX", "android")


def test_a_phone_of_another_kind_is_refused_unless_forced(world: World) -> None:
    world.phones = {"R5CX": PIXEL_9}
    with pytest.raises(DeviceError, match=r"R5CX is Pixel 9 \(Tensor G4\), which is pixel9.*`force`"):
        get_device("pixel8")
    assert [phone.open for phone in world.opened] == [False]
    assert chosen("pixel8", PhoneOptions(force=True)) == ("R5CX", "pixel8")
    world.phones = {"R5CX": OTHER}
    with pytest.raises(DeviceError, match=r"R5CX is X1 \(MT6771\), and not .*`device=android`"):
        get_device("pixel8@R5CX")


def test_no_phone_says_what_to_do(world: World) -> None:
    with pytest.raises(DeviceError, match="no phone is attached: plug one in with USB debugging on"):
        get_device("android")


@pytest.mark.parametrize(
    ("state", "error", "says"),
    [
        ("unauthorized", UnauthorizedError, "R5CX is unauthorized: unlock it and tap Allow"),
        ("offline", DeviceError, "R5CX is offline: unplug it"),
        ("sideload", DeviceError, "R5CX is sideload: see `amc-latency devices`"),
    ],
)
def test_a_phone_that_is_not_ready_says_what_to_do(world: World, state: str, error: type, says: str) -> None:
    world.states = {"R5CX": state}
    with pytest.raises(error, match=says):
        get_device("android")


def test_of_several_phones_the_matching_one_is_taken(world: World) -> None:
    world.phones = {"A": PIXEL_8, "B": PIXEL_9, "C": OTHER}
    world.states = {"D": "offline"}
    assert chosen("pixel9") == ("B", "pixel9")
    assert [phone.serial for phone in world.opened if phone.open] == ["B"]


def test_several_phones_that_match_must_be_told_apart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.phones = {"A": PIXEL_8, "B": PIXEL_8, "C": PIXEL_9}
    with pytest.raises(DeviceError, match=r"could be pixel8: A, B\. Say which, as `device=pixel8@A` or in ANDR"):
        get_device("pixel8")
    with pytest.raises(DeviceError, match="could be android: A, B, C"):
        get_device("android")
    assert not any(phone.open for phone in world.opened)
    monkeypatch.setenv("ANDROID_SERIAL", "B")
    assert chosen("pixel8") == ("B", "pixel8")
    assert chosen("pixel8@A") == ("A", "pixel8")
    assert chosen("C") == ("C", "pixel9")


@pytest.mark.parametrize(
    ("name", "workers", "expected"),
    [
        ("pixel8", None, {"A": "pixel8", "B": "pixel8"}),
        ("pixel8", 1, {"A": "pixel8"}),
        ("pixel8", 2, {"A": "pixel8", "B": "pixel8"}),
        ("pixel9", None, {"C": "pixel9"}),
        ("android", None, {"A": "android", "B": "android", "C": "android"}),
        ("pixel8@B", None, {"B": "pixel8"}),
        ("C", 1, {"C": "pixel9"}),
        ("pixel8@B,10.0.0.7:5555", None, {"B": "pixel8", "10.0.0.7:5555": "pixel8"}),
    ],
)
def test_several_phones_are_several_workers(
    world: World, name: str, workers: int | None, expected: dict[str, str]
) -> None:
    world.phones = {"A": PIXEL_8, "B": PIXEL_8, "C": PIXEL_9, "10.0.0.7:5555": PIXEL_8}
    world.states = {"D": "offline"}
    devices = get_devices(name, workers=workers)
    assert {label: device.identity.name for label, device in devices.items()} == expected
    assert [phone.serial for phone in world.opened if phone.open] == list(expected)


@pytest.mark.parametrize(
    ("name", "workers", "says"),
    [
        ("pixel8", 3, "3 workers, and `device` pixel8 means 2: A, B"),
        ("A", 2, "2 workers, and `device` A means 1: A"),
        ("A,pixel8@A", None, "names a phone twice"),
        ("pixel8@A,pixel8@C", None, "C is Pixel 9"),
        ("host,A", 5, "5 workers, and `device` host,A means 2"),
        ("host", 100_000, r"100000 workers need a core each: this process may use \d+|cannot pin"),
    ],
)
def test_workers_that_are_not_there(world: World, name: str, workers: int | None, says: str) -> None:
    world.phones = {"A": PIXEL_8, "B": PIXEL_8, "C": PIXEL_9}
    with pytest.raises(DeviceError, match=says):
        get_devices(name, workers=workers)
    assert not any(phone.open for phone in world.opened)


def test_a_list_is_for_workers_alone(world: World) -> None:
    with pytest.raises(DeviceError, match="is several phones, which only `amc-latency profile` takes"):
        get_device("A,B")


def test_one_phone_was_chosen_already(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.phones = {"A": PIXEL_8, "B": PIXEL_8}
    monkeypatch.setenv("ANDROID_SERIAL", "B")
    assert list(get_devices("pixel8")) == ["pixel8"]
    assert [phone.serial for phone in world.opened if phone.open] == ["B"]


def test_workers_of_the_host_are_cores() -> None:
    assert list(get_devices("host")) == ["host"]
    cores = allowed_cores()
    if len(cores) < 2:
        pytest.skip("needs two cores")
    devices = get_devices("host", workers=2)
    assert len(devices) == 2
    assert list(devices)[-1] == f"core {cores[-1]}"
    assert {device.identity for device in devices.values()} == {HostDevice().identity}
    found = {f"core {core}" for device in devices.values() for core in device.worker_cores(1)}
    assert found == set(devices)


def test_hyperthreads_of_one_core_are_taken_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("amc_latency.device.host.host"), "allowed_cores", lambda: [0, 1, 2, 3])
    for core, siblings in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert separate_cores(1, tmp_path) == [3]
    assert separate_cores(2, tmp_path) == [1, 3]
    assert separate_cores(3, tmp_path) == [1, 2, 3]
    assert separate_cores(2, tmp_path / "says-nothing") == [2, 3]


def test_workers_take_fast_cores_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("amc_latency.device.host.host"), "allowed_cores", lambda: [0, 1, 2, 3])
    for core, capacity in enumerate([1024, 1024, 381, 381]):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}"
        folder.mkdir(parents=True)
        (folder / "cpu_capacity").write_text(f"{capacity}\n")
    assert separate_cores(2, tmp_path) == [0, 1]
    # The last is the one that is timed on alone.
    assert separate_cores(3, tmp_path) == [0, 3, 1]


def test_none_of_several_phones_matches(world: World) -> None:
    world.phones = {"A": PIXEL_8, "B": OTHER}
    with pytest.raises(DeviceError, match=r"of the attached phones \(A, B\) is Google Pixel 9.*pixel9@A` and `force`"):
        get_device("pixel9")
    with pytest.raises(DeviceError, match="could be pixel9: A, B"):
        get_device("pixel9", PhoneOptions(force=True))


def test_a_profile_that_is_none_is_named(world: World) -> None:
    with pytest.raises(UnknownDeviceError, match=r"no device 'pixle8'.*Did you mean 'pixel8'"):
        get_device("pixle8@R5CX")
    with pytest.raises(DeviceError, match="host is this computer and has no serial number"):
        get_device("host@R5CX")


def test_what_cannot_be_reached_says_so(world: World) -> None:
    with pytest.raises(TransportError, match="no answer from localhost:1"):
        get_device("localhost:1")


def test_attached_phones_are_asked_in_turn(world: World) -> None:
    world.phones = {"A": PIXEL_8, "10.0.0.7:5555": PIXEL_9}
    world.states = {"B": "unauthorized"}
    first, second, third, fourth = attached_phones(["10.0.0.7:5555", "10.0.0.8:5555", "10.0.0.8:5555"])
    assert (first.serial, first.profile, first.info and first.info.model) == ("A", "pixel8", "Pixel 8")
    assert first.now is not None
    assert first.now.battery_pct == 83
    assert (second.serial, second.state, second.info) == ("B", "unauthorized", None)
    assert "tap Allow" in (second.problem or "")
    assert (third.serial, third.profile, third.via) == ("10.0.0.7:5555", "pixel9", "address")
    assert (fourth.serial, fourth.problem) == ("10.0.0.8:5555", "no answer from 10.0.0.8:5555")
    assert not any(phone.open for phone in world.opened)


def test_addresses_are_asked_where_nothing_can_be_looked_for(world: World) -> None:
    world.broken = "adb is\nbroken"
    world.phones = {"10.0.0.7:5555": PIXEL_9}
    failed, phone = attached_phones(["10.0.0.7:5555"])
    assert failed.problem == "adb is broken"
    assert phone.profile == "pixel9"
