"""Whether a latency table can be trusted: its file, its rows, and its figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from amc_latency.device.base import Timing
from amc_latency.lut.audit.check_figures import Finding, figure_findings
from amc_latency.lut.audit.scan import JOINT, DamagedRow, Scan, scan
from amc_latency.lut.prediction.calibration import FEWEST_NETWORKS
from amc_latency.lut.shapes.shape import NOOP
from amc_latency.lut.table.headers import differences, differences_text, foreign_rows, header_of
from amc_latency.lut.table.measurements import NETWORK, kind_of, label
from amc_latency.lut.table.reference_speed import references
from amc_latency.lut.table.table import LatencyTable, TableError
from amc_latency.lut.table.table_text import missing_table

AGAIN = "profile again: the same command times only what is missing"


@dataclass(frozen=True)
class CheckReport:
    """All findings about a table, errors first."""

    table: str
    device: str | None
    """None where the header cannot be read; then there is nothing else to check"""
    rows: int
    ok: bool
    """False if there is an error among the findings"""
    findings: list[Finding]
    damaged: list[DamagedRow] = field(default_factory=list)


def check(path: Path) -> CheckReport:
    """Look at everything in the table that can be wrong. Raises `TableError` for a file that cannot be read."""
    if not path.exists():
        raise missing_table(path)
    if not path.is_file():
        LatencyTable.open(path)  # which says why it can't be
    try:
        scanned = scan(path)
    except TableError as error:
        return CheckReport(str(path), None, 0, False, [Finding("error", "header", 1, str(error))])
    table = _healthy(path, scanned)
    findings = [*_file_findings(scanned), *_row_findings(table), *figure_findings(table)]
    findings.sort(key=lambda finding: ("error", "warning", "note").index(finding.severity))
    ok = all(finding.severity != "error" for finding in findings)
    return CheckReport(str(path), table.identity.name, table.row_count, ok, findings, scanned.damaged)


def _healthy(path: Path, scanned: Scan) -> LatencyTable:
    """The table without its damaged rows, in memory only."""
    return LatencyTable.of_rows(path, *scanned.header, (row for _, row in scanned.rows))


def _file_findings(scanned: Scan) -> Iterator[Finding]:
    joints = [row for row in scanned.damaged if row.reason == JOINT]
    if joints:
        yield Finding(
            "error",
            "run together",
            len(joints),
            "further tables in the file, which were not merged but run together",
            f"line {joints[0].line}: {joints[0].reason}",
            "take the file apart there, and `amc-latency lut merge` the parts",
        )
    if len(scanned.damaged) > len(joints):
        first = next(row for row in scanned.damaged if row.reason != JOINT)
        yield Finding(
            "error",
            "damaged rows",
            len(scanned.damaged) - len(joints),
            "lines that are no rows of a table",
            f"line {first.line}: {first.reason}",
            "keep a copy, delete these lines, then " + AGAIN,
        )
    if scanned.torn_bytes:
        yield Finding(
            "note",
            "torn last line",
            1,
            f"row that ends in the middle, as a kill leaves it; its {scanned.torn_bytes} bytes don't count",
            advice=AGAIN,
        )
    yield from _duplicate_findings(scanned)


def _duplicate_findings(scanned: Scan) -> Iterator[Finding]:
    times = Counter((row.key, row.round) for _, row in scanned.rows)
    rows: dict[tuple[str, int], list[tuple[int, Timing]]] = defaultdict(list)
    for number, row in scanned.rows:
        # A timing after an error is a round that was tried again, as it should be.
        if times[row.key, row.round] > 1 and row.timing.error is None:
            rows[row.key, row.round].append((number, row.timing))
    protocol = scanned.header.protocol
    same, contradicting = [], []
    for (key, index), found in rows.items():
        if len(found) < 2:
            continue
        where = f"'{label(key)}' round {index}, lines {', '.join(str(number) for number, _ in found)}"
        values = [us for _, timing in found if (us := timing.counted_us(protocol)) is not None]
        if len({(timing.n, timing.cpu, timing.wall) for _, timing in found}) == 1:
            same.append(where)
        else:
            ratio = max(values, default=1.0) / max(min(values, default=1.0), 0.01)
            figures = ", ".join(f"{value:g}" for value in values)
            contradicting.append((ratio, f"{where}: {figures} us"))
    if contradicting:
        yield Finding(
            "warning",
            "contradicting duplicates",
            len(contradicting),
            "rounds of a layer that were timed twice, with other figures; the later row counts",
            max(contradicting)[1],
            "delete the lines that are wrong, if you know which",
        )
    if same:
        yield Finding(
            "note", "duplicates", len(same), "rounds that stand in the table twice, with the same figures", same[0]
        )


def _row_findings(table: LatencyTable) -> Iterator[Finding]:
    keys = table.keys
    if table.identity.estimated:
        yield Finding(
            "note",
            "estimated",
            table.row_count,
            "rows that are estimated, not measured",
            advice="time what a search makes of them on the device",
        )
    if not table.row_count:
        yield Finding("warning", "empty", 0, "rows in the table", advice="fill it with `amc-latency profile`")
        return
    for header, count in foreign_rows(table).items():
        unlike = differences_text(differences(header_of(table), header))
        yield Finding(
            "warning",
            "rows of another header",
            count,
            "rows measured otherwise than the header says, by merging with force",
            unlike,
            "sums of such rows are of no one device: take them for comparing only",
        )
    speeds = references(table)
    if len(speeds) > 1:
        text = {us: "no reference, as the clock showed it" if us is None else f"{us:g} us" for us in speeds}
        yield Finding(
            "warning",
            "several reference speeds",
            len(speeds),
            "speeds that rows are given at, told by what the sentinel network takes there",
            ", ".join(f"{rows} rows at {text[us]}" for us, rows in speeds.most_common()),
            "they are of several computers or days: keep the rows of one only, or profile into another table",
        )
    if table.errors:
        key, error = next(iter(table.errors.items()))
        yield Finding(
            "warning",
            "not timed",
            len(table.errors),
            "layers or networks of which no round could be timed",
            f"'{label(key)}': {error}",
            AGAIN,
        )
    rounds = table.protocol.rounds
    lacking = dict.fromkeys(table.missing(key for key in keys if kind_of(key) != NETWORK), rounds)
    lacking |= dict.fromkeys(
        table.missing([key for key in keys if kind_of(key) == NETWORK], table.protocol.network_rounds),
        table.protocol.network_rounds,
    )
    if lacking and not table.identity.estimated:
        first, wanted = next(iter(lacking.items()))
        done = sum(row.workload == first and row.round < wanted and table.has(first, row.round) for row in table.rows)
        yield Finding(
            "warning",
            "incomplete",
            len(lacking),
            f"layers with fewer than {rounds} rounds, or networks with fewer than {table.protocol.network_rounds}",
            f"'{label(first)}' has {done}",
            AGAIN,
        )
    networks = sum(kind_of(key) == NETWORK for key in keys)
    if not table.identity.estimated:
        if NOOP.text not in keys:
            yield Finding(
                "warning",
                "no no-op",
                0,
                "timings of the no-op, without which no network can be predicted",
                advice=AGAIN,
            )
        if networks < FEWEST_NETWORKS:
            yield Finding(
                "note",
                "not calibrated",
                networks,
                f"whole networks: fewer than the {FEWEST_NETWORKS} that a calibration needs",
                advice=AGAIN,
            )
