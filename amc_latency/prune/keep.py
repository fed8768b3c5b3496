"""How much of a coupled group, or of a layer's weights, a policy may keep: a bound for all, or by kind of layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from amc_latency.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

KINDS = ("conv", "linear")
"""Of layers with weights. Depthwise and grouped convolutions are convolutions."""
LEAST_KEEP = {"channels": 0.2, "weights": 0.05}
"""Smallest share of a group's channels or of a layer's weights that may be kept, unless set."""
KeepBound = float | Mapping[str, float]
"""A share in (0, 1] for all, or one for some of `KINDS`; the others then have what holds unless set."""


def bound_of(bound: KeepBound | None, kind: str) -> float | None:
    """What `bound` says of a kind of layer, None where it says nothing."""
    return bound.get(kind) if isinstance(bound, Mapping) else bound


def check_bounds(least: KeepBound | None, most: KeepBound | None, unset: float | None = None) -> None:
    """Raise `UserError` for shares that are none, kinds that don't exist and a `least` above `most`.

    `unset` is the least share where `least` says nothing.
    """
    for name, bound in (("min_keep", least), ("max_keep", most)):
        values = bound if isinstance(bound, Mapping) else {} if bound is None else {"": bound}
        for kind, share in values.items():
            if kind and kind not in KINDS:
                raise OptionError(name, f"is for all, or for {' and '.join(KINDS)}: not for '{kind}'")
            if not 0 < share <= 1:
                raise OptionError(name, f"is a share above 0 and at most 1, such as 0.2, not {share:g}")
    for kind in KINDS:
        low, high = bound_of(least, kind), bound_of(most, kind)
        low = unset if low is None else low
        if low is not None and high is not None and low > high:
            raise OptionError(
                ("min_keep", "max_keep"),
                f"of {kind} layers at least {low:g} and at most {high:g} is to be kept, which nothing does: set "
                "`min_keep` and `max_keep` so that the first is not above the second",
            )


def check_used(least: KeepBound | None, most: KeepBound | None, present: Iterable[str], what: str) -> None:
    """Raise `UserError` for a bound of a kind that no `what`, such as "coupled group", is of."""
    missing = set(KINDS) - set(present)
    for name, bound in (("min_keep", least), ("max_keep", most)):
        if isinstance(bound, Mapping) and (unused := sorted(missing & bound.keys())):
            raise OptionError(name, f"{unused[0]}={bound[unused[0]]:g} is for nothing: no {what} is of that kind")


def layer_kinds(model: nn.Module, names: Iterable[str]) -> frozenset[str]:
    """Which of `KINDS` the modules `names` are."""
    # Imported here: the command line reads bounds without PyTorch.
    from amc_latency.graph.registry import channels_of

    return frozenset(channels_of(model.get_submodule(name)).bound for name in names)


def bound_text(bound: KeepBound) -> str:
    """As the command line has it: `0.2`, or `conv=0.2,linear=0.02`."""
    if isinstance(bound, Mapping):
        return ",".join(f"{kind}={share:g}" for kind, share in bound.items())
    return f"{bound:g}"


def parse_bound(text: str | None, name: str) -> KeepBound | None:
    """Read `0.2` or `conv=0.2,linear=0.02`; `UserError` for anything else. `name` is the argument's."""
    if text is None:
        return None
    try:
        if "=" not in text:
            return float(text)
        pairs = [part.partition("=") for part in text.split(",")]
        found = {kind.strip(): float(share) for kind, _, share in pairs}
    except ValueError:
        found = {}
    if not found or len(found) != text.count(",") + 1:
        raise OptionError(name, f"is a share such as 0.2, or one by kind such as conv=0.2,linear=0.02, not '{text}'")
    return found
