"""Op-profile logs -> table: rows, rounds, what is refused, and the acceptance on logs of a real phone."""

from __future__ import annotations

import csv
import hashlib
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceIdentity, Protocol
from amc_latency.lut.imports.import_log import ImportLogError
from amc_latency.lut.imports.importers import MODEL, ImportReport, import_logs
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.prediction.replay import ReplayDevice
from amc_latency.lut.shapes.shape import NOOP, LayerShape, NetworkShape, network_text
from amc_latency.lut.table.table import LatencyTable
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lut.scripted_device import mobilenet_v1

PIXEL1 = Path(__file__).resolve().parents[3] / "../shared/pixel1"
FIXTURES = Path(__file__).parents[1] / "fixtures"
needs_pixel1 = pytest.mark.skipif(not PIXEL1.is_dir(), reason="the Pixel 1 logs are not beside the repository")

# A network in which one shape occurs twice, as a log of TFLite 2018 lists it: kind, milliseconds.
CONV, LINEAR = LayerShape("conv", 8, 8, 9, 9, 3, 1, 1), LayerShape("linear", 8, 10)
NETWORK = (CONV, CONV, LayerShape("global_pool", 8, 8, 9, 9), LINEAR)
OPS = (("CONV_2D", 1.0), ("CONV_2D", 3.0), ("AVERAGE_POOL_2D", 0.25), ("FULLY_CONNECTED", 0.5), ("SOFTMAX", 0.25))


TITLE = "=" * 30
OP_HEADS = (
    "             [node type]",
    "  [start]",
    "  [first]",
    " [avg ms]",
    "     [%]",
    "  [cdf%]",
    "  [mem KB]",
    "[times called]",
    "[Name]",
)
TYPE_HEADS = (
    "             [Node type]",
    "  [count]",
    "  [avg ms]",
    "    [avg %]",
    "    [cdf %]",
    "  [mem KB]",
    "[times called]",
)


def log_2018(
    path: Path,
    ops: Sequence[tuple[str, float]] = OPS,
    network_us: int = 5100,
    threads: int = 1,
    inputs: str = "[1,9,9,8]",
) -> Path:
    """A log as TFLite's `benchmark_tflite_model` of 2018 wrote it."""
    source, total = "native : benchmark_tflite_model.cc", sum(ms for _, ms in ops)
    rows = [(kind, ["0.000", f"{ms:.3f}"], ms, f"[net/op{number}]") for number, (kind, ms) in enumerate(ops)]
    types = [
        (kind, [str(sum(k == kind for k, _ in ops))], sum(ms for k, ms in ops if k == kind), "")
        for kind in dict.fromkeys(kind for kind, _ in ops)
    ]
    lines = (
        f"{source}:480 STARTING!",
        f"{source}:523 Input shapes: {inputs}",
        f"{source}:526 Num runs: [20]",
        f"{source}:528 Num threads: [{threads}]",
        f"{source}:531 Warmup runs: [10]",
        f"{source}:412 Running benchmark for 10 iterations with detailed stat logging:",
        f"{source}:440 {figures(10, 6000)}",
        "",
        f"{source}:412 Running benchmark for 20 iterations with detailed stat logging:",
        f"{source}:440 {figures(20, network_us)}",
        "",
        f"{source}:590 Average inference timings in us: Warmup: 6000, no stats: {network_us}",
        f"native : stat_summarizer.cc:358 Number of nodes executed: {len(ops)}",
        f"{source}:108 {TITLE} Run Order {TITLE}",
        *table_lines(OP_HEADS, rows, total),
        "",
        f"{TITLE} Top by Computation Time {TITLE}",
        *table_lines(OP_HEADS, sorted(rows, key=lambda row: -row[2]), total),
        "",
        f"{TITLE} Summary by node type {TITLE}",
        *table_lines(TYPE_HEADS, types, total),
        "",
        f"Timings (microseconds): {figures(30, round(1000 * total))}",
        "Memory (bytes): count=30 curr=0(all same)",
        f"{len(ops)} nodes observed",
        "",
    )
    path.write_text("\n".join(lines))
    return path


