"""What a pickle would do, read from its opcodes before PyTorch runs them: weights take no more than the file stores.

PyTorch's `weights_only` runs no code, but makes what a pickle says: a `bytearray` of any size, and tuples of tuples of
the same tuple, whose hash takes 2^n steps and whose text as many characters.
"""

from __future__ import annotations

import pickle
import pickletools
from typing import Any, BinaryIO

_MOST_NESTED = 12
"""Tuples in one another: a tensor has four."""
_FILLED = "bytearray"
"""The one callable of those that PyTorch unpickles that fills as much memory as a number says."""
_PICKLES = 5
"""In a file from before zip archives: a number, a version, the system, the weights, and the names of their storages."""
_MARK = -1


def why_not_run(file: BinaryIO, pickles: int = 1) -> str | None:
    """What keeps the next `pickles` pickles in `file` from being run; None for those of weights."""
    for _ in range(pickles):
        try:
            reason = _why_not(file)
        except (ValueError, IndexError, KeyError, AttributeError, pickle.UnpicklingError, EOFError) as error:
            return f"its pickle is broken ({str(error)[:100]})"
        if reason is not None:
            return reason
    return None


def why_not_old(file: BinaryIO) -> str | None:
    """The same for a whole file of PyTorch from before 1.6."""
    return why_not_run(file, _PICKLES)


def _why_not(file: BinaryIO) -> str | None:
    """Follows the stack, of which it knows how deep the tuples in each thing are nested."""
    stack: list[int] = []
    memo: dict[Any, int] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if isinstance(argument, str) and _FILLED in argument:
            return f"it holds a {_FILLED}: save tensors alone"
        if name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif "PUT" in name:
            memo[argument] = stack[-1]
        elif "GET" in name:
            stack.append(memo[argument])
        else:
            taken = _pop(stack, opcode)
            depth = max(taken, default=0) + ("TUPLE" in name and name != "EMPTY_TUPLE")
            if depth > _MOST_NESTED:
                return f"it holds more than {_MOST_NESTED} tuples in one another: save tensors alone"
            stack += [_MARK if kind is pickletools.markobject else depth for kind in opcode.stack_after]
    return None


def _pop(stack: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Take off the stack what an opcode takes: a number of things, or all above a mark and some below it."""
    before = opcode.stack_before
    taken = []
    below = len(before)
    if pickletools.markobject in before:
        below = before.index(pickletools.markobject)
        while (item := stack.pop()) != _MARK:
            taken.append(item)
    for _ in range(below):
        taken.append(stack.pop())
    return taken
