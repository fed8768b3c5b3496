"""What `amc-latency lut ...` prints: lines of at most 80 columns, where names allow it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from itertools import groupby

from amc_latency.console import put
from amc_latency.lut.audit.check import CheckReport
from amc_latency.lut.audit.compare import DiffReport
from amc_latency.lut.audit.overview import Overview
from amc_latency.lut.audit.precisions import PrecisionReport
from amc_latency.lut.table.measurements import label
from amc_latency.lut.table.merge import MergeReport

_WIDTH = 80
_MOST_DAMAGED = 20


def overview_text(report: Overview) -> None:
    """A line a property."""
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in report.layers.items())
    rounds = ", ".join(f"{n:,} with {index} round{'s' * (index != 1)}" for index, n in report.rounds.items())
    figures = report.statistic
    if report.figures == "estimated":
        figures = "ESTIMATED, NOT MEASURED"
    put(report.table)
    _field("device", f"{report.device}, {report.model}")
    _field("runtime", report.runtime)
    _field("figures", figures)
    _field("protocol", ", ".join(f"{name} {value}" for name, value in report.protocol.items()))
    _field("layers", f"{sum(report.layers.values()):,}: {kinds}" if kinds else "none")
    _field("networks", f"{report.networks:,}")
    _field("rows", f"{report.rows:,}; {rounds}" if rounds else f"{report.rows:,}")
    if report.spread_pct:
        figure = f"+-{report.spread_pct['median']:.2f} % in the median, +-{report.spread_pct['p90']:.2f} % at p90"
        _field("spread", f"{figure} (half the range of a layer's rounds)")
    if report.suspect:
        _field("suspect", f"{report.suspect:,} rows that the device did not trust")
    if report.errors:
        _field("errors", f"{report.errors:,} layers or networks could not be timed")
    if report.measured_by:
        _field("by", ", ".join(f"{who} ({n:,} rows)" for who, n in report.measured_by.items()))
    if report.foreign:
        _field("mixed", f"{report.foreign:,} rows are from tables with another header: see `amc-latency lut check`")


def precision_text(report: PrecisionReport) -> None:
    """A row a kind, a row a shape, the slowest first, and what stands between precisions."""
    put(f"{report.table}: layers in other precisions against float32, less the fixed overhead\n")
    put(f"{'ratio':>7} {'least':>7} {'most':>7} {'layers':>6} {'float32 us':>11} {'us':>11}")
    for title, rows in (("by kind", report.kinds), ("by shape, whatever the channels", report.shapes)):
        put(f"{title}:")
        for row in rows:
            slower = "  SLOWER" if row.ratio > 1 else ""
            put(
                f"{row.ratio:7.2f} {row.least:7.2f} {row.most:7.2f} {row.n:6,} {row.float32_us:11.2f} {row.us:11.2f}  "
                f"{row.shape or row.kind} {row.precision}{slower}"
            )
    if report.boundaries:
        put("\nbetween precisions, us a thousand values in the median:")
    for each in report.boundaries:
        put(f"{each.per_thousand_us:7.3f} {each.n:6,}  {each.shape}")


def check_text(report: CheckReport) -> None:
    """A paragraph a finding, the worst first, then the damaged lines."""
    put(f"{report.table}: {report.rows:,} rows" + (f" of {report.device}" if report.device else ""))
    for finding in report.findings:
        text = finding.text if finding.what == "header" else f"{finding.what}: {finding.count:,} {finding.text}"
        _field(finding.severity, text)
        if finding.worst:
            _field("", f"worst: {finding.worst}" if finding.count > 1 else finding.worst)
        if finding.advice:
            _field("", f"-> {finding.advice}")
    if report.damaged:
        put("damaged lines:")
    for row in report.damaged[:_MOST_DAMAGED]:
        _field(f"{row.line:>8}", f"{row.reason}: {row.text}")
    if len(report.damaged) > _MOST_DAMAGED:
        put(f"and {len(report.damaged) - _MOST_DAMAGED:,} more: --json lists them all")
    severities = sorted(finding.severity for finding in report.findings)
    counts = {severity: len(list(found)) for severity, found in groupby(severities)}
    put(", ".join(f"{n} {severity}{'s' * (n != 1)}" for severity, n in counts.items()) or "nothing to report")


def diff_text(report: DiffReport) -> None:
    """What differs in the headers, then a row a kind, then the layers that stand out."""
    put(f"A {report.first}\nB {report.second}")
    _unlike(report.header)
    for note in report.notes:
        _field("note", note)
    put(f"{report.common:,} in common, {report.only_first:,} only in A, {report.only_second:,} only in B\n")
    put(f"{'time of B / A':14} {'n':>6} {'median':>9} {'p10':>9} {'p90':>9}")
    for kind in report.kinds:
        put(f"{kind.kind:14} {kind.n:6,} {kind.median:9.4f} {kind.p10:9.4f} {kind.p90:9.4f}")
    layers, networks = (
        "too few" if value is None else f"{value:.4f}"
        for value in (report.layer_rank_correlation, report.network_rank_correlation)
    )
    put(f"\nrank correlation (Spearman): layers {layers}, networks {networks}")
    put(f"furthest from the median ratio of {report.ratio:.4f}:")
    put(f"{'ratio':>9} {'A us':>11} {'B us':>11}")
    for row in report.deviations:
        put(f"{row.ratio:9.4f} {row.first_us:11.2f} {row.second_us:11.2f}  {label(row.key)}")


def merge_text(report: MergeReport) -> None:
    """What each table gave, and what was not taken."""
    put(f"{report.table}: {report.rows:,} rows, under the header of {report.first}")
    for table in report.merged:
        put(f"  {table.table}: {table.added:,} of {table.rows:,} rows added, {table.alike:,} were there already")
        if table.contradictions:
            put(f"    {table.contradictions:,} contradict rows that were there, and were not taken")
        if table.unlike:
            _unlike(table.unlike)
            put("    its rows say in their conditions where they came from")
        if table.unusable:
            put(f"    {table.unusable:,} of its rows lack the figure that {report.first} counts: they are kept, unused")
    if report.worst is not None:
        worst = report.worst
        put(
            f"furthest apart: round {worst.round} of {label(worst.key)}: {worst.kept_us:g} us kept, "
            f"{worst.dropped_us:g} us in {worst.dropped_from}"
        )


def _unlike(fields: Mapping[str, tuple[object, object]]) -> None:
    for i, (name, (first, second)) in enumerate(fields.items()):
        _field("" if i else "differs", f"{name} '{first}' and '{second}'")


def _field(name: str, text: str) -> None:
    put(textwrap.fill(text, _WIDTH, initial_indent=f"{name:10}", subsequent_indent=" " * 10, break_long_words=False))
