"""Settings of a search that change nothing beside the others: whoever gives one of them is told."""

from __future__ import annotations

from amc_latency.search.config import SearchConfig
from amc_latency.search.records import AGENTS, BASELINES, PRUNINGS
from amc_latency.settings import names_of
from amc_latency.training.recipe import Recipe


def unused(config: SearchConfig) -> dict[str, str]:
    """Why, by the name of the setting."""
    found: dict[str, str] = {}
    agent, own = f"`agent={config.searcher!r}`", config.agent_record
    if not own.warms_up:
        found["warmup"] = f"{agent} has no random episodes"
    if own.solves:
        found["warm_start"] = f"{agent} is what the others are started from"
    solves = own.solves or config.starts_warm or any(BASELINES[name].solves for name in config.baseline_names)
    if not solves:
        found["damage"] = "no dynamic programming takes part in a cold start without the baseline dp"
    if not own.sees_state:
        found["state"] = f"{agent} sees no state"
    for name, record in AGENTS.items():
        found |= dict.fromkeys(set(record.options) - set(own.options), f"it is for `agent={name!r}`")
    if not config.has_latency_target:
        unlimited = "no milliseconds are limited"
        found |= dict.fromkeys(("margin_pct", "corrections", "correction_episodes"), unlimited)
    elif not config.corrections:
        found["correction_episodes"] = "there are no `corrections`"
    if config.confidence is not None:
        found["margin_pct"] = "`confidence` takes its place"
    if not config.finetune_epochs:
        found |= dict.fromkeys(names_of(Recipe), "`finetune_epochs` 0 trains nothing")
    if config.estimate:
        found["timing_rounds"] = "with `estimate` nothing is timed"
    if config.recalibration_images > config.calibration_images:
        found["recalibration_images"] = (
            f"they are of the {config.calibration_images} calibration images: `calibration_images` "
            f"{config.recalibration_images} or more"
        )
    return {**PRUNINGS[config.prune].unused, **found}
