"""`--estimate`: figures that nobody measured, and that say so wherever they are shown."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.lut.prediction.estimate import cost_model
from amc_latency.lut.shapes.shape import parse_shape

from amc_latency.cli.main import main
from amc_latency.errors import JobError, UserError
from amc_latency.search.config import SearchConfig
from amc_latency.search.results.folder import TimedFile
from amc_latency.search.results.report import search_html, search_text
from amc_latency.search.results.result import Row, SearchReport
from amc_latency.search.run import check_met

# amc-models, models/mobilenet_v1.py.
CHANNELS = "24,48,96,80,192,200,328,352,368,360,328,400,736,752"
MODEL = ("--model", "mobilenet_v1", "--input", "3x224x224", "--channels", CHANNELS)

ROW = Row("ours", (8,) * 14, 2.4, 2.4, None, 10, 10, 90.0, 90.0, "ours.tflite", measured_95=(2.4, 2.4))
REPORT = SearchReport(
    original_ms=5.0,
    target_ms=2.5,
    predicted_ms=2.4,
    measured_ms=2.4,
    met=True,
    statistic="the cost model",
    accuracy_original=93.0,
    accuracy=90.0,
    accuracy_uniform=89.0,
    macs=10,
    evaluations=4,
    episodes=8,
    attempts=1,
    seconds=1.0,
    data="bundled",
    device="pixel1, Google Pixel (estimated, not measured), TensorFlow Lite",
    table="table.tsv",
    tflite="ours.tflite",
    rows=[replace(ROW, name=name) for name in ("original", "uniform", "ours")],
    estimated=True,
    phone="pixel1",
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def call(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["amc-latency", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def calls_it_measured(text: str) -> list[str]:
    """Every place where a text says "measured" other than "not measured"."""
    return re.findall(r"(?<!not )\bmeasured\b", " ".join(text.split()))


def test_predict_prints_an_estimate_as_json(run) -> None:
    code, out, err = run("predict", "--device", "pixel1", "--estimate", *MODEL, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["estimated"] is True
    assert result["table"] is None
    assert round(result["macs"] / 1e6, 2) == 293.87
    model = cost_model("pixel1")
    layers_ms = [model.layer_ms(parse_shape(layer["shape"])) for layer in result["layers"]]
    assert [layer["ms"] for layer in result["layers"]] == layers_ms
    assert result["predicted_ms"] == pytest.approx(sum(layers_ms))
    low, high = result["interval_ms"]
    # Like the fitted networks in every layer, so the fit's own errors are all there is.
    assert 0.02 < (high - low) / 2 / result["predicted_ms"] < 0.10
    assert low < result["predicted_ms"] < high
    assert "unlike" not in result["note"]
    assert "estimated, not measured" in err


def test_the_text_says_estimated_where_the_number_is(run) -> None:
    code, out, err = run("predict", "--device", "pixel1", "--estimate", *MODEL)
    assert code == 0
    (line,) = [line for line in out.splitlines() if "95 %" in line]
    assert line.endswith("; estimated, not measured")
    assert not calls_it_measured(out + err)


def test_a_small_one_channel_network_is_estimated_less_surely(run) -> None:
    code, out, _ = run("predict", "--device", "pixel1", "--estimate", "--model", "bundled", "--json")
    assert code == 0
    result = json.loads(out)
    low, high = result["interval_ms"]
    assert (high - low) / 2 / result["predicted_ms"] > 0.2
    assert "of 29 layers" in result["note"]


def test_a_device_without_a_table_is_told_of_the_estimate(run) -> None:
    code, _, err = run("predict", "--device", "pixel1")
    assert code == 0
    assert "--estimate" in err
    code, _, err = run("predict", "--device", "pixel6")
    assert code == 0
    assert "--estimate" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "--device", "host"], r"no cost model to estimate host by; there is one of: pixel1"),
        (["predict"], r"--device pixel1"),
        (["predict", "--device", "pixel1", "--lut", "a.tsv"], r"one of them"),
        (["predict", "--device", "pixel1", "--channels", "1,2"], r"14"),
        (["search", "--device", "galaxy_s24", "--speedup", "2"], r"no cost model to estimate galaxy_s24 by"),
        (["search", "--device", "pixel1", "--speedup", "2", "--force"], r"--force.*phone that is there"),
        (["search", "--device", "pixel1", "--speedup", "2", "--confidence", "0.95"], r"--confidence"),
    ],
)
def test_what_cannot_be_estimated_is_one_line(run, tmp_path: Path, arguments: list[str], said: str) -> None:
    if arguments[0] == "search":
        arguments = [*arguments, "--out", str(tmp_path / "run"), "--data", "bundled"]
    code, out, err = run(*arguments, "--estimate")
    assert code == 2
    assert not out
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert re.search(said, line)
    assert not (tmp_path / "run").exists()


def test_a_search_report_never_calls_an_estimate_measured(capsys: pytest.CaptureFixture[str]) -> None:
    search_text(REPORT)
    text = capsys.readouterr().out
    timed = [TimedFile(0, "final ours", ROW.counts, 2.4, 2.4, 2.5, 2.4, 2.4)]
    page = re.sub(r"<style>.*?</style>", "", search_html(REPORT, {"model": "bundled", "estimate": True}, timed))
    for shown in (text, page):
        assert not calls_it_measured(shown)
        assert "estimated ms" in shown
        assert "target met by estimate" in shown
        assert "amc-latency bench ours.tflite --device pixel1" in shown
    search_text(replace(REPORT, estimated=False, phone=None))
    text = capsys.readouterr().out
    assert "measured ms" in text
    assert "by estimate" not in text


def test_a_missed_target_is_missed_by_estimate() -> None:
    with pytest.raises(JobError) as missed:
        check_met(replace(REPORT, met=False, measured_ms=2.6))
    assert not calls_it_measured(str(missed.value))
    assert "estimated 2.6 ms" in str(missed.value)


def test_a_report_of_estimates_comes_back_from_json(tmp_path: Path) -> None:
    written = json.loads(json.dumps(REPORT.to_json()))
    assert (written["estimated"], written["phone"]) == (True, "pixel1")
    report = SearchReport.from_json(written, tmp_path)
    assert (report.estimated, report.phone) == (True, "pixel1")


def test_confidence_is_of_measured_tables_only() -> None:
    with pytest.raises(UserError, match="`confidence`"):
        SearchConfig(speedup=2, estimate=True, confidence=0.9)
