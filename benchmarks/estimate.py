"""How well a phone's cost model tells networks that it was not fitted on; with `--write`, fits the one that ships.

Fits several forms of model on the published Pixel 1 figures of MobileNetV1 1.0 and tells 0.75, and the other way round;
leaves out every layer shape once; tells MobileNetV2 as an outside check; and shows how far the forms agree on irregular
channel counts. The figures lie beside the repository, in `../shared/pixel1`, and do not ship.
"""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tomli_w
from amc_latency.lut.prediction.estimate import FOLDER, CostModel, features, model_of, sizes, sort_of
from amc_latency.lut.shapes.shape import LayerShape
from scipy.optimize import nnls

from benchmarks.common import parser_of

DATA = Path(__file__).resolve().parents[1] / "../shared/pixel1"
IRREGULAR = (24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752)
"""Channel counts such as a search ends with."""
CACHE_BYTES = [50_000 * i for i in range(4, 25)]
NETWORKS = ("mobilenet", "0.75mobilenet")
SOURCES = ["mit-han-lab/amc-models, logs of MobileNetV1 1.0 and 0.75 at 224x224 (MIT licence)"]
CHECK_SOURCE = "tensorflow/models, MobileNetV2 README (Apache-2.0), for the error on unlike networks"

Features = dict[str, float]
Form = Callable[[LayerShape, float], Features]


@dataclass(frozen=True)
class Op:
    """One op of a published network: the mean of its runs, as `lut import` books them."""

    network: str
    shape: LayerShape
    ms: float


@dataclass(frozen=True)
class Fit:
    """A form with its coefficients."""

    form: Form
    ns: Features
    cache_bytes: float

    def ms(self, shape: LayerShape) -> float:
        return sum(self.ns.get(name, 0.0) * count for name, count in self.form(shape, self.cache_bytes).items()) / 1e6


def rate(shape: LayerShape, cache_bytes: float) -> Features:
    """The baseline: so many MACs a second for each kind of layer."""
    if shape.kind == "global_pool":
        return features(shape, cache_bytes)
    return {sort_of(shape): shape.macs}


def traffic(shape: LayerShape, cache_bytes: float) -> Features:
    """MACs, weights, and every output once."""
    found = features(shape, cache_bytes)
    if shape.kind == "conv":
        found["outputs"] = shape.c_out * shape.h_out * shape.w_out
        del found["strided_weights"]
    return found


def passes(shape: LayerShape, cache_bytes: float) -> Features:
    """MACs, weights, and every output once a block of inputs."""
    found = features(shape, cache_bytes)
    found.pop("strided_weights", None)
    return found


def tails(shape: LayerShape, cache_bytes: float) -> Features:
    """As shipped, and the outputs that are left over from registers of 12."""
    found = features(shape, cache_bytes)
    if shape.kind == "conv":
        found["tail_macs"] = shape.macs / shape.c_out * (shape.c_out % 12)
    return found


def powers(shape: LayerShape, cache_bytes: float) -> Features:
    """Every output once, and dearer weights where outputs are a power of two from 256 on: cache lines that collide."""
    found = traffic(shape, cache_bytes)
    if shape.kind == "conv" and shape.c_out >= 256 and shape.c_out & (shape.c_out - 1) == 0:
        found["colliding_weights"] = found["weights"]
    return found


def fit(form: Form, ops: Sequence[Op]) -> Fit:
    """Least squares of the relative error with no negative cost; of the cache sizes, the one that fits best."""
    tried = []
    for cache_bytes in CACHE_BYTES:
        rows = [form(op.shape, cache_bytes) for op in ops]
        names = sorted({name for row in rows for name in row})
        # Counts reach 5e7 and times 1e-2: without a common size the solver would stop early.
        sizes_ = {name: max(row.get(name, 0.0) for row in rows) or 1.0 for name in names}
        matrix = np.array(
            [[row.get(name, 0.0) / sizes_[name] / op.ms for name in names] for row, op in zip(rows, ops, strict=True)]
        )
        solution, error = nnls(matrix, np.ones(len(ops)))
        ns = {name: 1e6 * float(value) / sizes_[name] for name, value in zip(names, solution, strict=True)}
        tried.append((error, Fit(form, ns, float(cache_bytes))))
    return min(tried, key=lambda each: each[0])[1]


