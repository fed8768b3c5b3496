"""Commands whose options are the fields of dataclasses; each also takes --quiet and --verbose.

    @command(app, search=SearchConfig)
    def search(console: Console, search: Given, out: OutOption) -> None: ...

has an option for each field of `SearchConfig` that has a help text, and gets those that were given, read into the
field's values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from functools import cache, wraps
from types import GenericAlias
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from amc_latency.cli.wording import Audience

PANELS = ("Target", "Network", "Data", "Search", "Reward", "Training", "Timing", "Device", "Output")
"""The groups of options in `--help`, in this order; an option without one stands above them."""
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="print the result and warnings alone", rich_help_panel="Output")
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="say also what is read from where, and where an error arose", rich_help_panel="Output"
    ),
]
Given = dict[str, Any]
"""Those fields of a dataclass that were given on the command line, by name."""


def option(of: type, name: str, panel: str | None = None) -> Any:
    """The Typer option of a dataclass's field, for a command that takes this one alone."""
    [found] = [each for each in fields(of) if each.name == name]
    return _option(found, panel)


def command(app: typer.Typer, name: str | None = None, **records: type) -> Callable[[Callable[..., None]], None]:
    """Make a function a command of `app`; a parameter named in `records` gets that dataclass's fields."""

    def decorate(function: Callable[..., None]) -> None:
        hints = get_type_hints(function, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name not in (*records, "console", "given")
        ]
        taken = {key: _fields(record) for key, record in records.items()}
        made = [each for record in records.values() for each in _parameters(record)]
        ends = [
            inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=QuietOption),
            inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VerboseOption),
        ]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [context, *sorted((*made, *own, *ends), key=_place)]

        @wraps(function)
        def run(*, context: typer.Context, quiet: bool, verbose: bool, **values: Any) -> None:
            audience = context.ensure_object(Audience)
            audience.hears(quiet, verbose)
            names = {each for each in values if _was_given(context, each)}
            for key in records:
                pairs = {each.name: (each, values.pop(each.name)) for each in taken[key]}
                values[key] = {each: _read(*pair) for each, pair in pairs.items() if each in names}
            wanted = inspect.signature(function).parameters
            supplied = {"console": audience.console(), "given": names}
            function(**values, **{each: value for each, value in supplied.items() if each in wanted})

        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(name)(run)

    return decorate


@cache
def _parameters(record: type) -> list[inspect.Parameter]:
    hints = get_type_hints(record)
    return [_parameter(each, hints[each.name]) for each in _fields(record)]


def _fields(record: type) -> list[Field[Any]]:
    return [each for each in fields(record) if "help" in each.metadata]


def _option(each: Field[Any], panel: str | None = None) -> Any:
    told: Mapping[str, Any] = each.metadata
    spelled = told.get("option") or f"--{each.name.replace('_', '-')}"
    return typer.Option(spelled, help=told["help"], rich_help_panel=told.get("panel") or panel)


def _parameter(each: Field[Any], hint: Any) -> inspect.Parameter:
    kind: Any = hint
    default: Any = each.default
    if each.metadata.get("read") is not None:
        kind, default = str | None, None
    elif get_origin(hint) is tuple:
        kind, default = GenericAlias(list, get_args(hint)[:1]) | None, None
    annotation: Any = Annotated[kind, _option(each)]
    return inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _place(parameter: inspect.Parameter) -> int:
    """Arguments first, then the panels in their order."""
    panels = [getattr(each, "rich_help_panel", None) for each in getattr(parameter.annotation, "__metadata__", ())]
    found = [PANELS.index(panel) for panel in panels if panel in PANELS]
    return found[0] if found else -1


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _read(each: Field[Any], value: Any) -> Any:
    if each.metadata.get("read") is not None:
        return each.metadata["read"](value, each.name)
    return tuple(value) if isinstance(value, list) else value
