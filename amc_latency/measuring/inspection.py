"""`amc-latency inspect`: what of a network can be cut, what moves together and why, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from amc_latency.console import number_column, put, table_console
from amc_latency.graph.coupling import LeftWhole, Member
from amc_latency.lut.table.table import LatencyTable
from amc_latency.measuring.prediction import predict, share_text
from amc_latency.models.load import Network


@dataclass(frozen=True)
class Group:
    """A coupled group."""

    name: str
    channels: int
    width: int
    """channels of its layers that each of those stands for: more than 1 around grouped convolutions"""
    macs_pct: float
    """of the network's, in layers whose size depends on the group; a layer between two groups counts for both"""
    ms_pct: float | None
    """of the milliseconds of its layers; None without a table"""
    members: list[Member]


@dataclass(frozen=True)
class InspectedLayer:
    """A layer; groups are numbered from 1, as a policy has them."""

    name: str
    shape: str
    macs: int
    params: int
    ms_pct: float | None
    groups: list[int]
    """coupled groups that its size depends on"""


@dataclass(frozen=True)
class Inspection:
    """A network before anything is done to it."""

    model: str
    input: str
    macs: int
    params: int
    predicted_ms: float | None
    covers_pct: float | None
    """of the operators, what the table can tell; None without one"""
    groups: list[Group]
    left_whole: list[LeftWhole]
    layers: list[InspectedLayer]
    note: str | None


def inspect(network: Network, table: LatencyTable | None) -> Inspection:
    """What `network` is made of, with milliseconds where `table` has them. Raises what `predict` raises."""
    graph, architecture = network.graph, network.graph.architecture
    cost = predict(network, table, None)
    scopes = [architecture.scope(layer) for layer in architecture.layers]
    macs = [shape.macs for shape in architecture.shapes()]
    ms = [layer.ms for layer in cost.layers] if table is not None and len(cost.layers) == len(scopes) else []
    total_ms = sum(each for each in ms if each is not None)

    def share_pct(values: list[float], total: float, group: int) -> float:
        return 100 * sum(value for value, scope in zip(values, scopes, strict=True) if group in scope) / (total or 1)

    return Inspection(
        model=network.spec.name,
        input="x".join(map(str, network.spec.input)),
        macs=cost.macs,
        params=cost.params,
        predicted_ms=cost.predicted_ms,
        covers_pct=cost.covers_pct,
        groups=[
            Group(
                name=group.name,
                channels=group.channels,
                width=width,
                macs_pct=share_pct([float(each) for each in macs], cost.macs, index),
                ms_pct=share_pct([each or 0.0 for each in ms], total_ms, index) if ms else None,
                members=list(group.members),
            )
            for index, (group, width) in enumerate(zip(graph.groups, architecture.group_widths(), strict=True))
        ],
        left_whole=list(graph.left_whole),
        layers=[
            InspectedLayer(
                name=name,
                shape=shape.text,
                macs=shape.macs,
                params=params,
                ms_pct=100 * each / total_ms if ms and total_ms and (each := ms[i]) is not None else None,
                groups=[group + 1 for group in scopes[i]],
            )
            for i, (name, shape, params) in enumerate(
                zip(graph.layer_names, architecture.shapes(), architecture.params(), strict=True)
            )
        ],
        note=cost.note,
    )


def inspection_text(report: Inspection) -> None:
    """Layers, then groups with what moves together and why, then what is left whole."""
    table = Table("layer", "shape", number_column("MACs"), number_column("ms %"), "groups")
    for layer in report.layers:
        table.add_row(layer.name, layer.shape, f"{layer.macs:,}", _pct(layer.ms_pct), " ".join(map(str, layer.groups)))
    table_console().print(table)
    for number, group in enumerate(report.groups, 1):
        width = f" of {group.width}" if group.width > 1 else ""
        ms = "" if group.ms_pct is None else f", {group.ms_pct:.1f} % of the milliseconds"
        put(f"group {number}: {group.channels} channels{width}, in {group.macs_pct:.1f} % of the MACs{ms}")
        for member in group.members:
            put(f"    {member}")
    for left in report.left_whole:
        put(f"left whole: {left.module}, {left.channels} channels: {left.reason}")
    groups = f"{len(report.groups)} groups" if report.groups else "nothing can be cut"
    put(f"{report.model} {report.input}: {report.macs:,} MACs, {report.params:,} parameters, {groups}")
    if report.predicted_ms is not None:
        put(f"{report.predicted_ms:.4f} ms predicted")
    if report.covers_pct is not None:
        put(f"the table covers {share_text(report.covers_pct)} of the {len(report.layers)} ops")


def _pct(share: float | None) -> str:
    return "" if share is None else f"{share:.1f}"
