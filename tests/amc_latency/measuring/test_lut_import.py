"""`lut import` and a `predict` that needs no device, as a user meets them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceIdentity, Protocol
from amc_latency.lut.table.table import LatencyTable

from amc_latency.cli.main import main
from amc_latency.measuring import opening, profiling

PIXEL1 = Path(__file__).resolve().parents[3] / "../shared/pixel1"
FIXTURES = Path(__file__).parents[2] / "lut" / "fixtures"
BUNDLED, STRIDED = FIXTURES / "bundled.op_profile.txt", FIXTURES / "strided.op_profile.txt"
needs_pixel1 = pytest.mark.skipif(not PIXEL1.is_dir(), reason="the Pixel 1 logs are not beside the repository")
MOBILENET = ["--model", "mobilenet_v1", "--input", "3x224x224"]
OF_BUNDLED = ["--model", "bundled"]
LOG = [BUNDLED, *OF_BUNDLED]
COUNTS_75 = "24,48,96,96,192,192,384,384,384,384,384,384,768,768"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run a command; gives the exit code, standard output and standard error."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["amc-latency", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*arguments: object, **options: object) -> None:
        raise AssertionError("a device was asked for")

    monkeypatch.setattr(profiling, "open_device", touched)
    monkeypatch.setattr(opening, "get_device", touched)


def as_json(outcome: tuple[int, str, str]) -> dict:
    code, out, err = outcome
    assert code == 0, err
    return json.loads(out)


def log_sum_ms(path: Path) -> float:
    """The averages of the log's last list of operators, added up."""
    order = path.read_text().split("= Run Order =")[-1].split("= Top by")[0].splitlines()
    heads = [cell.strip() for cell in order[1].split("\t")]
    rows = [line.split("\t") for line in order[2:] if line.startswith("\t")]
    return sum(float(row[heads.index("[avg ms]")]) for row in rows)


def test_a_log_of_the_genuine_program_becomes_a_table_that_predicts_without_a_device(run, no_device) -> None:
    report = as_json(run("lut", "import", *LOG, "--out", "t.tsv", "--json"))
    assert (report["layers"], report["shapes"], report["rows_added"]) == (29, 21, 22)
    assert report["left_out"] == []
    assert report["ops_ms"] == pytest.approx(log_sum_ms(BUNDLED))
    # As the log's own count line has it.
    assert report["network_ms"] == pytest.approx(107.146)
    prediction = as_json(run("predict", "--lut", "t.tsv", "--json"))
    assert prediction["predicted_ms"] == pytest.approx(log_sum_ms(BUNDLED), rel=1e-4)
    assert sum(layer["ms"] for layer in prediction["layers"]) == pytest.approx(prediction["raw_ms"])


def test_a_profile_in_csv_is_another_round_without_the_whole_network(run) -> None:
    csv = BUNDLED.with_suffix(".csv")
    report = as_json(run("lut", "import", *LOG, csv, "--out", "t.tsv", "--json"))
    assert [log["rows"] for log in report["logs"]] == [22, 21]
    assert [log["runs"] for log in report["logs"]] == [3, None]
    # The CSV's own sum of its run order: 117.627 ms, as its line of timings says too.
    assert report["logs"][1]["ops_ms"] == pytest.approx(117.627, abs=0.001)
    sums_ms = (log_sum_ms(BUNDLED), 117.627)
    assert report["layers_ms"] == pytest.approx(sum(sums_ms) / 2, rel=1e-4)
    assert report["spread_pct"] == pytest.approx(100 * (sums_ms[1] - sums_ms[0]) / (sum(sums_ms) / 2), rel=1e-3)


def test_the_text_says_what_was_done_and_whose_table_answers(run, no_device) -> None:
    code, out, _ = run("lut", "import", *LOG, "--out", "t.tsv", "--device", "my-phone")
    assert code == 0
    assert out.startswith("t.tsv: 22 rows added, of my-phone, model not known, TFLite XNNPACK")
    assert "no shape of these logs was known before" in out
    assert run("lut", "import", *LOG, "--out", "u.tsv")[1].count("imported") == 1
    again = run("lut", "import", *LOG, "--out", "t.tsv", "--device", "my-phone")[1]
    assert "0 rows added" in again
    assert "in the table already, not added again" in again
    assert "there was nothing new in these logs" in again
    assert "measured on my-phone, model not known, TFLite" in run("predict", "--lut", "t.tsv")[1]


