"""A network that a function of the user's own file builds: FILE.py:FUNCTION, called without arguments unless it asks.

A function that has parameters of these names is given `width` (float) and `classes` (int), those of the command line
or else its own defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amc_latency.errors import UserError
from amc_latency.models.own_file import load_function
from amc_latency.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

SETTINGS = ("width", "classes")


def settings_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Which of `SETTINGS` a function takes, with their defaults; None for one that has no default."""
    parameters = inspect.signature(function).parameters
    found = {name: parameters[name].default for name in SETTINGS if name in parameters}
    return {name: None if default is inspect.Parameter.empty else default for name, default in found.items()}


def described(spec: ModelSpec, name: str) -> ModelSpec:
    """With what the function's own defaults say. Raises what `load_function` raises."""
    defaults = settings_of(load_function(name))
    given: dict[str, Any] = {key: value for key, value in defaults.items() if isinstance(value, int | float)}
    return replace(spec, **given)


def build(spec: ModelSpec, name: str) -> nn.Module:
    """Call the function of `spec`, and take off what the network is wrapped in.

    Raises UserError if it returns no network, and what `load_function` raises.
    """
    import torch

    from amc_latency.models.zoo.wrappers import unwrapped

    function = load_function(spec.name)
    # Networks compute with numbers while they are built, which a device without values can't.
    with torch.device("cpu"):
        model = function(**{name: getattr(spec, name) for name in settings_of(function)})
    return unwrapped(spec.name, model)


def refuse(spec: ModelSpec, name: str) -> nn.Module:
    """Raise UserError: a module that a program handed over is built by no name."""
    raise UserError(
        f"{name} is a module of a program: there, give this file to "
        "amc_latency.network(module, example_input, checkpoint=...)"
    )


def classes_made(model: nn.Module, spec: ModelSpec) -> int | None:
    """How many logits the network gives for one image; None if it returns other tensors.

    Raises UserError if it rejects the image, or returns something that is no tensor.
    """
    from amc_latency.graph.outputs import tensors_of
    from amc_latency.graph.rewriting.normal_form import check_accepts

    output = check_accepts(model, spec.input)
    found = tensors_of(output)
    if not found or any(tensor.ndim < 2 or len(tensor) != 1 for tensor in found):
        what = ", ".join(str(tuple(tensor.shape)) for tensor in found) if found else type(output).__name__
        raise UserError(f"{spec.name}: the network returns {what} for one image; it must return tensors [N, ...]")
    return found[0].shape[1] if len(found) == 1 and found[0].ndim == 2 else None
