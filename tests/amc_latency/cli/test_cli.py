"""The command line as a user meets it: JSON alone on standard output, one message and an exit code for a mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amc_latency.device.base import Protocol, Summary, Timing
from amc_latency.device.registry import get_device
from amc_latency.lut.shapes.shape import network_text
from amc_latency.lut.table.table import LatencyTable

from amc_latency.cli.main import main
from amc_latency.measuring.profiling import table_path
from amc_latency.models.load import NetworkOptions, load_network

# amc-models, models/mobilenet_v1.py: outputs of the first convolution and the 13 pointwise layers.
AMC_50_FLOPS = "24,48,96,80,192,200,328,352,368,360,328,400,736,752"
AMC_50_TIME = "16,48,88,80,192,168,336,360,360,352,352,368,768,680"


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["amc-latency", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.mark.parametrize(
    ("channels", "macs"), [(None, 568.74), (AMC_50_FLOPS, 293.87), (AMC_50_TIME, 273.98)], ids=["full", "flops", "time"]
)
def test_predict_counts_the_published_macs_without_a_table(run, channels: str | None, macs: float) -> None:
    more = [] if channels is None else ["--channels", channels]
    outcome = run("predict", "--model", "mobilenet_v1", "--input", "3x224x224", "--device", "host", "--json", *more)
    result = json.loads(outcome.out)
    assert round(result["macs"] / 1e6, 2) == macs
    assert result["predicted_ms"] is None
    assert "amc-latency profile" in outcome.err
    assert len(result["layers"]) == 1 + 2 * 13 + 2
    assert sum(layer["params"] for layer in result["layers"]) == result["params"]


def test_width_counts_the_published_macs(run) -> None:
    result = json.loads(run("predict", "--model", "mobilenet_v1", "--width", 0.75, "--json").out)
    assert round(result["macs"] / 1e6, 2) == 325.40


def test_a_table_of_other_networks_is_no_table_unless_it_was_asked_for(run, tmp_path: Path) -> None:
    path = table_path(get_device("host").identity)
    table = LatencyTable.create(path, get_device("host").identity, Protocol())
    outcome = run("predict", "--json")
    assert json.loads(outcome.out)["predicted_ms"] is None
    assert "layer 'noop" in outcome.err
    asked = run("predict", "--lut", path)
    assert asked.code == 2
    assert "layer 'noop" in asked.err
    us = Summary(1.0, 1.0, 1.0, 0.0)
    with table:
        table.append(Timing(network_text(load_network(NetworkOptions()).graph.architecture.shapes()), 0, 1, us, us))
    of_this_network = run("predict")
    assert of_this_network.code == 2
    assert "layer 'noop" in of_this_network.err


def test_predictions_come_from_the_named_table(run) -> None:
    table = Path(__file__).parents[3] / "lut" / "tables" / "host-epyc-zen4.tsv"
    named = ["--device", "replay", "--lut", table, "--model", "mobilenet_v1", "--json"]
    full, cut = (json.loads(run("predict", *named, *more).out) for more in ([], ["--channels", AMC_50_TIME]))
    # As timed on the machine of the table: 10.85 ms.
    assert full["predicted_ms"] == pytest.approx(LatencyTable.open(table).latency_us(network_key()) / 1000, rel=0.02)
    assert sum(layer["ms"] for layer in full["layers"]) == pytest.approx(full["raw_ms"])
    assert cut["predicted_ms"] < 0.6 * full["predicted_ms"]


def network_key() -> str:
    return network_text(load_network(NetworkOptions("mobilenet_v1")).graph.architecture.shapes())


def test_export_then_bench(run, tmp_path: Path) -> None:
    file = tmp_path / "net.tflite"
    arguments = ["--model", "mobilenet_v1", "--width", 0.25, "--input", "3x32x32", "--classes", 10]
    exported = json.loads(run("export", *arguments, "--out", file, "--json").out)
    assert exported["bytes"] == file.stat().st_size
    assert exported["max_abs_error"] < 1e-4
    assert exported["ops"]["DEPTHWISE_CONV_2D"] == 13
    measured = json.loads(run("bench", file, "--rounds", 2, "--runs", 3, "--json").out)
    assert measured["latency_ms"] > 0
    assert measured["n"] >= 2 * 3
    # Up to two more where a neighbour was there.
    assert re.match(r"median over [2-4] rounds of the median thread CPU time", measured["statistic"])
    assert "litert" in measured["runtime"]
    assert "ms (" in run("bench", file, "--rounds", 1, "--runs", 3).out
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(file.read_bytes())
    judged = run("bench", file, "--rounds", 2, "--runs", 3, "--against", copy, "--speedup", 1e6, "--json")
    assert (judged.code, json.loads(judged.out)["speedup"]["verdict"]) == (1, "not met")
    assert "times as fast as copy.tflite, not 1e+06 times" in judged.err


def test_devices_are_listed(run) -> None:
    assert set(json.loads(run("devices", "--json").out)["profiles"]) >= {"host", "replay"}


BAD_INPUT: list[tuple[list[str], str]] = [
    (["predict", "--model", "mobilenetv1"], "did you mean 'mobilenet_v1'"),
    (["predict", "--model", "missing.safetensors"], "no such file"),
    (["predict", "--device", "hots"], "Did you mean 'host'"),
    (["predict", "--channels", "8,8"], "14 coupled groups"),
    (["predict", "--channels", "8,x"], "not a list of counts"),
    (["predict", "--channels", ",".join(["9999"] * 14)], "can't keep 9999"),
    (["predict", "--width", "2"], "was trained with width"),
    (["predict", "--model", "mobilenet_v1", "--input", "224"], "3x224x224"),
    (["predict", "--model", "mobilenet_v1", "--width", "0"], "width"),
    (["predict", "--device", "replay"], "--lut"),
    (["predict", "--lut", __file__], "is not a latency table"),
    (["search"], "--reward loss needs a budget: --target-ms MILLISECONDS"),
    (["search", "--reward", "error"], "--reward error needs a budget"),
    (["search", "--speedup", "2", "--reward", "accuracy"], "no reward is called 'accuracy'; there are error"),
    (["search", "--speedup", "2", "--agent", "dqn"], "no agent is called 'dqn'; there are dp-ddpg, ddpg"),
    (["search", "--reward", "latency", "--agent", "dp"], "--agent dp needs a budget"),
    (["search", "--speedup", "2", "--baselines", "netadept"], "no baseline is called 'netadept'"),
    (["search", "--target-macs", "6MM"], "--target-macs is a number such as 6M"),
    (["search", "--target-params", "-3"], "--target-params is a positive number of params"),
    (["search", "--target-macs", "0%"], "--target-macs: a percentage of the uncut network is above 0 %"),
    (["search", "--target-bytes", "101%"], "at most 100 %"),
    (["search", "--target-ms", "150%"], "--target-ms: a percentage"),
    (["search", "--target-params", "30%", "--rounds-density", "50,25"], "the target is 30 %"),
    (["search", "--target-params", "25%", "--rounds-density", "50,25", "--rounds", "3"], "is 2 rounds, not --rounds 3"),
    (["search", "--rounds-density", "50,25"], "--reward loss needs a budget"),
    (["search", "--speedup", "2", "--min-keep", "fc=0.1"], "not for 'fc'"),
    (["search", "--speedup", "2", "--max-keep", "0.1"], "at least 0.2 and at most 0.1"),
    (["search", "--speedup", "2", "--prune", "weights", "--step", "8"], "smaller, not faster"),
    (["search", "--target-params", "20%", "--prune", "weights", "--step", "8"], "--step would change nothing here"),
    (["search", "--speedup", "2", "--warmup", "9"], "--warmup would change nothing here: --agent dp-ddpg"),
    (["search", "--speedup", "2", "--state", "atari"], "no state is called 'atari'; there are amc and two-stage"),
    (["search", "--speedup", "2", "--agent", "dp", "--state", "two-stage"], "--agent dp sees no state"),
    (["search", "--speedup", "2", "--agent", "ddpg", "--ppo-actors", "8"], "it is for --agent ppo"),
    (["search", "--speedup", "2", "--agent", "ppo", "--ppo-actors", "1"], "--ppo-actors is 2 or more"),
    (["search", "--speedup", "2", "--agent", "ddpg", "--layer-rewards"], "it is for --agent ppo"),
    (["search", "--speedup", "2", "--agent", "ddpg", "--critic-action-layer", "3"], "--critic-action-layer is 1 or 2"),
    (["search", "--speedup", "2", "--agent", "ppo", "--critic-action-layer", "2"], "it is for --agent ddpg"),
    (
        ["search", "--speedup", "2", "--agent", "dp", "--cold-start"],
        "--warm-start or --cold-start would change nothing",
    ),
    (["search", "--target-macs", "6M", "--margin-pct", "1.5"], "no milliseconds are limited"),
    (["search", "--target-macs", "6M", "--corrections", "2"], "no milliseconds are limited"),
    (["search", "--speedup", "2", "--corrections", "0", "--correction-episodes", "9"], "there are no --corrections"),
    (["search", "--speedup", "2", "--margin-pct", "1.5", "--confidence", "0.9"], "--confidence takes its place"),
    (["search", "--speedup", "2", "--device", "pixel1", "--estimate", "--timing-rounds", "3"], "nothing is timed"),
    (["search", "--speedup", "2", "--recalibration-images", "600"], "--calibration-images 600 or more"),
    (["search", "--speedup", "2", "--seed", "-1"], "--seed is from 0 to"),
    (["profile", "--plan", "grid", "--goal", "1%"], "--goal would change nothing here: --plan grid"),
    (["profile", "--max-keep", "2"], "--max-keep is a share"),
    (["search", "--target-bytes", "0"], "--target-bytes is a positive number"),
    (["search", "--target-macs", "6M", "--confidence", "0.9"], "--confidence is for milliseconds alone"),
    (["search", "--reward", "latency", "--confidence", "0.9"], "give --target-ms or --speedup with it"),
    (["search", "--speedup", "2", "--episodes", "0"], "at least one episode"),
    (["search", "--speedup", "2", "--pareto", "1"], "2 targets or more"),
    (["search", "--target-macs", "6M", "--pareto", "3"], "--pareto needs the fastest target"),
    (["search", "--target-ms", "1", "--speedup", "2"], "one way"),
    (["search", "--target-ms", "-1"], "positive"),
    (["search", "--speedup", "0.5"], "at least 1"),
    (["search", "--speedup", "2", "--data", "fashon"], "Known: auto"),
    (["search", "--speedup", "2", "--model", "resnet18"], "random weights"),
    (["search", "--speedup", "2", "--min-keep", "0"], "min-keep"),
    (["profile", "--step", "0"], "step"),
    (["bench", "missing.tflite"], "missing.tflite"),
    (["bench", __file__, "--device", "replay"], "no hardware"),
    (["predict", "--device", "replya"], "Did you mean 'replay'"),
    (["predict", "--lut", "missing.tsv"], "no latency table missing.tsv"),
    (["predict", "--model", "mobilenet_v1", "--width", "inf"], "width inf"),
    (["predict", "--model", "mobilenet_v1", "--classes", "99999999999"], "1 to 1,000,000"),
    (["predict", "--model", "vgg11_bn", "--input", "3x8x8"], "can't be run on a 3x8x8 input"),
    (["export", "--out", "."], "no file that can be replaced"),
    (["export", "--out", "/dev/null"], "no file that can be replaced"),
    (["train", "--out", "x.safetensors", "--data", "bundled", "--data-dir", "d"], "not for bundled"),
    (["train", "--out", "/"], "no file that can be replaced"),
    (["train", "--out", f"{__file__}/x.safetensors"], "cannot be made"),
    (["train", "--out", "x.safetensors", "--image-size", "0"], "images of 8x8"),
    (["train", "--out", "x.safetensors", "--model", "resnet18"], "has grey ones; train one of mobilenet_v1"),
    (["train", "--out", "x.safetensors", "--model", "resnet2"], "did you mean 'resnet20'"),
    (["train", "--out", "x.safetensors", "--model", "resnet20", "--width", "0"], "width 0"),
    (["search", "--speedup", "2", "--correction-episodes", "0"], "correction"),
    (["profile", "--rounds", "0"], "at least one run, round and thread"),
    (["bench", __file__], "not a .tflite"),
    (["bench", __file__, "--speedup", "2"], "name it with --against"),
    (["finetune", "--out", "x.safetensors", "--epochs", "0"], "epoch"),
    (["finetune", "--out", "x.safetensors", "--learning-rate", "0"], "a positive number such as 0.005, not 0"),
    (["train", "--out", "x.safetensors", "--batch-size", "1"], "--batch-size is 2 or more images"),
    (["search", "--speedup", "2", "--batch-size", "1"], "--batch-size is 2 or more"),
    (["train", "--out", "x.safetensors", "--temperature", "2"], "--temperature would change nothing here"),
    (["train", "--out", "x.safetensors", "--optimizer", "adam"], "Did you mean 'adamw'"),
    (["search", "--speedup", "2", "--finetune-epochs", "0", "--ema-decay", "0.9"], "--ema-decay would change nothing"),
    (["search", "--speedup", "2", "--accelerator", "gpu"], "--accelerator is auto, cpu, cuda, cuda:1 or mps, not gpu"),
    (["finetune", "--out", "x.safetensors", "--augmentation", "flop"], "Did you mean 'flip'"),
    (["finetune", "--out", "x.safetensors", "--teacher", "nothing.safetensors"], "nothing.safetensors"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_is_one_message_and_exit_code_2(
    run, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 2
    assert outcome.out == ""
    assert not any(path.name != "data" for path in tmp_path.iterdir())


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, amc_latency.cli.main; print([m for m in ('torch', 'numpy', 'ai_edge_litert') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_a_fault_of_the_program_keeps_its_traceback(run, monkeypatch: pytest.MonkeyPatch) -> None:
    import amc_latency.measuring.opening

    def broken() -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(amc_latency.measuring.opening, "device_names", broken)
    monkeypatch.setattr(sys, "argv", ["amc-latency", "devices"])
    with pytest.raises(RuntimeError, match="a fault"):
        main()


OWN = """
from torch import nn

