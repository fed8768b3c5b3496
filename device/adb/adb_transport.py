"""What both ways to a phone share: exit codes, time-outs that reach the phone, and files that arrive whole."""

from __future__ import annotations

import hashlib
import posixpath
import re
import secrets
import shlex
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from amc_latency.android_bench.safe.text import shown_line
from amc_latency.device.adb.transport import (
    CommandResult,
    CommandTimeout,
    PullError,
    PushError,
    Transport,
    TransportError,
    UnauthorizedError,
)
from amc_latency.device.base import DeviceError

ANSWER_S = 10.0
_SLOW_DISK = 5e6
"""bytes that the slowest phone reads and digests in a second"""
_LATE = "late"
_DISK_FULL = "No space left"
# The command has a session of its own. What counts its time is a bare `sleep`, which can be killed at any moment and
# leaves no child behind; a phone need not have `timeout`, and that program misses what changes its process group.
# A connection that is cut sends SIGHUP to this shell, which must live to keep the time.
_WATCHED = """\
exec </dev/null 2>&1
sleep {timeout} & w=$!
setsid sh -c 'o=$(exec 2>&1; sh -c "$1"; r=$?; echo .; exit $r)
r=$?; {trailer}; kill -s KILL $2' {nonce} {command} $w & p=$!
trap '' HUP
if wait $w 2>/dev/null; then {kill}; o=.; r={late}; {trailer}; fi"""
_UNWATCHED = """\
exec </dev/null 2>&1
o=$(exec 2>&1; {command}
r=$?; echo .; exit $r)
r=$?; {trailer}"""
# The dot kept the line ends before it from the shell, which drops those at the end. A phone's shell has `print` and no
# `printf` of its own, and a program takes only so much in one argument; others have it the other way round.
_TRAILER = (
    r"""o=${{o%.}}; say() {{ printf %s "$o"; }}; [ "$KSH_VERSION" ] && say() {{ print -rn -- "$o"; }}; """
    r"""h=$(say | sha256sum 2>/dev/null); say; printf "\n%s %s %s %s- %s\n" {nonce} $r $r "${{h%% *}}" {nonce}"""
)
# `pkill` finds those of the session that have left the group of its leader, such as the children of `timeout`.
_KILL_SESSION = "{{ kill -s KILL -- -$p; pkill -KILL -s $p .; }} 2>/dev/null"
_KILL_LEFTOVERS = """\
for f in $(grep -l -E {pattern} /proc/[0-9]*/cmdline 2>/dev/null); do f=${{f#/proc/}}; p=${{f%/cmdline}}; {kill}; done
true"""


