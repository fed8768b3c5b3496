"""What runs on the phone, and how it is pushed, run and read."""

from pathlib import Path

SOURCES = Path(__file__).with_name("program")
"""`amc_bench`, in C, and the sentinel"""
SENTINEL = SOURCES / "sentinel.tflite"
"""the network that is timed beside every block: see `amc_latency.device.phone.blocks`"""
