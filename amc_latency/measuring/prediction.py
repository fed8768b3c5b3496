"""`amc-latency predict`: a network's cost by layer, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amc_latency.lut.imports.block_predict import cover, is_block_table
from amc_latency.lut.prediction.estimate import cost_model, cost_models
from amc_latency.lut.prediction.predict import Coverage, Predictor
from amc_latency.lut.shapes.shape import NetworkShape, network_text
from amc_latency.lut.table.headers import foreign_text
from amc_latency.lut.table.table import LatencyTable
from amc_latency.models.known_networks import KnownNetwork
from amc_latency.models.load import Network, check_counts

_NAMED = 3
"""Shapes of those missing that a note names."""


@dataclass(frozen=True)
class LayerCost:
    """One layer of a prediction; `ms` is before calibration, None where no table tells."""

    name: str
    shape: str
    macs: int
    params: int
    ms: float | None


@dataclass(frozen=True)
class MissingOp:
    """A layer shape of the network that the table cannot tell."""

    shape: str
    ops: int
    """how many of the network's ops it is"""
    share_pct: float
    """of all ops"""
    estimated_ms: float | None
    """of those ops together, by the device's cost model, if it has one"""


@dataclass(frozen=True)
class Prediction:
    """What a network costs; `predicted_ms` is None without a table that covers all its ops."""

    macs: int
    params: int
    """of the deployed network, batch-norm folded"""
    predicted_ms: float | None
    raw_ms: float | None
    """the sum of the layers that are covered, before calibration: all of them, or a lower bound"""
    standard_error_ms: float | None
    """of `predicted_ms`; None where the table is too small to tell"""
    interval_ms: tuple[float, float] | None
    """what is measured lies in here with a probability of 95 %"""
    estimated: bool
    """True if nobody measured on the device: the figures come from a cost model or from other people's block tables"""
    calibration_networks: int
    """whole networks that the calibration was fitted on; 0 if too few were timed"""
    ops: int
    covers_pct: float | None
    """of the ops, what the table can tell; None without a table"""
    missing: list[MissingOp]
    """what it can't, most ops first"""
    layers: list[LayerCost]
    table: str | None
    note: str | None


def predict(network: Network | KnownNetwork, table: LatencyTable | None, counts: tuple[int, ...] | None) -> Prediction:
    """Predict the network cut to `counts` (uncut if None) from `table`; without one only MACs and parameters.

    A table that can't tell some layer gives no `predicted_ms` but says which. Raises `UserError` for counts that don't
    fit, and `MissingShapeError` for a table without the no-op, and for one of other people's blocks that lacks some.
    """
    architecture = network.graph.architecture
    if counts is not None:
        check_counts(network.graph, counts)
    shapes, params_of = architecture.shapes(counts), architecture.params(counts)
    if table is not None and is_block_table(table):
        return _predict_by_blocks(network, table, shapes, params_of)
    predictor = None if table is None else Predictor(table)
    coverage = None if predictor is None else predictor.coverage(shapes)
    untold = set() if coverage is None else set(coverage.missing)
    layers = [
        LayerCost(
            name=name or shape.kind,
            shape=shape.text,
            macs=shape.macs,
            params=params_of[index],
            ms=None if predictor is None or shape in untold else predictor.layer_us(shape) / 1000,
        )
        for index, (name, shape) in enumerate(zip(network.graph.layer_names, shapes, strict=True))
    ]
    missing = [] if coverage is None or table is None else _missing(shapes, coverage, table.identity.name)
    told = None if missing else predictor
    calibration = None if told is None else told.calibration(shapes)
    note = None
    if coverage is not None and missing:
        note = _missing_text(str(table.path) if table is not None else "", coverage, missing)
    elif calibration is None:
        note = "no latency table for this device yet: run `amc-latency profile`, or name one with `table`"
    elif not calibration.calibrated:
        note = (
            f"the table has {calibration.networks} whole networks of this kind, too few to calibrate on, "
            "and so to tell how far the prediction may be off"
        )
    mixed = None if table is None else foreign_text(table)
    return Prediction(
        macs=sum(shape.macs for shape in shapes),
        params=sum(params_of),
        predicted_ms=None if told is None else told.ms(shapes),
        raw_ms=None if predictor is None else sum(layer.ms for layer in layers if layer.ms is not None),
        standard_error_ms=None if told is None else told.standard_error_ms(shapes),
        interval_ms=None if told is None else told.interval_ms(shapes),
        estimated=predictor is not None and predictor.holds_estimates,
        calibration_networks=0 if calibration is None else calibration.networks,
        ops=len(shapes),
        covers_pct=None if coverage is None else coverage.share_pct,
        missing=missing,
        layers=layers,
        table=None if table is None else str(table.path),
        note="; ".join(filter(None, (note, mixed))) or None,
    )


def _missing(shapes: NetworkShape, coverage: Coverage, device: str) -> list[MissingOp]:
    model = cost_model(device) if device in cost_models() else None
    ops = {shape: shapes.count(shape) for shape in coverage.missing}
    return [
        MissingOp(
            shape=shape.text,
            ops=count,
            share_pct=100 * count / coverage.ops,
            estimated_ms=None if model is None else count * model.layer_ms(shape),
        )
        for shape, count in sorted(ops.items(), key=lambda item: -item[1])
    ]


def _missing_text(table: str, coverage: Coverage, missing: Sequence[MissingOp]) -> str:
    named = []
    for op in missing[:_NAMED]:
        estimated = "" if op.estimated_ms is None else f", ~{op.estimated_ms:.3f} ms"
        named.append(f"'{op.shape}' ({op.share_pct:.1f} %{estimated})")
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return (
        f"{table} covers {share_text(coverage.share_pct)} of the ops ({coverage.covered} of {coverage.ops}), not "
        f"{', '.join(named)}{more}: profile the network, with a `step` that its counts are multiples of, or import a "
        "log of it"
    )


def share_text(share_pct: float) -> str:
    """A share of a network's ops; all of them are 100 %, and no fewer are."""
    return "100 %" if share_pct == 100 else f"{min(share_pct, 99.9):.1f} %"


def _predict_by_blocks(
    network: Network | KnownNetwork, table: LatencyTable, shapes: NetworkShape, params_of: Sequence[int]
) -> Prediction:
    """From a table of other people's blocks; a row of the prediction is a block, not a layer."""
    names = [name or shape.kind for name, shape in zip(network.graph.layer_names, shapes, strict=True)]
    covered = cover(table, shapes)
    blocks = [
        LayerCost(
            name=" + ".join(names[block.start : block.stop]),
            shape=network_text(shapes[block.start : block.stop]),
            macs=sum(shape.macs for shape in shapes[block.start : block.stop]),
            params=sum(params_of[block.start : block.stop]),
            ms=block.us / 1000,
        )
        for block in covered
    ]
    sum_ms = sum(block.us for block in covered) / 1000
    note = (
        f"estimated, not measured: {len(covered)} blocks of the {table.identity.runtime} cover all {len(shapes)} "
        "layers (100 %); how far off it is for this network, nobody has measured"
    )
    return Prediction(
        macs=sum(shape.macs for shape in shapes),
        params=sum(params_of),
        predicted_ms=sum_ms,
        raw_ms=sum_ms,
        standard_error_ms=None,
        interval_ms=None,
        estimated=True,
        calibration_networks=0,
        ops=len(shapes),
        covers_pct=100.0,
        missing=[],
        layers=blocks,
        table=str(table.path),
        note="; ".join(filter(None, (note, foreign_text(table)))),
    )
