"""What a weight in a file must be beside its name and shape: dense numbers of a float type, and finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from amc_latency.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_SHOWN = 3


def converted(source: Path | str, model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` in the types of the model's own of the same names: half and double become what it computes with.

    Raises `UserError` that names those that are no dense floats (integers, booleans, complex, quantised, sparse, on the
    meta device), and the first that holds NaN or infinity, also where a double is too large for a float.
    """
    expected = model.state_dict()
    wrong = [
        f"{name} is {what}"
        for name, tensor in tensors.items()
        if name in expected and (what := _unfit(tensor, expected[name])) is not None
    ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(
            f"{source}: weights must be dense float tensors, and {'; '.join(wrong[:_SHOWN])}{more}: "
            "write it anew from the float network, by torch.save(model.state_dict(), ...)"
        )
    found = {name: tensor.to(expected[name].dtype) if name in expected else tensor for name, tensor in tensors.items()}
    broken = next((name for name, tensor in found.items() if not bool(tensor.isfinite().all())), None)
    if broken is not None:
        raise UserError(f"{source}: {broken} holds values that are no numbers (NaN or infinite); train it anew")
    return found


def _unfit(tensor: Tensor, expected: Tensor) -> str | None:
    """What kind of tensor it is if it can't take the place of `expected`."""
    import torch

    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.is_quantized:
        return f"quantised ({_type(tensor)})"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.dtype == expected.dtype:
        return None
    if not expected.dtype.is_floating_point:
        # A counter or an index: of whatever width, and floats if they are whole.
        whole = tensor.dtype.is_floating_point and tensor.numel() and bool((tensor == tensor.round()).all())
        fits = not tensor.dtype.is_complex and (not tensor.dtype.is_floating_point or whole)
        return None if fits else f"{_type(tensor)} in place of {_type(expected)}"
    if tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return None
    return _type(tensor)


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
