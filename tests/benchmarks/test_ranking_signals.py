"""Rank correlations, and the table that is made of them."""

import math

import pytest
from scipy.stats import spearmanr

from benchmarks.signals import SIGNALS, rank_correlation, table


def test_rank_correlation_is_scipys_and_its_interval_holds_it() -> None:
    ones, others = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], [2.0, 7.0, 1.0, 8.0, 2.0, 8.0, 1.0, 8.0]
    value, low, high = rank_correlation(ones, others)
    assert value == pytest.approx(spearmanr(ones, others).statistic)
    assert -1 <= low < value < high <= 1


def test_ranks_alone_count() -> None:
    numbers = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert rank_correlation(numbers, [math.exp(number) for number in numbers]) == pytest.approx((1, 1, 1))
    assert rank_correlation(numbers, [-number for number in numbers])[0] == pytest.approx(-1)


def test_what_never_differs_ranks_nothing() -> None:
    assert math.isnan(rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])[0])


def test_table_turns_losses_round_and_has_the_best_first() -> None:
    rows = []
    for place in range(8):
        row = dict.fromkeys(SIGNALS, "1.0")
        row |= {"loss": str(5 - 0.1 * place), "accuracy": str(50 - place), "after": str(60 + place), "share": "0.5"}
        rows.append(row | {"test_images": "400", "steps_seconds": "2.0", "seconds": "10.0"})
    lines = table("t", "n", rows)
    assert "8 policies, after fine-tuning 60.00 to 67.00 % of 400 test images" in lines[1]
    assert lines[3].split()[:2] == ["loss", "1.00"]
    (accuracy,) = [line for line in lines if line.startswith("accuracy  ")]
    assert accuracy.split()[1] == "-1.00"
