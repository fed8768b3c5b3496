"""A fake phone on a loopback socket with a stand-in for `benchmark_model`, opened as a user's would be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from amc_latency.device.adb.adb_direct import DirectTransport
from amc_latency.device.adb.transport import CommandResult, Transport
from amc_latency.device.kinds import DeviceProfile, PhoneOptions
from amc_latency.device.phone.android import AndroidDevice
from amc_latency.device.phone.session import Patience
from amc_latency.device.profiles import get_profile

from fake_phone.adbd import FakeAdbd
from fake_phone.programs import PhoneState, make_phone
from fake_phone.stand_in import install_stand_in

HELP = Path(__file__).resolve().parents[1] / "android_bench/fixtures/help.txt"
QUICK = replace(
    get_profile("pixel1").protocol, warmup=1, warmup_ms=0.0, runs=3, min_time_ms=0.0, max_runs=3, rounds=2, timeout_s=5
)


class Impatient(DirectTransport):
    """Gives up on a hung command after two seconds, as a test must."""

    hung_s = 2.0

    def run(self, command: str, timeout_s: float = 30.0) -> CommandResult:
        return super().run(command, min(timeout_s, self.hung_s))


@dataclass
class OpenedPhone:
    """The phone's daemon, what the phone says, and the device as our side sees it."""

    daemon: FakeAdbd
    state: PhoneState
    device: AndroidDevice
    said: list[str]

    @property
    def asked(self) -> list[str]:
        """The models that the stand-in has timed, in order."""
        return (self.daemon_root / "state/asked").read_text().split()

    @property
    def daemon_root(self) -> Path:
        return Path(self.daemon.root)

    def left_behind(self) -> list[str]:
        """Our files that still lie on the phone."""
        return [path.name for path in (self.daemon_root / "data/local/tmp").iterdir() if "amc" in path.name]


def quick_profile(**trust: object) -> DeviceProfile:
    """The Pixel's, with a cool-down that takes no time."""
    profile = get_profile("pixel1")
    cool_down = replace(profile.cool_down, poll_s=0.01, timeout_s=30.0)
    return replace(profile, protocol=QUICK, cool_down=cool_down, trust=replace(profile.trust, **trust))


@contextmanager
def opened(
    root: Path, profile: DeviceProfile | None = None, stand_in: bool = True, reconnect_s: float = 20.0
) -> Iterator[OpenedPhone]:
    """Turn it on, open it, and close both."""
    state = make_phone(root)
    if stand_in:
        install_stand_in(root, HELP.read_text())
    runner = "benchmark_model" if stand_in else "amc_bench"
    with FakeAdbd(root) as daemon, open_device(daemon.address, profile, runner, reconnect_s) as device:
        said: list[str] = []
        device.say = said.append
        yield OpenedPhone(daemon, state, device, said)


def open_device(
    address: str, profile: DeviceProfile | None = None, runner: str = "benchmark_model", reconnect_s: float = 20.0
) -> AndroidDevice:
    """A phone that is on already."""
    transport: Transport = Impatient(address, answer_s=2.0)
    transport.connect()
    patience = Patience(poll_s=0.05, reconnect_s=reconnect_s)
    return AndroidDevice.open(transport, profile or quick_profile(), PhoneOptions(runner=runner), patience)


if __name__ == "__main__":
    # For tests that need the phone in a process of its own: prints its address.
    make_phone(Path(sys.argv[1]))
    install_stand_in(Path(sys.argv[1]), HELP.read_text())
    with FakeAdbd(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0) as phone:
        print(phone.address, flush=True)
        sys.stdin.read()
