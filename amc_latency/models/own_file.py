"""A function of the user's own file: `FILE.py:FUNCTION`, imported, and called with the user's tracebacks, not ours."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from amc_latency.arguments.names import nearest
from amc_latency.errors import UserError

SUFFIX = ".py"


def load_function(text: str) -> Callable[..., Any]:
    """The function that `text`, "FILE.py:FUNCTION", names. The file's folder is on sys.path while its code runs.

    Raises UserError if the file or the function is missing. If the file's own code raises, now or when the function is
    called, its traceback is printed to standard error, without our frames, and the UserError says what it was.
    """
    name, separator, function_name = text.rpartition(":")
    if not separator or not name.endswith(SUFFIX):
        raise UserError(f"{text}: say which function as well: FILE.py:FUNCTION")
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{name}: {'not a file' if path.exists() else 'no such file'} (of {text})")
    module = _imported(path.resolve(), path.stat().st_mtime_ns)
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if inspect.isfunction(value) or inspect.isclass(value)]
        near = nearest(function_name, names)
        hint = f"; did you mean {near}?" if near else f"; it has {', '.join(names)}" if names else ""
        raise UserError(f"{name} has no function {function_name}{hint}")

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with _own_code(path.resolve(), f"{text}: {function_name}()"):
            return function(*args, **kwargs)

    return called


@functools.cache
def _imported(path: Path, changed_ns: int) -> Any:
    """The module of `path`, imported once until the file changes."""
    # Of a name that no package has: a user's file may well be called torch.py.
    spec = importlib.util.spec_from_file_location(f"own_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: its name does not end in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up here.
    sys.modules[spec.name] = module
    with _own_code(path, f"{path}: the file"):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _own_code(path: Path, what: str) -> Iterator[None]:
    """Run the user's code; what it raises becomes a UserError, its traceback printed from the frames of `path` on."""
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    except Exception as error:
        traceback.print_exception(type(error), error, _from(error.__traceback__, path))
        reason = str(error).strip().splitlines() or [""]
        raise UserError(f"{what} raised {type(error).__name__}: {reason[0]}") from None
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _from(found: TracebackType | None, path: Path) -> TracebackType | None:
    """The traceback from the first frame of `path` on; none for a file that can't be parsed."""
    while found is not None and Path(found.tb_frame.f_code.co_filename) != path:
        found = found.tb_next
    return found
