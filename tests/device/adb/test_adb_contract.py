"""What every transport promises, on every kind of phone: real sockets, real shells, the real adb server."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from amc_latency.device.adb.adb_direct import DirectTransport
from amc_latency.device.adb.adb_server import ServerTransport
from amc_latency.device.adb.adb_transport import AdbTransport
from amc_latency.device.adb.transport import CommandResult, CommandTimeout, PullError, PushError, TransportError
from amc_latency.device.base import DeviceError

from tests.fake_phone.adbd import FakeAdbd
from tests.fake_phone.faults import Fault

TMP = "/data/local/tmp"
KINDS: dict[str, dict[str, Any]] = {
    "v2": {},
    "v1": {"shell_v2": False},
    "small": {"shell_v2": False, "maxdata": 4096},
    "toybox": {"shell": ("mksh", "-c")},
}
PROGRAMS = "sleep setsid sha256sum chmod df head pkill grep cat timeout ls rm seq dd yes echo true"


class Phone:
    """A fake phone, and ways to it."""

    def __init__(self, daemon: FakeAdbd, kind: type[AdbTransport]) -> None:
        self.daemon = daemon
        self.root = Path(daemon.root)
        self._kind = kind
        self._opened: list[AdbTransport] = []

    def transport(self, answer_s: float = 20.0) -> AdbTransport:
        """A connected one."""
        transport = self._kind(self.daemon.address, answer_s)
        self._opened.append(transport)
        transport.connect()
        return transport

    def close(self) -> None:
        """Close all."""
        for transport in self._opened:
            transport.close()


def has_toybox(folder: Path) -> None:
    """Give the phone Android's own programs, toybox's, and its shell, mksh."""
    for program, package in (("toybox", "toybox"), ("mksh", "mksh")):
        if not shutil.which(program):
            pytest.skip(f"needs {package}: apt-get install {package}")
    folder.mkdir()
    toybox = str(shutil.which("toybox"))
    for name in PROGRAMS.split():
        (folder / name).symlink_to(toybox)
    (folder / "sh").symlink_to(str(shutil.which("mksh")))
    (folder / "mksh").symlink_to(str(shutil.which("mksh")))


@pytest.fixture(params=["direct", "server"])
def kind(request: pytest.FixtureRequest, own_adb: None) -> type[AdbTransport]:
    if request.param == "server":
        request.getfixturevalue("adb")
        return ServerTransport
    return DirectTransport


@pytest.fixture(params=list(KINDS))
def any_phone(request: pytest.FixtureRequest, tmp_path: Path, kind: type[AdbTransport]) -> Iterator[Phone]:
    """Each kind of phone."""
    if request.param == "toybox":
        has_toybox(tmp_path / "bin")
    with FakeAdbd(tmp_path, auth="ask", **KINDS[request.param]) as daemon:
        yield from phone_of(daemon, kind)


@pytest.fixture
def phone(tmp_path: Path, kind: type[AdbTransport]) -> Iterator[Phone]:
    """A plain phone."""
    with FakeAdbd(tmp_path, auth="ask") as daemon:
        yield from phone_of(daemon, kind)


def phone_of(daemon: FakeAdbd, kind: type[AdbTransport]) -> Iterator[Phone]:
    phone = Phone(daemon, kind)
    try:
        yield phone
    finally:
        phone.close()


def running(words: str) -> list[str]:
    """Command lines on this machine that contain `words`, of processes that are not dead."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if words in line and "\nState:\tZ" not in (path / "status").read_text():
                found.append(line)
    return found


def gone(words: str, within_s: float = 40.0) -> bool:
    """Whether nothing of the kind runs, soon."""
    deadline = time.monotonic() + within_s
    while running(words) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not running(words)


def long_sleep() -> str:
    """A command that nobody else runs."""
    return f"sleep 3{random.SystemRandom().randrange(10**9)}"


