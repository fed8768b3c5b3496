"""Progress: plain lines when piped, on standard error only."""

from __future__ import annotations

import pytest

from amc_latency.console import Console


def test_piped_progress_ends_with_a_line_and_leaves_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with console.progress("timing", 3) as meter:
        for done in (1, 2, 3):
            meter.update(done, note="layer")
    console.say("over")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["timing: 3/3, layer", "over"]


def test_a_quiet_console_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    with console.progress("timing", 1) as meter:
        meter.update(1)
    console.say("over")
    assert capsys.readouterr() == ("", "")


def test_the_total_may_change_on_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress("timing", 1) as meter:
        meter.update(1, total=2)
        assert (meter.done, meter.total) == (1, 2)
        meter.update(2, total=2)
    assert capsys.readouterr().err == "timing: 2/2\n"


def test_one_bar_may_begin_within_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    console = Console()
    with console.progress("training", 2) as outer:
        with console.progress("decoding", 1) as inner:
            inner.update(1)
        # What is said now must not tear the outer bar.
        assert console._live is not None
        outer.update(2)
    assert (inner.done, outer.done) == (1, 2)
