"""What a search reports."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from amc_latency.android_bench.safe.limits import FIGURE
from amc_latency.android_bench.safe.records import exactly
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.score import ACCURACY, Tested
from amc_latency.search.records import BUDGETS
from amc_latency.search.results.verdict import Verdict, verdict_of
from amc_latency.training.intervals import Comparison, interval_pct

Ms = Annotated[float, Meta(gt=0, le=FIGURE)]
"""As it is read: figures are divided by it, and drawn."""
_End = Annotated[float, Meta(gt=0)]
"""Of an interval, which may be wide."""


@dataclass(frozen=True)
class Row:
    """One network of the final comparison."""

    name: str
    counts: Counts
    predicted_ms: Ms
    measured_ms: Ms
    spread_pct: float | None
    macs: int
    bytes: int
    accuracy: float
    """percent of the test images"""
    held_back: float
    """percent of all held-back images after cut and refit, before fine-tuning"""
    tflite: str
    accuracy_95: tuple[float, ...] = ()
    """both ends of the 95 % interval of `accuracy`, see intervals.py; none where it is what labels came from"""
    held_back_95: tuple[float, ...] = ()
    """that of `held_back`"""
    top5: float | None = None
    """percent of the test images whose label is among the first five classes; None for 10 classes or fewer"""
    held_back_top5: float | None = None
    """as `held_back`"""
    measured_95: tuple[_End, ...] = ()
    """both ends of the 95 % interval of `measured_ms`"""
    share_95: tuple[_End, ...] = ()
    """of what the original takes in the same rounds: the ratio, and both ends of its 95 % interval"""
    rounds: int = 0
    """in which all rows were timed, in turn"""
    within_pct: float | None = None
    """half of what lies between a tenth and nine tenths of a round's runs, in percent; None where nobody says it"""
    precisions: tuple[str, ...] = ()
    """of each layer; none where all are float32"""
    rounds_sd_pct: float | None = None
    """standard deviation from round to round, in percent"""
    file_accuracy: float | None = None
    """percent of the test images that the file itself gets right, run by LiteRT; None where nothing has labels"""
    file_accuracy_95: tuple[float, ...] = ()
    """both ends of its 95 % interval"""
    repeat_pct: float | None = None
    """how much more than before fine-tuning, when the same layers were timed, in percent; None for what was not"""

    def verdict(self, target_ms: float) -> Verdict:
        """Whether it meets a target, as far as its timing can tell."""
        low_ms, high_ms = self.measured_95 or (0.0, None)
        return verdict_of(self.measured_ms, low_ms, high_ms, target_ms)


@dataclass(frozen=True)
class BaselineRow:
    """What another way of choosing gives under the same budgets, before fine-tuning."""

    name: str
    counts: Counts
    predicted_ms: Ms
    held_back: float
    """percent of all held-back images after cut and refit"""
    evaluations: int
    """policies that it asked the evaluator about, the final choice among the best few not counted"""
    held_back_95: tuple[float, ...] = ()
    """as in `Row`"""
    held_back_top5: float | None = None
    measured_ms: float | None = None
    """beside ours; None where the device answers from predictions"""

    @staticmethod
    def of(name: str, counts: Counts, predicted_ms: float, held_back: Tested, evaluations: int) -> BaselineRow:
        """The row of a policy with these figures on all held-back images."""
        interval = interval_pct(held_back.value, held_back.images) if held_back.images else ()
        return BaselineRow(name, counts, predicted_ms, held_back.value, evaluations, interval, held_back.top5)


@dataclass(frozen=True)
class BudgetRow:
    """A budget beside milliseconds, and what the result takes of it."""

    name: str
    limit: Annotated[int, Meta(ge=1)]
    actual: int


