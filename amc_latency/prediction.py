"""`amc-latency predict`: a network's cost by layer, without running anything."""

from __future__ import annotations

from dataclasses import dataclass

from amc_latency.models.load import Network, check_counts
from lut.predict import Predictor
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
        note = f"the table has {calibration.networks} whole networks of this kind, too few to calibrate on"
    return Prediction(
        macs=sum(shape.macs for shape in shapes),
        params=sum(shape.params for shape in shapes),
        predicted_ms=None if predictor is None else predictor.ms(shapes),
        raw_ms=None if predictor is None else predictor.raw_ms(shapes),
        calibration_networks=0 if calibration is None else calibration.networks,
        layers=layers,
        table=None if table is None else str(table.path),
        note=note,
    )
