"""What a phone is and how it does: one shell command for each question, and what its output means.

Each command is one round trip and runs in any POSIX shell. What is missing on the phone, or may not be read, is an
empty value and so None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from android_bench.answers import Lines, counted, matched
from android_bench.runner import ParseError

NEEDED_PROGRAMS = ("setsid", "sha256sum", "timeout", "taskset")
"""What the phone's commands are made of, beyond what every shell has."""

_PROPERTIES = {
    "model": "ro.product.model",
    "manufacturer": "ro.product.manufacturer",
    "device": "ro.product.device",
    "soc": "ro.soc.model",
    "platform": "ro.board.platform",
    "android": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "abi": "ro.product.cpu.abi",
    "fingerprint": "ro.build.fingerprint",
}
_BATTERY = r"  ([A-Z][A-Za-z]* powered|level|scale|temperature): (true|false|-?[0-9]{1,6})"
_ABIS = {"x86_64": "x86_64", "i686": "x86", "aarch64": "arm64-v8a", "armv8l": "armeabi-v7a", "armv7l": "armeabi-v7a"}


INFO_COMMAND = counted(
    "\n".join(f'say {key} "$(getprop {name})"' for key, name in _PROPERTIES.items())
    + f"""
say machine "$(uname -m)"
bionic=0; for f in /system/bin/linker64 /system/bin/linker; do [ -e "$f" ] && bionic=1; done; say bionic $bionic
say temporary "$(cd /data/local/tmp && pwd -P)"
for c in {" ".join(NEEDED_PROGRAMS)}; do command -v $c >/dev/null || say missing $c; done
for f in /data/local/tmp/*benchmark_model*; do [ -f "$f" ] && [ -x "$f" ] && say benchmark_model "$f"; done
"""
)

# `read` from a file and not `cat`: a phone has a hundred zones, and each process that it starts takes milliseconds.
TOPOLOGY_COMMAND = counted(
    """
readable() { [ -r "$2" ] && say $1 "$2" || say $1 ""; }
for c in /sys/devices/system/cpu/cpu[0-9]*; do
[ -d "$c" ] || continue
on=1; max=; capacity=
read -r on < "$c/online"; read -r max < "$c/cpufreq/cpuinfo_max_freq"; read -r capacity < "$c/cpu_capacity"
say core "$c"; say online "$on"; say max_khz "$max"; say capacity "$capacity"
readable cur_path "$c/cpufreq/scaling_cur_freq"; readable limit_path "$c/cpufreq/scaling_max_freq"
done
for z in /sys/class/thermal/thermal_zone*; do
[ -r "$z/temp" ] || continue
name=; read -r name < "$z/type"; say zone "${name:-${z##*/}}"; say temp_path "$z/temp"
done
"""
)

# Not `for line in $(dumpsys)`: Android's shell would expand the braces of `Temperature{a, b}`.
STATE_COMMAND = counted(
    """
say time "$(date +%s)"
while IFS= read -r l && [ "$l" != @ ]; do case $l in
"  level: "*|"  scale: "*|"  temperature: "*|"  "[ADUW]*" powered: "*) say battery "$l";;
esac; done
while IFS= read -r l; do case $l in
"Thermal Status: "*) say thermal "$l";;
*"Temperature{mValue="*"mName="*) say sensor "$l";;
esac; done
for z in /sys/class/thermal/thermal_zone*; do
[ -d "$z" ] || continue
name=; temp=; read -r name < "$z/type"; read -r temp < "$z/temp"
say zone "${name:-${z##*/}}"; say temp "$temp"
done
""",
    source="dumpsys battery; echo @; dumpsys thermalservice",
)


