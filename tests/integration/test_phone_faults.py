"""Two hundred and more faults while tables are built on a phone: each table equals that of an undisturbed run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from amc_latency.device.conditions import suspicions
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import parse_shape
from amc_latency.lut.table.table import LatencyTable
from fake_phone.adbd import FakeAdbd
from fake_phone.faults import Fault
from fake_phone.opened import HELP
from fake_phone.programs import make_phone
from fake_phone.stand_in import install_stand_in, stand_in_us

CLIENT = Path(__file__).with_name("phone_client.py")
TESTS = CLIENT.parents[1]
PATH = os.pathsep.join(map(str, (TESTS.parent, TESTS, TESTS / "lut")))
FAULTS = 200
KILLS = 10
THROTTLES = 10


def random_fault(draw: random.Random) -> Fault:
    """Cuts most of all: before, in the middle of and after whatever passes."""
    on = draw.choice(["run", "push", "push", "pull", "pull", "receive"])
    if on == "receive":
        return Fault("cut", on, after=draw.randrange(1, 200_000), seconds=draw.choice([0.0, 0.2]))
    # A hung command is waited for, so there are few of these.
    kinds = ["cut", "cut", "cut", "garble", "truncate", "delay", *{"push": ["full"], "run": ["hang"]}.get(on, [])]
    kind = draw.choice(kinds)
    after = draw.choice([0, 1, 50, 1000, 1 << 30]) if kind in ("cut", "garble", "truncate") else 0
    seconds = {"cut": draw.choice([0.0, 0.0, 0.3]), "delay": 0.1}.get(kind, 0.0)
    # A disk without room for a script ends a session, as it should; of models there may be fewer at once.
    matching = "/models/" if kind == "full" else ""
    return Fault(
        kind, on, matching=matching, nth=draw.randrange(1, 8 if on == "run" else 3), after=after, seconds=seconds
    )  # type: ignore[arg-type]


class Trouble:
    """Keeps faults pending on a phone, and kills its client now and then."""

    def __init__(self, root: Path, daemon: FakeAdbd, draw: random.Random) -> None:
        self.root = root
        self.daemon = daemon
        self.draw = draw
        self.killed = 0
        self.throttled = 0

    @property
    def total(self) -> int:
        return len(self.daemon.faults.fired) + self.killed + self.throttled

    def make(self, client: subprocess.Popen[bytes]) -> None:
        """Until the client ends."""
        killed_at = time.monotonic() + self.draw.uniform(1.5, 5.0)
        while client.poll() is None:
            pending = {fault.on for fault in self.daemon.faults.pending}
            if self.total < FAULTS and len(pending) < 3:
                fault = random_fault(self.draw)
                # A disk that is full again as soon as room was made ends a session, as it should.
                again = fault.kind == "full" and "full" in [fired.kind for fired in self.daemon.faults.fired[-20:]]
                if fault.on not in pending and not again:
                    self.daemon.faults.add(fault)
            throttle = self.root / "state/throttle"
            if self.throttled < THROTTLES and self.draw.random() < 0.02 and not throttle.exists():
                throttle.write_text(f"{self.draw.randrange(1, 8)}\n")
                self.throttled += 1
            if self.killed < KILLS and time.monotonic() > killed_at:
                client.kill()
                client.wait()
                self.killed += 1
                return
            time.sleep(0.02)


def built(path: Path, daemon: FakeAdbd, trouble: Trouble | None = None) -> LatencyTable:
    for _ in range(100):
        command = [sys.executable, str(CLIENT), daemon.address, str(path)]
        client = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PATH})
        if trouble is not None:
            trouble.make(client)
        _, said = client.communicate(timeout=120)
        if client.returncode == 0:
            return LatencyTable.open(path)
        assert client.returncode == -9, said.decode()
    raise AssertionError("never complete")


def rows(table: LatencyTable) -> list[tuple[object, ...]]:
    """Everything of each row but the circumstances."""
    return sorted((row.workload, row.round, row.n, row.wall, row.error) for row in table.rows)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_faults_lose_double_and_change_nothing(tmp_path: Path) -> None:
    root = tmp_path / "phone"
    make_phone(root)
    install_stand_in(root, HELP.read_text())
    with FakeAdbd(root) as daemon:
        undisturbed = built(tmp_path / "undisturbed.tsv", daemon)
        expected = rows(undisturbed)
        assert len(expected) > 60
        for key, _, n, wall, error in expected:
            us = stand_in_us(layer_model(parse_shape(str(key))))
            assert (n, wall.median_us, wall.mean_us, error) == (3, us, us, None)  # type: ignore[attr-defined]
        trouble = Trouble(root, daemon, random.Random(0))
        number = 0
        while trouble.total < FAULTS:
            number += 1
            path = tmp_path / f"table{number}.tsv"
            table = built(path, daemon, trouble)
            assert rows(table) == expected
            assert not any(suspicions(row.conditions) for row in table.rows)
            lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
            assert len(lines) - 1 == len(expected), "a row was written twice"
        left = [path.name for path in (root / "data/local/tmp").iterdir()]
        assert left == ["benchmark_model"], "the last session cleans up after all"
        kinds = Counter(f"{fault.kind} {fault.on}" for fault in daemon.faults.fired)
        print(
            f"{trouble.total} faults in {number} tables: {dict(kinds)}, {trouble.killed} kills, "
            f"{trouble.throttled} throttles"
        )
