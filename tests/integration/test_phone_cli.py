"""The whole command line against a phone that is cut off, killed on, and asked for what it cannot do.

The phone is a fake one; its program is the real `amc_bench` on the real LiteRT.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from amc_latency.device.adb.adb import open_transport
from amc_latency.device.adb.adb_direct import usb_phones
from amc_latency.device.registry import get_device
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.building.plan import reachable_shapes
from amc_latency.lut.prediction.predict import missing_shapes
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.table.table import LatencyTable
from fake_phone.adbd import FakeAdbd
from fake_phone.faults import Fault
from fake_phone.opened import HELP
from fake_phone.programs import PhoneState, make_phone
from fake_phone.stand_in import install_stand_in

from amc_latency.measuring.profiling import Grid
from amc_latency.models.files.checkpoint import save_checkpoint
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.models.registry import build_model
from amc_latency.models.spec import ModelSpec
from tests.integration.command_line import QUICK, Cli, Outcome, make_table, table_lines
from tests.integration.test_search import FEW_IMAGES

STAY_ON = "stay_on_while_plugged_in"
COARSE = ["--step", 64, "--min-keep", 0.5]
POLL = "blocks/*.sum"
CUTS = [
    # In the middle of a layer's file, of a script, and of a block's results; and twice while the phone is timing.
    Fault("cut", "push", nth=10, after=1000, seconds=0.5, matching=".tflite"),
    Fault("cut", "push", nth=2, after=300, seconds=0.2, matching=".sh"),
    Fault("cut", "pull", nth=3, after=1000, seconds=0.2, matching="blocks/"),
    Fault("cut", "run", nth=2, seconds=0.5, matching=POLL),
    Fault("cut", "run", nth=5, after=1 << 30, seconds=0.5, matching=POLL),
]


@dataclass(frozen=True)
class Phone:
    """A phone that is on."""

    daemon: FakeAdbd
    state: PhoneState
    pushed: list[str]

    @property
    def address(self) -> str:
        return self.daemon.address

    def left_behind(self) -> list[str]:
        return [path.name for path in (self.state.root / "data/local/tmp").iterdir()]


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    """A Pixel whose screen goes to sleep unless it hangs on a charger that is none of ours."""
    root = tmp_path_factory.mktemp("phone")
    state = make_phone(root)
    (root / "state/settings/global" / STAY_ON).write_text("1\n")
    pushed: list[str] = []
    with FakeAdbd(root, on_push=pushed.append) as daemon:
        yield Phone(daemon, state, pushed)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of random weights, a tenth of the bundled one's size: what it is worth is not the question here."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    spec = ModelSpec(width=0.25, input=(1, 32, 32), classes=10)
    save_checkpoint(path, build_model(spec), spec)
    return path


def check_complete(lut: Path, serial: str, report: dict[str, Any]) -> LatencyTable:
    """No row of the plan is missing, none is an error, and none was written twice."""
    assert report["incomplete"] == 0
    table = LatencyTable.open(lut)
    lines = table_lines(lut)
    assert len(set(lines)) == len(lines) == len(table.rows) == report["rows"]
    assert table.errors == {}
    rounds = defaultdict(set)
    for row in table.rows:
        assert row.error is None
        conditions = json.loads(row.conditions)
        assert (conditions["serial"], conditions["delegated"]) == (serial, True)
        rounds[row.workload].add(row.round)
    for key, timed in rounds.items():
        # Whole networks are timed three times as often as layers.
        assert timed == set(range((3 if " + " in key else 1) * table.protocol.rounds)), key
    return table


@dataclass(frozen=True)
class Profiled:
    """A profile that was cut off on the way."""

    lut: Path
    outcome: Outcome
    fired: list[Fault]
    connections: int


@pytest.fixture(scope="module")
def profiled(cli: Cli, phone: Phone, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Profiled:
    lut = tmp_path_factory.mktemp("tables") / "pixel1.tsv"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cli.environment.items():
            patch.setenv(name, value)
        make_table(lut, phone.address, replace(QUICK, min_time_ms=5.0, rounds=2))
    before = phone.daemon.connections
    phone.daemon.faults.add(*CUTS)
    outcome = cli.run("profile", "--device", phone.address, "--model", checkpoint, *COARSE, "--lut", lut, "--json")
    fired = list(phone.daemon.faults.fired)
    phone.daemon.faults.clear()
    return Profiled(lut, outcome, fired, phone.daemon.connections - before)


@pytest.mark.slow
def test_a_profile_that_is_cut_off_five_times_ends_in_a_complete_table(
    profiled: Profiled, phone: Phone, checkpoint: Path
) -> None:
    report = profiled.outcome.report
    assert sorted(fault.on for fault in profiled.fired) == ["pull", "push", "push", "run", "run"]
    assert profiled.connections > 5
    table = check_complete(profiled.lut, phone.address, report)
    assert report["timed"] == report["rows"]
    assert report["device"].startswith("pixel1, Pixel (msm8996), cores ")
    assert "amc_bench" in report["device"]
    assert report["calibrated"]
    network = load_network(NetworkOptions(str(checkpoint)))
    reachable = reachable_shapes(network.graph.architecture, Grid(0.5, 64).choices(network))
    assert missing_shapes(table, reachable) == []
    assert set(network.graph.architecture.shapes()) <= set(reachable)
    assert all(table.has(shape.text, 0) for shape in network.graph.architecture.shapes())
    assert phone.left_behind() == []
    assert phone.state.setting(STAY_ON) == "1"


@pytest.mark.slow
def test_a_search_ends_in_a_file_that_was_timed_on_the_phone(
    profiled: Profiled, cli: Cli, phone: Phone, checkpoint: Path, tmp_path: Path
) -> None:
    before = profiled.lut.read_bytes()
    small = (
        "--agent ddpg --cold-start --baselines uniform --warmup 2 --episodes 2 --corrections 1 --correction-episodes 2 "
        "--images 100 --calibration-images 64 --min-accuracy 0"
    )
    searched = cli.run(
        "search",
        *("--speedup", 1.1, "--device", phone.address, "--lut", profiled.lut),
        *("--model", checkpoint, "--data", FEW_IMAGES),
        *(*COARSE, *small.split(), "--finetune-epochs", 0, "--timing-rounds", 1, "--out", tmp_path / "run"),
    )
    assert (tmp_path / "run/report.json").exists(), searched.err
    report = json.loads((tmp_path / "run/report.json").read_text())
    # A busy computer is a phone that is slower than its table, which a search says.
    missed = report["measured_ms"] > report["target_ms"]
    *_, high_ms = report["rows"][-1]["measured_95"] or [float("inf")]
    assert report["met"] == (high_ms <= report["target_ms"])
    assert searched.code == (1 if missed else 0), searched.err
    assert ("error: not met after" in searched.err) == missed
    assert report["device"].startswith("pixel1, Pixel (msm8996)")
    assert report["target_ms"] == pytest.approx(report["original_ms"] / 1.1)
    assert profiled.lut.read_bytes() == before, "the table had all that the search needs"
    ours = tmp_path / "run/ours.tflite"
    assert was_pushed(phone, ours)

    phone.pushed.clear()
    measured = cli.run("bench", ours, "--device", f"pixel1@{phone.address}", "--rounds", 2, "--json").report
    assert was_pushed(phone, ours)
    assert measured["device"].startswith("pixel1: Pixel (msm8996)")
    assert measured["latency_ms"] > 0
    # The phone's own protocol has at least 20 runs a round.
    assert measured["n"] >= 2 * 20
    assert [row["serial"] for row in measured["conditions"]] == [phone.address] * 2
    assert phone.left_behind() == []


def was_pushed(phone: Phone, model: Path) -> bool:
    """Models lie on the phone by their content's name."""
    name = f"{hashlib.sha256(model.read_bytes()).hexdigest()}.tflite"
    return any(path.endswith(f"/{name}") for path in phone.pushed)


