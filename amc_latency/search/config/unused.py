"""Settings of a search that change nothing beside the others, or beside what a program hands over: they are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from amc_latency.arguments.settings import names_of, refuse_unused
from amc_latency.models.load import NetworkOptions
from amc_latency.search.config import SearchConfig, config_of
from amc_latency.search.records import AGENTS, BASELINES, PRUNINGS, STAGES
from amc_latency.task import ImageTask, Task, Trains
from amc_latency.training.recipe import Recipe


def checked_config(options: Mapping[str, Any]) -> SearchConfig:
    """The config of these options; `OptionError` for one that changes nothing, and what `config_of` raises."""
    config = config_of(options)
    refuse_unused(options, unused(config))
    return config


def handed_config(options: Mapping[str, Any], task: Task | ImageTask, **handed: Any) -> SearchConfig:
    """The same where a program hands over the network, the device and the task; `handed` is what follows of them."""
    config = config_of(options, **handed)
    refuse_unused(options, {**unused(config), **unused_beside(config, task)})
    return config


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
    if config.estimate:
        found["timing_rounds"] = "with `estimate` nothing is timed"
    if not config.finetune_epochs:
        found |= dict.fromkeys(names_of(Recipe), "with `finetune_epochs=0` nothing is trained")
    if not STAGES[config.stages].decides_precision:
        found["precision"] = f"`stages={config.stages!r}` decides no precision"
    if config.recalibration_images > config.calibration_images:
        found["recalibration_images"] = (
            f"they are of the {config.calibration_images} calibration images: `calibration_images` "
            f"{config.recalibration_images} or more"
        )
    return {**PRUNINGS[config.prune].unused, **found}


def unused_beside(config: SearchConfig, task: Task | ImageTask) -> dict[str, str]:
    """Why a setting changes nothing where a program hands over network, device and `task`, by its name."""
    found = dict.fromkeys((each.name for each in fields(NetworkOptions)), "the network is given")
    found |= dict.fromkeys(("device", "lut", "estimate"), "the device and its table are given")
    found |= dict.fromkeys(("data", "unlabelled"), "which images there are is said by the task")
    if isinstance(task, ImageTask):
        return found
    found["min_accuracy"] = "a task of your own has scores, and no accuracy"
    if not isinstance(task, Trains):
        trains = ("finetune_epochs", *names_of(Recipe))
        return found | dict.fromkeys(trains, "the task has no train(), and so nothing is trained")
    found |= dict.fromkeys(names_of(Recipe), "the task's own train() says how to train")
    if config.finetune_epochs:
        found["finetune_epochs"] = "the task's own train() says how long to train; 0 leaves it out"
    return found
