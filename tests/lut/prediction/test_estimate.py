"""The cost model: its parts by arithmetic, the one that ships against published figures of a real Pixel 1."""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceError, Workload
from amc_latency.device.profiles import profiles
from amc_latency.lut.prediction.estimate import CostModel, NoCostModelError, cost_model, cost_models, features
from amc_latency.lut.prediction.estimate_device import EstimateDevice
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import NOOP, LayerShape, network_text
from hypothesis import given

from benchmarks import estimate as fitting
from tests.lut.any_shape import layer_shapes

DATA = Path(__file__).resolve().parents[3] / "../shared/pixel1"
needs_figures = pytest.mark.skipif(
    not DATA.is_dir(), reason="the published Pixel 1 figures are not beside the repository"
)

POINTWISE = LayerShape("conv", 512, 256, 14, 14, activation="relu6")


def model_with(**ns: float) -> CostModel:
    """Only what is named costs anything; one pointwise layer was fitted, with errors of 3 % and of 4 % in common."""
    return CostModel(
        name="some",
        model="Some Phone",
        runtime="some runtime",
        sources=("a paper",),
        ns={name: ns.get(name, 0.0) for name in cost_model("pixel1").ns},
        cache_bytes=1000.0,
        ranges={"conv k1 s1": {"c_in": (512, 512), "c_out": (256, 256), "pixels": (196, 196)}},
        layer_pct={"conv k1 s1": 3.0},
        network_pct=4.0,
        far_pct=20.0,
    )


def test_a_pointwise_layer_is_a_product_of_matrices() -> None:
    assert features(POINTWISE, 0) == {
        "macs": 512 * 256 * 14 * 14,
        "weights": 512 * 256,
        "strided_weights": 512 * 256 * 256 / 1024,
        "outputs": 256 * 14 * 14 * 3,  # 512 inputs are three blocks of at most 248
        "patches": 0,
    }
    assert model_with(macs=0.2, outputs=3).layer_ms(POINTWISE) == pytest.approx(
        (0.2 * 512 * 256 * 196 + 3 * 3 * 256 * 196) / 1e6
    )


def test_a_grouped_convolution_is_a_product_a_group_and_what_nobody_timed_a_way_through_memory() -> None:
    grouped = features(LayerShape("grouped", 64, 64, 14, 14, 3, 1, 1, per_group=8), 0)
    assert grouped["macs"] == 64 * 14 * 14 * 9 * 8
    assert grouped["weights"] == 64 * 9 * 8
    for kind, rest in (("scale", {}), ("mul", {}), ("concat", {"parts": 2}), ("activation", {"activation": "silu"})):
        shape = LayerShape(kind, 96, 96, 28, 28, **rest)  # type: ignore[arg-type]
        assert features(shape, 0) == {"outputs": 96 * 28 * 28}
        assert cost_model("pixel1").far(shape)
    assert features(NOOP, 0) == {}


def test_a_3x3_convolution_lays_out_its_patches_too() -> None:
    assert features(LayerShape("conv", 3, 24, 224, 224, 3, 2, 1), 0)["patches"] == 112 * 112 * 27


def test_depthwise_channels_go_by_sixteen_and_then_by_four() -> None:
    taps = 9 * 112 * 112
    for channels, by_16, by_4 in ((24, 1, 2), (32, 2, 0), (46, 2, 4), (1, 0, 1)):
        found = features(LayerShape("depthwise", channels, channels, 112, 112, 3, 1, 1), 0)
        assert found == {"taps": taps, "blocks_of_16": taps * by_16, "blocks_of_4": taps * by_4}


def test_a_strided_depthwise_waits_for_what_the_cache_lacks() -> None:
    shape = LayerShape("depthwise", 16, 16, 10, 10, 3, 2, 1)
    # 1,600 inputs of four bytes, and room for 1,600 bytes: three of four are missed.
    assert features(shape, 1600)["missed_inputs"] == 1200
    assert features(shape, 6400)["missed_inputs"] == 0


def test_a_network_is_the_sum_of_its_layers_and_no_surer_than_the_fit() -> None:
    model = model_with(macs=1.0)
    layer_ms = 512 * 256 * 196 / 1e6
    told = model.network([POINTWISE] * 4)
    assert told.ms == pytest.approx(4 * layer_ms)
    assert told.far == 0
    # 4 % that all layers share, and 3 % of each that average out.
    error_ms = math.hypot(0.04 * 4 * layer_ms, math.sqrt(4) * 0.03 * layer_ms)
    assert told.standard_error_ms == pytest.approx(error_ms)
    low, high = told.interval_ms
    assert (low + high) / 2 == pytest.approx(told.ms)
    assert high - low == pytest.approx(2 * 1.96 * error_ms)


