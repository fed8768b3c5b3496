"""The bounds of keep ratios in a search: its grid, and the words for what they rule out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amc_latency.errors import UserError
from amc_latency.lut.shapes.architecture import Choices
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import Network
from amc_latency.prune.keep import bound_text
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.clamp import OutOfReachError
from amc_latency.search.targets.pruning import pruning_of


def grid_of(config: SearchConfig) -> Grid:
    """Which counts a search may choose from."""
    return pruning_of(config).grid(config)


def check_choices(config: SearchConfig, choices: Choices) -> None:
    """Raise `UserError` where only one policy is left."""
    if all(len(each) == 1 for each in choices):
        raise UserError(f"there is one policy alone to choose, with {_options(config)}: widen these")


def bounds_text(config: SearchConfig, network: Network) -> list[str]:
    """A line for groups that multiples of the step leave whole, and one for each bound that they end before."""
    if not network.graph.groups:
        return []
    groups, choices = network.graph.groups, grid_of(config).choices(network)
    finest = Grid(config.min_keep, 1, config.max_keep).choices(network)
    whole = [group.name for group, own in zip(groups, choices, strict=True) if own == (group.channels,)]
    lines = []
    if whole and config.step > 1 and config.least_keep < 1:
        named = ", ".join(whole[:3]) + (", ..." if len(whole) > 3 else "")
        lines.append(
            f"{len(whole)} of {len(groups)} groups are left whole ({named}): no multiple of `step` {config.step} is "
            "between the least that they may keep and all"
        )
    for name, bound, end, most in (("min", config.min_keep, 0, "least"), ("max", config.max_keep, -1, "most")):
        off = [
            (
                abs(own[end] - fine[end]) / group.channels,
                f"{group.name} keeps at {most} {own[end]:,} of {group.channels:,}",
            )
            for group, own, fine in zip(groups, choices, finest, strict=True)
            if own[end] != fine[end]
        ]
        if off and bound is not None:
            lines.append(
                f"`{name}_keep` {bound_text(bound)} is met at the next multiple of `step` {config.step}: "
                f"{max(off)[1]}; a smaller step comes nearer"
            )
    return lines


@contextmanager
def bounds_named(config: SearchConfig, network: Network) -> Iterator[None]:
    """Whoever is told that a budget is out of reach, is told which group takes most of the least and what holds it."""
    try:
        yield
    except OutOfReachError as error:
        raise UserError(f"{error}, or let it keep less: {_limiting(config, network, error)}") from None


def _limiting(config: SearchConfig, network: Network, error: OutOfReachError) -> str:
    """The group whose layers take most of what the cheapest policy takes."""
    costs, indices = error.costs, error.cheapest
    if not costs.groups:
        return "nothing of it can be cut"
    takes = [
        costs.layers_total(indices, [i for i, (scope, _) in enumerate(costs.layers) if group in scope])
        for group in range(costs.groups)
    ]
    pruning = pruning_of(config)
    names = pruning.names(config, network)
    bounded = [group for group, name in enumerate(names) if name is not None]
    if not bounded:
        return "nothing of it can be cut"
    # A group that is as narrow as can be has nothing to do with it.
    most = max(bounded, key=lambda group: (costs.choices[group][indices[group]] > 1, takes[group]))
    count, full = costs.choices[most][indices[most]], costs.full[most]
    return f"by {_options(config)} {names[most]}, the most costly, keeps at least {count:,} of {full:,} {pruning.unit}"


def _options(config: SearchConfig) -> str:
    """What sets the choices, as the command line has it."""
    values = {
        "min_keep": bound_text(config.least_keep if config.min_keep is None else config.min_keep),
        "max_keep": None if config.max_keep is None else bound_text(config.max_keep),
        "step": config.step,
    }
    named = pruning_of(config).options
    return " and ".join(f"`{name}` {values[name]}" for name in named if values[name] is not None)
