"""A second device without one: tensors that say they are on `meta`, compute on the CPU, and don't mix with the CPU's.

What is computed within `pretend_device()` fails as it would on a GPU where a tensor was made or left on the CPU. As
PyTorch has it, tensors of no dimension and indices may be on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
_MOVES = {"_to_copy", "copy_"}
_INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Pretended(Tensor):
    """A tensor on the device; `inner` holds its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=False,
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """So that what is made on the device, or moved there, is one of its tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """The device, which is there within it."""
    # Tensors of a class of its own can't be split in inference mode, which is no_grad and more speed.
    with pytest.MonkeyPatch.context() as patch, _Mode():
        patch.setattr(torch, "inference_mode", torch.no_grad)
        yield DEVICE


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name.partition("::")[2]
    flat, _ = tree_flatten((args, kwargs))
    tensors = [each for each in flat if isinstance(each, Tensor)]
    there = any(isinstance(each, Pretended) for each in tensors)
    asked = kwargs.get("device")
    if asked is not None:
        asked = torch.device(asked)
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if there and name not in _MOVES:
        _check(name, args, tensors)
    goes = asked == DEVICE if asked is not None else there
    if name == "copy_":
        goes = isinstance(args[0], Pretended)
    plain = tree_map(lambda each: each.inner if isinstance(each, Pretended) else each, (args, kwargs))
    result = func(*plain[0], **plain[1])
    owners = {id(each.inner): each for each in tensors if isinstance(each, Pretended)}
    if not goes:
        return result
    return tree_map(lambda each: owners[id(each)] if id(each) in owners else _wrapped(each), result)


def _wrapped(value: Any) -> Any:
    return Pretended(value) if isinstance(value, Tensor) and not isinstance(value, Pretended) else value


def _check(name: str, args: Any, tensors: list[Tensor]) -> None:
    if name in _INDEXES:
        indices = {id(each) for each in args[1] if each is not None}
        tensors = [each for each in tensors if id(each) not in indices]
    strays = [each for each in tensors if not isinstance(each, Pretended) and each.ndim]
    if strays:
        raise RuntimeError(f"{name}: a tensor {list(strays[0].shape)} on the CPU beside others on another device")
