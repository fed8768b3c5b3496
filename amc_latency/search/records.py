"""What a search is made of, by name: agents, baselines, rewards, budgets, damage, pruning and states, a record each.

Costs no torch import: functions are named as `module:function`, and imported when called (`pkgutil.resolve_name`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_AGENTS, _SOLVERS = "amc_latency.search.agents", "amc_latency.search.solvers"
_REWARDS = "amc_latency.search.judge.rewards"
_BUDGETS = "amc_latency.search.targets.budgets"


@dataclass(frozen=True)
class AgentRecord:
    """What picks policies."""

    run: str
    """of a `Session`: its episodes' records, those of its log included"""
    sees_state: bool = False
    """whether it learns from the `state` of a group"""
    warms_up: bool = False
    """whether it takes random episodes first"""
    needs_budget: bool = False
    """whether it means nothing where nothing is limited"""
    solves: bool = False
    """whether it goes by dynamic programming's damage itself, in a cold start too; else it may be started from that"""
    counts_policies: bool = False
    """whether `episodes` are about how many policies it may try, anew in each attempt"""
    learns: bool = True
    """whether it acts in episodes of its own, beside the policies that it is given"""
    options: tuple[str, ...] = ()
    """fields of `SearchConfig` that are for it alone"""
    extra: str | None = None
    """the extra that must be installed"""
    package: str = ""
    """by which that is seen"""


@dataclass(frozen=True)
class BaselineRecord:
    """What a result is shown beside."""

    choose: str
    """of a `Problem`, the baseline's name, and how many policies it may try: a `Choice`"""
    solves: bool = False
    """whether it goes by dynamic programming's damage"""


@dataclass(frozen=True)
class RewardRecord:
    """What is maximised."""

    make: str
    """of the `LatencyCosts` of a search: the `Reward`"""
    needs_budget: bool = False
    """whether it knows no cost, so that without a budget the uncut network wins; else it trades accuracy for a cost"""
    needs_channels: bool = False
    """whether its cost is one that zeros among the weights don't lower"""


@dataclass(frozen=True)
class DamageRecord:
    """What dynamic programming adds up."""

    method: str
    """of a `Judge`: from costs to the proxies, the better one first"""
    needs_labels: bool = False
    needs_channels: bool = False
    """whether it is of channels alone, and not of single weights"""


@dataclass(frozen=True)
class BudgetRecord:
    """What may be limited beside milliseconds, in whole units. Its name stands behind a number in messages."""

    field: str
    """of `SearchConfig`; `target_macs` is the option `--target-macs`"""
    costs: str
    """of a `Subject`: the `PolicyCosts`, which say what each layer costs and whether layers add up or the largest
    counts"""
    uncut: str
    """of a `Subject`: units of the uncut network, which a percentage is of"""
    actual: str
    """of the delivered `Row` and these costs: what the result takes"""
    pruning: tuple[str, ...] = ("channels",)
    """the `PRUNINGS` that it means something to"""

    @property
    def unit(self) -> str:
        """The field's own word: `macs`."""
        return self.field.removeprefix("target_")


@dataclass(frozen=True)
class PruningRecord:
    """What a policy counts."""

    strategy: str
    """makes the `Pruning` of a search, of its config"""
    cuts_channels: bool
    """whether it makes a network faster; else rewards, damage and budgets of channels mean nothing"""
    unused: Mapping[str, str] = field(default_factory=dict)
    """settings that change nothing then, and why"""


@dataclass(frozen=True)
class StageRecord:
    """What a policy decides."""

    strategy: str
    """as `PruningRecord.strategy`; empty where that of the pruning counts"""
    decides_precision: bool = False
    """whether it decides each layer's precision"""


