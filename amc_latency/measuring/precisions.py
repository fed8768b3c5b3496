"""Which precisions a table is made for, and the networks that calibrate it for them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from amc_latency.arguments.names import find
from amc_latency.errors import OptionError
from amc_latency.lut.building.plan import Choices, nearest_counts, uniform_counts
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.lut.shapes.precisions import FLOAT32, PRECISIONS

MixedPolicy = tuple[tuple[int, ...], tuple[str, ...]]
"""Channels of each coupled group, and the precision of each layer."""
WIDTHS = (1.0, 0.6, 0.3)
"""Uniform widths that are timed in each precision but float32, as far as layers have it."""
RANDOM = 8
"""Networks of random widths and precisions."""
_STAYS = 0.75
"""Probability that a layer has the precision of the one before: boundaries cost, so a search makes few."""


def parse_precisions(text: str, name: str = "precision") -> tuple[str, ...]:
    """Read "float32,int8"."""
    return tuple(each.strip() for each in text.split(",") if each.strip())


def check_precisions(names: Sequence[str]) -> None:
    """Raise `UserError` for a precision that there is not, and `OptionError` if float32 is missing or one is twice."""
    for name in names:
        find(PRECISIONS, name, "precision")
    if FLOAT32 not in names or len(set(names)) < len(names):
        raise OptionError("precision", "is float32, for layers that can be nothing else, and others, each once")


def mixed_policies(mixed: MixedArchitecture, choices: Choices, lowest: float) -> list[MixedPolicy]:
    """Those that a table is calibrated on; `choices` are the coupled groups', `lowest` the smallest share kept."""
    architecture = mixed.architecture
    names = [name for name in PRECISIONS if name != FLOAT32 and any(name in each for each in mixed.allowed)]
    found: dict[MixedPolicy, None] = {}
    for name in names:
        precisions = tuple(name if name in each else FLOAT32 for each in mixed.allowed)
        for width in WIDTHS:
            found[uniform_counts(architecture, choices, max(width, lowest)), precisions] = None
    rng = random.Random("calibration networks of several precisions")
    for _ in range(RANDOM):
        width = rng.uniform(lowest, 1.0)
        wanted = [channels * min(1.0, width * rng.uniform(0.8, 1.2)) for channels in architecture.group_channels]
        found[nearest_counts(choices, wanted), random_precisions(mixed, rng)] = None
    return list(found)


def random_precisions(mixed: MixedArchitecture, rng: random.Random) -> tuple[str, ...]:
    """A precision for each layer by chance, in runs of several layers; calls of one module have the same."""
    values, name = list(mixed.full), FLOAT32
    for layer, allowed in enumerate(mixed.allowed):
        variable = mixed.by_layer[layer]
        if variable is None:
            continue
        if rng.random() > _STAYS:
            name = rng.choice(allowed)
        values[variable] = allowed.index(name) + 1 if name in allowed else len(allowed)
    return mixed.precisions(values)
