"""The plan that learns the device: few measurements, an honest error, the same table whatever breaks it off."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from amc_latency.device.base import Protocol
from amc_latency.lut.building.build import BuildReport, NetworkWorkload, Plan, build_table
from amc_latency.lut.building.learn import Learner
from amc_latency.lut.building.plan import input_shapes, reachable_shapes, sweep_shapes
from amc_latency.lut.building.steps import Steps
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.architecture import Architecture, Layer, channel_choices
from amc_latency.lut.shapes.family import family
from amc_latency.lut.shapes.shape import NOOP, LayerShape, network_text
from amc_latency.lut.table.table import LatencyTable

from benchmarks.synthetic_device import SyntheticDevice, layer_us
from tests.lut.scripted_device import (
    IDENTITY,
    PROTOCOL,
    ScriptedDevice,
    all_choices,
    mobilenet_v1,
    net_us,
    small_architecture,
    uniform_networks,
)

ROOT = Path(__file__).resolve().parents[3]


def learned(path: Path, device: ScriptedDevice | None = None, goal: float = 0.01) -> tuple[LatencyTable, BuildReport]:
    """The small network's table, new or continued."""
    architecture = small_architecture((64, 128, 256))
    table = LatencyTable.open_or_create(path, IDENTITY, PROTOCOL)
    networks = [NetworkWorkload(shapes, bytes) for shapes in uniform_networks(architecture)]
    report = build_table(
        device or ScriptedDevice(), table, architecture, all_choices(architecture), networks, plan=Plan(goal=goal)
    )
    return table, report


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatencyTable, BuildReport, Architecture, tuple]:
    """MobileNetV1-224 on the synthetic device, counts in steps of 4, learned to half a percent."""
    architecture = mobilenet_v1()
    choices = tuple(channel_choices(channels, step=4) for channels in architecture.group_channels)
    device = SyntheticDevice()
    table = LatencyTable.create(tmp_path_factory.mktemp("learn") / "t.tsv", device.identity, Protocol())
    report = build_table(device, table, architecture, choices, plan=Plan(goal=0.005))
    return table, report, architecture, choices


def test_a_tenth_of_the_fixed_grid_tells_every_layer_as_well(large: tuple) -> None:
    table, report, architecture, choices = large
    swept = sweep_shapes(architecture, choices)
    fixed = len(swept) + len(input_shapes(architecture, choices, Steps({shape: layer_us(shape) for shape in swept})))
    layers = sum(" + " not in key for key in table.keys)
    assert layers < fixed / 3
    assert report.checks[-1].mean_pct < 0.5
    predictor = Predictor(table)
    shares = {family(shape): 0.0 for shape in architecture.shapes()}
    for shape in architecture.shapes():
        shares[family(shape)] += layer_us(shape) / sum(map(layer_us, architecture.shapes()))
    errors: dict[tuple, list[float]] = {name: [] for name in shares}
    reachable = reachable_shapes(architecture, choices)
    # All at once, as a search looks them up; one by one they take ten seconds.
    assert predictor.missing(reachable) == []
    for shape in reachable:
        errors[family(shape)].append(abs((predictor.layer_us(shape) + layer_us(NOOP)) / layer_us(shape) - 1))
    # Every one of the 64,168 reachable shapes, by arithmetic without noise, which alone is 0.1 % (the least of three).
    assert sum(shares[name] * statistics.fmean(errors[name]) for name in shares) < 0.005


def test_the_slow_spot_of_the_pixel_1_is_in_the_table(large: tuple) -> None:
    table, *_ = large
    at = {
        count: Predictor(table).layer_us(LayerShape("depthwise", count, count, 112, 112, 3, 1, 1, "relu6"))
        for count in (20, 24, 28, 32)
    }
    assert at[24] / at[32] == pytest.approx(2.53 / 2.31, rel=0.01)
    assert at[20] < at[28] < at[32] < at[24]


def test_the_step_of_twelve_is_found_from_the_timings(large: tuple) -> None:
    table, *_ = large
    predictor = Predictor(table)
    # Panels of 12: 204 and 216 are whole ones, 208 is 17 panels and a slow tile of 4.
    at = {c: predictor.layer_us(LayerShape("conv", 256, c, 14, 14, activation="relu6")) for c in (204, 208, 216)}
    expected = {c: layer_us(LayerShape("conv", 256, c, 14, 14, activation="relu6")) - 1 for c in at}
    assert at == pytest.approx(expected, rel=0.006)
    assert expected[208] - expected[204] == pytest.approx(1.35 / 3 * (expected[216] - expected[204]), rel=0.01)


def test_the_check_says_what_was_foretold_before_it_was_timed(tmp_path: Path) -> None:
    architecture, choices = small_architecture((64, 128, 256)), all_choices(small_architecture((64, 128, 256)))
    learner = Learner(reachable_shapes(architecture, choices), architecture.shapes(), goal=0.5)
    timed = {shape: (1.0 + net_us(shape), 0.0) for shape in learner.first()}
    drawn = learner.more(timed)
    # All that was drawn turns out to take 10 % longer than the device's own arithmetic said until then.
    timed |= {shape: (1.1 * (1.0 + net_us(shape)), 0.003) for shape in drawn}
    assert learner.more(timed) == []
    check = learner.checks[-1]
    assert check.candidates == len(drawn)
    assert check.mean_pct == pytest.approx(100 * (1 - 1 / 1.1), abs=1.0)
    assert check.noise_pct == pytest.approx(0.3)
    assert check.standard_error_pct < 0.2


