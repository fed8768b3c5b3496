"""Sweeps as pictures: text for a terminal, PNG for all else."""

from __future__ import annotations

import io
from collections.abc import Sequence

from amc_latency.android_bench.safe.text import shown_line
from amc_latency.lut.audit.sweeps import Sweep

_HEIGHT = 16
_MOST_LINES = 16
"""More than so many steps are a grey wall in a terminal; the title says their width anyway."""
_MOST_TICKS = 7


def caption(sweep: Sweep) -> str:
    """What the sweep is of, and its steps."""
    return sweep.title + (f", steps of {sweep.step}" if sweep.step else "")


def text_plot(sweep: Sweep, width: int = 80) -> str:
    """Lines of characters without colours, each at most `width` long: what was timed, between the steps."""
    import plotext

    counts = sorted(sweep.points)
    # The package has one figure for all; nothing of what it held before is to be seen here.
    figure = plotext.figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, _HEIGHT)
    figure.title(f"{caption(sweep)} (us)")
    figure.label(sweep.over, "x")
    n = min(_MOST_TICKS, len(counts))
    ticks = sorted({counts[round(i * (len(counts) - 1) / (n - 1))] for i in range(n)})
    figure.ruler("x").ticks(ticks, [str(tick) for tick in ticks])
    if len(sweep.jumps) <= _MOST_LINES:
        for jump in sweep.jumps:
            figure.line(jump, "vertical", style="dotted")
    figure.draw(figure.signal(counts, [sweep.points[count] for count in counts], marker="hd"))
    lines = plotext.uncolorize(figure.build().string()).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def as_drawn(text: str) -> str:
    """A text that may hold a device's name, for matplotlib: two dollars in it make no formula, which may be none."""
    return shown_line(text).replace("$", r"\$")


MOST_IN_ONE = 50
"""Sweeps in a picture: it is laid out in a second for ten, and in minutes for hundreds."""


def png_plot(sweeps: Sequence[Sweep], title: str) -> bytes:
    """A PNG with a plot of each, one under the other: timed as points, learned as a line, steps in grey.

    At most `MOST_IN_ONE` of them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.4 + 3.2 * len(sweeps)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(as_drawn(title), fontsize="small", wrap=True)
    for axes, sweep in zip(figure.subplots(len(sweeps), squeeze=False)[:, 0], sweeps, strict=True):
        for jump in sweep.jumps:
            axes.axvline(jump, color="0.85", linewidth=0.8, zorder=0)
        for curve, style, name in ((sweep.learned, "-", "learned"), (sweep.points, ".", "timed")):
            counts = sorted(curve)
            axes.plot(counts, [curve[count] for count in counts], style, linewidth=0.8, markersize=5, label=name)
        axes.legend(fontsize="small")
        axes.set_title(caption(sweep), fontsize="small")
        axes.set_xlabel(sweep.over)
        axes.set_ylabel("us")
        axes.set_ylim(bottom=0)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