def table_lines(heads: Sequence[str], rows: Sequence[tuple[str, list[str], float, str]], total_ms: float) -> list[str]:
    """A table of a log: of each row the type, the cells up to its time, the time, and the cell after all others."""
    lines, before_ms = ["\t" + "\t".join(heads)], 0.0
    for kind, cells, ms, name in rows:
        before_ms += ms
        calls = "1" if name else cells[0]
        shares = [f"{100 * part / total_ms:.3f}%" for part in (ms, before_ms)]
        padded = [
            cell.rjust(len(head))
            for cell, head in zip((kind, *cells, f"{ms:.3f}", *shares, "0.000"), heads, strict=False)
        ]
        lines.append("\t" + "\t".join((*padded, calls.rjust(9), *([name] if name else []))))
    return lines


def figures(n: int, mean_us: int) -> str:
    """Of runs of which half took 100 us longer than the mean, the others less."""
    low, high = mean_us - 100, mean_us + 100
    return f"count={n} first={mean_us} curr={low} min={low} max={high} avg={mean_us} std=100"


def scaled(path: Path, factor: float) -> Path:
    return log_2018(path, [(kind, ms * factor) for kind, ms in OPS], round(5100 * factor))


def imported(
    out: Path, *logs: Path, shapes: NetworkShape = NETWORK, device: str = "imported", force: bool = False
) -> ImportReport:
    return import_logs(logs, shapes, ["layer"] * len(shapes), out, device, force)


def refusal(out: Path, *logs: Path, shapes: NetworkShape = NETWORK, device: str = "imported") -> str:
    """The one line that an import is refused with; it may not touch the table."""
    before = out.read_bytes() if out.exists() else None
    with pytest.raises(ImportLogError) as caught:
        imported(out, *logs, shapes=shapes, device=device)
    assert (out.read_bytes() if out.exists() else None) == before
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_a_log_becomes_rows(tmp_path: Path) -> None:
    out, log = tmp_path / "t.tsv", log_2018(tmp_path / "run1.txt")
    report = imported(out, log, device="pixel1")
    table = LatencyTable.open(out)
    assert table.identity == DeviceIdentity("pixel1", MODEL, "TFLite 2018 op profile")
    assert table.protocol == replace(
        Protocol(clock="wall", statistic="mean"), warmup=10, runs=20, max_runs=20, min_time_ms=0.0, rounds=1
    )
    # A shape that occurs twice has the mean, so that the network's sum stays the log's.
    assert table.latency_us(CONV.text) == (1000 + 3000) / 2
    assert table.latency_us(LINEAR.text) == 500
    assert table.latency_us(NOOP.text) == 0
    assert Predictor(table).raw_ms(NETWORK) == pytest.approx(1 + 3 + 0.25 + 0.5)
    network = table.timing(network_text(NETWORK), 0)
    assert network is not None
    assert network.wall is not None
    assert (network.n, network.wall.min_us, network.wall.mean_us, network.wall.std_us) == (20, 5000, 5100, 100)
    conditions = json.loads(table.timing(CONV.text, 0).conditions)
    assert conditions == {
        "source": "run1.txt",
        "sha256": hashlib.sha256(log.read_bytes()).hexdigest(),
        "format": "TFLite 2018 op profile",
        "ops": ["[net/op0]", "[net/op1]"],
    }
    assert report.rows_added == len(table.rows) - 1 == 3 + 1
    assert (report.layers, report.shapes, report.known) == (4, 3, 0)
    assert report.ops_ms == pytest.approx(5)
    assert report.layers_ms == pytest.approx(4.75)
    assert report.network_ms == pytest.approx(5.1)
    assert [(op.op, op.count, op.share_pct) for op in report.left_out] == [("SOFTMAX", 1, pytest.approx(5.0))]
    assert report.spread_pct is None
    assert table.summary()["networks"] == 1


