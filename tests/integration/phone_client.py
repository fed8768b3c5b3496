"""Builds the scripted network's table on a phone: `python phone_client.py ADDRESS TABLE`, to be killed at will."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from amc_latency.device.kinds import PhoneOptions
from amc_latency.device.phone.android import AndroidDevice
from amc_latency.device.phone.session import Patience
from amc_latency.lut.building.build import Plan, build_table
from amc_latency.lut.table.table import LatencyTable
from fake_phone.opened import Impatient, quick_profile

from tests.lut.scripted_device import all_choices, small_architecture


def main() -> None:
    """Build, or go on building."""
    transport = Impatient(sys.argv[1], answer_s=1.0)
    # One that only takes long is asked again.
    transport.hung_s = 1.0
    for attempt in range(100):
        try:
            transport.connect()
            break
        except Exception:
            if attempt == 99:
                raise
    # Many tries: here each of them may meet another fault.
    profile = quick_profile(sentinel_every=4, tries=50)
    patience = Patience(poll_s=0.05, reconnect_s=30.0)
    device = AndroidDevice.open(transport, profile, PhoneOptions(runner="benchmark_model"), patience)
    with device:
        table = LatencyTable.open_or_create(Path(sys.argv[2]), device.identity, replace(device.protocol, rounds=2))
        architecture = small_architecture((16, 32, 32))
        report = build_table(device, table, architecture, all_choices(architecture), plan=Plan("grid"))
    sys.exit(f"errors: {report.errors}" if report.errors or report.incomplete else 0)


if __name__ == "__main__":
    main()
