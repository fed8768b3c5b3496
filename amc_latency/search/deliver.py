"""From a policy to the file that ships: cut, fine-tune, export, and the device's own word on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from amc_latency.console import Console
from amc_latency.data import to_input
from amc_latency.export import ExportReport, export
from amc_latency.finetune import finetune_config
from amc_latency.models.checkpoint import load_checkpoint, save_checkpoint
from amc_latency.models.registry import ModelSpec
from amc_latency.search.config import Row, SearchConfig
from amc_latency.search.costs import Counts, LatencyCosts
from amc_latency.search.folder import RunFolder, TimedFile
from amc_latency.search.judge import Judge
from amc_latency.search.loop import EpisodeRecord
from amc_latency.training import fit
from device.base import Device, Protocol
from device.measure import Measurement, measure_many
from lut.shape import network_text


class Delivery:
    """What a run folder's policies become; a step that an earlier session finished is not done again."""

    def __init__(
        self,
        config: SearchConfig,
        folder: RunFolder,
        judge: Judge,
        costs: LatencyCosts,
        device: Device,
        protocol: Protocol,
        console: Console,
    ) -> None:
        self.config = config
        self.folder = folder
        self.judge = judge
        self.costs = costs
        self.device = device
        self.protocol = protocol
        self.console = console
        self.statistic = ""

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
        accuracies: dict[str, float] = {}
        for name, counts in policies.items():
            model = self.judge.base.model if name == "original" else self._fine_tuned(name, counts)
            exports[name] = self.export(model, self.tflite(name))
            accuracies[name] = self.judge.test_pct(model)
        keys = {name: self._key(counts) for name, counts in policies.items()}
        # The uniform width may be ours: one key then, timed once.
        measured = measure_many(self.device, {keys[name]: self.tflite(name) for name in policies}, self.protocol)
        self.statistic = measured[keys["original"]].statistic
        rows = []
        for name, counts in policies.items():
            predicted_ms, measurement = self.costs.ms(counts) * factor, measured[keys[name]]
            self.folder.append_measurement(
                _timed(attempt, f"final {name}", counts, predicted_ms, measurement, target_ms)
            )
            rows.append(
                Row(
                    name=name,
                    counts=counts,
                    predicted_ms=predicted_ms,
                    measured_ms=measurement.latency_ms,
                    spread_pct=measurement.spread_pct,
                    macs=exports[name].macs,
                    bytes=exports[name].bytes,
                    accuracy=accuracies[name],
                    held_back=100 * self.judge.final(counts).accuracy,
                    tflite=str(self.tflite(name)),
                )
            )
        return rows

    def tflite(self, name: str) -> Path:
        """Where a policy's exported file lies."""
        return self.folder.path / f"{name}.tflite"

    def export(self, model: nn.Module, path: Path) -> ExportReport:
        """Export a network of the search, checked on train images."""
        images = to_input(self.judge.data.train.take(8).images, self.judge.image_size)
        return export(model, self.judge.base.spec.input, path, images)

    def _logged_ms(self, attempt: int, phase: str, counts: Counts) -> float | None:
        for row in self.folder.measurements():
            if (row.attempt, row.phase, row.counts) == (attempt, phase, counts):
                return row.measured_ms
        return None

    def _key(self, counts: Counts) -> str:
        return network_text(self.costs.architecture.shapes(counts))

    def _fine_tuned(self, name: str, counts: Counts) -> nn.Module:
        """The cut and fine-tuned network, from its checkpoint if it was finished before."""
        path = self.folder.path / f"{'model' if name == 'ours' else name}.safetensors"
        spec = replace(self.judge.base.spec, channels=counts)
        if path.exists():
            model, found, _ = load_checkpoint(path)
            if found == spec:
                return model
        model = self.judge.network(counts)
        if self.config.finetune_epochs:
            config = finetune_config(self.config.finetune_epochs, self.judge.image_size, self.config.seed)
            # Named by its counts: after a correction another network is tuned.
            unfinished = path.with_suffix(f".{'-'.join(map(str, counts))}.partial")
            with self.console.progress(f"fine-tuning {name}", config.epochs) as meter:
                fit(
                    model,
                    self.judge.data.train,
                    config,
                    unfinished,
                    lambda epoch: meter.update(epoch.epoch, note=f"{epoch.accuracy:.1f} % of train batches"),
                )
            self._save(path, model, spec)
            unfinished.unlink(missing_ok=True)
        else:
            self._save(path, model, spec)
        return model

    def _save(self, path: Path, model: nn.Module, spec: ModelSpec) -> None:
        save_checkpoint(path, model, spec, {"source": self.judge.data.source, "seed": str(self.config.seed)})


def _timed(
    attempt: int, phase: str, counts: Counts, predicted_ms: float, measurement: Measurement, target_ms: float
) -> TimedFile:
    limit = target_ms if math.isfinite(target_ms) else None
    return TimedFile(attempt, phase, counts, predicted_ms, measurement.latency_ms, limit)
