"""The default: dynamic programming around the best of its own policies, then DDPG, within the same evaluations.

What is exact comes first, because no learning is needed for it: the policies of least summed damage, and around the
best of them rounds of dynamic programming by measured loss (`solvers/iterated.py`). These measure many neighbours, and
those that hold the budgets are DDPG's first episodes: its critic knows what a step away from a good policy costs before
its actor takes one. Whatever evaluations are left are its own. Finalists come from both, so the result is never worse,
as it is judged in the end, than what dynamic programming found on the way.
"""

from __future__ import annotations

from dataclasses import replace

from amc_latency.search.agents import ddpg
from amc_latency.search.episodes.problem import Session
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.solvers.iterated import affordable_rounds, around_best
from amc_latency.search.solvers.shares import within_all

ROUNDS_SHARE = 2 / 3
"""Of the rounds that all evaluations would suffice for; one at least, if there is one."""


def search(session: Session) -> list[EpisodeRecord]:
    """The episodes of dynamic programming's policies, of their neighbours, and of a `DDPGAgent` from there on.

    `options.episodes` is how many policies it may try, anew in each attempt. Raises what `run_episodes` raises.
    """
    problem, options = session.problem, session.options
    clamp = problem.clamp
    possible = affordable_rounds(clamp, options.episodes - len(session.starts))
    with problem.judge.counting() as asked:
        found = around_best(problem, session.starts, min(possible, max(1, int(ROUNDS_SHARE * possible))))
    starts = list(dict.fromkeys([*session.starts, found]))
    # Sorted: the same in each session, which replays the log.
    neighbours = [counts for counts in sorted(asked - set(starts)) if within_all(clamp, counts) == counts]
    left = max(0, options.episodes - len(asked))
    wanted = session.earlier + len(starts) + len(neighbours) + left
    given = replace(session, starts=starts, neighbours=neighbours, options=replace(options, episodes=wanted))
    return ddpg.search(given)