def test_small_families_are_timed_whole_and_one_shape_is_enough_of_one() -> None:
    layer = LayerShape("depthwise", 32, 32, 112, 112, 3, 1, 1, "relu6")
    one = Architecture((Layer(layer, 0, 0),), (32,))
    first = Learner(reachable_shapes(one, (channel_choices(32),)), one.shapes(), goal=0.01).first()
    assert {shape.c_in for shape in first if shape != NOOP} == {8, 16, 24, 32}
    fixed = Architecture((Layer(layer, None, None),), ())
    assert Learner([], fixed.shapes(), goal=0.01).first() == [NOOP, layer]


def test_the_goal_decides_how_much_is_timed(tmp_path: Path) -> None:
    device = SyntheticDevice()
    architecture = small_architecture((64, 256, 512))
    rows = []
    for goal in (0.05, 0.002):
        table = LatencyTable.create(tmp_path / f"{goal}.tsv", device.identity, PROTOCOL)
        build_table(device, table, architecture, all_choices(architecture), plan=Plan(goal=goal))
        rows.append(len(table.rows))
    assert rows[0] < rows[1]


def test_noise_above_the_goal_ends_the_learning_and_is_named(tmp_path: Path) -> None:
    class Noisy(SyntheticDevice):
        def time_round(self, workloads, protocol, round_index):  # type: ignore[no-untyped-def]
            for timing in super().time_round(workloads, protocol, round_index):
                # The noise of the synthetic device, a hundredfold: 30 % on average.
                quiet = sum(map(layer_us, self.shapes(timing.workload)))
                us = quiet * (1 + 100 * (timing.cpu.min_us / quiet - 1))
                yield type(timing)(timing.workload, round_index, 1, type(timing.cpu)(us, us, us, 0.0), None)

        @staticmethod
        def shapes(key: str) -> tuple[LayerShape, ...]:
            from amc_latency.lut.shapes.shape import parse_network

            return parse_network(key)

    device, architecture = Noisy(), small_architecture((64, 256, 512))
    table = LatencyTable.create(tmp_path / "t.tsv", device.identity, PROTOCOL)
    report = build_table(device, table, architecture, all_choices(architecture), plan=Plan(goal=0.001))
    check = report.checks[-1]
    assert check.mean_pct > 0.1
    assert check.noise_pct > 1
    everything = len(reachable_shapes(architecture, all_choices(architecture)))
    assert sum(" + " not in key for key in table.keys) < everything / 2


@pytest.mark.parametrize("kept", [0.1, 0.45, 0.8, 0.97])
def test_learning_broken_off_anywhere_ends_as_the_same_file(tmp_path: Path, kept: float) -> None:
    whole, report = learned(tmp_path / "whole.tsv")
    lines = whole.path.read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut.tsv"
    cut.write_bytes(b"".join(lines[: 8 + int(kept * len(lines[8:]))]) + b"conv 8x8")
    again, resumed = learned(cut)
    assert cut.read_bytes() == whole.path.read_bytes()
    assert report.timed == len(whole.rows)
    assert 0 < resumed.timed < report.timed
    assert again.errors == {}


def test_learning_twice_times_nothing_more(tmp_path: Path) -> None:
    table, _ = learned(tmp_path / "t.tsv")
    before = table.path.read_bytes()
    device = ScriptedDevice()
    _, report = learned(tmp_path / "t.tsv", device)
    assert (report.timed, device.asked) == (0, [])
    assert table.path.read_bytes() == before


def test_a_layer_that_cannot_be_timed_is_named_and_the_rest_learned(tmp_path: Path) -> None:
    bad = LayerShape("depthwise", 64, 64, 16, 16, 3, 1, 1, "relu6")
    table, report = learned(tmp_path / "t.tsv", ScriptedDevice(fails=lambda name, attempt: name == bad.text))
    assert list(report.errors) == [bad.text]
    assert report.checks
    assert Predictor(table).layer_us(LayerShape("depthwise", 56, 56, 16, 16, 3, 1, 1, "relu6")) > 0


def test_sigkill_while_learning_loses_nothing(tmp_path: Path) -> None:
    whole, _ = learned(tmp_path / "whole.tsv")
    path = tmp_path / "killed.tsv"
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = ['tests/lut/building', '.']; "
        "from test_learn import learned; from tests.lut.scripted_device import ScriptedDevice; "
        "learned(Path(sys.argv[1]), ScriptedDevice(seconds=0.002))"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT)
        rows = path.stat().st_size if path.exists() else 0
        deadline = time.monotonic() + 60
        while (not path.exists() or path.stat().st_size < rows + 4000) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    learned(path)
    assert path.read_bytes() == whole.path.read_bytes()


def test_whole_networks_are_timed_in_all_their_rounds(tmp_path: Path) -> None:
    table, _ = learned(tmp_path / "t.tsv")
    for shapes in uniform_networks(small_architecture((64, 128, 256))):
        assert not table.missing([network_text(shapes)], 27)