def test_each_log_is_a_round_and_a_mean_of_means_counts(tmp_path: Path) -> None:
    logs = [scaled(tmp_path / f"{factor}.txt", factor) for factor in (1, 1.1, 1.2)]
    report = imported(tmp_path / "t.tsv", *logs)
    table = LatencyTable.open(tmp_path / "t.tsv")
    assert [row.round for row in table.rows if row.workload == LINEAR.text] == [0, 1, 2]
    assert table.latency_us(LINEAR.text) == pytest.approx(500 * 1.1)
    assert report.layers_ms == pytest.approx(4.75 * 1.1)
    # Largest less smallest, of the mean.
    assert report.spread_pct == pytest.approx(100 * 0.2 / 1.1)
    assert report.layer_spread_pct == pytest.approx(100 * 0.2 / 1.1, rel=0.01)
    # One by one they make the same table.
    for log in logs:
        imported(tmp_path / "u.tsv", log)
    assert (tmp_path / "u.tsv").read_bytes() == (tmp_path / "t.tsv").read_bytes()


def test_a_log_is_never_added_twice(tmp_path: Path) -> None:
    out, log, other = tmp_path / "t.tsv", log_2018(tmp_path / "a.txt"), scaled(tmp_path / "b.txt", 2)
    copy = tmp_path / "copy.txt"
    copy.write_bytes(log.read_bytes())
    assert [each.rows for each in imported(out, log, copy).logs] == [4, 0]
    before = out.read_bytes()
    assert imported(out, copy).rows_added == 0
    assert out.read_bytes() == before
    report = imported(out, log, other, force=True)
    assert [each.rows for each in report.logs] == [0, 4]
    # Of what is new only: 2 was predicted as 1.
    assert report.known == 3
    assert report.known_mean_error_pct == report.known_max_error_pct == pytest.approx(50)


def test_an_import_that_was_killed_is_finished_by_the_same_call(tmp_path: Path) -> None:
    out, logs = tmp_path / "t.tsv", [scaled(tmp_path / f"{factor}.txt", factor) for factor in (1, 0.78)]
    # As different as two logs may be: 24.7 % of their mean, though the first is 28 % off the second.
    imported(out, *logs)
    whole = out.read_bytes()
    for lines in (7, 8, 10, 13):
        out.write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]) + b"torn")
        imported(out, *logs)
        assert out.read_bytes() == whole


def test_a_table_says_beforehand_what_it_would_have_told(tmp_path: Path) -> None:
    out, first = tmp_path / "t.tsv", log_2018(tmp_path / "a.txt")
    imported(out, first)
    # Another network that shares the linear layer alone: 0.5 ms predicted, 0.4 ms measured.
    wide = LayerShape("conv", 8, 8, 30, 30, 3, 1, 1)
    other = log_2018(
        tmp_path / "b.txt", [("CONV_2D", 9.0), ("MEAN", 0.5), ("CONV_2D", 0.4)], 10_000, inputs="[1,30,30,8]"
    )
    report = imported(out, other, shapes=(wide, LayerShape("global_pool", 8, 8, 30, 30), LINEAR))
    assert report.known == 1
    assert report.known_max_error_pct == report.known_mean_error_pct == pytest.approx(100 * (0.5 / 0.4 - 1))
    table = LatencyTable.open(out)
    assert table.latency_us(LINEAR.text) == (500 + 400) / 2
    assert table.latency_us(wide.text) == 9000


def test_the_table_can_be_replayed(tmp_path: Path) -> None:
    imported(tmp_path / "t.tsv", log_2018(tmp_path / "a.txt"))
    device = ReplayDevice(LatencyTable.open(tmp_path / "t.tsv"))
    assert device.table.protocol.over_rounds([1.0, 2.0]) == 1.5
    assert device.repeats == {CONV.text, NETWORK[2].text, LINEAR.text, NOOP.text, network_text(NETWORK)}


