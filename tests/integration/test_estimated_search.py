"""A whole search for a phone that is not there: it says so from the start to the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceIdentity
from amc_latency.lut.prediction.estimate import cost_model
from amc_latency.lut.shapes.shape import parse_network
from amc_latency.lut.table.table import LatencyTable, TableError

from amc_latency.console import Console
from amc_latency.measuring.profiling import tables_folder
from amc_latency.search.config import SearchConfig
from amc_latency.search.run import search
from tests.integration.test_search import FEWER_IMAGES

pytestmark = pytest.mark.slow
TINY = SearchConfig(
    speedup=2,
    device="pixel1",
    estimate=True,
    data=FEWER_IMAGES,
    agent="ddpg",
    warm_start=False,
    warmup=2,
    episodes=1,
    baselines="uniform",
    step=32,
    images=50,
    calibration_images=32,
    recalibration_images=32,
    finetune_epochs=0,
)


def test_a_search_runs_through_without_a_phone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    out = tmp_path / "run"
    report = search(TINY, out, Console())
    said = " ".join(capsys.readouterr().err.split())
    assert report.estimated
    assert report.met
    assert "every latency is estimated, not measured" in said
    assert "amc-latency bench FILE --device pixel1" in said
    assert not re.search(r"(?<!not )\bmeasured\b", said)
    assert json.loads((out / "report.json").read_text())["estimated"] is True
    assert "target met by estimate" in (out / "report.html").read_text()
    assert Path(report.tflite).stat().st_size == report.rows[-1].bytes

    # The run's own table is one of estimates, which no measured one is mixed with; none is left among the user's.
    table = LatencyTable.open(out / "table.tsv")
    assert table.identity.estimated
    with pytest.raises(TableError):
        table.expect(DeviceIdentity("pixel1", table.identity.model, table.identity.runtime))
    assert not tables_folder().exists()
    original = max(table.keys, key=lambda key: sum(shape.macs for shape in parse_network(key)))
    assert report.original_ms == pytest.approx(cost_model("pixel1").network(parse_network(original)).ms, abs=1e-4)

    assert search(TINY, out, Console(quiet=True)) == report
