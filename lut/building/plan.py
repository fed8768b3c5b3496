"""Which candidates to time, so that every network a search can reach is predictable from few shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from amc_latency.lut.building.steps import Steps, representatives
from amc_latency.lut.shapes.architecture import Architecture, Choices, Searched
from amc_latency.lut.shapes.shape import NOOP, LayerShape


def spread(counts: Sequence[int], points: int) -> list[int]:
    """`points` of the counts, evenly spaced, the smallest and the largest among them."""
    if points < 2 or len(counts) <= points:
        return [counts[-1]] if points < 2 else list(counts)
    return [counts[round(i * (len(counts) - 1) / (points - 1))] for i in range(points)]


def sweep_shapes(architecture: Architecture, choices: Choices) -> list[LayerShape]:
    """Stage 1: what must be timed before the device's steps are known, without duplicates.

    The no-op, all layers at full width, every reachable count of layers with one channel figure (they are
    slower off a multiple of 8, so never interpolated), and for the others every output count at the largest
    input count.
    """
    shapes = [NOOP, *architecture.shapes()]
    for layer in architecture.layers:
        if layer.shape.two_figures:
            shapes += [replace(layer.shape, c_out=c_out) for c_out in architecture.out_sizes(layer, choices)]
        else:
            shapes += architecture.reachable(layer, choices)
    return list(dict.fromkeys(shapes))


def input_shapes(
    architecture: Architecture, choices: Choices, steps: Steps | None, input_points: int = 3
) -> list[LayerShape]:
    """Stage 2: the widest count of each output step at other input counts, for layers with two channel figures.

    `input_points` input counts a layer, the largest of which stage 1 has timed: latency is linear between
    them. Without `steps` every output count is its own step.
    """
    shapes: list[LayerShape] = []
    for layer in architecture.layers:
        if not layer.shape.two_figures:
            continue
        ins = spread(architecture.in_sizes(layer, choices), input_points)[:-1]
        outs = architecture.out_sizes(layer, choices)
        kept = representatives(outs, steps.width(layer.shape) if steps else 1)
        shapes += [replace(layer.shape, c_in=c_in, c_out=c_out) for c_in in ins for c_out in kept]
    first_stage = set(sweep_shapes(architecture, choices))
    return [shape for shape in dict.fromkeys(shapes) if shape not in first_stage]


def reachable_shapes(architecture: Searched, choices: Choices) -> list[LayerShape]:
    """Every layer shape that some network on the grid has, each once."""
    shapes: list[LayerShape] = []
    for layer in architecture.layers:
        shapes += architecture.reachable(layer, choices)
    return list(dict.fromkeys(shapes))


def uniform_counts(architecture: Architecture, choices: Choices, width: float) -> tuple[int, ...]:
    """One reachable count a group, each the nearest to `width` times its full count; ties go to the wider."""
    return nearest_counts(choices, [width * channels for channels in architecture.group_channels])


def nearest_counts(choices: Choices, wanted: Iterable[float]) -> tuple[int, ...]:
    """The reachable count nearest to what each group wants; ties go to the wider."""
    return tuple(
        min(group, key=lambda count: (abs(count - want), -count)) for group, want in zip(choices, wanted, strict=True)
    )
