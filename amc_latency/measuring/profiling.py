"""`amc-latency profile`: from a network and a device to a complete latency table and its calibration's honest error."""

from __future__ import annotations

import hashlib
import math
import random
import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from amc_latency.android_bench.safe.files import replacing
from amc_latency.android_bench.safe.folders import WorkingFolder
from amc_latency.console import Console
from amc_latency.device.base import Device, DeviceIdentity, Protocol
from amc_latency.device.conditions import commonest_suspicion, measured_by, suspicions
from amc_latency.device.kinds import KINDS as DEVICE_KINDS
from amc_latency.device.profiles import profiles
from amc_latency.errors import JobError, OptionError, UserError
from amc_latency.graph.coupling import ChannelGroup
from amc_latency.lut.building.build import BuildReport, NetworkWorkload, Plan, build_table
from amc_latency.lut.building.plan import Choices, nearest_counts, uniform_counts
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.prediction.tabled import TabledDevice
from amc_latency.lut.shapes.architecture import Architecture, Searched, channel_choices
from amc_latency.lut.shapes.mixed import mixed_shapes
from amc_latency.lut.shapes.precisions import FLOAT32
from amc_latency.lut.shapes.shape import NetworkShape, network_text
from amc_latency.lut.table.reference_speed import go_on_at_reference
from amc_latency.lut.table.table import LatencyTable
from amc_latency.measuring.opening import HOST, open_device
from amc_latency.measuring.precisions import MixedPolicy, check_precisions, mixed_policies
from amc_latency.models.load import Network, cut_to
from amc_latency.prune.keep import KINDS, LEAST_KEEP, KeepBound, bound_of, check_bounds, check_used, layer_kinds
from amc_latency.quantize.architecture import mixed_architecture

Counts = tuple[int, ...]
UNIFORM = 5
"""Uniform widths, from the uncut network to the narrowest on the grid, that a table is calibrated on."""
RANDOM = 8
"""Random networks that it is calibrated on beside them: those are off in other ways than uniform ones."""
HELD_OUT = 4
"""Random networks that show the error of a calibration without them; afterwards they calibrate too."""


@dataclass(frozen=True)
class Grid:
    """Which counts a search may choose from, and so which layer shapes a table needs."""

    min_keep: KeepBound | None = None
    """smallest share of a group's channels that may be kept, `LEAST_KEEP` unless set"""
    step: int = 8
    """counts are multiples of this, and the full count"""
    max_keep: KeepBound | None = None
    """largest share, all unless set; a table has the uncut network's layers too"""
    precisions: tuple[str, ...] = (FLOAT32,)
    """that a layer may be in, as far as its kind has them"""

    def __post_init__(self) -> None:
        check_bounds(self.min_keep, self.max_keep, self.unset)
        check_precisions(self.precisions)
        if self.step < 1:
            raise OptionError("step", f"is at least 1, not {self.step}")

    @property
    def unset(self) -> float | None:
        """The smallest share where `min_keep` says nothing; None where the grid itself is the bound."""
        return LEAST_KEEP["channels"]

    @property
    def lowest(self) -> float:
        """The smallest share of any kind of group."""
        return min(bound_of(self.min_keep, kind) or LEAST_KEEP["channels"] for kind in KINDS)

    def choices_within(self, network: Network, counts: Counts) -> Choices:
        """The choices of `network` that are left where earlier rounds have cut it to `counts`."""
        return tuple(
            tuple(sorted({*(choice for choice in choices if choice < count), min(count, choices[-1])}))
            for choices, count in zip(self.choices(network), counts, strict=True)
        )

    def with_uncut(self, network: Network) -> Choices:
        """The choices and each group's full count: what a table answers for."""
        full = network.graph.architecture.group_channels
        return tuple(tuple(sorted({*each, count})) for each, count in zip(self.choices(network), full, strict=True))

    def choices(self, network: Network) -> Choices:
        """The counts that each coupled group may keep, ascending. Raises `UserError` where the bounds leave none.

        A group that is made by layers of both kinds keeps within both bounds.
        """
        groups, widths = network.graph.groups, network.graph.architecture.group_widths()
        kinds = [layer_kinds(network.model, group.producers) for group in groups]
        check_used(self.min_keep, self.max_keep, set().union(*kinds), "coupled group")
        return tuple(map(self._choices, groups, widths, kinds))

    def share_bounds(self, kinds: Collection[str]) -> tuple[float | None, float]:
        """The smallest share, None where nothing sets it, and the largest, of what layers of these kinds make."""
        least = [share for kind in kinds if (share := bound_of(self.min_keep, kind) or self.unset) is not None]
        return max(least, default=None), min(bound_of(self.max_keep, kind) or 1.0 for kind in kinds)

    def _choices(self, group: ChannelGroup, width: int, kinds: Collection[str]) -> Counts:
        low, high = self.share_bounds(kinds)
        assert low is not None
        # A count of a grouped convolution's groups stands for several channels of its layers.
        step = self.step // math.gcd(self.step, width)
        found = channel_choices(group.channels, low, step, group.least)
        within = tuple(count for count in found if count <= high * group.channels + 1e-9)
        if not within:
            raise UserError(
                f"group {group.name} has {group.channels} channels, and no multiple of {step} of them is from "
                f"{low:g} to {high:g} of that: give a smaller `step`, or other bounds by `min_keep` and `max_keep`"
            )
        return within


