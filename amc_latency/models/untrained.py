"""Networks with random weights: where they are refused, what is said of them, and how they are made fit to be shown."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from amc_latency.errors import UserError
from amc_latency.models.load import OWN, Network, NetworkOptions, seeded
from amc_latency.models.spec import ModelSpec, names_own_file

if TYPE_CHECKING:
    from torch import nn

    from amc_latency.models.known_networks import KnownNetwork


def check_trained(network: Network, options: NetworkOptions, what: str) -> None:
    """Raise `UserError` where `what`, such as "a search", would be of random weights."""
    if not network.trained:
        raise UserError(random_weights(options.model, what))
    check_own_weights(options, network.spec)


def check_own_weights(options: NetworkOptions, spec: ModelSpec) -> None:
    """Raise `UserError` where `weights='own'` is said of a function that loads none: each call then makes others."""
    if options.weights == OWN and names_own_file(spec.name) and _differs_each_time(spec):
        raise UserError(
            f"{spec.name} loads no weights itself, they are others at each call: pass `weights=FILE`, or load them in "
            "the function"
        )


def check_weights_said(options: NetworkOptions) -> None:
    """Raise `UserError` for an own network of which nobody says whether its function loads weights."""
    if names_own_file(options.model) and options.weights is None:
        raise UserError(
            f"nobody says which weights of {options.model} are to be written: pass `weights=FILE`, `weights='own'` if "
            "the function loads its own, or `weights='random'` for a file that is only to be timed"
        )


def no_weights_needed(network: Network | KnownNetwork) -> str:
    """What to say of random weights where only shapes count."""
    return f"{network.spec.name} has random weights: no figure here depends on them"


def random_weights(model: str, what: str) -> str:
    """Why `what`, such as "a search", refuses an untrained network, and what to do."""
    own = ", or `weights='own'` if the function loads its own," if names_own_file(model) else ""
    return (
        f"{model} has random weights, and {what} needs trained ones: pass `weights=FILE`{own} or `model=CHECKPOINT`, "
        "made with `amc-latency train`"
    )


def with_norm_statistics(network: Network) -> Network:
    """An untrained network whose batch norms have seen images: without that its signal fades to nothing on the way."""
    return replace(network, model=model_with_norm_statistics(network.model, network.spec.input))


def model_with_norm_statistics(model: nn.Module, input_chw: tuple[int, int, int]) -> nn.Module:
    """`with_norm_statistics` for a network that is not traced."""
    import torch

    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    with torch.no_grad():
        model(torch.randn(4, *input_chw, generator=torch.Generator().manual_seed(0)))
    return model.eval()


def _differs_each_time(spec: ModelSpec) -> bool:
    """Whether the function of an own file makes other weights, all of them, by another seed."""
    first, second = ([tensor for tensor in seeded(spec, seed).parameters() if tensor.ndim > 1] for seed in (0, 1))
    return bool(first) and not any(
        a.shape == b.shape and bool((a == b).any()) for a, b in zip(first, second, strict=False)
    )
