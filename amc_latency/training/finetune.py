"""Fine-tuning: a few epochs that give a cut network back what the cut took."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from amc_latency.accelerator import accelerator_of, is_first, prepared, say_where
from amc_latency.android_bench.safe.files import sidecar
from amc_latency.console import Console
from amc_latency.data import data_for
from amc_latency.data.labels import check_several
from amc_latency.errors import OptionError, UserError
from amc_latency.models.files.checkpoint import NORMALISATION_KEY, save_checkpoint
from amc_latency.models.files.weights import weights_digest
from amc_latency.models.load import Network, NetworkOptions, check_logits, load_network
from amc_latency.models.untrained import check_trained
from amc_latency.training.intervals import interval_pct
from amc_latency.training.loop import DivergedError, EpochReport, fit, judged
from amc_latency.training.original import check_original
from amc_latency.training.outcome import outcome
from amc_latency.training.recipe import KINDS, Recipe, TrainConfig, recipe_of

SHARES = (1.0, 0.75, 0.5, 0.25, 0.125)
"""Of the way that training went, which the network may end at."""
KEPT = "The network of the last whole epoch before it is kept"


def own_distillation(accuracy_pct: float) -> float:
    """Share of the loss that follows what the network itself said before, where no other teacher is known.

    As far as that was right: a network on new data, which it hardly knows, learns by the labels.
    """
    return KINDS["finetune"].distillation * accuracy_pct / 100


def finetune_config(epochs: int, image_size: tuple[int, int], seed: int, **recipe: Any) -> TrainConfig:
    """How a cut network is trained: at full resolution throughout, and at a rate that its weights survive.

    `recipe` are fields of `Recipe`. Raises UserError for what can't be, such as a rate that trains nothing.
    """
    Recipe(**recipe)
    return TrainConfig(
        epochs=epochs, kind="finetune", image_size=image_size, low_resolution_epochs=0, seed=seed, **recipe
    )


@dataclass(frozen=True)
class Settled:
    """Where fine-tuning ended: accuracies in percent of the held-back images."""

    before: float
    after: float
    share: float
    """of the way from the weights before to the trained ones; 0 where each of `SHARES` was worse than these"""
    trained: float
    """the accuracy at its whole length"""


def settle(model: nn.Module, start: Mapping[str, Tensor], score: Callable[[nn.Module], tuple[float, float]]) -> Settled:
    """Put a trained `model`, in place, on the line from the weights `start` to its own, where its loss is lowest.

    `score` gives accuracy in percent and loss on held-back images; only what is as accurate as the start counts.
    Averaging the weights from before and after keeps most of what training gains and sheds what it unlearns (Wortsman
    et al., CVPR 2022, arXiv 2109.01903). The line leads to the last epoch's weights, not to those of the best epoch.
    """
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = {}
    for share in (0.0, *SHARES):
        _move(model, start, trained, share)
        scores[share] = score(model)
    before = scores[0.0][0]
    # Of like losses the furthest; a loss that is no number is no gain.
    as_good = [share for share in (*SHARES, 0.0) if scores[share][0] >= before and math.isfinite(scores[share][1])]
    best = min(as_good, key=lambda share: scores[share][1], default=0.0)
    _move(model, start, trained, best)
    return Settled(before, scores[best][0], best, scores[SHARES[0]][0])


def _move(model: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> None:
    model.load_state_dict({name: _between(start[name], tensor, share) for name, tensor in end.items()})


def _between(start: Tensor, end: Tensor, share: float) -> Tensor:
    # Exact at both ends; what only counts is no number to be averaged.
    if share in (0.0, 1.0) or not end.is_floating_point():
        return end if share else start
    return start.lerp(end, share)


def worse_text(name: str, settled: Settled) -> str:
    """What is said where nothing on the line was as good as the network before."""
    return (
        f"fine-tuning {name}took the held-back images from {settled.before:.1f} to {settled.trained:.1f} %, "
        "and no shorter way lowered their loss and told as many right: the network before it is kept"
    )


@dataclass(frozen=True)
class FinetuneResult:
    """Accuracies in percent before and after."""

    held_back_before: float
    held_back: float
    test: float
    data: str
    checkpoint: str
    held_back_95: tuple[float, ...] = ()
    """both ends of its 95 % interval"""
    test_95: tuple[float, ...] = ()
    held_back_top5: float | None = None
    """label among the first five; None for 10 classes or fewer"""
    test_top5: float | None = None


@dataclass(frozen=True)
class Teacher:
    """Which network's outputs are followed."""

    options: NetworkOptions
    sha256: str | None = None
    """of its weights, where a run folder says which network it was; None where the user names it"""


