"""How commands and files reach a phone: one interface, whatever carries it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from amc_latency.device.base import DeviceError


class TransportError(DeviceError):
    """The connection was lost, or never came about: `connect` may bring it back."""


class UnauthorizedError(TransportError):
    """The phone does not know this computer's key, or nobody tapped Allow yet."""


class CommandTimeout(DeviceError):
    """A command took too long and was stopped, on the phone too."""


class PushError(DeviceError):
    """A file that did not arrive as it was sent, e.g. because the disk is full."""


class PullError(DeviceError):
    """A file that is not there or cannot be read."""


@dataclass(frozen=True)
class CommandResult:
    """A finished command."""

    code: int
    output: str
    """standard output and standard error, merged"""


class Transport(ABC):
    """A phone at the other end."""

    serial: str
    """what names the phone: its serial number or `host:port`"""

    @abstractmethod
    def connect(self) -> None:
        """Make the connection, anew if it was lost. Raises `TransportError`."""

    @abstractmethod
    def run(self, command: str, timeout_s: float = 30.0) -> CommandResult:
        """Run `command` in the phone's shell.

        Raises `CommandTimeout`, after which nothing of the command runs on the phone any more, and `TransportError`.
        """

    @abstractmethod
    def push(self, files: Mapping[str, bytes], mode: int = 0o644) -> None:
        """Write files, path to content, and verify each by `sha256sum` on the phone; folders must exist.

        Raises `PushError` naming the file and why, and `TransportError`.
        """

    @abstractmethod
    def pull(self, path: str) -> bytes:
        """A file's content. Raises `PullError` and `TransportError`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection; harmless when done twice."""