def test_what_cannot_be_imported_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    good, out = log_2018(tmp_path / "good.txt"), tmp_path / "t.tsv"
    no_log, cut = tmp_path / "no.txt", tmp_path / "cut.txt"
    no_log.write_text("no log at all\n")
    cut.write_text(good.read_text()[: good.read_text().index("AVERAGE_POOL_2D")])
    modern = FIXTURES / "strided.op_profile.txt"
    other = log_2018(tmp_path / "other.txt", [*OPS[1:], OPS[0]])
    for logs, message in (
        ([tmp_path / "missing.txt"], "there is no log .*missing.txt"),
        ([tmp_path], "cannot read the log .*: is a folder"),
        ([good, no_log], r"no.txt has no op profile: was it made with --enable_op_profiling=true\?"),
        ([good, cut], "cut.txt: "),
        ([modern], r"strided.op_profile.txt: op 2 of 12, Convolution \(NHWC, F32\) DWConv 'Delegate/.*:1', does not"),
        ([good, other], r"other.txt: op 2 of 5, AVERAGE_POOL_2D '\[net/op1\]', does not match layer 2 of 4, 'layer'"),
        ([good, log_2018(tmp_path / "threads.txt", threads=2)], "threads.txt is .* 2 threads and .*good.txt is"),
    ):
        with pytest.raises(ImportLogError, match=message) as caught:
            imported(out, *logs)
        assert "\n" not in str(caught.value)
        assert not out.exists()
    with pytest.raises(ImportLogError, match="there is no folder"):
        imported(tmp_path / "nowhere" / "t.tsv", good)


def test_a_table_of_something_else_is_left_alone(tmp_path: Path) -> None:
    good = log_2018(tmp_path / "good.txt")
    theirs = {
        "name 'pixel1', these logs are 'imported' (see `device`)": (
            DeviceIdentity("pixel1", MODEL, "TFLite 2018 op profile"),
            Protocol(clock="wall", statistic="mean"),
        ),
        "model 'Pixel', these": (DeviceIdentity("imported", "Pixel", ""), Protocol()),
        "runtime 'TFLite XNNPACK op profile', these": (
            DeviceIdentity("imported", MODEL, "TFLite XNNPACK op profile"),
            Protocol(clock="wall", statistic="mean"),
        ),
        "statistic 'median', these logs are 'mean'": (
            DeviceIdentity("imported", MODEL, "TFLite 2018 op profile"),
            Protocol(clock="wall", statistic="median"),
        ),
    }
    for number, (message, (identity, protocol)) in enumerate(theirs.items()):
        path = tmp_path / f"{number}.tsv"
        LatencyTable.create(path, identity, protocol)
        before = path.read_bytes()
        with pytest.raises(ImportLogError) as caught:
            imported(path, good)
        assert message in str(caught.value)
        assert path.read_bytes() == before


def test_a_log_is_of_one_network_only(tmp_path: Path) -> None:
    out, good = tmp_path / "t.tsv", log_2018(tmp_path / "good.txt")
    imported(out, good)
    before = out.read_bytes()
    others = (replace(CONV, c_out=4), replace(CONV, c_in=4), *NETWORK[2:])
    with pytest.raises(ImportLogError, match=r"good.txt is in .* already, as another network"):
        imported(out, scaled(tmp_path / "new.txt", 1.1), good, shapes=others)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ("[1,9,9,3]", "1x9x9x3"),
        ("[1,224,9,8]", "1x224x9x8"),
        ("[1, 9, 224, 8]", "1x9x224x8"),
        # A batch of eight takes another time.
        ("[8,9,9,8]", "8x9x9x8"),
    ],
)
def test_a_log_of_another_input_is_refused_unless_forced(tmp_path: Path, inputs: str, says: str) -> None:
    out, log = tmp_path / "t.tsv", log_2018(tmp_path / "other.txt", inputs=inputs)
    message = refusal(out, log_2018(tmp_path / "good.txt"), log)
    assert f"other.txt has the input {says}, the network takes 1x9x9x8" in message
    assert imported(out, log, force=True).rows_added == 4


