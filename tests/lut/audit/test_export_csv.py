"""The CSV reads back, in the standard reader and in one that knows RFC 4180 only."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

from amc_latency.device.base import DeviceIdentity, Summary, Timing
from amc_latency.lut.audit.export_csv import LAYER_COLUMNS, ROW_COLUMNS, write_csv
from amc_latency.lut.table.merge import merge
from amc_latency.lut.table.table import LatencyTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lut.scripted_device import IDENTITY, PROTOCOL, key_of

CONV = key_of("conv", 8, 16, activation="relu6")
POOL = key_of("global_pool", 8, 8)
NETWORK = f"{CONV} + {key_of('global_pool', 16, 16)}"


def made(path: Path, identity: DeviceIdentity = IDENTITY) -> LatencyTable:
    table = LatencyTable.create(path, identity, PROTOCOL)
    suspect = json.dumps({"serial": "X", "suspect": ["thermal status 2", 'a "reason", quoted']})
    for index, us in enumerate((100.0, 110.0, 104.0)):
        cpu = Summary(us, us + 1, us + 2, 0.5)
        conditions = suspect if index == 1 else ""
        table.append(Timing(CONV, index, 10, cpu, Summary(us * 2, None, None, None), conditions=conditions))
    table.append(Timing(NETWORK, 0, 7, Summary(500.0, 501.0, 502.0, 1.0)))
    table.append(Timing(POOL, 0, error='a "quote", a comma\nand a line'))
    return table


def written(table: LatencyTable, rows: bool = False) -> str:
    file = io.StringIO(newline="")
    assert write_csv(table, file, rows) == file.getvalue().count("\r\n") - 1
    return file.getvalue()


def test_a_line_a_layer_with_the_protocols_figure(tmp_path: Path) -> None:
    text = written(made(tmp_path / "t.tsv"))
    assert text.startswith(",".join(LAYER_COLUMNS) + "\r\n")
    conv, network, pool = csv.DictReader(io.StringIO(text, newline=""))
    expected = {"kind": "conv", "c_in": "8", "c_out": "16", "h": "8", "w": "8", "kernel": "1", "stride": "1"}
    expected |= {"padding": "0", "activation": "relu6", "precision": "float32", "latency_us": "100.0", "rounds": "3"}
    expected |= {"end": "0", "dilation": "1", "per_group": "0", "parts": "1"}
    expected |= {"kernel_w": "0", "padding_w": "0"}
    # Half the range, 5 us, of the smallest.
    expected |= {"n": "30", "spread_pct": "5.0", "suspect": "1", "figures": "measured", "error": "", "key": CONV}
    assert conv == expected
    assert (network["kind"], network["key"], network["c_in"], network["latency_us"]) == (
        "network",
        NETWORK,
        "",
        "500.0",
    )
    assert (pool["latency_us"], pool["error"]) == ("", 'a "quote", a comma\nand a line')


def test_a_line_a_timing_with_all_that_was_kept(tmp_path: Path) -> None:
    text = written(made(tmp_path / "t.tsv"), rows=True)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["kind"], row["round"]) for row in rows] == [
        ("conv", "0"),
        ("conv", "1"),
        ("conv", "2"),
        ("network", "0"),
        ("global_pool", "0"),
    ]
    assert tuple(rows[0]) == ROW_COLUMNS
    assert (rows[1]["cpu_median_us"], rows[1]["wall_min_us"], rows[1]["wall_mean_us"]) == ("111.0", "220.0", "")
    assert rows[1]["suspect"] == 'thermal status 2; a "reason", quoted'
    assert (rows[1]["measured_by"], json.loads(rows[1]["conditions"])["serial"]) == ("X", "X")


def test_estimates_are_labelled_even_in_a_mixed_table(tmp_path: Path) -> None:
    estimates = made(tmp_path / "e.tsv", replace(IDENTITY, estimated=True))
    assert {row["figures"] for row in csv.DictReader(io.StringIO(written(estimates)))} == {"estimated"}
    measured = LatencyTable.create(tmp_path / "m.tsv", IDENTITY, PROTOCOL)
    measured.append(Timing(key_of("conv", 8, 8), 0, 5, Summary(1.0, 1.0, 1.0, 0.0)))
    merge([measured.path, estimates.path], tmp_path / "both.tsv", force=True)
    for rows in (False, True):
        labels = {
            row["key"]: row["figures"]
            for row in csv.DictReader(io.StringIO(written(LatencyTable.open(tmp_path / "both.tsv"), rows)))
            if not row["error"]
        }
        assert labels == {key_of("conv", 8, 8): "measured", CONV: "estimated", NETWORK: "estimated"}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(error=st.text(min_size=1, max_size=80).filter(lambda text: text.isprintable() or "\n" in text))
def test_any_error_reads_back(tmp_path: Path, error: str) -> None:
    path = tmp_path / "t.tsv"
    path.unlink(missing_ok=True)
    table = LatencyTable.create(path, IDENTITY, PROTOCOL)
    table.append(Timing(POOL, 0, error=error))
    for rows in (False, True):
        (row,) = csv.DictReader(io.StringIO(written_any(table, rows), newline=""))
        assert row["error"] == table.errors[POOL]


def written_any(table: LatencyTable, rows: bool) -> str:
    file = io.StringIO(newline="")
    write_csv(table, file, rows)
    return file.getvalue()
