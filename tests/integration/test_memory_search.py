"""A search under a limit on activation memory: what is delivered holds it, by what PyTorch's own forward has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from amc_latency.models.files.checkpoint import bundled_checkpoint, load_checkpoint
from amc_latency.search.config import run_name
from tests.integration.searches import run
from tests.integration.test_search import BUNDLED, FEWER_IMAGES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]


def chain_bytes(model: nn.Module) -> int:
    """Of a network without skips: the most that a layer reads and writes."""
    seen = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _, x, y: seen.append(4 * (x[0].numel() + y.numel())))
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 1, 64, 64))
    return max(seen)


def test_memory_is_held_beside_milliseconds(tmp_path: Path) -> None:
    config = replace(
        BUNDLED,
        data=FEWER_IMAGES,
        speedup=1.5,
        target_memory="60%",
        agent="hill",
        warmup=0,
        episodes=2,
        warm_start=True,
        baselines="uniform,dp",
        images=32,
    )
    uncut, _, _ = load_checkpoint(bundled_checkpoint())
    report = run(tmp_path, config)
    model, _, _ = load_checkpoint(tmp_path / "run" / "model.safetensors")
    (row,) = report.budgets
    assert (row.name, row.limit) == ("bytes of activations", 60 * chain_bytes(uncut) // 100)
    assert row.actual == chain_bytes(model) <= row.limit
    assert report.met
    assert [each.name for each in report.baselines] == ["uniform", "dp"]
    assert (
        f"bytes of activations: {row.actual:,} of at most {row.limit:,}"
        in (tmp_path / "run" / "report.html").read_text()
    )
    assert "60pct-memory" in run_name(config)