@pytest.mark.parametrize("inputs", ["[]", "", "[1,72]", "[1,9,9,8:1,4]"])
def test_an_input_that_a_log_does_not_say_of_one_image_is_no_obstacle(tmp_path: Path, inputs: str) -> None:
    assert imported(tmp_path / "t.tsv", log_2018(tmp_path / "log.txt", inputs=inputs)).rows_added == 4


def test_logs_whose_sums_differ_too_much_are_refused_unless_forced(tmp_path: Path) -> None:
    out, one = tmp_path / "t.tsv", log_2018(tmp_path / "one.txt")
    # 0.28 of 1.14 is 24.6 %, and 0.32 of 1.16 is 27.6 %.
    near, far = scaled(tmp_path / "near.txt", 1.28), scaled(tmp_path / "far.txt", 1.32)
    message = refusal(out, one, far)
    assert message.startswith("the op sums of these logs differ by 28 %, from 5.000 ms in ")
    assert "one.txt to 6.600 ms in " in message
    assert "`force`" in message
    assert imported(out, one, far, force=True).spread_pct == pytest.approx(100 * 0.32 / 1.16)
    assert imported(tmp_path / "u.tsv", one, near).spread_pct == pytest.approx(100 * 0.28 / 1.14)


def test_logs_that_the_table_is_far_off_are_refused_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "t.tsv"
    imported(out, log_2018(tmp_path / "a.txt"))
    # The table says 1: that is 53 % less than 2.128, 29 % more than 0.776, and 19.9 % less than 1.248.
    for factor, off in ((2.128, 53), (0.776, 29)):
        assert refusal(out, scaled(tmp_path / "b.txt", factor)) == (
            f"these logs are {off} % off what the table {out} holds for the same layers: of another network? "
            "Give its `channels` or `width`, another `out`, or `force`"
        )
    assert imported(out, scaled(tmp_path / "c.txt", 1.248)).known_mean_error_pct == pytest.approx(19.87, abs=0.01)
    assert imported(out, scaled(tmp_path / "b.txt", 2.128), force=True).rows_added == 4


