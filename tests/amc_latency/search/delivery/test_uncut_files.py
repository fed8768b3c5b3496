"""The uncut network's file under the names of the others: in their place, and never where a link of that name leads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from amc_latency.search.delivery.deliver import Delivered, Delivery
from amc_latency.search.results.result import Row


def test_a_link_in_the_run_folder_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"somebody's")
    run = tmp_path / "run"
    run.mkdir()
    (run / "original.tflite").write_bytes(b"network")
    (run / "ours.tflite").symlink_to(precious)
    row = Row("original", (8,), 1.0, 1.0, None, 7, 7, 90.0, 90.0, str(run / "original.tflite"))
    delivery: Any = SimpleNamespace(
        costs=SimpleNamespace(full=(8,)),
        folder=SimpleNamespace(path=run),
        judge=SimpleNamespace(network=lambda counts: None, spec=lambda counts: None),
        tflite=lambda name: run / f"{name}.tflite",
        rows=lambda *_: Delivered([row], "median", []),
        _logged=lambda *_: None,
        _save=lambda *_: None,
    )
    found = Delivery.uncut(delivery, target_ms=2.0)
    assert found is not None
    assert [Path(each.tflite).read_bytes() for each in found.rows] == [b"network"] * 3
    assert precious.read_bytes() == b"somebody's"