def test_a_layer_unlike_the_fitted_ones_makes_the_interval_wide() -> None:
    model = model_with(macs=1.0)
    alike = LayerShape("conv", 400, 300, 16, 12)
    far = LayerShape("conv", 3 * 512, 256, 14, 14)
    unknown = LayerShape("conv", 512, 256, 14, 14, 3, 1, 1)
    assert [model.far(shape) for shape in (alike, far, unknown, NOOP)] == [False, True, True, False]
    told = model.network([POINTWISE, far])
    assert (told.far, told.far_share) == (1, pytest.approx(3 / 4))
    assert told.standard_error_ms > 0.20 * 3 / 4 * told.ms


@given(layer_shapes(tuple(kind for kind in KINDS if kind != "noop")))
def test_every_layer_costs_something(shape: LayerShape) -> None:
    model = cost_model("pixel1")
    assert 0 < model.layer_ms(shape) < math.inf
    low, high = model.network([shape]).interval_ms
    assert 0 <= low < model.layer_ms(shape) < high < math.inf


def test_each_cost_model_is_of_a_device_profile() -> None:
    assert "pixel1" in cost_models()
    assert set(cost_models()) <= set(profiles())
    for name in cost_models():
        assert min(cost_model(name).ns.values()) >= 0
        assert "estimated" in cost_model(name).model
    with pytest.raises(NoCostModelError, match=r"pixel9.*pixel1"):
        cost_model("pixel9")


def test_fewer_channels_may_cost_more_as_on_the_phone() -> None:
    narrow, wide = (LayerShape("depthwise", c, c, 112, 112, 3, 1, 1, "relu6") for c in (24, 32))
    assert cost_model("pixel1").layer_ms(narrow) > cost_model("pixel1").layer_ms(wide)


@needs_figures
@pytest.mark.parametrize(
    ("log", "channels"),
    [
        ("mobilenet", (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)),
        ("0.75mobilenet", (24, 48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384, 768, 768)),
    ],
)
def test_the_fitted_networks_are_told_within_a_percent(log: str, channels: tuple[int, ...]) -> None:
    runs: dict[str, float] = defaultdict(float)
    with (DATA / "per_op.csv").open() as file:
        for row in csv.DictReader(file):
            if row["model"] == log:
                runs[row["run"]] += float(row["avg_ms"])
    model = cost_model("pixel1")
    told = model.network(fitting.mobilenet_v1(channels))
    # All is raised by what networks that the fit has not seen show, which these two are not.
    assert told.ms == pytest.approx((1 + model.unseen_pct / 100) * statistics.fmean(runs.values()), rel=0.01)
    assert told.far == 0


@needs_figures
def test_a_network_that_the_fit_never_saw_is_told_within_two_percent() -> None:
    ops = fitting.read_ops()
    one, small = ([op for op in ops if op.network == name] for name in fitting.NETWORKS)
    for known, unseen in ((one, small), (small, one)):
        assert abs(fitting.error_pct(fitting.fit(features, known), unseen)) < 2


@needs_figures
def test_what_ships_is_what_the_figures_give() -> None:
    fitted = fitting.fit(features, fitting.read_ops())
    shipped = cost_model("pixel1")
    assert shipped.ns == pytest.approx(fitted.ns, rel=1e-3)
    assert shipped.cache_bytes == fitted.cache_bytes


@needs_figures
def test_the_interval_holds_networks_of_another_kind() -> None:
    model = cost_model("pixel1")
    inside = []
    for row in fitting.outside_check(model):
        told = model.network(fitting.mobilenet_v2(row["width"], int(row["size"])))
        inside.append(told.interval_ms[0] <= row["ms"] <= told.interval_ms[1])
    assert len(inside) == 22
    assert statistics.fmean(inside) >= 0.9


def test_the_device_answers_with_the_model_and_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = cost_model("pixel1")
    device = EstimateDevice(model)
    assert device.identity.estimated
    network = (POINTWISE, LayerShape("depthwise", 256, 256, 14, 14, 3, 1, 1))

    def build() -> bytes:
        raise AssertionError("an estimate needs no file")

    names = [NOOP.text, POINTWISE.text, network_text(network), "a file of the user's"]
    timings = {t.workload: t for t in device.time([Workload(name, build) for name in names], device.protocol)}
    us = {name: timings[name].latency_us(device.protocol) for name in names[:3]}
    assert us[NOOP.text] == 0
    assert us[POINTWISE.text] == pytest.approx(1000 * model.layer_ms(POINTWISE))
    assert us[network_text(network)] == pytest.approx(1000 * sum(map(model.layer_ms, network)))
    with pytest.raises(DeviceError, match="cannot be estimated"):
        timings[names[3]].latency_us(device.protocol)
    device.table.append(timings[NOOP.text])
    assert not list(tmp_path.iterdir())