def test_a_device_is_a_plain_name(tmp_path: Path) -> None:
    log = log_2018(tmp_path / "a.txt")
    for device in ("", "my phone", "a/b", "caf\u00e9", "a\n", "\x1b[31m", "a,b"):
        assert "is no plain name: give letters, digits, '.', '_' and '-'" in refusal(
            tmp_path / "t.tsv", log, device=device
        )
    assert imported(tmp_path / "t.tsv", log, device="Pixel_6-a.2").device.startswith("Pixel_6-a.2, ")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "log.txt is empty"),
        (b" \n\n", "log.txt is empty"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "log.txt is not text"),
        (bytes(range(128, 256)) * 9, "log.txt is not text"),
        (b"\x1b\x07" * 50 + b"text", "log.txt is not text"),
        ("Run Order".encode("utf-16"), "log.txt is not text in UTF-8 but in UTF-16"),
        (b"\xfe\xff" + "Run Order".encode("utf-16-be"), "log.txt is not text in UTF-8 but in UTF-16"),
        (b"count=1 caf\xe9 \x1b[0m and quite some words more\n", "log.txt has no op profile"),
    ],
)
def test_what_is_no_log_is_said_and_not_quoted(tmp_path: Path, data: bytes, says: str) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(data)
    assert says in refusal(tmp_path / "t.tsv", log)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=40)), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_whatever_a_log_is_damaged_with_is_never_quoted(damage: list[tuple[int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log, out = log_2018(Path(folder) / "log.txt"), Path(folder) / "t.tsv"
        data = log.read_bytes()
        for at, garbage in damage:
            data = data[: at % len(data)] + garbage + data[at % len(data) :]
        log.write_bytes(data)
        said = ""
        try:
            imported(out, log)
        except ImportLogError as error:
            said = str(error)
        assert said.isprintable()
        assert "\ufffd" not in said
        assert out.exists() == (not said)


def test_a_quoted_line_is_short(tmp_path: Path) -> None:
    log = log_2018(tmp_path / "log.txt")
    log.write_text(log.read_text() + "INFO: count=" + "9" * 5000 + "\x1b[31m\n")
    message = refusal(tmp_path / "t.tsv", log)
    assert message.count("9") < 120
    assert len(message) < len(str(log)) + 250


def pixel1_logs(name: str) -> list[Path]:
    return [PIXEL1 / "logs" / f"{name}_run{run}.txt" for run in (1, 2, 3)]


def per_op_ms(model: str) -> list[float]:
    """The sum of each run's 29 ops, from the table that others made of the logs."""
    with (PIXEL1 / "per_op.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    return [sum(float(row["avg_ms"]) for row in rows if row["run"] == run) for run in ("1", "2", "3")]


def mobilenet_counts(width: float) -> list[int]:
    return [round(count * width) for count in mobilenet_v1().group_channels]


@needs_pixel1
@pytest.mark.parametrize(("name", "width"), [("mobilenet", 1.0), ("0.75mobilenet", 0.75)])
def test_a_table_from_a_real_phones_logs_sums_to_what_they_say(tmp_path: Path, name: str, width: float) -> None:
    shapes = mobilenet_v1().shapes(mobilenet_counts(width))
    report = imported(tmp_path / "t.tsv", *pixel1_logs(name), shapes=shapes)
    own_ms = statistics.fmean(per_op_ms(name))
    # Rounding to 10 ns in the table, and nothing else.
    assert report.layers_ms == pytest.approx(own_ms, abs=0.001)
    # All 31 ops, those left out too: the acceptance.
    everything_ms = statistics.fmean(log.ops_ms for log in report.logs)
    assert Predictor(LatencyTable.open(tmp_path / "t.tsv")).raw_ms(shapes) == pytest.approx(everything_ms, rel=0.001)
    assert [op.op for op in report.left_out] == ["SQUEEZE", "SOFTMAX"]
    assert sum(op.share_pct for op in report.left_out) == pytest.approx(100 * (1 - own_ms / everything_ms), abs=1e-3)
    # The means that end_to_end.csv has of the same runs.
    ends = {"mobilenet": (123.162, 123.034, 127.212), "0.75mobilenet": (73.083, 72.131, 72.164)}[name]
    assert [log.network_ms for log in report.logs] == pytest.approx(ends, abs=0.0005)


@needs_pixel1
def test_one_run_foretells_the_others_and_not_another_width(tmp_path: Path) -> None:
    out, logs = tmp_path / "t.tsv", pixel1_logs("mobilenet")
    shapes = mobilenet_v1().shapes()
    imported(out, logs[0], shapes=shapes)
    report = imported(out, *logs[1:], shapes=shapes)
    assert report.known == report.shapes == 21
    # By hand for the 29 ops from per_op.csv: the same shape is off by a few percent from run to run.
    assert report.known_mean_error_pct is not None
    assert report.known_max_error_pct is not None
    assert 0.5 < report.known_mean_error_pct < 3
    assert report.known_max_error_pct < 8
    narrow = mobilenet_v1().shapes(mobilenet_counts(0.75))
    assert not set(narrow).intersection(shapes)
    report = imported(out, *pixel1_logs("0.75mobilenet"), shapes=narrow)
    assert report.known == 0
    assert report.known_mean_error_pct is None
    # Both networks stay what their own logs say.
    predictor = Predictor(LatencyTable.open(out))
    assert predictor.raw_ms(shapes) == pytest.approx(statistics.fmean(per_op_ms("mobilenet")), abs=0.001)
    assert predictor.raw_ms(narrow) == pytest.approx(statistics.fmean(per_op_ms("0.75mobilenet")), abs=0.001)