DEFAULT_AGENT = "dp-ddpg"
"""What searches under a budget, unless it is to start cold."""
AGENTS = {
    DEFAULT_AGENT: AgentRecord(
        f"{_AGENTS}.dp_ddpg:search",
        sees_state=True,
        needs_budget=True,
        solves=True,
        counts_policies=True,
        options=("critic_action_layer",),
    ),
    "ddpg": AgentRecord(f"{_AGENTS}.ddpg:search", sees_state=True, warms_up=True, options=("critic_action_layer",)),
    "ppo": AgentRecord(
        f"{_AGENTS}.ppo:search", sees_state=True, warms_up=True, options=("ppo_actors", "layer_rewards")
    ),
    "hill": AgentRecord(f"{_AGENTS}.hill:search"),
    "random": AgentRecord(f"{_SOLVERS}.baselines:search"),
    "dp": AgentRecord(
        f"{_SOLVERS}.iterated:search", needs_budget=True, solves=True, counts_policies=True, learns=False
    ),
    **{
        f"sb3-{name}": AgentRecord(
            f"{_AGENTS}.sb3:search",
            sees_state=True,
            warms_up=name != "ppo",
            extra="sb3",
            package="stable_baselines3",
        )
        for name in ("ddpg", "td3", "sac", "ppo")
    },
}
BASELINES = {
    "uniform": BaselineRecord(f"{_SOLVERS}.baselines:choose_uniform"),
    "shallow": BaselineRecord(f"{_SOLVERS}.baselines:choose_shallow"),
    "deep": BaselineRecord(f"{_SOLVERS}.baselines:choose_deep"),
    "random": BaselineRecord("amc_latency.search.steps.methods:choose_by_agent"),
    "hill": BaselineRecord("amc_latency.search.steps.methods:choose_by_agent"),
    "netadapt": BaselineRecord(f"{_SOLVERS}.netadapt:choose"),
    "dp": BaselineRecord(f"{_SOLVERS}.iterated:choose", solves=True),
}
REWARDS = {
    "error": RewardRecord(f"{_REWARDS}:by_error", needs_budget=True),
    "loss": RewardRecord(f"{_REWARDS}:by_loss", needs_budget=True),
    "latency": RewardRecord(f"{_REWARDS}:by_latency", needs_channels=True),
    "macs": RewardRecord(f"{_REWARDS}:by_macs", needs_channels=True),
    "params": RewardRecord(f"{_REWARDS}:by_params"),
    "two-stage": RewardRecord(f"{_REWARDS}:TwoStage", needs_channels=True),
}
DAMAGES = {
    "refit": DamageRecord("refit_damages"),
    "taylor": DamageRecord("taylor_damages", needs_labels=True, needs_channels=True),
    "measured": DamageRecord("measured_damages"),
}
BUDGETS = {
    "MACs": BudgetRecord("target_macs", f"{_BUDGETS}:macs", f"{_BUDGETS}:uncut_macs", f"{_BUDGETS}:delivered_macs"),
    "parameters": BudgetRecord(
        "target_params",
        f"{_BUDGETS}:params",
        f"{_BUDGETS}:uncut_params",
        f"{_BUDGETS}:by_costs",
        pruning=("channels", "weights"),
    ),
    "bytes": BudgetRecord("target_bytes", f"{_BUDGETS}:size", f"{_BUDGETS}:uncut_size", f"{_BUDGETS}:delivered_size"),
    "bytes zipped": BudgetRecord(
        "target_bytes",
        f"{_BUDGETS}:zipped",
        f"{_BUDGETS}:uncut_zipped",
        f"{_BUDGETS}:delivered_zipped",
        pruning=("weights",),
    ),
    "bytes of activations": BudgetRecord(
        "target_memory", f"{_BUDGETS}:memory", f"{_BUDGETS}:uncut_memory", f"{_BUDGETS}:by_costs"
    ),
}
BUDGET_FIELDS = tuple(dict.fromkeys(record.field for record in BUDGETS.values()))
PRUNINGS = {
    "channels": PruningRecord("amc_latency.search.targets.pruning:ChannelPruning", cuts_channels=True),
    "weights": PruningRecord(
        "amc_latency.search.targets.pruning:WeightPruning",
        cuts_channels=False,
        unused={
            "step": "it is of channels; `prune='weights'` takes any share, by `min_keep` and `max_keep`",
            "calibration_images": "pruned weights are not refitted; `recalibration_images` counts",
        },
    ),
}
STAGES = {
    "prune": StageRecord(""),
    "quantize": StageRecord("amc_latency.search.targets.mixed:Quantization", decides_precision=True),
    "joint": StageRecord("amc_latency.search.targets.mixed:PruningAndQuantization", decides_precision=True),
}
FEATURES = ("t", "n", "c", "h", "w", "stride", "k", "layer_cost", "reduced", "rest", "previous")
"""AMC's state (paper, section 3.1), in this order and each scaled into 0..1."""
STATES = {
    "amc": FEATURES,
    "two-stage": ("t", "n", "c", "kernel_h", "kernel_w", "stride", "bound", "layer_cost"),
}
"""What an agent may see: AMC's state, or the two-stage paper's (arXiv 1912.02254), which is about the layer alone."""
