"""`amc-latency lut import`: from op-profile logs and their network, or from block tables, to a latency table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amc_latency.console import put
from amc_latency.errors import UserError
from amc_latency.lut.imports.block_import import BlockImportReport, import_blocks
from amc_latency.lut.imports.block_tables import looks_like_blocks
from amc_latency.lut.imports.import_log import ImportLogError
from amc_latency.lut.imports.importers import ImportReport, import_logs
from amc_latency.models.load import Network, check_counts

_NAMED = 5
"""Entries that are no blocks, of which a report shows the text; the report itself has all."""


def import_into(
    network: Network, counts: tuple[int, ...] | None, logs: Sequence[Path], out: Path, device: str, force: bool
) -> ImportReport:
    """Add logs of the network cut to `counts` (uncut if None) to the table `out`.

    Raises `UserError` for counts that don't fit and for what
    `amc_latency.lut.imports.importers.import_logs` refuses; and `TableError`.
    """
    architecture = network.graph.architecture
    if counts is not None:
        check_counts(network.graph, counts)
    try:
        return import_logs(logs, architecture.shapes(counts), network.graph.layer_names, out, device, force)
    except ImportLogError as error:
        raise UserError(str(error)) from error


def import_text(report: ImportReport) -> None:
    """A line a log, then what the table makes of them."""
    put(f"{report.table}: {report.rows_added:,} rows added, of {report.device}")
    for log in report.logs:
        network = "" if log.network_ms is None else f", whole network {log.network_ms:.3f} ms"
        rows = f"{log.rows} rows" if log.rows else "in the table already, not added again"
        runs = "" if log.runs is None else f"{log.runs} runs, "
        put(f"  {log.path}: {runs}ops sum to {log.ops_ms:.3f} ms{network}; {rows}")
    put(f"{report.layers} layers of {report.shapes} shapes sum to {report.layers_ms:.3f} ms in the table")
    for op in report.left_out:
        put(f"left out: {op.count} {op.op}, {op.share_pct:.3f} % of the time")
    if report.spread_pct is not None:
        put(
            f"the logs' op sums differ by {report.spread_pct:.2f} %, "
            f"single layers by {report.layer_spread_pct or 0.0:.2f} % on average"
        )
    put(known_text(report))


def known_text(report: ImportReport) -> str:
    """How well the table predicted the new logs, in words."""
    if not any(log.rows for log in report.logs):
        return "there was nothing new in these logs"
    if report.known_mean_error_pct is None or report.known_max_error_pct is None:
        return "no shape of these logs was known before"
    return (
        f"{report.known} of {report.shapes} shapes were known before, and off by {report.known_mean_error_pct:.2f} % "
        f"on average, {report.known_max_error_pct:.2f} % at most"
    )


def holds_blocks(paths: Sequence[Path], format: str) -> bool:
    """Whether an import is one of block tables, by `format` or, with `auto`, by what the files hold.

    Raises `UserError` where some do and some don't.
    """
    if format != "auto":
        return format != "op-profile"
    alike = {looks_like_blocks(path): path for path in paths}
    if len(alike) > 1:
        raise UserError(f"{alike[True]} is a block table and {alike[False]} is none: give each its own `out`")
    return True in alike


def named_model(model: str | None, logs: Sequence[Path]) -> str:
    """The network of op-profile logs. Raises `UserError` where it was not named."""
    if model is not None:
        return model
    if missing := next((log for log in logs if not log.is_file()), None):
        raise UserError(f"there is no log {missing}")
    raise UserError(f"{logs[0]} is no block table, and op-profile logs say no network: name theirs with `model`")


def import_block_tables(paths: Sequence[Path], out: Path, device: str, format: str) -> BlockImportReport:
    """Make the read-only table `out` of block tables. Raises `UserError` and `TableError`."""
    try:
        return import_blocks(paths, out, device, None if format == "auto" else format)
    except ImportLogError as error:
        raise UserError(str(error)) from error


def block_import_text(report: BlockImportReport) -> None:
    """What each file gave, and what was left out of it and why."""
    put(f"{report.table}: {report.blocks:,} blocks of {report.device}; estimated, not measured")
    for file in report.files:
        put(f"  {file.path}: {file.blocks:,} of {file.entries:,} entries")
        if file.inexpressible:
            share_pct = 100 * file.inexpressible / file.entries
            put(f"    left out: {file.inexpressible:,} ({share_pct:.0f} %) with squeeze-and-excitation or h-swish")
        if file.unreadable:
            share_pct = 100 * len(file.unreadable) / file.entries
            put(f"    left out: {len(file.unreadable):,} ({share_pct:.0f} %) that are no blocks")
            for text in file.unreadable[:_NAMED]:
                put(f"      {text}")
    if not report.rows_added:
        put("there was nothing new in these files")
    put("read-only: predict answers from it, profile and search do not")
