"""Whole searches of the bundled network on a cached table: the device is replayed, everything else is real."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from amc_latency.lut.tflite.run import run_tflite

from amc_latency.data import load_data
from amc_latency.errors import UserError
from amc_latency.models.files.checkpoint import bundled_checkpoint, load_checkpoint
from amc_latency.pixels import NORMALISATIONS, parse_normalisation
from amc_latency.search.config import SearchConfig
from amc_latency.search.results.folder import RunFolder
from tests.integration.searches import events, run

TABLE = Path(__file__).parents[2] / "lut" / "tables" / "host-epyc-zen4.tsv"
FEW_IMAGES = f"{Path(__file__).with_name('few_images.py')}:few_images"
FEWER_IMAGES = f"{Path(__file__).with_name('few_images.py')}:fewer_images"
BUNDLED = SearchConfig(
    speedup=2,
    device="replay",
    lut=str(TABLE),
    data=FEW_IMAGES,
    warmup=4,
    episodes=4,
    correction_episodes=2,
    agent="ddpg",
    warm_start=False,
    baselines="uniform,random",
    images=100,
    calibration_images=64,
    finetune_epochs=0,
    timing_rounds=1,
)

pytestmark = pytest.mark.slow


def test_a_search_ends_in_a_file_under_its_target(tmp_path: Path) -> None:
    config = replace(BUNDLED, data=FEWER_IMAGES, finetune_epochs=1)
    report = run(tmp_path, config)
    assert report.met
    assert report.target_ms == report.original_ms / 2
    assert report.measured_ms <= report.target_ms
    assert report.episodes == 8
    original, uniform, ours = report.rows
    assert uniform.predicted_ms <= report.target_ms
    assert ours.macs < original.macs
    assert Path(ours.tflite).stat().st_size == ours.bytes < original.bytes

    # The shipped file is the fine-tuned checkpoint, and as accurate as the report says.
    model, spec, extra = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert spec.channels == ours.counts
    test = load_data(FEWER_IMAGES, size=(64, 64)).test
    # Not the few images' own figures, but those that the bundled weights were trained with.
    assert parse_normalisation(extra["normalisation"]) == NORMALISATIONS["fashion_mnist"]
    images = test.inputs((64, 64))
    with torch.inference_mode():
        expected = model(images)
    shipped = torch.from_numpy(run_tflite(Path(ours.tflite), images.numpy()))
    assert torch.allclose(shipped, expected, atol=1e-4)
    right = int((shipped.argmax(1) == test.labels).sum())
    # Of two classes that are alike to the last digit either may be told.
    assert abs(right - len(test) * ours.accuracy / 100) <= 1

    assert f"{ours.measured_ms:.4f}" in (tmp_path / "run" / "report.html").read_text()
    policy = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert tuple(policy["counts"]) == ours.counts
    assert run(tmp_path, config) == report


@pytest.mark.usefixtures("quick")
def test_a_warm_started_search_is_shown_beside_every_baseline(tmp_path: Path) -> None:
    every = replace(
        BUNDLED,
        data=FEWER_IMAGES,
        images=50,
        calibration_images=32,
        speedup=1.1,
        warm_start=True,
        warmup=None,
        episodes=10,
        baselines=SearchConfig.baselines,
    )
    report = run(tmp_path, every)
    assert report.met
    assert [row.name for row in report.baselines] == every.baseline_names
    evaluations = {row.name: row.evaluations for row in report.baselines}
    assert evaluations["uniform"] == evaluations["dp"] == 0
    assert evaluations["random"] == evaluations["hill"] == 10
    # An iteration of NetAdapt asks about each group whose cut alone is enough.
    assert evaluations["netadapt"] > 5
    assert all(row.predicted_ms <= report.target_ms for row in report.baselines)
    records = events(tmp_path / "run")
    assert [row["source"] for row in records].count("start") > 1
    # Judged by the same images, ours is at least as good as the start policies it was chosen among.
    uniform = next(row for row in report.baselines if row.name == "uniform")
    assert report.rows[-1].held_back >= uniform.held_back


def test_budgets_out_of_reach_say_which_binds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="10 parameters is out of reach: the least that this network can be cut to is"):
        run(tmp_path, replace(BUNDLED, speedup=None, target_params=10))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick")
def test_an_unreachable_target_says_what_is_reachable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fastest network that can be cut") as refused:
        run(tmp_path, replace(BUNDLED, speedup=None, target_ms=0.001))
    reachable_ms = float(str(refused.value).split("predicted at ")[1].split(" ms")[0])
    # That network is among those that were timed, and its rounds agree with the prediction to half a percent.
    all_rounds = replace(BUNDLED, speedup=None, target_ms=1.01 * reachable_ms, timing_rounds=27)
    assert run(tmp_path, all_rounds, name="second").met


def test_other_weights_are_another_search(tmp_path: Path) -> None:
    model = tmp_path / "net.safetensors"
    model.write_bytes(bundled_checkpoint().read_bytes())
    config = replace(BUNDLED, model=str(model))
    same = {"data": FEW_IMAGES, "data_sha256": load_data(FEW_IMAGES, size=(64, 64)).digest()}
    folder = RunFolder(tmp_path / "run", {**asdict(config), **same, "weights_sha256": "of others"})
    folder.start()
    del folder
    with pytest.raises(UserError, match="weights_sha256 = of others"):
        run(tmp_path, config)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    lines = TABLE.read_text().splitlines()
    lines[50] = lines[50][:-30]
    (tmp_path / "table.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(Exception, match="line 51: damaged row"):
        run(tmp_path, replace(BUNDLED, lut=str(tmp_path / "table.tsv")))