@pytest.mark.slow
def test_a_profile_that_is_killed_goes_on_and_cleans_up(
    cli: Cli, phone: Phone, checkpoint: Path, tmp_path: Path, at_home: None
) -> None:
    lut = tmp_path / "table.tsv"
    make_table(lut, phone.address, replace(QUICK, min_time_ms=20.0))
    command = ["profile", "--device", phone.address, "--model", checkpoint, "--step", 512, "--lut", lut, "--json"]
    with cli.start(*command) as killed:
        while not table_lines(lut):
            assert killed.poll() is None, killed.communicate()
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert "amc-latency" in phone.left_behind()
    assert phone.state.setting(STAY_ON) == "7"
    timed = len(table_lines(lut))

    report = cli.run(*command).report
    assert 0 < report["timed"] == report["rows"] - timed
    check_complete(lut, phone.address, report)
    assert phone.left_behind() == []
    assert phone.state.setting(STAY_ON) == "1"


@dataclass(frozen=True)
class Here:
    """The command line in this process, where a traceback would end the test."""

    run: Callable[..., Outcome]
    layer: Path
    """a `.tflite`"""

    def bench(self, *arguments: object) -> Outcome:
        return self.run("bench", self.layer, "--rounds", 1, *arguments)


@pytest.fixture
def here(run_here: Callable[..., Outcome], tmp_path: Path) -> Here:
    return Here(run_here, layer_file(tmp_path))


