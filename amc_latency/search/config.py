"""What a search is told, and what it reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amc_latency.errors import UserError
from amc_latency.jsonl import checked
from amc_latency.models.load import BUNDLED

if TYPE_CHECKING:
    from amc_latency.search.costs import Counts


@dataclass(frozen=True)
class SearchConfig:
    """What a search does; the same config, table and seed give the same policy."""

    target_ms: float | None = None
    """milliseconds on the device"""
    speedup: float | None = None
    """the other way to say a target: the uncut network's timing in the table, divided by this"""
    model: str = BUNDLED
    """`bundled` or a checkpoint's path"""
    device: str = "host"
    """which device counts"""
    lut: str | None = None
    """the latency table; where profile keeps it if not given"""
    estimate: bool = False
    """whether the device's cost model stands in for the device, which nobody has at hand"""
    data: str = "auto"
    """data source, see `amc_latency.data.load_data`"""
    seed: int = 0
    """of agent, warm-up and fine-tuning"""
    warmup: int = 100
    """episodes of random policies, the uniform width first"""
    episodes: int = 300
    """episodes after the warm-up"""
    corrections: int = 3
    """how often to search on when the device says that the result is over the target"""
    correction_episodes: int = 60
    """episodes of each such continuation"""
    margin_pct: float = 1.5
    """how far under the target to aim: about what a prediction is off by"""
    confidence: float | None = None
    """in place of that margin: the probability with which what wins is to be measured at or under the target"""
    images: int = 1000
    """held-back images that an episode is judged by; finalists are by all of them"""
    calibration_images: int = 512
    """train images for refit, whose statistics are collected once"""
    recalibration_images: int = 256
    """how many of these recalibrate the batch norms of each policy's network"""
    min_keep: float = 0.2
    """smallest share of a group's channels that may be kept"""
    step: int = 8
    """counts are multiples of this"""
    finetune_epochs: int = 6
    """passes over the train images after the cut; 0 leaves fine-tuning out"""
    rounds: int | None = None
    """rounds in which a result is timed; as many as its table's whole networks got, unless told"""

    def __post_init__(self) -> None:
        if (self.target_ms is None) == (self.speedup is None):
            raise UserError("name the target in one way: --target-ms MILLISECONDS or --speedup FACTOR")
        if self.target_ms is not None and not 0 < self.target_ms < float("inf"):
            raise UserError(f"--target-ms is a positive number of milliseconds, not {self.target_ms}")
        if self.speedup is not None and not 1 <= self.speedup < float("inf"):
            raise UserError(f"--speedup is at least 1, not {self.speedup}")
        for name in ("warmup", "episodes", "corrections", "correction_episodes", "finetune_epochs"):
            if getattr(self, name) < 0:
                raise UserError(f"{name.replace('_', '-')} cannot be negative")
        if self.corrections and not self.correction_episodes:
            raise UserError("a correction needs episodes: --correction-episodes 1 or more, or --corrections 0")
        rounds = 1 if self.rounds is None else self.rounds
        positive = (self.images, self.calibration_images, self.recalibration_images, rounds)
        if self.warmup + self.episodes < 1 or min(positive) < 1:
            raise UserError("a search needs at least one episode, one image to judge by and one round of timing")
        if not 0 <= self.margin_pct < 50:
            raise UserError(f"margin-pct is in 0..50, not {self.margin_pct}")
        if self.confidence is not None and not 0.5 <= self.confidence < 1:
            raise UserError(f"--confidence is a probability from 0.5 to below 1, such as 0.95, not {self.confidence}")
        if self.confidence is not None and self.margin_pct != SearchConfig.margin_pct:
            raise UserError("--confidence takes the place of --margin-pct: give one of them")
        if self.confidence is not None and self.estimate:
            raise UserError("--confidence needs a table that was measured: search with --margin-pct and --estimate")

    def target_of(self, original_ms: float) -> float:
        """The target in milliseconds, for an uncut network of `original_ms`."""
        return self.target_ms if self.target_ms is not None else original_ms / (self.speedup or 1)


@dataclass(frozen=True)
class Row:
    """One network of the final comparison."""

    name: str
    counts: Counts
    predicted_ms: float
    measured_ms: float
    spread_pct: float | None
    macs: int
    bytes: int
    accuracy: float
    """percent of the test images"""
    held_back: float
    """percent of all held-back images after cut and refit, before fine-tuning"""
    tflite: str


@dataclass(frozen=True)
class SearchReport:
    """How a search ended; `rows` are the original network, the uniform width and ours.

    `seconds` are those of the session that ended it; `table` is the one in the run folder.
    """

    original_ms: float
    target_ms: float
    predicted_ms: float
    measured_ms: float
    met: bool
    statistic: str
    accuracy_original: float
    accuracy: float
    accuracy_uniform: float
    best_random_held_back: float | None
    """percent of all held-back images, best of the warm-up's random policies"""
    macs: int
    episodes: int
    attempts: int
    seconds: float
    data: str
    device: str
    table: str
    tflite: str
    rows: list[Row]
    confidence: float | None = None
    """the probability of being under the target that ours was chosen for; None with a fixed margin"""
    bound_ms: float | None = None
    """what ours was predicted to stay under with that probability"""
    estimated: bool = False
    """True if no device was there: `measured_ms`, here and in `rows`, is what its cost model says"""
    note: str | None = None
    """what to know before the result is used"""
    phone: str | None = None
    """what an estimated result has still to be timed on: `amc-latency bench FILE --device PHONE`"""

    def to_json(self) -> dict[str, Any]:
        """Its fields; files are named within the run folder, which may be moved."""
        rows = [{**asdict(row), "tflite": Path(row.tflite).name} for row in self.rows]
        return {**asdict(self), "tflite": Path(self.tflite).name, "table": Path(self.table).name, "rows": rows}

    @staticmethod
    def from_json(value: object, folder: Path) -> SearchReport:
        """The inverse of `to_json`, for the run folder that the files lie in. Raises `ValueError` if it is none."""
        report = checked(SearchReport, value)
        if not isinstance(report.rows, list) or len(report.rows) != 3:
            raise ValueError("it has not three rows")
        rows = [checked(Row, row) for row in report.rows]
        return replace(
            report,
            tflite=str(folder / report.tflite),
            table=str(folder / report.table),
            rows=[replace(row, tflite=str(folder / row.tflite)) for row in rows],
        )
