"""What a report says of its figures: intervals beside each, spreads, a verdict of the interval's upper end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amc_latency.errors import JobError
from amc_latency.search.results.report import search_text
from amc_latency.search.results.result import BaselineRow, BudgetRow, Row, SearchReport
from amc_latency.search.run import check_met
from amc_latency.training.intervals import compare, interval_pct

ORIGINAL = Row(
    "original", (8, 16), 2.0, 2.0, 1.0, 100, 1000, 80.0, 82.0, "original.tflite",
    accuracy_95=interval_pct(80.0, 50), held_back_95=interval_pct(82.0, 50), top5=96.0, held_back_top5=98.0,
    measured_95=(1.98, 2.02), rounds=9, within_pct=2.1, rounds_sd_pct=0.84,
)  # fmt: skip
UNIFORM = replace(ORIGINAL, name="uniform", counts=(4, 8), tflite="uniform.tflite")
OURS = replace(ORIGINAL, name="ours", counts=(2, 12), measured_ms=0.98, measured_95=(0.96, 1.0), repeat_pct=-0.37)


def report(ours: Row = OURS, gained: int = 3, lost: int = 3, **changes: object) -> SearchReport:
    found = SearchReport(
        original_ms=2.0, target_ms=1.0, predicted_ms=0.99, measured_ms=ours.measured_ms,
        met=ours.verdict(1.0).is_met, statistic="median over 9 rounds of the median thread CPU time",
        accuracy_original=80.0, accuracy=80.0, accuracy_uniform=80.0, macs=100, episodes=5, evaluations=5, attempts=1,
        seconds=1.0, data="photos", device="host", table="table.tsv", tflite="ours.tflite",
        rows=[ORIGINAL, UNIFORM, ours], test_images=50, held_back_images=50,
        baselines=[BaselineRow("dp", (2, 12), 0.99, 70.0, 0, interval_pct(70.0, 50), 94.0)],
        comparisons=[compare("original", 1, 4, 50), compare("uniform", gained, lost, 50)],
    )  # fmt: skip
    return replace(found, **changes)  # type: ignore[arg-type]


def shown(capsys: pytest.CaptureFixture[str], of: SearchReport) -> str:
    search_text(of)
    return capsys.readouterr().out


def test_every_accuracy_has_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, report())
    # Wilson's, of 50 images.
    assert text.count("80.00 (67.0-88.8)") == text.count("82.00 (69.2-90.2)") == 3
    assert text.count("98.00 (89.5-99.6)") == text.count("96.00 (86.5-98.9)") == 3
    assert "70.00 (56.2-80.9)" in text
    assert "94.00 (83.8-97.9)" in text


def test_agreement_with_itself_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    agreeing = replace(ORIGINAL, accuracy_95=(), held_back_95=())
    text = shown(capsys, report(rows=[agreeing, UNIFORM, OURS], unlabelled=True))
    assert text.count("98.00 (89.5-99.6)") == 2
    assert "98.00 \u2502" in text


def test_the_statistic_is_named_with_three_spreads(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        "measured: median over 9 rounds of the median thread CPU time; ours varies by ±2.1 % within a round "
        "(p10 to p90), 0.8 % from round to round (standard deviation), -0.4 % beside the timing before fine-tuning"
    ) in shown(capsys, report())
    terse = replace(OURS, within_pct=None, repeat_pct=None)
    assert "; ours varies by 0.8 % from round to round (standard deviation)\n" in shown(capsys, report(terse))


@pytest.mark.parametrize(
    ("gained", "lost", "says"),
    [
        (3, 3, "; beside the uniform width: no difference shown on 50 images"),
        (8, 3, "; beside the uniform width: no difference shown on 50 images"),
        # McNemar: (12 - 1) / sqrt(13) is 3.05 standard errors.
        (12, 1, " points more of 50 images right"),
        (1, 12, " points fewer of 50 images right"),
    ],
)
def test_the_verdict_says_whether_ours_is_better_than_the_uniform_width(
    capsys: pytest.CaptureFixture[str], gained: int, lost: int, says: str
) -> None:
    last = next(line for line in shown(capsys, report(OURS, gained, lost)).splitlines() if "target met" in line)
    assert last.startswith("target met on host; beside the uniform width: ")
    assert last.endswith(says)


def test_the_uniform_width_is_not_compared_with_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert "beside the uniform width" not in shown(capsys, report(replace(OURS, counts=UNIFORM.counts)))


def test_met_is_the_upper_end_and_missed_the_figure_itself(capsys: pytest.CaptureFixture[str]) -> None:
    sure, noisy = report(), report(replace(OURS, measured_95=(0.95, 1.01)))
    over = report(replace(OURS, measured_ms=1.02, measured_95=(0.99, 1.05)))
    assert [each.met for each in (sure, noisy, over)] == [True, False, False]
    assert [each.is_missed for each in (sure, noisy, over)] == [False, False, True]
    check_met(sure)
    check_met(noisy)
    assert "target met, within the noise: ±3.1 % on host" in shown(capsys, noisy)
    assert "TARGET NOT MET, by less than the noise: ±2.9 % on host" in shown(capsys, over)
    with pytest.raises(JobError, match=r"measured 1\.02 ms, 2\.0 % over, within the noise, the target of 1 ms"):
        check_met(over)


def test_another_budget_that_is_not_held_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    over = report(budgets=[BudgetRow("MACs", 90, 100)], met=False)
    assert over.is_missed
    assert "TARGET NOT MET: too many MACs on host" in shown(capsys, over)


def test_precisions_are_told_layer_by_layer(capsys: pytest.CaptureFixture[str]) -> None:
    precisions = ("int8", "int8", "float32", "int8")
    text = shown(capsys, report(replace(OURS, counts=(2, 1, 1, 12, 2, 1), channels=(2, 12), precisions=precisions)))
    assert "channels kept: 2,12\n" in text
    assert "ours: 1 layers float32, 3 layers int8, in order 2xint8 1xfloat32 1xint8\n" in text


def test_the_accuracy_of_the_files_is_told_with_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    assert "of the files" not in shown(capsys, report())
    rows = [
        replace(row, file_accuracy=pct, file_accuracy_95=interval_pct(pct, 50))
        for row, pct in ((ORIGINAL, 80.0), (UNIFORM, 76.0), (OURS, 82.0))
    ]
    said = (
        "test % of the files, run by LiteRT: original 80.00 (67.0-88.8), uniform 76.00 (62.6-85.7), ours 82.00 (69.2-"
    )
    assert said in shown(capsys, report(rows=rows))
    # Of a task's score, or where LiteRT could not run one.
    assert "by LiteRT: uniform 76.00 (62.6-85.7)\n" in shown(capsys, report(rows=[ORIGINAL, rows[1], OURS]))