def test_a_named_device_must_be_the_tables(run) -> None:
    run("lut", "import", *LOG, "--out", "t.tsv", "--device", "pixel1")
    assert as_json(run("predict", "--device", "pixel1", "--lut", "t.tsv", "--json"))["predicted_ms"] > 0
    for other in ("host", "pixel6"):
        code, out, err = run("predict", "--device", other, "--lut", "t.tsv")
        assert (code, out) == (2, "")
        assert f"device name 'pixel1', this is '{other}'" in err


def test_a_phones_own_table_answers_without_the_phone(run, no_device, tmp_path: Path) -> None:
    code, _, err = run("predict", "--device", "pixel1", "--json")
    assert code == 0
    assert "no latency table for this device yet" in err
    folder = tmp_path / "data" / "amc-latency" / "tables"
    folder.mkdir(parents=True)
    run("lut", "import", *LOG, "--out", folder / "pixel1-11111111.tsv", "--device", "pixel1")
    # Another device's table is not looked at.
    LatencyTable.create(folder / "pixel6-11111111.tsv", DeviceIdentity("pixel6", "", ""), Protocol())
    prediction = as_json(run("predict", "--device", "pixel1", "--json"))
    assert prediction["table"] == str(folder / "pixel1-11111111.tsv")
    assert prediction["predicted_ms"] == pytest.approx(log_sum_ms(BUNDLED), rel=1e-4)
    LatencyTable.create(folder / "pixel1-22222222.tsv", DeviceIdentity("pixel1", "", ""), Protocol())
    code, _, err = run("predict", "--device", "pixel1")
    assert code == 2
    assert "2 tables of pixel1" in err
    assert "pixel1-11111111.tsv" in err
    assert "pixel1-22222222.tsv" in err


def test_the_shipped_table_answers_for_its_owner(run, no_device) -> None:
    table = Path(__file__).parents[3] / "lut" / "tables" / "host-epyc-zen4.tsv"
    code, out, _ = run("predict", "--lut", table, *MOBILENET)
    assert code == 0
    assert "measured on host, " in out


