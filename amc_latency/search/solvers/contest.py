"""The baselines that every search is shown beside: what others would have kept under the same budgets."""

from __future__ import annotations

from collections.abc import Sequence

from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.search.config import BaselineRow
from amc_latency.search.methods import Problem, choose


def contest(problem: Problem, names: Sequence[str], evaluations: int, console: Console) -> list[BaselineRow]:
    """A row for each of `names` that reaches the budgets; `random` and `hill` get as many `evaluations` as ours had.

    Every score is written down by the judge, so a search that was broken off here goes on quickly.
    """
    rows = []
    with console.progress("baselines", len(names)) as meter:
        for done, name in enumerate(names):
            meter.update(done, note=name)
            try:
                choice = choose(problem, name, evaluations)
            except UserError as error:
                console.warn(f"no {name} beside it: {error}")
                continue
            found, ms = problem.judge.finals(choice.counts), problem.clamp.costs.ms(choice.counts)
            rows.append(BaselineRow.of(name, choice.counts, ms, found, choice.evaluations))
    return rows