def finetune_checkpoint(
    options: NetworkOptions,
    out: Path,
    epochs: int,
    source: str,
    seed: int,
    on_epoch: Callable[[EpochReport], None] | None = None,
    console: Console | None = None,
    recipe: Recipe = Recipe(),
    teacher: Teacher | None = None,
    accelerator: str | None = None,
    min_accuracy: float | None = None,
) -> FinetuneResult:
    """Fine-tune the trained network of `options` and write `out`.

    `teacher` is the network whose outputs are followed beside the labels: the network itself, as it was before, unless
    given. Goes on from `<out>.resume` after a stop. Raises what `load_network`, `data_for` and `fit` raise, and
    `UserError` for a network at chance, or under `min_accuracy` percent.
    """
    console = console or Console(quiet=True)
    config = finetune_config(epochs, (8, 8), seed, **recipe_of(recipe))  # refused before anything is loaded
    device = prepared(accelerator_of(accelerator))
    say_where(device, console)
    network = load_network(options)
    check_logits(network)
    check_trained(network, options, "fine-tuning")
    wanted = None if teacher is None else _taught_by(teacher, network, console)
    size = network.spec.input[1:]
    data = data_for(network, source, console=console)
    check_several(data, network.spec.name, console)
    model, origin = network.model.to(device), weights_digest(network.model)
    before = check_original(network, data, len(data.held_back), min_accuracy, console)
    assert before is not None, "these images have labels"
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if wanted is None:
        wanted = copy.deepcopy(model)
        # It has little to win back: more steps would only take it further from what it knows.
        own = own_distillation(before.accuracy_pct) if recipe.distillation is None else recipe.distillation
        config = replace(config, distillation=own, epoch_steps=recipe.epoch_steps or 1)
    origin = f"{origin} {weights_digest(wanted)}"
    config = replace(config, image_size=size)
    console.say(config.plan(len(data.train), has_teacher=True).text)
    try:
        fit(
            model,
            data.train,
            config,
            checkpoint=sidecar(out, ".resume"),
            on_epoch=on_epoch,
            origin=f"{origin} {data.digest()}",
            teacher=wanted.to(device),
            say=console.warn,
        )
    except DivergedError as error:
        console.warn(f"{error}. {KEPT}")
    settled = settle(model, start, lambda model: judged(model, data.held_back, size))
    if not settled.share:
        console.warn(worse_text("", settled))
    extra = {"source": data.source, "seed": str(seed), NORMALISATION_KEY: data.normalisation.text}
    if is_first():
        save_checkpoint(out, model, network.spec, extra)
        sidecar(out, ".resume").unlink(missing_ok=True)
    held_back, test = (outcome(model, split, size) for split in (data.held_back, data.test))
    return FinetuneResult(
        before.accuracy_pct,
        held_back.accuracy_pct,
        test.accuracy_pct,
        data.source,
        str(out),
        interval_pct(held_back.accuracy_pct, len(held_back)),
        interval_pct(test.accuracy_pct, len(test)),
        held_back.top5_pct,
        test.top5_pct,
    )


def _taught_by(wanted: Teacher, network: Network, console: Console) -> nn.Module | None:
    """The teacher; None where it is only guessed, by a run folder, and not what was searched any more.

    Raises `OptionError` for one that takes or tells something else than `network`.
    """
    try:
        found = load_network(wanted.options)
        check_trained(found, wanted.options, "a teacher")
        if wanted.sha256 not in (None, weights_digest(found.model)):
            raise UserError("its weights have changed since")
        its, own = [(each.spec.input, each.spec.classes) for each in (found, network)]
        if its != own:
            shown = [f"input {'x'.join(map(str, size))} and {classes} classes" for size, classes in (its, own)]
            raise OptionError("teacher", f"{wanted.options.model} has {shown[0]}, the network to be trained {shown[1]}")
    except UserError as error:
        if wanted.sha256 is None:
            raise
        console.warn(f"{wanted.options.model}, which was searched, is no teacher here ({error}): the network itself is")
        return None
    console.say(f"the teacher is {wanted.options.model}, weights {found.weights}")
    return found.model
