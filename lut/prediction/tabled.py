"""A device that nobody times on: what it answers comes from a table or a cost model."""

from __future__ import annotations

from amc_latency.device.base import Device
from amc_latency.lut.table.table import LatencyTable


class TabledDevice(Device):
    """Answers the same each time, and builds no `.tflite`."""

    is_constant = True
    table: LatencyTable
    """kept in memory: among the measured tables it would pass for one"""
