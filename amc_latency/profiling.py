"""`amc-latency profile`: from a network and a device to a complete latency table and its calibration's honest error."""

from __future__ import annotations

import hashlib
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from amc_latency.console import Console
from amc_latency.errors import JobError, UserError
from amc_latency.export import to_tflite
from amc_latency.models.load import Network, cut_to
from device.base import Device, DeviceIdentity, Protocol
from device.registry import get_device, known_devices
from lut.architecture import channel_choices
from lut.build import BuildReport, NetworkWorkload, build_table
from lut.plan import Choices, nearest_counts, uniform_counts
from lut.predict import Predictor
from lut.replay import ReplayDevice
from lut.shape import NetworkShape
from lut.table import LatencyTable

REPLAY = "replay"
UNIFORM_WIDTHS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Whole networks at these widths calibrate a table; the first is the uncut network, whose timing a target refers to."""
HELD_OUT = 4
"""Random networks that show the error of a calibration on the uniform ones alone; afterwards they calibrate too."""


@dataclass(frozen=True)
class Grid:
    """Which counts a search may choose from, and so which layer shapes a table needs."""

    min_keep: float = 0.2
    """smallest share of a group's channels that may be kept"""
    step: int = 8
    """counts are multiples of this, and the full count"""

    def __post_init__(self) -> None:
        if not 0 < self.min_keep <= 1 or self.step < 1:
            raise UserError(f"min-keep is in (0, 1] and step at least 1, not {self.min_keep} and {self.step}")

    def choices(self, network: Network) -> Choices:
        """The counts that each coupled group may keep, ascending."""
        return tuple(
            channel_choices(channels, self.min_keep, self.step)
            for channels in network.graph.architecture.group_channels
        )


@dataclass(frozen=True)
class ProfileReport:
    """What a profile did, and how well the table predicts networks that its calibration has not seen."""

    table: str
    device: str
    rows: int
    """timings in the table"""
    timed: int
    """timings made now"""
    errors: dict[str, str]
    seconds: float
    original_ms: float
    """the uncut network, as timed"""
    held_out_mape_pct: float
    held_out_max_pct: float


def open_device(name: str, lut: Path | None = None) -> Device:
    """The device called `name`; `replay` answers from the table `lut`. Raises what the registry and the table raise."""
    if name != REPLAY:
        return get_device(name)
    if lut is None:
        raise UserError("the replay device answers from a latency table: name one with --lut")
    return ReplayDevice(LatencyTable.open(lut))


def device_names() -> dict[str, str]:
    """Every device's name, and what is there now in a few words."""
    return {**known_devices(), REPLAY: "no hardware: answers from the table named by --lut"}


def table_path(identity: DeviceIdentity, protocol: Protocol) -> Path:
    """Where a device's table lies unless `--lut` says otherwise: one file a device, runtime and protocol."""
    from platformdirs import user_data_path

    who = repr((sorted(asdict(identity).items()), sorted(asdict(protocol).items())))
    digest = hashlib.sha256(who.encode()).hexdigest()[:8]
    return user_data_path("amc-latency") / "tables" / f"{identity.name}-{digest}.tsv"


def open_table(device: Device, protocol: Protocol | None, lut: Path | None, create: bool) -> LatencyTable | None:
    """The device's latency table at `lut`, or where tables lie; a new one, or None if `create` is false.

    Without a protocol an existing table's own is taken. Raises `TableError` for a table of another device or protocol.
    """
    if isinstance(device, ReplayDevice):
        return device.table
    path = lut or table_path(device.identity, protocol or Protocol())
    if path.exists():
        return LatencyTable.open(path, device.identity, protocol)
    return LatencyTable.create(path, device.identity, protocol or Protocol()) if create else None


def complete_table(
    network: Network, device: Device, table: LatencyTable, grid: Grid, console: Console, seed: int = 0
) -> ProfileReport:
    """Time whatever the table lacks of what a search of `network` on `grid` can reach; resumes where a kill left it.

    Raises `JobError` if a layer could not be timed, and whatever device and table raise.
    """
    architecture = network.graph.architecture
    choices = grid.choices(network)
    uniform = [uniform_counts(architecture, choices, width) for width in UNIFORM_WIDTHS]
    held_out = _random_counts(architecture.group_channels, choices, HELD_OUT, seed)
    policies = list(dict.fromkeys((*uniform, *held_out)))
    networks = [
        NetworkWorkload(architecture.shapes(counts), partial(_network_file, network, counts)) for counts in policies
    ]
    with console.progress(f"timing on {device.identity.name}", 1) as meter:
        report = build_table(
            device, table, architecture, choices, networks, lambda done, total, *_: meter.update(done, total), seed
        )
    _check_errors(report)
    seen = [architecture.shapes(counts) for counts in dict.fromkeys(uniform)]
    predictor = Predictor(table, seen)
    errors_pct = []
    for counts in held_out:
        shapes = architecture.shapes(counts)
        errors_pct.append(100 * abs(predictor.ms(shapes) / _measured_ms(predictor, shapes) - 1))
    return ProfileReport(
        table=str(table.path),
        device=f"{table.identity.name}, {table.identity.model}, {table.identity.runtime}",
        rows=len(table.rows),
        timed=report.timed,
        errors=report.errors,
        seconds=round(report.seconds, 1),
        original_ms=_measured_ms(predictor, architecture.shapes()),
        held_out_mape_pct=round(statistics.fmean(errors_pct), 2),
        held_out_max_pct=round(max(errors_pct), 2),
    )


def _measured_ms(predictor: Predictor, shapes: NetworkShape) -> float:
    measured_ms = predictor.measured_ms(shapes)
    assert measured_ms is not None, "complete_table times every network that it asks for"
    return measured_ms


def _check_errors(report: BuildReport) -> None:
    if report.errors:
        key, error = next(iter(report.errors.items()))
        more = f", and {len(report.errors) - 1} more" if len(report.errors) > 1 else ""
        raise JobError(
            f"could not time '{key[:120]}': {error}{more}. What was timed is kept; run again to try these once more"
        )


def _network_file(network: Network, counts: tuple[int, ...]) -> bytes:
    return to_tflite(cut_to(network, counts).model, network.spec.input)


def _random_counts(channels: Sequence[int], choices: Choices, n: int, seed: int) -> list[tuple[int, ...]]:
    rng = random.Random(f"held-out networks {seed}")
    return [nearest_counts(choices, [c * rng.uniform(0.2, 1.0) for c in channels]) for _ in range(n)]
