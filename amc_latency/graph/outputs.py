"""What a network returns: a tensor, or tensors in tuples, lists and dicts, as one list in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def tensors_of(output: Any) -> list[Tensor] | None:
    """The tensors of an output, those within tuples, lists and dicts in their order; None if there is anything else."""
    # Here: commands that only name this module need not wait for torch.
    from torch import Tensor

    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if not isinstance(output, tuple | list):
        return None
    found: list[Tensor] = []
    for each in output:
        inside = tensors_of(each)
        if inside is None:
            return None
        found += inside
    return found
