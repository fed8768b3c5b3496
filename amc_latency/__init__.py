"""Compress a convolutional network for a device, by latency measured on that device.

import amc_latency as amc

net = amc.network(model, example_input)  # an nn.Module as it is, or a name: "mobilenet_v2", "torchvision:resnet50"
with amc.device("host") as device:  # or "pixel1", "cuda", "192.168.1.7:5555"
    table = amc.profile(net, device)
    result = amc.search(net, device, table, task=task, target_ms=20)
amc.export(result.network, "small.tflite")
amc.bench("small.tflite").latency_ms
"""

from __future__ import annotations

import sys

_HERE = __file__.rpartition("/amc_latency/")[0]
if sys.argv[:1] == ["-m"] and "amc_latency" in sys.orig_argv and not sys.flags.safe_path and sys.path[:1] != [_HERE]:
    # `python -m` puts the working directory first, whose files would pass for Python's own; ours may lie there.
    # What Python itself imports before this line is found there all the same: only `python -P -m` is safe from that.
    del sys.path[0]

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amc_latency.api import SearchResult as SearchResult
    from amc_latency.api import accuracy as accuracy
    from amc_latency.api import bench as bench
    from amc_latency.api import calibrate as calibrate
    from amc_latency.api import cut as cut
    from amc_latency.api import device as device
    from amc_latency.api import export as export
    from amc_latency.api import network as network
    from amc_latency.api import predict as predict
    from amc_latency.api import profile as profile
    from amc_latency.api import search as search
    from amc_latency.errors import JobError as JobError
    from amc_latency.errors import UserError as UserError
    from amc_latency.models.load import Network as Network
    from amc_latency.task import ImageTask as ImageTask
    from amc_latency.task import Task as Task

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        ("network", "device", "profile", "predict", "search", "cut", "calibrate", "export", "accuracy", "bench"),
        "amc_latency.api",
    ),
    "SearchResult": "amc_latency.api",
    "Task": "amc_latency.task",
    "ImageTask": "amc_latency.task",
    "Network": "amc_latency.models.load",
    "UserError": "amc_latency.errors",
    "JobError": "amc_latency.errors",
}
"""Where each public name is: nothing is imported before it is used."""

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'amc_latency' has no attribute {name!r}")


class _Door(ModuleType):
    """This module: `amc_latency.search` is the function, also once the package of that name was imported.

    Importing a submodule sets it as an attribute of its package. What is imported from within it is found all the same.
    """


def _function(name: str) -> property:
    return property(lambda self: __getattr__(name), lambda self, module: None)


for _name in ("search", "export", "bench", "device"):
    setattr(_Door, _name, _function(_name))
sys.modules[__name__].__class__ = _Door


def __dir__() -> list[str]:
    return __all__