class Interpolated:
    """No model of the work: for each sort and size a plane through the logs of ns a MAC, inputs and outputs.

    Of the planes that fit equally, the flattest: a single known layer is as good as its neighbours.
    """

    def __init__(self, ops: Sequence[Op]) -> None:
        self._known: dict[tuple[str, int], list[Op]] = defaultdict(list)
        for op in ops:
            self._known[self._family(op.shape)].append(op)

    def ms(self, shape: LayerShape) -> float:
        """The layer's milliseconds; for an unknown size as at the nearest."""
        sort, pixels = self._family(shape)
        same_sort = [known for known in self._known if known[0] == sort]
        ops = self._known[min(same_sort, key=lambda known: abs(math.log(known[1] / pixels)))]
        points = np.array([self._point(op.shape) for op in ops])
        logs = np.array([math.log(op.ms / self._work(op.shape)) for op in ops])
        centre = points.mean(axis=0)
        slopes = np.linalg.lstsq(points - centre, logs - logs.mean(), rcond=1e-6)[0]
        return self._work(shape) * math.exp(logs.mean() + (self._point(shape) - centre) @ slopes)

    @staticmethod
    def _family(shape: LayerShape) -> tuple[str, int]:
        return sort_of(shape), shape.h_out * shape.w_out

    @staticmethod
    def _point(shape: LayerShape) -> np.ndarray:
        return np.log([shape.c_in, shape.c_out])

    @staticmethod
    def _work(shape: LayerShape) -> int:
        return shape.macs or shape.c_in * shape.h * shape.w


SHIPPED = "... and far strides (shipped)"
FORMS: dict[str, Callable[[Sequence[Op]], Fit | Interpolated]] = {
    "GMAC/s by kind": partial(fit, rate),
    "GMAC/s, interpolated": Interpolated,
    "MACs, weights, outputs": partial(fit, traffic),
    "... outputs by pass": partial(fit, passes),
    SHIPPED: partial(fit, features),
    "... and tails of 12": partial(fit, tails),
    "powers of two collide": partial(fit, powers),
}
BASELINES = 2
"""Of these, those that only know the arithmetic."""


def read_ops() -> list[Op]:
    """Every op of both networks; the classifier has 1,001 outputs."""
    runs: dict[tuple[str, str], tuple[LayerShape, list[float]]] = {}
    with (DATA / "per_op.csv").open() as file:
        for row in csv.DictReader(file):
            key = (row["model"], row["op"])
            runs.setdefault(key, (_shape(row), []))[1].append(float(row["avg_ms"]))
    return [Op(network, shape, statistics.fmean(times)) for (network, _), (shape, times) in runs.items()]


def _shape(row: dict[str, str]) -> LayerShape:
    c_in, c_out, size, stride = (int(row[name]) for name in ("c_in", "c_out", "in_hw", "stride"))
    match row["kind"]:
        case "conv":
            return LayerShape("conv", c_in, c_out, size, size, 3, stride, 1, "relu6")
        case "dw":
            return LayerShape("depthwise", c_in, c_out, size, size, 3, stride, 1, "relu6")
        case "pw":
            return LayerShape("conv", c_in, c_out, size, size, 1, 1, 0, "relu6")
        case "pool":
            return LayerShape("global_pool", c_in, c_out, size, size)
    return LayerShape("linear", c_in, c_out)


def end_to_end() -> list[dict[str, str]]:
    """Whole networks' published latencies."""
    with (DATA / "end_to_end.csv").open() as file:
        return list(csv.DictReader(file))


def mobilenet_v1(channels: Sequence[int], size: int = 224) -> list[LayerShape]:
    """All 29 layers, 14 channel counts."""
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    shapes = [LayerShape("conv", 3, channels[0], size, size, 3, 2, 1, "relu6")]
    for c_in, c_out, stride in zip(channels, channels[1:], strides, strict=False):
        size = shapes[-1].h_out
        shapes.append(LayerShape("depthwise", c_in, c_in, size, size, 3, stride, 1, "relu6"))
        size = shapes[-1].h_out
        shapes.append(LayerShape("conv", c_in, c_out, size, size, 1, 1, 0, "relu6"))
    last = channels[-1]
    return [*shapes, LayerShape("global_pool", last, last, size, size), LayerShape("linear", last, 1001)]


