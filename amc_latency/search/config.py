"""What a search is told, and what it reports."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amc_latency.android_bench.safe.records import exactly
from amc_latency.errors import UserError
from amc_latency.models.load import BUNDLED, NetworkOptions
from amc_latency.names import nearest
from amc_latency.prune.keep import KINDS, LEAST_KEEP, KeepBound, bound_of, bound_text, check_bounds
from amc_latency.search.series.densities import check_densities, check_end
from amc_latency.search.targets.amounts import Amount, amount_text, percent_of
from amc_latency.training.intervals import Comparison, interval_pct

LARGEST_SEED = 1_000_000_000
ACCURACY = "accuracy"
"""The measure that is a percentage of images; any other is a figure of its own."""
DAMAGES = ("refit", "taylor", "measured")
"""Dynamic programming's proxies of damage, see damage.py."""
BASELINES = ("uniform", "shallow", "deep", "random", "hill", "netadapt", "dp")
"""Other ways to choose, see methods.py."""
AGENTS = ("ddpg", "ppo", "hill", "random", "dp", "sb3-ddpg", "sb3-td3", "sb3-sac", "sb3-ppo")
BUDGETED = ("error", "loss")
"""Resource-constrained rewards: they know no cost, so without a budget the uncut network would win."""
TRADED = ("latency", "macs", "params", "two-stage")
"""Rewards that trade accuracy for a cost: they need no budget, but may have one."""
STATES = ("amc", "two-stage")
"""What an agent may see of a group, see env.py."""
REWARDS = (*BUDGETED, *TRADED)
PRUNINGS = ("channels", "weights")
"""What a policy counts: a coupled group's channels, which are cut out, or a layer's weights, the others being zero."""

if TYPE_CHECKING:
    from amc_latency.search.judge.judge import Tested


