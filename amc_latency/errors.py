"""The failures that a user sees as a message, not as a traceback, and the exit code of each."""

_LONGEST = 10_000
"""Characters of a message: what comes from a file may have any number."""


class UserError(Exception):
    """Bad input: what was wrong, where, and what to do. The command line exits with 2.

    Here and in every other message of the library an argument stands in backticks, as `target_ms` or `agent='dp'`; the
    command line puts its option there, see `amc_latency.cli.wording`.
    """


class OptionError(UserError):
    """An argument that can't be taken.

        OptionError("seed", "is 0 or more, not -1")
        OptionError(("rounds", "pareto"), "`rounds` and `pareto` are both many searches: give one of them")

    `fields` are the arguments' names. With one the message begins with it; of several the text names each.
    """

    def __init__(self, field: str | tuple[str, ...], why: str) -> None:
        super().__init__(field, why)
        self.fields = (field,) if isinstance(field, str) else field
        self._text = f"`{field}` {why}" if isinstance(field, str) else why

    def __str__(self) -> str:
        return self._text


class JobError(Exception):
    """A job that failed though its input was good. The command line exits with 1."""


def exit_code(error: Exception) -> int | None:
    """2 for bad input, 1 for a failed job, None for a fault of this program, which deserves its traceback."""
    # Imported here: a command that fails early has not needed them yet.
    from amc_latency.device.base import DeviceError, ProtocolError
    from amc_latency.device.profiles import ProfileError, UnknownDeviceError
    from amc_latency.device.rounds.measure import BadModelError
    from amc_latency.lut.prediction.predict import MissingShapeError
    from amc_latency.lut.shapes.shape import ShapeError
    from amc_latency.lut.table.table import TableError, TableWriteError

    if isinstance(error, ProfileError):
        return 2
    if isinstance(error, JobError | DeviceError | TableWriteError | OSError) or is_out_of_memory(error):
        return 1
    if isinstance(
        error,
        UserError | UnknownDeviceError | ProtocolError | BadModelError | TableError | MissingShapeError | ShapeError,
    ):
        return 2
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: PyTorch says so by a RuntimeError."""
    if type(error).__module__ not in ("builtins", "torch") or not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


def error_text(error: Exception) -> str:
    """What to say of a failure that `exit_code` has a code for."""
    if is_out_of_memory(error):
        return (
            "there was not enough memory for this: close other programs, or take a smaller network, smaller images or "
            "fewer of them"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'writing the output'}: {error.strerror}"
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"


class ExportError(JobError):
    """A network that can't be exported, or a file that doesn't compute what the network computes."""
