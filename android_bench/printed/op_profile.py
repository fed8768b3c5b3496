"""What each operator of a model took, from the text of a profiling run: pure functions of text.

Three programs print tables of one kind: 2018's `benchmark_tflite_model` and today's `benchmark_model` with tabs between
the columns, the latter also as CSV, and LiteRT (`amc_bench`, LiteRT's `benchmark_model`) with spaces. Such a text says
everything twice, so a damaged figure is seen: the share in percent confirms an operator's time, the running sum
confirms the share, the summaries confirm sums and types. What is not seen is damage within the rounding of those, which
is some hundred-thousandths of the whole, and damage to the name of an operator that is not among the slowest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from amc_latency.android_bench.printed.counts import Counts, last_line, number, one_line, parse_figures, parse_run
from amc_latency.android_bench.runner import ParseError

_REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_INITIAL = "Profiling Info for Benchmark Initialization:"
_TITLE = re.compile(r"(?:native : \S+ )?=+ (Run Order|Top by Computation Time|Summary by node type) =+")
_SUMMARY = "Summary by node type"
_CLASSIC = "=" * 30
"""on both sides of the classic program's titles"""
_AFTER = re.compile(r"(?:native : \S+ )?(?:=+ .* =+|Number of nodes executed: .*|Timings \(microseconds\): .*)")
"""what follows a table, where the empty line between was lost"""
_TIMINGS = "Timings (microseconds): "
_OPERATORS = ("node type", "first", "avg ms", "%", "cdf%", "mem kb", "times called", "name")
_LOOSE = ("times called", "name")
"""columns that the classic program doesn't line up"""
_TYPES = ("node type", "count", "avg ms", "avg %", "cdf %", "mem kb", "times called")


@dataclass(frozen=True)
class Op:
    """One operator."""

    node_type: str
    """as the program names it: `CONV_2D`, or XNNPACK's `Convolution (NHWC, F32) IGEMM`"""
    name: str
    avg_ms: float
    """of one call, over all runs"""
    first_ms: float
    """of the first run's call"""
    times_called: int
    """in one run; operators of the same name are merged into one"""


@dataclass(frozen=True)
class OpProfile:
    """The operators of one model in the order in which they ran."""

    ops: tuple[Op, ...]
    run: Counts | None
    """the counted runs as a whole, where the text has them"""
    delegated: bool
    """whether every operator ran inside a delegate"""

    @property
    def total_ms(self) -> float:
        """What all operators together took in one run."""
        return sum(op.avg_ms * op.times_called for op in self.ops)


@dataclass(frozen=True)
class _Row:
    """A line of a table."""

    line: str
    cells: dict[str, str]
    csv: bool
    classic: bool
    """printed by the classic program, with tabs, or spaces where somebody put those in their place"""

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    @property
    def time_ms(self) -> float:
        """Of all calls."""
        return self.ms("avg ms") * self.whole("times called")

    @property
    def slack_ms(self) -> float:
        """How far `time_ms` is off at most, as the time of one call was rounded."""
        return 1.0001 * self.half(self.ms("avg ms")) * self.whole("times called")

    def ms(self, column: str) -> float:
        return self._figure(self[column])

    def percent(self, column: str) -> float:
        if not self[column].endswith("%"):
            raise ParseError(f"no share in percent in '{one_line(self.line)}'")
        # Nothing of nothing: C++ prints nan, and on some machines -nan.
        return float("nan") if self[column] in ("nan%", "-nan%") else self._figure(self[column][:-1])

    def whole(self, column: str) -> int:
        if not re.fullmatch("[1-9][0-9]{0,8}", self[column]):
            raise ParseError(f"no number of calls in '{one_line(self.line)}'")
        return int(self[column])

    def half(self, value: float) -> float:
        """How far a printed figure is off at most."""
        return value * 5e-6 if self.csv else 5e-4

    def _figure(self, text: str) -> float:
        if self.csv:
            return number(text, self.line)
        if not re.fullmatch(r"[0-9]{1,12}\.[0-9]{3}", text):
            raise ParseError(f"no program prints the number {text}: '{one_line(self.line)}'")
        return float(text)


