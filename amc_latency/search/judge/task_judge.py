"""Scores of policies by a task of the user's own: any figure of which more is better."""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.graph.operations import BATCH_NORMS
from amc_latency.models.load import Network
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.config import Facts, FinetuneOptions, JudgeConfig, JudgedPolicy
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.score import Score, Tested
from amc_latency.search.judge.weights import WeightJudge
from amc_latency.task import Task, Trains

MEASURE = "score"


class Asked:
    """A task as it is asked: what it answers is checked, and what it raises says which call it was."""

    def __init__(self, task: Task) -> None:
        if not isinstance(task, Task):
            missing = [name for name in ("calibration", "score", "digest") if not callable(getattr(task, name, None))]
            raise UserError(f"task {type(task).__name__} has no {', '.join(missing)}(): see amc_latency.Task")
        self._task = task
        self.name = f"task {type(task).__name__}"

    def digest(self) -> str:
        """`Task.digest`; UserError for another thing than text."""
        found = self._call("digest")
        if not isinstance(found, str) or not found:
            raise UserError(f"{self.name}: digest() returned {found!r}; return text that tells it from other tasks")
        return found

    def calibration(self, n: int, size: tuple[int, int, int]) -> Tensor:
        """The first `n` inputs [n, C, H, W], fewer if there are no more; UserError for inputs of another size."""
        found: list[Tensor] = []
        missing = n
        for batch in self._batches():
            inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
            if not isinstance(inputs, Tensor) or inputs.ndim != 4 or tuple(inputs.shape[1:]) != size:
                what = list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
                wanted = ", ".join(map(str, size))
                raise UserError(f"{self.name}: calibration() gives {what}; give batches [N, {wanted}]")
            found.append(inputs.detach().cpu().float()[:missing])
            missing -= len(found[-1])
            if not missing:
                break
        if sum(map(len, found)) < 2:
            raise UserError(f"{self.name}: calibration() gives {sum(map(len, found))} inputs; give 2 or more")
        inputs = torch.cat(found)
        if not bool(inputs.isfinite().all()):
            raise UserError(f"{self.name}: calibration() gives inputs that are not finite")
        return inputs.contiguous(memory_format=torch.channels_last)

    def score(self, model: nn.Module, budget: int | None) -> float:
        """`Task.score`; UserError for what is no finite number."""
        model.eval()
        found = self._call("score", model, budget)
        model.eval()
        value = found.item() if isinstance(found, Tensor) and found.numel() == 1 else found
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise UserError(f"{self.name}: score() returned {type(found).__name__}; return a number, higher is better")
        if not math.isfinite(value):
            raise UserError(f"{self.name}: score() returned {float(value)}; return a finite number, higher is better")
        return float(value)

    @property
    def trains(self) -> bool:
        """Whether it has its own training."""
        return isinstance(self._task, Trains)

    def train(self, model: nn.Module, teacher: nn.Module, seed: int) -> None:
        """`Task.train`, in place; UserError where the network has other tensors afterwards, or some not finite."""
        before = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
        teacher.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            returned = self._call("train", model, teacher)
        own = set(map(id, model.parameters()))
        if isinstance(returned, nn.Module) and own.isdisjoint(map(id, returned.parameters())):
            # It would be lost, and the search would go on with a network that nobody trained.
            raise UserError(f"{self.name}: train() returned another network: train the one that it is given, in place")
        model.cpu().eval()
        teacher.cpu().eval()
        after = model.state_dict()
        for name in {**before, **after}:
            if name not in after or name not in before or after[name].shape != before[name][0]:
                raise UserError(f"{self.name}: train() changed the shape of {name}: train weights alone, in place")
            if after[name].dtype != before[name][1]:
                left, was = after[name].dtype, before[name][1]
                raise UserError(
                    f"{self.name}: train() left {name} in {left}, and it was {was}: call model.to({was}) at its end"
                )
            if not bool(after[name].isfinite().all()):
                raise UserError(f"{self.name}: train() left {name} with values that are not finite: lower its rate?")

    def _batches(self) -> Any:
        found = self._call("calibration")
        if not hasattr(found, "__iter__") and not hasattr(found, "__getitem__"):
            raise UserError(f"{self.name}: calibration() returned {type(found).__name__}; give batches of inputs")
        batches = iter(found)
        while True:
            try:
                yield next(batches)
            except StopIteration:
                return
            except Exception as error:
                raise self._raised("calibration", error) from error

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._task, method)(*arguments)
        except Exception as error:
            # The user's own traceback stands above it.
            raise self._raised(method, error) from error

    def _raised(self, method: str, error: Exception) -> UserError:
        reason = (str(error).strip().splitlines() or [""])[0]
        return UserError(f"{self.name}: {method}() raised {type(error).__name__}: {reason}")


@dataclass(frozen=True)
class ScoredPolicy(JudgedPolicy):
    """A line of the log where a task's own score stands for the accuracy: any number."""

    accuracy: float