def layer_file(folder: Path) -> Path:
    file = folder / "layer.tflite"
    file.write_bytes(layer_model(LayerShape("conv", 8, 16, 4, 4)))
    return file


def check_refused(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") <= 2
    for each in words:
        assert each in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--device", "R5CX"], 2, ["there is no device 'R5CX'; known are: host"]),
        (["--device", "pixel1@R5CX"], 1, ["there is no phone R5CX"]),
        (["--device", "pixle1@PHONE"], 2, ["there is no device 'pixle1'", "Did you mean 'pixel1'"]),
        (["--device", "cuda@first"], 1, ["a GPU goes by its number, as --device cuda@1"]),
        (["--device", "host", "--op-profile"], 2, ["an op profile is to be had on a phone only"]),
        (["--device", "pixel8@PHONE"], 1, ["is Pixel (msm8996), which is pixel1, and not Google Pixel 8", "--force"]),
        (["--device", "PHONE", "--transport", "server"], 1, ["no adb server at 127.0.0.1:1", "adb start-server"]),
        (["--device", "PHONE", "--threads", 3], 1, ["3 threads need 3 cores", "--threads 1"]),
        (["--device", "PHONE", "--runner-path", __file__], 1, ["is not an ELF file"]),
        (["--device", "PHONE", "--runner-path", shutil.which("true")], 1, ["is no benchmark_model: it says"]),
        (["--device", "PHONE", "--runner-path", "missing"], 2, ["--runner-path missing is no file"]),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, list) else str(value),
)
def test_what_a_phone_cannot_do_is_one_message(
    here: Here, phone: Phone, arguments: list[object], code: int, words: list[str]
) -> None:
    outcome = here.bench(*(str(each).replace("PHONE", phone.address) for each in arguments))
    check_refused(outcome, code, *words)
    assert phone.left_behind() == []
    assert phone.state.setting(STAY_ON) == "1"


