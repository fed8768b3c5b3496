"""`lut show`, `check`, `diff`, `merge` and `export`, as a user meets them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.shapes.shape import NOOP
from amc_latency.lut.table.table import LatencyTable

from amc_latency.cli.main import main

IDENTITY = DeviceIdentity("host", "a model", "runtime 1")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run a `lut` command; gives the exit code, standard output and standard error."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["amc-latency", "lut", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, *capsys.readouterr()

    return call


def made(path: str, factor: float = 1.0, identity: DeviceIdentity = IDENTITY, most: int = 136, **protocol) -> Path:
    """Pointwise layers on steps of 16."""
    with LatencyTable.create(Path(path), identity, Protocol(rounds=1, **protocol)) as table:
        keys = {NOOP.text: 1.0}
        keys |= {f"conv 8x8x8>{c} k1 s1 p0 relu6 float32": 10.0 * -(-c // 16) for c in range(8, most, 8)}
        for key, us in keys.items():
            table.append(Timing(key, 0, 5, Summary(*[us * factor] * 3, 0.0), Summary(*[us * factor] * 3, 0.0)))
    return Path(path)


def test_show_of_precisions_marks_what_is_slower(run) -> None:
    path = made("t.tsv")
    with LatencyTable.open(path) as table:
        for c in range(8, 136, 8):
            us = 20.0 * -(-c // 16)
            key = f"conv 8x8x8>{c} k1 s1 p0 relu6 int8"
            table.append(Timing(key, 0, 5, Summary(*[us] * 3, 0.0), Summary(*[us] * 3, 0.0)))
    code, out, err = run("show", "t.tsv", "--precision")
    assert (code, err) == (0, "")
    # 20, 40 to 160 us against 10, 20 to 80, twice each, and each with 1 us of overhead.
    assert "16      704.00     1424.00  conv *x8x8>* k1 s1 p0 relu6 int8  SLOWER" in out
    code, out, err = run("show", "t.tsv", "--precision", "--json")
    assert json.loads(out)["kinds"][0]["ratio"] == pytest.approx(1424 / 704)
    code, _, err = run("show", "t.tsv", "--precision", "--png", "x.png")
    assert code == 2
    assert "--png would change nothing here" in err
    code, _, err = run("show", str(made("f.tsv")), "--precision")
    assert code == 2
    assert "no layers but in float32" in err


def test_show_prints_the_table_and_its_staircase_in_80_columns(run) -> None:
    made("t.tsv")
    code, out, err = run("show", "t.tsv")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == ["t.tsv", "device    host, a model", "runtime   runtime 1"]
    assert "layers    17: 16 conv, 1 noop" in lines
    assert "conv 8x8x8>* k1 s1 p0 relu6 float32, steps of 16" in out
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in out


def test_show_does_without_characters_that_the_terminal_lacks(run, monkeypatch: pytest.MonkeyPatch) -> None:
    made("t.tsv")
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert run("show", "t.tsv")[0] == 0
    output.seek(0)
    assert "steps of 16" in output.read()


def test_show_writes_pictures_and_json(run, tmp_path: Path) -> None:
    made("t.tsv")
    code, out, _ = run("show", "t.tsv", "--png", "new/all.png", "--out", "pictures", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["pictures"] == ["new/all.png", "pictures/conv-8x8x8-n-k1-s1-p0-relu6-float32.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in report["pictures"])
    (staircase,) = report["staircases"]
    assert (staircase["step"], staircase["jumps"]) == (16, [24, 40, 56, 72, 88, 104, 120])
    assert staircase["points"][:3] == [[8, 10.0], [16, 10.0], [24, 20.0]]


def test_more_staircases_than_a_picture_has_room_for_are_refused_before_they_are_drawn(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amc_latency.cli.lut_show.MOST_IN_ONE", 0)
    made("t.tsv")
    code, _, err = run("show", "t.tsv", "--png", "all.png")
    assert code == 2
    assert "--png has room for 0 plots, not 1: pick some by --layer, or name --out" in err
    assert not (tmp_path / "all.png").exists()


def test_show_says_that_estimates_are_estimates(run) -> None:
    made("t.tsv", identity=replace(IDENTITY, estimated=True))
    assert "figures   ESTIMATED, NOT MEASURED" in run("show", "t.tsv")[1].splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "none.tsv"], "there is no latency table none.tsv"),
        (["show", "t.tsv", "--kind", "linear"], "no sweep over channels of linear; it has some of: conv"),
        (["show", "few.tsv", "--png", "x.png"], "no staircase to draw"),
        (["show", "t.tsv", "--png", "."], "--png . is no file"),
        (["show", "t.tsv", "--out", "t.tsv"], "--out t.tsv is no folder"),
        (["check", "none.tsv"], "there is no latency table none.tsv"),
        (["diff", "t.tsv", "few.tsv"], "no layer and no network in common"),
        (["diff", "t.tsv", "future.tsv"], "table schema '4', this is '3'"),
        (["merge", "t.tsv", "--out", "x.tsv"], "a merge needs at least two tables"),
        (["merge", "t.tsv", "wall.tsv", "--out", "x.tsv"], "clock 'cpu' and 'wall'. --force merges"),
        (["merge", "t.tsv", "few.tsv", "--out", "t.tsv", "--force"], "t.tsv is one of the tables to merge"),
        (["merge", "t.tsv", "t.tsv", "--out", "few.tsv"], "few.tsv exists already"),
        (["export", "t.tsv", "--csv", "t.tsv"], "--csv t.tsv is a latency table, whose timings would be lost"),
        (["export", "damaged.tsv", "--csv", "x.csv"], "damaged.tsv, line 8: damaged row"),
    ],
)
def test_bad_input_is_one_message_and_leaves_the_tables_alone(
    run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    made("t.tsv")
    made("wall.tsv", clock="wall")
    with LatencyTable.create(Path("few.tsv"), IDENTITY, Protocol(rounds=1)) as few:
        few.append(Timing("add 8x8x8>8 k1 s1 p0 none float32", 0, 5, Summary(1.0, 1.0, 1.0, 0.0)))
    text = Path("t.tsv").read_text()
    Path("future.tsv").write_text(text.replace("schema 3", "schema 4"))
    Path("damaged.tsv").write_text(text.replace("noop 1x1x1>1 k1 s1 p0 none float32\t0\t5\t1.00", "noop\t0\t5\tnan"))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.tsv")}
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.tsv")} == before
    assert not list(tmp_path.glob("x.*"))


def test_check_exits_with_1_for_damage_and_0_for_less(run) -> None:
    path = made("t.tsv")
    code, out, err = run("check", path)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "t.tsv: 17 rows of host"
    assert out.splitlines()[-1] == "1 note"
    path.write_text(path.read_text().replace("\t20.00", "\t-20.00"))
    code, out, err = run("check", path)
    assert (code, err) == (1, "")
    # Two layers of 20 us, after seven lines of header, the no-op and two of 10 us.
    assert [line.split()[0] for line in out.splitlines() if "checksum" in line and "worst" not in line] == ["11", "12"]
    code, out, _ = run("check", path, "--json")
    report = json.loads(out)
    assert (code, report["ok"], [row["line"] for row in report["damaged"]]) == (1, False, [11, 12])
    assert "a time is negative or no number" in report["damaged"][0]["reason"]


def test_diff_prints_ratios_and_differing_headers(run) -> None:
    made("a.tsv")
    made("b.tsv", 3.0, replace(IDENTITY, runtime="runtime 2"))
    code, out, _ = run("diff", "a.tsv", "b.tsv")
    assert code == 0
    assert "differs   runtime 'runtime 1' and 'runtime 2'" in out
    (conv,) = (line.split() for line in out.splitlines() if line.startswith("conv"))
    assert conv == ["conv", "16", "3.0000", "3.0000", "3.0000"]
    assert "layers 1.0000, networks too few" in out
    report = json.loads(run("diff", "a.tsv", "b.tsv", "--json")[1])
    assert (report["ratio"], report["common"], report["header"]) == (3.0, 17, {"runtime": ["runtime 1", "runtime 2"]})


def test_merge_and_what_check_and_predict_say_of_a_forced_one(run, monkeypatch, capsys) -> None:
    made("a.tsv", most=40)
    made("b.tsv", 2.0)
    code, out, _ = run("merge", "a.tsv", "b.tsv", "--out", "ab.tsv")
    assert code == 0
    # The first table has the no-op and the counts 8, 16, 24, 32; twelve are new.
    assert "12 of 17 rows added, 0 were there already" in out
    assert "5 contradict rows that were there" in out
    estimated = made("e.tsv", 4.0, replace(IDENTITY, estimated=True))
    assert run("merge", "a.tsv", estimated, "--out", "mixed.tsv")[0] == 2
    code, out, _ = run("merge", "a.tsv", estimated, "--out", "mixed.tsv", "--force", "--json")
    assert (code, json.loads(out)["merged"][0]["unlike"]) == (0, {"estimated": [False, True]})
    assert "rows of another header: 12 rows measured otherwise" in " ".join(run("check", "mixed.tsv")[1].split())
    assert "12 rows are from tables with another header" in " ".join(run("show", "mixed.tsv")[1].split())


def test_predict_says_that_a_table_is_mixed(run, capsys) -> None:
    from amc_latency.measuring.prediction import predict
    from amc_latency.models.load import NetworkOptions, load_network

    network = load_network(NetworkOptions("bundled", None, None, None))
    shapes = dict.fromkeys([NOOP, *network.graph.architecture.shapes()])
    half = len(shapes) // 2
    for path, chosen, identity in (
        ("a.tsv", list(shapes)[:half], IDENTITY),
        ("b.tsv", list(shapes)[half:], replace(IDENTITY, name="pixel1", estimated=True)),
    ):
        with LatencyTable.create(Path(path), identity, Protocol(rounds=1)) as table:
            for shape in chosen:
                table.append(Timing(shape.text, 0, 5, Summary(10.0, 10.0, 10.0, 0.0)))
    assert run("merge", "a.tsv", "b.tsv", "--out", "ab.tsv", "--force")[0] == 0
    prediction = predict(network, LatencyTable.open(Path("ab.tsv")), None)
    assert prediction.estimated
    assert prediction.note is not None
    assert f"{len(shapes) - half} rows of ab.tsv were measured otherwise" in prediction.note
    assert "device 'host' and 'pixel1'; estimated 'False' and 'True'" in prediction.note


def test_export_writes_csv_to_a_file_or_standard_output(run, tmp_path: Path) -> None:
    made("t.tsv")
    code, out, _ = run("export", "t.tsv", "--csv", "t.csv")
    assert (code, out) == (0, "t.csv: 17 layers and networks\n")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["latency_us"]) for row in rows[:2]] == [("noop", "1.0"), ("conv", "10.0")]
    code, out, _ = run("export", "t.tsv", "--csv", "-", "--rows")
    assert (code, len(out.splitlines())) == (0, 18)


@pytest.mark.parametrize("command", ["show", "check", "export"])
def test_a_table_is_read_without_pytorch(command: str, tmp_path: Path) -> None:
    """Which takes longer to load than most tables."""
    table = made(str(tmp_path / "t.tsv"))
    arguments = ["amc-latency", "lut", command, str(table), *(["--csv", "-"] if command == "export" else [])]
    script = (
        f"import sys; sys.argv = {arguments!r}; from amc_latency.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'amc_latency.lut.table.table' in str(sorted(sys.modules)) and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_name_that_no_folder_takes_is_refused_before_the_work(run) -> None:
    made("a.tsv")
    made("b.tsv")
    code, _, err = run("merge", "a.tsv", "b.tsv", "--out", "x" * 252 + ".tsv")
    assert code == 2
    assert "longer than a name can be, 255 bytes" in err
    code, _, err = run("merge", "a.tsv", "b.tsv", "--out", "x" * 246 + ".tsv")
    assert (code, err) == (0, "")
