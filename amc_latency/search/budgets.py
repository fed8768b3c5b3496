"""The budgets beside milliseconds: MACs, parameters and the file's bytes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from amc_latency.export import export
from amc_latency.models.load import Network
from amc_latency.search.clamp import Budget
from amc_latency.search.config import BudgetRow, Row, SearchConfig
from amc_latency.search.costs import LatencyCosts
from amc_latency.search.rewards import bytes_costs, macs_costs, params_costs

_ALIGNMENT = 16
"""Bytes to which a .tflite aligns each buffer."""


def budgets_of(config: SearchConfig, network: Network, costs: LatencyCosts) -> list[Budget]:
    """What `config` limits beside milliseconds, over the choices of `costs`."""
    architecture, choices = costs.architecture, costs.choices
    budgets = []
    if config.target_macs is not None:
        budgets.append(Budget("MACs", macs_costs(architecture, choices), math.floor(config.target_macs)))
    if config.target_params is not None:
        budgets.append(Budget("parameters", params_costs(architecture, choices), math.floor(config.target_params)))
    if config.target_bytes is not None:
        overhead = file_overhead(network)
        budgets.append(Budget("bytes", bytes_costs(architecture, choices, overhead), math.floor(config.target_bytes)))
    return budgets


def file_overhead(network: Network) -> int:
    """Bytes of the uncut network's .tflite that are no parameters, and room for what alignment may add in a cut one."""
    with tempfile.TemporaryDirectory() as folder:
        report = export(network.model, network.spec.input, Path(folder) / "uncut.tflite", None)
    shapes = network.graph.architecture.shapes()
    # Weights and a bias a layer.
    return report.bytes - 4 * sum(shape.params for shape in shapes) + 2 * len(shapes) * _ALIGNMENT


def budget_rows(budgets: Sequence[Budget], ours: Row) -> list[BudgetRow]:
    """Each budget and what the exported result takes of it."""
    exported = {"MACs": ours.macs, "bytes": ours.bytes}
    return [
        BudgetRow(budget.name, budget.limit, exported.get(budget.name, budget.costs.of(ours.counts)))
        for budget in budgets
    ]
