"""Budgets beside milliseconds: what is limited, what it costs, and what the result takes of it; see records.BUDGETS."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

from amc_latency.export.export import export
from amc_latency.models.load import Network
from amc_latency.search.config import SearchConfig
from amc_latency.search.config.amounts import absolute
from amc_latency.search.costs.clamp import Budget, Clamp
from amc_latency.search.costs.costs import LatencyCosts, PolicyCosts
from amc_latency.search.costs.memory import memory_costs, peak_bytes
from amc_latency.search.costs.sizes import bytes_costs, macs_costs, params_costs
from amc_latency.search.records import BUDGETS
from amc_latency.search.results.result import BudgetRow, Row
from amc_latency.search.targets.zipped import emptied, zipped_bytes, zipped_costs

_ALIGNMENT = 16
"""Bytes to which a .tflite aligns each buffer."""


@dataclass(frozen=True)
class Subject:
    """What is limited."""

    original: Network
    """the uncut network, which percentages are of"""
    network: Network
    """what is pruned: the original or what earlier rounds made of it"""
    latency: LatencyCosts
    """its milliseconds, over the choices that policies have"""


def clamp_of(config: SearchConfig, subject: Subject, original_ms: float) -> Clamp:
    """All budgets of `config`, for an original that takes `original_ms`. Raises what `Clamp` raises."""
    target_ms = config.toward(config.target_of(original_ms), original_ms)
    return Clamp(subject.latency, target_ms, budgets_of(config, subject))


def budgets_of(config: SearchConfig, subject: Subject) -> list[Budget]:
    """What `config` limits beside milliseconds."""
    limits, budgets = config.limits, []
    for name, record in BUDGETS.items():
        target = limits.get(record.field)
        if target is None or config.prune not in record.pruning:
            continue
        if isinstance(target, str) or config.round != config.rounds or config.rounds_density is not None:
            uncut = resolve_name(record.uncut)(subject)
            target = config.toward(absolute(target, uncut), uncut)
        budgets.append(Budget(name, resolve_name(record.costs)(subject), math.floor(target)))
    return budgets


def budget_rows(budgets: Sequence[Budget], ours: Row) -> list[BudgetRow]:
    """Each budget and what the exported result takes of it."""
    return [
        BudgetRow(each.name, each.limit, resolve_name(BUDGETS[each.name].actual)(ours, each.costs)) for each in budgets
    ]


def by_costs(ours: Row, costs: PolicyCosts) -> int:
    """What the result's counts cost."""
    return costs.of(ours.counts)


def macs(subject: Subject) -> PolicyCosts:
    """Multiply-accumulates."""
    return macs_costs(subject.latency.architecture, subject.latency.choices)


def uncut_macs(subject: Subject) -> int:
    """Of the original."""
    return sum(shape.macs for shape in subject.original.graph.architecture.shapes())


def delivered_macs(ours: Row, costs: PolicyCosts) -> int:
    """Of the exported file."""
    return ours.macs


def params(subject: Subject) -> PolicyCosts:
    """Parameters, batch norm folded; of pruned weights those that are not zero."""
    return params_costs(subject.latency.architecture, subject.latency.choices)


def uncut_params(subject: Subject) -> int:
    """Of the original."""
    return sum(subject.original.graph.architecture.params())


def size(subject: Subject) -> PolicyCosts:
    """Bytes of the `.tflite`."""
    latency = subject.latency
    return bytes_costs(latency.architecture, latency.choices, file_overhead(subject.network))


def uncut_size(subject: Subject) -> int:
    """Of the original's file."""
    return len(exported(subject.original))


def delivered_size(ours: Row, costs: PolicyCosts) -> int:
    """Of the exported file."""
    return ours.bytes


def zipped(subject: Subject) -> PolicyCosts:
    """Bytes of the `.tflite` once it is packed."""
    overhead = zipped_bytes(exported(emptied(subject.network)))
    return zipped_costs(subject.network, subject.latency.choices, overhead)


def uncut_zipped(subject: Subject) -> int:
    """Of the original's file."""
    return zipped_bytes(exported(subject.original))


def delivered_zipped(ours: Row, costs: PolicyCosts) -> int:
    """Of the exported file."""
    return zipped_bytes(Path(ours.tflite).read_bytes())


def memory(subject: Subject) -> PolicyCosts:
    """Bytes of activations that are live at once."""
    return memory_costs(subject.network, subject.latency.choices)


def uncut_memory(subject: Subject) -> int:
    """Of the original."""
    return peak_bytes(subject.original)


def file_overhead(network: Network) -> int:
    """Bytes of the uncut network's .tflite that are no parameters, and room for what alignment may add in a cut one."""
    params = network.graph.architecture.params()
    # Weights and a bias a layer.
    return len(exported(network)) - 4 * sum(params) + 2 * len(params) * _ALIGNMENT


def exported(network: Network) -> bytes:
    """The uncut network's `.tflite`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "uncut.tflite"
        export(network.model, network.spec.input, path, None)
        return path.read_bytes()
