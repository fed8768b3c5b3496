"""The ways to choose a policy, by name: agents that learn, and what they are measured against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from amc_latency.errors import UserError
from amc_latency.search.agents.agent import Agent
from amc_latency.search.agents.ddpg import DDPGAgent, DDPGConfig
from amc_latency.search.agents.env import STATES, ChannelEnv, Reward, negative_error
from amc_latency.search.agents.hill import HillClimber, HillConfig
from amc_latency.search.agents.loop import EpisodeRecord, run_episodes
from amc_latency.search.agents.warm import clone, led_through, solutions, start_policies
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.damage import Damage
from amc_latency.search.judge.judge import Judge
from amc_latency.search.solvers.baselines import RandomAgent, deep_policy, shallow_policy, uniform_policy
from amc_latency.search.solvers.iterated import iterated
from amc_latency.search.solvers.netadapt import netadapt, reached, refitted

EVALUATIONS_A_GROUP = 2.3
"""That a round of iterated dynamic programming takes, about."""
WARM_NOISE = 0.1
"""Sigma of a warm-started agent's first noise: it looks around dynamic programming's policies, not everywhere."""
WARM_ACTOR_FROM = 10
"""Episodes in which only the critic learns: an untrained one would pull a cloned actor away at once."""


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
    """dynamic programming's proxy, one of `config.DAMAGES`"""
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
    warm_start: bool = True
    warmup: int = 0
    """random episodes"""
    episodes: int = 400
    """in all, warm-up and start policies included; for `dp`, about how many policies it may try"""
    state: str = "amc"
    """what it sees, one of `config.STATES`"""
    ppo_actors: int = 4
    """episodes that PPO collects before it improves its policy"""
    layer_rewards: bool = False
    """whether PPO is rewarded after each layer, which takes an evaluation a layer, or at the end"""
    critic_action_layer: int = 1
    """which hidden layer of DDPG's critic the action joins at: 1 (AMC's code) or 2 (its paper)"""


@dataclass(frozen=True)
class Choice:
    """What a method ends with."""

    counts: Counts
    evaluations: int
    """different policies that it asked the judge about, the finalists' second scores not counted"""


def check_agent(name: str) -> None:
    """Raise `UserError` for an agent whose extra is not installed."""
    if name.startswith("sb3-") and find_spec("stable_baselines3") is None:
        raise UserError(f"agent {name} needs the extra: pip install 'amc-latency[sb3]'")


def search_episodes(
    problem: Problem,
    options: AgentOptions,
    log: Sequence[EpisodeRecord] = (),
    first: Sequence[Counts] = (),
    on_episode: Callable[[EpisodeRecord], None] = lambda record: None,
) -> list[EpisodeRecord]:
    """Run an agent under the problem's clamp until there are `options.episodes`, those of `log` included.

    `first` are policies to execute before anything else; dynamic programming's come after them in a warm start.
    Raises what `run_episodes` and `run_sb3` raise.
    """
    clamp, judge, reward = problem.clamp, problem.judge, problem.reward
    warm = options.warm_start or options.name == "dp"
    damages = problem.damages() if warm else []
    starts = list(dict.fromkeys([*first, *start_policies(clamp, damages)]))
    # What is hopeless shows in the accuracy only where nothing else is rewarded; and a layer's reward is a difference
    # on the same images.
    gives_up = reward is negative_error and not options.layer_rewards
    evaluate = judge if gives_up else lambda counts, _: judge(counts)
    env = ChannelEnv(clamp, evaluate, reward, state=options.state, by_layer=options.layer_rewards)
    if options.name.startswith("sb3-"):
        from amc_latency.search.agents.sb3 import run_sb3

        limit_ms, seed, warmup = clamp.target_ms, problem.seed, options.warmup
        return run_sb3(options.name, env, options.episodes, limit_ms, log, starts, on_episode, seed, warmup)
    if options.name == "dp":
        starts = list(dict.fromkeys([*starts, _iterated(problem, starts, options.episodes)]))
        # All episodes are given, so nobody acts.
        wanted = _earlier(log, clamp) + len(starts)
        return run_episodes(env, RandomAgent(problem.seed), wanted, clamp.target_ms, log, starts, on_episode)
    agent = _agent(problem, options, damages)
    return run_episodes(env, agent, options.episodes, clamp.target_ms, log, starts, on_episode)


