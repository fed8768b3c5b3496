"""Where training and a search compute: this computer's CPU or a GPU of it. It is not the device that is timed.

What there can be is a record in `ACCELERATORS`. PyTorch is loaded when one is asked for.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from amc_latency.arguments.settings import Rule, setting
from amc_latency.errors import JobError, OptionError, is_out_of_memory

if TYPE_CHECKING:
    import torch
    from torch import nn

    from amc_latency.console import Console

Result = TypeVar("Result")


@dataclass(frozen=True)
class AcceleratorRecord:
    """A kind of place to compute."""

    found: Callable[[], list[str]]
    """the names of those that are there"""
    dtype: Callable[[], torch.dtype | None]
    """what training is best computed in; None for float32 throughout"""
    has_float64: bool = True
    forget: Callable[[], None] = lambda: None
    """hands memory back that is held in case it is asked for again"""


def _cuda_names() -> list[str]:
    import torch

    return (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )


def _cuda_dtype() -> torch.dtype:
    import torch

    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _cuda_forget() -> None:
    import torch

    torch.cuda.empty_cache()


def _mps_names() -> list[str]:
    import torch

    return ["Apple's GPU"] if torch.backends.mps.is_available() else []


def _mps_forget() -> None:
    import torch

    torch.mps.empty_cache()


ACCELERATORS = {
    "cuda": AcceleratorRecord(_cuda_names, _cuda_dtype, forget=_cuda_forget),
    # It computes no float64, and its autocast was tried by nobody here.
    "mps": AcceleratorRecord(_mps_names, lambda: None, has_float64=False, forget=_mps_forget),
    "cpu": AcceleratorRecord(lambda: ["this computer's CPU"], lambda: None),
}
"""By PyTorch's name, in the order in which `auto` takes the first that is there."""

_FORM = re.compile(rf"auto|({'|'.join(ACCELERATORS)})(:\d{{1,3}})?")


def _is_name(text: str) -> bool:
    return _FORM.fullmatch(text) is not None


@dataclass(frozen=True)
class Computing:
    """The option, for whatever computes."""

    accelerator: str | None = setting(
        None,
        "where training and search compute, not the device that is timed: auto (a GPU if there is one), cpu, cuda, "
        "cuda:1, mps",
        "Training",
        rule=Rule(_is_name, "is auto, cpu, cuda, cuda:1 or mps"),
    )


def launched() -> tuple[int, int] | None:
    """The number of this process on its machine and that of all, where `accelerate launch` has started several."""
    count = os.environ.get("WORLD_SIZE", "1")
    if not count.isdigit() or int(count) < 2:
        return None
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    several = launched()
    return several is None or several[1] == 0


def accelerator_of(name: str | None) -> torch.device:
    """The device of that name, `auto` unless set. Raises `OptionError` for one that is not there: what there is."""
    import torch

    if name is not None and not _is_name(name):
        raise OptionError("accelerator", f"is auto, cpu, cuda, cuda:1 or mps, not {name}")
    if name is None or name == "auto":
        name = next(each for each, record in ACCELERATORS.items() if record.found())
    kind, _, number = name.partition(":")
    several = launched()
    if several is not None and kind == "cuda":
        if number:
            raise OptionError(
                "accelerator", f"{name} is for one process: `accelerate launch` gives each its own, so cuda"
            )
        name, number = f"cuda:{several[0]}", str(several[0])
    index = int(number or 0)
    if index >= len(ACCELERATORS[kind].found()):
        raise OptionError("accelerator", f"{name} is not there: there is {', '.join(_all_found())}")
    # With its number, as tensors have it.
    return torch.device(kind) if kind == "cpu" else torch.device(kind, index)


def say_where(device: torch.device, console: Console) -> None:
    """Say that a GPU computes."""
    if device.type != "cpu":
        console.say(f"computing on {device}, {ACCELERATORS[device.type].found()[device.index or 0]}")


def _all_found() -> list[str]:
    return [
        f"{kind}:{i} ({title})" if kind == "cuda" else f"{kind} ({title})"
        for kind, record in ACCELERATORS.items()
        for i, title in enumerate(record.found())
    ]


def prepared(device: torch.device) -> torch.device:
    """The same, computing float32 as float32: convolutions on NVIDIA GPUs would else be TF32, of 10 bits."""
    import torch

    if device.type == "cuda":
        backends: Any = torch.backends
        backends.cudnn.conv.fp32_precision = "ieee"
        backends.cuda.matmul.fp32_precision = "ieee"
    return device


def autocast_dtype(device: torch.device, wanted: str | None) -> torch.dtype | None:
    """What training computes in on a device by the option `autocast`; None for float32 throughout."""
    import torch

    if wanted == "off" or device.type not in ACCELERATORS:
        return None
    best = ACCELERATORS[device.type].dtype()
    return best if wanted in (None, "auto") or device.type == "cpu" else getattr(torch, wanted)


def float64_device(device: torch.device) -> torch.device:
    """Where float64 is computed: there, or on the CPU."""
    import torch

    record = ACCELERATORS.get(device.type)
    return device if record is None or record.has_float64 else torch.device("cpu")


def on(model: nn.Module, device: torch.device) -> nn.Module:
    """The module itself if it is on `device`, else a copy of it there: a module's own `to` would move the caller's."""
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device == device:
        return model
    return copy.deepcopy(model).to(device)


def forget(device: torch.device) -> None:
    """Hand memory back that PyTorch holds for later."""
    if device.type in ACCELERATORS:
        ACCELERATORS[device.type].forget()


def halving(
    run: Callable[[int], Result], size: int, device: torch.device, say: Callable[[str], None], least: int = 1
) -> tuple[Result, int]:
    """What `run` returns of a batch of `size`, halved as long as memory runs out, and the size that went through.

    Raises `JobError` where even `least` is too much.
    """
    while True:
        try:
            return run(size), size
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size // 2 < least:
                raise JobError(f"there is not enough memory on {device} even for a batch of {size}") from error
        # Outside, as the error holds the tensors of the step that failed.
        forget(device)
        say(f"not enough memory on {device} for a batch of {size}: it is halved to {size // 2}")
        size //= 2
