"""What `amc-latency export` tells people; what to be aware of goes to standard error."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from amc_latency.console import put

if TYPE_CHECKING:
    from amc_latency.export.export import ExportReport


def export_text(report: ExportReport, path: Path) -> None:
    """The file, how near it is to PyTorch, what it is worth, and what is in it."""
    share = report.max_abs_error / report.output_range if report.output_range else report.max_abs_error
    of = "of its outputs' range" if report.output_range else "in absolute terms"
    of_range = "of their range" if report.output_range else "in absolute terms"
    if report.precision:
        layers = ", ".join(f"{count} {name}" for name, count in sorted(Counter(report.precision).items()))
        put(f"wrote {path}, {report.bytes / 1e6:.3g} MB; layers: {layers}")
        same = report.same_class
        classes = "" if same is None else f"; the same class first on {same[0]:,} of {same[1]:,} images"
        put(f"outputs are off by {100 * share:.2g} % {of_range} at most from PyTorch's{classes}")
    else:
        put(f"wrote {path}, equal to PyTorch to {share:.1g} {of}, {report.bytes / 1e6:.3g} MB")
    if report.accuracy is not None and report.pytorch_accuracy is not None:
        put(f"accuracy of the file, run by LiteRT: {report.accuracy.text}")
        put(f"of the network in PyTorch:           {report.pytorch_accuracy.text}")
    if report.precision:
        put(f"takes {report.takes}, and returns {report.returns}")
    if report.macs is not None and report.params is not None:
        put(f"{report.macs:,} MACs, {report.params:,} parameters")
    put(f"operators: {', '.join(f'{count} {name}' for name, count in report.ops.items())}")
    if report.converter != "ours":
        put(f"converter: {report.converter}")
