"""What a search is given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from amc_latency.accelerator import Computing
from amc_latency.arguments.names import unknown
from amc_latency.arguments.settings import Rule, at_least, between, check_settings, positive, same, setting
from amc_latency.errors import OptionError, UserError
from amc_latency.lut.shapes.precisions import PRECISIONS
from amc_latency.measuring.config import ProfileConfig
from amc_latency.measuring.precisions import check_precisions, parse_precisions
from amc_latency.models.load import NetworkOptions
from amc_latency.prune.keep import KINDS, LEAST_KEEP, KeepBound, bound_of, check_bounds
from amc_latency.search.config.amounts import Amount, amount_rule, percent_of, read_amount, read_milliseconds
from amc_latency.search.config.densities import check_densities, check_end, parse_densities
from amc_latency.search.records import (
    AGENTS,
    BASELINES,
    BUDGET_FIELDS,
    BUDGETS,
    DAMAGES,
    DEFAULT_AGENT,
    PRUNINGS,
    REWARDS,
    STAGES,
    STATES,
    AgentRecord,
)
from amc_latency.training.recipe import TRAINING, Recipe

LARGEST_SEED = 1_000_000_000

TARGET, DATA, SEARCH, REWARD, DEVICE = "Target", "Data", "Search", "Reward", "Device"
"""Groups of a search's settings."""
NOT_NEGATIVE = Rule(lambda n: n >= 0, "cannot be negative")


