"""When two computations of the same outputs are the same but for rounding: the one place that says so.

A share of the outputs' range alone will not do: the range of one number is 0, and a sum that comes out near 0 is as far
off as its terms are large. So what is allowed is a share of the range with 0 counted in, plus an absolute figure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    Values = np.ndarray | torch.Tensor

ABSOLUTE = 1e-5
"""What float32 may be off by in a sum of terms of about 1, as the last layer's are; about 100 times its rounding."""


def output_range(expected: Values) -> float:
    """Largest less smallest value, 0 counted in: of one number, how far it is from 0."""
    values = _array(expected)
    return float(max(values.max(), 0) - min(values.min(), 0))


def allowed(expected: Values, relative: float, absolute: float = ABSOLUTE) -> float:
    """How far a value may be from `expected`: a share of its range, 0 counted in, and `absolute`, in its own unit.

    NaN, which nothing is within, where a value of `expected` is infinite or NaN.
    """
    most = relative * output_range(expected) + absolute
    return most if bool(np.isfinite(_array(expected)).all()) else math.nan


def difference(got: Values, expected: Values) -> float:
    """The largest distance of two values; NaN where one is. Raises ValueError for unlike shapes."""
    a, b = _array(got), _array(expected)
    if a.shape != b.shape:
        raise ValueError(f"{list(a.shape)} can't be compared with {list(b.shape)}")
    with np.errstate(invalid="ignore"):
        return float(np.abs(a - b).max())


def close(got: Values, expected: Values, relative: float, absolute: float = ABSOLUTE) -> bool:
    """Whether both have one shape, all values are finite, and none is further from `expected`'s than `allowed`."""
    same_shape = _array(got).shape == _array(expected).shape
    return same_shape and difference(got, expected) <= allowed(expected, relative, absolute)


def _array(values: Values) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.detach().double().cpu().numpy()
