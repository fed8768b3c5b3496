"""Operator profiles of all programs and years: the figures that are printed, and no others when the text is damaged."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from amc_latency.android_bench.printed.counts import Counts
from amc_latency.android_bench.printed.op_profile import Op, OpProfile, parse_op_profile
from amc_latency.android_bench.runner import ParseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.android_bench.mutation import damaged

FIXTURES = Path(__file__).parents[1] / "fixtures"
PIXEL1 = Path(__file__).resolve().parents[3] / "../shared/pixel1"
DWCONV = "Convolution (NHWC, F32) DWConv"
RUN_2018 = [
    ("mobilenet", 1, 123162.0, 3455.0, 117812.0, 152764.0),
    ("0.75mobilenet", 2, 72131.2, 1473.0, 70355.0, 83401.0),
]


def fixture(name: str) -> str:
    return (FIXTURES / name).read_text()


def log_of_2018(name: str = "mobilenet_run1") -> str:
    path = PIXEL1 / f"logs/{name}.txt"
    if not path.exists():
        pytest.skip("the logs of 2018 are not there: put shared/pixel1 beside the repository")
    return path.read_text()


def test_todays_table() -> None:
    profile = parse_op_profile(fixture("opprof.out"))
    assert profile.ops == (Op(DWCONV, f"Delegate/{DWCONV}:0", 14.158, 13.948, 1),)
    # Of the four counted runs, not of the warm-up nor of the operator alone.
    assert profile.run == Counts(4, 14080.0, 13916.0, 14085.0, 14837.0, 14229.5, 357.0)
    assert profile.delegated


@pytest.mark.parametrize(("name", "avg_ms", "first_ms"), [("prof", 14.857, 13.941), ("prof2", 14.5885, 14.492)])
def test_csv_from_a_file(name: str, avg_ms: float, first_ms: float) -> None:
    # The type's commas are commas; those of the name were tabs.
    profile = parse_op_profile(fixture(f"{name}.csv"))
    assert profile == OpProfile((Op(DWCONV, f"Delegate/{DWCONV}:0", avg_ms, first_ms, 1),), None, True)


def test_csv_among_the_output() -> None:
    text = fixture("opcsv_stdout.txt")
    profile = parse_op_profile(text)
    assert [(op.node_type, op.name) for op in profile.ops] == [
        ("Binary Elementwise (ND)", "Delegate/Binary Elementwise (ND):0"),
        ("CUMSUM", "[t1]:1"),
    ]
    assert not profile.delegated
    printed = re.findall(r"^INFO: count=(\d+).* avg=(\S+)", text, re.MULTILINE)[-1]
    assert profile.run is not None
    assert (profile.run.n, profile.run.mean_us) == (int(printed[0]), float(printed[1]))
    timings = re.findall(r"^Timings .* avg=(\S+)", text, re.MULTILINE)[-1]
    assert profile.total_ms * 1000 == pytest.approx(float(timings), rel=1e-5)


def test_a_run_whose_profile_went_into_a_file_has_none() -> None:
    with pytest.raises(ParseError, match="no table 'Run Order'"):
        parse_op_profile(fixture("opcsv.out"))


def test_litert() -> None:
    profile = parse_op_profile(fixture("litert_profile.txt"))
    assert profile.ops == (
        Op("Delegate/Add (ND)", "[Delegate]:0", 0.009, 0.009, 1),
        Op("Delegate/Add (ND)", "[Delegate]:1", 0.004, 0.004, 1),
        Op("Delegate/Add (ND)", "[Delegate]:2", 0.008, 0.008, 1),
    )
    assert profile.run is None
    assert profile.delegated


def test_litert_merges_operators_of_one_name() -> None:
    profile = parse_op_profile(fixture("litert_profile_mixed.txt"))
    assert [op.times_called for op in profile.ops] == [2, 1, 1]
    # 14516 us in 20 runs.
    assert profile.total_ms == pytest.approx(14.516 / 20, abs=0.002)
    assert not profile.delegated


@pytest.mark.parametrize("run", [1, 2, 3])
@pytest.mark.parametrize("model", ["mobilenet", "0.75mobilenet"])
def test_2018_as_others_have_read_it(model: str, run: int) -> None:
    profile = parse_op_profile(log_of_2018(f"{model}_run{run}"))
    with (PIXEL1 / "per_op.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["model"], row["run"]) == (model, str(run))]
    assert len(rows) == 29
    layers = [op for op in profile.ops if op.node_type not in ("SQUEEZE", "SOFTMAX")]
    assert [(op.avg_ms, op.first_ms) for op in layers] == [(float(r["avg_ms"]), float(r["first_ms"])) for r in rows]
    for op, row in zip(layers, rows, strict=True):
        assert row["op"] in op.name
        assert (op.node_type == "DEPTHWISE_CONV_2D") == (row["kind"] == "dw")
    assert {op.times_called for op in profile.ops} == {1}
    assert not profile.delegated


@pytest.mark.parametrize(("model", "run", "mean", "std", "low", "high"), RUN_2018)
def test_2018_counts_200_runs(model: str, run: int, mean: float, std: float, low: float, high: float) -> None:
    counts = parse_op_profile(log_of_2018(f"{model}_run{run}")).run
    assert counts is not None
    assert (counts.n, counts.mean_us, counts.std_us, counts.min_us, counts.max_us) == (200, mean, std, low, high)
    assert counts.median_us is None


@pytest.mark.parametrize(
    ("old", "new", "quoted"),
    [
        # A row with another time, share, number of calls or type.
        ("   14.158\t100.000%", "   14.258\t100.000%", "DWConv"),
        ("   14.158\t100.000%", "   14.15\t100.000%", "14.15"),
        ("   14.158\t100.000%", "  14.158\t100.000%", "out of line"),
        ("     0.000\t        1\tDelegate", "     0.000\t        2\tDelegate", "DWConv"),
        ("F32) DWConv\t", "F32) DWConw\t", "DWConw"),
        ("100.000%\t100.000%\t     0.000\t        1\tD", "100.000%\t 99.000%\t     0.000\t        1\tD", "99.000%"),
        ("executed: 1", "executed: 2", "executed: 2"),
        ("\n1 nodes", "\n3 nodes", "3 nodes"),
        ("avg=14158.2", "avg=14258.2", "avg=14258.2"),
        ("first=13948 curr=14787", "first=13949 curr=14787", "first=13949"),
        ("avg=14229.5", "avg=14239.5", "14229.5"),
        ("Memory (bytes): count=0\n1 nodes observed", "Memory (bytes", "nodes executed: 1"),
    ],
)
def test_damage_is_seen_and_quoted(old: str, new: str, quoted: str) -> None:
    text = fixture("opprof.out")
    begin = text.index("Running benchmark for at least 4")
    assert old in text[begin:]
    with pytest.raises(ParseError, match=re.escape(quoted)):
        parse_op_profile(text[:begin] + text[begin:].replace(old, new, 1))


def test_two_logs_in_one_text() -> None:
    for name in ("opprof.out", "prof.csv", "litert_profile.txt"):
        with pytest.raises(ParseError, match="one text holds one profile"):
            parse_op_profile(fixture(name) * 2)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "= Run Order =\n", "============ Run Order ============\nnode type, name\nx, y\n"]
)
def test_no_table(text: str) -> None:
    with pytest.raises(ParseError):
        parse_op_profile(text)


def assert_same_figures(text: str, whole: OpProfile) -> None:
    """Either the text is turned down, or no figure differs by more than its rounding; see the parser's own words."""
    try:
        profile = parse_op_profile(text)
    except ParseError:
        return
    assert [(op.node_type, op.first_ms, op.times_called) for op in profile.ops] == [
        (op.node_type, op.first_ms, op.times_called) for op in whole.ops
    ]
    for op, true in zip(profile.ops, whole.ops, strict=True):
        assert op.avg_ms == pytest.approx(true.avg_ms, rel=1e-4, abs=max(3e-5 * whole.total_ms, 1e-4))
    if whole.run is not None and profile.run is not None:
        assert profile.run.mean_us == pytest.approx(whole.run.mean_us, abs=2.0)


@pytest.mark.parametrize("name", ["opprof.out", "opcsv_stdout.txt", "litert_profile.txt", "litert_profile_mixed.txt"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_text_has_no_other_figures(name: str, data: st.DataObject) -> None:
    text = fixture(name)
    assert_same_figures(data.draw(damaged(text)), parse_op_profile(text))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_text_of_2018_has_no_other_figures(data: st.DataObject) -> None:
    text = log_of_2018()
    assert_same_figures(data.draw(damaged(text)), parse_op_profile(text))


@pytest.mark.parametrize("name", ["opprof.out", "prof.csv", "litert_profile.txt"])
@pytest.mark.parametrize(
    ("one", "other"),
    [("Run Order", "Summary by node type"), ("Top by Computation Time", "Summary by node type")],
)
def test_titles_that_changed_places(name: str, one: str, other: str) -> None:
    text = fixture(name).replace(one, "\0").replace(other, one).replace("\0", other)
    with pytest.raises(ParseError, match="a table under this title has other columns"):
        parse_op_profile(text)