@dataclass(frozen=True)
class SearchConfig(Recipe):
    """What a search does, how it fine-tunes included; the same config, table and seed give the same policy.

    `amc-latency search --help` says of each field what it means: it is made of them.
    """

    target_ms: float | None = setting(
        None,
        "milliseconds on the device, or percent of the uncut network's",
        TARGET,
        rule=positive(" of milliseconds"),
        read=read_milliseconds,
    )
    speedup: float | None = setting(
        None,
        "the other way to say a target: the uncut network's timing divided by this",
        TARGET,
        rule=at_least(1),
    )
    target_macs: Amount | None = setting(
        None,
        "multiply-accumulates at most, such as 6M or 50%; alone or beside others",
        TARGET,
        rule=amount_rule("macs"),
        read=read_amount,
    )
    target_params: Amount | None = setting(
        None,
        "parameters at most, batch norm folded, such as 300k or 50%; of pruned weights those that are not zero",
        TARGET,
        rule=amount_rule("params"),
        read=read_amount,
    )
    target_bytes: Amount | None = setting(
        None,
        "bytes of the .tflite at most, such as 1.2M or 40%; zipped where weights are pruned",
        TARGET,
        rule=amount_rule("bytes"),
        read=read_amount,
    )
    target_memory: Amount | None = setting(
        None,
        "bytes of activations that are live at once at most, such as 2M or 50%: float32, one image, without what a "
        "runtime adds",
        TARGET,
        rule=amount_rule("bytes"),
        read=read_amount,
    )
    prune: str = setting("channels", "channels, or weights: the smallest of each layer, for a size budget", TARGET)
    stages: str = setting(
        "prune",
        "what a policy decides: prune, the widths; quantize, each layer's precision; joint, both at once",
        TARGET,
    )
    precision: tuple[str, ...] = setting(
        tuple(PRECISIONS),
        f"what a layer may be where `stages` decides it: {','.join(PRECISIONS)}",
        TARGET,
        read=parse_precisions,
    )
    rounds: int = setting(
        1,
        "prune and fine-tune this often, step by step towards the target",
        TARGET,
        rule=Rule(lambda n: n >= 1, "is 1 or more"),
    )
    rounds_density: tuple[float, ...] | None = setting(
        None,
        "percent left after each round, such as 50,35,25,20, in place of equal ratios: as many rounds",
        TARGET,
        read=parse_densities,
    )
    round: int = 1
    """which of the rounds this search is; `search_rounds` counts"""
    reward: str = setting(
        "loss",
        f"what is maximised: {', '.join(REWARDS)}; all but "
        f"{' and '.join(name for name in REWARDS if REWARDS[name].needs_budget)} without a budget too",
        REWARD,
    )
    agent: str | None = setting(
        None,
        f"what searches: {', '.join(AGENTS)}; {DEFAULT_AGENT}, DDPG from dynamic programming's policies and their "
        "neighbours on, under a budget unless set, and else ddpg",
        SEARCH,
    )
    baselines: str = setting(",".join(BASELINES), "what the result is shown beside", SEARCH)
    damage: str = setting("refit", f"what dynamic programming adds up: {', '.join(DAMAGES)}", SEARCH)
    warm_start: bool | None = setting(
        None,
        "start from dynamic programming's policies, or from 100 random ones; unless set, warm under a budget",
        SEARCH,
        option="--warm-start/--cold-start",
    )
    state: str = setting("amc", f"what an agent that learns sees of a group: {', '.join(STATES)}", SEARCH)
    ppo_actors: int = setting(
        4,
        "episodes that the agent ppo collects before it improves its policy",
        SEARCH,
        rule=Rule(lambda actors: actors >= 2, "is 2 or more, since episodes are compared with each other"),
    )
    layer_rewards: bool = setting(False, "reward the agent ppo after each layer: an evaluation a layer", REWARD)
    critic_action_layer: int = setting(
        1,
        "hidden layer of the agent ddpg's critic that the action joins at: 1, as in AMC's code, or 2, as its paper "
        "says",
        SEARCH,
        rule=between(1, 2, "is 1 or 2: the critic has two"),
    )
    model: str = same(NetworkOptions, "model")
    weights: str | None = same(NetworkOptions, "weights")
    width: float | None = same(NetworkOptions, "width")
    classes: int | None = same(NetworkOptions, "classes")
    normalisation: str | None = same(NetworkOptions, "normalisation")
    input: str | None = same(NetworkOptions, "input")
    device: str = same(ProfileConfig, "device")
    lut: str | None = same(ProfileConfig, "lut")
    estimate: bool = setting(False, "from a cost model of a phone that is not there: nobody measured", DEVICE)
    data: str = setting(
        "auto",
        "auto, torchvision, debian or bundled (Fashion-MNIST), cifar10, cifar100, torchvision:NAME, imagenet:DIR, "
        "folder:DIR or FILE.py:FUNCTION",
        DATA,
    )
    unlabelled: str | None = setting(
        None, "folder of images without labels: accuracy is agreement with the original", DATA
    )
    seed: int = setting(
        0,
        "of agent, warm-up and fine-tuning: the same seed gives the same policy",
        SEARCH,
        rule=between(0, LARGEST_SEED, f"is from 0 to {LARGEST_SEED:,}"),
    )
    warmup: int | None = setting(
        None, "random episodes: 100 in a cold start, else none, unless set", SEARCH, rule=NOT_NEGATIVE
    )
    episodes: int | None = setting(
        None, "those after it: 300 in a cold start, else 100, unless set", SEARCH, rule=NOT_NEGATIVE
    )
    corrections: int = setting(3, "searches on if measured over the target", SEARCH, rule=NOT_NEGATIVE)
    correction_episodes: int = setting(60, "episodes of each", SEARCH, rule=NOT_NEGATIVE)
    margin_pct: float = setting(
        1.5,
        "how far under the target to aim: about what a prediction is off by",
        TARGET,
        rule=Rule(lambda percent: 0 <= percent < 50, "is in 0..50"),
    )
    confidence: float | None = setting(
        None,
        "in place of the margin: the probability of being measured under the target, such as 0.95",
        TARGET,
        rule=Rule(lambda share: 0.5 <= share < 1, "is a probability from 0.5 to below 1, such as 0.95"),
    )
    images: int = setting(1000, "held-back images to judge an episode by; finalists are judged by all", DATA)
    calibration_images: int = setting(512, "train images for refit", DATA)
    recalibration_images: int = setting(256, "of these, for the batch norms of each policy", DATA)
    min_keep: KeepBound | None = same(ProfileConfig, "min_keep")
    max_keep: KeepBound | None = same(ProfileConfig, "max_keep")
    step: int = same(ProfileConfig, "step")
    finetune_epochs: int = setting(
        6, "passes over the train images after the cut; 0 leaves fine-tuning out", TRAINING, rule=NOT_NEGATIVE
    )
    accelerator: str | None = same(Computing, "accelerator")
    timing_rounds: int | None = setting(
        None,
        "rounds of a result's timing, up to 3 times as many until clear; as the table's networks unless set",
        DEVICE,
    )
    min_accuracy: float | None = setting(
        None,
        "percent that the uncut network must get right: more than chance unless set",
        DATA,
        rule=between(0, 100, "is a percentage"),
    )

    @property
    def network(self) -> NetworkOptions:
        """The network to be pruned."""
        return NetworkOptions(self.model, self.width, self.input, self.classes, self.weights, self.normalisation)

    def __post_init__(self) -> None:
        if isinstance(self.target_ms, str):
            raise OptionError(
                "target_ms", f"is a number of milliseconds, not '{self.target_ms}': a percentage is a speedup"
            )
        check_settings(self)
        _check_one_of(self, "target_ms", "speedup", "milliseconds or a factor")
        _check_known("reward", self.reward, REWARDS)
        _check_known("agent", self.searcher, AGENTS)
        if REWARDS[self.reward].needs_budget and not self.has_budget:
            traded = [name for name, reward in REWARDS.items() if not reward.needs_budget]
            raise OptionError(
                "reward",
                f"{self.reward} needs a budget: `target_ms` MILLISECONDS, `speedup` FACTOR, "
                f"{listed(BUDGET_FIELDS, 'or')}; the rewards {', '.join(traded)} trade accuracy without one",
            )
        if self.unlabelled is not None and self.data != SearchConfig.data:
            raise OptionError("unlabelled", "takes the place of `data`: give one of them")
        _check_known("damage", self.damage, DAMAGES, "proxy of damage")
        for name in self.baseline_names:
            _check_known("baselines", name, BASELINES, "baseline")
        _check_known("state", self.state, STATES)
        if self.agent_record.needs_budget and not self.has_budget:
            raise OptionError(
                ("agent", "reward"),
                f"`agent={self.searcher!r}` needs a budget: a target, or another agent for `reward={self.reward!r}`",
            )
        if self.corrections and not self.correction_episodes:
            raise OptionError(
                ("correction_episodes", "corrections"),
                "a correction needs episodes: `correction_episodes` 1 or more, or `corrections=0`",
            )
        timing_rounds = 1 if self.timing_rounds is None else self.timing_rounds
        positive = (self.images, self.calibration_images, self.recalibration_images, timing_rounds)
        if self.total_episodes < 1 or min(positive) < 1:
            raise UserError("a search needs at least one episode, one image to judge by and one round of timing")
        if self.confidence is not None:
            self._check_confidence()
        if not 1 <= self.round <= self.rounds:
            raise OptionError("round", f"is from 1 to `rounds`, not {self.round}")
        if (self.rounds > 1 or self.rounds_density is not None) and not self.has_budget:
            raise OptionError(
                "rounds", "goes to a budget step by step: give `target_ms`, `speedup`, `target_macs`, ..."
            )
        check_bounds(self.min_keep, self.max_keep, LEAST_KEEP["channels"] if self.prune == "channels" else None)
        if self.rounds_density is not None:
            ends = [percent_of(each) for each in self.limits.values() if isinstance(each, str)]
            ends += [] if self.speedup is None else [100 / self.speedup]
            check_densities(self.rounds_density, self.rounds, [end for end in ends if end is not None])
        self._check_stages()
        if self.prune not in PRUNINGS:
            raise OptionError(("prune",), f"nothing is pruned by '{self.prune}'; there are {' and '.join(PRUNINGS)}")
        if not PRUNINGS[self.prune].cuts_channels:
            self._check_weights()

    def _check_confidence(self) -> None:
        if self.margin_pct != SearchConfig.margin_pct:
            raise OptionError("confidence", "takes the place of `margin_pct`: give one of them")
        if self.estimate:
            raise OptionError("confidence", "needs a table that was measured: search with `margin_pct` and `estimate`")
        if self.limits:
            raise OptionError("confidence", f"is for milliseconds alone: leave {listed(BUDGET_FIELDS, 'and')} out")
        if not self.has_latency_target:
            raise OptionError("confidence", "is that of meeting a latency: give `target_ms` or `speedup` with it")

    def _check_stages(self) -> None:
        _check_known("stages", self.stages, STAGES)
        check_precisions(self.precision)
        if not STAGES[self.stages].decides_precision:
            return
        if self.prune != SearchConfig.prune:
            raise OptionError(("stages", "prune"), f"`stages={self.stages!r}` is for networks whose channels are cut")
        if self.target_memory is not None:
            raise OptionError("target_memory", f"is of float32 tensors: leave it out with `stages={self.stages!r}`")
        if DAMAGES[self.damage].needs_channels:
            raise OptionError("damage", f"{self.damage} is about channels: with `stages={self.stages!r}` it is refit")
        if self.rounds > 1:
            raise OptionError("rounds", f"are of widths alone: 1 with `stages={self.stages!r}`")

    def _check_weights(self) -> None:
        possible = [record.field for record in BUDGETS.values() if self.prune in record.pruning]
        needs_channels = self.has_latency_target or REWARDS[self.reward].needs_channels
        if needs_channels or not self.limits.keys() <= set(possible):
            raise OptionError(
                ("prune", *possible),
                f"`prune={self.prune!r}` makes a network smaller, not faster: a dense runtime multiplies zeros as "
                f"well. Give {listed(possible, 'or')}, or prune channels for milliseconds or MACs",
            )
        if DAMAGES[self.damage].needs_channels:
            raise OptionError(
                "damage", f"{self.damage} is about channels: with `prune='weights'` it is refit or measured"
            )

    @property
    def least_keep(self) -> float:
        """Smallest share of any group that may be kept."""
        return min(bound_of(self.min_keep, kind) or LEAST_KEEP[self.prune] for kind in KINDS)

    @property
    def searcher(self) -> str:
        """The agent that searches."""
        if self.agent is not None:
            return self.agent
        return DEFAULT_AGENT if self.has_budget and self.warm_start is not False else "ddpg"

    @property
    def agent_record(self) -> AgentRecord:
        """What is known of it."""
        return AGENTS[self.searcher]

    @property
    def baseline_names(self) -> list[str]:
        """`baselines` one by one."""
        return [name.strip() for name in self.baselines.split(",") if name.strip()]

    @property
    def starts_warm(self) -> bool:
        """Whether the agent starts from dynamic programming's policies: without a budget they cut nothing."""
        return self.has_budget if self.warm_start is None else self.warm_start

    @property
    def warmup_episodes(self) -> int:
        """Episodes of random policies."""
        if self.warmup is None:
            return 0 if self.starts_warm else 100
        return self.warmup

    @property
    def total_episodes(self) -> int:
        """Episodes of the first attempt, warm-up and start policies included."""
        learned = (100 if self.starts_warm else 300) if self.episodes is None else self.episodes
        return self.warmup_episodes + learned

    @property
    def has_latency_target(self) -> bool:
        """Whether milliseconds are limited."""
        return self.target_ms is not None or self.speedup is not None

    @property
    def is_relative(self) -> bool:
        """Whether milliseconds are judged as a share of what the original takes in the same rounds."""
        return self.speedup is not None

    @property
    def has_budget(self) -> bool:
        """Whether anything is limited."""
        return self.has_latency_target or bool(self.limits)

    @property
    def limits(self) -> dict[str, Amount]:
        """What is limited beside milliseconds, by field."""
        found = {name: getattr(self, name) for name in BUDGET_FIELDS}
        return {name: limit for name, limit in found.items() if limit is not None}

    def target_of(self, original_ms: float) -> float:
        """The target in milliseconds, for an uncut network of `original_ms`; infinite if there is none."""
        if self.target_ms is not None:
            return self.target_ms
        return math.inf if self.speedup is None else original_ms / self.speedup

    def toward(self, target: float, original: float) -> float:
        """What this round may take, on the way from `original` to `target`: in equal ratios, the last all the way.

        With `rounds_density` it is that share of `original`; `UserError` where the last one is not the target's.
        """
        if not math.isfinite(target):
            return target
        if self.rounds_density is not None:
            check_end(self.rounds_density, target, original)
        if self.round == self.rounds:
            return target
        if self.rounds_density is not None:
            return self.rounds_density[self.round - 1] * original / 100
        return original * (target / original) ** (self.round / self.rounds)


def listed(names: Iterable[str], word: str) -> str:
    """`a`, `b` or `c`."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} {word} {last}" if others else last


def _check_known(field: str, name: str, records: Mapping[str, object], what: str = "") -> None:
    if name not in records:
        raise OptionError((field,), unknown(records, name, what or field))


def _check_one_of(config: SearchConfig, first: str, second: str, what: str) -> None:
    if getattr(config, first) is not None and getattr(config, second) is not None:
        raise OptionError((first, second), f"name the target in one way: `{first}` or `{second}`, {what}")
