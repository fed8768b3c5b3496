"""Asks the evaluator, and writes down what it said: a full score is asked for once, over all sessions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from amc_latency.accelerator import accelerator_of, halving, on, prepared
from amc_latency.arguments.names import find
from amc_latency.console import Console
from amc_latency.data import ImageData, InMemory
from amc_latency.data.decoded import inputs_of
from amc_latency.data.fitting import network_line
from amc_latency.data.splits import EVALUATED, at_once, fewer_of_large
from amc_latency.jsonl import append_line, drop_torn_line, read_lines
from amc_latency.measuring.accuracy import outcome_of_file
from amc_latency.models.load import Network
from amc_latency.models.spec import ModelSpec
from amc_latency.prune.refit import COLLECTED_BATCH, Statistics, collect
from amc_latency.search.costs.costs import Counts, PolicyCosts
from amc_latency.search.judge.config import Facts, FinetuneOptions, JudgeConfig, JudgedPolicy
from amc_latency.search.judge.damage import Damage, balanced, measured, refit_error, taylor
from amc_latency.search.judge.evaluator import NetworkEvaluator, RankedCut, is_hopeless
from amc_latency.search.judge.record import EpisodeRecord, best_of
from amc_latency.search.judge.score import ACCURACY, Reward, Score, Tested
from amc_latency.search.records import DAMAGES
from amc_latency.training.finetune import KEPT, finetune_config, settle, worse_text
from amc_latency.training.loop import DivergedError, fit
from amc_latency.training.original import check_original

Result = TypeVar("Result")
RANGE_IMAGES, LEAST_RANGE_IMAGES = 100, 32
"""For the ranges of tensors; of large images fewer."""
FINALISTS = 10
"""Policies that are judged once more, by all held-back images, before one is chosen."""


class Judge:
    """Scores of policies: `judge(counts)` by the episodes' images, `judge.final(counts)` by all held-back ones.

    A policy counts channels here, which are cut out; `WeightJudge` judges another kind. `original` is the network that
    earlier rounds pruned, if `network` is what they made of it. With `log`, a file of JSON lines, what is known from
    there is not asked again; see `counting` for which were asked about. `say` is told what the user should know
    of the judging.

    Networks are given and taken on the CPU; what is computed with them is computed on `device`.
    """

    line: type[JudgedPolicy] = JudgedPolicy
    """of the log"""
    measure = ACCURACY
    """what its figures are"""

    def __init__(
        self,
        network: Network,
        data: ImageData,
        config: JudgeConfig,
        log: Path | None = None,
        original: Network | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.base = network
        self.original = original or network
        self.data = data
        self.config = config
        self.log = log
        self._writes = False
        self.say = say
        self.device = prepared(accelerator_of(config.accelerator))
        self._batch = EVALUATED if self.device.type != "cpu" else at_once(self.image_size)
        self._counters: list[Callable[[Counts], None]] = []
        self._known: dict[Counts, Score] = {}
        self._final: dict[Counts, Score] = {}
        for row in [] if log is None else read_lines(log, self.line):
            known = self._final if row.final else self._known
            known[row.counts] = Score(row.accuracy, row.loss, row.images, row.top5)

    def __call__(self, counts: Counts, best: float = 0.0) -> Score:
        """The score by the episodes' images, or by the first of them where `best`, if given, is out of reach."""
        self._count(counts)
        known = self._known.get(counts)
        images = min(self.config.images, len(self.data.held_back))
        # What was given up under a higher bar may be worth a look under this one.
        if known is None or (known.images < images and not is_hopeless(known.accuracy, known.images, best, images)):
            score = self.evaluated(counts, best)
            known = self._known[counts] = self._write(counts, score, final=False)
        return known

    def evaluated(self, counts: Counts, best: float) -> Score:
        """What `__call__` says of a policy that is not known."""
        return self._ask(lambda evaluator: evaluator(counts, best))

    def evaluated_finally(self, counts: Counts) -> Score:
        """What `final` says of a policy that is not known."""
        return self._judged(self.network(counts))

    @contextmanager
    def counting(self, on_asked: Callable[[int], None] = lambda asked: None) -> Iterator[set[Counts]]:
        """The policies whose score by the episodes' images is wanted within it, known or not.

        `on_asked` is called each time, with how many different ones there were.
        """
        asked: set[Counts] = set()

        def counter(counts: Counts) -> None:
            asked.add(counts)
            on_asked(len(asked))

        self._counters.append(counter)
        try:
            yield asked
        finally:
            self._counters.remove(counter)

    def _count(self, counts: Counts) -> None:
        for counter in self._counters:
            counter(counts)

    def final(self, counts: Counts) -> Score:
        """The score by all held-back images."""
        if counts not in self._final:
            score = self.evaluated_finally(counts)
            self._final[counts] = self._write(counts, score, final=True)
        return self._final[counts]

    def finals(self, counts: Counts) -> Tested:
        """`final` as figures that are shown."""
        return self._shown(self.final(counts))

    def original_final(self) -> Tested:
        """The original's figures by all held-back images."""
        return self._shown(self._original_final())

    def _original_final(self) -> Score:
        if self.original is self.base:
            return self.final(self.base.graph.architecture.group_channels)
        return self._judged(self.original.model)

    def test_pct(self, network: nn.Module) -> float:
        """Percent of the test images that a network gets right, cut or not, as it is."""
        return self.tested(network).value

    def tested(self, network: nn.Module) -> Tested:
        """What a network, cut or not, as it is, is worth by the test images."""
        there = on(network, self.device)
        found = self._ask(lambda evaluator: evaluator.outcome(there, self.data.test))
        return Tested(found.accuracy_pct, len(found), found.top5_pct, found)

    def file_tested(self, path: Path) -> Tested | None:
        """What a network's exported file is worth by the test images, run by LiteRT. Raises `BadModelError`."""
        found = outcome_of_file(path, self.data.test)
        return Tested(found.accuracy_pct, len(found), found.top5_pct, found)

    def _judged(self, network: nn.Module) -> Score:
        """The score of a network by all held-back images."""
        there = on(network, self.device)
        return self._ask(lambda evaluator: evaluator.judged(there, self.data.held_back))

    def _ask(self, question: Callable[[NetworkEvaluator], Result]) -> Result:
        """What the evaluator answers; by smaller batches where memory runs out."""

        def asked(batch: int) -> Result:
            if batch != self._batch:
                self._batch = batch
                self.__dict__.pop("evaluator", None)
            return question(self.evaluator)

        return halving(asked, self._batch, self.device, self.say)[0]

    def _shown(self, score: Score) -> Tested:
        return Tested(100 * score.accuracy, score.images, None if score.top5 is None else 100 * score.top5)

    def choose(self, records: Sequence[EpisodeRecord], target_ms: float, reward: Reward) -> EpisodeRecord:
        """The finalist that does best on all held-back images; `UserError` if no record is under the target.

        The best of hundreds of noisy scores is a lucky one; ten finalists judged by more images are fewer dice. Start
        policies are among them where they are fast enough.
        """
        finalists = best_of(records, target_ms, FINALISTS)
        finalists += [record for record in records if record.source == "start" and record.predicted_ms <= target_ms]
        scores = {record.counts: reward(self.final(record.counts), record.counts) for record in finalists}
        return max(finalists, key=lambda record: (scores[record.counts], -record.predicted_ms))

    def network(self, counts: Counts) -> nn.Module:
        """The network cut to a policy, refitted and recalibrated; the uncut one's copy, as it is, if nothing goes."""
        if counts == self.base.graph.architecture.group_channels:
            return copy.deepcopy(self.base.model)
        return self.evaluator.network(counts).cpu()

    def precisions(self, counts: Counts) -> tuple[str, ...]:
        """The precision of each layer under a policy; none where all are float32."""
        return ()

    def policy(self, counts: Counts) -> dict[str, Any]:
        """What a policy decides, for who reads it outside of a search."""
        return {"counts": list(counts)}

    def shipped(self, network: nn.Module, counts: Counts) -> nn.Module:
        """What the exported file of a policy's network computes: the network itself, but for rounding."""
        return network

    @property
    def range_images(self) -> Tensor:
        """The train images [N, C, H, W] that ranges of tensors are taken from, where there are integers."""
        return self.calibration[: fewer_of_large(RANGE_IMAGES, self.image_size, LEAST_RANGE_IMAGES)]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that the network takes."""
        return self.base.spec.input[1:]

    def spec(self, counts: Counts) -> ModelSpec:
        """What the checkpoint of a policy's network says of it."""
        return replace(self.base.spec, channels=counts)

    def introduce(self, images: int, min_accuracy_pct: float | None, console: Console) -> None:
        """Say what is searched and what it is worth uncut; `UserError` where that means nothing."""
        console.say(network_line(self.data, self.original))
        if self.base.model is self.original.model:
            there = replace(self.original, model=on(self.original.model, self.device))
            check_original(there, self.data, images, min_accuracy_pct, console)

    for_finalists, for_the_end = "all held-back images", "the test images"

    def shown(self, accuracy: float) -> str:
        """An episode's score, for a meter."""
        return f"{100 * accuracy:.1f} %"

    @property
    def source_line(self) -> str:
        """What policies are judged by, in a line."""
        held_back, data = len(self.data.held_back), self.data
        unlabelled = "; their labels are what the original says of them" if data.unlabelled else ""
        return (
            f"data: {data.source}, {len(data.train):,} train images, "
            f"{min(self.config.images, held_back):,} of {held_back:,} held back to judge an episode by, "
            f"{len(data.test):,} test images for the end{unlabelled}"
        )

    @property
    def facts(self) -> Facts:
        """What a report says of how it was judged."""
        data = self.data
        pixels = "" if data.takes_as_given else data.normalisation.text
        return Facts(data.source, data.unlabelled, len(data.test), len(data.held_back), pixels, self.measure)

    def shortened(self) -> list[str]:
        """What there is less of than was asked for."""
        return [
            f"`{name}` {wanted:,}: there are {len(images):,}, and all of them are taken"
            for name, wanted, unset, images in (
                ("images", self.config.images, JudgeConfig.images, self.data.held_back),
                ("calibration_images", self.config.calibration_images, JudgeConfig.calibration_images, self.data.train),
            )
            if wanted > len(images) and wanted != unset
        ]

    def example_inputs(self, n: int) -> Tensor:
        """A few inputs [n, C, H, W] that a file can be checked on."""
        return self.data.train.take(n).inputs(self.image_size)

    def fine_tune(
        self, model: nn.Module, config: FinetuneOptions, checkpoint: Path, on_epoch: Callable[[int, str], None]
    ) -> str | None:
        """Train a policy's network in place, going on from `checkpoint`; what to say where that made it no better."""
        model.to(self.device)
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        train_config = finetune_config(config.epochs, self.image_size, config.seed, **config.recipe)
        try:
            with self.training(model):
                fit(
                    model,
                    self.data.train,
                    train_config,
                    checkpoint,
                    lambda epoch: on_epoch(epoch.epoch, f"{epoch.accuracy:.1f} % of train batches"),
                    teacher=on(self.original.model, self.device),
                    say=self.say,
                )
        except DivergedError as error:
            self.say(f"{error}. {KEPT}")

        def score(network: nn.Module) -> tuple[float, float]:
            judged = self._judged(network)
            return 100 * judged.accuracy, judged.loss

        settled = settle(model, start, score)
        model.cpu()
        return None if settled.share else worse_text("", settled)

    def training(self, network: nn.Module) -> AbstractContextManager[None]:
        """What a policy's network is fine-tuned within."""
        return nullcontext()

    def damages(self, name: str, costs: PolicyCosts) -> list[Damage]:
        """The proxies of damage called `name`, one of `records.DAMAGES`, the better one first."""
        return getattr(self, find(DAMAGES, name, "proxy of damage").method)(costs)

    def refit_damages(self, costs: PolicyCosts) -> list[Damage]:
        """What least squares would miss."""
        base = self.base
        error = refit_error(self.model, base.graph, self.statistics, costs.choices)
        return [balanced(error), error]

    def taylor_damages(self, costs: PolicyCosts) -> list[Damage]:
        """The loss's gradients, which takes labels."""
        base = self.base
        labels = self._calibrating.labels.to(self.device)
        return [taylor(self.model, base.graph, self.calibration, labels, costs.choices)]

    def measured_damages(self, costs: PolicyCosts) -> list[Damage]:
        """The loss itself, each group alone."""
        return [measured(self, costs)[0]]

    def pruner(self) -> Callable[[Counts], nn.Module]:
        """What makes a policy's network, its batch norms not recalibrated yet."""
        return RankedCut(self.model, self.base.graph, self.statistics)

    @cached_property
    def model(self) -> nn.Module:
        """The network that is pruned, where things are computed."""
        return on(self.base.model, self.device)

    @cached_property
    def calibration(self) -> Tensor:
        """The images [N, C, H, W] that repair a cut network."""
        return self._calibrating.inputs(self.image_size).to(self.device)

    @cached_property
    def _calibrating(self) -> InMemory:
        return self.data.train.take(self.config.calibrating(self.image_size)).kept()

    @cached_property
    def statistics(self) -> Statistics:
        """What refit knows of each layer's inputs."""
        found, _ = halving(
            lambda batch: collect(
                self.model, self.base.graph, self.calibration, self.config.points(self.image_size), batch
            ),
            min(COLLECTED_BATCH, self._batch),
            self.device,
            self.say,
        )
        return found

    @cached_property
    def evaluator(self) -> NetworkEvaluator:
        """Made when the first policy must be judged: a resumed search may have none left."""
        held_back = self.data.held_back.take(self.config.images).kept()
        return NetworkEvaluator(
            self.model,
            self.base.graph,
            self.pruner(),
            self.calibration[: self.config.recalibrating(self.image_size)],
            inputs_of(held_back, self.image_size, self.device),
            held_back.labels.to(self.device),
            self._batch,
            self.say,
        )

    def _write(self, counts: Counts, score: Score, final: bool) -> Score:
        if self.log is not None:
            if not self._writes:
                # Not before: another search may just have begun in the folder, and be in the middle of a line.
                drop_torn_line(self.log)
                self._writes = True
            row = self.line(counts, score.accuracy, score.loss, score.images, final, score.top5)
            append_line(self.log, row)
        return score
