"""The budgets beside milliseconds: MACs, parameters and the file's bytes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from amc_latency.export.export import export
from amc_latency.models.load import Network
from amc_latency.search.config import BudgetRow, Row, SearchConfig
from amc_latency.search.costs.clamp import Budget
from amc_latency.search.costs.costs import LatencyCosts
from amc_latency.search.costs.rewards import bytes_costs, macs_costs, params_costs
from amc_latency.search.targets.amounts import Amount, absolute
from amc_latency.search.targets.zipped import ZIPPED, emptied, zipped_bytes, zipped_costs

_ALIGNMENT = 16
"""Bytes to which a .tflite aligns each buffer."""


def budgets_of(config: SearchConfig, original: Network, network: Network, costs: LatencyCosts) -> list[Budget]:
    """What `config` limits beside milliseconds, over the choices of `costs`.

    `costs` are of what is pruned of `network`, which is `original` or what earlier rounds made of it.
    """
    architecture, choices = costs.architecture, costs.choices
    shapes = original.graph.architecture.shapes()

    def limit(target: Amount, uncut: Callable[[], int]) -> int:
        if config.round == config.rounds and not isinstance(target, str) and config.rounds_density is None:
            return math.floor(target)
        size = uncut()
        return math.floor(config.toward(absolute(target, size), size))

    budgets = []
    if config.target_macs is not None:
        macs = limit(config.target_macs, lambda: sum(shape.macs for shape in shapes))
        budgets.append(Budget("MACs", macs_costs(architecture, choices), macs))
    if config.target_params is not None:
        params = limit(config.target_params, lambda: sum(original.graph.architecture.params()))
        budgets.append(Budget("parameters", params_costs(architecture, choices), params))
    if config.target_bytes is not None and config.prune == "weights":
        zipped = limit(config.target_bytes, lambda: zipped_bytes(exported(original)))
        budgets.append(Budget(ZIPPED, zipped_costs(network, choices, zipped_bytes(exported(emptied(network)))), zipped))
    elif config.target_bytes is not None:
        size = limit(config.target_bytes, lambda: len(exported(original)))
        budgets.append(Budget("bytes", bytes_costs(architecture, choices, file_overhead(network)), size))
    return budgets


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


def budget_rows(budgets: Sequence[Budget], ours: Row) -> list[BudgetRow]:
    """Each budget and what the exported result takes of it."""
    file = Path(ours.tflite)
    actual: dict[str, Callable[[], int]] = {
        "MACs": lambda: ours.macs,
        "bytes": lambda: ours.bytes,
        ZIPPED: lambda: zipped_bytes(file.read_bytes()),
    }
    return [
        BudgetRow(budget.name, budget.limit, actual.get(budget.name, lambda b=budget: b.costs.of(ours.counts))())
        for budget in budgets
    ]