@dataclass(frozen=True)
class SearchReport:
    """How a search ended; `rows` are the original network, the uniform width and ours.

    `seconds` are those of the session that ended it; `table` is the one in the run folder.
    """

    original_ms: Ms
    target_ms: Ms | None
    """None where milliseconds were not limited"""
    predicted_ms: Ms
    measured_ms: Ms
    met: bool
    """whether all budgets are held, milliseconds by the upper end of their interval; see `is_missed`"""
    statistic: str
    accuracy_original: float
    accuracy: float
    accuracy_uniform: float
    macs: int
    episodes: int
    evaluations: int
    """different policies that the episodes' images were shown to, the baselines' not counted"""
    attempts: int
    seconds: float
    data: str
    device: str
    table: str
    tflite: str
    rows: list[Row]
    budgets: list[BudgetRow] = field(default_factory=list)
    baselines: list[BaselineRow] = field(default_factory=list)
    confidence: float | None = None
    """the probability of being under the target that ours was chosen for; None with a fixed margin"""
    bound_ms: float | None = None
    """what ours was predicted to stay under with that probability"""
    estimated: bool = False
    """True if no device was there: `measured_ms`, here and in `rows`, is what its cost model says"""
    note: str | None = None
    """what to know before the result is used"""
    zipped_bytes: list[int] = field(default_factory=list)
    """where weights were pruned, each row's file as `zipped_bytes` has it"""
    unlabelled: bool = False
    """True if the images have no labels: every accuracy is agreement with the original network"""
    phone: str | None = None
    """what an estimated result has still to be timed on: `amc-latency bench FILE --device PHONE`"""
    test_images: int = 0
    """that accuracies are percent of"""
    held_back_images: int = 0
    comparisons: list[Comparison] = field(default_factory=list)
    """ours beside the uniform width and the original on the test images, pair by pair"""
    pixels: str = ""
    """by which figures the file's pixels must be normalised, as `parse_normalisation` reads them"""
    measure: str = ACCURACY
    """what networks were judged by: accuracy in percent of images, or a task's own score"""

    @property
    def is_uncut(self) -> bool:
        """Whether the uncut network met the budgets, so that nothing was searched."""
        return not self.episodes

    @property
    def latency_verdict(self) -> Verdict:
        """Whether milliseconds are met, and how sure that is."""
        ours = replace(self.rows[-1], measured_ms=self.measured_ms)
        return ours.verdict(math.inf if self.target_ms is None else self.target_ms)

    @property
    def is_missed(self) -> bool:
        """Whether a budget was not met: what is within the noise of its target is neither missed nor surely met."""
        return not self.latency_verdict.is_under or any(row.actual > row.limit for row in self.budgets)

    @property
    def verdict(self) -> str:
        """In words."""
        over = [row.name for row in self.budgets if row.actual > row.limit]
        return f"TARGET NOT MET: too many {', '.join(over)}" if over else self.latency_verdict.text

    def to_json(self) -> dict[str, Any]:
        """Its fields; files are named within the run folder, which may be moved."""
        rows = [{**asdict(row), "tflite": Path(row.tflite).name} for row in self.rows]
        return {**asdict(self), "tflite": Path(self.tflite).name, "table": Path(self.table).name, "rows": rows}

    @staticmethod
    def from_json(value: object, folder: Path) -> SearchReport:
        """The inverse of `to_json`, for the run folder that the files lie in. Raises `ValueError` if it is none."""
        report = exactly(value, SearchReport)
        if len(report.rows) != 3:
            raise ValueError("it has not three rows")
        if len(report.zipped_bytes) not in (0, 3):
            raise ValueError("zipped_bytes are not those of three rows")
        if unknown := [row.name for row in report.budgets if row.name not in BUDGETS]:
            raise ValueError(f"there is no budget {shown_line(unknown[0])}")
        shown: list[Row | BaselineRow] = [*report.rows, *report.baselines]
        for row in shown:
            for name, ends in vars(row).items():
                if name.endswith("_95") and len(ends) not in (0, 3 if name == "share_95" else 2):
                    raise ValueError(f"{name} of the row {shown_line(row.name)} has not two ends")
        return replace(
            report,
            tflite=str(folder / Path(report.tflite).name),
            table=str(folder / Path(report.table).name),
            rows=[replace(row, tflite=str(folder / Path(row.tflite).name)) for row in report.rows],
        )
