"""A whole search: table, episodes under the target, cut, fine-tune, export, and the device's own word on the result."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from amc_latency.console import Console
from amc_latency.data import ImageData, load_data, to_input
from amc_latency.errors import JobError, UserError
from amc_latency.estimating import bench_advice, estimate_device
from amc_latency.export import ExportReport, export
from amc_latency.finetune import finetune_config
from amc_latency.models.checkpoint import load_checkpoint, save_checkpoint
from amc_latency.models.load import Network, NetworkOptions, checkpoint_digest, load_network
from amc_latency.models.registry import ModelSpec
from amc_latency.opening import device_text, open_device
from amc_latency.profiling import Grid, complete_table, open_table
from amc_latency.prune.refit import collect
from amc_latency.report import held_out_text, suspect_text
from amc_latency.search.baselines import uniform_policies, uniform_policy
from amc_latency.search.bound import UpperBound
from amc_latency.search.clamp import Clamp
from amc_latency.search.config import Row, SearchConfig, SearchReport
from amc_latency.search.costs import Counts, predicted_costs
from amc_latency.search.ddpg import DDPGAgent, DDPGConfig
from amc_latency.search.env import FEATURES, ChannelEnv
from amc_latency.search.folder import RunFolder, TimedFile
from amc_latency.search.loop import EpisodeRecord, best_of, run_episodes
from amc_latency.search.report import search_html
from amc_latency.search.rewards import NetworkEvaluator
from amc_latency.training import accuracy, fit
from device.base import Device, Protocol
from device.measure import measure_many
from device.phone import PhoneOptions
from lut.predict import MissingShapeError, Predictor
from lut.shape import network_text
from lut.table import LatencyTable

FINALISTS = 10
"""Policies that are judged once more, by all held-back images, before one is chosen."""


def search(config: SearchConfig, out: Path, console: Console, phone: PhoneOptions = PhoneOptions()) -> SearchReport:
    """Run a search in the folder `out`, or go on with the one that is there; a finished one is only read.

    A target that was not met after all corrections is a report too, with `met` false. Raises `UserError` for bad input,
    such as a target that cannot be reached.
    """
    network = _trained(config)
    data = load_data(config.data)
    # Other data or other weights on a resume would be another search.
    identity = {"data": data.source, "weights_sha256": checkpoint_digest(config.model)}
    folder = RunFolder(out, {**asdict(config), **identity})
    done = folder.report()
    if done is not None:
        console.say(f"{out} holds a finished search")
        return done
    with _device(config, phone, console) as device:
        return _Search(config, folder, network, data, console, device).run()


def _device(config: SearchConfig, phone: PhoneOptions, console: Console) -> Device:
    if config.estimate:
        if phone != PhoneOptions():
            raise UserError("--force, --transport, --runner and the like are for a phone that is there: no --estimate")
        return estimate_device(config.device, _path(config.lut))
    return open_device(config.device, _path(config.lut), phone, console)


def check_met(report: SearchReport) -> None:
    """Raise `JobError` if the target was not met, saying by how much."""
    if not report.met:
        raise JobError(
            f"the target of {report.target_ms:.4g} ms was not met after {report.attempts} attempts: "
            f"{'estimated' if report.estimated else 'measured'} "
            f"{report.measured_ms:.4g} ms, {100 * (report.measured_ms / report.target_ms - 1):.1f} % over. "
            f"The last network is {report.tflite}; search on with another --out and a larger "
            f"{'--margin-pct' if report.confidence is None else '--confidence'}"
        )


def _trained(config: SearchConfig) -> Network:
    network = load_network(NetworkOptions(config.model))
    channels, height, width = network.spec.input
    if not network.trained:
        raise UserError(
            f"{config.model} has random weights, and a search needs trained ones: pass --model CHECKPOINT, made with "
            "`amc-latency train`"
        )
    if (channels, network.spec.classes) != (1, 10) or height != width:
        raise UserError(
            f"{config.model} takes {channels}x{height}x{width} images of {network.spec.classes} classes; the data, "
            "Fashion-MNIST, has square images of 1 channel and 10 classes"
        )
    return network


class _Search:
    """One run of a search: what its phases share."""

    def __init__(
        self,
        config: SearchConfig,
        folder: RunFolder,
        network: Network,
        data: ImageData,
        console: Console,
        device: Device,
    ) -> None:
        self.began = time.monotonic()
        self.config = config
        self.folder = folder
        self.network = network
        self.data = data
        self.console = console
        self.image_size = network.spec.input[1]
        self.architecture = network.graph.architecture
        self.device = device
        self._own_table = folder.path / "table.tsv"
        self.table = self._table()
        shapes = self.architecture.shapes()
        predictor = Predictor(self.table)
        measured_ms = predictor.measured_ms(shapes)
        try:
            self.costs = predicted_costs(self.architecture, self.grid.choices(network), predictor)
        except MissingShapeError as error:
            raise UserError(f"{self.table.path} is not whole any more ({error.shape}): name another --out") from error
        if measured_ms is None:
            raise UserError(f"{self.table.path} is not whole any more (the uncut network): name another --out")
        self.original_ms = measured_ms
        self.target_ms = config.target_of(measured_ms)
        self.clamp = Clamp(self.costs, self.target_ms)
        self.bound = None
        if config.confidence is not None:
            self.bound = UpperBound(self.clamp, predictor, config.confidence)
            self.bound.check(self.target_ms)
        folder.start()
        if not self._own_table.exists():
            self.table.save_as(self._own_table)
        self._evaluator: NetworkEvaluator | None = None
        self._judged: dict[Counts, float] = {}

    @property
    def estimated(self) -> bool:
        """Whether a cost model stands in for the device, or for whoever filled the table that is replayed."""
        return self.device.identity.estimated

    @property
    def grid(self) -> Grid:
        return Grid(self.config.min_keep, self.config.step)

    @property
    def evaluator(self) -> NetworkEvaluator:
        """Made when the first policy must be judged: a resumed search may have none left."""
        if self._evaluator is None:
            model, graph = self.network.model, self.network.graph
            calibration = to_input(self.data.train.take(self.config.calibration_images).images, self.image_size)
            held_back = self.data.held_back.take(self.config.images)
            judged = to_input(held_back.images, self.image_size)
            statistics = collect(model, graph, calibration)
            recalibration = calibration[: self.config.recalibration_images]
            self._evaluator = NetworkEvaluator(model, graph, statistics, recalibration, judged, held_back.labels)
        return self._evaluator

    def run(self) -> SearchReport:
        say = self.console.say
        say(
            f"{self.config.model} on {device_text(self.device)}\n"
            f"table {self.table.path}\n"
            f"data: {self.data.source}, {len(self.data.train):,} train images, "
            f"{min(self.config.images, len(self.data.held_back)):,} of {len(self.data.held_back):,} held back to judge "
            "an episode by, "
            f"{len(self.data.test):,} test images for the end\n"
            f"original {self.original_ms:.4f} ms, target {self.target_ms:.4f} ms, "
            f"fastest reachable {self.clamp.fastest_ms:.4f} ms"
        )
        if self.estimated:
            say(f"every latency is {bench_advice(self.device.identity.name)}")
        if self.bound is not None:
            say(self.bound.text(self.target_ms))
        told = "estimated" if self.estimated else "measured"
        factor, limit_ms = 1.0, self._limit_ms(1.0)
        report: SearchReport | None = None
        attempt = -1
        while limit_ms is not None and attempt < self.config.corrections:
            attempt += 1
            records = self._episodes(attempt, limit_ms, factor)
            best = self._best([record for record in records if self._holds(record.counts, factor)], limit_ms)
            report = None
            measured_ms = self._known_over(attempt, best) or self._quick_measurement(attempt, best)
            if measured_ms <= self.target_ms:
                report = self._finish(attempt, factor, best, limit_ms, records)
                measured_ms = report.measured_ms
            if measured_ms <= self.target_ms:
                break
            factor = measured_ms / best.predicted_ms
            limit_ms = self._limit_ms(factor)
            say(
                f"attempt {attempt + 1}: {told} {measured_ms:.4f} ms is over the target of {self.target_ms:.4f} ms; "
                f"the calibration is shifted by {100 * (factor - 1):+.1f} %"
                + ("" if limit_ms else ", and so no reachable network is fast enough")
            )
        report = report or self._finish(attempt, factor, best, best.predicted_ms, records)
        self.folder.write_text("report.html", search_html(report, self.folder.settings, self.folder.measurements()))
        # Last: a folder with this file holds a finished search.
        self.folder.write_report(report)
        return report

    def _best(self, records: list[EpisodeRecord], limit_ms: float) -> EpisodeRecord:
        """The finalist that does best on all held-back images.

        The best of hundreds of noisy scores is a lucky one; ten finalists judged by more images are fewer dice. The
        uniform width is among them where it is fast enough.
        """
        self.console.say(f"judging the {FINALISTS} best policies by all held-back images")
        finalists = best_of(records, limit_ms, FINALISTS)
        finalists += [record for record in records if record.source == "start" and record.predicted_ms <= limit_ms]
        scores = {record.counts: self._held_back(record.counts) for record in finalists}
        return max(finalists, key=lambda record: (scores[record.counts], -record.predicted_ms))

    def _best_random(self, records: list[EpisodeRecord]) -> float | None:
        """The held-back percent of the best of the warm-up's policies, chosen and judged as ours is."""
        random = [record for record in records if record.source == "warm-up"]
        finalists = best_of(random, self.target_ms, FINALISTS) if random else []
        return max((self._held_back(record.counts) for record in finalists), default=None)

    def _held_back(self, counts: Counts) -> float:
        """Percent of all held-back images that the cut and refitted network gets right."""
        if counts not in self._judged:
            network = self.network.model if counts == self.costs.full else self.evaluator.network(counts)
            self._judged[counts] = accuracy(network, self.data.held_back, self.image_size)
        return self._judged[counts]

    def _limit_ms(self, factor: float) -> float | None:
        """What the table may predict, so that the device, slower by `factor`, meets the target; None if none does."""
        reachable_ms = self.target_ms / factor
        if self.bound is not None:
            return self.bound.limit_ms(reachable_ms)
        if reachable_ms < self.clamp.fastest_ms:
            return None
        # Near the fastest network there is no room for the margin.
        return max(reachable_ms * (1 - self.config.margin_pct / 100), self.clamp.fastest_ms)

    def _holds(self, counts: Counts, factor: float) -> bool:
        """Whether a policy may win: with the probability asked for, a device slower by `factor` meets the target."""
        return self.bound is None or self.bound.ms(counts) <= self.target_ms / factor

    def _uniform(self, limit_ms: float) -> Counts | None:
        """The uniform width for the same limit, if there is one."""
        try:
            return uniform_policy(self.costs, limit_ms)
        except UserError:
            return None

    def _table(self) -> LatencyTable:
        """The run folder's own copy if there is one: by other rows a resumed search would be another search."""
        if self._own_table.exists():
            return LatencyTable.open(self._own_table, self.device.identity)
        if self.folder.episodes():
            raise UserError(f"{self._own_table} is missing, and the search was made by it: name another --out")
        table = open_table(self.device, None, _path(self.config.lut), create=True)
        assert table is not None
        report = complete_table(self.network, self.device, table, self.grid, self.console)
        if report.timed and not self.estimated:
            self.console.say(f"timed {report.timed:,} rows in {report.seconds:.0f} s; {held_out_text(report)}")
        if report.suspect:
            self.console.say(suspect_text(report))
        return table

    def _episodes(self, attempt: int, limit_ms: float, factor: float) -> list[EpisodeRecord]:
        config = self.config
        wanted = config.warmup + config.episodes + attempt * config.correction_episodes
        log = self.folder.episodes()[:wanted]
        # A new agent learns the whole log again: the log alone is the state of a search.
        agent = DDPGAgent(DDPGConfig(warmup=config.warmup, lowest=config.min_keep), len(FEATURES), config.seed)
        env = ChannelEnv(self.clamp, lambda counts: self.evaluator(counts))
        if log:
            self.console.say(f"going on after {len(log)} episodes")
        best = max((record.accuracy for record in log), default=0.0)
        with self.console.progress("searching", wanted) as meter:

            def on_episode(record: EpisodeRecord) -> None:
                nonlocal best
                self.folder.append_episode(record)
                best = max(best, record.accuracy)
                meter.update(
                    record.episode + 1, note=f"{100 * record.accuracy:.1f} % held back, best {100 * best:.1f} %"
                )

            first = self._uniform(limit_ms) if self.bound is None else self.bound.start(self.target_ms / factor)
            start = [] if first is None else [first]
            return run_episodes(env, agent, wanted, limit_ms, log, start, on_episode)

    def _known_over(self, attempt: int, best: EpisodeRecord) -> float | None:
        """The final timing of an earlier session, if it was over the target: a resumed search corrects by it again."""
        known_ms = self._logged_ms(attempt, "final ours", best.counts)
        return known_ms if known_ms is not None and known_ms > self.target_ms else None

    def _logged_ms(self, attempt: int, phase: str, counts: Counts) -> float | None:
        for row in self.folder.measurements():
            if (row.attempt, row.phase, row.counts) == (attempt, phase, counts):
                return row.measured_ms
        return None

    def _quick_measurement(self, attempt: int, best: EpisodeRecord) -> float:
        """Time the cut network before any fine-tuning: its latency does not depend on its weights."""
        known_ms = self._logged_ms(attempt, "cut", best.counts)
        if known_ms is not None:
            return known_ms
        path = self.folder.path / "cut.tflite"
        self._export(self.evaluator.network(best.counts), path)
        shapes = self.architecture.shapes(best.counts)
        measurement = measure_many(self.device, {network_text(shapes): path}, self._protocol())[network_text(shapes)]
        timed = TimedFile(attempt, "cut", best.counts, best.predicted_ms, measurement.latency_ms, self.target_ms)
        self.folder.append_measurement(timed)
        return measurement.latency_ms

    def _finish(
        self, attempt: int, factor: float, best: EpisodeRecord, limit_ms: float, records: list[EpisodeRecord]
    ) -> SearchReport:
        """Fine-tune and export ours and the uniform width, and time both beside the original in the same rounds."""
        uniform = self._uniform(limit_ms) or uniform_policies(self.costs)[-1]
        policies = {"original": self.costs.full, "uniform": uniform, "ours": best.counts}
        self.console.say("fine-tuning, exporting and judging ours and the uniform width by the test images")
        exports: dict[str, ExportReport] = {}
        accuracies: dict[str, float] = {}
        for name, counts in policies.items():
            model = self.network.model if name == "original" else self._fine_tuned(name, counts)
            exports[name] = self._export(model, self._tflite(name))
            accuracies[name] = accuracy(model, self.data.test, self.image_size)
        keys = {name: network_text(self.architecture.shapes(counts)) for name, counts in policies.items()}
        # The uniform width may be ours: one key then, timed once.
        files = {keys[name]: self._tflite(name) for name in policies}
        measured = measure_many(self.device, files, self._protocol())
        rows = []
        for name, counts in policies.items():
            predicted_ms = self.costs.ms(counts) * factor
            measurement = measured[keys[name]]
            timed = TimedFile(attempt, f"final {name}", counts, predicted_ms, measurement.latency_ms, self.target_ms)
            self.folder.append_measurement(timed)
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
                    held_back=self._held_back(counts),
                    tflite=str(self._tflite(name)),
                )
            )
        original, _, ours = rows
        self.folder.write_json("policy.json", {"counts": list(best.counts), "keep": list(best.actions)})
        return SearchReport(
            original_ms=self.original_ms,
            target_ms=self.target_ms,
            predicted_ms=ours.predicted_ms,
            measured_ms=ours.measured_ms,
            met=ours.measured_ms <= self.target_ms,
            statistic="the cost model" if self.estimated else measured[keys["ours"]].statistic,
            accuracy_original=original.accuracy,
            accuracy=ours.accuracy,
            accuracy_uniform=rows[1].accuracy,
            best_random_held_back=self._best_random(records),
            macs=ours.macs,
            episodes=len(records),
            attempts=attempt + 1,
            seconds=round(time.monotonic() - self.began, 1),
            data=self.data.source,
            device=device_text(self.device),
            table=str(self._own_table),
            tflite=ours.tflite,
            rows=rows,
            confidence=self.config.confidence,
            bound_ms=None if self.bound is None else self.bound.ms(best.counts) * factor,
            estimated=self.estimated,
            note=f"every latency here is {bench_advice(self.device.identity.name)}" if self.estimated else None,
            phone=self.device.identity.name if self.estimated else None,
        )

    def _fine_tuned(self, name: str, counts: Counts) -> nn.Module:
        """The cut and fine-tuned network, from its checkpoint if it was finished before."""
        path = self.folder.path / f"{'model' if name == 'ours' else name}.safetensors"
        spec = replace(self.network.spec, channels=counts)
        if path.exists():
            model, found, _ = load_checkpoint(path)
            if found == spec:
                return model
        model = self.evaluator.network(counts)
        if self.config.finetune_epochs:
            config = finetune_config(self.config.finetune_epochs, self.image_size, self.config.seed)
            # Named by its counts: after a correction another network is tuned.
            unfinished = path.with_suffix(f".{'-'.join(map(str, counts))}.partial")
            with self.console.progress(f"fine-tuning {name}", config.epochs) as meter:
                fit(
                    model,
                    self.data.train,
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
        save_checkpoint(path, model, spec, {"source": self.data.source, "seed": str(self.config.seed)})

    def _export(self, model: nn.Module, path: Path) -> ExportReport:
        images = to_input(self.data.train.take(8).images, self.image_size)
        return export(model, self.network.spec.input, path, images)

    def _tflite(self, name: str) -> Path:
        return self.folder.path / f"{name}.tflite"

    def _protocol(self) -> Protocol:
        # As the uncut network's, by which a target is named: a smallest sample falls with the number of samples.
        return replace(self.table.protocol, rounds=self.config.rounds or self.table.protocol.network_rounds)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