@dataclass(frozen=True)
class PhoneInfo:
    """What a phone is; None is what it does not say."""

    model: str | None = None
    """as people know it: `Pixel 8`"""
    manufacturer: str | None = None
    device: str | None = None
    """its code name: `shiba`"""
    soc: str | None = None
    """`Tensor G3`; Android before 12 does not say"""
    platform: str | None = None
    """the board's platform, which every Android says: `zuma`"""
    android: str | None = None
    sdk: int | None = None
    abi: str | None = None
    """what programs it runs: `arm64-v8a`"""
    fingerprint: str | None = None
    """the build"""
    bionic: bool = False
    """whether it runs Android's programs"""
    temporary: str | None = None
    """the folder for our files, its links resolved"""
    missing: tuple[str, ...] = ()
    """those of `NEEDED_PROGRAMS` that it lacks"""
    benchmark_models: tuple[str, ...] = ()
    """paths of programs of that name"""

    @property
    def title(self) -> str:
        """The phone in a few words."""
        what = self.model or self.device or "a phone without a name"
        chip = self.soc or self.platform
        return f"{what} ({chip})" if chip else what


@dataclass(frozen=True)
class Core:
    """A processor core that is online; paths are those that the phone printed, None where it may not be read."""

    number: int
    max_khz: int | None
    """the most that the hardware can"""
    capacity: int | None
    """the kernel's figure for its speed, at most 1024"""
    cur_path: str | None
    """says the frequency now, in kHz"""
    limit_path: str | None
    """says the most that is allowed now, in kHz: less than `max_khz` if the phone is throttled"""


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind."""

    cores: tuple[int, ...]
    max_khz: int | None


@dataclass(frozen=True)
class Zone:
    """A thermal zone: its name, and the file that holds its temperature."""

    name: str
    temp_path: str


@dataclass(frozen=True)
class Topology:
    """What of a phone does not change while it is on: its cores and its thermometers."""

    cores: tuple[Core, ...]
    zones: tuple[Zone, ...]

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """Cores of the same speed, the fastest first.

        Two kinds of cores may have the same frequency (MediaTek's Helio P60): then the kernel's capacity decides.
        """
        kinds: dict[tuple[int, int], list[Core]] = {}
        for core in self.cores:
            kinds.setdefault((core.max_khz or 0, core.capacity or 0), []).append(core)
        return tuple(
            Cluster(tuple(core.number for core in kinds[kind]), kinds[kind][0].max_khz)
            for kind in sorted(kinds, reverse=True)
        )


@dataclass(frozen=True)
class PhoneState:
    """How a phone does just now; None is what it does not say."""

    time_s: int | None = None
    """its clock, in seconds since 1970"""
    battery_pct: int | None = None
    battery_c: float | None = None
    charging: bool | None = None
    """whether it has power from outside"""
    thermal_status: int | None = None
    """0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown"""
    zones_c: Mapping[str, float] = field(default_factory=dict)
    """by the name of the zone or sensor; of two with the same name the hotter"""


def parse_info(text: str) -> PhoneInfo:
    """What `INFO_COMMAND` printed. Raises `ParseError`."""
    lines = Lines(text)
    found = {key: lines.take(key) for key in _PROPERTIES}
    machine = lines.take("machine")
    bionic = lines.take("bionic")
    if bionic not in ("0", "1"):
        raise ParseError(f"the phone's info has 0 or 1 for bionic, not '{bionic}'")
    temporary = lines.take("temporary")
    if temporary and not temporary.startswith("/"):
        raise ParseError(f"the phone's temporary folder is no path: '{temporary}'")
    missing = tuple(lines.take_all("missing"))
    if not set(missing) <= set(NEEDED_PROGRAMS):
        raise ParseError(f"nobody asked the phone for the program '{missing[-1]}'")
    benchmark_models = tuple(lines.take_all("benchmark_model"))
    lines.expect_end()
    sdk = _number(found.pop("sdk"), "sdk")
    abi = found.pop("abi") or _ABIS.get(machine)
    named = {key: value.strip() or None for key, value in found.items()}
    return PhoneInfo(
        **named,
        sdk=sdk,
        abi=abi,
        bionic=bionic == "1",
        temporary=temporary or None,
        missing=missing,
        benchmark_models=benchmark_models,
    )


def parse_topology(text: str) -> Topology:
    """What `TOPOLOGY_COMMAND` printed; cores that are offline are left out. Raises `ParseError`."""
    lines = Lines(text)
    cores, zones = [], []
    while lines.next_key == "core":
        path = lines.take("core")
        number = re.search(r"/cpu([0-9]{1,4})$", path)
        if number is None:
            raise ParseError(f"no core has the path '{path}'")
        online = lines.take("online")
        if online not in ("0", "1"):
            raise ParseError(f"a core is online with 0 or 1, not '{online}'")
        core = Core(
            int(number[1]),
            _number(lines.take("max_khz"), "max_khz") or None,
            _number(lines.take("capacity"), "capacity") or None,
            lines.take("cur_path") or None,
            lines.take("limit_path") or None,
        )
        if online == "1":
            cores.append(core)
    while lines.next_key == "zone":
        zones.append(Zone(lines.take("zone"), lines.take("temp_path")))
    lines.expect_end()
    return Topology(tuple(sorted(cores, key=lambda core: core.number)), tuple(zones))


def parse_state(text: str) -> PhoneState:
    """What `STATE_COMMAND` printed. Raises `ParseError`."""
    lines = Lines(text)
    time_s = _number(lines.take("time"), "time")
    battery = dict(_battery(lines.take_all("battery")))
    statuses: list[str] = []
    sensors: dict[str, float] = {}
    while lines.next_key in ("thermal", "sensor"):
        statuses += [matched(r"Thermal Status: ([0-6])", line)[1] for line in lines.take_all("thermal")]
        sensors |= dict(_sensors(lines.take_all("sensor")))
    zones: dict[str, float] = {}
    while lines.next_key == "zone":
        name, temp = lines.take("zone"), lines.take("temp")
        value_c = zone_c(int(matched("-?[0-9]{1,12}", temp)[0])) if temp else None
        if value_c is not None:
            zones[name] = max(value_c, zones.get(name, value_c))
    lines.expect_end()
    level, scale, tenths_c = (battery.get(key) for key in ("level", "scale", "temperature"))
    powered = [value for key, value in battery.items() if key.endswith("powered")]
    if level is not None and not 0 <= level <= (scale or 100):
        raise ParseError(f"a battery cannot have the level {level} of {scale or 100}")
    return PhoneState(
        time_s=time_s,
        battery_pct=None if level is None else 100 * level // (scale or 100),
        battery_c=None if tenths_c is None else _sensible(tenths_c / 10),
        charging=any(powered) if powered else None,
        thermal_status=int(statuses[0]) if statuses else None,
        zones_c={**sensors, **zones},
    )


def zone_c(value: int) -> float | None:
    """The degrees Celsius that a zone's file means; None for nonsense.

    The kernel's rule is thousandths, but old Qualcomm kernels write tenths or whole degrees. No phone is on at more
    than 125 degrees, and none is used within a degree of freezing, so the size tells the unit.
    """
    if abs(value) >= 1000:
        return _sensible(value / 1000)
    return _sensible(value / 10 if value > 125 else value)


def _battery(lines: list[str]) -> Iterator[tuple[str, int]]:
    # The first of a kind comes last, and so wins: makers append lines of their own.
    for line in reversed(lines):
        key, value = matched(_BATTERY, line).groups()
        if key.endswith("powered") != (value in ("true", "false")):
            raise ParseError(f"no battery says '{line.strip()}'")
        yield key, int(value == "true") if key.endswith("powered") else int(value)


def _sensors(lines: list[str]) -> Iterator[tuple[str, float]]:
    # Cached values come first and those of now after them, so the last of a name wins.
    for line in lines:
        match = matched(r"\s*Temperature\{mValue=(NaN|-?[0-9]+\.[0-9]+(?:E-?[0-9]+)?), .*\bmName=([^,}]+).*", line)
        value_c = None if match[1] == "NaN" else _sensible(float(match[1]))
        if value_c is not None:
            yield match[2], value_c


def _sensible(value_c: float) -> float | None:
    return value_c if -40 <= value_c <= 200 else None


def _number(text: str, what: str) -> int | None:
    if text and not re.fullmatch(r"[0-9]{1,15}", text):
        raise ParseError(f"the phone's {what} is no number: '{text[:200]}'")
    return int(text) if text else None
