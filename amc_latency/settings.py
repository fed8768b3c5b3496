"""What a dataclass says of its fields beside name, type and default: help, panel, rule, and how text is read.

The options of the command line are made of it, and nothing of them is written a second time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from amc_latency.errors import OptionError, UserError


@dataclass(frozen=True)
class Rule:
    """A bound of a field: `holds`, or else the message is that the field "`says`, not VALUE"."""

    holds: Callable[[Any], bool]
    says: str


def at_least(least: float) -> Rule:
    """Of a number with a lower end."""
    return Rule(lambda value: least <= value < math.inf, f"is at least {least:g}")


def between(least: float, most: float, says: str) -> Rule:
    """Of a number with two ends, both within."""
    return Rule(lambda value: least <= value <= most, says)


def positive(what: str) -> Rule:
    """Of a finite number above 0; `what` says more of it."""
    return Rule(lambda value: 0 < value < math.inf, f"is a positive number{what}")


def setting(
    default: Any,
    help: str,
    panel: str | None = None,
    *,
    rule: Rule | None = None,
    read: Callable[[str, str], Any] | None = None,
    option: str | None = None,
) -> Any:
    """A dataclass's field.

    `read` takes the text that stands on the command line and the field's name, and raises `OptionError`. `option` is
    how the option is spelled where the field's name does not say so, as `--warm-start/--cold-start`.
    """
    return field(default=default, metadata={"help": help, "panel": panel, "rule": rule, "read": read, "option": option})


def same(of: type, name: str) -> Any:
    """The field `name` of another dataclass, here with the same name."""
    [other] = [each for each in fields(of) if each.name == name]
    return field(default=other.default, metadata=other.metadata)


def check_names(options: Iterable[str], names: Collection[str], call: str) -> None:
    """Raise `UserError` for an option that the call has not, with the nearest that it has."""
    from amc_latency.names import nearest

    for name in options:
        if name not in names:
            raise UserError(f"{call} has no option {name!r}; did you mean {nearest(name, list(names))!r}?")


def names_of(of: type) -> list[str]:
    """The fields of a dataclass that a user may set."""
    return [each.name for each in fields(of) if "help" in each.metadata]


def check_rules(config: Any) -> None:
    """Raise `OptionError` for the first field of a dataclass that is outside its rule; None is within."""
    for each in fields(config):
        rule, value = each.metadata.get("rule"), getattr(config, each.name)
        if rule is None or value is None:
            continue
        try:
            holds = rule.holds(value)
        except OptionError:
            raise
        except UserError as error:
            raise OptionError((each.name,), f"`{each.name}`: {error}") from None
        if not holds:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise OptionError(each.name, f"{rule.says}, not {shown}")
