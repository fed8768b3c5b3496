"""Which precisions a table is made for."""

from __future__ import annotations

from collections.abc import Sequence

from amc_latency.arguments.names import unknown
from amc_latency.errors import OptionError
from amc_latency.lut.shapes.precisions import FLOAT32, PRECISIONS


def parse_precisions(text: str, name: str = "precision") -> tuple[str, ...]:
    """Read "float32,int8"."""
    return tuple(each.strip() for each in text.split(",") if each.strip())


def check_precisions(names: Sequence[str]) -> None:
    """Raise `OptionError` for a precision that there is not, if float32 is missing, or if one is twice."""
    for name in names:
        if name not in PRECISIONS:
            raise OptionError("precision", f"is of precisions: {unknown(PRECISIONS, name, 'precision')}")
    if FLOAT32 not in names or len(set(names)) < len(names):
        raise OptionError("precision", "is float32, for layers that can be nothing else, and others, each once")
