"""A file that computes in a process of its own, against LiteRT in this one and against numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from amc_latency.android_bench.safe import limits
from amc_latency.device.rounds.measure import BadModelError
from amc_latency.device.tflite import outputs
from amc_latency.device.tflite.outputs import TfliteRunner, Value, dequantised, quantised
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.tflite.run import run_tflite
from amc_latency.lut.tflite.writer import TfliteGraph

RNG = np.random.default_rng(0)


def test_outputs_are_those_of_litert_in_any_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = layer_model(LayerShape("conv", 3, 4, 6, 8, 3, 1, 1))
    images = RNG.uniform(-1, 1, (7, 6, 8, 3)).astype(np.float32)
    # Two images a job.
    monkeypatch.setattr(outputs, "_SENT_BYTES", 2 * 6 * 8 * 3 * 4)
    with TfliteRunner(model) as runner:
        (found,) = runner(images)
        assert runner.input == {"shape": [1, 6, 8, 3], "dtype": "float32", "scale": 0.0, "zero_point": 0}
        assert runner.real(images)[0].tolist() == found.tolist()
    assert found.shape == (7, 6, 8, 4)
    np.testing.assert_array_equal(found.transpose(0, 3, 1, 2), run_tflite(model, images.transpose(0, 3, 1, 2)))


def test_steps_and_real_values() -> None:
    of = Value(shape=[1, 4], dtype="int8", scale=0.5, zero_point=-3)
    # 1.2 / 0.5 = 2.4, to 2, less 3; the last two lie outside.
    assert quantised(np.array([0.0, 1.2, 100.0, -100.0]), of).tolist() == [-3, -1, 127, -128]
    assert dequantised(np.array([-3, -1, 127, -128], np.int8), of).tolist() == [0.0, 1.0, 65.0, -62.5]
    plain = Value(shape=[1], dtype="float32", scale=0.0, zero_point=0)
    assert quantised(np.array([1.5]), plain).dtype == np.float32


def test_what_cannot_be_run_is_said() -> None:
    model = layer_model(LayerShape("conv", 3, 4, 6, 8, 3, 1, 1))
    with pytest.raises(BadModelError, match=r"LiteRT can't run cut\.tflite: "):
        TfliteRunner(model[: len(model) // 2], "cut.tflite")
    graph = TfliteGraph()
    two = graph.finish([graph.add(graph.input(4, 4, 3), graph.input(4, 4, 3))])
    with pytest.raises(BadModelError, match="sum has 2 inputs and 1 outputs"):
        TfliteRunner(two, "sum")


def test_a_process_that_dies_or_talks_nonsense(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    model = layer_model(LayerShape("conv", 3, 4, 6, 8, 3, 1, 1))
    worker = tmp_path / "worker.py"
    start = "import json, os, sys\nprint('{}', flush=True)\njob = json.loads(sys.stdin.buffer.readline())\n"
    start += "sys.stdin.buffer.read(job['bytes'])\n"
    monkeypatch.setattr(outputs, "_WORKER", worker)
    worker.write_text(f"{start}os.abort()")
    with pytest.raises(BadModelError, match="the file can't be run: the process ended by SIGABRT"):
        TfliteRunner(model)
    worker.write_text(f"{start}print(json.dumps({{'inputs': [{{'shape': [0]}}]}}), flush=True)")
    with pytest.raises(BadModelError, match="can't be run"):
        TfliteRunner(model)
    told = "{'shape': [1, 2], 'dtype': 'float32', 'scale': 0, 'zero_point': 0}"
    worker.write_text(
        f"{start}print(json.dumps({{'inputs': [{told}], 'outputs': [{told}]}}).replace(': 0,', ': 0.0,'), flush=True)\n"
        "job = json.loads(sys.stdin.buffer.readline())\nsys.stdin.buffer.read(job['bytes'])\n"
        "print(json.dumps({'values': ['AAAA']}), flush=True)\nsys.stdin.read()"
    )
    with TfliteRunner(model) as runner, pytest.raises(BadModelError, match="answers nonsense"):
        runner(np.zeros((1, 2), np.float32))


def test_an_answer_fits_its_limit() -> None:
    assert outputs.WORKER_ANSWER_BYTES == limits.WORKER_ANSWER_BYTES
    # 4.2 MB an image: one each job.
    model = layer_model(LayerShape("conv", 1, 64, 128, 128, 1, 1, 0))
    with TfliteRunner(model) as runner:
        (found,) = runner(np.ones((3, 128, 128, 1), np.float32))
    assert found.shape == (3, 128, 128, 64)
