"""What a prediction says of its own error, and how that is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.lut.shapes.shape import NOOP
from amc_latency.lut.table.table import LatencyTable

from amc_latency.measuring.prediction import Prediction, predict, share_text
from amc_latency.measuring.report import prediction_text
from amc_latency.models.load import NetworkOptions, load_network

TABLE = Path(__file__).parents[3] / "lut" / "tables" / "host-epyc-zen4.tsv"
PREDICTION = Prediction(
    macs=1,
    params=1,
    predicted_ms=5.12344,
    raw_ms=5.0,
    standard_error_ms=0.0312,
    interval_ms=(5.0577, 5.1892),
    estimated=False,
    calibration_networks=13,
    ops=4,
    covers_pct=100.0,
    missing=[],
    layers=[],
    table="t.tsv",
    note=None,
)


def test_the_error_is_printed_to_two_digits(capsys: pytest.CaptureFixture[str]) -> None:
    prediction_text(PREDICTION)
    assert "5.1234 ms +- 0.031 predicted, 95 % between 5.058 and 5.189;" in capsys.readouterr().out
    prediction_text(replace(PREDICTION, standard_error_ms=12.3, interval_ms=(480.4, 530.6)))
    assert "+- 12 predicted, 95 % between 480 and 531;" in capsys.readouterr().out
    prediction_text(replace(PREDICTION, standard_error_ms=None, interval_ms=None))
    assert "5.1234 ms predicted; the layers" in capsys.readouterr().out


def test_a_table_with_networks_gives_an_interval_and_one_without_says_why_not(tmp_path: Path) -> None:
    table, network = LatencyTable.open(TABLE), load_network(NetworkOptions())
    sure = predict(network, table, None)
    assert sure.standard_error_ms is not None
    assert sure.interval_ms is not None
    low_ms, high_ms = sure.interval_ms
    assert low_ms < sure.predicted_ms - sure.standard_error_ms < sure.predicted_ms + sure.standard_error_ms < high_ms
    # It was measured too: two parts in a hundred would be a bad table.
    assert high_ms - low_ms < 0.04 * sure.predicted_ms
    with LatencyTable.create(tmp_path / "t.tsv", table.identity, table.protocol) as layers:
        for timing in table.rows:
            if " + " not in timing.workload:
                layers.append(timing)
    unsure = predict(network, layers, None)
    assert (unsure.standard_error_ms, unsure.interval_ms) == (None, None)
    assert unsure.note is not None
    assert "0 whole networks of this kind, too few to calibrate on, and so to tell how far" in unsure.note


def test_a_table_that_covers_a_part_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, network = LatencyTable.open(TABLE), load_network(NetworkOptions())
    shapes = network.graph.architecture.shapes()
    depthwise = [shape for shape in shapes if shape.kind == "depthwise"]
    identity = replace(whole.identity, name="pixel1")
    with LatencyTable.create(tmp_path / "t.tsv", identity, whole.protocol) as part:
        for timing in whole.rows:
            if timing.workload == NOOP.text or timing.workload in {s.text for s in shapes if s.kind != "depthwise"}:
                part.append(timing)
    prediction = predict(network, part, None)
    assert (prediction.predicted_ms, prediction.interval_ms, prediction.calibration_networks) == (None, None, 0)
    covered = len(shapes) - len(depthwise)
    assert prediction.covers_pct == pytest.approx(100 * covered / len(shapes))
    assert sum(op.ops for op in prediction.missing) == len(depthwise)
    assert {op.shape for op in prediction.missing} == {shape.text for shape in depthwise}
    assert prediction.missing[0].ops == max(depthwise.count(shape) for shape in depthwise)
    assert [layer.ms is None for layer in prediction.layers] == [shape in depthwise for shape in shapes]
    assert prediction.raw_ms == pytest.approx(sum(layer.ms for layer in prediction.layers if layer.ms is not None))
    assert prediction.note is not None
    assert f"t.tsv covers {100 * covered / len(shapes):.1f} % of the ops ({covered} of {len(shapes)}), not" in (
        prediction.note
    )
    # The cost model of the pixel1 can tell what its table can't.
    assert f"'{prediction.missing[0].shape}' ({prediction.missing[0].share_pct:.1f} %, ~" in prediction.note
    assert all(op.estimated_ms > 0 for op in prediction.missing)
    prediction_text(prediction)
    out = capsys.readouterr().out
    assert f"at least {prediction.raw_ms:.4f} ms" in out
    assert " predicted" not in out


def test_a_share_is_100_only_if_nothing_is_missing() -> None:
    assert [share_text(share) for share in (100.0, 99.99, 98.72, 0.0)] == ["100 %", "99.9 %", "98.7 %", "0.0 %"]
