"""What a layer and a network cost on a device that nobody has at hand: a cost model fitted on published figures.

A layer costs the sum of its `features`, each a count of one kind of work times the nanoseconds that one such piece
takes on the device. `benchmarks/estimate.py` fits these, compares this model with others, and writes `estimates/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import CONFIG_BYTES
from amc_latency.android_bench.safe.records import from_toml, from_values
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape

FOLDER = Path(__file__).parents[1] / "estimates"
BEYOND = 1.5
"""A layer is far from all that was fitted once one of its sizes is this many times outside of those."""
_Z95 = 1.96


class NoCostModelError(ValueError):
    """A device that no cost model was fitted for: which have one."""


@dataclass(frozen=True)
class NetworkEstimate:
    """What a whole network is estimated to cost."""

    ms: float
    standard_error_ms: float
    interval_ms: tuple[float, float]
    """holds what a phone would show with a probability of 95 %, as far as the fit's own errors tell"""
    far: int
    """layers unlike all that the model was fitted on"""
    far_share: float
    """theirs of the milliseconds"""


@dataclass(frozen=True)
class CostModel:
    """One device's nanoseconds for each kind of work, what they were fitted on, and how far off they were there."""

    name: str
    """the device profile whose phone is meant"""
    model: str
    runtime: str
    sources: tuple[str, ...]
    ns: dict[str, float]
    """of one piece of each feature"""
    cache_bytes: float
    """up to this size a depthwise layer's input is still in the cache"""
    ranges: dict[str, dict[str, tuple[float, float]]]
    """least and most of each of `sizes` among the fitted layers, by sort"""
    layer_pct: dict[str, float]
    """standard error of one layer, by sort, independent of the others"""
    network_pct: float
    """standard error of a network of layers like the fitted ones, which all its layers share"""
    far_pct: float
    """the same of a network of layers unlike them"""
    unseen_pct: float = 0.0
    """by how much networks cost more than a fit without them tells: all layers are raised by it"""

    def layer_ms(self, shape: LayerShape) -> float:
        """The layer's milliseconds; 0 for the no-op."""
        ms = sum(self.ns[name] * count for name, count in features(shape, self.cache_bytes).items()) / 1e6
        return ms * (1 + self.unseen_pct / 100)

    def far(self, shape: LayerShape) -> bool:
        """Whether the layer is unlike all that the model was fitted on."""
        fitted = self.ranges.get(sort_of(shape))
        if fitted is None:
            return shape.kind != "noop"
        values = sizes(shape)
        return any(not low / BEYOND <= values[name] <= high * BEYOND for name, (low, high) in fitted.items())

    def network(self, shapes: Sequence[LayerShape]) -> NetworkEstimate:
        """The network's milliseconds, the sum of its layers', and how sure that is."""
        layers = [(shape, self.layer_ms(shape)) for shape in shapes]
        ms = sum(layer_ms for _, layer_ms in layers)
        far = [layer_ms for shape, layer_ms in layers if self.far(shape)]
        far_share = sum(far) / ms if ms else 0.0
        # What a fit has wrong is wrong in every layer, so it does not shrink with their number.
        shared_pct = math.hypot(self.network_pct, self.far_pct * far_share)
        own = (self.layer_pct.get(sort_of(shape), self.far_pct) * layer_ms for shape, layer_ms in layers)
        error_ms = math.hypot(shared_pct * ms, *own) / 100
        low_ms, high_ms = max(0.0, ms - _Z95 * error_ms), ms + _Z95 * error_ms
        return NetworkEstimate(ms, error_ms, (low_ms, high_ms), len(far), far_share)


def features(shape: LayerShape, cache_bytes: float) -> dict[str, float]:
    """How much of each kind of work a layer is, as TensorFlow Lite's float kernels of 2018 do it on one core."""
    return KINDS[shape.kind].work(shape, cache_bytes)


def sizes(shape: LayerShape) -> dict[str, float]:
    """What is compared when asked whether a layer is like another."""
    return {
        "c_in": shape.c_in,
        "c_out": shape.c_out,
        "pixels": shape.h_out * shape.w_out,
        "outputs_per_input": shape.c_out / shape.c_in,
    }


def sort_of(shape: LayerShape) -> str:
    """What layers share that are worth comparing, e.g. `conv k1 s1`."""
    width = f"x{shape.kernel_w}" if shape.kernel_w else ""
    return f"{shape.kind} k{shape.kernel}{width} s{shape.stride}"


def cost_models() -> tuple[str, ...]:
    """The devices that a cost model was fitted for."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@cache
def cost_model(name: str) -> CostModel:
    """The cost model of a device profile. Raises `NoCostModelError` naming those that have one."""
    path = FOLDER / f"{name}.toml"
    if name not in cost_models():
        known = ", ".join(cost_models())
        raise NoCostModelError(f"there is no cost model to estimate {name} by; there is one of: {known}")
    try:
        return model_of(name, from_toml(read_bytes(path, CONFIG_BYTES).decode(), dict[str, Any]))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise NoCostModelError(f"{path}: {why}: install amc-latency anew") from error


class _Errors(msgspec.Struct):
    layer_pct: dict[str, float]
    network_pct: float
    far_pct: float
    unseen_pct: float


class _File(msgspec.Struct):
    """What stands in a cost model's file."""

    model: str
    runtime: str
    sources: tuple[str, ...]
    ns: dict[str, float]
    cache_bytes: float
    fitted: dict[str, dict[str, tuple[float, float]]]
    errors: _Errors


def model_of(name: str, content: Mapping[str, Any]) -> CostModel:
    """The cost model that a file's content describes. Raises `RecordError` naming the field that is of another type."""
    found = from_values(content, _File)
    errors = found.errors
    return CostModel(
        name=name,
        model=found.model,
        runtime=found.runtime,
        sources=found.sources,
        ns=found.ns,
        cache_bytes=found.cache_bytes,
        ranges=found.fitted,
        layer_pct=errors.layer_pct,
        network_pct=errors.network_pct,
        far_pct=errors.far_pct,
        unseen_pct=errors.unseen_pct,
    )
