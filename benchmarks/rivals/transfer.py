"""ImageNet's weights to the classes of other photos: a new last layer, then all layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.console import Console
from amc_latency.data import data_for
from amc_latency.data.splits import Split
from amc_latency.models.files.checkpoint import NORMALISATION_KEY, save_checkpoint
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.models.registry import build_model
from amc_latency.training.finetune import finetune_config, settle
from amc_latency.training.intervals import interval_pct, with_interval
from amc_latency.training.loop import EpochReport, accuracy, fit, judged

HEAD_STEPS, HEAD_DECAY = 300, 1e-3


def transfer(name: str, source: str, checkpoint: Path, image_size: int, epochs: int) -> None:
    """Write `checkpoint`: the network `name` with its published weights, trained for the classes of `source`.

    Its last layer is fitted to the features of the train images as they are; then all layers are trained for `epochs`,
    and end where the held-back images' loss is lowest on the way (`settle`), as in `amc-latency finetune`.
    """
    network = load_network(NetworkOptions(name, input=f"3x{image_size}x{image_size}"))
    data = data_for(network, source, console=Console())
    spec = replace(network.spec, classes=data.classes)
    torch.manual_seed(0)
    model = build_model(spec)
    state = network.model.state_dict()
    head = last_linear(model)
    model.load_state_dict(
        {key: tensor for key, tensor in state.items() if not key.startswith(f"{head}.")}, strict=False
    )
    size = spec.input[1:]
    layer = fitted_head(*features(model, head, data.train, size), data.classes)
    model.get_submodule(head).load_state_dict(layer.state_dict())
    said = [f"last layer alone {accuracy(model, data.test, size):.2f} %"]
    if epochs:
        start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        resume = checkpoint.with_suffix(".resume")
        fit(model, data.train, finetune_config(epochs, size, 0), resume, _say)
        settled = settle(model, start, lambda trained: judged(trained, data.held_back, size))
        test = accuracy(model, data.test, size)
        shown = with_interval(test, interval_pct(test, len(data.test)))
        said.append(f"all layers {shown} %, {settled.share:g} of the way")
    print(f"{name} on {source}: of {len(data.test):,} test images {', '.join(said)}", flush=True)
    save_checkpoint(checkpoint, model, spec, {"source": source, NORMALISATION_KEY: data.normalisation.text})
    checkpoint.with_suffix(".resume").unlink(missing_ok=True)


def _say(epoch: EpochReport) -> None:
    print(f"epoch {epoch.epoch} of {epoch.epochs}: {epoch.accuracy:.1f} % of train batches", flush=True)


def last_linear(model: nn.Module) -> str:
    """The name of the last `nn.Linear`, which tells the classes."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def features(model: nn.Module, head: str, split: Split, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What the layer `head` is given for each image, [N, features], and the labels [N]."""
    seen: list[Tensor] = []
    labels: list[Tensor] = []
    hook = model.get_submodule(head).register_forward_pre_hook(lambda module, args: seen.append(args[0].flatten(1)))
    try:
        model.eval()
        for inputs, of_inputs in split.parts(size):
            model(inputs)
            labels.append(of_inputs)
    finally:
        hook.remove()
    return torch.cat(seen), torch.cat(labels)


def fitted_head(inputs: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """A linear classifier of `inputs` [N, features], by logistic regression."""
    layer = nn.Linear(inputs.shape[1], classes)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=HEAD_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, HEAD_STEPS)
    for _ in range(HEAD_STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(layer(inputs), labels).backward()
        optimizer.step()
        schedule.step()
    return layer
