"""How large a network would be, found out before it is made: its weights are counted without being allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from amc_latency.android_bench.safe.limits import PARAMETERS
from amc_latency.android_bench.safe.memory import available_bytes
from amc_latency.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def without_memory() -> Iterator[None]:
    """What is built within it is on the meta device, and nothing is drawn for its weights.

    For the first weight that is drawn on meta torch loads its compiler: two seconds of a short command.
    """
    import torch
    from torch.nn import init
    from torch.overrides import TorchFunctionMode

    draws = (init.normal_, init.uniform_, init.kaiming_uniform_, torch.Tensor.normal_, torch.Tensor.uniform_)

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func in draws:
                tensor = args[0] if args else kwargs["tensor"]
                if tensor.is_meta:
                    return tensor
            return func(*args, **kwargs)

    with torch.device("meta"), Undrawn():
        yield


def check_size(name: str, build: Callable[[], nn.Module], most: int = PARAMETERS) -> None:
    """Raise `UserError` for a network that `build` makes of more than `most` weights, or of more than memory holds."""
    import torch

    try:
        with torch.random.fork_rng(devices=[]), without_memory():
            weights = sum(tensor.numel() for tensor in build().state_dict().values())
    except NotImplementedError:
        # Its own code computes with values (torchvision's RegNets), which there are none of: it can't be counted.
        return
    except (RuntimeError, OverflowError) as error:
        # More than 2^63 bytes, which torch can't even count.
        raise UserError(f"{name} can't be built at that size: {str(error).splitlines()[0]}") from error
    if weights > most:
        raise UserError(
            f"{name} would have {weights:,} weights, more than {most:,}: give a smaller width, fewer classes or "
            "smaller images"
        )
    check_memory(4 * weights, name)


def check_memory(n_bytes: int, what: str) -> None:
    """Raise `UserError` where `what` takes more memory than there is."""
    available = available_bytes()
    if available is not None and n_bytes > available:
        raise UserError(
            f"{what} takes {n_bytes / 1e9:,.1f} GB of memory, and {available / 1e9:,.1f} GB are free: "
            "close other programs, or use a larger computer"
        )
