"""What every way to choose a policy is given, and what agents run their episodes with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts
from amc_latency.search.episodes.agent import Agent
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.episodes.loop import run_episodes
from amc_latency.search.judge.damage import Damage
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.judge.score import Reward
from amc_latency.search.records import STATES


@dataclass(frozen=True)
class Problem:
    """What every method is given."""

    clamp: Clamp
    judge: Judge
    reward: Reward
    seed: int
    lowest: float
    """smallest keep ratio"""
    damage: str = "refit"
    """dynamic programming's proxy, one of `records.DAMAGES`"""
    origin: Clamp | None = None
    """under which the search began, if a correction has changed the target since: what an actor is cloned from must
    stay the same, or the log could not be replayed"""
    highest: float = 1.0
    """largest keep ratio; the clamp's choices hold each group to its own, so an agent may leave this out"""

    def damages(self) -> list[Damage]:
        """The proxies of damage that dynamic programming adds up, the better one first."""
        return self.judge.damages(self.damage, self.clamp.costs)


@dataclass(frozen=True)
class AgentOptions:
    """Which agent, and how long it may search."""

    name: str = "ddpg"
    """one of `records.AGENTS`"""
    warm_start: bool = True
    warmup: int = 0
    """random episodes"""
    episodes: int = 400
    """in all, warm-up and start policies included; for one that counts policies, about how many it may try"""
    state: str = "amc"
    """what it sees, one of `records.STATES`"""
    ppo_actors: int = 4
    """episodes that PPO collects before it improves its policy"""
    layer_rewards: bool = False
    """whether PPO is rewarded after each layer, which takes an evaluation a layer, or at the end"""
    critic_action_layer: int = 1
    """which hidden layer of DDPG's critic the action joins at: 1 (AMC's code) or 2 (its paper)"""


@dataclass(frozen=True)
class Session:
    """What an agent searches with."""

    problem: Problem
    options: AgentOptions
    env: ChannelEnv
    log: Sequence[EpisodeRecord]
    """episodes of earlier, which are replayed"""
    starts: Sequence[Counts]
    """policies to execute before anything else"""
    damages: Sequence[Damage]
    """what a warm start goes by; none in a cold one"""
    on_episode: Callable[[EpisodeRecord], None]
    neighbours: Sequence[Counts] = ()
    """policies to execute after those, to learn from"""

    @property
    def limit_ms(self) -> float:
        """What the clamp holds policies to."""
        return self.problem.clamp.target_ms

    @property
    def earlier(self) -> int:
        """Episodes of the log that ran under other limits: those of earlier attempts."""
        return sum(record.limit_ms != self.limit_ms for record in self.log)

    @property
    def state_dim(self) -> int:
        """Figures in what the agent sees."""
        return len(STATES[self.options.state])

    def episodes(self, agent: Agent) -> list[EpisodeRecord]:
        """Run an `Agent` until there are `options.episodes`. Raises what `run_episodes` raises."""
        wanted, given = self.options.episodes, (self.starts, self.on_episode, self.neighbours)
        return run_episodes(self.env, agent, wanted, self.limit_ms, self.log, *given)


@dataclass(frozen=True)
class Choice:
    """What a baseline ends with."""

    counts: Counts
    evaluations: int
    """different policies that it asked the judge about, the finalists' second scores not counted"""
