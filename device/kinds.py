"""The kinds of device, by name: what a profile of each may say, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal

from amc_latency.android_bench.phone.state import PhoneInfo
from amc_latency.device.base import Device, Protocol

Cores = Literal["fastest", "all"] | tuple[int, ...]
Openers = dict[str, Callable[[], Device]]
"""How to open each of several devices, by what tells them apart."""
HOST_PROTOCOL = Protocol(runs=20, min_time_ms=0.0, rounds=4, state="frame", frame_mb=8, statistic="median")
"""How this computer is timed unless its profile says otherwise: what an app that infers once a frame sees, and what
repeats best (`benchmarks/repeatability.py`).
"""
PHONE_PROTOCOL = Protocol(warmup_ms=200.0, runs=20, min_time_ms=100.0, clock="wall", statistic="median", timeout_s=60.0)
"""How a phone is timed unless its profile says otherwise."""
GPU_PROTOCOL = Protocol(
    warmup_ms=20.0, runs=20, min_time_ms=20.0, clock="wall", statistic="median", timeout_s=120.0, batch=1
)
"""How a GPU is timed unless its profile says otherwise: one image at a time, as on every other device."""


@dataclass(frozen=True)
class Match:
    """What a phone must say of itself: one value of every list that is not empty, upper and lower case as given."""

    models: tuple[str, ...] = ()
    """`ro.product.model`"""
    devices: tuple[str, ...] = ()
    """`ro.product.device`, the code name"""
    socs: tuple[str, ...] = ()
    """`ro.soc.model` or `ro.board.platform`"""

    def matches(self, info: PhoneInfo) -> bool:
        """Whether this phone is meant; without any list, every phone is."""
        said = ((self.models, {info.model}), (self.devices, {info.device}), (self.socs, {info.soc, info.platform}))
        return all(not wanted or not values.isdisjoint(wanted) for wanted, values in said)

    def matches_gpu(self, name: str) -> bool:
        """Whether the GPU that calls itself `name` is meant: of `models`, one is part of it, in upper or lower case."""
        return not self.models or any(model.lower() in name.lower() for model in self.models)

    @property
    def strictness(self) -> int:
        """How many lists must match."""
        return sum(bool(wanted) for wanted in (self.models, self.devices, self.socs))

    @property
    def text(self) -> str:
        """The lists in a line."""
        named = (("model", self.models), ("device", self.devices), ("SoC", self.socs))
        return "; ".join(f"{name} {', '.join(wanted)}" for name, wanted in named if wanted)


@dataclass(frozen=True)
class Trust:
    """What makes a block of timings believable; one that is not is repeated after a cool-down."""

    sentinel_every: int = 20
    """layers between two timings of the sentinel layer"""
    drift_pct: float = 5.0
    """by how much the sentinel may differ across a block, and from the blocks before"""
    max_thermal_status: int = 0
    """of Android's thermal service: 0 is none, 1 light"""
    full_frequency: bool = True
    """whether the pinned cores must be at their highest frequency after each model"""
    min_battery_pct: int = 20
    tries: int = 3
    """after so many a timing is kept as suspect"""


@dataclass(frozen=True)
class CoolDown:
    """When a phone is cool enough to start, or to go on."""

    zones: str = "cpu|tsens|^(big|mid|little|ap)$"
    """regular expression of the thermal zones that count; where none matches, the battery's temperature does"""
    start_below_c: float = 45.0
    timeout_s: float = 600.0
    """a phone that is no cooler by then won't be"""
    poll_s: float = 3.0


@dataclass(frozen=True)
class PhoneOptions:
    """What the user may say of a phone beyond its name; what `help` says of a field is what command lines print."""

    force: bool = field(
        default=False,
        metadata={
            "panel": "Device",
            "help": "take a phone that does not match the profile, or some of whose cores are offline",
        },
    )
    transport: Literal["auto", "direct", "server"] = field(
        default="auto",
        metadata={"panel": "Device", "help": "to a phone: our own connection, or a running adb server's"},
    )
    runner: Literal["auto", "benchmark_model", "amc_bench"] = field(
        default="auto", metadata={"panel": "Device", "help": "which program times on a phone; the profile's unless set"}
    )
    runner_path: Path | None = field(
        default=None,
        metadata={"panel": "Device", "help": "that program, built for the phone; found or built unless set"},
    )
    library: Path | None = field(
        default=None,
        metadata={
            "panel": "Device",
            "help": "libLiteRt.so for the phone, which amc_bench needs",
            "option": "--litert-library",
        },
    )


