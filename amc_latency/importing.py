"""`amc-latency lut import`: from op-profile logs and the network that they are of to a latency table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amc_latency.errors import UserError
from amc_latency.models.load import Network, check_counts
from lut.import_log import ImportLogError
from lut.importers import ImportReport, import_logs


def import_into(
    network: Network, counts: tuple[int, ...] | None, logs: Sequence[Path], out: Path, device: str, force: bool
) -> ImportReport:
    """Add logs of the network cut to `counts` (uncut if None) to the table `out`.

    Raises `UserError` for counts that don't fit and for what `lut.importers.import_logs` refuses; and `TableError`.
    """
    architecture = network.graph.architecture
    if counts is not None:
        check_counts(architecture.group_channels, counts)
    try:
        return import_logs(logs, architecture.shapes(counts), network.graph.layer_names, out, device, force)
    except ImportLogError as error:
        raise UserError(str(error)) from error


def import_text(report: ImportReport) -> None:
    """A line a log, then what the table makes of them."""
    print(f"{report.table}: {report.rows_added:,} rows added, of {report.device}")
    for log in report.logs:
        network = "" if log.network_ms is None else f", whole network {log.network_ms:.3f} ms"
        rows = f"{log.rows} rows" if log.rows else "in the table already, not added again"
        runs = "" if log.runs is None else f"{log.runs} runs, "
        print(f"  {log.path}: {runs}ops sum to {log.ops_ms:.3f} ms{network}; {rows}")
    print(f"{report.layers} layers of {report.shapes} shapes sum to {report.layers_ms:.3f} ms in the table")
    for op in report.left_out:
        print(f"left out: {op.count} {op.op}, {op.share_pct:.3f} % of the time")
    if report.spread_pct is not None:
        print(
            f"the logs' op sums differ by {report.spread_pct:.2f} %, "
            f"single layers by {report.layer_spread_pct or 0.0:.2f} % on average"
        )
    print(known_text(report))


def known_text(report: ImportReport) -> str:
    """How well the table foretold the new logs, in words."""
    if not any(log.rows for log in report.logs):
        return "there was nothing new in these logs"
    if report.known_mean_error_pct is None or report.known_max_error_pct is None:
        return "no shape of these logs was known before"
    return (
        f"{report.known} of {report.shapes} shapes were known before, and off by {report.known_mean_error_pct:.2f} % "
        f"on average, {report.known_max_error_pct:.2f} % at most"
    )