def until(true: Callable[[], object], within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_exit_codes_and_output(any_phone: Phone) -> None:
    transport = any_phone.transport()
    assert transport.run("echo out; echo err >&2; exit 7") == CommandResult(7, "out\nerr\n")
    assert transport.run("true") == CommandResult(0, "")
    assert transport.run("printf 'no end of line'") == CommandResult(0, "no end of line")
    assert transport.run("exit 255").code == 255
    assert transport.run("kill -9 $$").code == 137
    assert transport.run("cat").output == ""
    assert transport.run("""echo "it's" 'a "b"' \\$HOME""").output == 'it\'s a "b" $HOME\n'
    assert transport.run("exec sh -c 'exit 9'").code == 9
    assert transport.run("no-such-program").code == 127
    assert transport.run("if true; then").code != 0
    assert transport.run("printf '\\377z'").output == "\ufffdz"


def test_three_megabytes_of_output(any_phone: Phone) -> None:
    output = any_phone.transport().run("yes 0123456789abcde | head -c 3000000").output
    assert output == ("0123456789abcde\n" * (3_000_000 // 16 + 1))[:3_000_000]


def test_files_of_all_sizes_and_names_go_there_and_back(any_phone: Phone) -> None:
    content = random.Random(1)
    files = {
        f"{TMP}/empty": b"",
        f"{TMP}/every byte": bytes(range(256)) * 3,
        f'{TMP}/it\'s "quoted" $HOME `x` *, {{}};&': b"quoted",
        f"{TMP}/grüße,755": b"utf-8",
        f"{TMP}/-n": b"\n",
        f"{TMP}/large": content.randbytes(2_500_000),
        **{f"{TMP}/{n:064x}.tflite": content.randbytes(n) for n in range(120)},
    }
    transport = any_phone.transport()
    transport.push(files)
    for path, data in files.items():
        assert (any_phone.root / path[1:]).read_bytes() == data
    for path in list(files)[:7]:
        assert transport.pull(path) == files[path]
    assert (any_phone.root / f"{TMP[1:]}/large").stat().st_mode & 0o777 == 0o644


def test_a_program_is_pushed_over_and_runs(any_phone: Phone) -> None:
    transport = any_phone.transport()
    for answer in ("first", "second"):
        transport.push({f"{TMP}/program": f"#!/bin/sh\necho {answer}\n".encode()}, mode=0o755)
        assert transport.run(f"{TMP}/program") == CommandResult(0, f"{answer}\n")


@pytest.mark.parametrize(
    "command",
    [
        "{0}",
        "{0} & {0}",
        "( sh -c 'trap \"\" TERM HUP INT; {0}; true' )",
        "timeout 999 {0}",
        "{0} | cat",
    ],
)
def test_a_time_out_stops_all_that_the_command_started(any_phone: Phone, command: str) -> None:
    sleep = long_sleep()
    transport = any_phone.transport()
    with pytest.raises(CommandTimeout, match=r"stopped after 0\.2 s"):
        transport.run(command.format(sleep), timeout_s=0.2)
    assert gone(sleep)
    assert transport.run("echo well").output == "well\n"


def test_nothing_stays_behind_that_kept_the_time(any_phone: Phone) -> None:
    transport = any_phone.transport()
    assert transport.run("echo quick", timeout_s=4321.25).output == "quick\n"
    assert gone("sleep 4321.25")


def test_what_is_detached_survives_the_connection(any_phone: Phone) -> None:
    transport = any_phone.transport()
    done = any_phone.root / "done"
    transport.run(f"setsid sh -c 'sleep 0.5; echo yes > {done}' >/dev/null 2>&1 </dev/null &")
    transport.close()
    any_phone.daemon.cut()
    until(lambda: done.exists() and done.read_text() == "yes\n")


def test_a_silent_phone_is_given_up(phone: Phone) -> None:
    transport = phone.transport(answer_s=1.0)
    phone.daemon.faults.add(Fault("hang"))
    with pytest.raises(TransportError, match=f"^{phone.daemon.address} does not answer"):
        transport.run("echo never", timeout_s=0.2)
    transport.connect()
    assert transport.run("echo back").output == "back\n"


def test_what_a_lost_connection_leaves_running_is_stopped_by_the_next(any_phone: Phone) -> None:
    sleep = long_sleep()
    transport = any_phone.transport()
    threading.Timer(0.3, any_phone.daemon.cut).start()
    with pytest.raises(TransportError):
        transport.run(f"echo started; {sleep}", timeout_s=600)
    assert running(sleep)
    transport.connect()
    assert gone(sleep)


def test_without_another_connection_the_phone_itself_keeps_the_time(any_phone: Phone) -> None:
    sleep = long_sleep()
    transport = any_phone.transport()
    threading.Timer(0.3, any_phone.daemon.cut).start()
    with pytest.raises(TransportError):
        transport.run(f"echo started; {sleep}", timeout_s=0.5)
    assert gone(sleep)


DATA = random.Random(2).randbytes(300_000)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", on="run"),
        Fault("cut", on="run", after=1),
        Fault("cut", on="run", after=1 << 30),
        Fault("cut", on="push"),
        Fault("cut", on="push", after=100_000),
        Fault("cut", on="push", after=1 << 30),
        Fault("cut", on="pull"),
        Fault("cut", on="pull", after=100_000),
        Fault("cut", on="receive", after=150_000),
        Fault("cut", on="push", after=5000, seconds=0.3),
        Fault("truncate", on="run", after=5),
        Fault("hang", on="push", after=5),
        Fault("hang", on="pull", after=5),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.on}-{fault.after}",
)
def test_after_a_lost_connection_all_is_well_again(phone: Phone, fault: Fault) -> None:
    transport = phone.transport(answer_s=1.0 if fault.kind == "hang" else 20.0)

    def work() -> None:
        transport.push({f"{TMP}/data": DATA})
        assert transport.run("echo hello; exit 3") == CommandResult(3, "hello\n")
        assert transport.pull(f"{TMP}/data") == DATA

    work()
    phone.daemon.faults.add(fault)
    with pytest.raises(TransportError):
        work()
    assert phone.daemon.faults.fired == [fault]
    with pytest.raises(TransportError, match="is not connected"):
        transport.run("true")

    def connected() -> bool:
        with contextlib.suppress(TransportError):
            transport.connect()
            return True
        return False

    until(connected)
    work()


def test_a_full_disk_is_named(any_phone: Phone) -> None:
    transport = any_phone.transport()
    for size, after in ((100, 0), (2_000_000, 70_000)):
        any_phone.daemon.faults.add(Fault("full", on="push", after=after, matching="large"))
        with pytest.raises(PushError, match=rf"cannot push {TMP}/large: the phone's disk is full.*df: .*[0-9]+%"):
            transport.push({f"{TMP}/before": b"1", f"{TMP}/large": bytes(size)})
    assert transport.run("echo well").output == "well\n"


@pytest.mark.parametrize("change", ["garble", "truncate"])
def test_a_push_that_arrives_changed_is_repeated_once(phone: Phone, change: Any) -> None:
    transport = phone.transport()
    fault = Fault(change, on="push", after=1000, matching="second")
    files = {f"{TMP}/first": b"1" * 5000, f"{TMP}/second": b"2" * 5000}
    phone.daemon.faults.add(fault)
    transport.push(files)
    assert (phone.root / f"{TMP[1:]}/second").read_bytes() == b"2" * 5000
    phone.daemon.faults.add(fault, fault)
    with pytest.raises(PushError, match=f"cannot push {TMP}/second: it arrives changed, and did so twice"):
        transport.push(files)
    assert phone.daemon.faults.fired == [fault] * 3


def test_a_pull_that_arrives_changed_is_repeated_once(phone: Phone) -> None:
    transport = phone.transport()
    (phone.root / f"{TMP[1:]}/file").write_bytes(DATA)
    fault = Fault("garble", on="pull", after=77_777)
    phone.daemon.faults.add(fault)
    assert transport.pull(f"{TMP}/file") == DATA
    phone.daemon.faults.add(fault, fault)
    with pytest.raises(PullError, match="file arrives changed, and did so twice"):
        transport.pull(f"{TMP}/file")


def test_a_file_that_grows_while_it_is_pulled_is_no_error(phone: Phone) -> None:
    transport = phone.transport()
    (phone.root / f"{TMP[1:]}/log").write_bytes(b"row\n" * 1000)
    # The phone's own `sha256sum` lets a row be written first.
    program = phone.root / "bin" / "sha256sum"
    program.write_text(f'#!/bin/sh\necho more >> {phone.root}{TMP}/log\nexec {shutil.which("sha256sum")} "$@"\n')
    program.chmod(0o755)
    assert transport.pull(f"{TMP}/log") == b"row\n" * 1000


def test_missing_files_and_folders_are_named(any_phone: Phone) -> None:
    transport = any_phone.transport()
    (any_phone.root / "file").write_bytes(b"")
    with pytest.raises(PullError, match="cannot read /data/local/tmp/none: No such file"):
        transport.pull(f"{TMP}/none")
    with pytest.raises(PushError, match=r"cannot push /file/below: .*(Not a directory|File exists)"):
        transport.push({"/file/below": b"x"})
    assert transport.run("echo well").output == "well\n"


def test_a_phone_without_sha256sum_is_told_so(phone: Phone) -> None:
    program = phone.root / "bin" / "sha256sum"
    program.write_text("#!/bin/sh\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(PushError, match="the phone has no `sha256sum`"):
        phone.transport().push({f"{TMP}/x": b"x"})


@pytest.mark.parametrize("position", range(0, 50, 7))
def test_garbled_output_never_gives_a_wrong_exit_code(phone: Phone, position: int) -> None:
    transport = phone.transport()
    phone.daemon.faults.add(Fault("garble", after=position))
    try:
        result = transport.run("echo 0123456789; exit 3")
    except TransportError:
        return
    assert result.code == 3
    assert position < len("0123456789\n")


def test_a_command_of_any_length_runs_or_is_refused(any_phone: Phone) -> None:
    transport = any_phone.transport()
    ran = 0
    for size in (1000, 3000, 5000, 50_000, 500_000):
        with contextlib.suppress(DeviceError):
            ran += transport.run(f": {'x' * size}; echo done").output == "done\n"
            continue
        with pytest.raises(DeviceError, match="push it as a script"):
            transport.run(f": {'x' * size}")
    assert 2 <= ran <= 4


def test_closing_twice_is_harmless_and_ends_the_connection(any_phone: Phone) -> None:
    transport = any_phone.transport()
    transport.close()
    transport.close()
    for use in (lambda: transport.run("true"), lambda: transport.pull("/x"), lambda: transport.push({"/x": b""})):
        with pytest.raises(TransportError, match=re.escape(f"{any_phone.daemon.address} is not connected")):
            use()
    transport.connect()
    assert transport.run("echo again").output == "again\n"


def test_an_interrupted_command_leaves_no_half_read_answer(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = phone.transport()
    original = transport._execute

    def interrupted(command: str, timeout_s: float) -> bytes:
        monkeypatch.setattr(transport, "_execute", original)
        raise KeyboardInterrupt

    monkeypatch.setattr(transport, "_execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        transport.run("echo lost")
    with pytest.raises(TransportError, match="is not connected"):
        transport.run("true")
    transport.connect()
    assert transport.run("echo found").output == "found\n"


def test_keys_of_this_computer_are_where_adb_has_them(tmp_path: Path, kind: type[AdbTransport], adb_home: Path) -> None:
    with FakeAdbd(tmp_path, auth="ask") as daemon:
        for phone in phone_of(daemon, kind):
            phone.transport()
            assert len(daemon.known_keys) == 1
    key = adb_home / ".android" / "adbkey"
    assert key.stat().st_mode & 0o777 == 0o600
    assert os.path.getsize(f"{key}.pub") > 700 or kind is ServerTransport