BAD_INPUT: list[tuple[list[object], str]] = [
    (["missing.txt"], "there is no log missing.txt"),
    ([__file__], "test_lut_import.py has no op profile: was it made with --enable_op_profiling=true?"),
    ([BUNDLED, STRIDED], "strided.op_profile.txt: op 4 of 12, Binary Elementwise"),
    ([STRIDED], "does not match layer 4 of 29, 'blocks.1.depthwise'"),
    ([BUNDLED, "--model", "resnet18"], "does not match layer 2 of"),
    ([BUNDLED, "--out", "nowhere/t.tsv"], "there is no folder nowhere"),
    ([BUNDLED, "--out", "."], "cannot read the latency table"),
    ([BUNDLED, "--out", BUNDLED], "is not a latency table"),
    ([BUNDLED, "--device", ""], "--device '' is no plain name"),
    ([BUNDLED, "--device", "my phone"], "--device 'my phone' is no plain name"),
    ([sys.executable], " is not text"),
    ([os.devnull], f"cannot read the log {os.devnull}: is no regular file"),
    ([BUNDLED, "--channels", "8,8"], "14 coupled groups"),
    ([BUNDLED, "--channels", ",".join(["9999"] * 14)], "can't keep 9999"),
    ([BUNDLED, "--model", "mobilenetv1"], "did you mean 'mobilenet_v1'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=lambda value: str(value)[-40:])
def test_a_mistake_is_one_line_and_writes_nothing(run, arguments: list[object], message: str, tmp_path: Path) -> None:
    out = [] if "--out" in arguments else ["--out", "t.tsv"]
    model = [] if "--model" in arguments else OF_BUNDLED
    code, printed, err = run("lut", "import", *arguments, *model, *out)
    assert (code, printed) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_network_of_the_logs_must_be_named(run, tmp_path: Path) -> None:
    code, printed, err = run("lut", "import", BUNDLED, "--out", "t.tsv")
    assert (code, printed) == (2, "")
    assert "--model" in err
    assert list(tmp_path.iterdir()) == []


@needs_pixel1
def test_logs_of_another_network_are_refused_unless_forced(run, tmp_path: Path) -> None:
    logs = {name: sorted((PIXEL1 / "logs").glob(f"{name}_run*.txt")) for name in ("mobilenet", "0.75mobilenet")}

    def refused(*arguments: object) -> str:
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        code, printed, err = run("lut", "import", *arguments)
        assert (code, printed, len(err.strip().splitlines())) == (2, "", 1)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
        return err

    small = ["--model", "mobilenet_v1", "--input", "3x192x192", "--out", "t.tsv"]
    assert "has the input 1x224x224x3, the network takes 1x192x192x3" in refused(logs["mobilenet"][0], *small)
    full = [*MOBILENET, "--out", "t.tsv"]
    # 123.162 ms and 73.083 ms, as end_to_end.csv has the whole runs: 51.0 % of their mean.
    assert "differ by 51 %" in refused(logs["mobilenet"][0], logs["0.75mobilenet"][0], *full)
    as_json(run("lut", "import", *logs["mobilenet"], *full, "--json"))
    assert "holds for the same layers: of another network?" in refused(*logs["0.75mobilenet"], *full)
    assert as_json(run("lut", "import", *logs["0.75mobilenet"], *full, "--force", "--json"))["rows_added"] > 0


def test_a_truncated_log_is_refused_at_every_line(run, tmp_path: Path) -> None:
    lines = BUNDLED.read_text().splitlines(keepends=True)
    tables = [number for number, line in enumerate(lines) if "Run Order" in line]
    for end in range(tables[-1], tables[-1] + 31, 6):
        (tmp_path / "cut.txt").write_text("".join(lines[:end]))
        code, _, err = run("lut", "import", "cut.txt", *OF_BUNDLED, "--out", "t.tsv")
        assert code == 2
        assert "cut.txt: " in err
        assert not (tmp_path / "t.tsv").exists()


@needs_pixel1
def test_a_real_phones_logs_become_a_table_for_any_network_in_them(run, no_device) -> None:
    logs = {name: sorted((PIXEL1 / "logs").glob(f"{name}_run*.txt")) for name in ("mobilenet", "0.75mobilenet")}
    sums = {name: sum(map(log_sum_ms, logs[name])) / 3 for name in logs}
    full = as_json(run("lut", "import", *logs["mobilenet"], *MOBILENET, "--out", "t.tsv", "--json"))
    assert full["layers_ms"] == pytest.approx(sums["mobilenet"], rel=0.001)
    code, out, _ = run("lut", "import", *logs["0.75mobilenet"], *MOBILENET, "--width", 0.75, "--out", "t.tsv")
    assert code == 0
    assert "no shape of these logs was known before" in out
    assert "left out: 1 SOFTMAX" in out
    for counts, name in ((None, "mobilenet"), (COUNTS_75, "0.75mobilenet")):
        more = [] if counts is None else ["--channels", counts]
        prediction = as_json(run("predict", "--lut", "t.tsv", *MOBILENET, *more, "--json"))
        assert prediction["predicted_ms"] == pytest.approx(sums[name], rel=0.001)


@needs_pixel1
def test_a_second_import_says_how_well_the_first_foretold_it(run) -> None:
    logs = sorted((PIXEL1 / "logs").glob("mobilenet_run*.txt"))
    # The classifier of these logs has 1001 outputs.
    network = [*MOBILENET, "--classes", 1001, "--out", "t.tsv"]
    run("lut", "import", logs[0], *network)
    out = run("lut", "import", *logs[1:], *network)[1]
    assert "the logs' op sums differ by " in out
    assert "21 of 21 shapes were known before, and off by " in out
    # A width that these logs are not of cannot be seen in them, but that they are in the table is.
    code, _, err = run("lut", "import", logs[0], *MOBILENET, "--width", 0.75, "--out", "t.tsv")
    assert code == 2
    assert "as another network" in err


def test_a_log_of_a_collector_is_the_log_that_was_printed(run, tmp_path: Path) -> None:
    lines = BUNDLED.read_text().split("\n")
    prefixed = [f"11-30 10:00:00.{n % 1000:03}  12 12 I tflite  : {line}" for n, line in enumerate(lines)]
    collected = "\ufeff" + "\r\n".join(prefixed)
    (tmp_path / "collected.txt").write_text(collected.expandtabs(1), newline="")
    found = as_json(run("lut", "import", tmp_path / "collected.txt", *OF_BUNDLED, "--out", "c.tsv", "--json"))
    assert (found["rows_added"], found["ops_ms"]) == (22, pytest.approx(log_sum_ms(BUNDLED)))
    assert found["network_ms"] == pytest.approx(107.146)
    in_json = "\n".join(json.dumps({"log": line}) for line in lines)
    (tmp_path / "docker.json").write_text(in_json)
    code, _, err = run("lut", "import", tmp_path / "docker.json", *OF_BUNDLED, "--out", "d.tsv")
    assert code == 2
    assert "something follows on the lines of its op profile" in err