class TaskScores(Judge):
    """A judge by `asked`: networks are cut and repaired as for images, and run by PyTorch's own modules."""

    line = ScoredPolicy
    measure = MEASURE
    for_finalists = for_the_end = "the task's whole score"

    def __init__(
        self,
        network: Network,
        asked: Asked,
        config: JudgeConfig,
        log: Path | None = None,
        original: Network | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(network, None, config, log, original, say)  # type: ignore[arg-type]
        self._task = asked

    def __call__(self, counts: Counts, best: float = 0.0) -> Score:
        """The score within the episodes' budget of inputs."""
        self._count(counts)
        if counts not in self._known:
            self._known[counts] = self._write(counts, self._score(counts, self.config.images), final=False)
        return self._known[counts]

    def final(self, counts: Counts) -> Score:
        """The whole score."""
        if counts not in self._final:
            self._final[counts] = self._write(counts, self._score(counts, None), final=True)
        return self._final[counts]

    def network(self, counts: Counts) -> nn.Module:
        """The network cut to a policy, refitted and recalibrated; the uncut one's copy, as it is, if nothing goes."""
        if counts == self.base.graph.architecture.group_channels:
            return super().network(counts)
        small = self._prune(counts)
        return (self._recalibrated(small) if self._recalibrates else small.eval()).cpu()

    def tested(self, network: nn.Module) -> Tested:
        """The whole score of a network as it is."""
        return Tested(self._task.score(network, None))

    def file_tested(self, path: Path) -> Tested | None:
        """None: a task scores networks of PyTorch."""
        return None

    def introduce(self, images: int, min_accuracy_pct: float | None, console: Console) -> None:
        """Say what the original scores; `UserError` where the task can't be asked."""
        spec = self.original.spec
        size = "x".join(map(str, spec.input))
        console.say(f"{spec.name}: input {size}, weights {self.original.weights}; {self._task.name}")
        if self.base.model is self.original.model:
            score = self._task.score(self.original.model, images)
            console.say(f"before anything is done the network scores {score:.4g}")

    def shown(self, accuracy: float) -> str:
        """A score."""
        return f"{accuracy:.4g}"

    @property
    def source_line(self) -> str:
        """What policies are judged by, in a line."""
        training = "train() afterwards" if self._task.trains else "no training"
        return f"{self._task.name}: {len(self.calibration):,} inputs to calibrate by, score(), {training}"

    @property
    def facts(self) -> Facts:
        """What a report says of how it was judged."""
        pixels = self.original.pixels
        return Facts(self._task.name, pixels="" if pixels is None else pixels.text, measure=MEASURE)

    def shortened(self) -> list[str]:
        """Nothing: how many inputs there are is the task's own affair."""
        return []

    def example_inputs(self, n: int) -> Tensor:
        """A few inputs [n, C, H, W] that a file can be checked on."""
        return self.calibration[:n].cpu()

    def fine_tune(
        self, model: nn.Module, config: FinetuneOptions, checkpoint: Path, on_epoch: Callable[[int, str], None]
    ) -> str | None:
        """Let the task train a network in place; the weights before stay where its score fell."""
        if not self._task.trains:
            return None
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        before = self._task.score(model, None)
        with self.training(model):
            # A copy: what a user's loop does to its teacher is not done to the network that it was made of.
            self._task.train(model, copy.deepcopy(self.original.model), config.seed)
        after = self._task.score(model, None)
        on_epoch(config.epochs, f"score {before:.4g} before, {after:.4g} after")
        if after >= before:
            return None
        model.load_state_dict(start)
        return f"train() took the score from {before:.4g} to {after:.4g}: the network before it is kept"

    @cached_property
    def calibration(self) -> Tensor:
        """The inputs [N, C, H, W] that repair a cut network."""
        return self._task.calibration(self.config.calibration_images, self.base.spec.input).to(self.device)

    def _original_final(self) -> Score:
        if self.original is self.base:
            return self.final(self.base.graph.architecture.group_channels)
        return _score(self._task.score(self.original.model, None))

    def _shown(self, score: Score) -> Tested:
        return Tested(score.accuracy)

    def _score(self, counts: Counts, budget: int | None) -> Score:
        return _score(self._task.score(self.network(counts), budget))

    @cached_property
    def _recalibrates(self) -> bool:
        """Whether batch norms are estimated anew in a cut network: if that does one of half the channels good.

        It does harm where they never followed the inputs of `calibration`, as in a network whose statistics are frozen.
        """
        if not any(isinstance(module, BATCH_NORMS) for module in self.base.model.modules()):
            return False
        least = [group.least for group in self.base.graph.groups]
        full = self.base.graph.architecture.group_channels
        half = tuple(max(count // 2, *each) for count, *each in zip(full, least or [1] * len(full), strict=True))
        as_it_is = self._task.score(self._prune(half).eval().cpu(), self.config.images)
        anew = self._task.score(self._recalibrated(self._prune(half)).cpu(), self.config.images)
        if anew < as_it_is:
            self.say(
                "batch norms stay as they are: estimated anew from calibration(), they take a network of half the "
                f"channels from a score of {as_it_is:.4g} to {anew:.4g}"
            )
        return anew >= as_it_is

    def _recalibrated(self, small: nn.Module) -> nn.Module:
        recalibrate_batch_norm(small, self.calibration[: self.config.recalibration_images])
        return small.eval()

    @cached_property
    def _prune(self) -> Callable[[Counts], nn.Module]:
        return self.pruner()


class TaskJudge(TaskScores):
    """Of policies that count channels."""


class TaskWeightJudge(TaskScores, WeightJudge):
    """Of policies that count weights."""


def _score(value: float) -> Score:
    # The reward `loss` then is the score itself: what a loss falls by, a score rises by.
    return Score(value, -value, 1)
