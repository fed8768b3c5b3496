"""Which rows are still to be made, which count, and what the table says of ours."""

from benchmarks.rivals.report import table, verdict
from benchmarks.rivals.rows import at_best_rate, best_rate, rates_left

RATES = (0.005, 0.02, 0.05)


def row(rival: str, seed: int, rate: float, held_back: float, after: float, measured: float = 0.5) -> dict[str, str]:
    numbers = {
        "share": 0.5,
        "seed": seed,
        "rate": rate,
        "held_back": held_back,
        "after": after,
        "before": 10.0,
        "measured": measured,
        "measured_low": measured - 0.01,
        "measured_high": measured + 0.01,
        "test_images": 400,
        "epochs": 2,
        "train_images": 1000,
        "seconds": 5.0,
    }
    return {"task": "t", "network": "n", "rival": rival, **{name: str(value) for name, value in numbers.items()}}


FIRST = [row("ours", 0, 0.005, 60, 71), row("ours", 0, 0.02, 65, 70), row("ours", 0, 0.05, 64, 72)]


def test_the_first_seed_takes_all_rates_and_others_its_best_by_held_back_images() -> None:
    assert rates_left([], 0, RATES) == list(RATES)
    assert rates_left([], 1, RATES) == []
    assert rates_left(FIRST[:1], 0, RATES) == [0.02, 0.05]
    assert best_rate(FIRST) == 0.02
    assert rates_left(FIRST, 1, RATES) == [0.02]
    assert rates_left([*FIRST, row("ours", 1, 0.02, 61, 69)], 1, RATES) == []


def test_only_rows_at_the_best_rate_count() -> None:
    rows = [*FIRST, row("ours", 1, 0.02, 61, 69)]
    assert [float(each["after"]) for each in at_best_rate(rows)] == [70, 69]
    assert at_best_rate([row("ours", 1, 0.02, 61, 69)]) == []


def test_verdict_is_about_ranges_and_of_three_seeds_at_least() -> None:
    assert verdict([70, 71, 72], [67, 68, 69]) == "+3.00 outside the spread"
    assert verdict([67, 68, 69], [70, 71, 72]) == "-3.00 outside the spread"
    assert verdict([70, 71, 72], [69, 70, 71]) == "+1.00 within the spread"
    assert verdict([70, 71], [60, 61]) == "+10.00 (too few seeds)"
    assert verdict([], [60.0]) == ""


def test_table_has_the_best_first_and_names_what_is_not_at_equal_milliseconds() -> None:
    seeds = (1, 2)
    ours = [*FIRST, *(row("ours", seed, 0.02, 61, 70 + seed) for seed in seeds)]
    uniform = [row("uniform", seed, 0.02, 61, 60 + seed, measured=0.52) for seed in (0, *seeds)]
    original = [{"before": "80.0"}]
    lines = table("t", "n", 0.5, [*uniform, *ours], original)
    text = "\n".join(lines)
    assert "original 80.00 (75.8-83.6) % of 400 test images" in text  # Wilson's interval, by hand
    assert [line.split()[0] for line in lines[-2:]] == ["ours", "uniform"]
    # (70 + 71 + 72) / 3 less (60 + 61 + 62) / 3, and .52 is 4 % over .5.
    assert lines[-1].endswith("+10.00 outside the spread  not at equal ms")
    assert "71.00 (1.00)" in lines[-2]
    assert "equal" not in lines[-2]
