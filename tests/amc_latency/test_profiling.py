"""Profiling: what a search needs, where tables lie, and an honest error beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from amc_latency.console import Console
from amc_latency.errors import JobError, UserError
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.profiling import Grid, complete_table, open_device, open_table, table_path
from device.base import Device, DeviceIdentity, Protocol, Timing, Workload
from lut.table import LatencyTable

TABLE = Path(__file__).parents[2] / "lut" / "tables" / "host-epyc-zen4.tsv"
IDENTITY = DeviceIdentity("stand-in", "none", "none")


class FailingDevice(Device):
    """Answers, and times nothing."""

    identity = IDENTITY

    def time_round(self, workloads, protocol: Protocol, round_index: int):
        for workload in workloads:
            assert isinstance(workload, Workload)
            yield Timing(workload.name, round_index, error="the device caught fire")


def test_the_shipped_table_holds_all_that_a_search_of_the_bundled_network_needs() -> None:
    device = open_device("replay", TABLE)
    table = open_table(device, None, TABLE, create=False)
    assert table is not None
    report = complete_table(load_network(NetworkOptions()), device, table, Grid(), Console(quiet=True))
    assert report.timed == 0
    assert report.incomplete == 0
    assert report.calibrated
    # Whole networks that the calibration on uniform widths has not seen, measured when the table was.
    assert report.held_out_max_pct is not None
    assert report.held_out_max_pct < 5


def test_a_device_that_times_nothing_is_a_failed_job(tmp_path: Path) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, Protocol(rounds=1))
    network = load_network(NetworkOptions("mobilenet_v1", 0.25, "3x32x32", 10))
    with pytest.raises(JobError, match="the device caught fire"):
        complete_table(network, FailingDevice(), table, Grid(min_keep=1.0), Console(quiet=True))


def test_tables_of_different_devices_never_share_a_file() -> None:
    identities = (IDENTITY, replace(IDENTITY, runtime="other"), replace(IDENTITY, model="other"))
    assert len(set(map(table_path, identities))) == 3


def test_bad_grids_and_devices_are_refused() -> None:
    with pytest.raises(UserError, match="min-keep"):
        Grid(min_keep=1.5)
    with pytest.raises(UserError, match="--lut"):
        open_device("replay")
