"""From the sum of a network's layers to what the whole network takes, fitted on whole networks that were timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from amc_latency.lut.prediction.uncertainty import FitError, fit_error
from amc_latency.lut.shapes.family import family
from amc_latency.lut.shapes.precisions import FLOAT32
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape

Term = Literal["none", "offset", "outputs", "weights", "quantised"]
Traffic = Mapping[str, Sequence[float]]
FEWEST_NETWORKS = 4
_FEWEST_TO_CHOOSE = 8
"""With fewer networks the one form is no better known than the other."""
_LEAST_SPREAD = 1.25


@dataclass(frozen=True)
class Calibration:
    """What whole networks cost: `scale * sum_ms + offset_ms + per_unit_ms * amount`.

    Beside the scale one term at most is fitted: a fixed offset; or one for each megabyte of outputs, which a network
    finds in the cache as a layer alone does, while of its weights only the layer alone does: where weights are slow,
    the scale is above 1 and this below 0. Or one for each megabyte of weights: back to back, a layer alone finds its
    own in the cache, and a network that is larger than the cache does not. Or one for each operator that is not
    float32, which alone in a file takes up to a microsecond longer than among others.
    """

    scale: float = 1.0
    offset_ms: float = 0.0
    per_unit_ms: float = 0.0
    term: Term = "none"
    """which term was fitted"""
    networks: int = 0
    """whole networks that were timed; with fewer than four nothing is fitted"""

    @property
    def calibrated(self) -> bool:
        """False for the identity that stands in where too few networks were timed."""
        return self.networks >= FEWEST_NETWORKS

    def amount(self, shapes: Sequence[LayerShape]) -> float:
        """Of what the term counts, in these layers: megabytes, or operators; 0 where it counts none."""
        return TRAFFIC[self.term](shapes) if self.term in TRAFFIC else 0.0

    def ms(self, sum_ms: float, amount: float) -> float:
        """Milliseconds of a network whose layers add up to `sum_ms`, and have so much of what the term counts."""
        return self.scale * sum_ms + self.offset_ms + self.per_unit_ms * amount

    def fitted(self, sum_ms: float, amount: float) -> tuple[float, ...]:
        """What the fitted coefficients are multiplied with."""
        return (sum_ms, *{"none": (), "offset": (1.0,)}.get(self.term, (amount,)))


def network_family(shapes: Sequence[LayerShape]) -> tuple[object, ...]:
    """What networks share that differ in widths and precisions of their layers alone: what one calibration holds for.

    Boundaries between precisions are not of it.
    """
    layers = [shape for shape in shapes if not KINDS[shape.kind].is_boundary]
    return (layers[0].c_in, *(family(shape)._replace(precision="") for shape in layers), layers[-1].c_out)


def outputs_mb(shapes: Sequence[LayerShape]) -> float:
    """Megabytes of all layers' outputs together, in their precisions."""
    return sum(shape.output_bytes for shape in shapes) / 1e6


def weights_mb(shapes: Sequence[LayerShape]) -> float:
    """Megabytes of all layers' parameters together, in their precisions."""
    return sum(shape.params_bytes for shape in shapes) / 1e6


def quantised(shapes: Sequence[LayerShape]) -> float:
    """How many operators are not float32, those that stand between precisions among them."""
    return float(sum(shape.precision != FLOAT32 for shape in shapes))


TRAFFIC: dict[str, Callable[[Sequence[LayerShape]], float]] = {
    "outputs": outputs_mb,
    "weights": weights_mb,
    "quantised": quantised,
}
"""What a term may count, by its name."""


def traffic_of(networks: Sequence[Sequence[LayerShape]]) -> dict[str, list[float]]:
    """How much of it each network has, by what may be counted."""
    return {name: [count(network) for network in networks] for name, count in TRAFFIC.items()}


def fit_calibration(
    sums_ms: Sequence[float], measured_ms: Sequence[float], traffic: Traffic | None = None
) -> Calibration:
    """Least squares of the relative error, so that small networks weigh as much as large ones.

    `traffic` is `traffic_of` the networks; without it the only term is an offset. Of all terms, the one counts by which
    networks left out are told best. Networks that are nearly alike say nothing about any and give a scale only.
    Fewer than four give the identity.
    """
    form = _form(sums_ms, measured_ms, traffic)
    if form is None:
        return Calibration(networks=len(sums_ms))
    term, columns = form
    scale, *rest = np.linalg.lstsq(columns, np.ones(len(columns)), rcond=None)[0].tolist()
    coefficient = rest[0] if rest else 0.0
    return Calibration(
        scale,
        offset_ms=coefficient if term == "offset" else 0.0,
        per_unit_ms=coefficient if term in TRAFFIC else 0.0,
        term=term,
        networks=len(columns),
    )


def calibration_error(
    sums_ms: Sequence[float],
    measured_ms: Sequence[float],
    layers_variances: Sequence[float],
    traffic: Traffic | None = None,
) -> FitError | None:
    """How far predictions by `fit_calibration` of the same networks may be off; None where it gives the identity.

    `layers_variances` are those of the sums, relative to their squares.
    """
    form = _form(sums_ms, measured_ms, traffic)
    return None if form is None else fit_error(form[1], layers_variances)


def _form(
    sums_ms: Sequence[float], measured_ms: Sequence[float], traffic: Traffic | None
) -> tuple[Term, np.ndarray] | None:
    """Which term is fitted, and what is fitted to 1 for each network, relative to its timing; None if nothing is."""
    sums, measured = np.asarray(sums_ms, float), np.asarray(measured_ms, float)
    if len(sums) < FEWEST_NETWORKS or not (sums.min() > 0 and measured.min() > 0):
        return None
    if sums.max() < _LEAST_SPREAD * sums.min():
        return "none", (sums / measured)[:, None]
    counted = {"offset": np.ones(len(sums))}
    if traffic is not None and len(sums) >= _FEWEST_TO_CHOOSE:
        counted |= {name: np.asarray(amounts, float) for name, amounts in traffic.items() if any(amounts)}
    forms: dict[Term, np.ndarray] = {
        name: np.stack([sums, values], axis=1) / measured[:, None]  # type: ignore[misc]
        for name, values in counted.items()
    }
    best = min(forms, key=lambda name: _left_out_error(forms[name]))
    return best, forms[best]


def _left_out_error(columns: np.ndarray) -> float:
    """Mean square of each network's residual in a fit without it."""
    inverse = np.linalg.pinv(columns.T @ columns)
    leverage = np.einsum("ij,jk,ik->i", columns, inverse, columns)
    residuals = 1 - columns @ inverse @ columns.sum(axis=0)
    return float(np.mean((residuals / np.maximum(1e-9, 1 - leverage)) ** 2))
