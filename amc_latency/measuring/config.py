"""What a profile and a timing of files are given. Light: the command line makes its options of these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from amc_latency.arguments.settings import at_least, check_settings, same, setting
from amc_latency.device.base import State
from amc_latency.device.kinds import PhoneOptions
from amc_latency.lut.shapes.precisions import FLOAT32, PRECISIONS
from amc_latency.measuring.precisions import check_precisions, parse_precisions
from amc_latency.prune.keep import KeepBound, parse_bound

DATA, DEVICE, SEARCH, TIMING = "Data", "Device", "Search", "Timing"


@dataclass(frozen=True)
class ProfileConfig:
    """Which layer shapes to time, and how."""

    device: str = setting("host", "which device: see `amc-latency devices`", DEVICE)
    lut: Path | None = setting(None, "latency table; in the user data folder unless set", DEVICE)
    min_keep: KeepBound | None = setting(
        None,
        "smallest share of a group that may be kept, for all or by kind: conv=0.2,linear=0.02; unless set 0.2 of "
        "channels, 0.05 of weights",
        SEARCH,
        read=parse_bound,
    )
    max_keep: KeepBound | None = setting(None, "largest share, likewise; all unless set", SEARCH, read=parse_bound)
    step: int = setting(8, "channel counts are multiples of this", SEARCH, rule=at_least(1))
    precision: tuple[str, ...] = setting(
        (FLOAT32,),
        f"of layers, with what stands between them: float32, or float32,int8; there are {', '.join(PRECISIONS)}",
        SEARCH,
        read=parse_precisions,
    )
    rounds: int | None = setting(None, "rounds of timing; the device's own unless set", TIMING)
    goal: str = setting("0.5%", "error of layers to stop at, on average, in percent of their latency", TIMING)
    plan: Literal["learn", "grid"] = setting(
        "learn", "learn the device's steps until the goal is met, or time a fixed grid", TIMING
    )
    workers: int | None = setting(
        None, "phones, or cores of the host, at once; all phones and one core unless set", DEVICE
    )

    def __post_init__(self) -> None:
        check_settings(self)
        check_precisions(self.precision)


@dataclass(frozen=True)
class AccuracyConfig:
    """Of which file, and on which images."""

    file: Path
    data: str = setting("auto", "images, as of a search: those of its test part are counted", DATA)
    normalisation: str | None = setting(
        None,
        "what the file expects of pixels, as of a network; of one that takes uint8 they are its bytes, else the data's "
        "own figures unless set",
        DATA,
    )
    images: int | None = setting(None, "test images, the first of them; all unless set", DATA, rule=at_least(1))
    input_shapes: tuple[str, ...] = setting(
        (), "1xHxWxC of an input whose sizes the file leaves open", DATA, option="--input-shape"
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class BenchConfig:
    """What to time, and how."""

    file: Path
    device: str = same(ProfileConfig, "device")
    rounds: int | None = setting(
        None,
        "rounds of timing, in fresh processes; as a table's networks get unless set; more where a speed-up is to be "
        "decided, or a neighbour was there",
        TIMING,
    )
    runs: int | None = setting(None, "counted runs a round, at least; 0.2 s of them unless set", TIMING)
    threads: int | None = setting(None, "1 unless set; more than one is timed by the wall clock", TIMING)
    op_profile: bool = setting(
        False,
        "also what each operator takes, on a phone, from a run of its own",
        TIMING,
    )
    input_shapes: tuple[str, ...] = setting(
        (),
        "[NAME=]1xHxWxC of an input whose sizes the file leaves open; repeatable",
        TIMING,
        option="--input-shape",
    )
    phone: PhoneOptions = PhoneOptions()
    state: State | None = setting(
        None, "only runs back to back (hot), or only after other memory was touched (frame)", TIMING
    )
    against: tuple[Path, ...] = setting(
        (), "another .tflite, timed in the same rounds, and compared; repeatable", TIMING
    )
    speedup: float | None = setting(
        None, "whether the file is so many times as fast as the first of the others; exit code 1 if it is not", TIMING
    )

    def __post_init__(self) -> None:
        check_settings(self)