def plan_of(kind: Literal["learn", "grid"], goal: str) -> Plan:
    """A plan from the command line's words: a goal is a percentage, `1%` or `0.5`. Raises `UserError`."""
    try:
        percent = float(goal.strip().removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 < percent <= 50:
        raise OptionError("goal", f"is a percentage above 0 and at most 50, such as 0.5%, not '{goal}'")
    return Plan(kind, percent / 100)


@dataclass(frozen=True)
class ProfileReport:
    """What a profile did, and how well the table predicts networks that its calibration has not seen."""

    table: str
    device: str
    rows: int
    """timings in the table"""
    timed: int
    """timings made now"""
    incomplete: int
    """layer shapes and networks that some rounds failed for; the next profile tries these again"""
    layers: int
    """layer shapes in the table"""
    seconds: float
    goal_pct: float | None
    """mean error of layers that was asked for; None where no learning took place"""
    layers_mape_pct: float | None
    """mean error of layers drawn by chance as they weigh in the network's time, predicted before they were timed"""
    layers_standard_error_pct: float | None
    """of that mean"""
    layers_max_pct: float | None
    layers_noise_pct: float | None
    """how far timings of the same layers are off by chance"""
    layers_left: int | None
    """layers that a search may reach and that are told without being timed"""
    original_ms: float
    """the uncut network, as timed"""
    held_out_mape_pct: float | None
    """of networks that were timed, and that the calibration did not see; None if there are none"""
    held_out_max_pct: float | None
    suspect: int
    """timings in the table that cannot be trusted: see their conditions"""
    suspect_because: str | None
    """the most frequent reason"""
    calibrated: bool
    """False if the grid has too few networks to calibrate on"""


def table_path(identity: DeviceIdentity) -> Path:
    """Where a device's table lies unless `table` says otherwise: one file a device and runtime."""
    who = repr(sorted((name, value) for name, value in asdict(identity).items() if name != "estimated"))
    digest = hashlib.sha256(who.encode()).hexdigest()[:8]
    return tables_folder() / f"{identity.name}-{digest}.tsv"


def tables_folder() -> Path:
    """Where tables lie unless `table` says otherwise."""
    from platformdirs import user_data_path

    return user_data_path("amc-latency") / "tables"


def open_table(
    device: Device, protocol: Protocol | None, lut: Path | None, create: bool, writing: bool = False
) -> LatencyTable | None:
    """The device's latency table at `lut`, or where tables lie.

    One that does not exist is created, or else an error if it was named, and None if it was not. Without a protocol an
    existing table's own is taken. The device goes on at the speed at which an existing table's rows are given.
    With `writing` no other process may write it from now on. Raises `TableError`, also for a table of another device or
    protocol.
    """
    if isinstance(device, TabledDevice):
        device.table.expect(protocol=protocol)
        return device.table
    path = lut or table_path(device.identity)
    if path.exists() or (lut is not None and not create):
        table = LatencyTable.open(path, device.identity, protocol, writing)
        go_on_at_reference(device, table)
        return table
    return LatencyTable.create(path, device.identity, protocol or device.protocol) if create else None


def prediction_table(name: str | None, lut: Path | None) -> LatencyTable | None:
    """The table that a prediction is read from; no phone or GPU needs to be there for it.

    With neither name nor table, this computer's; a table alone answers whoever measured it. None where the device has
    no table yet. Raises `UserError` where it has several, and what registry and table raise.
    """
    if name is None and lut is not None:
        return LatencyTable.open(lut)
    name = name or HOST
    profile = profiles().get(name)
    if profile is None or DEVICE_KINDS[profile.kind].is_this_computer:
        with open_device(name, lut) as device:
            return open_table(device, None, lut, create=False)
    if lut is None:
        # Not `*`: another profile may be called NAME-fp16.
        found = sorted(tables_folder().glob(f"{name}-{'[0-9a-f]' * 8}.tsv"))
        if len(found) > 1:
            raise UserError(
                f"there are {len(found)} tables of {name}: choose with `table`: {', '.join(map(str, found))}"
            )
        if not found:
            return None
        lut = found[0]
    table = LatencyTable.open(lut)
    table.expect(replace(table.identity, name=name))
    return table


def complete_table(
    network: Network, device: Device, table: LatencyTable, grid: Grid, console: Console, plan: Plan = Plan()
) -> ProfileReport:
    """Time what `plan` asks for to predict all that a search of `network` on `grid` can reach; resumes after a kill.

    Raises `JobError` if a layer could not be timed, and whatever device and table raise.
    """
    # A cost model's table lies nowhere.
    place = table.path.resolve() if table.path.exists() else table.path
    console.detail(f"table {place}, {table.row_count:,} rows, of {device.text}")
    architecture = network.graph.architecture
    choices = grid.with_uncut(network)
    seen = _calibration_counts(architecture, grid, choices)
    held_out = _random_counts(architecture, grid, choices, HELD_OUT, "held-out", seen)
    if device.identity.estimated:
        # A cost model answers for every shape at once: nothing has to be read between them.
        plan = Plan("missing")
    if device.repeats is not None:
        # A replayed prediction must not pass for a timing; without the uncut network there is no target.
        seen, held_out = (
            [counts for counts in some if network_text(architecture.shapes(counts)) in device.repeats]
            for some in (seen, held_out)
        )
        seen = seen or [architecture.group_channels]
        plan = Plan("missing")
    # Beside the table, where a build that goes on after a kill finds and then removes it.
    folder = WorkingFolder(table.path)
    networks = [
        NetworkWorkload(architecture.shapes(counts), partial(_network_file, folder, network, counts))
        for counts in (*seen, *held_out)
    ]
    searched, values, policies = _precisions(network, grid, choices, device)
    networks += [
        NetworkWorkload(
            mixed_shapes(architecture, precisions, counts), partial(_mixed_file, folder, network, counts, precisions)
        )
        for counts, precisions in policies
    ]
    doing = "estimating" if device.identity.estimated else "timing on"
    with folder, console.progress(f"{doing} {device.identity.name}", 1) as meter:
        report = build_table(
            device,
            table,
            searched,
            values,
            networks,
            lambda done, total, *_: meter.update(done, total),
            plan=plan,
        )
    _check_errors(report)
    predictor = Predictor(table, map(architecture.shapes, seen))
    errors_pct = []
    for counts in held_out:
        shapes = architecture.shapes(counts)
        errors_pct.append(100 * abs(predictor.ms(shapes) / _measured_ms(predictor, shapes) - 1))
    workers = {worker for timing in table.rows if (worker := measured_by(timing.conditions))}
    # A fleet's were compared before their rows were mixed.
    if len(workers) > 1 and not device.working:
        console.warn(
            f"{table.path} holds rows of {len(workers)} devices ({', '.join(sorted(workers))}): they may differ"
        )
    suspect = [reasons for timing in table.rows if (reasons := suspicions(timing.conditions))]
    commonest = commonest_suspicion(suspect)
    check = report.checks[-1] if report.checks else None
    return ProfileReport(
        table=str(table.path),
        device=device.text,
        rows=table.row_count,
        timed=report.timed,
        incomplete=report.incomplete,
        layers=sum(" + " not in key for key in table.keys),
        seconds=round(report.seconds, 1),
        goal_pct=100 * plan.goal if check else None,
        layers_mape_pct=round(check.mean_pct, 2) if check else None,
        layers_standard_error_pct=round(check.standard_error_pct, 2) if check else None,
        layers_max_pct=round(check.max_pct, 2) if check else None,
        layers_noise_pct=round(check.noise_pct, 2) if check else None,
        layers_left=check.left if check else None,
        original_ms=_measured_ms(predictor, architecture.shapes()),
        held_out_mape_pct=round(statistics.fmean(errors_pct), 2) if errors_pct else None,
        held_out_max_pct=round(max(errors_pct), 2) if errors_pct else None,
        suspect=len(suspect),
        suspect_because=commonest[0] if commonest else None,
        calibrated=Predictor(table).calibration(architecture.shapes()).calibrated,
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


def _precisions(
    network: Network, grid: Grid, choices: Choices, device: Device
) -> tuple[Searched, Choices, list[MixedPolicy]]:
    """The network with the precisions that its layers may have, what they choose from, and what calibrates them."""
    architecture = network.graph.architecture
    if grid.precisions == (FLOAT32,):
        return architecture, choices, []
    mixed = mixed_architecture(network.graph, grid.precisions)
    answers = device.repeats is not None or device.identity.estimated
    policies = [] if answers else mixed_policies(mixed, choices, grid.lowest)
    return mixed, mixed.choices(choices), policies


def _mixed_file(folder: WorkingFolder, network: Network, counts: Counts, precisions: Sequence[str]) -> bytes:
    """As `_network_file`, in precisions; ranges are of noise, which no layer takes longer for."""
    shapes = network_text(mixed_shapes(network.graph.architecture, precisions, counts))
    path = folder.path() / f"{hashlib.sha256(shapes.encode()).hexdigest()[:16]}.tflite"
    if not path.exists():
        from amc_latency.export.quantised.export import quantised_by_noise

        with replacing(path) as temporary:
            temporary.write_bytes(quantised_by_noise(cut_to(network, counts).model, network.spec.input, precisions))
    return path.read_bytes()


def _network_file(folder: WorkingFolder, network: Network, counts: Counts) -> bytes:
    """Cut and written once a build, since each round asks again; named by its shapes, which are all that is timed."""
    shapes = network_text(network.graph.architecture.shapes(counts))
    path = folder.path() / f"{hashlib.sha256(shapes.encode()).hexdigest()[:16]}.tflite"
    if not path.exists():
        # Whoever only predicts need not wait for torch.
        from amc_latency.export.export import to_tflite

        with replacing(path) as temporary:
            temporary.write_bytes(to_tflite(cut_to(network, counts).model, network.spec.input))
    return path.read_bytes()


def _calibration_counts(architecture: Architecture, grid: Grid, choices: Choices) -> list[Counts]:
    """Uniform widths, the uncut network first, and random ones."""
    widths = [round(1 - i * (1 - grid.lowest) / (UNIFORM - 1), 6) for i in range(UNIFORM)]
    uniform = list(dict.fromkeys(uniform_counts(architecture, choices, width) for width in widths))
    return uniform + _random_counts(architecture, grid, choices, RANDOM, "calibration", uniform)


def _random_counts(
    architecture: Architecture, grid: Grid, choices: Choices, n: int, seed: str, other_than: Sequence[Counts]
) -> list[Counts]:
    """`n` networks that are not among the others, fewer where the grid has no more.

    By turns each group has a width of its own, and all have one that each is a little off of, as searches end.
    """
    rng = random.Random(f"{seed} networks 0")
    found: dict[Counts, None] = {}
    for i in range(20 * n):
        width = rng.uniform(grid.lowest, 1.0)
        wanted = [
            channels * (rng.uniform(grid.lowest, 1.0) if i % 2 else min(1.0, width * rng.uniform(0.8, 1.2)))
            for channels in architecture.group_channels
        ]
        counts = nearest_counts(choices, wanted)
        if len(found) < n and counts not in other_than:
            found[counts] = None
    return list(found)
