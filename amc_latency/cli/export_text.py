"""What `amc-latency export` tells people; what to be aware of goes to standard error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from amc_latency.console import put

if TYPE_CHECKING:
    from amc_latency.export.export import ExportReport


def export_text(report: ExportReport, path: Path) -> None:
    """The file, how equal it is to PyTorch, and what is in it."""
    share = report.max_abs_error / report.output_range if report.output_range else report.max_abs_error
    of = "of its outputs' range" if report.output_range else "in absolute terms"
    put(f"wrote {path}, equal to PyTorch to {share:.1g} {of}, {report.bytes / 1e6:.3g} MB")
    if report.macs is not None and report.params is not None:
        put(f"{report.macs:,} MACs, {report.params:,} parameters")
    put(f"operators: {', '.join(f'{count} {name}' for name, count in report.ops.items())}")
    if report.converter != "ours":
        put(f"converter: {report.converter}")
