"""From the options that a user gave to a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amc_latency.arguments.settings import read_options
from amc_latency.errors import OptionError
from amc_latency.search.config.amounts import speedup_of
from amc_latency.search.config.options import SearchConfig
from amc_latency.search.records import BUDGET_FIELDS


def config_of(options: Mapping[str, Any], **fixed: Any) -> SearchConfig:
    """The config with these `options` beside what is `fixed`; `UserError` for another name or type.

    What one option says of another is taken: a `target_ms` in percent is a `speedup`, densities say how many rounds.
    """
    return SearchConfig(**{**_completed(read_options(SearchConfig, options, "search")), **fixed})


def _completed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, and what follows of them for others that were not given."""
    found = dict(options)
    target = found.get("target_ms")
    if isinstance(target, str):
        if found.get("speedup") is not None:
            raise OptionError(
                ("target_ms", "speedup"),
                "name the target in one way: `target_ms`, milliseconds or PERCENT%, or `speedup`, a factor",
            )
        found |= {"target_ms": None, "speedup": speedup_of(target)}
    densities = found.get("rounds_density")
    if densities:
        found.setdefault("rounds", len(densities))
        budgets = ("target_ms", "speedup", *BUDGET_FIELDS)
        if found.get("prune") == "weights" and all(found.get(name) is None for name in budgets):
            # AMC's density is of the weights: nothing else can be meant.
            found["target_params"] = f"{densities[-1]:g}%"
    return found
