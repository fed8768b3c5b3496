"""Op-profile logs as terminals and collectors keep them: the same figures, or a refusal that says why."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from amc_latency.android_bench.printed.log_lines import printed
from amc_latency.android_bench.printed.op_profile import parse_op_profile
from amc_latency.android_bench.runner import ParseError

FIXTURES = Path(__file__).parents[1] / "fixtures"
IMPORTED = Path(__file__).parents[2] / "lut" / "fixtures"
LOGS = [
    FIXTURES / "opprof.out",
    FIXTURES / "opcsv_stdout.txt",
    FIXTURES / "litert_profile.txt",
    FIXTURES / "litert_profile_mixed.txt",
    IMPORTED / "bundled.op_profile.txt",
    IMPORTED / "strided.op_profile.txt",
]
TABBED = [path for path in LOGS if "\t   " in path.read_text()]


def each_line(prefix: Callable[[random.Random], str]) -> Callable[[str], str]:
    """A collector that puts something before every line, also before empty ones."""

    def collected(text: str) -> str:
        draw = random.Random(0)
        return "\n".join(prefix(draw) + line for line in text.split("\n"))

    return collected


def time_of_day(draw: random.Random) -> str:
    return f"{draw.randrange(24):02}:{draw.randrange(60):02}:{draw.randrange(60):02}"


COLLECTORS: dict[str, Callable[[str], str]] = {
    "as printed": lambda text: text,
    "logcat brief": each_line(lambda draw: f"{draw.choice('IWD')}/tflite({draw.randrange(99999):5}): "),
    "logcat tag": each_line(lambda _: "I/tflite: "),
    "logcat threadtime": each_line(
        lambda draw: (
            f"11-{draw.randrange(30):02} {time_of_day(draw)}.{draw.randrange(1000):03} "
            f"{draw.randrange(99999):5} {draw.randrange(99999):5} {draw.choice('IWE')} tflite  : "
        )
    ),
    "syslog": each_line(
        lambda draw: f"Nov {draw.randrange(1, 31):2} {time_of_day(draw)} pixel bench[{draw.randrange(9999)}]: "
    ),
    "iso time": each_line(lambda draw: f"2026-11-30T{time_of_day(draw)}.{draw.randrange(10**7):07}Z "),
    "python": each_line(lambda draw: f"2026-11-30 {time_of_day(draw)},{draw.randrange(1000):03} - INFO - bench: "),
    "container": each_line(lambda draw: f"2026-11-30T{time_of_day(draw)}.{draw.randrange(10**9)}Z stdout F "),
    "brackets": each_line(lambda draw: f"[{time_of_day(draw)}] "),
    "seconds": each_line(lambda draw: f"[{draw.uniform(0, 9999):12.6f}] "),
    "quote": each_line(lambda _: "> "),
    "bar": each_line(lambda _: "bench-1  | "),
    "indented": each_line(lambda _: "    "),
    "indented by a tab": each_line(lambda _: "\t"),
    "dots": each_line(lambda draw: f"...{draw.randrange(999)}.. "),
    "grep": each_line(lambda draw: f"run.log:{draw.randrange(1, 5000)}:"),
    "spaces at the end lost": lambda text: "\n".join(
        line.rstrip() for line in each_line(lambda _: "I/tflite( 12): ")(text).split("\n")
    ),
    "another program between": lambda text: re.sub(
        r"\n", "\nD/wifi( 77): scan results: 12\n", each_line(lambda _: "I/tflite( 12): ")(text)
    ),
    "windows": lambda text: text.replace("\n", "\r\n"),
    "terminal": lambda text: text.replace("\n", "\r\r\n"),
    "empty lines": lambda text: text.replace("\n", "\n\n"),
    "windows twice": lambda text: text.replace("\n", "\r\n\r\n"),
    "no empty lines": lambda text: "\n".join(line for line in text.split("\n") if line.strip()),
    "byte order mark": lambda text: "\ufeff" + text,
    "colours": lambda text: "\n".join(f"\x1b[32m{line}\x1b[0m\x1b[K" for line in text.split("\n")),
    "colour of the level": lambda text: "\n".join(f"\x1b[1;34mI\x1b[0m bench: {line}" for line in text.split("\n")),
    "everything": lambda text: (
        "\ufeff"
        + each_line(lambda draw: f"\x1b[2m{time_of_day(draw)}\x1b[0m I/bench( 1): ")(text).replace("\n", "\r\n")
    ),
}


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
@pytest.mark.parametrize("collector", COLLECTORS)
def test_the_figures_are_those_that_were_printed(path: Path, collector: str) -> None:
    text = path.read_text()
    assert parse_op_profile(printed(COLLECTORS[collector](text))) == parse_op_profile(text)


SPACES: dict[str, Callable[[str], str]] = {
    "one": lambda text: text.replace("\t", " "),
    "four": lambda text: text.replace("\t", " " * 4),
    "eight": lambda text: text.replace("\t", " " * 8),
    "tab stops of eight": lambda text: text.expandtabs(8),
    "tab stops of four": lambda text: text.expandtabs(4),
}


@pytest.mark.parametrize("path", TABBED, ids=lambda path: path.name)
@pytest.mark.parametrize("spaces", SPACES)
@pytest.mark.parametrize("collector", ["as printed", "logcat brief", "syslog", "windows", "no empty lines"])
def test_tabs_that_became_spaces_are_read_by_the_columns_of_the_header(path: Path, spaces: str, collector: str) -> None:
    text = path.read_text()
    found = parse_op_profile(printed(COLLECTORS[collector](SPACES[spaces](text))))
    assert found == parse_op_profile(text)


@pytest.mark.parametrize("path", TABBED, ids=lambda path: path.name)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: re.sub(r"[ \t]+", " ", text),
        lambda text: re.sub(r"(?m)^( +\S.*?)  ( *[0-9])", r"\1 \2", text.expandtabs(8)),
    ],
    ids=["runs of spaces", "one column moved"],
)
def test_columns_that_were_moved_are_refused_for_that_reason(path: Path, change: Callable[[str], str]) -> None:
    with pytest.raises(ParseError, match=r"tabs are spaces, and column '.*' is not under its head any more"):
        parse_op_profile(printed(change(path.read_text())))


@pytest.mark.parametrize("path", TABBED, ids=lambda path: path.name)
def test_trimmed_lines_have_the_same_figures(path: Path) -> None:
    text = path.read_text()
    trimmed = "\n".join(line.strip() for line in text.expandtabs(8).split("\n"))
    assert parse_op_profile(printed(trimmed)) == parse_op_profile(text)


@pytest.mark.parametrize("path", TABBED, ids=lambda path: path.name)
def test_a_digit_more_or_less_is_still_seen(path: Path) -> None:
    text = SPACES["four"](path.read_text())
    begin = text.rindex("Run Order")
    figure = re.search(r"\d+\.\d{3}", text[begin:])
    assert figure is not None
    for wrong in ("1" + figure[0], figure[0][:-1]):
        with pytest.raises(ParseError):
            parse_op_profile(printed(text[:begin] + text[begin:].replace(figure[0], wrong, 1)))


def test_text_without_a_title_is_left_as_it_is() -> None:
    assert printed("I/tflite: one\nI/tflite: two\n") == "I/tflite: one\nI/tflite: two\n"
    assert printed("") == ""