def _earlier(log: Sequence[EpisodeRecord], clamp: Clamp) -> int:
    return sum(record.limit_ms != clamp.target_ms for record in log)


def choose(problem: Problem, name: str, evaluations: int) -> Choice:
    """What the baseline `name`, one of `config.BASELINES`, chooses; those that search get `evaluations` episodes.

    Raises `UserError` where it reaches no policy within the budgets.
    """
    clamp, judge = problem.clamp, problem.judge
    judge.asked.clear()
    simple = {"uniform": uniform_policy, "shallow": shallow_policy, "deep": deep_policy}
    if name in simple:
        return Choice(simple[name](clamp.costs, clamp.target_ms, clamp.budgets), 0)
    if name == "dp":
        return Choice(led_through(clamp, solutions(clamp, problem.damages()[0], (1.0,))[0]), 0)
    if name == "netadapt":
        if clamp.budgets or not math.isfinite(clamp.target_ms):
            raise UserError("NetAdapt goes by milliseconds alone")
        if clamp.holds(clamp.costs.widest):
            return Choice(clamp.costs.widest, 0)
        run = netadapt(judge.base, clamp.costs, [clamp.target_ms], refitted(judge))
        winner = reached(run, clamp.target_ms)
        return Choice(winner.counts, len(judge.asked))
    options = AgentOptions(name, warm_start=False, episodes=evaluations)
    records = search_episodes(problem, options)
    best = judge.choose(records, clamp.target_ms, problem.reward)
    return Choice(best.counts, len(judge.asked))


def _iterated(problem: Problem, starts: Sequence[Counts], evaluations: int) -> Counts:
    """Dynamic programming around the best of `starts`, in as many rounds as the evaluations suffice for."""
    clamp, judge, reward = problem.clamp, problem.judge, problem.reward
    best = max(starts, key=lambda counts: reward(judge(counts), counts))
    rounds = max(1, int((evaluations - len(starts)) / (EVALUATIONS_A_GROUP * clamp.costs.groups)))
    return iterated(
        clamp.guide,
        judge,
        clamp.guide_limit,
        best,
        rounds,
        reward=reward,
        lead=lambda counts: led_through(clamp, counts),
        forbidden=clamp.forbidden,
    )


def _agent(problem: Problem, options: AgentOptions, damages: Sequence[Damage]) -> Agent:
    if options.name == "random":
        return RandomAgent(problem.seed)
    if options.name == "hill":
        return HillClimber(HillConfig(), problem.seed)
    learner: DDPGAgent | PPOAgent
    features = len(STATES[options.state])
    if options.name == "ppo":
        from amc_latency.search.agents.ppo import PPOAgent, PPOConfig

        ppo = PPOConfig(
            warmup=options.warmup, lowest=problem.lowest, highest=problem.highest, actors=options.ppo_actors
        )
        if options.warm_start:
            ppo = replace(ppo, noise=WARM_NOISE)
        learner = PPOAgent(ppo, features, problem.seed)
    elif options.name == "ddpg":
        config = DDPGConfig(
            warmup=options.warmup,
            lowest=problem.lowest,
            highest=problem.highest,
            action_layer=options.critic_action_layer,
        )
        if options.warm_start:
            config = replace(config, noise=WARM_NOISE, actor_from=WARM_ACTOR_FROM)
        learner = DDPGAgent(config, features, problem.seed)
    else:
        raise ValueError(f"no agent is called {options.name!r}")
    if options.warm_start:
        clone(learner, problem.origin or problem.clamp, damages, options.state)
    return learner
