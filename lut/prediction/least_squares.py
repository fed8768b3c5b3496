"""Least squares without negative weights: scipy's routine, without half a second of importing all its optimisers."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

import numpy as np

Routine = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, float, int]]
"""Of columns [m, n], values [m] and the most iterations: weights [n], what is left, and how it ended."""
COMPILED = "scipy.optimize._slsqplib"
"""Where scipy 1.16 and 1.17 have it. No version promises that: what isn't as known here is left alone."""
_SOLVED = 1


def non_negative_weights(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weights [n], none below 0, by which `columns` [m, n] are nearest to `values` [m] (Lawson and Hanson, 1974).

    The figures are those of `scipy.optimize.nnls`, and so are the errors: `ValueError` for what is not finite.
    """
    routine = None if "scipy.optimize" in sys.modules else routine_of(COMPILED)
    if routine is not None and np.isfinite(columns).all() and np.isfinite(values).all():
        weights, _, ended = routine(np.ascontiguousarray(columns, float), np.array(values, float), 3 * columns.shape[1])
        if ended == _SOLVED:
            return weights
    from scipy.optimize import nnls

    return np.asarray(nnls(columns, values)[0])


@functools.cache
def routine_of(name: str) -> Routine | None:
    """`nnls` of the compiled module; None where there is none, or another than is known here."""
    try:
        routine: Routine = _alone(name).nnls
        # (x - 2)^2 + (x - 1)^2 + (y + 1)^2 is least, without negative x and y, at 1.5 and 0.
        weights, _, ended = routine(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([2.0, 1.0, -1.0]), 6)
        return routine if ended == _SOLVED and np.allclose(weights, [1.5, 0.0]) else None
    except Exception:  # whatever another version does: the public function is always there
        return None


def _alone(name: str) -> ModuleType:
    """A module without the packages that it lies in. Raises `ImportError`."""
    package, *inside, _ = name.split(".")
    found = find_spec(package)
    folders = () if found is None else found.submodule_search_locations or ()
    spec = PathFinder.find_spec(name, [str(Path(folder, *inside)) for folder in folders])
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
