"""`amc-latency predict`: a network's cost by layer, without running anything."""

from __future__ import annotations

from dataclasses import dataclass

from amc_latency.models.load import Network, check_counts
from lut.block_predict import cover, is_block_table
from lut.headers import foreign_text, holds_estimates
from lut.predict import Predictor
from lut.shape import NetworkShape, network_text
from lut.table import LatencyTable


@dataclass(frozen=True)
class LayerCost:
    """One layer of a prediction; `ms` is before calibration, None without a table."""

    name: str
    shape: str
    macs: int
    params: int
    ms: float | None


@dataclass(frozen=True)
class Prediction:
    """What a network costs; `predicted_ms` is None without a table."""

    macs: int
    params: int
    """of the deployed network, batch-norm folded"""
    predicted_ms: float | None
    raw_ms: float | None
    """the layers' sum, before calibration"""
    standard_error_ms: float | None
    """of `predicted_ms`; None where the table is too small to tell"""
    interval_ms: tuple[float, float] | None
    """what is measured lies in here with a probability of 95 %"""
    estimated: bool
    """True if nobody measured on the device: the figures come from a cost model or from other people's block tables"""
    calibration_networks: int
    """whole networks that the calibration was fitted on; 0 if too few were timed"""
    layers: list[LayerCost]
    table: str | None
    note: str | None


def predict(network: Network, table: LatencyTable | None, counts: tuple[int, ...] | None) -> Prediction:
    """Predict the network cut to `counts` (uncut if None) from `table`; without one only MACs and parameters.

    Raises `UserError` for counts that don't fit, and `MissingShapeError` for a layer that the table cannot answer for.
    """
    architecture = network.graph.architecture
    if counts is not None:
        check_counts(architecture.group_channels, counts)
    shapes = architecture.shapes(counts)
    if table is not None and is_block_table(table):
        return _predict_by_blocks(network, table, shapes)
    predictor = None if table is None else Predictor(table)
    layers = [
        LayerCost(
            name=name or shape.kind,
            shape=shape.text,
            macs=shape.macs,
            params=shape.params,
            ms=None if predictor is None else predictor.layer_us(shape) / 1000,
        )
        for name, shape in zip(network.graph.layer_names, shapes, strict=True)
    ]
    calibration = None if predictor is None else predictor.calibration(shapes)
    note = None
    if calibration is None:
        note = "no latency table for this device yet: run `amc-latency profile`, or name one with --lut"
    elif not calibration.calibrated:
        note = (
            f"the table has {calibration.networks} whole networks of this kind, too few to calibrate on, "
            "and so to tell how far the prediction may be off"
        )
    mixed = None if table is None else foreign_text(table)
    return Prediction(
        macs=sum(shape.macs for shape in shapes),
        params=sum(shape.params for shape in shapes),
        predicted_ms=None if predictor is None else predictor.ms(shapes),
        raw_ms=None if predictor is None else predictor.raw_ms(shapes),
        standard_error_ms=None if predictor is None else predictor.standard_error_ms(shapes),
        interval_ms=None if predictor is None else predictor.interval_ms(shapes),
        estimated=table is not None and holds_estimates(table),
        calibration_networks=0 if calibration is None else calibration.networks,
        layers=layers,
        table=None if table is None else str(table.path),
        note="; ".join(filter(None, (note, mixed))) or None,
    )


def _predict_by_blocks(network: Network, table: LatencyTable, shapes: NetworkShape) -> Prediction:
    """From a table of other people's blocks; a row of the prediction is a block, not a layer."""
    names = [name or shape.kind for name, shape in zip(network.graph.layer_names, shapes, strict=True)]
    covered = cover(table, shapes)
    blocks = [
        LayerCost(
            name=" + ".join(names[block.start : block.stop]),
            shape=network_text(shapes[block.start : block.stop]),
            macs=sum(shape.macs for shape in shapes[block.start : block.stop]),
            params=sum(shape.params for shape in shapes[block.start : block.stop]),
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
        params=sum(shape.params for shape in shapes),
        predicted_ms=sum_ms,
        raw_ms=sum_ms,
        standard_error_ms=None,
        interval_ms=None,
        estimated=True,
        calibration_networks=0,
        layers=blocks,
        table=str(table.path),
        note="; ".join(filter(None, (note, foreign_text(table)))),
    )
