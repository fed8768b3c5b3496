"""Arguments as options, and how loud a command is."""

from __future__ import annotations

import pytest

from amc_latency.cli.wording import Audience, worded

OPTIONS = {
    "target_ms": ("--target-ms",),
    "agent": ("--agent",),
    "estimate": ("--estimate",),
    "warm_start": ("--warm-start", "--cold-start"),
    "lut": ("--lut",),
    "weights": ("--weights",),
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("`target_ms` is missing", "--target-ms is missing"),
        ("give `agent='dp'`, or `agent=ppo`", "give --agent dp, or --agent ppo"),
        ('`weights="it\'s.pt"`', "--weights it's.pt"),
        ("without `estimate`, or with `estimate=True`", "without --estimate, or with --estimate"),
        ("`warm_start` or not", "--warm-start or --cold-start or not"),
        ("`warm_start=True`, `warm_start=False`", "--warm-start, --cold-start"),
        ("another `table`", "another --lut"),
        ("`amc-latency profile` and `cores` stay", "`amc-latency profile` and `cores` stay"),
        ("nothing to word", "nothing to word"),
    ],
)
def test_an_argument_becomes_its_option(text: str, wanted: str) -> None:
    assert worded(text, OPTIONS) == wanted


def test_options_are_looked_up_only_where_something_is_to_be_worded() -> None:
    def never() -> dict[str, tuple[str, ...]]:
        raise AssertionError

    assert Audience(never).words("plain") == "plain"
    with pytest.raises(AssertionError):
        Audience(never).words("`agent`")


def test_a_quiet_console_warns_and_a_verbose_one_tells_more(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet, verbose in ((True, False), (False, False), (False, True)):
        audience = Audience(lambda: OPTIONS)
        audience.hears(quiet, verbose)
        # What was said before the command's name is not taken back after it.
        audience.hears(False, False)
        console = audience.console()
        console.warn("mind `agent`")
        console.say("begun")
        console.detail("from here")
        with console.progress("timing", 3) as meter:
            meter.update(1)
            meter.update(2)
            meter.update(3)
    assert capsys.readouterr().err.splitlines() == [
        *("mind --agent",),
        *("mind --agent", "begun", "timing: 3/3"),
        *("mind --agent", "begun", "from here", "timing: 1/3", "timing: 2/3, 0 s left", "timing: 3/3"),
    ]
