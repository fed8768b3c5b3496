"""The ways to choose a policy, by name: agents that search, and what they are measured against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pkgutil import resolve_name

from amc_latency.arguments.names import find
from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.search.agents.warm import WarmStart, warm_start
from amc_latency.search.costs.costs import Counts
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.episodes.problem import AgentOptions, Choice, Problem, Session
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.judge.score import negative_error
from amc_latency.search.records import AGENTS, BASELINES
from amc_latency.search.results.result import BaselineRow


def check_agent(name: str) -> None:
    """Raise `UserError` for an agent whose extra is not installed."""
    record = find(AGENTS, name, "agent")
    if record.extra is not None and find_spec(record.package) is None:
        raise UserError(f"agent {name} needs the extra: pip install 'amc-latency[{record.extra}]'")


def search_episodes(
    problem: Problem,
    options: AgentOptions,
    log: Sequence[EpisodeRecord] = (),
    first: Sequence[Counts] = (),
    on_episode: Callable[[EpisodeRecord], None] = lambda record: None,
    warm: WarmStart | None = None,
) -> list[EpisodeRecord]:
    """Run an agent under the problem's clamp until there are `options.episodes`, those of `log` included.

    `first` are policies to execute before anything else; dynamic programming's come after them in a warm start, which
    is solved here unless `warm` has it. Raises `UserError` for an unknown agent, and what its function raises.
    """
    record = find(AGENTS, options.name, "agent")
    clamp, judge, reward = problem.clamp, problem.judge, problem.reward
    if warm is None and (options.warm_start or record.solves):
        warm = warm_start(clamp, problem.damages())
    damages, policies = ([], []) if warm is None else (warm.damages, warm.policies)
    starts = list(dict.fromkeys([*first, *policies]))
    # What is hopeless shows in the accuracy only where nothing else is rewarded; and a layer's reward is a difference
    # on the same images.
    gives_up = reward is negative_error and not options.layer_rewards
    evaluate = judge if gives_up else lambda counts, _: judge(counts)
    env = ChannelEnv(clamp, evaluate, reward, state=options.state, by_layer=options.layer_rewards)
    return resolve_name(record.run)(Session(problem, options, env, log, starts, damages, on_episode))


def choose(problem: Problem, name: str, evaluations: int) -> Choice:
    """What the baseline `name`, one of `BASELINES`, chooses; those that search get `evaluations` episodes.

    Raises `UserError` for another name, and where it reaches no policy within the budgets.
    """
    record = find(BASELINES, name, "baseline")
    return resolve_name(record.choose)(problem, name, evaluations)


def choose_by_agent(problem: Problem, name: str, evaluations: int) -> Choice:
    """The best that the agent `name` finds from a cold start."""
    with problem.judge.counting() as asked:
        records = search_episodes(problem, AgentOptions(name, warm_start=False, episodes=evaluations))
    best = problem.judge.choose(records, problem.clamp.target_ms, problem.reward)
    return Choice(best.counts, len(asked))


def baseline_rows(problem: Problem, names: Sequence[str], evaluations: int, console: Console) -> list[BaselineRow]:
    """A row for each of `names` that reaches the budgets; those that search get as many `evaluations` as ours had.

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
