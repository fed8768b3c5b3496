"""Settings of a search that change nothing beside the others: whoever gives one of them is told."""

from __future__ import annotations

from amc_latency.search.config import SearchConfig

_LEARN = ("ddpg", "ppo", "sb3-ddpg", "sb3-td3", "sb3-sac", "sb3-ppo")
_NO_WARM_UP = ("dp", "hill", "random", "sb3-ppo")
"""Agents that take no random episodes first."""


def unused(config: SearchConfig) -> dict[str, str]:
    """Why, by the name of the setting."""
    found = {}
    if config.prune == "weights":
        found["step"] = "it is of channels; `prune='weights'` takes any share, by `min_keep` and `max_keep`"
    if config.searcher in _NO_WARM_UP:
        found["warmup"] = f"`agent={config.searcher!r}` has no random episodes"
    if config.searcher == "dp":
        found["warm_start"] = "`agent='dp'` is what the others are started from"
    if config.searcher != "dp" and not config.starts_warm and "dp" not in config.baseline_names:
        found["damage"] = "no dynamic programming takes part in a cold start without the baseline dp"
    if config.searcher not in _LEARN:
        found["state"] = f"`agent={config.searcher!r}` sees no state"
    if config.searcher != "ppo":
        found |= dict.fromkeys(("ppo_actors", "layer_rewards"), "it is for `agent='ppo'`")
    if config.searcher != "ddpg":
        found["critic_action_layer"] = "it is for `agent='ddpg'`"
    if not config.has_latency_target:
        unlimited = "no milliseconds are limited"
        found |= dict.fromkeys(("margin_pct", "corrections", "correction_episodes"), unlimited)
    elif not config.corrections:
        found["correction_episodes"] = "there are no `corrections`"
    if config.confidence is not None:
        found["margin_pct"] = "`confidence` takes its place"
    if config.estimate:
        found["timing_rounds"] = "with `estimate` nothing is timed"
    if config.recalibration_images > config.calibration_images:
        found["recalibration_images"] = (
            f"they are of the {config.calibration_images} calibration images: `calibration_images` "
            f"{config.recalibration_images} or more"
        )
    elif config.prune == "weights":
        found["calibration_images"] = "pruned weights are not refitted; `recalibration_images` counts"
    return found
