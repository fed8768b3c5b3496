"""The process that runs somebody's `.tflite`: what it may use, see and answer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amc_latency.android_bench.safe.limits import WORKER_ANSWER_BYTES
from amc_latency.device.base import Workload
from amc_latency.device.host.host import HostDevice
from amc_latency.device.host.reference import ReferenceSpeeds
from amc_latency.device.kinds import HOST_PROTOCOL
from amc_latency.device.tflite.tflite_inputs import BadModelError, _shapes_at
from amc_latency.device.workers.environment import worker_environment
from amc_latency.device.workers.process import WorkerDied, WorkerProcess, confined
from amc_latency.device.workers.worker_answer import believed, believed_gpu
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.tflite.writer import TfliteGraph

MB = 1 << 20
ANSWER = """
import json, os, sys
print("{}", flush=True)
sys.stdin.readline()
"""


@contextmanager
def asked(folder: Path, program: str, memory: int | None = 2000 * MB) -> Iterator[WorkerProcess]:
    """A worker whose program answers one job."""
    path = folder / "worker.py"
    path.write_text(ANSWER + program)
    worker = WorkerProcess(confined([str(path), "argument"], memory), hint="")
    try:
        worker.send({}, b"", 60)
        yield worker
    finally:
        worker.stop()


def answer(folder: Path, program: str, memory: int | None = 2000 * MB) -> Any:
    with asked(folder, f"print(json.dumps({program}), flush=True)", memory) as worker:
        return worker.answer()


def test_it_is_the_process_that_was_started_and_has_its_arguments(tmp_path: Path) -> None:
    program = '{"pid": os.getpid(), "argv": sys.argv, "threads": len(os.listdir("/proc/self/task"))}'
    with asked(tmp_path, f"print(json.dumps({program}), flush=True)") as worker:
        said = worker.answer()
        assert said == {"pid": worker.pid, "argv": [str(tmp_path / "worker.py"), "argument"], "threads": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="what can be limited differs")
def test_memory_files_and_core_dumps_have_limits(tmp_path: Path) -> None:
    names = ("RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_CORE")
    program = f'{{n: (r := __import__("resource")).getrlimit(getattr(r, n)) for n in {names}}}'
    most = [2000 * MB] * 2
    assert answer(tmp_path, program) == {"RLIMIT_DATA": most, "RLIMIT_FSIZE": [16_000_000] * 2, "RLIMIT_CORE": [0, 0]}
    assert answer(tmp_path, program, None)["RLIMIT_DATA"] != most, "a GPU's driver is not limited"


def test_memory_beyond_the_limit_is_not_to_be_had(tmp_path: Path) -> None:
    program = "x = bytearray(500 << 20); print('{}', flush=True)"
    with asked(tmp_path, program, 300 * MB) as worker, pytest.raises(WorkerDied, match="MemoryError"):
        worker.answer()


@pytest.mark.parametrize("program", ["open('f', 'wb').write(bytes(20_000_000))", "sys.stderr.write('x' * 20_000_000)"])
def test_a_disk_is_not_filled(tmp_path: Path, program: str) -> None:
    with asked(tmp_path, program) as worker, pytest.raises(WorkerDied, match="ended"):
        worker.answer()


def test_an_answer_has_an_end(tmp_path: Path) -> None:
    with asked(tmp_path, "while True: os.write(1, bytes(1 << 16))") as worker:
        with pytest.raises(WorkerDied, match=f"its answer is longer than {WORKER_ANSWER_BYTES // 1_000_000} MB"):
            worker.answer()
        assert not worker.alive


@pytest.mark.parametrize(
    "said", ["[", "nonsense", "3", '{"a": NaN}', '{"a":' * 40 + "1" + "}" * 40, '{"a": "\\ud800"}']
)
def test_an_answer_that_is_none(tmp_path: Path, said: str) -> None:
    program = f"print({said!r}, flush=True)"
    with asked(tmp_path, program) as worker, pytest.raises(WorkerDied, match="its answer cannot be read"):
        worker.answer()


def test_its_last_words_obey_nobody(tmp_path: Path) -> None:
    words = r"exit code 1 \(\\x1b\]0;owned\\x07\)$"
    with asked(tmp_path, "sys.exit('\\x1b]0;owned\\x07')") as worker, pytest.raises(WorkerDied, match=words):
        worker.answer()


def test_home_and_temporary_folder_are_its_own_and_go_with_it(tmp_path: Path) -> None:
    program = '{"cwd": os.getcwd(), "home": os.path.expanduser("~"), "tmp": __import__("tempfile").gettempdir()}'
    with asked(
        tmp_path, f"open('left', 'w'); print(json.dumps({program}), flush=True); sys.stdin.readline()"
    ) as worker:
        said = worker.answer()
        folder = Path(said["cwd"])
        assert said == {"cwd": str(folder), "home": str(folder), "tmp": str(folder)}
        assert (folder / "left").exists()
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_a_worker_whose_parent_was_killed_clears_up_itself(tmp_path: Path) -> None:
    with asked(tmp_path, "print(json.dumps({'cwd': os.getcwd()}), flush=True); sys.stdin.readline()") as worker:
        folder = Path(worker.answer()["cwd"])
        assert folder.exists()
        # What its parent's death closes.
        worker._jobs.close()
        assert worker._process.wait(timeout=60) == 0
        assert not folder.exists()


def test_the_network_is_out_of_reach_or_that_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = f"""
try:
    __import__("socket").create_connection(("127.0.0.1", {listener.getsockname()[1]}), 5)
    reached = True
