"""Peak activation memory: the most bytes of tensors that are live at once while a network runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from amc_latency.errors import UserError
from amc_latency.graph.layers.liveness import live_tensors
from amc_latency.lut.shapes.architecture import INPUT, Architecture, Layer
from amc_latency.models.load import Network
from amc_latency.search.costs.clamp import MAX_TABLE_ENTRIES
from amc_latency.search.costs.costs import MAX, Counts, PolicyCosts, Term

_FLOAT_BYTES = 4
Form = tuple[int, dict[int, int]]
"""Bytes that never change, and bytes a channel of each coupled group."""


def memory_costs(network: Network, choices: Sequence[Sequence[int]]) -> PolicyCosts:
    """Peak activation bytes of every policy: the largest over layers of what is live while a layer runs, float32.

    Live are the layer's inputs and its output, and what was made before and is read later, as the skip of a residual
    block; see `live_tensors`. For one image, without a runtime's alignment, scratch buffers and copies: so a SiLU, a
    layer here and two operators in the file, counts without its sigmoid.
    Raises `UserError` where so many groups are live at once that their combinations don't fit.
    """
    architecture = network.graph.architecture
    forms = _largest(_forms(network))
    return PolicyCosts(
        architecture, choices, lambda found: [_table(form, found) for form in forms], offset=0, combine=MAX
    )


def peak_bytes(network: Network) -> int:
    """That of the network as it is."""
    full = network.graph.architecture.group_channels
    return max(
        (fixed + sum(each * full[group] for group, each in by_group.items()) for fixed, by_group in _forms(network)),
        default=0,
    )


def _forms(network: Network) -> list[Form]:
    """For each layer what is live while it runs."""
    architecture = network.graph.architecture
    tensors = {index: _output(architecture, layer) for index, layer in enumerate(architecture.layers)}
    tensors[INPUT] = (_FLOAT_BYTES * math.prod(network.graph.input_chw), {})
    forms = []
    for live in live_tensors(architecture):
        by_group: dict[int, int] = {}
        for tensor in live:
            for group, each in tensors[tensor][1].items():
                by_group[group] = by_group.get(group, 0) + each
        forms.append((sum(tensors[tensor][0] for tensor in live), by_group))
    return forms


def _output(architecture: Architecture, layer: Layer) -> Form:
    shape = layer.shape
    channel_bytes = _FLOAT_BYTES * shape.h_out * shape.w_out
    fixed = shape.c_out
    by_group: dict[int, int] = {}
    for group, values in architecture.out_parts(layer):
        fixed -= values * architecture.group_channels[group]
        by_group[group] = by_group.get(group, 0) + values * channel_bytes
    return fixed * channel_bytes, by_group


def _largest(forms: Sequence[Form]) -> list[Form]:
    """Without those that are never larger than another."""
    kept: list[Form] = []
    for form in sorted(forms, key=lambda each: (-len(each[1]), -each[0], -sum(each[1].values()))):
        if not any(_never_larger(form, other) for other in kept):
            kept = [other for other in kept if not _never_larger(other, form)] + [form]
    return kept


def _never_larger(form: Form, other: Form) -> bool:
    return form[0] <= other[0] and all(each <= other[1].get(group, 0) for group, each in form[1].items())


def _table(form: Form, choices: tuple[Counts, ...]) -> Term:
    fixed, by_group = form
    scope = tuple(sorted(by_group))
    sizes = [len(choices[group]) for group in scope]
    if math.prod(sizes) > MAX_TABLE_ENTRIES:
        raise UserError(
            f"the channels of groups {', '.join(map(str, scope))} are in memory at once: {math.prod(sizes):,} "
            f"combinations are more than the {MAX_TABLE_ENTRIES:,} that fit; give fewer choices a group (a larger step)"
        )
    table = np.full(sizes, fixed, np.int64)
    for axis, group in enumerate(scope):
        column = by_group[group] * np.array(choices[group], np.int64)
        table += column.reshape([-1 if i == axis else 1 for i in range(len(scope))])
    return scope, table
