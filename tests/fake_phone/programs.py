"""The phone's own programs and files: what `getprop`, `dumpsys` and the kernel say, and how a test changes it.

`phone/bin` holds the programs, small shell scripts that answer from plain files; `phone/arm64_bin` those that a phone
with another processor than this computer's needs in addition. `make_phone` puts them into a folder, the phone's `/`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_PROGRAMS = Path(__file__).with_name("phone")


@dataclass(frozen=True)
class Core:
    """A processor core. Neighbours with the same frequency are a cluster."""

    number: int
    max_khz: int
    min_khz: int = 300_000


LITTLE_KHZ, BIG_KHZ = 1_593_600, 2_150_400
BIG_LITTLE = tuple(Core(number, LITTLE_KHZ if number < 2 else BIG_KHZ) for number in range(4))
"""Two slow cores and two fast ones, as the Pixel has them."""
ZONES = {"cpu-0-0": 31_400, "cpu-1-0": 32_600, "battery": 28_500, "skin-therm": 29_000}
"""Thermal zones, in thousandths of a degree Celsius."""


def own_cores() -> tuple[Core, ...]:
    """The cores that this process may use, so that `taskset` does what it says; the last is the fast one."""
    *slow, fast = sorted(os.sched_getaffinity(0))
    return (*(Core(number, LITTLE_KHZ) for number in slow), Core(fast, BIG_KHZ))


def make_phone(
    root: Path,
    *,
    model: str = "Pixel",
    device: str = "sailfish",
    manufacturer: str = "Google",
    soc: str = "msm8996",
    android: str = "10",
    sdk: int = 29,
    abi: Literal["x86_64", "arm64-v8a"] = "x86_64",
    fingerprint: str | None = None,
    bionic: bool | None = None,
    cores: Sequence[Core] | None = None,
    zones: Mapping[str, int] = ZONES,
) -> PhoneState:
    """Make a phone whose `/` is the folder `root`: `bin`, `sys`, `system`, `data/local/tmp`, and its state in `state`.

    `bionic` says whether it has Android's linker, which tells a phone from a board with plain Linux; None means on
    arm64 only, for what runs on the other are this computer's programs. Cores are `own_cores()` or, on arm64,
    `BIG_LITTLE`.
    """
    cores = cores or (own_cores() if abi == "x86_64" else BIG_LITTLE)
    (root / "data/local/tmp").mkdir(parents=True, exist_ok=True)
    _copy_programs(_PROGRAMS / "bin", root / "bin")
    if abi == "arm64-v8a":
        _copy_programs(_PROGRAMS / "arm64_bin", root / "bin")
        _write(root / "proc/cpuinfo", _arm64_cpuinfo(cores, soc))
    if bionic or (bionic is None and abi == "arm64-v8a"):
        _write(root / "system/bin/linker64", "")
    for namespace in ("global", "secure", "system"):
        (root / "state/settings" / namespace).mkdir(parents=True, exist_ok=True)

    state = PhoneState(root)
    state.set_properties(
        {
            "ro.product.model": model,
            "ro.product.manufacturer": manufacturer,
            "ro.product.device": device,
            "ro.product.name": device,
            "ro.product.cpu.abi": abi,
            "ro.product.cpu.abilist": abi,
            "ro.board.platform": soc,
            "ro.build.version.release": android,
            "ro.build.version.sdk": str(sdk),
            "ro.build.fingerprint": fingerprint
            or f"{manufacturer.lower()}/{device}/{device}:{android}/TEST.1/1:user/release-keys",
        }
    )
    if sdk >= 31:  # Android 12 was the first to say
        state.set_properties({"ro.soc.model": soc})
    _write(root / "state/core_mask", f"{sum(1 << core.number for core in cores):x}")
    _write(root / "state/fixed_performance", "0")
    _make_cpus(root / "sys/devices/system/cpu", cores)
    for index, (zone, thousandths_c) in enumerate(zones.items()):
        _write(root / f"sys/class/thermal/thermal_zone{index}/type", zone)
        _write(root / f"sys/class/thermal/thermal_zone{index}/temp", str(thousandths_c))
    state.set_battery(level_pct=85, temperature_c=28.5, usb=True)
    state.set_thermal_status(0)
    return state


@dataclass(frozen=True)
class PhoneState:
    """What a phone made by `make_phone` says, to be changed while it runs, and what was changed on it."""

    root: Path

    def set_properties(self, properties: Mapping[str, str]) -> None:
        """What `getprop` says."""
        for name, value in properties.items():
            _write(self.root / "state/props" / name, value)

    def set_battery(
        self, *, level_pct: int | None = None, temperature_c: float | None = None, usb: bool | None = None
    ) -> None:
        """Its charge, its temperature, and whether a cable is in."""
        supply = self.root / "sys/class/power_supply"
        if level_pct is not None:
            _write(supply / "battery/capacity", str(level_pct))
        if temperature_c is not None:
            _write(supply / "battery/temp", str(round(10 * temperature_c)))
        if usb is not None:
            _write(supply / "usb/online", str(int(usb)))

    def set_thermal_status(self, status: int) -> None:
        """0 none to 6 shutdown."""
        _write(self.root / "state/thermal_status", str(status))

    def set_temperature(self, celsius: float, zone: str | None = None) -> None:
        """The temperature of the zone of that name, or of all of them."""
        for folder in sorted((self.root / "sys/class/thermal").iterdir()):
            if zone in (None, (folder / "type").read_text().strip()):
                _write(folder / "temp", str(round(1000 * celsius)))

    def set_frequency(self, core: int, khz: int, cap_khz: int | None = None) -> None:
        """The frequency of a core's cluster now, and the most that it is allowed, if that changes too."""
        cpufreq = self.root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        _write(cpufreq / "scaling_cur_freq", str(khz))
        if cap_khz is not None:
            _write(cpufreq / "scaling_max_freq", str(cap_khz))

    def throttle(self, khz: int, status: int = 1) -> None:
        """Hold every core at `khz` or what it can, whichever is less, and say so as the thermal status."""
        for core in self.cores:
            maximum = int((self.root / f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq").read_text())
            self.set_frequency(core, min(khz, maximum), min(khz, maximum))
        self.set_thermal_status(status)

    def unthrottle(self) -> None:
        """Every core at its most again, no thermal status."""
        self.throttle(10**9, status=0)

    @property
    def cores(self) -> tuple[int, ...]:
        """The numbers of its cores."""
        mask = int((self.root / "state/core_mask").read_text(), 16)
        return tuple(number for number in range(mask.bit_length()) if mask >> number & 1)

    def setting(self, name: str, namespace: str = "global") -> str | None:
        """What `settings` was told last, None if the setting is not set."""
        file = self.root / "state/settings" / namespace / name
        return file.read_text().strip() if file.exists() else None

    @property
    def fixed_performance(self) -> bool:
        """Whether the fixed performance mode is on."""
        return (self.root / "state/fixed_performance").read_text().strip() == "1"

    @property
    def taskset_masks(self) -> list[str]:
        """The masks that `taskset` was given so far; on arm64 only, elsewhere the real `taskset` runs."""
        log = self.root / "state/taskset.log"
        return log.read_text().split() if log.exists() else []


def _copy_programs(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for program in source.iterdir():
        shutil.copyfile(program, target / program.name)
        (target / program.name).chmod(0o755)


def _make_cpus(folder: Path, cores: Sequence[Core]) -> None:
    numbers = [core.number for core in cores]
    _write(folder / "kernel_max", str(max(numbers)))
    for name in ("possible", "present", "online"):
        _write(folder / name, _ranges(numbers))
    for index, cluster in enumerate(_clusters(cores)):
        of_cluster = [core.number for core in cluster]
        spaced, slowest, fastest = " ".join(map(str, of_cluster)), str(cluster[0].min_khz), str(cluster[0].max_khz)
        policy = folder / f"cpufreq/policy{of_cluster[0]}"
        for name, value in {
            "affected_cpus": spaced,
            "related_cpus": spaced,
            "cpuinfo_min_freq": slowest,
            "cpuinfo_max_freq": fastest,
            "scaling_min_freq": slowest,
            "scaling_max_freq": fastest,
            "scaling_cur_freq": fastest,
            "scaling_available_frequencies": f"{slowest} {fastest}",
            "scaling_governor": "schedutil",
            "scaling_available_governors": "schedutil performance powersave",
        }.items():
            _write(policy / name, value)
        for position, core in enumerate(cluster):
            cpu = folder / f"cpu{core.number}"
            _write(cpu / "online", "1")
            _write(cpu / "cpu_capacity", str(1024 * core.max_khz // max(each.max_khz for each in cores)))
            for name, value in {
                "physical_package_id": str(index),
                "core_id": str(position),
                "core_siblings_list": _ranges(of_cluster),
                "cluster_cpus_list": _ranges(of_cluster),
                "thread_siblings_list": str(core.number),
            }.items():
                _write(cpu / "topology" / name, value)
            (cpu / "cpufreq").symlink_to(Path("../cpufreq") / policy.name)


def _clusters(cores: Iterable[Core]) -> list[list[Core]]:
    clusters: list[list[Core]] = []
    for core in cores:
        if clusters and clusters[-1][-1].max_khz == core.max_khz:
            clusters[-1].append(core)
        else:
            clusters.append([core])
    return clusters


def _ranges(numbers: Sequence[int]) -> str:
    """As the kernel writes lists: `0-3,6`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _arm64_cpuinfo(cores: Sequence[Core], soc: str) -> str:
    # Runtimes choose their kernels by these features: those of a Cortex-A55 (0x41, 0xd05).
    features = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
    blocks = [
        f"processor\t: {core.number}\nBogoMIPS\t: 38.40\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd05\nCPU revision\t: 0\n"
        for core in cores
    ]
    return "\n".join(["Processor\t: AArch64 Processor rev 0 (aarch64)", *blocks, f"Hardware\t: {soc}"])


def _write(path: Path, text: str) -> None:
    """Replace the file at once: the phone may be reading it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text + "\n")
    new.replace(path)
