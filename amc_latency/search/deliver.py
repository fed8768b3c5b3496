"""From a policy to the file that ships: cut, fine-tune, export, and the device's own word on it."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from amc_latency.console import Console
from amc_latency.export import ExportReport, export
from amc_latency.finetune import finetune_config, settle, worse_text
from amc_latency.intervals import Comparison, compare, interval_pct
from amc_latency.models.checkpoint import NORMALISATION_KEY, load_checkpoint, save_checkpoint
from amc_latency.models.registry import ModelSpec
from amc_latency.outcome import Outcome
from amc_latency.search.config import Row, SearchConfig
from amc_latency.search.costs import Counts, LatencyCosts
from amc_latency.search.folder import RunFolder, TimedFile
from amc_latency.search.judge import Judge
from amc_latency.search.loop import EpisodeRecord
from amc_latency.training import fit
from device.base import Device, Protocol
from device.measure import Measurement, measure_many
from lut.estimate_device import EstimateDevice
from lut.replay import ReplayDevice
from lut.shape import network_text


class Delivery:
    """What a run folder's policies become; a step that an earlier session finished is not done again."""

    def __init__(
        self,
        config: SearchConfig,
        folder: RunFolder,
        judge: Judge,
        costs: LatencyCosts,
        original_ms: float,
        device: Device,
        protocol: Protocol,
        console: Console,
    ) -> None:
        self.config = config
        self.folder = folder
        self.judge = judge
        self.costs = costs
        self.original_ms = original_ms
        self.device = device
        self.protocol = protocol
        self.console = console
        self.statistic = ""
        self.comparisons: list[Comparison] = []

    def known_over(self, attempt: int, best: EpisodeRecord, target_ms: float) -> float | None:
        """The final timing of an earlier session, if it was over the target: a resumed search corrects by it again."""
        known_ms = self._logged_ms(attempt, "final ours", best.counts)
        return known_ms if known_ms is not None and known_ms > target_ms else None

    def quick_ms(self, attempt: int, best: EpisodeRecord, target_ms: float) -> float:
        """Time the cut network before any fine-tuning: its latency does not depend on its weights."""
        known_ms = self._logged_ms(attempt, "cut", best.counts)
        if known_ms is not None:
            return known_ms
        path = self.folder.path / "cut.tflite"
        self.export(self.judge.network(best.counts), path)
        key = self._key(best.counts)
        measurement = measure_many(self.device, {key: path}, self.protocol)[key]
        timed = _timed(attempt, "cut", best.counts, best.predicted_ms, measurement, target_ms)
        self.folder.append_measurement(timed)
        return measurement.latency_ms

    def rows(self, attempt: int, factor: float, policies: Mapping[str, Counts], target_ms: float) -> list[Row]:
        """Fine-tune and export each policy, and time all of them in the same rounds.

        Predictions are shifted by `factor`. The uncut network, `original`, is not fine-tuned.
        """
        exports: dict[str, ExportReport] = {}
        outcomes: dict[str, Outcome] = {}
        for name, counts in policies.items():
            model = self.judge.original.model if name == "original" else self._fine_tuned(name, counts)
            exports[name] = self.export(model, self.tflite(name))
            outcomes[name] = self.judge.tested(model)
        keys = self._keys(policies)
        measured = measure_many(self.device, {keys[name]: self.tflite(name) for name in policies}, self.protocol)
        self.statistic = measured[keys["original"]].statistic
        self.comparisons = _comparisons(outcomes)
        rows = []
        for name, counts in policies.items():
            own_ms = self.original_ms if name == "original" else self.costs.ms(counts)
            predicted_ms, measurement = own_ms * factor, measured[keys[name]]
            held_back = self.judge.original_final() if name == "original" else self.judge.final(counts)
            self.folder.append_measurement(
                _timed(attempt, f"final {name}", counts, predicted_ms, measurement, target_ms)
            )
            macs = exports[name].macs
            assert macs is not None  # our own converter knows them
            rows.append(
                Row(
                    name=name,
                    counts=counts,
                    predicted_ms=predicted_ms,
                    measured_ms=measurement.latency_ms,
                    spread_pct=measurement.spread_pct,
                    macs=macs,
                    bytes=exports[name].bytes,
                    accuracy=outcomes[name].accuracy_pct,
                    held_back=100 * held_back.accuracy,
                    tflite=str(self.tflite(name)),
                    accuracy_95=self._interval(name, outcomes[name].accuracy_pct, len(outcomes[name])),
                    held_back_95=self._interval(name, 100 * held_back.accuracy, held_back.images),
                    top5=outcomes[name].top5_pct,
                    held_back_top5=None if held_back.top5 is None else 100 * held_back.top5,
                )
            )
        return rows

    def uncut_rows(self, target_ms: float) -> list[Row] | None:
        """The uncut network as the result: exported, saved and timed. None where the device says it is over the target.

        What an earlier session measured counts again.
        """
        counts = self.costs.full
        known_ms = self._logged_ms(0, "final original", counts)
        if known_ms is not None and known_ms > target_ms:
            return None
        (original,) = self.rows(0, 1.0, {"original": counts}, target_ms)
        if original.measured_ms > target_ms:
            return None
        rows = [original]
        for name in ("uniform", "ours"):
            shutil.copyfile(original.tflite, self.tflite(name))
            rows.append(replace(original, name=name, tflite=str(self.tflite(name))))
        checkpoint = self.folder.path / "model.safetensors"
        self._save(checkpoint, self.judge.network(counts), self.judge.spec(counts), ",".join(map(str, counts)))
        return rows

    def _interval(self, name: str, accuracy_pct: float, images: int) -> tuple[float, ...]:
        # The original agrees with itself, whatever images come.
        if name == "original" and self.judge.data.unlabelled:
            return ()
        return interval_pct(accuracy_pct, images)

    def tflite(self, name: str) -> Path:
        """Where a policy's exported file lies."""
        return self.folder.path / f"{name}.tflite"

    def export(self, model: nn.Module, path: Path) -> ExportReport:
        """Export a network of the search, checked on train images."""
        images = self.judge.data.train.take(8).inputs(self.judge.image_size)
        return export(model, self.judge.base.spec.input, path, images)

    def _logged_ms(self, attempt: int, phase: str, counts: Counts) -> float | None:
        for row in self.folder.measurements():
            if (row.attempt, row.phase, row.counts) == (attempt, phase, counts):
                return row.measured_ms
        return None

    def _key(self, counts: Counts) -> str:
        return network_text(self.costs.architecture.shapes(counts))

    def _keys(self, policies: Mapping[str, Counts]) -> dict[str, str]:
        """What a device knows each file by; files of one key are timed once, as where the uniform width is ours."""
        keys = {name: self._key(counts) for name, counts in policies.items() if name != "original"}
        keys["original"] = network_text(self.judge.original.graph.architecture.shapes())
        # Zeros don't show in shapes, which are all that these two devices know a file by.
        if self.config.prune == "weights" and not isinstance(self.device, ReplayDevice | EstimateDevice):
            return {name: name for name in policies}
        return keys

    def _fine_tuned(self, name: str, counts: Counts) -> nn.Module:
        """The cut and fine-tuned network, from its checkpoint if it was finished before."""
        path = self.folder.path / f"{'model' if name == 'ours' else name}.safetensors"
        spec, kept = self.judge.spec(counts), ",".join(map(str, counts))
        if path.exists():
            model, found, extra = load_checkpoint(path)
            if found == spec and extra.get("kept") == kept:
                return model
        model = self.judge.network(counts)
        if self.config.finetune_epochs:
            search = self.config
            config = finetune_config(
                search.finetune_epochs, self.judge.image_size, search.seed, search.learning_rate, search.batch_size
            )
            start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            # Named by its counts: after a correction another network is tuned.
            unfinished = path.with_suffix(f".{hashlib.sha256(kept.encode()).hexdigest()[:16]}.partial")
            with self.judge.training(model), self.console.progress(f"fine-tuning {name}", config.epochs) as meter:
                fit(
                    model,
                    self.judge.data.train,
                    config,
                    unfinished,
                    lambda epoch: meter.update(epoch.epoch, note=f"{epoch.accuracy:.1f} % of train batches"),
                    teacher=self.judge.original.model,
                )
            self._settle(name, model, start)
            self._save(path, model, spec, kept)
            unfinished.unlink(missing_ok=True)
        else:
            self._save(path, model, spec, kept)
        return model

    def _settle(self, name: str, model: nn.Module, start: Mapping[str, Tensor]) -> None:
        def score(network: nn.Module) -> tuple[float, float]:
            judged = self.judge.evaluator.judged(network, self.judge.data.held_back)
            return 100 * judged.accuracy, judged.loss

        settled = settle(model, start, score)
        if not settled.share:
            self.console.say(worse_text(f"{name} ", settled))

    def _save(self, path: Path, model: nn.Module, spec: ModelSpec, kept: str) -> None:
        source, seed = self.judge.data.source, str(self.config.seed)
        extra = {"source": source, "seed": seed, "kept": kept, NORMALISATION_KEY: self.judge.data.normalisation.text}
        save_checkpoint(path, model, spec, extra)


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


def _timed(
    attempt: int, phase: str, counts: Counts, predicted_ms: float, measurement: Measurement, target_ms: float
) -> TimedFile:
    limit = target_ms if math.isfinite(target_ms) else None
    return TimedFile(attempt, phase, counts, predicted_ms, measurement.latency_ms, limit)
