"""What a window sees along one side of a feature map, and where TFLite's own padding is just that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """One side of a window in pixels: `padding` zeros before and after the map, and `end` more after it."""

    kernel: int
    stride: int = 1
    padding: int = 0
    end: int = 0
    dilation: int = 1

    @property
    def reach(self) -> int:
        """Pixels from one end of the window to the other."""
        return self.dilation * (self.kernel - 1) + 1

    def outputs(self, size: int) -> int:
        """Positions of the window, on a map of this size."""
        return (size + 2 * self.padding + self.end - self.reach) // self.stride + 1

    def sides(self, size: int) -> tuple[int, int]:
        """Zeros before and after; of `end` only what some window reads."""
        read = (self.outputs(size) - 1) * self.stride + self.reach - size - 2 * self.padding
        return self.padding, self.padding + min(self.end, max(0, read))

    def is_same(self, size: int) -> bool:
        """Whether TFLite's SAME puts the window on the same pixels.

        SAME gives ceil(size / stride) outputs and puts the odd zero at the end: on an even input, a 3x3 window with
        stride 2 lies one pixel further on than PyTorch's.
        """
        outputs = -(-size // self.stride)
        total = max(0, (outputs - 1) * self.stride + self.reach - size)
        return total // 2 == self.padding and outputs == self.outputs(size)

    def counted(self, size: int, include_pad: bool) -> np.ndarray:
        """How many pixels each output [outputs] averages in PyTorch: `padding` if it counts, never `end`."""
        first = np.arange(self.outputs(size)) * self.stride - self.padding
        low, high = (-self.padding, size + self.padding) if include_pad else (0, size)
        return np.minimum(first + self.kernel, high) - np.maximum(first, low)
