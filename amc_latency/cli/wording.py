"""For whom a command speaks: how loud, and by which options it calls the library's arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from amc_latency.console import Console
from amc_latency.errors import OptionError

_ARGUMENT = re.compile(r"`(\w+)(?:=([^`]*))?`")
ALSO = {"table": "lut"}
"""Arguments of the library's calls that have another name on the command line."""

Options = Mapping[str, tuple[str, ...]]
"""How each parameter's option is spelled; a switch with two sides has two."""


def worded(text: str, options: Options) -> str:
    """`text` of the library with options in place of arguments: `agent='dp'` in backticks is --agent dp."""

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        spelled = options.get(ALSO.get(name, name))
        if spelled is None:
            return match[0]
        if value is None:
            return " or ".join(spelled)
        if value in ("True", "False") and (value == "True" or len(spelled) > 1):
            return spelled[value == "False"]
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        return f"{spelled[0]} {value[1:-1] if quoted else value}"

    return _ARGUMENT.sub(option, text)


@dataclass
class Audience:
    """Who called a command: what was said before and after its name, and how options are spelled."""

    spelled: Callable[[], Options] = field(default=dict)
    """asked only where something is to be worded: that takes all commands' options"""
    quiet: bool = False
    verbose: bool = False

    @cached_property
    def _options(self) -> Options:
        return self.spelled()

    def hears(self, quiet: bool, verbose: bool) -> None:
        """Take what was given at one place; given at any it counts. Raises `OptionError` for both."""
        self.quiet, self.verbose = self.quiet or quiet, self.verbose or verbose
        if self.quiet and self.verbose:
            raise OptionError(("quiet", "verbose"), "`quiet` and `verbose` are opposites: give one of them")

    def words(self, text: str) -> str:
        """`text` as this audience reads it."""
        return worded(text, self._options) if "`" in text else text

    def console(self) -> Console:
        """What a command speaks through."""
        return Console(self.quiet, self.verbose, self.words)
