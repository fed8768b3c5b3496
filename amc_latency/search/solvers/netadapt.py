"""NetAdapt (Yang et al., ECCV 2018, arXiv 1804.03230): cut one group at a time, each time where accuracy suffers least.

An iteration asks for a little less latency. Every coupled group alone makes a proposal: the most channels of it that
meet this, the others as they are. Each proposal is repaired and scored, the most accurate one is taken, and the next
iteration starts from it. Latency is the table's (their section 3.3), channels are chosen as everywhere here, so that
methods differ in their counts and not in their ranking.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from amc_latency.android_bench.safe.files import read_bytes, replacing
from amc_latency.android_bench.safe.limits import CONFIG_BYTES
from amc_latency.android_bench.safe.records import RecordError, from_json
from amc_latency.data import Split
from amc_latency.errors import JobError, UserError
from amc_latency.jsonl import append_line, drop_torn_line, read_lines
from amc_latency.models.files.checkpoint import load_checkpoint, save_checkpoint
from amc_latency.models.load import Network, cut_to
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.episodes.problem import Choice, Problem
from amc_latency.search.judge.score import Score
from amc_latency.training.loop import fit, judged
from amc_latency.training.recipe import TrainConfig


def choose(problem: Problem, name: str, evaluations: int) -> Choice:
    """NetAdapt as a baseline, its proposals refitted. Raises UserError where more than milliseconds is limited."""
    clamp, judge = problem.clamp, problem.judge
    if clamp.budgets or not math.isfinite(clamp.target_ms):
        raise UserError("NetAdapt goes by milliseconds alone")
    if clamp.holds(clamp.costs.widest):
        return Choice(clamp.costs.widest, 0)
    with judge.counting() as asked:
        run = netadapt(judge.base, clamp.costs, [clamp.target_ms], refitted(judge))
    winner = reached(run, clamp.target_ms)
    return Choice(winner.counts, len(asked))


@dataclass(frozen=True)
class NetAdaptConfig:
    """The schedule. Theirs is the default of denru01/netadapt, whose short-term training is SGD at 0.001 too."""

    first_reduction: float = 0.04
    """what the first iteration takes off, as a share of the uncut network's ms (theirs: 0.025)"""
    decay: float = 0.98
    """factor on that an iteration (theirs: 0.96; together with 0.025 it ends at 37 % of the uncut network)"""
    steps: int = 0
    """SGD steps that each proposal is trained for; with 0 it is cut from the uncut network and refitted instead"""
    batch_size: int = 64
    """images a step"""
    learning_rate: float = 0.001
    """at the first step; a cosine takes it to 0"""
    seed: int = 0
    """of the images that are trained on"""

    def __post_init__(self) -> None:
        if not 0 < self.first_reduction < 1 or not 0 < self.decay <= 1 or self.steps < 0:
            raise UserError(
                "NetAdapt takes a first reduction between 0 and 1, a decay over 0 up to 1 and steps from 0; got "
                f"{self.first_reduction}, {self.decay} and {self.steps}"
            )


@dataclass(frozen=True)
class NetAdaptIteration:
    """The proposal that won an iteration: a line of `iterations.jsonl`."""

    iteration: int
    """from 1; 0 is the uncut network"""
    group: int
    """the coupled group that was cut"""
    counts: Counts
    predicted_ms: float
    budget_ms: float
    """what every proposal of this iteration had to meet"""
    accuracy: float
    """of the repaired network on held-back images, 0..1"""
    loss: float
    """cross entropy in nats, on the same images"""
    images: int
    evaluations: int
    """proposals scored up to here"""


Propose = Callable[[Network, Counts, int], tuple[Score, Network]]
"""Repairs and scores one proposal: (the current network, its counts, the iteration) to (score, its network)."""


def refitted(evaluate: Callable[[Counts], Score]) -> Propose:
    """Proposals cut from the uncut network and refitted, by an evaluator: no training, and no weights to carry over."""
    return lambda network, counts, iteration: (evaluate(counts), network)


