"""Dynamic programming around an incumbent: measure what each group's neighbours do there, solve again, and so on.

Damage from the uncut network on adds up to too little where all groups are cut at once: what a group's channels
are worth depends on what is left of the others. Around a policy that is near the target it is nearly additive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from amc_latency.search.costs.clamp import Clamp, Forbidden
from amc_latency.search.costs.costs import Counts, PolicyCosts
from amc_latency.search.episodes.problem import Choice, Problem, Session
from amc_latency.search.judge.damage import Damage, Evaluate, measured, reachable
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.judge.score import Reward, Score
from amc_latency.search.solvers.baselines import RandomAgent
from amc_latency.search.solvers.dynamic import solve
from amc_latency.search.solvers.shares import solutions, within_all

EVALUATIONS_A_GROUP = 2.3
"""That a round takes, about."""
STEPS = (1.0, 0.5, 0.25)
"""Shares of the reach that one round's damage is solved for: what is measured alone is less true further out."""


def negative_loss(score: Score, counts: Counts) -> float:
    """Cross entropy's negative: tells apart policies that get the same images right."""
    return -score.loss


def search(session: Session) -> list[EpisodeRecord]:
    """Episodes of dynamic programming's policies and of what it finds around the best of them; nobody acts.

    Raises what `run_episodes` raises.
    """
    clamp, options = session.problem.clamp, session.options
    rounds = max(1, affordable_rounds(clamp, options.episodes - len(session.starts)))
    found = around_best(session.problem, session.starts, rounds)
    starts = list(dict.fromkeys([*session.starts, found]))
    given = replace(session, starts=starts, options=replace(options, episodes=session.earlier + len(starts)))
    return given.episodes(RandomAgent(session.problem.seed))


def choose(problem: Problem, name: str, evaluations: int) -> Choice:
    """Dynamic programming's policy as a baseline: by damage alone."""
    clamp = problem.clamp
    return Choice(within_all(clamp, solutions(clamp, problem.damages()[0], (1.0,))[0]), 0)


def affordable_rounds(clamp: Clamp, evaluations: int) -> int:
    """How many rounds so many evaluations suffice for."""
    return max(0, int(evaluations / (EVALUATIONS_A_GROUP * clamp.costs.groups)))


def around_best(problem: Problem, starts: Sequence[Counts], rounds: int) -> Counts:
    """Dynamic programming around the best of `starts`, in so many rounds; that one itself in none."""
    clamp, judge, reward = problem.clamp, problem.judge, problem.reward
    best = max(starts, key=lambda counts: reward(judge(counts), counts))
    return iterated(
        clamp.guide,
        judge,
        clamp.guide_limit,
        best,
        rounds,
        reward=reward,
        lead=lambda counts: within_all(clamp, counts),
        forbidden=clamp.forbidden,
    )


def iterated(
    costs: PolicyCosts,
    evaluate: Evaluate,
    target_units: int,
    start: Counts,
    rounds: int = 2,
    points: int = 2,
    reach: float = 0.25,
    reward: Reward = negative_loss,
    lead: Callable[[Counts], Counts] = lambda counts: counts,
    forbidden: Sequence[Forbidden] = (),
) -> Counts:
    """The best policy found from `start` in `rounds` rounds, with `costs.of(counts) <= target_units`.

    A round evaluates about `points` counts a group, at most `reach` of the group's choices away, and up to
    three solutions under that damage: in the whole region, in half of it, in a quarter. The best becomes the
    incumbent if its reward is better than the last one's; else the region shrinks to a quarter. Deterministic,
    but for what `evaluate` says. `lead` is where a solution is brought
    within further budgets; no policy has what is `forbidden`. Raises what `solve` raises.
    """
    best, best_reward = start, reward(evaluate(start), start)
    for _ in range(rounds):
        damage, _ = measured(evaluate, costs, points, best, reach)
        around, worked = best, STEPS[-1]
        for step in STEPS:
            near = _within(costs, damage, around, reach * step)
            counts = lead(solve(costs, near, target_units, forbidden=forbidden).counts)
            value = reward(evaluate(counts), counts)
            if value > best_reward:
                best, best_reward, worked = counts, value, step
        reach *= worked
    return best


def _within(costs: PolicyCosts, damage: Damage, around: Counts, reach: float) -> Damage:
    """`damage` with `inf` out of reach."""
    narrowed = []
    for values, here, choices in zip(damage, costs.indices(around), costs.choices, strict=True):
        first, last = reachable(here, len(choices), reach)
        near = np.full(len(choices), np.inf)
        near[first : last + 1] = values[first : last + 1]
        narrowed.append(near)
    return narrowed
