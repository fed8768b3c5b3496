"""The single layers of a table with what they take, of which only those that are asked for become shapes.

A table may have a hundred thousand layers that differ in their channels only: these stay numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

import numpy as np
from amc_latency.lut.shapes.family import Family, family
from amc_latency.lut.shapes.shape import NOOP, LayerShape, frame_of, is_network, parse_shape

_Members = tuple[list[tuple[int, int]], list[float]]
Points = tuple[np.ndarray, np.ndarray]
"""Of a family's timed layers: channels in and out [n, 2], and microseconds [n]."""


class TimedLayers(Mapping[LayerShape, float]):
    """Microseconds by layer, from those by key; keys of networks are left out."""

    def __init__(self, latencies_us: Mapping[str, float]) -> None:
        self._us: dict[str, float] = {}
        """by the shape's own text"""
        self._first: dict[Family, LayerShape] = {}
        self._families: dict[Family, _Members] = {}
        frames: dict[tuple[str, str, str], _Members] = {}
        for key, us in latencies_us.items():
            if (frame := frame_of(key)) is not None:
                own = frames.get(frame[0])
                if own is not None:
                    self._us[key] = us
                    own[0].append(frame[1:])
                    own[1].append(us)
                    continue
            elif is_network(key):
                continue
            shape = parse_shape(key)
            text = shape.text
            if text in self._us or (text != key and text in latencies_us):
                # Zeros before a number: the same layer under two keys, which nobody writes.
                self._take_shapes(latencies_us)
                return
            self._us[text] = us
            own = self._add(shape, us)
            if frame is not None and text == key:
                frames[frame[0]] = own

    def __getitem__(self, shape: LayerShape) -> float:
        return self._us[shape.text]

    def __contains__(self, shape: object) -> bool:
        return isinstance(shape, LayerShape) and shape.text in self._us

    def __iter__(self) -> Iterator[LayerShape]:
        return map(parse_shape, self._us)

    def __len__(self) -> int:
        return len(self._us)

    @classmethod
    def of_shapes(cls, latencies_us: Mapping[LayerShape, float]) -> Self:
        """The same from shapes that are there already."""
        return cls({shape.text: us for shape, us in latencies_us.items()})

    @property
    def families(self) -> dict[Family, Points]:
        """The points of each family that has any, in the order of the table: the no-op is none."""
        found: dict[Family, Points] = {}
        for name, (counts, us) in self._families.items():
            points, latencies_us = np.array(counts, float), np.array(us, float)
            # Nothing can be read between layers that took no time, such as a coarse log has.
            taken = latencies_us > 0
            if name == family(NOOP):
                taken &= (points != 1).any(axis=1)
            if taken.any():
                found[name] = points[taken], latencies_us[taken]
        return found

    @property
    def by_channels(self) -> list[tuple[LayerShape, list[tuple[int, int]], list[float]]]:
        """Of each family its first layer, the channels in and out of all, and their microseconds."""
        return [(self._first[name], *own) for name, own in self._families.items()]

    def _add(self, shape: LayerShape, us: float) -> _Members:
        name = family(shape)
        self._first.setdefault(name, shape)
        own = self._families.setdefault(name, ([], []))
        own[0].append((shape.c_in, shape.c_out))
        own[1].append(us)
        return own

    def _take_shapes(self, latencies_us: Mapping[str, float]) -> None:
        shapes = {parse_shape(key): us for key, us in latencies_us.items() if not is_network(key)}
        self._us = {shape.text: us for shape, us in shapes.items()}
        self._first.clear()
        self._families.clear()
        for shape, us in shapes.items():
            self._add(shape, us)