@dataclass(frozen=True)
class DeviceProfile:
    """All that is known of a device before it is seen."""

    name: str
    kind: str
    """one of `KINDS`"""
    title: str
    match: Match = field(default_factory=Match)
    cores: Cores = "fastest"
    """which cores a phone's timings are pinned to; `fastest` is the cluster with the highest frequency"""
    protocol: Protocol = PHONE_PROTOCOL
    runner: str = "auto"
    """`auto`, `benchmark_model` or `amc_bench`"""
    trust: Trust = field(default_factory=Trust)
    cool_down: CoolDown = field(default_factory=CoolDown)


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device. Functions are named as `module:function`, and imported when called."""

    protocol: Protocol
    """how it is timed unless its profile says otherwise"""
    opener: str
    """of a profile, what stands behind the @ of a device's name, and `PhoneOptions`: the device"""
    sections: tuple[str, ...] = ("timing",)
    """what a profile may have"""
    check: Callable[[DeviceProfile], str | None] = lambda profile: None
    """the rule that a profile breaks, in words"""
    several: str | None = None
    """of a profile, `PhoneOptions`, and how many are wanted or None for all: how to open each device that the profile
    means, by what tells them apart; None where it means one"""
    titler: str | None = None
    """of a profile: what the device at hand is; the profile's title unless set"""
    is_phone: bool = False
    """whether it is recognised by what it says over ADB, and takes `PhoneOptions`"""
    is_this_computer: bool = False
    """whether it is at hand in any case, so that its table goes by what it says of itself"""
    times_batches: bool = False
    """whether a protocol's `batch` and `precision` mean something"""

    def open(self, profile: DeviceProfile, which: str, options: PhoneOptions) -> Device:
        """The device of this kind that is meant. Raises `DeviceError` when it cannot be used."""
        return resolve_name(self.opener)(profile, which, options)

    def openers(self, profile: DeviceProfile, options: PhoneOptions, wanted: int | None) -> Openers | None:
        """All devices that the profile means, by what tells them apart; None where it means one."""
        return None if self.several is None else resolve_name(self.several)(profile, options, wanted)

    def title(self, profile: DeviceProfile) -> str:
        """What it is, in a few words."""
        return profile.title if self.titler is None else resolve_name(self.titler)(profile)

    def broken_rule(self, profile: DeviceProfile) -> str | None:
        """The rule that a profile of this kind breaks, in words."""
        own, default = profile.protocol, Protocol()
        others = [name for name in ("batch", "precision") if getattr(own, name) != getattr(default, name)]
        if others and not self.times_batches:
            return f"[timing] {', '.join(others)} is for a GPU only"
        return self.check(profile)


def _broken_by_phone(profile: DeviceProfile) -> str | None:
    if profile.protocol.state != "hot":
        return "[timing] state of a phone is hot: its programs run a model back to back"
    return None


def _broken_by_gpu(profile: DeviceProfile) -> str | None:
    if profile.protocol.clock != "wall":
        return "[timing] clock of a GPU is wall: its own events"
    if profile.match.devices or profile.match.socs:
        return "[match] of a GPU has models only"
    return None


KINDS = {
    "host": DeviceKind(
        HOST_PROTOCOL,
        "amc_latency.device.host.opening:open_host",
        several="amc_latency.device.host.opening:cores",
        titler="amc_latency.device.host.opening:title",
        is_this_computer=True,
    ),
    "android": DeviceKind(
        PHONE_PROTOCOL,
        "amc_latency.device.phone.attached:open_phone",
        sections=("match", "timing", "runner", "trust", "cool_down"),
        check=_broken_by_phone,
        several="amc_latency.device.phone.attached:openers",
        is_phone=True,
    ),
    "cuda": DeviceKind(
        GPU_PROTOCOL,
        "amc_latency.device.gpu.cuda:open_gpu",
        sections=("match", "timing"),
        check=_broken_by_gpu,
        times_batches=True,
    ),
}
"""In the order in which devices are listed."""
