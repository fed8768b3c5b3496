"""Density schedules, as AMC's on ResNet-50: after each round so many percent of the original, 50,35,25,20."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from amc_latency.errors import OptionError, UserError

TOLERANCE = 0.01
"""By which share a budget may differ from the last density: `300k` of 998,312 is 30 %, `speedup=3` is 33.3 %."""


def parse_densities(text: str, name: str = "rounds_density") -> tuple[float, ...]:
    """Read `50,35,25,20`. Raises `OptionError` for anything else."""
    try:
        return tuple(float(part.strip().removesuffix("%")) for part in text.split(","))
    except ValueError:
        raise OptionError(name, f"is a percentage for each round, such as 50,35,25,20, not '{text}'") from None


def check_densities(densities: Sequence[float], rounds: int, ends: Iterable[float]) -> None:
    """Raise `UserError` for percentages that don't fall, another number of `rounds`, and other `ends`, in percent."""
    text = densities_text(densities)
    if not densities or not all(0 < percent < 100 for percent in densities):
        raise OptionError("rounds_density", f"holds percentages above 0 and below 100, not {text or 'none'}")
    if any(after >= before for before, after in pairwise(densities)):
        raise OptionError("rounds_density", f"falls from round to round, and {text} does not")
    if rounds != len(densities):
        raise OptionError("rounds_density", f"{text} is {len(densities)} rounds, not `rounds` {rounds}: leave that out")
    for end in ends:
        if not math.isclose(end, densities[-1], rel_tol=TOLERANCE):
            raise OptionError(
                "rounds_density",
                f"{text} ends at {densities[-1]:g} % of the uncut network, and the target is "
                f"{end:.6g} %: let both end alike",
            )


def check_end(densities: Sequence[float], target: float, uncut: float) -> None:
    """Raise `UserError` for a target that is not about the last density of what the uncut network takes."""
    end = 100 * target / uncut
    if not math.isclose(end, densities[-1], rel_tol=TOLERANCE):
        raise UserError(
            f"the target of {target:,.6g} is {end:.4g} % of the uncut network's {uncut:,.6g}, and `rounds_density` "
            f"ends at {densities[-1]:g} %: let both end alike, or give the target in percent"
        )


def densities_text(densities: Sequence[float]) -> str:
    """As the command line has them."""
    return ",".join(f"{percent:g}" for percent in densities)