class Refused(Exception):
    """The phone answered that it cannot do what was asked: its reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(shown_line(reason))


class CommandTooLongError(DeviceError):
    """A command that does not fit into what the phone takes in one piece; nothing was sent."""


class AdbTransport(Transport):
    """A phone behind some connection; a subclass knows how to make it and how bytes pass.

    `answer_s` is how long the phone may take to answer when nothing keeps it from answering.
    """

    def __init__(self, serial: str, answer_s: float = ANSWER_S) -> None:
        self.serial = serial
        self.answer_s = answer_s
        self._connected = False
        self._unfinished: list[str] = []
        """nonces of commands that may still run on the phone"""

    @abstractmethod
    def _connect(self) -> None:
        """Make the connection. Raises `TransportError`."""

    @abstractmethod
    def _disconnect(self) -> None:
        """End the connection, if there is one."""

    @abstractmethod
    def _longest_command(self) -> int:
        """Bytes of a command that the phone takes in one piece."""

    @abstractmethod
    def _execute(self, command: str, timeout_s: float) -> bytes:
        """All that a shell command prints. Raises `TransportError`, also after `timeout_s`."""

    @abstractmethod
    def _send(self, path: str, content: bytes, mode: int) -> None:
        """Write a file. Raises `Refused` and `TransportError`."""

    @abstractmethod
    def _receive(self, path: str) -> bytes:
        """Read a file. Raises `Refused` and `TransportError`."""

    def connect(self) -> None:
        """Make the connection, anew if it was lost, and stop what ran when it was. Raises `TransportError`."""
        self.close()
        try:
            self._connect()
            self._connected = True
            if self._unfinished:
                # The brackets keep the pattern from finding the command line that it stands in.
                pattern = shlex.quote("|".join(f"[{nonce[0]}]{nonce[1:]}" for nonce in self._unfinished))
                self._unwatched(_KILL_LEFTOVERS.format(pattern=pattern, kill=_KILL_SESSION.format()))
                self._unfinished.clear()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection; harmless when done twice."""
        self._connected = False
        self._disconnect()

    def run(self, command: str, timeout_s: float = 30.0) -> CommandResult:
        """Run `command` in the phone's shell, with no input.

        What it leaves in the background stays only if it was started by `setsid` and keeps no hold of the output.
        Raises `CommandTimeout`, after which nothing of the command runs on the phone any more, and `TransportError`;
        what runs when the connection is lost is stopped by `connect`, or by the phone after `timeout_s`.
        """
        nonce = secrets.token_hex(8)
        script = _WATCHED.format(
            timeout=f"{timeout_s:.3f}".rstrip("0").rstrip("."),
            command=shlex.quote(command),
            kill=_KILL_SESSION.format(),
            late=_LATE,
            nonce=nonce,
            trailer=_TRAILER.format(nonce=nonce),
        )
        self._unfinished.append(nonce)
        output, code = self._framed(script, nonce, timeout_s + self.answer_s)
        self._unfinished.remove(nonce)
        if code == _LATE:
            raise CommandTimeout(f"{self.serial}: stopped after {timeout_s:g} s: {_shortened(command)}")
        return CommandResult(int(code), output)

    def push(self, files: Mapping[str, bytes], mode: int = 0o644) -> None:
        """Write files, path to content, and verify each by `sha256sum` on the phone; folders must exist.

        A file that arrives changed is sent once more. Raises `PushError` naming the file and why, and
        `TransportError`.
        """
        remaining = dict(files)
        for _ in range(2):
            for path, content in remaining.items():
                with self._dropped_when_lost():
                    try:
                        self._send(path, content, mode)
                    except Refused as error:
                        raise self._push_error(path, str(error)) from error
            sums = self._sha256(list(remaining), mode, sum(map(len, remaining.values())))
            remaining = {
                path: content
                for path, content in remaining.items()
                if sums[path] != hashlib.sha256(content).hexdigest()
            }
            if not remaining:
                return
        raise self._push_error(next(iter(remaining)), "it arrives changed, and did so twice")

    def pull(self, path: str) -> bytes:
        """A file's content, verified by `sha256sum` on the phone; one that grows meanwhile may lack its new end.

        Raises `PullError` and `TransportError`.
        """
        for _ in range(2):
            with self._dropped_when_lost():
                try:
                    content = self._receive(path)
                except Refused as error:
                    raise PullError(f"{self.serial}: cannot read {path}: {error}") from error
            name = shlex.quote(path)
            command = f"sha256sum <{name} && head -c {len(content)} <{name} | sha256sum"
            code, output = self._unwatched(command, len(content))
            if code:
                raise self._no_sha256(PullError, path, code, output)
            if hashlib.sha256(content).hexdigest() in output:
                return content
        raise PullError(f"{self.serial}: {path} arrives changed, and did so twice")

    def _sha256(self, paths: Sequence[str], mode: int, size: int) -> dict[str, str]:
        """What the phone says that each file holds; also sets the mode, which a phone does not do by itself."""
        sums: dict[str, str] = {}
        for part in self._in_commands(paths):
            names = " ".join(map(shlex.quote, part))
            code, output = self._unwatched(f"chmod {mode:o} {names} && sha256sum {names}", size)
            if code == 127:
                raise self._no_sha256(PushError, part[0], code, output)
            found = re.findall(r"^\\?([0-9a-f]{64}) ", output, re.MULTILINE)
            if len(found) == len(part):
                sums |= zip(part, found, strict=True)
            elif len(part) == 1:
                raise self._push_error(part[0], shown_line(output.strip()) or "it is not there afterwards")
            else:
                # Something else is in the output, so that lines and files may not correspond: one at a time.
                for path in part:
                    sums |= self._sha256([path], mode, size)
        return sums

    def _in_commands(self, paths: Sequence[str]) -> Iterator[list[str]]:
        """The paths in as few parts as fit into commands, in which each stands twice."""
        room = (self._longest_command() - 512) // 2
        part: list[str] = []
        used = 0
        for path in paths:
            size = len(shlex.quote(path).encode()) + 1
            if part and used + size > room:
                yield part
                part, used = [], 0
            part.append(path)
            used += size
        if part:
            yield part

    def _push_error(self, path: str, why: str) -> PushError:
        if _DISK_FULL in why:
            report = ""
            with suppress(DeviceError):
                _, report = self._unwatched(f"df -h {shlex.quote(posixpath.dirname(path))}")
            left = shown_line(" ".join(report.splitlines()[-1:]))
            why = f"the phone's disk is full, make room there ({why}; df: {left})"
        return PushError(f"{self.serial}: cannot push {path}: {why}")

    def _no_sha256(self, kind: type[DeviceError], path: str, code: int, output: str) -> DeviceError:
        why = "the phone has no `sha256sum`, so it cannot be verified; its Android may be too old"
        return kind(f"{self.serial}: {path}: {why if code == 127 else shown_line(output.strip())}")

    def _unwatched(self, command: str, size: int = 0) -> tuple[int, str]:
        """Exit code and output of a command that is sure to end by itself, soon; it reads `size` bytes."""
        nonce = secrets.token_hex(8)
        script = _UNWATCHED.format(command=command, trailer=_TRAILER.format(nonce=nonce))
        output, code = self._framed(script, nonce, self.answer_s + size / _SLOW_DISK)
        return int(code), output

    def _framed(self, script: str, nonce: str, timeout_s: float) -> tuple[str, str]:
        """What a script prints before the trailer that ends it, and the code in that.

        The trailer says the code twice between words that nobody can guess, and the output's checksum where the phone
        has `sha256sum`: what is cut off or garbled is never taken for a result.
        """
        with self._dropped_when_lost():
            if len(script.encode()) > self._longest_command():
                raise CommandTooLongError(
                    f"{self.serial} takes no command of {len(script)} bytes: push it as a script and run that"
                )
            output = self._execute(script, timeout_s)
            trailer = re.search(rf"\n{nonce} ([0-9]{{1,3}}|{_LATE}) \1 ([0-9a-f]{{64}})?- {nonce}\n".encode(), output)
            if trailer is None:
                raise TransportError(f"{self.serial}: the connection was lost in the middle of a command")
            said = output[: trailer.start()]
            if trailer[2] and hashlib.sha256(said).hexdigest() != trailer[2].decode():
                raise TransportError(f"{self.serial}: what a command printed did not arrive as it was")
            return said.decode(errors="replace"), trailer[1].decode()

    @contextmanager
    def _dropped_when_lost(self) -> Iterator[None]:
        """Close the connection when anything but an answer of the phone's comes out of it: its state is unknown."""
        if not self._connected:
            raise TransportError(f"{self.serial} is not connected")
        try:
            yield
        except (PushError, PullError, CommandTooLongError):
            raise
        except BaseException:
            self.close()
            raise


def unauthorized(serial: str) -> UnauthorizedError:
    """For a phone that does not know this computer's key."""
    return UnauthorizedError(
        f"{serial} does not know this computer yet: unlock the phone, tap Allow where it asks about USB debugging, "
        "and try again"
    )


def _shortened(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= 120 else f"{line[:117]}..."
