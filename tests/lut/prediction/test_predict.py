"""Predictions against the scripted device's arithmetic, and the shipped table against its own networks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.building.plan import input_shapes, reachable_shapes, sweep_shapes
from amc_latency.lut.building.steps import Steps
from amc_latency.lut.prediction.predict import MissingShapeError, Predictor, fit_calibration, missing_shapes
from amc_latency.lut.shapes.architecture import Architecture, Layer, channel_choices
from amc_latency.lut.shapes.shape import NOOP, LayerShape, NetworkShape, network_text, parse_network
from amc_latency.lut.table.table import LatencyTable
from hypothesis import given
from hypothesis import strategies as st

from tests.lut.scripted_device import (
    IDENTITY,
    NOOP_US,
    OFFSET_US,
    PROTOCOL,
    SCALE,
    ScriptedDevice,
    all_choices,
    built,
    mobilenet_v1,
    net_us,
    small_architecture,
    uniform_networks,
)

ARCHITECTURE = small_architecture()
CHOICES = all_choices(ARCHITECTURE)
SHIPPED = sorted((Path(__file__).resolve().parents[3] / "lut" / "tables").glob("*.tsv"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return built(tmp_path_factory.mktemp("predict") / "table.tsv")[0]


@pytest.fixture(scope="module")
def predictor(table: LatencyTable) -> Predictor:
    return Predictor(table)


def pointwise(c_in: int, c_out: int) -> LayerShape:
    return LayerShape("conv", c_in, c_out, 8, 8, activation="relu6")


def hand_made(path: Path, latencies_us: dict[str, float]) -> LatencyTable:
    table = LatencyTable.create(path, IDENTITY, PROTOCOL)
    for key, us in latencies_us.items():
        table.append(Timing(key, 0, 5, Summary(us, us, us, 0), None))
    return table


def sums_us(network: NetworkShape) -> float:
    return sum(map(net_us, network))


def random_networks(n: int, seed: int) -> list[NetworkShape]:
    rng = random.Random(seed)
    return [ARCHITECTURE.shapes([rng.choice(counts) for counts in CHOICES]) for _ in range(n)]


def test_every_layer_that_a_search_reaches_is_predicted(predictor: Predictor) -> None:
    for network in random_networks(200, seed=1):
        for shape in network:
            # Latencies are kept to 0.01 us, and here they are exactly linear and stepped.
            assert predictor.layer_us(shape) == pytest.approx(net_us(shape), abs=0.021), shape


def test_the_no_op_is_taken_off_and_costs_nothing(predictor: Predictor, table: LatencyTable) -> None:
    assert predictor.layer_us(NOOP) == 0
    shape = pointwise(64, 128)
    assert table.latency_us(shape.text) == pytest.approx(net_us(shape) + NOOP_US, abs=0.01)
    assert predictor.layer_us(shape) == pytest.approx(net_us(shape), abs=0.02)


def test_output_channels_inside_a_step_cost_as_much_as_its_end(predictor: Predictor) -> None:
    for c_out in (81, 88, 93, 96):
        assert predictor.layer_us(pointwise(24, c_out)) == pytest.approx(6 * (3 + 0.25 * 24), abs=0.02)
    assert predictor.layer_us(pointwise(24, 97)) == pytest.approx(7 * (3 + 0.25 * 24), abs=0.02)


def test_input_channels_are_linear_between_timed_points(predictor: Predictor) -> None:
    for c_in in (16, 17, 39, 41, 63):
        assert predictor.layer_us(pointwise(c_in, 48)) == pytest.approx(3 * (3 + 0.25 * c_in), abs=0.02)


@pytest.mark.parametrize(
    "shape",
    [
        pointwise(8, 48),  # below the smallest input count
        pointwise(72, 48),  # above the largest
        pointwise(64, 136),  # above the largest output count
        pointwise(64, 8),  # in a step that nothing was timed in
        LayerShape("linear", 128, 12),  # 12 classes where 10 were timed
        LayerShape("depthwise", 20, 20, 16, 16, 3, 1, 1, "relu6"),  # never between counts
        LayerShape("conv", 32, 32, 7, 7, activation="relu6"),
        LayerShape("global_pool", 32, 32, 4, 4),
    ],
)
def test_outside_the_table_is_an_error_that_names_the_layer(predictor: Predictor, shape: LayerShape) -> None:
    with pytest.raises(MissingShapeError, match=r"not in the latency table .*profile its network") as error:
        predictor.layer_us(shape)
    assert error.value.shape == shape
    assert f"'{shape}'" in str(error.value)


def test_coverage_counts_every_op_and_names_each_shape_once(predictor: Predictor) -> None:
    known, foreign = pointwise(64, 48), LayerShape("scale", 32, 32, 4, 4)
    coverage = predictor.coverage([known, foreign, known, foreign, LayerShape("global_pool", 32, 32, 4, 4), known])
    assert (coverage.ops, coverage.covered, coverage.share_pct) == (6, 3, 50.0)
    assert coverage.missing == (foreign, LayerShape("global_pool", 32, 32, 4, 4))
    assert predictor.coverage([known]).share_pct == 100.0


def test_a_table_without_the_no_op_predicts_nothing(tmp_path: Path) -> None:
    table = hand_made(tmp_path / "t.tsv", {pointwise(8, 8).text: 3.0})
    with pytest.raises(MissingShapeError, match="noop"):
        Predictor(table).layer_us(pointwise(8, 8))
    with pytest.raises(MissingShapeError, match="noop"):
        Predictor(table).coverage([pointwise(8, 8)])


def test_a_layer_faster_than_the_no_op_costs_nothing(tmp_path: Path) -> None:
    table = hand_made(tmp_path / "t.tsv", {NOOP.text: 1.0, pointwise(8, 8).text: 0.98})
    assert Predictor(table).layer_us(pointwise(8, 8)) == 0


def test_steps_are_not_interpolated_across(tmp_path: Path) -> None:
    # Steps of 16; input counts 8 and 64 were timed at 16 and 32 only: 24 must cost as 32, not as their mean.
    us = {(c_in, c_out): -(-c_out // 16) * (1.0 + c_in) for c_in in (8, 64) for c_out in (16, 32, 48, 64)}
    us |= {(64, c_out): -(-c_out // 16) * 65.0 for c_out in range(8, 65, 8)}
    table = hand_made(tmp_path / "t.tsv", {pointwise(*c).text: v for c, v in us.items()} | {NOOP.text: 0.0})
    assert Predictor(table).layer_us(pointwise(8, 24)) == 2 * 9.0
    assert Predictor(table).layer_us(pointwise(36, 24)) == 2 * 37.0


def test_a_wider_count_of_the_step_is_needed_not_a_narrower_one(tmp_path: Path) -> None:
    us = {pointwise(8, c_out).text: -(-c_out // 16) * 9.0 for c_out in range(8, 61, 8)} | {NOOP.text: 0.0}
    predictor = Predictor(hand_made(tmp_path / "t.tsv", us))
    assert predictor.layer_us(pointwise(8, 52)) == 36.0  # 56 was timed
    with pytest.raises(MissingShapeError):
        predictor.layer_us(pointwise(8, 60))  # 64 was not


def test_a_network_is_the_sum_of_its_layers_and_then_calibrated(predictor: Predictor) -> None:
    for network in random_networks(50, seed=2):
        assert predictor.raw_ms(network) == pytest.approx(sums_us(network) / 1000, abs=0.00015)
        expected_ms = (SCALE * sums_us(network) + OFFSET_US) / 1000
        assert predictor.ms(network) == pytest.approx(expected_ms, rel=2e-4)


def test_the_calibration_is_the_affine_map_of_the_device(predictor: Predictor) -> None:
    calibration = predictor.calibration(ARCHITECTURE.shapes())
    assert calibration.calibrated
    assert calibration.networks == 4
    assert calibration.scale == pytest.approx(SCALE, rel=1e-3)
    assert calibration.offset_ms == pytest.approx(OFFSET_US / 1000, rel=5e-3)


@given(
    st.lists(st.floats(0.05, 50), min_size=4, max_size=12, unique=True),
    st.floats(0.5, 2),
    st.floats(0, 0.5),
)
def test_an_exact_affine_map_is_recovered(sums: list[float], scale: float, offset: float) -> None:
    measured = [scale * x + offset for x in sums]
    fit = fit_calibration(sums, measured)
    again = [fit.scale * x + fit.offset_ms for x in sums]
    if max(sums) >= 1.25 * min(sums):
        assert again == pytest.approx(measured, rel=1e-6)
    else:
        assert fit.offset_ms == 0
        assert again == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("measured", [[1.1, 1, 1.2, 1.2], [1, 1, 1.32, 1.2]], ids=["small", "large"])
def test_small_networks_weigh_as_much_as_large_ones(measured: list[float]) -> None:
    # One network is off by 10 %, the small or the large one. Least squares of (s - 1) three times and (s / 1.1 - 1):
    assert fit_calibration([1, 1, 1.2, 1.2], measured).scale == pytest.approx((3 + 1 / 1.1) / (3 + 1 / 1.21))


def test_three_networks_are_not_enough_and_the_identity_says_so(table: LatencyTable) -> None:
    three = uniform_networks(ARCHITECTURE)[:3]
    predictor = Predictor(table, networks=three)
    calibration = predictor.calibration(ARCHITECTURE.shapes())
    assert not calibration.calibrated
    assert (calibration.scale, calibration.offset_ms, calibration.networks) == (1.0, 0.0, 3)
    assert predictor.ms(ARCHITECTURE.shapes()) == predictor.raw_ms(ARCHITECTURE.shapes())


def test_networks_left_out_do_not_shift_the_calibration(table: LatencyTable, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tsv"
    copy.write_bytes(table.path.read_bytes())
    more = LatencyTable.open(copy)
    held_out = random_networks(1, seed=3)[0]
    slow = Summary(9000.0, 9000.0, 9000.0, 0.0)
    more.append(Timing(network_text(held_out), 0, 5, slow, slow))
    chosen = Predictor(more, uniform_networks(ARCHITECTURE)).calibration(held_out)
    assert chosen.scale == pytest.approx(SCALE, rel=1e-3)
    assert Predictor(more).calibration(held_out).networks == 5
    assert Predictor(more).measured_ms(held_out) == 9.0


def test_other_networks_have_a_calibration_of_their_own(predictor: Predictor) -> None:
    eleven_classes = (*ARCHITECTURE.shapes()[:-1], LayerShape("linear", 128, 11))
    assert not predictor.calibration(eleven_classes).calibrated
    assert not predictor.calibration(mobilenet_v1().shapes()).calibrated


def test_missing_shapes_names_each_once(table: LatencyTable) -> None:
    absent = pointwise(8, 48)
    assert missing_shapes(table, [absent, pointwise(16, 48), absent]) == [absent]
    assert missing_shapes(table, [shape for net in random_networks(50, seed=5) for shape in net]) == []


def test_a_failed_layer_says_why(tmp_path: Path) -> None:
    bad = LayerShape("depthwise", 16, 16, 16, 16, 3, 1, 1, "relu6")
    failing = ScriptedDevice(fails=lambda name, attempt: name == bad.text)
    table, report = built(tmp_path / "t.tsv", failing)
    assert list(report.errors) == [bad.text]
    with pytest.raises(MissingShapeError, match=r"could not be timed: scripted\tfailure"):
        Predictor(table).layer_us(bad)


def test_a_mobilenet_sized_layer_is_complete(tmp_path: Path) -> None:
    """The whole search space of one large layer: 103 x 103 counts from 103 + 2 * 52 timed ones."""
    counts = channel_choices(1024)
    layer = mobilenet_v1().layers[-3]
    one = Architecture((Layer(layer.shape, 0, 1),), (1024, 1024))
    choices = (counts, counts)
    swept = sweep_shapes(one, choices)
    steps = Steps({shape: net_us(shape) for shape in swept})
    timed = [*swept, *input_shapes(one, choices, steps)]
    predictor = Predictor(hand_made(tmp_path / "t.tsv", {shape.text: NOOP_US + net_us(shape) for shape in timed}))
    for shape in reachable_shapes(one, choices):
        assert predictor.layer_us(shape) == pytest.approx(net_us(shape), abs=0.021)


@pytest.mark.parametrize("path", SHIPPED or [None], ids=lambda path: path.stem if path else "none")
def test_a_shipped_table_predicts_its_own_networks(path: Path | None) -> None:
    if path is None:
        pytest.skip("NO TABLE SHIPS in lut/tables/*.tsv: real timings are not replayed")
    table = LatencyTable.open(path)
    predictor = Predictor(table)
    networks = [parse_network(key) for key in table.keys if " + " in key]
    assert len(networks) >= 4
    for network in networks:
        assert predictor.calibration(network).calibrated
        measured_ms = predictor.measured_ms(network)
        assert predictor.ms(network) == pytest.approx(measured_ms, rel=0.03)
