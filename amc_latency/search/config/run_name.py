"""The name of a search's run folder."""

from __future__ import annotations

import re
from pathlib import Path

from amc_latency.prune.keep import bound_text
from amc_latency.search.config.amounts import amount_text
from amc_latency.search.config.options import SearchConfig


def run_name(config: SearchConfig, pareto: int | None = None) -> str:
    """The run folder's name, unless the user gives one: what tells searches apart that one is likely to compare."""
    targets = [] if config.target_ms is None else [f"{config.target_ms:g}ms"]
    targets += [] if config.speedup is None else [f"{config.speedup:g}x"]
    targets += [amount_text(limit, name.removeprefix("target_")) for name, limit in config.limits.items()]
    bounds = {"min": config.min_keep, "max": config.max_keep}
    parts = [_file_name(config), config.device, *(["estimate"] if config.estimate else []), *targets]
    parts += [] if config.prune == SearchConfig.prune else [config.prune]
    parts += [] if config.stages == SearchConfig.stages else [config.stages]
    parts += _rounds_name(config)
    parts += [re.sub(r"[=,]", "", f"{name}{bound_text(bound)}") for name, bound in bounds.items() if bound is not None]
    parts += [config.reward] if config.reward != SearchConfig.reward else []
    parts += [config.agent] if config.agent is not None else []
    parts += [] if config.starts_warm else ["cold"]
    parts += [] if config.state == SearchConfig.state else [f"state-{config.state}"]
    parts += ["layer-rewards"] if config.layer_rewards else []
    parts += [] if config.confidence is None else [f"p{config.confidence:g}"]
    parts += [] if pareto is None else [f"pareto{pareto}"]
    return "-".join([*parts, f"seed{config.seed}"])


def _rounds_name(config: SearchConfig) -> list[str]:
    if config.rounds_density is not None:
        return ["density" + "-".join(f"{percent:g}" for percent in config.rounds_density)]
    return [] if config.rounds == 1 else [f"rounds{config.rounds}"]


def _file_name(config: SearchConfig) -> str:
    """The network and its weights, as a part of a folder's name."""
    source, _, name = config.model.rpartition(":")
    parts = [Path(source).stem, name] if source else [Path(name).stem]
    parts += [] if config.weights is None else [Path(config.weights).stem]
    parts += [] if config.width is None else [f"width{config.width:g}"]
    parts += [] if config.classes is None else [f"{config.classes}classes"]
    return re.sub(r"[^\w.-]+", "-", "-".join(parts))