def mobilenet_v2(width: float, size: int) -> list[LayerShape]:
    """Sandler et al., arXiv 1801.04381, with channels as TensorFlow rounds them."""

    def rounded(count: float) -> int:
        near = max(8, int(count * width + 4) // 8 * 8)
        return near + 8 if near < 0.9 * count * width else near

    c_in = rounded(32)
    shapes = [LayerShape("conv", 3, c_in, size, size, 3, 2, 1, "relu6")]
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for factor, outputs, repeats, first_stride in blocks:
        for index in range(repeats):
            stride, wide, c_out = first_stride if index == 0 else 1, factor * c_in, rounded(outputs)
            size = shapes[-1].h_out
            if factor > 1:
                shapes.append(LayerShape("conv", c_in, wide, size, size, 1, 1, 0, "relu6"))
            shapes.append(LayerShape("depthwise", wide, wide, size, size, 3, stride, 1, "relu6"))
            size = shapes[-1].h_out
            shapes.append(LayerShape("conv", wide, c_out, size, size))
            if stride == 1 and c_in == c_out:
                shapes.append(LayerShape("add", c_out, c_out, size, size))
            c_in = c_out
    last = rounded(1280) if width > 1 else 1280
    shapes.append(LayerShape("conv", c_in, last, size, size, 1, 1, 0, "relu6"))
    return [*shapes, LayerShape("global_pool", last, last, size, size), LayerShape("linear", last, 1001)]


def error_pct(fitted: Fit | Interpolated, ops: Iterable[Op]) -> float:
    """Of the ops' sum."""
    ops = list(ops)
    return 100 * (sum(fitted.ms(op.shape) for op in ops) / sum(op.ms for op in ops) - 1)


def rms(values: Iterable[float]) -> float:
    """Root of the mean square."""
    return math.sqrt(statistics.fmean(value**2 for value in values))


def layer_errors(fitted: Fit | Interpolated, ops: Iterable[Op]) -> list[float]:
    """Of each op, in percent."""
    return [error_pct(fitted, [op]) for op in ops]


def left_out_errors(
    fit_form: Callable[[Sequence[Op]], Fit | Interpolated], ops: Sequence[Op]
) -> dict[str, list[float]]:
    """Each layer shape told by a fit without it, in percent, by sort."""
    errors = defaultdict(list)
    for shape in dict.fromkeys(op.shape for op in ops):
        fitted = fit_form([op for op in ops if op.shape != shape])
        own = [op.ms for op in ops if op.shape == shape]
        errors[sort_of(shape)].append(100 * (fitted.ms(shape) / statistics.median(own) - 1))
    return errors


def outside_check(model: CostModel) -> list[dict[str, float]]:
    """MobileNetV2 at every published width and resolution, from another build of the runtime."""
    found = []
    for row in end_to_end():
        if row["model"].startswith("MobileNetV2_"):
            width, size, ms = float(row["model"].partition("_")[2]), int(row["resolution"]), float(row["latency_ms"])
            told = model.network(mobilenet_v2(width, size))
            error = 100 * (told.ms / ms - 1)
            found.append({"width": width, "size": size, "ms": ms, "error_pct": error, "far_share": told.far_share})
    return found


def ranges(ops: Iterable[Op]) -> dict[str, dict[str, list[float]]]:
    """Least and most of every size, by sort."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for op in ops:
        for name, value in sizes(op.shape).items():
            values[sort_of(op.shape)][name].append(value)
    return {
        sort: {name: [round(min(found), 4), round(max(found), 4)] for name, found in by_size.items()}
        for sort, by_size in values.items()
    }


def main() -> None:
    """Print the comparison; `--write` puts the shipped form's coefficients into the package."""
    parser = parser_of(__doc__, json=True)
    parser.add_argument("--write", action="store_true", help="rewrite lut/estimates/pixel1.toml")
    options = parser.parse_args()
    if not DATA.is_dir():
        parser.exit(1, f"the published figures are not at {DATA}\n")
    ops = read_ops()
    one, small = ([op for op in ops if op.network == name] for name in NETWORKS)
    irregular = mobilenet_v1(IRREGULAR)
    table = []
    for name, fit_form in FORMS.items():
        both = fit_form(ops)
        table.append(
            {
                "form": name,
                "layer_rms_pct": rms(layer_errors(both, ops)),
                "left_out_rms_pct": rms(
                    error for errors in left_out_errors(fit_form, ops).values() for error in errors
                ),
                "one_pct": error_pct(both, one),
                "small_pct": error_pct(both, small),
                "one_to_small_pct": error_pct(fit_form(one), small),
                "small_to_one_pct": error_pct(fit_form(small), one),
                "irregular_ms": sum(map(both.ms, irregular)),
            }
        )
    fitted = fit(features, ops)
    errors = left_out_errors(partial(fit, features), ops)
    # The form was chosen by these very errors, so its own would flatter it: those of all forms that follow what the
    # device does, not only its arithmetic.
    shipped = next(row for row in table if row["form"] == SHIPPED)
    # Both networks come out low when told by the other: what a fit has not seen is less regular than what it has.
    unseen_pct = -statistics.fmean([shipped["one_to_small_pct"], shipped["small_to_one_pct"]])
    crossed = [row[key] for row in table[BASELINES:] for key in ("one_to_small_pct", "small_to_one_pct")]
    content = {
        "model": "Google Pixel, Pixel XL (estimated, not measured)",
        "runtime": "TensorFlow Lite of 2018, float32, 1 thread (cost model)",
        "sources": [*SOURCES, CHECK_SOURCE],
        "cache_bytes": fitted.cache_bytes,
        "ns": {name: float(f"{ns:.5g}") for name, ns in fitted.ns.items()},
        "errors": {
            "network_pct": round(rms(crossed), 2),
            "far_pct": 0.0,
            "unseen_pct": round(unseen_pct, 2),
            "layer_pct": {sort: round(rms(of_sort), 1) for sort, of_sort in errors.items()},
        },
        "fitted": ranges(ops),
    }
    model = model_of("pixel1", content)
    check = outside_check(model)
    far_pct = math.sqrt(sum(row["error_pct"] ** 2 for row in check) / sum(row["far_share"] ** 2 for row in check))
    content["errors"]["far_pct"] = round(far_pct, 1)
    model = model_of("pixel1", content)
    told = model.network(irregular)
    if options.write:
        header = (
            "# Written by benchmarks/estimate.py: costs in nanoseconds, fitted on the figures named in `sources`.\n"
        )
        # A pair a line.
        text = re.sub(r"= \[\n +(\S+),\n +(\S+),\n\]", r"= [\1, \2]", tomli_w.dumps(content))
        (FOLDER / "pixel1.toml").write_text(header + text)
    if options.json:
        print(json.dumps({"forms": table, "outside": check, "irregular_ms": told.ms, "interval_ms": told.interval_ms}))
        return
    print(f"{'':31} layers' error %   whole network's error %, fitted on                     irregular")
    print(f"{'form':31} rms  left out   both: 1.0, 0.75   1.0, tells 0.75   0.75, tells 1.0    ms")
    for row in table:
        print(
            f"{row['form']:30} {row['layer_rms_pct']:4.1f} {row['left_out_rms_pct']:9.1f}"
            f" {row['one_pct']:+9.2f} {row['small_pct']:+7.2f} {row['one_to_small_pct']:+17.2f}"
            f" {row['small_to_one_pct']:+17.2f} {row['irregular_ms']:8.2f}"
        )
    print("\nthe shipped form, fitted on both:")
    for name, ns in content["ns"].items():
        print(f"  {name:16} {ns:9.4g} ns each")
    print(f"  cache {fitted.cache_bytes / 1e3:.0f} kB")
    print(f"all layers are raised by {unseen_pct:.2f} %, by which both networks came out low when told by the other")
    print("left-out error by sort: " + ", ".join(f"{sort} {rms(found):.1f} %" for sort, found in errors.items()))
    print("\nMobileNetV2 (other build, no such layer in the fit): estimate against published, %")
    for row in check:
        print(f"  {row['width']:4} {row['size']:3.0f}  {row['ms']:6.1f} ms {row['error_pct']:+6.1f}")
    print(f"  of these {100 * statistics.fmean(row['far_share'] for row in check):.0f} % of the time is in far layers")
    low, high = told.interval_ms
    print(f"\nstandard errors: network {content['errors']['network_pct']} %, of unlike layers {far_pct:.1f} %")
    print(f"irregular {','.join(map(str, IRREGULAR))}: {told.ms:.2f} ms, 95 %: {low:.2f} to {high:.2f} ms")


if __name__ == "__main__":
    main()