def briefly_trained(train: Split, held_back: Split, config: NetAdaptConfig) -> Propose:
    """Proposals cut from the current network and trained for `config.steps` steps, as NetAdapt does.

    All proposals of an iteration are trained on the same images, and all are scored on `held_back`. Raises
    `JobError` if training diverges.
    """

    def propose(network: Network, counts: Counts, iteration: int) -> tuple[Score, Network]:
        small = cut_to(network, counts)
        seed = config.seed * 100_003 + iteration
        settings = TrainConfig(
            epochs=1,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            warmup_epochs=0.0,
            image_size=network.spec.input[1:],
            low_resolution_epochs=0,
            seed=seed,
        )
        fit(small.model, _images(train, config.steps * config.batch_size, seed), settings)
        accuracy_pct, loss = judged(small.model, held_back, network.spec.input[1:])
        return Score(accuracy_pct / 100, loss, len(held_back)), small

    return propose


def netadapt(
    network: Network,
    costs: LatencyCosts,
    targets_ms: Sequence[float],
    propose: Propose,
    config: NetAdaptConfig | None = None,
    folder: Path | None = None,
    on_iteration: Callable[[NetAdaptIteration], None] = lambda iteration: None,
) -> list[NetAdaptIteration]:
    """Every iteration from the widest policy down to the smallest of `targets_ms`; `reached` finds a target's.

    The widest is the uncut `network`, where that may be kept.

    No budget is set beyond a target that is still ahead, so one run lands at or just under each. Where no single
    group can meet a budget, the iteration's budget is the least that one can.

    `propose` is `refitted(...)`, or `briefly_trained(...)` with the same `config`. With `folder`, each iteration is
    kept there, with the winner's weights if they were trained, and a later call goes on from the last.
    Raises `UserError` for targets out of reach and for a folder that belongs to another run.
    """
    config = config or NetAdaptConfig()
    targets = sorted(targets_ms, reverse=True)
    _check_schedule(config, costs, targets)
    done = _resumed(folder, config, costs, targets)
    current = done[-1].counts if done else costs.widest
    if folder is not None and done and config.steps:
        network = _load_winner(folder, network, done[-1])
    while costs.ms(current) > targets[-1]:
        number = len(done) + 1
        budget_ms = _budget_ms(costs, current, targets, config, number)
        proposals = _proposals(costs, current, budget_ms)
        scored = _scored(propose, network, proposals, number)
        group, current, score, network = max(scored, key=lambda each: (each[2].accuracy, -each[2].loss))
        done.append(
            NetAdaptIteration(
                number,
                group,
                current,
                costs.ms(current),
                budget_ms,
                score.accuracy,
                score.loss,
                score.images,
                (done[-1].evaluations if done else 0) + len(proposals),
            )
        )
        if folder is not None:
            if config.steps:
                save_checkpoint(winner_path(folder, number), network.model, network.spec)
            append_line(folder / "iterations.jsonl", done[-1])
        on_iteration(done[-1])
    return done


def reached(iterations: Sequence[NetAdaptIteration], target_ms: float) -> NetAdaptIteration:
    """The first iteration at or under `target_ms`. Raises `UserError` if there is none."""
    for iteration in iterations:
        if iteration.predicted_ms <= target_ms:
            return iteration
    raise UserError(f"no iteration of NetAdapt is at or under {target_ms:.6g} ms; run it down to that target")


def winner_path(folder: Path, iteration: int) -> Path:
    """Where the trained weights of an iteration's winner are kept."""
    return folder / f"iteration_{iteration:03d}.safetensors"


def _proposals(costs: LatencyCosts, current: Counts, budget_ms: float) -> list[tuple[int, Counts]]:
    """For each group that can meet the budget alone: the most channels with which it does."""
    proposals = []
    for group in range(costs.groups):
        fitting = (counts for counts in _cuts(costs, current, group) if costs.ms(counts) <= budget_ms)
        widest = next(fitting, None)
        if widest is not None:
            proposals.append((group, widest))
    return proposals