def nothing():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
"""


def test_a_search_of_what_cannot_be_cut_says_why(run, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "own.py").write_text(OWN)
    save_file({"2.weight": torch.ones(10, 3), "2.bias": torch.ones(10)}, tmp_path / "own.safetensors")
    own = ("--model", f"{tmp_path / 'own.py'}:nothing", "--weights", tmp_path / "own.safetensors", "--input", "3x8x8")
    outcome = run("search", *own, "--speedup", 2, "--data", "bundled", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "nothing to cut (2: they are the network's output)" in outcome.err
    assert not (tmp_path / "run").exists()
    report = json.loads(run("inspect", *own, "--json").out)
    assert report["groups"] == []
    assert report["left_whole"] == [{"module": "2", "channels": 10, "reason": "they are the network's output"}]


def test_search_and_finetune_take_what_a_named_network_has_of_its_own(run, tmp_path: Path) -> None:
    from amc_latency.models.files.weights import write_tensors
    from amc_latency.models.load import load_model

    weights = tmp_path / "w.safetensors"
    options = NetworkOptions("resnet20", width=0.25, input="1x16x16", classes=7)
    write_tensors(weights, load_model(options)[0].state_dict(), {})
    own = ("--model", "resnet20", "--weights", weights, "--width", 0.25, "--input", "1x16x16", "--classes", 7)
    for command in (("search", "--speedup", 2, "--out", tmp_path / "run"), ("finetune", "--out", tmp_path / "tuned")):
        # Loaded, and only then refused.
        outcome = run(*command, *own, "--data", "bundled")
        assert outcome.code == 2
        assert "has 10 classes, and resnet20 tells 7 apart" in outcome.err
        outcome = run(*command, *own, "--data", "bundled", "--normalisation", "0.5,0.5/1,1")
        assert "0.5,0.5/1,1 is for 2 channels, and resnet20 takes 1x16x16" in outcome.err


@pytest.mark.parametrize(
    ("pixels", "says"), [("auto", "MEAN,.../STD,..."), ("1,2", "is no normalisation"), ("0.5/0", "is no normalisation")]
)
def test_pixels_that_nobody_can_normalise_are_refused(run, tmp_path: Path, pixels: str, says: str) -> None:
    outcome = run("export", "--model", "lenet5", "--out", tmp_path / "x.tflite", "--pixels", pixels)
    assert outcome.code == 2
    assert says in outcome.err
    assert not (tmp_path / "x.tflite").exists()


def test_a_file_that_takes_pixels_says_what_the_network_says_of_the_normalised_image(run, tmp_path: Path) -> None:
    import numpy as np
    import torch
    from amc_latency.lut.tflite.run import run_tflite

    assert run("export", "--out", tmp_path / "x.tflite", "--pixels", "0.25/0.5", "--json").code == 0
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 1, 64, 64)).astype(np.float32)
    with torch.inference_mode():
        wanted = load_network(NetworkOptions()).model(torch.from_numpy((pixels / 255 - 0.25) / 0.5)).numpy()
    assert np.abs(run_tflite(tmp_path / "x.tflite", pixels) - wanted).max() < 1e-4 * np.ptp(wanted)


def test_export_says_what_it_wrote_and_writes_no_other_kind_of_file(run, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    outcome = run("export", "--out", path)
    first = outcome.out.splitlines()[0]
    said = rf"wrote {re.escape(str(path))}, equal to PyTorch to \de-\d\d of its outputs' range, 3\.28 MB"
    assert re.fullmatch(said, first)
    assert path.stat().st_size == pytest.approx(3.28e6, rel=1e-3)
    assert "817,962 parameters" in outcome.out
    assert outcome.err == "the file takes pixels of 0..1 normalised by 0.286/0.353 (fashion_mnist)\n"
    for name in ("x.onnx", "x", "x.tflite.bak"):
        refused = run("export", "--out", tmp_path / name)
        assert refused.code == 2
        assert "what is written is a .tflite: name it so" in refused.err
        assert not (tmp_path / name).exists()
