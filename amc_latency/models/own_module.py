"""A network that a program hands over: an `nn.Module` and an example of its input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from amc_latency.models.files.checkpoint import NORMALISATION_KEY, load_checkpoint
from amc_latency.models.load import Network, checked_form
from amc_latency.models.registry import with_counts
from amc_latency.models.spec import MODULE, ModelSpec
from amc_latency.models.zoo.wrappers import plain_copy
from amc_latency.pixels import Normalisation, parse_normalisation

_WHAT = "model"
"""What messages call it: the argument's name."""


def network_of(
    module: nn.Module,
    example_input: Tensor,
    normalisation: str | None = None,
    checkpoint: Path | None = None,
) -> Network:
    """The network of `module` for inputs like `example_input` [N, C, H, W]; what is done to it is done to a copy.

    `normalisation` is what its weights expect of pixels, for tasks of images. With `checkpoint` it is the network, cut
    and trained, that a search saved there. Raises UserError for a module or an input that can't be taken.
    """
    plain, size = module_of(module, example_input)
    spec = ModelSpec(f"{MODULE}{type(plain).__name__}", input=size)
    model = checked_form(plain, spec)
    graph = trace(model, size)
    if len(graph.output_sizes) == 1 and len(graph.output_sizes[0]) == 1:
        spec = replace(spec, classes=graph.output_sizes[0][0])
    pixels = None if normalisation is None else _pixels(normalisation, size[0])

    def build(of: ModelSpec) -> nn.Module:
        return with_counts(model, of, graph.architecture.group_channels if of.channels is None else of.channels)

    network = Network(model, spec, graph, True, pixels, "as normalisation says", "the module's own", build)
    return network if checkpoint is None else from_checkpoint(network, checkpoint)


def module_of(module: nn.Module, example_input: Tensor) -> tuple[nn.Module, tuple[int, int, int]]:
    """A plain copy that was seen to take `example_input`, and its size [C, H, W]. Raises UserError if it doesn't."""
    size, plain = input_of(example_input), plain_copy(_WHAT, module)
    _check_runs(plain, example_input)
    return plain, size


def from_checkpoint(network: Network, path: Path) -> Network:
    """The network that was cut from `network` and saved at `path`. Raises UserError where it was another."""
    model, spec, extra = load_checkpoint(path, network.spec.name, network.build)
    if spec.name != network.spec.name or spec.input != network.spec.input:
        raise UserError(
            f"{path} holds {spec.name.removeprefix(MODULE)} for input {spec.input}, not "
            f"{network.spec.name.removeprefix(MODULE)} for {network.spec.input}"
        )
    pixels = network.pixels
    if pixels is None and NORMALISATION_KEY in extra:
        pixels = parse_normalisation(extra[NORMALISATION_KEY])
    return replace(network, model=model, spec=spec, graph=trace(model, spec.input), pixels=pixels)


def input_of(example_input: Tensor) -> tuple[int, int, int]:
    """Channels, height and width of an example [N, C, H, W] or [C, H, W]. Raises UserError for another tensor."""
    if not isinstance(example_input, Tensor):
        raise UserError(f"example_input is {type(example_input).__name__}; give a tensor [N, C, H, W]")
    if example_input.ndim not in (3, 4) or not example_input.is_floating_point():
        raise UserError(
            f"example_input is {example_input.dtype} {list(example_input.shape)}; give a float tensor [N, C, H, W]: "
            "one image is all that a network may take"
        )
    channels, height, width = example_input.shape[-3:]
    return channels, height, width


def _pixels(text: str, channels: int) -> Normalisation:
    found = parse_normalisation(text, channels)
    if len(found.mean) != channels:
        raise UserError(f"normalisation {text} is for {len(found.mean)} channels, and example_input has {channels}")
    return found


def _check_runs(model: nn.Module, example_input: Tensor) -> None:
    example = example_input.detach().cpu().float()
    try:
        with torch.no_grad():
            model.float()(example[None] if example.ndim == 3 else example)
    except Exception as error:  # whatever a network's own code raises
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"model can't be run on example_input {list(example.shape)}: {type(error).__name__}: {reason}"
        ) from error
