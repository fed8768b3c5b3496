"""A table whose checksums are right and whose contents are not: each is refused by file, line and field."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.audit.check import check
from amc_latency.lut.audit.scan import scan
from amc_latency.lut.building.steps import step_width
from amc_latency.lut.table.headers import Header, marked, origin
from amc_latency.lut.table.table import LatencyTable, TableError, is_table
from amc_latency.lut.table.table_text import header_lines

from amc_latency.cli.main import main
from tests.lut.scripted_device import IDENTITY, PROTOCOL, key_of

KEY = key_of("conv", 8, 16)
FIGURES = "\t".join(["1.00", "2.00", "3.00", "0.50", "", "", ""])
FIRST_ROW = 8


def row(key: str = KEY, conditions: str = "", index: str = "0", n: str = "5", figures: str = FIGURES) -> str:
    text = "\t".join([key, index, n, figures, FIGURES, "", conditions])
    return f"{text}\t{zlib.crc32(text.encode()):08x}"


def header(protocol: dict[str, Any] | str) -> list[str]:
    text = protocol if isinstance(protocol, str) else json.dumps(protocol)
    lines = header_lines(IDENTITY, PROTOCOL)
    lines[4] = f"# protocol: {text}"
    lines[5] = f"# check: {zlib.crc32(chr(10).join(lines[:5]).encode()):08x}"
    return lines


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    def make(*rows: str, protocol: dict[str, Any] | str | None = None) -> Path:
        path = tmp_path / "t.tsv"
        lines = [*header(asdict(PROTOCOL) if protocol is None else protocol), *rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return make


@pytest.mark.parametrize(
    ("conditions", "field"),
    [
        ('{"suspect": 1}', "$.suspect"),
        ('{"suspect": [1]}', "$.suspect[0]"),
        ('{"suspect": "drift"}', "$.suspect"),
        ('["suspect"]', "object"),
        ('{"serial": ["x"]}', "$.serial"),
        ('{"core": "1"}', "$.core"),
        ('{"reference_us": 1e999}', "$.reference_us"),
        ('{"reference_us": NaN}', "malformed"),
        ('{"sentinel_us": {}}', "$.sentinel_us"),
        ('{"sha256": [1]}', "$.sha256"),
        ('{"from": {"name": ["u"], "model": "m", "runtime": "r", "protocol": {}}}', "$.from.name"),
        ('{"from": {"name": "u", "model": "m", "runtime": "r", "protocol": 1}}', "$.from.protocol"),
        (
            '{"from": {"name": "u", "model": "", "runtime": "", "protocol": {"rounds": "3"}}}',
            "$.from.protocol.rounds",
        ),
        ('{"from": {"name": "u", "model": "m", "runtime": "r", "protocol": {"rounds": 0}}}', "round"),
        ('{"from": {"name": "u"}}', "model"),
        ('{"x": ' + "[" * 3000 + "]" * 3000 + "}", "deep"),
        ("suspect", "malformed"),
    ],
)
def test_conditions_of_another_type(made: Callable[..., Path], conditions: str, field: str) -> None:
    path = made(row(), row(conditions=conditions))
    with pytest.raises(TableError, match=rf"t\.tsv, line {FIRST_ROW + 1}: damaged row") as caught:
        LatencyTable.open(path)
    assert field in str(caught.value)
    report = check(path)
    assert [damaged.line for damaged in report.damaged] == [FIRST_ROW + 1]
    assert (report.ok, report.rows) == (False, 1)


@pytest.mark.parametrize(
    "conditions",
    ['{"serial": "X", "later": {"a": [1, null]}}', '{"from": null}', '{"sentinel_us": [1.5, null]}', '{"core": 3}'],
)
def test_conditions_that_are_none_of_ours_stay(made: Callable[..., Path], conditions: str) -> None:
    (found,) = LatencyTable.open(made(row(conditions=conditions))).rows
    assert found.conditions == conditions


def test_a_note_of_another_header_reads_back() -> None:
    theirs = Header(replace(IDENTITY, name="pixel1", estimated=True), replace(PROTOCOL, state="frame", rounds=7))
    assert origin(marked(Timing(KEY, 0, 5, Summary(1.0, 1.0, 1.0, 0.0)), theirs)) == theirs


@pytest.mark.parametrize(
    "cells",
    [
        {"key": KEY.replace(">16", ">" + "9" * 400)},
        {"key": KEY.replace("conv 8x", f"conv {2**24 + 1}x")},
        {"index": "9" * 400},
        {"index": "1" + "0" * 15},
        {"n": "9" * 5000},
    ],
    ids=["400 nines", "wider than any layer", "round", "round of 16 digits", "count"],
)
def test_a_number_that_is_too_large(made: Callable[..., Path], cells: dict[str, str]) -> None:
    path = made(row(), row(**cells))
    with pytest.raises(TableError, match=rf"line {FIRST_ROW + 1}: damaged row"):
        LatencyTable.open(path)
    assert [damaged.line for damaged in scan(path).damaged] == [FIRST_ROW + 1]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("predict --model lenet5 --lut", 2, "t.tsv, line 9: damaged row '{key}"),
        ("lut show", 2, "t.tsv, line 9: damaged row '{key}"),
        ("lut check", 1, "t.tsv: 2 rows of scripted"),
    ],
)
def test_a_time_that_rounds_to_the_least_that_is_no_figure(
    made: Callable[..., Path],
    command: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The nearest double to it is 1e15; the row after it has a digit less, and is sound.
    damaged, sound = (FIGURES.replace("1.00", f"{'9' * digits}.99") for digits in (15, 14))
    path = made(row(), row(figures=damaged), row(index="1", figures=sound))
    monkeypatch.setattr(sys, "argv", ["amc-latency", *command.split(), str(path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = "".join(capsys.readouterr())
    assert stopped.value.code == code
    assert said.format(key=KEY) in printed
    assert "a time is 1e+15 us or more" in printed


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "protocol",
    [
        "[" * 3000,
        "[]",
        "null",
        asdict(PROTOCOL) | {"rounds": 10**12},
        asdict(PROTOCOL) | {"rounds": 10**400},
        asdict(PROTOCOL) | {"rounds": "3"},
        asdict(PROTOCOL) | {"rounds": 3.5},
        asdict(PROTOCOL) | {"rounds": True},
        asdict(PROTOCOL) | {"clock": ["cpu"]},
        asdict(PROTOCOL) | {"clock": "sun"},
        asdict(PROTOCOL) | {"l2": ["warm"]},
        json.dumps(asdict(PROTOCOL) | {"timeout_s": float("nan")}),
        json.dumps(asdict(PROTOCOL)).replace('"timeout_s": 60.0', '"timeout_s": 1e999'),
    ],
    ids=str,
)
def test_a_protocol_of_another_type_or_size(made: Callable[..., Path], protocol: dict[str, Any] | str) -> None:
    path = made(row(), protocol=protocol)
    with pytest.raises(TableError, match=r"t\.tsv: "):
        LatencyTable.open(path)
    report = check(path)
    assert (report.ok, [finding.what for finding in report.findings]) == (False, ["header"])


@pytest.mark.timeout(20)
def test_as_many_rounds_as_a_protocol_may_have_are_not_counted_one_by_one(made: Callable[..., Path]) -> None:
    report = check(made(row(), row(index="7"), protocol=asdict(PROTOCOL) | {"rounds": 1_000_000}))
    worst = next(finding.worst for finding in report.findings if finding.what == "incomplete")
    assert worst == f"'{KEY}' has 2"


@pytest.mark.timeout(20)
def test_no_step_is_looked_for_that_too_few_points_could_show() -> None:
    assert step_width([{1: 1.0, 2: 2.0, 2**24 - 1: 9.0, 2**24: 10.0}]) is None


@pytest.mark.timeout(10)
def test_a_table_is_a_regular_file(tmp_path: Path) -> None:
    pipe = tmp_path / "t.tsv"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(TableError, match=f"{path}.*no regular file"):
            LatencyTable.open(path)
        with pytest.raises(TableError, match=f"{path}.*no regular file"):
            check(path)
        assert not is_table(path)


def test_half_a_character_is_no_text(made: Callable[..., Path]) -> None:
    path = made()
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = "# model: \\ud800"
    lines[5] = f"# check: {zlib.crc32(chr(10).join(lines[:5]).encode()):08x}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(TableError, match="the header cannot be read"):
        LatencyTable.open(path)
