"""One attempt at the budgets: what is said before it, and its episodes."""

from __future__ import annotations

from dataclasses import dataclass

from amc_latency.measuring.estimating import bench_advice
from amc_latency.search.agents.warm import warm_start
from amc_latency.search.costs.costs import Counts
from amc_latency.search.episodes.problem import AgentOptions
from amc_latency.search.judge.record import NEIGHBOUR, START, EpisodeRecord
from amc_latency.search.solvers.iterated import EVALUATIONS_A_GROUP
from amc_latency.search.steps.methods import search_episodes
from amc_latency.search.steps.prepare import Prepared
from amc_latency.search.targets.bounds import bounds_text


@dataclass(frozen=True)
class Attempt:
    """What an agent tried under one limit."""

    records: list[EpisodeRecord]
    tried: frozenset[Counts]
    """policies that were judged, those of a log included"""


def introduce(prepared: Prepared) -> None:
    """Say what is searched, under which budgets, and what can't be had as it was asked for."""
    config, clamp, say = prepared.config, prepared.clamp, prepared.console.say
    target = f", target {clamp.target_ms:.4f} ms" if config.has_latency_target else ""
    others = "".join(f", at most {budget.text}" for budget in clamp.budgets)
    say(
        f"{config.model} on {prepared.device.text}\n"
        f"table {prepared.table.path}\n"
        f"{prepared.judge.source_line}\n"
        f"original {prepared.original_ms:.4f} ms{target}{others}, fastest reachable {clamp.fastest_ms:.4f} ms"
    )
    for line in (*bounds_text(config, prepared.uncut), *_shortened(prepared)):
        prepared.console.warn(line)
    if prepared.estimated:
        prepared.console.warn(f"every latency is {bench_advice(prepared.device.identity.name)}")
    if prepared.bound is not None:
        say(prepared.bound.text(clamp.target_ms))


def _shortened(prepared: Prepared) -> list[str]:
    """What cannot be had as it was asked for."""
    config, groups = prepared.config, prepared.costs.groups
    lines, limit_ms = prepared.judge.shortened(), prepared.limit_ms(1.0)
    if prepared.bound is None and config.has_latency_target and limit_ms is not None:
        margin_pct = 100 * (1 - limit_ms / prepared.clamp.target_ms)
        if margin_pct < config.margin_pct - 1e-9:
            lines.append(
                f"`margin_pct` {config.margin_pct:g}: {margin_pct:.2g} % is held, as no network is faster than that"
            )
    if config.agent_record.counts_policies and config.total_episodes < EVALUATIONS_A_GROUP * groups:
        made = "none is made" if config.agent_record.learns else "one is made at least"
        lines.append(
            f"`episodes` {config.total_episodes}: a round of dynamic programming takes about "
            f"{EVALUATIONS_A_GROUP * groups:.0f} policies, and {made}"
        )
    return lines


def run_attempt(prepared: Prepared, number: int, limit_ms: float, factor: float) -> Attempt:
    """The episodes of attempt `number`, from 0, whose predictions are held to `limit_ms`; those of the log count.

    `factor` is by how much the device is slower than the table predicts.
    """
    config, judge, say = prepared.config, prepared.judge, prepared.console.say
    counts_policies = config.agent_record.counts_policies
    wanted = config.total_episodes + number * config.correction_episodes
    if counts_policies and number:
        wanted = config.correction_episodes
    # A new agent learns the whole log again: the log alone is the state of a search.
    # Targets only fall from one attempt to the next: what is below this one's is a later one's.
    log = [record for record in prepared.folder.episodes() if record.limit_ms >= limit_ms]
    if log:
        say(f"going on after {len(log)} episodes")
    problem = prepared.problem(limit_ms)
    best = max((record.accuracy for record in log), default=0.0)
    with prepared.console.progress("searching", wanted) as meter:

        def on_asked(asked: int) -> None:
            if counts_policies:
                meter.update(min(asked, wanted), note="policies tried")

        def on_episode(record: EpisodeRecord) -> None:
            nonlocal best
            prepared.folder.append_episode(record)
            best = max(best, record.accuracy)
            note = f"{judge.shown(record.accuracy)} held back, best {judge.shown(best)}"
            done = len(asked) if counts_policies else record.episode + 1
            meter.update(min(done, wanted), note=note)

        with judge.counting(on_asked) as asked:
            warm = None
            if config.starts_warm or config.agent_record.solves:
                warm = warm_start(problem.clamp, problem.damages())
                say(
                    f"dynamic programming: {','.join(map(str, warm.best.counts))}, damage {warm.best.damage:.4g}, "
                    f"optimality gap {warm.best.gap:.2g}"
                )
            first = _first(prepared, limit_ms, factor)
            records = search_episodes(problem, _options(prepared, wanted), log, first, on_episode, warm)
    given = (START, NEIGHBOUR)
    if config.agent_record.learns and all(record.source in given for record in records):
        prepared.console.warn(
            f"all {len(records)} episodes went to start policies, so {config.searcher} never acted: `episodes` more"
        )
    # What a replayed log held was not asked again.
    return Attempt(records, frozenset(asked) | {record.counts for record in records})


def _first(prepared: Prepared, limit_ms: float, factor: float) -> list[Counts]:
    """The uniform width, what a designer would do, if there is one."""
    bound, target_ms = prepared.bound, prepared.clamp.target_ms
    first = prepared.uniform(limit_ms) if bound is None else bound.start(target_ms / factor)
    return [] if first is None else [first]


def _options(prepared: Prepared, wanted: int) -> AgentOptions:
    config = prepared.config
    return AgentOptions(
        config.searcher,
        config.starts_warm,
        config.warmup_episodes,
        wanted,
        config.state,
        config.ppo_actors,
        config.layer_rewards,
        config.critic_action_layer,
    )