def parse_op_profile(text: str) -> OpProfile:
    """The profile of a model's counted runs, of one text of any of the programs. Raises `ParseError` quoting a line."""
    lines = text.replace("\r\n", "\n").split("\n")
    regular = _regular(lines)
    tables = _tables(regular)
    rows, types = tables["Run Order"], tables[_SUMMARY]
    # LiteRT counts the calls of all runs, and so do the sums that it prints; the others those of one run.
    over_runs = not rows[0].csv and not rows[0].classic
    _check_number(regular, len(rows))
    _check_shares(rows)
    _check_types(rows, types, over_runs)
    _check_top(rows, tables["Top by Computation Time"])
    _check_totals(rows, regular, over_runs)
    calls = [row.whole("times called") for row in rows]
    runs = min(calls) if over_runs else 1
    uneven = [row.line for row, called in zip(rows, calls, strict=True) if called % runs]
    if uneven:
        raise ParseError(f"an operator ran in some of the {runs} runs only: '{one_line(uneven[0])}'")
    ops = tuple(
        # In CSV a name's commas are tabs.
        Op(row["node type"], row["name"].replace("\t", ","), row.ms("avg ms"), row.ms("first"), called // runs)
        for row, called in zip(rows, calls, strict=True)
    )
    run = parse_run("\n".join(lines)) if any("Running benchmark" in line for line in lines) else None
    return OpProfile(
        ops, run, all(op.name.startswith("Delegate/") or op.node_type.startswith("Delegate/") for op in ops)
    )


def _regular(lines: Sequence[str]) -> Sequence[str]:
    """The lines about counted runs: today's classic program also profiles its own start."""
    at = [index for index, line in enumerate(lines) if _REGULAR in line]
    if len(at) > 1:
        raise ParseError(f"one text holds one profile, not {len(at)}: '{one_line(lines[at[1]])}'")
    initial = [line for line in lines if _INITIAL in line]
    if initial and not at:
        raise ParseError(f"no profile of the counted runs came after '{one_line(initial[0])}'")
    return lines[at[0] :] if at else lines


def _tables(lines: Sequence[str]) -> dict[str, list[_Row]]:
    """The rows under each title."""
    tables: dict[str, list[_Row]] = {}
    for index, line in enumerate(lines):
        title = _TITLE.fullmatch(line.strip())
        if title is None:
            continue
        if title[1] in tables:
            raise ParseError(f"one text holds one profile, not several: '{one_line(line)}' again")
        body = list(lines[index + 1 :])
        ends = (at for at, row in enumerate(body) if not row.strip() or _AFTER.fullmatch(row.strip()))
        body = body[: next(ends, len(body))]
        if len(body) < 2:
            raise ParseError(f"there is no table under '{one_line(line)}'")
        classic = f"{_CLASSIC} {title[1]} {_CLASSIC}" in line and f"={_CLASSIC}" not in line
        wanted = _TYPES if title[1] == _SUMMARY else _OPERATORS
        tables[title[1]] = [_row(row, body[0], wanted, classic) for row in body[1:]]
    for name in ("Run Order", "Top by Computation Time", _SUMMARY):
        if name not in tables:
            raise ParseError(f"the text has no table '{name}': it ends in '{_last(lines)}'")
    return tables


def _row(line: str, header: str, wanted: tuple[str, ...], classic: bool) -> _Row:
    csv = header.startswith("node type, ")
    heads = header.split(", ") if csv else re.findall(r"\[([^\]]+)\]", header)
    columns = [head.strip().lower().replace("_", " ") for head in heads]
    if tuple(column for column in columns if column != "start") != wanted:
        raise ParseError(f"a table under this title has other columns: '{one_line(header)}'")
    if csv:
        # From the right: a type may have commas of its own.
        cells = line.rsplit(", ", len(columns) - 1)
    elif header.startswith("\t"):
        cells = line.split("\t")[1:]
        widths = [len(head) for head in header.split("\t")[1:]]
        # Every figure ends where its head ends, so a digit more or less is seen.
        figures = list(zip(columns, cells, widths, strict=False))[:-1]
        if any(cell != cell.strip().rjust(width) for column, cell, width in figures if column != "times called"):
            raise ParseError(f"a column is out of line in '{one_line(line)}'")
    else:
        figures_between = len(columns) - 1 - (columns[-1] == "name")
        pattern = r"\s*(\S.*?)" + r"\s+([0-9.]+%?)" * figures_between + (r"\s+(\S.*)" if columns[-1] == "name" else "")
        match = re.fullmatch(pattern, line.rstrip())
        cells = list(match.groups()) if match else []
        if classic and match:
            _check_columns(match, columns, [head.end() for head in re.finditer(r"\[[^\]]+\]", header)])
    if len(cells) != len(columns):
        raise ParseError(f"a row of {len(columns)} columns is damaged or cut off: '{one_line(line)}'")
    cells_by_column = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
    return _Row(line, cells_by_column, csv, classic or header.startswith("\t"))


def _check_columns(row: re.Match[str], columns: Sequence[str], ends: Sequence[int]) -> None:
    """Where tabs became spaces, columns are told by where the header's end: every figure ends under its head.

    A type that is too long for its column moves the rest of its row to the right.
    """
    too_long = row.end(1) > ends[0]
    shift = max(0, row.end(2) - ends[1]) if too_long else 0
    for group, (column, end) in enumerate(zip(columns, ends, strict=True), start=1):
        if column in _LOOSE or (group == 1 and too_long):
            continue
        if row.end(group) != end + shift:
            raise ParseError(
                f"its tabs are spaces, and column '{column}' is not under its head any more: import the log as it was "
                f"printed: '{one_line(row.string)}'"
            )


def _check_number(lines: Sequence[str], rows: int) -> None:
    """The program says twice how many operators there are."""
    said = [line.strip() for line in lines if re.search("nodes (?:executed|observed)", line)]
    wanted = {f"Number of nodes executed: {rows}", f"{rows} nodes observed"}
    others = [line for line in said if re.sub(r"^native : \S+ ", "", line) not in wanted]
    if others or len(said) != 2:
        raise ParseError(f"the table has {rows} operators, not those of '{one_line((others or said or lines)[-1])}'")


def _check_shares(rows: Sequence[_Row]) -> None:
    """Each share is that of the time, and the running sum is that of the shares."""
    total_ms, slack_ms = sum(row.time_ms for row in rows), sum(row.slack_ms for row in rows)
    if total_ms == 0:
        return
    running = running_slack = 0.0
    for row in rows:
        share, cdf = row.percent("%"), row.percent("cdf%")
        part = row.time_ms / total_ms
        slack = 100 * (row.slack_ms + part * slack_ms) / total_ms + 1.0001 * row.half(share)
        running += share
        running_slack += 1.0001 * row.half(share)
        if not abs(share - 100 * part) <= slack:
            raise ParseError(f"the time and its share contradict each other: '{one_line(row.line)}'")
        if not abs(cdf - running) <= running_slack + 1.0001 * row.half(cdf):
            raise ParseError(f"the shares do not add up: '{one_line(row.line)}'")


def _check_types(rows: Sequence[_Row], types: Sequence[_Row], over_runs: bool) -> None:
    """The summary by type has the same operators."""
    by_type: dict[str, list[_Row]] = {summed["node type"]: [] for summed in types}
    for row in rows:
        if row["node type"] not in by_type:
            raise ParseError(f"the summary by type knows no such operator: '{one_line(row.line)}'")
        by_type[row["node type"]].append(row)
    for summed in types:
        of_type = by_type[summed["node type"]]
        calls = sum(row.whole("times called") for row in of_type)
        # LiteRT's summary has the time of one call, the classic program's that of all.
        said_ms = summed.ms("avg ms") * (calls if over_runs else 1)
        slack_ms = sum(row.slack_ms for row in of_type) + 1.0001 * summed.half(summed.ms("avg ms")) * max(1, calls)
        # The classic program cuts each operator off to whole microseconds before it adds them up.
        least_ms = sum(row.time_ms for row in of_type) - (0.0 if over_runs else 0.001 * len(of_type))
        most_ms = sum(row.time_ms for row in of_type)
        same = (len(of_type), calls) == (summed.whole("count"), summed.whole("times called"))
        if not same or not least_ms - slack_ms <= said_ms <= most_ms + slack_ms:
            raise ParseError(f"the operators of this type are others: '{one_line(summed.line)}'")


def _check_top(rows: Sequence[_Row], top: Sequence[_Row]) -> None:
    """The slowest operators are printed once more, all but the running sum the same."""
    known = {tuple({**row.cells, "cdf%": ""}.items()) for row in rows}
    for row in top:
        if tuple({**row.cells, "cdf%": ""}.items()) not in known:
            raise ParseError(f"an operator is printed twice and not the same: '{one_line(row.line)}'")


def _check_totals(rows: Sequence[_Row], lines: Sequence[str], over_runs: bool) -> None:
    """The program's own sums, over all operators."""
    timings = [line for line in lines if line.startswith(_TIMINGS)]
    if len(timings) != 1:
        raise ParseError(f"a profile has one line of timings, not {len(timings)}: it ends in '{_last(lines)}'")
    said = timings[0].removeprefix(_TIMINGS).strip()
    total_us, slack_us = 1000 * sum(row.time_ms for row in rows), 1000 * sum(row.slack_ms for row in rows)
    if over_runs:
        match = re.fullmatch(r"count=[0-9]+ curr=([0-9]{1,15})", said)
        same = match is not None and abs(float(match[1]) - total_us) <= slack_us
    else:
        whole = parse_figures(said)
        same = abs(whole.mean_us - total_us) <= slack_us + 5e-6 * whole.mean_us
        if all(row.whole("times called") == 1 for row in rows):
            # One run's microseconds are whole: only CSV, of very long ones, has rounded them.
            first_us = 1000 * sum(row.ms("first") for row in rows)
            first_slack_us = sum(1000 * row.half(row.ms("first")) for row in rows if row.csv)
            same = same and abs(whole.first_us - first_us) <= 0.01 + first_slack_us
    if not same:
        raise ParseError(f"the operators do not add up to '{one_line(timings[0])}'")


def _last(lines: Sequence[str]) -> str:
    return last_line("\n".join(lines))