except OSError:
    reached = False
print(json.dumps({{"reached": reached, "said": os.environ["AMC_LATENCY_UNLIMITED"]}}), flush=True)
"""
        with asked(tmp_path, program) as worker:
            said = worker.answer()
    assert said["reached"] == ("it may use the network" in said["said"])


def test_what_could_not_be_limited_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json"))
    said: list[str] = []
    device.say = said.append  # type: ignore[method-assign]

    class Unlimited:
        def __init__(self, *_: object) -> None:
            self.ready = {"unlimited": "it may use the network"}

    monkeypatch.setattr(import_module("amc_latency.device.host.host"), "WorkerProcess", Unlimited)
    for _ in range(2):
        device._start_worker(1)
    assert said == ["the process that runs models is not fully confined on this system: it may use the network"]


def test_the_environment_has_what_decides_speed_and_no_secrets() -> None:
    given = {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "3",
        "XNNPACK_MAX_THREADS": "2",
        "LD_PRELOAD": "/lib/j.so",
        "PYTHONPATH": f"sub{os.pathsep}{os.pathsep}/abs",
        "CUDA_VISIBLE_DEVICES": "1",
        "TF_API_KEY": "x",
        "CUDA_TOKEN": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "GITHUB_TOKEN": "x",
        "SSH_AUTH_SOCK": "x",
        "HOME": "/home/me",
        "TMPDIR": "/tmp/me",
        "http_proxy": "http://me:secret@proxy",
    }
    found = worker_environment(Path("/own"), given)
    assert found.pop("PYTHONUSERBASE")
    assert found == {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "3",
        "XNNPACK_MAX_THREADS": "2",
        "LD_PRELOAD": "/lib/j.so",
        "PYTHONPATH": f"{Path.cwd()}/sub{os.pathsep}/abs",
        "CUDA_VISIBLE_DEVICES": "1",
        "HOME": "/own",
        "TMPDIR": "/own",
        "AMC_LATENCY_WORKER_FOLDER": "/own",
    }


def test_nothing_but_a_workers_own_folder_is_removed(tmp_path: Path) -> None:
    program = tmp_path / "p.py"
    program.write_text("")
    limits = '{"memory": null, "file": 100000, "network": true}'
    for name, is_gone in (("mine", False), ("amc-latency-worker-x", True)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "thesis.txt").write_text("all of it")
        command = [sys.executable, "-P", confined([], None)[2], limits, str(program)]
        for told in (str(tmp_path), "", str(folder)):
            environment = {**os.environ, "AMC_LATENCY_WORKER_FOLDER": told}
            subprocess.run(command, cwd=folder, env=environment, check=True)
            assert (folder / "thesis.txt").exists() != (is_gone and told == str(folder))


def bomb(side: int = 1 << 16) -> bytes:
    """A few hundred bytes that ask for two maps of `side` x `side` floats: of 16 GiB each."""
    graph = TfliteGraph()
    x = graph.input(2, 2, 1)
    model = graph.finish([graph.conv(x, np.ones((1, 1, 1, 1), np.float32), np.ones(1, np.float32))])
    two = np.array([1, 2, 2, 1], np.int32).tobytes()
    assert two in model
    return model.replace(two, np.array([1, side, side, 1], np.int32).tobytes())


def test_a_file_that_asks_for_all_memory_is_an_error_row(tmp_path: Path) -> None:
    device = HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json"))
    protocol = replace(HOST_PROTOCOL, state="hot", rounds=1, runs=2, min_time_ms=0.0)
    good = layer_model(LayerShape("conv", 8, 8, 4, 4))
    found = {
        timing.workload: timing.error
        for timing in device.time([Workload("bomb", bomb), Workload("good", lambda: good)], protocol)
    }
    assert found["good"] is None
    assert found["bomb"] is not None


@pytest.mark.parametrize(("side", "fits"), [(1 << 12, True), (1 << 14, False)])
def test_a_small_file_gets_a_gigabyte_for_activations(tmp_path: Path, side: int, fits: bool) -> None:
    """Two maps of 67 MB, and of 1.07 GB: that the computer may have as much counts for nothing."""
    device = HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json"))
    protocol = replace(HOST_PROTOCOL, state="hot", rounds=1, warmup=0, runs=1, max_runs=1, min_time_ms=0.0)
    [timing] = device.time([Workload("large", partial(bomb, side))], protocol)
    assert (timing.error is None) == fits


def test_a_file_that_crashes_litert_is_a_bad_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = layer_model(LayerShape("conv", 16, 32, h=14, w=14, kernel=3, padding=1))
    assert _shapes_at(model, {0: (1, 14, 14, 16)})[0] == (1, 14, 14, 16)
    crashing = tmp_path / "worker.py"
    crashing.write_text(ANSWER + "os.abort()\n")
    monkeypatch.setattr(import_module("amc_latency.device.tflite.tflite_inputs"), "_WORKER", crashing)
    with pytest.raises(BadModelError, match=r"the file can't be run at 1x14x14x16: the process ended by SIGABRT"):
        _shapes_at(model, {0: (1, 14, 14, 16)})


SENTINELS = {"sentinel_cpu_ns": [9, 9], "sentinel_wall_ns": [9, 9]}
GOOD = {"chunk": [0, 0, 1], "cpu_ns": [5, 6, 7], "wall_ns": [6, 7, 8], **SENTINELS}
HOT = {"hot_cpu_ns": [4] * 3, "hot_wall_ns": [4] * 3, "sentinel_hot_cpu_ns": [8, 8], "sentinel_hot_wall_ns": [8, 8]}


def test_answers_that_make_sense_are_believed() -> None:
    for good in (GOOD, GOOD | HOT):
        assert believed(json.loads(json.dumps(good))) == good
    assert believed({"error": "no such\nthing\x1b"}) == {"error": "no such\\nthing\\x1b"}
    assert believed_gpu({"ns": [3], "how": "graph", "graph": True, "fatal": False})["ns"] == [3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu_ns": []},
        {"cpu_ns": [5, 6]},
        {"cpu_ns": [5, 6, "7"]},
        {"cpu_ns": [5, 6, -7]},
        {"cpu_ns": [5, 6, 7.5]},
        {"cpu_ns": [5, 6, 10**16]},
        {"cpu_ns": None},
        {"chunk": [0, 0, 2]},
        {"chunk": [0, 0, -1]},
        {"sentinel_cpu_ns": [9, 0]},
        {"sentinel_cpu_ns": [9]},
        {"hot_cpu_ns": [4] * 3},
        {**HOT, "hot_wall_ns": [4]},
        {**HOT, "sentinel_hot_cpu_ns": []},
        {"error": 3},
    ],
    ids=str,
)
def test_answers_that_make_none_are_errors(wrong: dict[str, Any]) -> None:
    assert believed(GOOD | wrong)["error"].startswith("the process that ran it answers nonsense: ")


@pytest.mark.parametrize("wrong", [{"ns": []}, {"ns": ["3"]}, {"how": 3}, {"graph": 1}, {"fatal": "no"}, {"error": []}])
def test_nonsense_of_a_gpu_s_worker_ends_it(wrong: dict[str, Any]) -> None:
    found = believed_gpu({"ns": [3], "how": "graph", "graph": True, "fatal": False} | wrong)
    assert found["error"].startswith("the process that ran it answers nonsense: ")
    assert found["fatal"] is True
