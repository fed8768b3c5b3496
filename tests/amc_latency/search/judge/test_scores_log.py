"""The log of scores: only who writes to it cuts off what a kill has torn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from amc_latency.models.spec import ModelSpec
from amc_latency.search.judge.config import JudgeConfig
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.score import Score


def test_another_search_s_line_is_not_cut_before_the_folder_is_ours(tmp_path: Path) -> None:
    log = tmp_path / "scores.jsonl"
    network: Any = SimpleNamespace(spec=ModelSpec())
    data: Any = object()
    Judge(network, data, JudgeConfig(), log)._write((8,), Score(0.5, 1.0, 10), final=False)
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:20])
    # A second search looks at the folder while the first is in the middle of a line.
    second = Judge(network, data, JudgeConfig(), log)
    assert log.read_bytes() == whole + whole[:20]
    # Once it writes itself, what is torn is a kill's.
    second._write((8,), Score(0.5, 1.0, 10), final=False)
    assert log.read_bytes() == whole + whole
