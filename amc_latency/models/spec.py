"""Which network is meant: its name, and what it takes to build it anew. Costs no torch import."""

from __future__ import annotations

import re
from dataclasses import dataclass

from amc_latency.errors import UserError

MODULE = "module:"
"""Before the class's name of a module that a program handed over: no name can build it anew."""


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build a network anew, without its weights."""

    name: str = "mobilenet_v1"
    """one of `registry.known_models()`, torchvision:NAME, timm:NAME or FILE.py:FUNCTION"""
    width: float = 1.0
    """channel multiplier of the uncut network"""
    input: tuple[int, int, int] = (3, 224, 224)
    """channels, height, width of one image"""
    classes: int = 1000
    """number of logits"""
    channels: tuple[int, ...] | None = None
    """channel counts of a cut network, one a coupled group; None for the uncut one"""


def names_own_file(name: str) -> bool:
    """Whether `name` is meant as FILE.py:FUNCTION."""
    return name.partition(":")[0].endswith(".py") or ".py:" in name


def parse_input(text: str) -> tuple[int, int, int]:
    """Read "CxHxW", such as "3x224x224", as (channels, height, width); UserError for anything else."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})", text.strip(), re.ASCII)
    if match is None:
        raise UserError(f'input "{text}" is not CHANNELSxHEIGHTxWIDTH; write it like 3x224x224')
    channels, height, width = map(int, match.groups())
    return channels, height, width