def _scored(
    propose: Propose, network: Network, proposals: Sequence[tuple[int, Counts]], number: int
) -> Iterator[tuple[int, Counts, Score, Network]]:
    # One after the other, so that only the best network so far is kept beside the one in work.
    for group, counts in proposals:
        score, candidate = propose(network, counts, number)
        yield group, counts, score, candidate


def _cuts(costs: LatencyCosts, current: Counts, group: int) -> list[Counts]:
    """`current` with fewer channels in one group, widest first."""
    narrower = [count for count in reversed(costs.choices[group]) if count < current[group]]
    return [(*current[:group], count, *current[group + 1 :]) for count in narrower]


def _budget_ms(
    costs: LatencyCosts, current: Counts, targets: Sequence[float], config: NetAdaptConfig, number: int
) -> float:
    now_ms = costs.ms(current)
    next_target = next(target for target in targets if target < now_ms)
    wanted = max(next_target, now_ms - costs.ms(costs.widest) * config.first_reduction * config.decay ** (number - 1))
    single = [counts for group in range(costs.groups) for counts in _cuts(costs, current, group)]
    least = min(map(costs.ms, single), default=math.inf)
    if least >= now_ms:
        raise UserError(
            f"NetAdapt is stuck at {now_ms:.6g} ms: no coupled group alone makes the network faster, and "
            f"{targets[-1]:.6g} ms takes several at once; give it more choices a group (a smaller step)"
        )
    return max(wanted, least)


def _check_schedule(config: NetAdaptConfig, costs: LatencyCosts, targets: Sequence[float]) -> None:
    if not targets:
        raise UserError("NetAdapt takes at least one target in milliseconds")
    Clamp(costs, targets[-1])
    most = config.first_reduction / (1 - config.decay) if config.decay < 1 else math.inf
    needed = 1 - targets[-1] / costs.ms(costs.widest)
    if most < needed:
        raise UserError(
            f"reductions of {config.first_reduction:g} that decay by {config.decay:g} add up to {100 * most:.3g} % of "
            f"the network's ms, but {targets[-1]:.6g} ms takes {100 * needed:.3g} %: start higher or decay less"
        )


def _images(train: Split, n: int, seed: int) -> Split:
    """`n` images in a random order, none twice before all were there."""
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(len(train), generator=generator) for _ in range(math.ceil(n / len(train)))]
    return train.at(torch.cat(rounds)[:n])


def _resumed(
    folder: Path | None, config: NetAdaptConfig, costs: LatencyCosts, targets: Sequence[float]
) -> list[NetAdaptIteration]:
    if folder is None:
        return []
    settings: dict[str, Any] = {**asdict(config), "targets_ms": list(targets), "full_ms": costs.ms(costs.widest)}
    path = folder / "netadapt.json"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(settings, indent=2) + "\n")
        found = from_json(read_bytes(path, CONFIG_BYTES), dict[str, Any])
    except OSError as error:
        raise JobError(f"cannot write {path}: {error.strerror}") from error
    except RecordError as error:
        raise UserError(f"{path} is damaged ({error}): start another folder") from error
    if found != settings:
        raise UserError(f"{folder} belongs to a NetAdapt run with other settings ({path.name}): start another folder")
    drop_torn_line(folder / "iterations.jsonl")
    done = read_lines(folder / "iterations.jsonl", NetAdaptIteration)
    for number, iteration in enumerate(done, start=1):
        if iteration.iteration != number or costs.ms(iteration.counts) != iteration.predicted_ms:
            raise UserError(f"{folder}: iteration {number} belongs to another network or table: start another folder")
    return done


def _load_winner(folder: Path, network: Network, iteration: NetAdaptIteration) -> Network:
    """What training started from when the next iteration would have begun."""
    from amc_latency.graph.trace import trace

    path = winner_path(folder, iteration.iteration)
    model, spec, _ = load_checkpoint(path, network.spec.name)
    if spec.channels != iteration.counts:
        raise UserError(f"{path} is not cut to iteration {iteration.iteration}'s counts: start another folder")
    return Network(model, spec, trace(model, network.spec.input), trained=True)
