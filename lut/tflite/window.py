"""What a window sees along one side of a feature map, and where TFLite's own padding is just that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Sides = int | tuple[int, int]
"""Of height and width, or of both alike."""


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
        # Imported here: who asks for shapes alone needs no arrays.
        import numpy as np

        first = np.arange(self.outputs(size)) * self.stride - self.padding
        low, high = (-self.padding, size + self.padding) if include_pad else (0, size)
        return np.minimum(first + self.kernel, high) - np.maximum(first, low)


Windows = tuple[Window, Window]
"""Down and across."""


def windows(kernel: Sides | Sequence[int], stride: int, padding: Sides = 0, end: int = 0, dilation: int = 1) -> Windows:
    """The two sides of a window, each as `Window` has it."""
    (height, width), (top, left) = pair(kernel), pair(padding)
    return Window(height, stride, top, end, dilation), Window(width, stride, left, end, dilation)


def pair(sides: Sides | Sequence[int]) -> tuple[int, int]:
    """Height and width."""
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])
