"""What a phone is and how it does: one shell command for each question, and what its output means.

Each command is one round trip and runs in any POSIX shell. What is missing on the phone, may not be read, or is worded
as no phone known words it is None: makers change their programs' output. The `key=value` lines that our commands make
of it are read strictly.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from amc_latency.android_bench.phone.answers import Lines, counted
from amc_latency.android_bench.runner import ParseError
from amc_latency.android_bench.safe.text import shown_line

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
_SENSOR = r"\s*Temperature\{mValue=(-?[0-9]+\.[0-9]+(?:E-?[0-9]+)?), mType=(-?[0-9]+), mName=([^,}]+)[,}].*"
_CPU = "0"
"""a sensor's type in the thermal service"""
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

# `read` from a file and not `cat`: each process that a phone starts takes milliseconds.
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
"""
)

# Not `for line in $(dumpsys)`: Android's shell would expand the braces of `Temperature{a, b}`. And nothing with a
# backslash, which some shells' `echo` takes for a line's end.
STATE_COMMAND = counted(
    """
say time "$(date +%s)"
while IFS= read -r l && [ "$l" != @ ]; do case $l in
*\\\\*) ;;
"  level: "*|"  scale: "*|"  temperature: "*|"  "[ADUW]*" powered: "*) say battery "$l";;
esac; done
while IFS= read -r l; do case $l in
*\\\\*) ;;
"Thermal Status: "*) say thermal "$l";;
"Current temperatures from HAL:"*) say current "";;
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
    """says the most that is allowed now, in kHz: less than `max_khz` in some power modes, or if throttled"""


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind."""

    cores: tuple[int, ...]
    max_khz: int | None


@dataclass(frozen=True)
class Topology:
    """A phone's cores."""

    cores: tuple[Core, ...]
    """those that are online"""
    offline: tuple[int, ...] = ()
    """numbers of those that are not: a phone switches cores off, and on again when it has work for them"""

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
    """By the name of the kernel's zone or the thermal service's sensor; of two zones with the same name the hotter.

    A sensor that the service says is the CPU's has a name with `cpu` in it: `cpu AP` for what Samsung calls `AP`.
    """


def parse_info(text: str) -> PhoneInfo:
    """What `INFO_COMMAND` printed. Raises `ParseError`."""
    lines = Lines(text)
    found = {key: lines.take(key) for key in _PROPERTIES}
    machine = lines.take("machine")
    bionic = lines.take("bionic")
    if bionic not in ("0", "1"):
        raise ParseError(f"the phone's info has 0 or 1 for bionic, not '{shown_line(bionic)}'")
    temporary = lines.take("temporary")
    if temporary and not (temporary.startswith("/") and _plain(temporary)):
        raise ParseError(f"the phone's temporary folder is no path: '{shown_line(temporary)}'")
    missing = tuple(lines.take_all("missing"))
    if not set(missing) <= set(NEEDED_PROGRAMS):
        raise ParseError(f"nobody asked the phone for the program '{shown_line(missing[-1])}'")
    # A path stands in commands and in messages.
    benchmark_models = tuple(filter(_plain, lines.take_all("benchmark_model")))
    lines.expect_end()
    sdk = _number(found.pop("sdk"))
    named = {key: shown_line(value.strip()) or None for key, value in found.items()}
    abi = named.pop("abi") or _ABIS.get(machine)
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
    """What `TOPOLOGY_COMMAND` printed. Raises `ParseError`."""
    lines = Lines(text)
    cores, offline = [], []
    while lines.next_key == "core":
        path = lines.take("core")
        number = re.search(r"/cpu([0-9]{1,4})$", path)
        if number is None:
            raise ParseError(f"no core has the path '{shown_line(path)}'")
        online = lines.take("online")
        if online not in ("0", "1"):
            raise ParseError(f"a core is online with 0 or 1, not '{shown_line(online)}'")
        core = Core(
            int(number[1]),
            _number(lines.take("max_khz")) or None,
            _number(lines.take("capacity")) or None,
            lines.take("cur_path") or None,
            lines.take("limit_path") or None,
        )
        if online == "1":
            cores.append(core)
        else:
            offline.append(core.number)
    lines.expect_end()
    return Topology(tuple(sorted(cores, key=lambda core: core.number)), tuple(sorted(offline)))


def values_command(paths: Iterable[str]) -> str:
    """Prints the number in each of these files; `parse_values` reads it."""
    return counted("\n".join(f'v=; read -r v < {shlex.quote(path)}; say value "$v"' for path in paths))


def parse_values(text: str, count: int) -> list[int | None]:
    """What `values_command` printed of `count` files: None for one that could not be read. Raises `ParseError`."""
    lines = Lines(text)
    values = [_number(lines.take("value")) for _ in range(count)]
    lines.expect_end()
    return values


def parse_state(text: str) -> PhoneState:
    """What `STATE_COMMAND` printed. Raises `ParseError`."""
    lines = Lines(text)
    time_s = _number(lines.take("time"))
    battery = _battery(lines.take_all("battery"))
    statuses: list[str] = []
    sensors: dict[str, float] = {}
    while lines.next_key in ("thermal", "current", "sensor"):
        statuses += lines.take_all("thermal")
        if lines.take_all("current"):
            # What came before is what the service remembers: of a phone that was hot an hour ago, that it is hot.
            sensors.clear()
        sensors |= dict(_sensors(lines.take_all("sensor")))
    zones: dict[str, float] = {}
    while lines.next_key == "zone":
        name, temp = lines.take("zone"), lines.take("temp")
        value_c = zone_c(int(temp)) if re.fullmatch("-?[0-9]{1,12}", temp) else None
        if value_c is not None:
            zones[name] = max(value_c, zones.get(name, value_c))
    lines.expect_end()
    level, scale, tenths_c = (_number(battery.get(key, ""), signed=True) for key in ("level", "scale", "temperature"))
    scale = scale or 100
    powered = [value for key, value in battery.items() if key.endswith("powered") and value in ("true", "false")]
    status = re.fullmatch("Thermal Status: ([0-6])", statuses[0]) if statuses else None
    return PhoneState(
        time_s=time_s,
        battery_pct=100 * level // scale if level is not None and 0 <= level <= scale else None,
        battery_c=None if tenths_c is None else _sensible(tenths_c / 10),
        charging="true" in powered if powered else None,
        thermal_status=int(status[1]) if status else None,
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


def _battery(lines: list[str]) -> dict[str, str]:
    # The first of a kind comes last, and so wins: makers append lines of their own.
    return {key.strip(): value for key, found, value in (line.partition(": ") for line in reversed(lines)) if found}


def _sensors(lines: list[str]) -> Iterator[tuple[str, float]]:
    for line in lines:
        match = re.fullmatch(_SENSOR, line)
        value_c = _sensible(float(match[1])) if match else None
        if match and value_c is not None:
            kind, name = match[2], match[3]
            yield f"cpu {name}" if kind == _CPU and "cpu" not in name.lower() else name, value_c


def _sensible(value_c: float) -> float | None:
    return value_c if -40 <= value_c <= 200 else None


def _plain(path: str) -> bool:
    return shown_line(path) == path


def _number(text: str, signed: bool = False) -> int | None:
    return int(text) if re.fullmatch(f"{'-?' if signed else ''}[0-9]{{1,15}}", text) else None
