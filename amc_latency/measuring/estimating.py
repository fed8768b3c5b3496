"""`estimate`: a device's figures from its cost model, where nobody has the device at hand."""

from __future__ import annotations

from pathlib import Path

from amc_latency.errors import OptionError, UserError
from amc_latency.lut.prediction.estimate import CostModel, NetworkEstimate, NoCostModelError, cost_model, cost_models
from amc_latency.lut.prediction.estimate_device import EstimateDevice
from amc_latency.measuring.prediction import LayerCost, Prediction
from amc_latency.models.known_networks import KnownNetwork
from amc_latency.models.load import Network, check_counts


def estimate_device(name: str, lut: Path | None = None) -> EstimateDevice:
    """The device that stands in for `name`. Raises `UserError` where it has no cost model, or a table is named too."""
    return EstimateDevice(_cost_model(name, lut))


def estimate(
    network: Network | KnownNetwork, name: str | None, lut: Path | None, counts: tuple[int, ...] | None
) -> Prediction:
    """What the network cut to `counts` (uncut if None) would cost on the device `name`. Raises `UserError`."""
    model = _cost_model(name, lut)
    architecture = network.graph.architecture
    if counts is not None:
        check_counts(network.graph, counts)
    shapes, params_of = architecture.shapes(counts), architecture.params(counts)
    told = model.network(shapes)
    layers = [
        LayerCost(layer or shape.kind, shape.text, shape.macs, params, model.layer_ms(shape))
        for layer, shape, params in zip(network.graph.layer_names, shapes, params_of, strict=True)
    ]
    return Prediction(
        macs=sum(shape.macs for shape in shapes),
        params=sum(params_of),
        predicted_ms=told.ms,
        raw_ms=told.ms,
        standard_error_ms=told.standard_error_ms,
        interval_ms=told.interval_ms,
        estimated=True,
        calibration_networks=0,
        ops=len(shapes),
        covers_pct=100.0,
        missing=[],
        layers=layers,
        table=None,
        note=_note(model, told, len(layers)),
    )


def estimate_hint(name: str | None) -> str:
    """What to add where a device has no table: that it can be estimated, if it can."""
    return f"; or pass `estimate` for {name} figures that nobody measured" if name in cost_models() else ""


def bench_advice(device: str, file: str = "FILE") -> str:
    """What has to be done about an estimate before it is believed."""
    return f"estimated, not measured: time it on the phone, `amc-latency bench {file} --device {device}`"


def _cost_model(name: str | None, lut: Path | None) -> CostModel:
    if lut is not None:
        raise OptionError("estimate", "answers from a cost model and `table` from a table: pass one of them")
    if name is None:
        raise OptionError("estimate", f"needs the device that is meant: `device` {' or '.join(cost_models())}")
    try:
        return cost_model(name)
    except NoCostModelError as error:
        raise UserError(f"{error}. Or measure, without `estimate`") from None


def _note(model: CostModel, told: NetworkEstimate, layers: int) -> str:
    note = f"estimated, not measured: by a cost model of {model.name} fitted on {model.sources[0]}"
    if told.far:
        note += (
            f"; {told.far} of {layers} layers ({100 * told.far_share:.0f} % of the time) are unlike those, "
            "which makes the interval wide"
        )
    return note
