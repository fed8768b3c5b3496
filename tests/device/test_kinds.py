"""Device kinds: every function that a record names is there, and a kind of one's own is a record and a profile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name

import pytest
from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.device.kinds import KINDS, DeviceKind, DeviceProfile, PhoneOptions
from amc_latency.device.profiles import ProfileError, load_profile, profiles
from amc_latency.device.registry import get_device, get_devices, has_several, is_phone, known_devices

BOARD_PROTOCOL = Protocol(rounds=2, clock="wall")


class Board(Device):
    """Takes as many microseconds as a workload's file has bytes."""

    def __init__(self, name: str, number: str) -> None:
        self.identity = DeviceIdentity(name, f"board {number or 0}", "none")

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            us = float(len(workload.build()))
            yield Timing(workload.name, round_index, 1, wall=Summary(us, us, us, 0.0))


def open_board(profile: DeviceProfile, which: str, options: PhoneOptions) -> Device:
    board = Board(profile.name, which)
    board.protocol = profile.protocol
    return board


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A kind of one's own, and two profiles of it."""
    folder = tmp_path / "amc-latency" / "profiles"
    folder.mkdir(parents=True)
    (folder / "bench_board.toml").write_text('kind = "board"\ntitle = "the board on the bench"\n')
    (folder / "slow_board.toml").write_text('kind = "board"\ntitle = "a slow one"\n[timing]\nrounds = 5\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setitem(KINDS, "board", DeviceKind(BOARD_PROTOCOL, f"{__name__}:open_board"))
    profiles.cache_clear()
    yield
    profiles.cache_clear()


def test_a_kind_of_ones_own_is_opened_by_name(boards: None) -> None:
    assert known_devices()["bench_board"] == "the board on the bench"
    with get_device("bench_board@7") as device:
        assert device.identity == DeviceIdentity("bench_board", "board 7", "none")
        timings = list(device.time([Workload("five", lambda: b"12345")], device.protocol))
    # Two rounds, each of five bytes.
    assert [timing.latency_us(BOARD_PROTOCOL) for timing in timings] == [5.0, 5.0]
    assert get_device("slow_board").protocol.rounds == 5
    assert list(get_devices("bench_board")) == ["bench_board"]
    assert not is_phone("bench_board")
    assert not has_several("bench_board")


def test_what_a_kind_does_not_know_is_refused(boards: None, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    for content, why in (
        ('kind = "board"\ntitle = "x"\n[trust]\ntries = 2\n', r"kind board has no \[trust\]; known are: timing"),
        ('kind = "board"\ntitle = "x"\n[timing]\nbatch = 8\n', "batch is for a GPU only"),
        ('kind = "bord"\ntitle = "x"\n', "host, android, cuda, board, not 'bord'; did you mean board"),
    ):
        path.write_text(content)
        with pytest.raises(ProfileError, match=why):
            load_profile(path)


def test_every_named_function_is_there() -> None:
    for kind in KINDS.values():
        for name in filter(None, (kind.opener, kind.several, kind.titler)):
            assert callable(resolve_name(name))


def test_only_phones_and_this_computer_are_several() -> None:
    assert {name for name in KINDS if has_several(name)} == {"host", "android"}
    assert is_phone("pixel1@A,192.168.1.2:5555")
    assert not is_phone("pixel1@A,cuda")