def test_a_phone_of_another_kind_is_timed_if_one_insists(here: Here, phone: Phone, tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(layer_model(LayerShape("conv", 8, 64, 4, 4)))
    report = here.bench("--device", f"pixel8@{phone.address}", "--force", "--against", other, "--json").report
    assert report["device"].startswith("pixel8: Pixel (msm8996)")
    assert was_pushed(phone, here.layer)
    assert was_pushed(phone, other)
    (beside,) = report["against"]
    assert list(beside["states"]) == list(report["states"]) == ["hot"]
    ratio = report["latency_ms"] / beside["states"]["hot"]["latency_ms"]
    assert beside["compared"]["hot"]["ratio"] == {"value": pytest.approx(ratio), "low": None, "high": None}


def test_no_phone_is_attached(here: Here) -> None:
    if usb_phones():
        pytest.skip("needs a computer without a phone")
    check_refused(here.bench("--device", "pixel1"), 1, "no phone is attached: plug one in")


def test_a_table_of_another_phone_is_refused(here: Here, phone: Phone, tmp_path: Path) -> None:
    make_table(tmp_path / "pixel1.tsv", phone.address)
    forced = ["--device", f"pixel8@{phone.address}", "--force", "--lut", tmp_path / "pixel1.tsv"]
    check_refused(here.run("profile", *forced), 2, "was measured with device name 'pixel1', this is 'pixel8'")
    check_refused(here.run("search", "--speedup", 2, *forced), 2, "was measured with device name 'pixel1'")
    assert phone.left_behind() == []


def test_an_arm64_phone_takes_no_program_of_this_computer(here: Here, tmp_path: Path) -> None:
    make_phone(tmp_path / "phone", abi="arm64-v8a")
    with FakeAdbd(tmp_path / "phone") as daemon:
        x86 = ["--device", daemon.address, "--runner-path", sys.executable]
        check_refused(here.bench(*x86), 1, "is built for x86-64, the phone is arm64-v8a")


def test_a_phone_that_has_no_program_is_told_of_each(here: Here, tmp_path: Path) -> None:
    make_phone(tmp_path / "phone", bionic=True)
    with FakeAdbd(tmp_path / "phone") as daemon:
        outcome = here.bench("--device", daemon.address)
    words = ["no program to time with", "for arm64-v8a only", "amc_bench needs a libLiteRt.so for Android x86_64"]
    check_refused(outcome, 1, *words)


def test_programs_that_only_bear_the_name_are_told_apart(here: Here, tmp_path: Path) -> None:
    root = tmp_path / "phone"
    make_phone(root)
    official = ["--runner", "benchmark_model"]
    program = install_stand_in(root, HELP.read_text().replace("--num_threads", "--threads_num"))
    with FakeAdbd(root) as daemon:
        outcome = here.bench("--device", daemon.address, *official)
        check_refused(outcome, 1, "is too old: it does not know --num_threads")
        program.write_text("#!/bin/sh\necho I count sheep\n")
        outcome = here.bench("--device", daemon.address, *official)
        check_refused(outcome, 1, "is no benchmark_model: it says 'I count sheep'")


def test_a_phone_that_is_too_old_is_refused(here: Here, tmp_path: Path) -> None:
    root = tmp_path / "phone"
    make_phone(root)
    for folder in ("/bin", "/usr/bin"):
        for program in Path(folder).iterdir():
            if program.name != "taskset" and not (root / "bin" / program.name).exists():
                (root / "bin" / program.name).symlink_to(program)
    own_programs = ("/usr/bin/env", f"PATH={root}/bin", "/bin/sh", "-c")
    with FakeAdbd(root, shell=own_programs) as daemon:
        check_refused(here.bench("--device", daemon.address), 1, "lacks taskset", "Android has them since version 8")


@pytest.mark.parametrize("matching", [".so", "trial.tflite", "/models/"])
def test_a_full_disk_is_said_so(here: Here, tmp_path: Path, matching: str) -> None:
    make_phone(tmp_path / "phone")
    with FakeAdbd(tmp_path / "phone", faults=[Fault("full", "push", matching=matching)] * 40) as daemon:
        check_refused(here.bench("--device", daemon.address), 1, "the phone's disk is full, make room there")
    assert list((tmp_path / "phone/data/local/tmp").iterdir()) == []


def test_phones_that_do_not_let_us_in_are_given_up_on(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        import_module("amc_latency.device.adb.adb"), "open_transport", partial(open_transport, answer_s=1.0)
    )  # a user waits for ten
    with FakeAdbd(tmp_path, auth="known") as stranger:
        outcome = here.bench("--device", stranger.address)
        check_refused(outcome, 1, f"{stranger.address} does not know this computer yet", "tap Allow")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        check_refused(here.bench("--device", address), 1, f"{address} does not answer")


def test_a_phone_is_timed_by_one_session_at_a_time(here: Here, phone: Phone) -> None:
    with get_device(phone.address):
        check_refused(here.bench("--device", phone.address), 1, "another amc-latency is timing on")


def test_a_shell_sees_the_exit_code(cli: Cli, tmp_path: Path) -> None:
    outcome = cli.run("bench", layer_file(tmp_path), "--device", "127.0.0.1:1")
    check_refused(outcome, 1, "nothing listens at 127.0.0.1:1")
