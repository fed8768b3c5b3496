"""From a policy to the file that ships: cut, fine-tune, export, and the device's own word on it."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from amc_latency.android_bench.safe.files import replacing
from amc_latency.console import Console
from amc_latency.device.rounds.measure import BadModelError
from amc_latency.export.export import ExportReport, export
from amc_latency.export.quantised.export import export_quantised
from amc_latency.lut.shapes.shape import network_text
from amc_latency.models.files.checkpoint import NORMALISATION_KEY, load_checkpoint, save_checkpoint
from amc_latency.models.spec import ModelSpec
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.delivery.timing import PolicyTimer, TimedNetwork
from amc_latency.search.judge.config import FinetuneOptions
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.judge.score import Tested
from amc_latency.search.results.folder import RunFolder, TimedFile
from amc_latency.search.results.result import BaselineRow, Row
from amc_latency.training.intervals import Comparison, compare, interval_pct
from amc_latency.training.outcome import Outcome
from amc_latency.training.recipe import recipe_of

EQUAL_PCT = 2.0
"""Networks whose measured milliseconds differ by no more are of equal latency."""
_WIDTHS_TRIED = 6


@dataclass(frozen=True)
class Delivered:
    """The networks of the final comparison."""

    rows: list[Row]
    statistic: str
    """which figure of a timing counts"""
    comparisons: list[Comparison]
    """ours beside each other network, image by image"""


class Delivery:
    """What a run folder's policies become; a step that an earlier session finished is not done again."""

    def __init__(
        self,
        config: SearchConfig,
        folder: RunFolder,
        judge: Judge,
        costs: LatencyCosts,
        original_ms: float,
        timer: PolicyTimer,
        console: Console,
        shows_in_shapes: bool = True,
    ) -> None:
        self.config = config
        self.folder = folder
        self.judge = judge
        self.costs = costs
        self.original_ms = original_ms
        self.timer = timer
        self.console = console
        self.shows_in_shapes = shows_in_shapes
        self._cut: Counts | None = None

    def known_over(self, attempt: int, best: EpisodeRecord, target_ms: float) -> TimedFile | None:
        """The final timing of an earlier session, if it was over the target: a resumed search corrects by it again."""
        known = self._logged(attempt, "final ours", best.counts)
        return known if known is not None and not known.verdict(target_ms).is_under else None

    def quick(self, attempt: int, best: EpisodeRecord, target_ms: float) -> TimedFile:
        """Time the cut network before any fine-tuning: its latency does not depend on its weights."""
        known = self._logged(attempt, "cut", best.counts)
        if known is not None:
            return known
        key = self._key(best.counts)
        files = {self.timer.original: self._original(), key: self._cut_file(best.counts)}
        timed = self.timer.time(files, key, target_ms)[key]
        return self._log(attempt, "cut", best.counts, best.predicted_ms, timed, target_ms)

    def original_now(self) -> TimedFile:
        """The original as it is timed today, by the device's own milliseconds."""
        known = self._logged(0, "original", self.costs.full)
        if known is not None:
            return known
        key = self.timer.original
        level = PolicyTimer(self.timer.device, self.timer.protocol, key, None)
        timed = level.time({key: self._original()}, key)[key]
        return self._log(0, "original", self.costs.full, self.original_ms, timed, math.inf)

    def equal_width(self, attempt: int, ours: TimedFile, widths: Sequence[Counts]) -> Counts:
        """Of `widths` one whose measured milliseconds are within `EQUAL_PCT` of ours, or the nearest that was found."""
        tried: dict[Counts, float] = {}
        wanted_ms = self.costs.ms(ours.counts)
        while len(tried) < min(_WIDTHS_TRIED, len(widths)):
            left = [counts for counts in widths if counts not in tried]
            counts = min(left, key=lambda each: abs(math.log(self.costs.ms(each) / wanted_ms)))
            (timed,) = self._beside(attempt, "width", [counts], ours)
            tried[counts] = timed.measured_ms / ours.measured_ms
            if abs(tried[counts] - 1) <= EQUAL_PCT / 100:
                break
            wanted_ms = self.costs.ms(counts) / tried[counts]
        return min(tried, key=lambda counts: abs(math.log(tried[counts])))

    def timed_baselines(self, attempt: int, rows: Sequence[BaselineRow], ours: TimedFile) -> list[BaselineRow]:
        """The rows with what their networks take, timed beside ours in the same rounds."""
        counts = list(dict.fromkeys(row.counts for row in rows))
        timed = {each.counts: each.measured_ms for each in self._beside(attempt, "baseline", counts, ours)}
        return [replace(row, measured_ms=timed[row.counts]) for row in rows]

    def _beside(self, attempt: int, phase: str, policies: Sequence[Counts], ours: TimedFile) -> list[TimedFile]:
        """Policies' cut networks timed beside ours, in milliseconds of which ours takes `ours.measured_ms`."""
        known = {counts: row for counts in policies if (row := self._logged(attempt, phase, counts)) is not None}
        new = [counts for counts in policies if counts not in known]
        if new:
            own, original = self._key(ours.counts), self.timer.original
            with tempfile.TemporaryDirectory() as folder:
                files = {self._key(counts): Path(folder) / f"{i}.tflite" for i, counts in enumerate(new)}
                for counts in new:
                    self.export(self.judge.network(counts), files[self._key(counts)], counts)
                files |= {original: self._original(), own: self._cut_file(ours.counts)}
                timed = self.timer.time(files, own)
            scale = ours.measured_ms / timed[own].ms
            for counts in new:
                found = timed[self._key(counts)]
                scaled = replace(found, ms=found.ms * scale, low_ms=found.low_ms * scale, high_ms=found.high_ms * scale)
                known[counts] = self._log(attempt, phase, counts, self.costs.ms(counts), scaled, math.inf)
        return [known[counts] for counts in policies]

    def _original(self) -> Path:
        """The original's file."""
        path = self.tflite("original")
        if not path.exists():
            self.export(self.judge.original.model, path)
        return path

    def _cut_file(self, counts: Counts) -> Path:
        """The file of ours, cut and not yet fine-tuned."""
        path = self.folder.path / "cut.tflite"
        if self._cut != counts:
            self.export(self.judge.network(counts), path, counts)
            self._cut = counts
        return path

    def rows(self, attempt: int, factor: float, policies: Mapping[str, Counts], target_ms: float) -> Delivered:
        """Fine-tune and export each policy, and time all of them in the same rounds.

        Predictions are shifted by `factor`. The uncut network, `original`, is not fine-tuned.
        """
        exports: dict[str, ExportReport] = {}
        tested: dict[str, Tested] = {}
        in_file: dict[str, Tested | None] = {}
        for name, counts in policies.items():
            model = self.judge.original.model if name == "original" else self._fine_tuned(name, counts)
            is_original = name == "original"
            exports[name] = self.export(model, self.tflite(name), None if is_original else counts)
            tested[name] = self.judge.tested(model if is_original else self.judge.shipped(model, counts))
            in_file[name] = self._file_tested(name)
        keys = self._keys(policies)
        files = {keys[name]: self.tflite(name) for name in policies}
        measured = self.timer.time(files, keys.get("ours", keys["original"]), target_ms)
        rows = []
        for name, counts in policies.items():
            own_ms = self.original_ms if name == "original" else self.costs.ms(counts)
            predicted_ms, timed = own_ms * factor, measured[keys[name]]
            held_back = self.judge.original_final() if name == "original" else self.judge.finals(counts)
            self._log(attempt, f"final {name}", counts, predicted_ms, timed, target_ms)
            macs = exports[name].macs
            assert macs is not None  # our own converter knows them
            rows.append(
                Row(
                    name=name,
                    counts=counts,
                    predicted_ms=predicted_ms,
                    measured_ms=timed.ms,
                    spread_pct=timed.measurement.spread_pct,
                    macs=macs,
                    bytes=exports[name].bytes,
                    accuracy=tested[name].value,
                    held_back=held_back.value,
                    tflite=str(self.tflite(name)),
                    accuracy_95=self._interval(name, tested[name]),
                    held_back_95=self._interval(name, held_back),
                    measured_95=timed.interval_ms,
                    share_95=timed.share_95,
                    rounds=timed.rounds,
                    precisions=() if name == "original" else self.judge.precisions(counts),
                    within_pct=timed.measurement.within_pct,
                    rounds_sd_pct=timed.measurement.rounds_sd_pct,
                    repeat_pct=self._repeat_pct(attempt, counts, timed) if name == "ours" else None,
                    top5=tested[name].top5,
                    held_back_top5=held_back.top5,
                    file_accuracy=None if (of_file := in_file[name]) is None else of_file.value,
                    file_accuracy_95=() if of_file is None else self._interval(name, of_file),
                )
            )
        comparisons = _comparisons({n: each.outcome for n, each in tested.items() if each.outcome is not None})
        return Delivered(rows, measured[keys["original"]].measurement.statistic, comparisons)

    def _file_tested(self, name: str) -> Tested | None:
        """What a policy's file is worth; None where that can't be told, which is said."""
        try:
            return self.judge.file_tested(self.tflite(name))
        except BadModelError as error:
            self.console.warn(f"the accuracy of {name}.tflite can't be told: {error}")
            return None

    def uncut(self, target_ms: float) -> Delivered | None:
        """The uncut network as the result: exported, saved and timed; what an earlier session measured counts again.

        None where the device doesn't say that it is under the target beyond the noise: a cut one may be.
        """
        counts = self.costs.full
        known = self._logged(0, "final original", counts)
        if known is not None and not known.verdict(target_ms).is_enough:
            return None
        delivered = self.rows(0, 1.0, {"original": counts}, target_ms)
        (original,) = delivered.rows
        if not original.verdict(target_ms).is_enough:
            return None
        rows = [original]
        for name in ("uniform", "ours"):
            with replacing(self.tflite(name)) as temporary:
                shutil.copyfile(original.tflite, temporary)
            rows.append(replace(original, name=name, tflite=str(self.tflite(name))))
        checkpoint = self.folder.path / "model.safetensors"
        self._save(checkpoint, self.judge.network(counts), self.judge.spec(counts), ",".join(map(str, counts)))
        return replace(delivered, rows=rows)

    def _interval(self, name: str, found: Tested) -> tuple[float, ...]:
        # The original agrees with itself, whatever images come.
        if not found.images or (name == "original" and self.judge.facts.unlabelled):
            return ()
        return interval_pct(found.value, found.images)

    def tflite(self, name: str) -> Path:
        """Where a policy's exported file lies."""
        return self.folder.path / f"{name}.tflite"

    def export(self, model: nn.Module, path: Path, counts: Counts | None = None) -> ExportReport:
        """Export a network of the search, checked on train images; a policy's in the precisions that it says."""
        size, precisions = self.judge.base.spec.input, () if counts is None else self.judge.precisions(counts)
        if not precisions:
            return export(model, size, path, self.judge.example_inputs(8))
        return export_quantised(model, size, path, precisions, self.judge.range_images)

    def _logged(self, attempt: int, phase: str, counts: Counts) -> TimedFile | None:
        """The last timing of that kind: what a search that was killed at its very end timed once more counts."""
        for row in reversed(self.folder.measurements()):
            if (row.attempt, row.phase, row.counts) == (attempt, phase, counts):
                return row
        return None

    def _repeat_pct(self, attempt: int, counts: Counts, timed: TimedNetwork) -> float | None:
        """How much longer a network took than when it was just cut; nothing that is answered from a table."""
        before = self._logged(attempt, "cut", counts)
        if before is None or self.timer.device.is_constant:
            return None
        return 100 * (timed.ms / before.measured_ms - 1)

    def _log(
        self, attempt: int, phase: str, counts: Counts, predicted_ms: float, timed: TimedNetwork, target_ms: float
    ) -> TimedFile:
        limit = target_ms if math.isfinite(target_ms) else None
        high_ms = timed.high_ms if math.isfinite(timed.high_ms) else None
        row = TimedFile(attempt, phase, counts, predicted_ms, timed.ms, limit, timed.low_ms, high_ms)
        self.folder.append_measurement(row)
        return row

    def _key(self, counts: Counts) -> str:
        return network_text(self.costs.architecture.shapes(counts))

    def _keys(self, policies: Mapping[str, Counts]) -> dict[str, str]:
        """What a device knows each file by; files of one key are timed once, as where the uniform width is ours."""
        keys = {name: self._key(counts) for name, counts in policies.items() if name != "original"}
        keys["original"] = network_text(self.judge.original.graph.architecture.shapes())
        # Zeros don't show in shapes, which are all that these two devices know a file by.
        if not self.shows_in_shapes and not self.timer.device.is_constant:
            return {name: name for name in policies}
        return keys

    def _fine_tuned(self, name: str, counts: Counts) -> nn.Module:
        """The cut and fine-tuned network, from its checkpoint if it was finished before."""
        path = self.folder.path / f"{'model' if name == 'ours' else name}.safetensors"
        spec, kept = self.judge.spec(counts), ",".join(map(str, counts))
        if path.exists():
            model, found, extra = load_checkpoint(path, spec.name, self.judge.base.build)
            if found == spec and extra.get("kept") == kept:
                return model
        model = self.judge.network(counts)
        if self.config.finetune_epochs:
            search = self.config
            options = FinetuneOptions(search.finetune_epochs, search.seed, recipe_of(search))
            # Named by its counts: after a correction another network is tuned.
            unfinished = path.with_suffix(f".{hashlib.sha256(kept.encode()).hexdigest()[:16]}.partial")
            with self.console.progress(f"fine-tuning {name}", options.epochs) as meter:
                no_better = self.judge.fine_tune(
                    model, options, unfinished, lambda epoch, note: meter.update(epoch, note=note)
                )
            if no_better is not None:
                self.console.say(f"{name}: {no_better}")
            self._save(path, model, spec, kept)
            unfinished.unlink(missing_ok=True)
        else:
            self._save(path, model, spec, kept)
        return model

    def _save(self, path: Path, model: nn.Module, spec: ModelSpec, kept: str) -> None:
        facts = self.judge.facts
        extra = {"source": facts.source, "seed": str(self.config.seed), "kept": kept}
        extra |= {NORMALISATION_KEY: facts.pixels} if facts.pixels else {}
        save_checkpoint(path, model, spec, extra, self.judge.base.build)


def _comparisons(outcomes: Mapping[str, Outcome]) -> list[Comparison]:
    """Ours beside each other network, image by image."""
    ours = outcomes.get("ours")
    if ours is None:
        return []
    return [
        compare(name, int((ours.right & ~other.right).sum()), int((other.right & ~ours.right).sum()), len(ours))
        for name, other in outcomes.items()
        if name != "ours"
    ]
