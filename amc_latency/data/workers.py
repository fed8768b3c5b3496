"""Batches of images made by other processes, ahead of who takes them: decoding holds up neither training nor Python.

What they hand over are NumPy arrays, which go through pipes: tensors would take shared memory, of which a container
has 64 MB unless told otherwise.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from amc_latency.data.items import Items, cores
from amc_latency.errors import JobError

MOST = 16
"""Processes: each holds about 100 MB of its own."""
FEW = 64
"""So many images are read at once faster than a process starts."""
Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Read:
    """What became of the images of a batch."""

    images: np.ndarray
    """[n, C, h, w]"""
    places: np.ndarray
    """which of the batch they are, ascending [n]"""
    unread: dict[str, str]
    """why, by name"""


class _Batches(Dataset):
    def __init__(self, items: Items, dealt: Sequence[np.ndarray], change: Change, seed: int) -> None:
        self.items = items
        self.dealt = dealt
        self.change = change
        self.seed = seed
        self._starts = np.cumsum([0, *map(len, dealt)])

    def __getitem__(self, number: int) -> Read:
        # Pillow's warnings of odd metadata name no file.
        with warnings.catch_warnings(action="ignore"):
            return self._read(self.seed + int(self._starts[number]), self.dealt[number].tolist())

    def _read(self, start: int, indices: list[int]) -> Read:
        images, places, unread = [], [], {}
        for place, index in enumerate(indices):
            with chance(start + place):
                item = self.items.read(index)
                if isinstance(item, str):
                    unread[self.items.name(index)] = item
                    continue
                images.append(self.change(item))
            places.append(place)
        return Read(np.stack(images) if images else np.empty(0), np.array(places, np.int64), unread)


def read_batches(
    items: Items, dealt: Sequence[torch.Tensor], change: Change, seed: int = 0, workers: int | None = None
) -> Iterator[Read]:
    """Each batch of indices that is `dealt`, in order: read, and changed by what draws from PyTorch, NumPy or Python.

    An image's chance follows from `seed` and its place in all that is dealt. Raises JobError if a process dies.
    """
    total = sum(map(len, dealt))
    if workers is None:
        workers = 0 if total <= FEW or cores() == 1 else min(cores(), MOST, len(dealt))
    loader = DataLoader(
        _Batches(items, [indices.numpy() for indices in dealt], change, seed),
        batch_size=None,
        sampler=range(len(dealt)),
        num_workers=workers,
        collate_fn=_as_it_is,
        # Its own: the global one is the network's.
        generator=torch.Generator(),
        multiprocessing_context="fork" if workers else None,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise JobError(f"a process that decodes images was ended from outside ({reason}): is memory short?") from error


def _as_it_is(batch: Any) -> Any:
    return batch


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """Within it PyTorch, NumPy and Python draw by `seed`; afterwards, outside of a worker, as if nothing had been."""
    is_worker = get_worker_info() is not None
    states = None if is_worker else (torch.get_rng_state(), np.random.get_state(), random.getstate())
    # Not `torch.manual_seed`, which also walks over GPUs.
    torch.default_generator.manual_seed(seed % 2**63)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        if states is not None:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])
