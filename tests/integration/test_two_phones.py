"""`profile` on two phones at once: one table, no doubled work, and phones that differ are told apart.

The phones are fake ones; the latencies of their program are arithmetic (`fake_phone.stand_in`).
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.kinds import PhoneOptions
from amc_latency.device.registry import get_device
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import parse_network
from amc_latency.lut.table.table import LatencyTable
from fake_phone.adbd import FakeAdbd
from fake_phone.opened import HELP
from fake_phone.programs import make_phone
from fake_phone.stand_in import install_stand_in, stand_in_us

from amc_latency.cli.main import main
from amc_latency.models.files.checkpoint import save_checkpoint
from amc_latency.models.registry import build_model
from amc_latency.models.spec import ModelSpec
from tests.integration.command_line import QUICK, Cli, table_lines


@pytest.fixture
def phones(tmp_path: Path) -> Iterator[list[FakeAdbd]]:
    """Two of a kind."""
    with ExitStack() as stack:
        daemons = []
        for name in ("one", "two"):
            make_phone(tmp_path / name)
            install_stand_in(tmp_path / name, HELP.read_text())
            daemons.append(stack.enter_context(FakeAdbd(tmp_path / name)))
        yield daemons


@pytest.fixture
def command(phones: list[FakeAdbd], tmp_path: Path, at_home: None) -> list[object]:
    """A profile on both, of a small network, under a protocol that takes no time."""
    lut = tmp_path / "table.tsv"
    with get_device(phones[0].address, PhoneOptions(runner="benchmark_model")) as device:
        LatencyTable.create(lut, device.identity, replace(QUICK, rounds=2, timeout_s=60.0))
    spec = ModelSpec("lenet5", input=(1, 28, 28), classes=10)
    save_checkpoint(tmp_path / "small.safetensors", build_model(spec), spec)
    both = ",".join(f"pixel1@{phone.address}" for phone in phones)
    model = ["--model", tmp_path / "small.safetensors", "--step", 64, "--min-keep", 0.5]
    return ["profile", "--device", both, "--runner", "benchmark_model", "--lut", lut, "--json", *model]


def check_clean(phone: FakeAdbd) -> None:
    """Nothing of ours is left there."""
    assert [path.name for path in Path(phone.root, "data/local/tmp").iterdir()] == ["benchmark_model"]


@pytest.mark.slow
def test_two_phones_fill_one_table(cli: Cli, phones: list[FakeAdbd], command: list[object], tmp_path: Path) -> None:
    lut = tmp_path / "table.tsv"
    with cli.start(*command) as stopped:
        while not table_lines(lut):
            assert stopped.poll() is None, stopped.communicate()
            time.sleep(0.01)
        stopped.send_signal(signal.SIGINT)
        assert "the same command goes on from here" in stopped.communicate(timeout=60)[1]
    assert stopped.returncode == 128 + signal.SIGINT
    timed_before = len(table_lines(lut))
    for phone in phones:
        check_clean(phone)

    outcome = cli.run(*command)
    report = outcome.report
    one, two = (phone.address for phone in phones)
    for address in (one, two):
        assert f"{address}: +0.0 % from the median (+0.0 % for " in outcome.err
    table = LatencyTable.open(lut)
    lines = table_lines(lut)
    assert len(set(lines)) == len(lines) == len(table.rows) == report["rows"] == report["timed"] + timed_before
    assert (report["incomplete"], table.errors) == (0, {})
    rounds: dict[str, set[int]] = defaultdict(set)
    serials: Counter[str] = Counter()
    of_key: dict[str, set[float]] = defaultdict(set)
    for row in table.rows:
        assert row.wall is not None
        assert row.wall.median_us is not None
        rounds[row.workload].add(row.round)
        of_key[row.workload].add(row.wall.median_us)
        serials[json.loads(row.conditions)["serial"]] += 1
    for key, timed in rounds.items():
        assert timed == set(range(len(timed))), key
        assert len(timed) >= table.protocol.rounds
    # Whoever timed it, it is what the program says of that model.
    layers = [key for key in of_key if " + " not in key]
    assert {key: of_key[key] for key in layers} == {
        key: {float(stand_in_us(layer_model(parse_network(key)[0])))} for key in layers
    }
    assert all(len(us) == 1 for us in of_key.values())
    # Each has a fair share, however busy this computer is.
    assert set(serials) == {one, two}
    assert min(serials.values()) > 0.2 * len(table.rows)
    for phone in phones:
        check_clean(phone)


def test_a_slower_phone_is_not_mixed_in(
    phones: list[FakeAdbd],
    command: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path(phones[1].root, "state/slow").write_text("10\n")
    monkeypatch.setattr("sys.argv", ["amc-latency", *map(str, command)])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    one, two = (phone.address for phone in phones)
    assert (stopped.value.code, captured.out) == (1, "")
    # Microseconds are whole, so that it is not 10 % to the last digit.
    assert f"error: the phones do not agree: {two} takes 10.0 % longer than {one} for the same" in captured.err
    assert f"Choose one, as --device pixel1@{one}, or insist with --force" in captured.err
    assert table_lines(tmp_path / "table.tsv") == []
    for phone in phones:
        check_clean(phone)
