"""Damage of widths and of precisions on one scale: how far each alone moves the network's outputs.

Both are measured as the share of the outputs' variance that is error (`quantize/error.py`). A precision is tried in
its layer alone. Of a group's counts one is tried, and the others follow as `refit_error` says: what least squares
misses of the readers' outputs is right in how it grows as channels go, but not in what it costs the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from amc_latency.lut.shapes.architecture import Choices
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.lut.shapes.precisions import FLOAT32
from amc_latency.quantize.error import OutputError
from amc_latency.quantize.ranges import Ranges
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.damage import Damage

TRIED = 0.5
"""Share of a group's channels that are kept where its damage is measured, as near as there is a choice."""


def measured_widths(
    error: OutputError,
    prune: Callable[[Counts], nn.Module],
    choices: Choices,
    refit: Damage,
    full: Counts,
) -> Damage:
    """`refit`, the refit error of each group's choices, each group scaled to the outputs' error at one of them.

    `prune` makes the network of a policy.
    """
    found = []
    for group, (counts, lost) in enumerate(zip(choices, refit, strict=True)):
        tried = int(np.abs(np.array(counts) - TRIED * full[group]).argmin())
        if lost[tried] <= 0:
            found.append(lost.copy())
            continue
        share = error.of(prune((*full[:group], counts[tried], *full[group + 1 :])))
        found.append(lost * (share / lost[tried]))
    return found


def measured_precisions(error: OutputError, mixed: MixedArchitecture, ranges: Ranges) -> Damage:
    """Of each value of each variable that is a precision, in the variables' order; empty arrays for groups.

    The layers that share the variable have that precision, all others float32, or the only one that they may have.
    """
    plain = [FLOAT32 if FLOAT32 in allowed else allowed[-1] for allowed in mixed.allowed]
    places: list[tuple[int, int]] = []
    policies: list[Sequence[str]] = [plain]
    for variable, values in enumerate(mixed.full):
        layers = [layer for layer, of in enumerate(mixed.by_layer) if of == variable]
        for value in range(values if layers else 0):
            chosen = list(plain)
            for layer in layers:
                chosen[layer] = mixed.allowed[layer][value]
            if chosen != plain:
                places.append((variable, value))
                policies.append(chosen)
    base, *shares = error.of_layers(policies, ranges)
    found = [np.zeros(values if variable in mixed.by_layer else 0) for variable, values in enumerate(mixed.full)]
    for (variable, value), share in zip(places, shares, strict=True):
        found[variable][value] = share - base
    return found


def joined(mixed: MixedArchitecture, widths: Damage, precisions: Damage) -> Damage:
    """That of all variables."""
    found = list(precisions)
    for variable, lost in zip(mixed.by_group, widths, strict=True):
        found[variable] = lost
    return found
