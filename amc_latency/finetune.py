"""Fine-tuning: a few epochs that give a cut network back what the cut took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amc_latency.console import Console
from amc_latency.data import data_for
from amc_latency.intervals import interval_pct
from amc_latency.models.checkpoint import NORMALISATION_KEY, save_checkpoint
from amc_latency.models.load import NetworkOptions, check_logits, check_trained, load_network
from amc_latency.models.weights import weights_digest
from amc_latency.outcome import accuracy_line, outcome
from amc_latency.training import EpochReport, TrainConfig, fit


def finetune_config(epochs: int, image_size: tuple[int, int], seed: int) -> TrainConfig:
    """How a cut network is trained: at full resolution throughout, and at a rate that its weights survive.

    The rate was chosen on held-back images among 0.002 to 0.1, four epochs on the 8,000 bundled train images.
    """
    return TrainConfig(
        epochs=epochs,
        learning_rate=0.005,
        warmup_epochs=0.5,
        image_size=image_size,
        low_resolution_epochs=0,
        seed=seed,
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


def finetune_checkpoint(
    options: NetworkOptions,
    out: Path,
    epochs: int,
    source: str,
    seed: int,
    on_epoch: Callable[[EpochReport], None] | None = None,
    console: Console | None = None,
) -> FinetuneResult:
    """Fine-tune the trained network of `options` and write `out`.

    Goes on from `<out>.resume` after a stop. Raises what `load_network`, `data_for` and `fit` raise.
    """
    network = load_network(options)
    check_logits(network)
    check_trained(network, options, "fine-tuning")
    size = network.spec.input[1:]
    config = finetune_config(epochs, size, seed)
    data = data_for(network, source, console=console)
    origin = weights_digest(network.model)
    before = outcome(network.model, data.held_back, size)
    if console is not None:
        console.say(accuracy_line(before))
    fit(
        network.model,
        data.train,
        config,
        checkpoint=out.with_name(out.name + ".resume"),
        on_epoch=on_epoch,
        origin=f"{origin} {data.digest()}",
    )
    extra = {"source": data.source, "seed": str(seed), NORMALISATION_KEY: data.normalisation.text}
    save_checkpoint(out, network.model, network.spec, extra)
    out.with_name(out.name + ".resume").unlink(missing_ok=True)
    held_back, test = (outcome(network.model, split, size) for split in (data.held_back, data.test))
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
