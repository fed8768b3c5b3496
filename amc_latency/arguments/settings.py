"""What a dataclass says of its fields beside name, type and default: help, panel, rule, and how text is read.

The options of the command line are made of it, and nothing of them is written a second time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

from amc_latency.arguments.typed import check_type, typed
from amc_latency.errors import OptionError, UserError

T = TypeVar("T")


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


def refuse_unused(given: Collection[str], unused: Mapping[str, str]) -> None:
    """Raise `OptionError` for an argument that was given though `unused` says why it is for none.

    One that has its default is not in anybody's way.
    """
    for name, why in unused.items():
        if name in given:
            raise OptionError(name, f"would change nothing here: {why}. Leave it out")


def check_names(options: Iterable[str], names: Collection[str], call: str) -> None:
    """Raise `UserError` for an option that the call has not, with those that it has."""
    from amc_latency.arguments.names import known

    for name in options:
        if name not in names:
            raise UserError(f"{call} has no option '{name}'{known(names, name)}")


def names_of(of: type) -> list[str]:
    """The fields of a dataclass that a user may set."""
    return [each.name for each in fields(of) if "help" in each.metadata]


def made(of: type[T], options: Mapping[str, Any], call: str) -> T:
    """The dataclass with the options that a program gave `call`. Raises `UserError` for a name or value that is wrong.

    Where the command line reads text, as for `6M`, text is read in the same way. Paths may be text, tuples lists, and
    numbers those of another library.
    """
    found = of(**read_options(of, options, call))
    check_settings(found)
    return found


def read_options(of: type, options: Mapping[str, Any], call: str) -> dict[str, Any]:
    """`options` as the fields of a dataclass hold them; `UserError` for another name, or a value of another type."""
    check_names(options, names_of(of), call)
    hints = hints_of(of)
    found = {}
    for each in fields(of):
        if each.name in options:
            value, read = options[each.name], each.metadata.get("read")
            if read is not None and isinstance(value, str):
                found[each.name] = read(value, each.name)
            else:
                found[each.name] = typed(each.name, hints[each.name], value)
    return found


def check_settings(config: Any) -> None:
    """Raise `OptionError` for the first field of a dataclass that is of another type, or outside its rule.

    None is within a rule.
    """
    of: type = type(config)
    hints = hints_of(of)
    for each in fields(config):
        value = getattr(config, each.name)
        check_type(each.name, hints[each.name], value)
        rule = each.metadata.get("rule")
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


@cache
def hints_of(of: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(of)
