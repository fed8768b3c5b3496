"""Least squares without negative weights: scipy's own figures, whichever way its routine is reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from amc_latency.lut.prediction import least_squares
from amc_latency.lut.prediction.least_squares import COMPILED, non_negative_weights, routine_of
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls


def problem(seed: int, rows: int, columns: int, alike: bool, signed: bool) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    matrix = draw.random((rows, columns)) - 0.5 * signed
    if alike:
        matrix[:, -1] = matrix[:, 0]
    return matrix, draw.normal(1.0, 1.0, rows)


problems = st.builds(
    problem, st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 5), alike=st.booleans(), signed=st.booleans()
)


@pytest.mark.skipif(routine_of(COMPILED) is None, reason="this scipy has the routine elsewhere")
@given(problems)
def test_the_routine_alone_gives_the_public_functions_figures(problem: tuple[np.ndarray, np.ndarray]) -> None:
    columns, values = problem
    routine = routine_of(COMPILED)
    assert routine is not None
    weights, left, _ = routine(columns, values, 3 * columns.shape[1])
    expected, expected_left = nnls(columns, values)
    assert weights.tolist() == expected.tolist()
    assert left == expected_left


@given(problems)
def test_no_weight_is_negative_and_none_could_be_better(problem: tuple[np.ndarray, np.ndarray]) -> None:
    """The conditions of Karush, Kuhn and Tucker: the residual falls with no weight that may still grow."""
    columns, values = problem
    weights = non_negative_weights(columns, values)
    slopes = columns.T @ (values - columns @ weights)
    assert (weights >= 0).all()
    assert slopes.max() < 1e-8
    assert np.abs(slopes[weights > 0]).max(initial=0.0) < 1e-8


COLD = """
import sys
import numpy as np
from amc_latency.lut.prediction.least_squares import non_negative_weights
weights = non_negative_weights(np.array([[1.0, 2.0], [3.0, 1.0], [0.5, 0.25]]), np.array([1.0, 2.0, -1.0]))
print(*weights.tolist(), "scipy.optimize" in sys.modules)
"""


@pytest.mark.skipif(routine_of(COMPILED) is None, reason="this scipy has the routine elsewhere")
def test_a_process_that_needs_it_alone_imports_no_optimisers() -> None:
    said = subprocess.run([sys.executable, "-P", "-c", COLD], capture_output=True, text=True, check=True).stdout
    expected, _ = nnls(np.array([[1.0, 2.0], [3.0, 1.0], [0.5, 0.25]]), np.array([1.0, 2.0, -1.0]))
    assert said.split() == [*map(repr, expected.tolist()), "False"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_package_of_that_name._lib", None),
        ("scipy.optimize._no_module_of_that_name", None),
        ("scipy.optimize._zeros", None),
        ("broken.inner._lib", "raise OSError('a library that it needs is missing')"),
        ("asks_for_more.inner._lib", "def nnls(columns, values, most, tolerance): ..."),
        ("gives_less.inner._lib", "def nnls(columns, values, most): return [1.5, 0.0]"),
        ("ends_otherwise.inner._lib", "def nnls(columns, values, most): return [1.5, 0.0], 1.0, 0"),
        ("is_wrong.inner._lib", "def nnls(columns, values, most): return [1.5, -1.0], 0.7, 1"),
    ],
)
def test_what_is_not_as_known_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None
) -> None:
    if text is not None:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True)
        (path.parents[1] / "__init__.py").touch()
        path.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
    assert routine_of(name) is None


@pytest.mark.parametrize("routine", [None, lambda columns, values, most: (np.full(columns.shape[1], 7.0), 0.0, 3)])
def test_without_the_routine_or_its_answer_the_public_function_is_asked(
    monkeypatch: pytest.MonkeyPatch, routine: object
) -> None:
    columns, values = problem(1, 20, 4, alike=False, signed=False)
    expected = nnls(columns, values)[0].tolist()
    monkeypatch.delitem(sys.modules, "scipy.optimize")
    monkeypatch.setattr(least_squares, "routine_of", lambda name: routine)
    assert non_negative_weights(columns, values).tolist() == expected


def test_a_figure_that_is_not_finite_is_refused_as_by_the_public_function(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, values = problem(1, 20, 4, alike=False, signed=False)
    columns[3, 1] = np.nan
    monkeypatch.delitem(sys.modules, "scipy.optimize")
    with pytest.raises(ValueError, match="must not contain infs or NaNs"):
        non_negative_weights(columns, values)