@dataclass(frozen=True)
class SearchConfig:
    """What a search does; the same config, table and seed give the same policy."""

    target_ms: float | None = None
    """milliseconds on the device"""
    speedup: float | None = None
    """the other way to say a target: the uncut network's timing in the table, divided by this"""
    target_macs: Amount | None = None
    """multiply-accumulates at most, or a percentage of the uncut network's, as `50%`; so the next two"""
    target_params: Amount | None = None
    """parameters at most, batch norm folded; where weights are pruned, those that are not zero"""
    target_bytes: Amount | None = None
    """bytes of the .tflite at most; where weights are pruned, zipped: see zipped.py"""
    prune: str = "channels"
    """what a policy counts, one of `PRUNINGS`"""
    rounds: int = 1
    """how often the network is pruned and fine-tuned, each time starting from what the last round made"""
    rounds_density: tuple[float, ...] | None = None
    """after each round, in place of equal ratios: percent of what the uncut network takes of all that is limited"""
    round: int = 1
    """which of them this search is; `search_rounds` counts"""
    reward: str = "loss"
    """what is maximised, one of `REWARDS`, see rewards.py"""
    agent: str | None = None
    """what picks policies, one of `AGENTS`: unless set `dp` under a budget, and else `ddpg`"""
    baselines: str = ",".join(BASELINES)
    """what the result is shown beside, of `BASELINES`"""
    damage: str = "refit"
    """what dynamic programming adds up, one of `DAMAGES`"""
    warm_start: bool | None = None
    """whether the agent starts from dynamic programming's policies, or from random ones; under a budget unless set"""
    state: str = STATES[0]
    """what an agent that learns sees of a group, one of `STATES`"""
    ppo_actors: int = 4
    """episodes that PPO collects before it improves its policy"""
    layer_rewards: bool = False
    """whether PPO is rewarded after each layer, which takes an evaluation a layer, or at the end of an episode"""
    critic_action_layer: int = 1
    """which hidden layer of DDPG's critic the action joins at: 1, as in AMC's code, or 2, as its paper says"""
    model: str = BUNDLED
    """`bundled`, a checkpoint's path, or a network that `weights` are given for; see `NetworkOptions`"""
    weights: str | None = None
    """of a named network: a file, a name of published ones, or `own`"""
    width: float | None = None
    """channel multiplier of a named network"""
    classes: int | None = None
    """of a named network, its own unless set"""
    normalisation: str | None = None
    """what the weights expect of pixels, as MEAN,.../STD,...; what is known of them unless set"""
    input: str | None = None
    """CxHxW of a named network, its own unless set"""
    device: str = "host"
    """which device counts"""
    lut: str | None = None
    """the latency table; where profile keeps it if not given"""
    estimate: bool = False
    """whether the device's cost model stands in for the device, which nobody has at hand"""
    data: str = "auto"
    """data source, see `amc_latency.data.load_data`"""
    unlabelled: str | None = None
    """in its place: a folder of images, whose labels are what the original network says of them"""
    seed: int = 0
    """of agent, warm-up and fine-tuning"""
    warmup: int | None = None
    """episodes of random policies: 100 in a cold start and none in a warm one, unless set"""
    episodes: int | None = None
    """episodes after the warm-up: 300 in a cold start and 100 in a warm one, unless set"""
    corrections: int = 3
    """how often to search on when the device says that the result is over the target"""
    correction_episodes: int = 60
    """episodes of each such continuation; what `dp` may try in it"""
    margin_pct: float = 1.5
    """how far under the target to aim: about what a prediction is off by"""
    confidence: float | None = None
    """in place of that margin: the probability with which what wins is to be measured at or under the target"""
    images: int = 1000
    """held-back images that an episode is judged by; finalists are by all of them"""
    calibration_images: int = 512
    """train images for refit, whose statistics are collected once"""
    recalibration_images: int = 256
    """how many of these recalibrate the batch norms of each policy's network"""
    min_keep: KeepBound | None = None
    """smallest share of a group that may be kept, for all or by kind of layer; `LEAST_KEEP` unless set"""
    max_keep: KeepBound | None = None
    """largest share, likewise; all unless set"""
    step: int = 8
    """channel counts are multiples of this"""
    finetune_epochs: int = 6
    """passes over the train images after the cut; 0 leaves fine-tuning out"""
    learning_rate: float | None = None
    """of fine-tuning; finetune.py's unless set"""
    batch_size: int | None = None
    """of fine-tuning; by the number of train images unless set"""
    timing_rounds: int | None = None
    """rounds in which a result is timed, and up to three times as many until the target is met or not; as many as its
    table's whole networks got, unless set"""
    min_accuracy: float | None = None
    """percent of held-back images that the uncut network must get right; more than chance unless set"""

    @property
    def network(self) -> NetworkOptions:
        """The network to be pruned."""
        return NetworkOptions(self.model, self.width, self.input, self.classes, self.weights, self.normalisation)

    def __post_init__(self) -> None:
        if self.target_ms is not None and self.speedup is not None:
            raise UserError("name the target in one way: --target-ms MILLISECONDS or --speedup FACTOR")
        if self.reward not in REWARDS:
            raise UserError(f"no reward is called '{self.reward}'; there are {', '.join(REWARDS)}")
        if self.searcher not in AGENTS:
            raise UserError(f"no agent is called '{self.agent}'; there are {', '.join(AGENTS)}")
        if self.reward in BUDGETED and not self.has_budget:
            raise UserError(
                f"--reward {self.reward} needs a budget: --target-ms MILLISECONDS, --speedup FACTOR, --target-macs, "
                f"--target-params or --target-bytes; the rewards {', '.join(TRADED)} trade accuracy without one"
            )
        if self.unlabelled is not None and self.data != SearchConfig.data:
            raise UserError("--unlabelled takes the place of --data: give one of them")
        if self.damage not in DAMAGES:
            raise UserError(f"no proxy of damage is called '{self.damage}'; there are {', '.join(DAMAGES)}")
        if unknown := set(self.baseline_names) - set(BASELINES):
            raise UserError(f"no baseline is called '{min(unknown)}'; there are {', '.join(BASELINES)}")
        if self.state not in STATES:
            raise UserError(f"no state is called '{self.state}'; there are {' and '.join(STATES)}")
        if self.ppo_actors < 2:
            raise UserError(
                f"--ppo-actors is 2 or more, since episodes are compared with each other, not {self.ppo_actors}"
            )
        if self.critic_action_layer not in (1, 2):
            raise UserError(f"--critic-action-layer is 1 or 2: the critic has two; not {self.critic_action_layer}")
        if self.searcher == "dp" and not self.has_budget:
            raise UserError(f"--agent dp needs a budget: a target, or another agent for --reward {self.reward}")
        for name in ("target_ms", "target_macs", "target_params", "target_bytes"):
            value = getattr(self, name)
            if isinstance(value, str) and name == "target_ms":
                raise UserError(f"target_ms is a number of milliseconds, not '{value}': a percentage is a speedup")
            if isinstance(value, str):
                percent_of(value)
            elif value is not None and not 0 < value < float("inf"):
                what = "milliseconds" if name == "target_ms" else name.removeprefix("target_")
                raise UserError(f"--{name.replace('_', '-')} is a positive number of {what}, not {value:g}")
        if self.speedup is not None and not 1 <= self.speedup < float("inf"):
            raise UserError(f"--speedup is at least 1, not {self.speedup}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"--seed is from 0 to {LARGEST_SEED:,}, not {self.seed}")
        for name in ("warmup", "episodes", "corrections", "correction_episodes", "finetune_epochs"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"{name.replace('_', '-')} cannot be negative")
        if self.corrections and not self.correction_episodes:
            raise UserError("a correction needs episodes: --correction-episodes 1 or more, or --corrections 0")
        timing_rounds = 1 if self.timing_rounds is None else self.timing_rounds
        positive = (self.images, self.calibration_images, self.recalibration_images, timing_rounds)
        if self.total_episodes < 1 or min(positive) < 1:
            raise UserError("a search needs at least one episode, one image to judge by and one round of timing")
        if not 0 <= self.margin_pct < 50:
            raise UserError(f"margin-pct is in 0..50, not {self.margin_pct}")
        if self.confidence is not None and not 0.5 <= self.confidence < 1:
            raise UserError(f"--confidence is a probability from 0.5 to below 1, such as 0.95, not {self.confidence}")
        if self.confidence is not None and self.margin_pct != SearchConfig.margin_pct:
            raise UserError("--confidence takes the place of --margin-pct: give one of them")
        if self.confidence is not None and self.estimate:
            raise UserError("--confidence needs a table that was measured: search with --margin-pct and --estimate")
        others = (self.target_macs, self.target_params, self.target_bytes)
        if self.confidence is not None and any(limit is not None for limit in others):
            raise UserError("--confidence is for milliseconds alone: leave --target-macs, -params and -bytes out")
        if self.confidence is not None and not self.has_latency_target:
            raise UserError("--confidence is that of meeting a latency: give --target-ms or --speedup with it")
        if not 1 <= self.round <= self.rounds:
            raise UserError(f"--rounds is 1 or more, not {self.rounds}")
        if (self.rounds > 1 or self.rounds_density is not None) and not self.has_budget:
            raise UserError("--rounds goes to a budget step by step: give --target-ms, --speedup, --target-macs, ...")
        check_bounds(self.min_keep, self.max_keep, LEAST_KEEP["channels"] if self.prune == "channels" else None)
        if self.rounds_density is not None:
            budgets = (self.target_macs, self.target_params, self.target_bytes)
            ends = [percent_of(each) for each in budgets if isinstance(each, str)]
            ends += [] if self.speedup is None else [100 / self.speedup]
            check_densities(self.rounds_density, self.rounds, [end for end in ends if end is not None])
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UserError(f"--learning-rate is a positive number such as 0.005, not {self.learning_rate:g}")
        if self.batch_size is not None and self.batch_size < 2:
            raise UserError(f"--batch-size is 2 or more images, not {self.batch_size}")
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 100:
            raise UserError(f"--min-accuracy is a percentage, not {self.min_accuracy:g}")
        if self.prune not in PRUNINGS:
            raise UserError(f"nothing is pruned by '{self.prune}'; there are {' and '.join(PRUNINGS)}")
        if self.step < 1:
            raise UserError(f"--step is at least 1, not {self.step}")
        if self.prune == "weights":
            self._check_weights()

    def _check_weights(self) -> None:
        if self.has_latency_target or self.target_macs is not None or self.reward in ("latency", "macs", "two-stage"):
            raise UserError(
                "--prune weights makes a network smaller, not faster: a dense runtime multiplies zeros as well. Give "
                "--target-params or --target-bytes, or prune channels for milliseconds or MACs"
            )
        if self.damage == "taylor":
            raise UserError("--damage taylor is about channels: with --prune weights it is refit or measured")

    @property
    def least_keep(self) -> float:
        """Smallest share of any group that may be kept."""
        return min(bound_of(self.min_keep, kind) or LEAST_KEEP[self.prune] for kind in KINDS)

    @property
    def searcher(self) -> str:
        """The agent that searches."""
        return self.agent or ("dp" if self.has_budget else "ddpg")

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
        others = (self.target_macs, self.target_params, self.target_bytes)
        return self.has_latency_target or any(limit is not None for limit in others)

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


def config_of(options: Mapping[str, Any], **fixed: Any) -> SearchConfig:
    """The config with these `options` beside what is `fixed`; `UserError` for another name or type."""
    names = [field.name for field in fields(SearchConfig) if field.name not in fixed]
    for name, value in options.items():
        if name not in names:
            raise UserError(f"search has no option {name!r}; did you mean {nearest(name, names)!r}?")
        if isinstance(value, float) and math.isnan(value):
            raise UserError(f"{name} is {value}; give a number")
    try:
        return SearchConfig(**options, **fixed)
    except TypeError as error:
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise UserError(f"an option of search is of the wrong type, of {given[:200]}: {error}") from error


def run_name(config: SearchConfig, pareto: int | None = None) -> str:
    """The run folder's name, unless the user gives one: what tells searches apart that one is likely to compare."""
    targets = [] if config.target_ms is None else [f"{config.target_ms:g}ms"]
    targets += [] if config.speedup is None else [f"{config.speedup:g}x"]
    for name in ("macs", "params", "bytes"):
        limit = getattr(config, f"target_{name}")
        targets += [] if limit is None else [amount_text(limit, name)]
    bounds = {"min": config.min_keep, "max": config.max_keep}
    parts = [_file_name(config), config.device, *(["estimate"] if config.estimate else []), *targets]
    parts += [] if config.prune == SearchConfig.prune else [config.prune]
    parts += _rounds_name(config)
    parts += [re.sub(r"[=,]", "", f"{name}{bound_text(bound)}") for name, bound in bounds.items() if bound is not None]
    parts += [config.reward] if config.reward != SearchConfig.reward else []
    parts += [config.agent] if config.agent is not None else []
    parts += [] if config.starts_warm else ["cold"]
    parts += [] if config.state == STATES[0] else [f"state-{config.state}"]
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


Counts = tuple[int, ...]
"""As in `costs`, which takes longer to import."""


@dataclass(frozen=True)
class Row:
    """One network of the final comparison."""

    name: str
    counts: Counts
    predicted_ms: float
    measured_ms: float
    spread_pct: float | None
    macs: int
    bytes: int
    accuracy: float
    """percent of the test images"""
    held_back: float
    """percent of all held-back images after cut and refit, before fine-tuning"""
    tflite: str
    accuracy_95: tuple[float, ...] = ()
    """both ends of the 95 % interval of `accuracy`, see intervals.py; none where it is what labels came from"""
    held_back_95: tuple[float, ...] = ()
    """that of `held_back`"""
    top5: float | None = None
    """percent of the test images whose label is among the first five classes; None for 10 classes or fewer"""
    held_back_top5: float | None = None
    """as `held_back`"""
    measured_95: tuple[float, ...] = ()
    """both ends of the 95 % interval of `measured_ms`"""
    share_95: tuple[float, ...] = ()
    """of what the original takes in the same rounds: the ratio, and both ends of its 95 % interval"""
    rounds: int = 0
    """in which all rows were timed, in turn"""


def _half_pct(row: Row) -> str:
    """Half the width of a row's interval."""
    low_ms, high_ms = row.measured_95
    return f"±{50 * (high_ms - low_ms) / row.measured_ms:.1f} %"


@dataclass(frozen=True)
class BaselineRow:
    """What another way of choosing gives under the same budgets, before fine-tuning."""

    name: str
    counts: Counts
    predicted_ms: float
    held_back: float
    """percent of all held-back images after cut and refit"""
    evaluations: int
    """policies that it asked the evaluator about, the final choice among the best few not counted"""
    held_back_95: tuple[float, ...] = ()
    """as in `Row`"""
    held_back_top5: float | None = None
    measured_ms: float | None = None
    """beside ours; None where the device answers from predictions"""

    @staticmethod
    def of(name: str, counts: Counts, predicted_ms: float, held_back: Tested, evaluations: int) -> BaselineRow:
        """The row of a policy with these figures on all held-back images."""
        interval = interval_pct(held_back.value, held_back.images) if held_back.images else ()
        return BaselineRow(name, counts, predicted_ms, held_back.value, evaluations, interval, held_back.top5)


@dataclass(frozen=True)
class BudgetRow:
    """A budget beside milliseconds, and what the result takes of it."""

    name: str
    limit: int
    actual: int


@dataclass(frozen=True)
class SearchReport:
    """How a search ended; `rows` are the original network, the uniform width and ours.

    `seconds` are those of the session that ended it; `table` is the one in the run folder.
    """

    original_ms: float
    target_ms: float | None
    """None where milliseconds were not limited"""
    predicted_ms: float
    measured_ms: float
    met: bool
    statistic: str
    accuracy_original: float
    accuracy: float
    accuracy_uniform: float
    macs: int
    episodes: int
    evaluations: int
    """different policies that the episodes' images were shown to, the baselines' not counted"""
    attempts: int
    seconds: float
    data: str
    device: str
    table: str
    tflite: str
    rows: list[Row]
    budgets: list[BudgetRow] = field(default_factory=list)
    baselines: list[BaselineRow] = field(default_factory=list)
    confidence: float | None = None
    """the probability of being under the target that ours was chosen for; None with a fixed margin"""
    bound_ms: float | None = None
    """what ours was predicted to stay under with that probability"""
    estimated: bool = False
    """True if no device was there: `measured_ms`, here and in `rows`, is what its cost model says"""
    note: str | None = None
    """what to know before the result is used"""
    zipped_bytes: list[int] = field(default_factory=list)
    """where weights were pruned, each row's file as `zipped_bytes` has it"""
    unlabelled: bool = False
    """True if the images have no labels: every accuracy is agreement with the original network"""
    phone: str | None = None
    """what an estimated result has still to be timed on: `amc-latency bench FILE --device PHONE`"""
    test_images: int = 0
    """that accuracies are percent of"""
    held_back_images: int = 0
    comparisons: list[Comparison] = field(default_factory=list)
    """ours beside the uniform width and the original on the test images, pair by pair"""
    pixels: str = ""
    """by which figures the file's pixels must be normalised, as `parse_normalisation` reads them"""
    measure: str = ACCURACY
    """what networks were judged by: accuracy in percent of images, or a task's own score"""

    @property
    def is_uncut(self) -> bool:
        """Whether the uncut network met the budgets, so that nothing was searched."""
        return not self.episodes

    @property
    def verdict(self) -> str:
        """Whether milliseconds are met, and how sure that is."""
        ours = self.rows[-1]
        if self.target_ms is None or not ours.measured_95:
            return "target met" if self.met else "TARGET NOT MET"
        low_ms, high_ms = ours.measured_95
        if self.met:
            return "target met" + ("" if high_ms <= self.target_ms else f", within the noise of {_half_pct(ours)}")
        return "TARGET NOT MET" + ("" if low_ms > self.target_ms else f", by less than the noise of {_half_pct(ours)}")

    def to_json(self) -> dict[str, Any]:
        """Its fields; files are named within the run folder, which may be moved."""
        rows = [{**asdict(row), "tflite": Path(row.tflite).name} for row in self.rows]
        return {**asdict(self), "tflite": Path(self.tflite).name, "table": Path(self.table).name, "rows": rows}

    @staticmethod
    def from_json(value: object, folder: Path) -> SearchReport:
        """The inverse of `to_json`, for the run folder that the files lie in. Raises `ValueError` if it is none."""
        report = exactly(value, SearchReport)
        if len(report.rows) != 3:
            raise ValueError("it has not three rows")
        for row in report.rows:
            ends = (row.accuracy_95, row.held_back_95, row.measured_95)
            if any(len(each) not in (0, 2) for each in ends) or len(row.share_95) not in (0, 3):
                raise ValueError(f"an interval of the row {row.name} has not two ends")
            if row.measured_ms <= 0:
                raise ValueError(f"measured_ms of the row {row.name} is {row.measured_ms}")
        return replace(
            report,
            tflite=str(folder / Path(report.tflite).name),
            table=str(folder / Path(report.table).name),
            rows=[replace(row, tflite=str(folder / Path(row.tflite).name)) for row in report.rows],
        )
