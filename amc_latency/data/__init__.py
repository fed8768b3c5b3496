"""Images and their labels: to train on, to choose by (held back), and for the figure at the end (test)."""

from amc_latency.data.fitting import data_for, fitted
from amc_latency.data.load import Streaming, load_data
from amc_latency.data.splits import ImageData, InMemory, Split

__all__ = ["ImageData", "InMemory", "Split", "Streaming", "data_for", "fitted", "load_data"]
