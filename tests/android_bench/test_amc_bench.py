"""The phone's own program on real LiteRT, here on Linux, and the reading of what it prints."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amc_latency.android_bench.amc_bench import NOT_REACHED, AmcBench
from amc_latency.android_bench.obtaining.build import amc_bench_files
from amc_latency.android_bench.runner import Job, ParseError, RunnerError, Sample
from amc_latency.device.tflite.tflite_inputs import sized
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.kinds.pools import max_pool
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.tflite.writer import TfliteGraph
from hypothesis import given
from hypothesis import strategies as st

if shutil.which("cc") is None and shutil.which("gcc") is None:
    pytest.skip("needs a C compiler (Debian: gcc)", allow_module_level=True)

QUICK = Job(warmup=1, warmup_ms=0, runs=3, min_time_ms=0, max_runs=3)


class Folder:
    """A folder with the program, its library and some models."""

    def __init__(self, path: Path) -> None:
        self.path = path
        files = amc_bench_files("x86_64" if os.uname().machine == "x86_64" else "aarch64", bionic=False)
        for name, content in files.items():
            (path / name).write_bytes(content)
        (path / "amc_bench").chmod(0o755)
        self.runner = AmcBench(files)
        conv = layer_model(LayerShape("conv", 16, 32, h=14, w=14, kernel=3, padding=1))
        for name, content in {
            "add": layer_model(LayerShape("add", 8, 8, h=4, w=4)),
            "conv": conv,
            "padded": padded_max_pool(),
            "broken": b"TFL3 this is none",
            "cut": conv[:4000],
        }.items():
            (path / f"{name}.tflite").write_bytes(content)

    def shell(self, command: str) -> tuple[str, int]:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.stdout, done.returncode

    def samples(self, models: Sequence[str], job: Job = QUICK) -> list[Sample]:
        text, code = self.shell(self.runner.command(models, job))
        return self.runner.parse(text, models, code)

    def rows(self, *flags: str) -> list[dict[str, Any]]:
        """The raw lines, without header and end."""
        text, code = self.shell(f"./amc_bench --lib=./libLiteRt.so --warmup_ms=0 --min_time_ms=0 {' '.join(flags)}")
        assert code == 0, text
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")][1:-1]


def padded_max_pool() -> bytes:
    """Convolution, PADV2, pool: XNNPACK does not take the one in the middle."""
    graph = TfliteGraph()
    x = graph.conv(graph.input(16, 16, 8), np.ones((8, 1, 1, 8), np.float32), np.ones(8, np.float32))
    return graph.finish([max_pool(graph, x, 3, 2, 1)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return Folder(tmp_path_factory.mktemp("phone"))


def test_every_model_gets_its_sample_and_broken_ones_an_error(folder: Folder) -> None:
    add, broken, missing, conv = folder.samples(["add.tflite", "broken.tflite", "missing.tflite", "conv.tflite"])
    for sample in (add, conv):
        assert sample.error is None
        assert sample.n == 3
        assert sample.delegated is True
        assert 0 < sample.min_us <= sample.median_us
        assert sample.min_us <= sample.mean_us
    assert conv.min_us > add.min_us
    assert broken.error == "LiteRtCreateModelFromFile failed with status 500 (not readable as a .tflite file)"
    assert missing == Sample("missing.tflite", error="cannot read the model: No such file or directory")


def test_an_operator_that_xnnpack_does_not_take_shows(folder: Folder) -> None:
    assert [sample.delegated for sample in folder.samples(["padded.tflite", "conv.tflite"])] == [False, True]


def test_a_file_with_sizes_left_open_runs_at_those_that_were_written_into_it(folder: Folder) -> None:
    graph = TfliteGraph()
    x = graph.input(1, 1, 8)
    graph._subgraph.tensors[x].shapeSignature = np.array([-1, -1, -1, 8], np.int32)
    model = graph.finish([graph.conv(x, np.ones((8, 3, 3, 8), np.float32), np.ones(8, np.float32), padding=1)])
    for size in (4, 64):
        (folder.path / f"open{size}.tflite").write_bytes(sized(model, [f"1x{size}x{size}x8"]))
    small, large = folder.samples(["open4.tflite", "open64.tflite"])
    assert large.delegated is True
    # 256 times as many pixels.
    assert large.min_us > 5 * small.min_us


def test_it_agrees_with_the_python_interpreter_within_tenfold(folder: Folder) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder.path / "conv.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    times_us = []
    for _ in range(200):
        start = time.perf_counter_ns()
        interpreter.invoke()
        times_us.append((time.perf_counter_ns() - start) / 1e3)
    (sample,) = folder.samples(["conv.tflite"], Job(warmup_ms=20, runs=200, min_time_ms=0))
    assert sample.min_us / 10 < min(times_us) < sample.min_us * 10


def test_figures_are_those_of_the_raw_samples(folder: Folder) -> None:
    for runs in (1, 6, 7):
        (row,) = folder.rows(f"--runs={runs}", f"--max_runs={runs}", "--raw=1", "conv.tflite")
        wall_us = [ns / 1e3 for ns in row["wall_ns"]]
        assert len(wall_us) == len(row["thread_cpu_ns"]) == row["n"] == runs
        assert row["min_us"] == pytest.approx(min(wall_us), abs=0.001)
        assert row["median_us"] == pytest.approx(statistics.median(wall_us), abs=0.001)
        assert row["mean_us"] == pytest.approx(statistics.fmean(wall_us), abs=0.001)
        assert row["std_us"] == pytest.approx(statistics.pstdev(wall_us), abs=0.001)
        assert row["thread_cpu_min_us"] == pytest.approx(min(row["thread_cpu_ns"]) / 1e3, abs=0.001)


def test_loops_obey_least_runs_least_time_and_most_runs(folder: Folder) -> None:
    (least_runs,) = folder.rows("--warmup=7", "--runs=5", "--max_runs=9", "add.tflite")
    assert (least_runs["warmup"], least_runs["n"]) == (7, 5)
    (most_runs,) = folder.rows("--min_time_ms=5000", "--runs=5", "--max_runs=9", "add.tflite")
    assert most_runs["n"] == 9
    (timed,) = folder.rows(
        "--warmup_ms=30", "--min_time_ms=30", "--runs=1", "--max_runs=100000", "--raw=1", "add.tflite"
    )
    assert timed["warmup"] > 3
    assert timed["n"] > 1
    assert sum(timed["wall_ns"]) < 60e9


def test_a_model_that_takes_too_long_ends_the_program_with_its_name(folder: Folder) -> None:
    job = replace(QUICK, warmup_ms=20_000, timeout_s=0.2)
    models = ["conv.tflite", "add.tflite"]
    text, code = folder.shell(folder.runner.command(models, job))
    assert code == 5
    late, after = folder.runner.parse(text, models, code)
    assert late == Sample("conv.tflite", error="took longer than 0.2 s")
    assert after == Sample("add.tflite", error=f"{NOT_REACHED}: amc_bench ended with exit code 5")


def test_a_model_that_crashes_litert_is_named(folder: Folder) -> None:
    add, cut, conv = folder.samples(["add.tflite", "cut.tflite", "conv.tflite"])
    assert add.error is None
    assert cut.error == "LiteRT crashed on it"
    assert conv.error.startswith(NOT_REACHED)


def test_it_stays_on_the_asked_core(folder: Folder) -> None:
    for core in sorted(os.sched_getaffinity(0))[:2]:
        rows = folder.rows(f"--cores={core}", "--runs=50", "conv.tflite", "add.tflite")
        assert [row["cpu"] for row in rows] == [[core, core]] * 2


def test_watched_files_are_read_around_each_model(folder: Folder) -> None:
    (folder.path / "frequency").write_text("  1593600\n\n")
    (folder.path / "odd name").write_bytes('"\\\u00e9\U0001f600\xff'.encode("utf-8")[:-2] + b"\xff\t")
    (folder.path / "empty").write_bytes(b"")
    job = replace(QUICK, watch=("frequency", "odd name", "not there", "empty"))
    for sample in folder.samples(["add.tflite", "conv.tflite"], job):
        assert sample.before == sample.after == ("1593600", '"\\\u00e9\U0001f600\udcff', "?", "")


def test_model_names_survive_shell_and_json(folder: Folder) -> None:
    names = ['it\'s "odd" $HOME\t\u00e9\U0001f600.tflite', "--raw=1", "{.tflite"]
    for name in names:
        shutil.copy(folder.path / "add.tflite", folder.path / name)
    assert [(sample.model, sample.error) for sample in folder.samples(names)] == [(name, None) for name in names]


def test_an_op_profile_names_every_operator(folder: Folder) -> None:
    models = ["padded.tflite"]
    text, code = folder.shell(folder.runner.command(models, replace(QUICK, op_profile=True)))
    profile = folder.runner.op_profile(text, models[0], code)
    assert [name in profile for name in ("PADV2", "Delegate/Max Pooling", "Run Order")] == [True] * 3
    plain, _ = folder.shell(folder.runner.command(models, QUICK))
    with pytest.raises(RunnerError, match="gave no op profile"):
        folder.runner.op_profile(plain, models[0], 0)
    broken, code = folder.shell(folder.runner.command(["broken.tflite"], replace(QUICK, op_profile=True)))
    with pytest.raises(RunnerError, match=r"not readable as a \.tflite file"):
        folder.runner.op_profile(broken, "broken.tflite", code)


def test_memory_does_not_grow_with_models(folder: Folder) -> None:
    def peak_kb(models: int) -> int:
        command = [str(folder.path / "amc_bench"), f"--lib={folder.path}/libLiteRt.so", "--warmup_ms=0"]
        command += ["--runs=1", "--min_time_ms=0", *[str(folder.path / "conv.tflite")] * models]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss

    # A convolution holds 50 KB of weights, inputs and outputs: 280 more of them kept would be 14 MB.
    assert peak_kb(300) < peak_kb(20) + 3000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--help", 0, "usage: amc_bench"),
        ("--version", 0, "amc_bench 1"),
        ("", 2, "no model given"),
        ("--runs=3", 2, "no model given"),
        ("--speed=3 add.tflite", 2, "no such flag: --speed"),
        ("--raw add.tflite", 2, "--raw is no flag, or has no value"),
        ("--runs=3x add.tflite", 2, "--runs=3x is not a whole number from 1 to 1000000"),
        ("--runs=0 add.tflite", 2, "--runs=0 is not"),
        ("--runs=-1 add.tflite", 2, "--runs=-1 is not"),
        ("--runs=1e3 add.tflite", 2, "--runs=1e3 is not"),
        ("--runs= add.tflite", 2, "--runs= is not"),
        ("--runs=99999999999999999999 add.tflite", 2, "is not a whole number"),
        ("--min_time_ms=1.2.3 add.tflite", 2, "--min_time_ms=1.2.3 is not a number from 0 to 1e+06"),
        ("--warmup_ms=nan add.tflite", 2, "--warmup_ms=nan is not"),
        ("--warmup_ms=. add.tflite", 2, "--warmup_ms=. is not"),
        ("--timeout_s=0 add.tflite", 2, "--timeout_s=0 is not a number from 0.001"),
        ("--raw=2 add.tflite", 2, "--raw=2 is not"),
        ("--max_runs=3 --runs=4 add.tflite", 2, "--max_runs=3 is below --runs=4"),
        ("--cores=0, add.tflite", 2, "--cores=0, is not a list of cores"),
        ("--cores=0-1 add.tflite", 2, "--cores=0-1 is not a list of cores"),
        ("--watch= add.tflite", 2, "--watch has no value"),
        ("--lib=./libLiteRt.so --cores=1000 add.tflite", 4, "cannot stay on cores 1000"),
        ("--lib=./libLiteRt.so --cores=0,1000 add.tflite", 4, "cannot stay on cores 0,1000"),
        ("--lib=./libLiteRt.so --cores=99999999 add.tflite", 4, "there is no core 99999999"),
        ("--lib=./nothing.so add.tflite", 3, "cannot load LiteRT: ./nothing.so"),
        ("--lib=libm.so.6 add.tflite", 3, "libm.so.6 has no LiteRt"),
        ("--lib=./libLiteRt.so add.tflite > /dev/full", 1, "cannot write the results: No space left on device"),
    ],
)
def test_exit_codes_and_messages(folder: Folder, arguments: str, code: int, words: str) -> None:
    text, ended = folder.shell(f"./amc_bench {arguments}")
    assert (ended, words in text) == (code, True), text


def test_a_core_that_is_left_out_silently_by_the_kernel_is_refused(folder: Folder) -> None:
    assert max(os.sched_getaffinity(0)) < 1000
    (sample,) = folder.samples(["add.tflite"], replace(QUICK, cores=(0, 1000)))
    assert sample.error == "amc_bench ended with exit code 4: cannot stay on cores 0,1000: not all of them are there"


FILES = {"amc_bench": b"program", "libLiteRt.so": b"library"}
RUNNER = AmcBench(FILES)


def line(body: dict[str, Any]) -> str:
    head = json.dumps(body, separators=(",", ":"))[:-1]
    return f'{head},"crc":"{zlib.crc32(head.encode()):08x}"}}\n'


def row(index: int, model: str) -> dict[str, Any]:
    figures = {"n": 20, "min_us": 1.25, "median_us": 2.5 + index, "mean_us": 3.125, "std_us": 0.5}
    state = {"delegated": True, "before": ["1593600"], "after": ["1401600"]}
    return {"index": index, "model": model, "status": "ok", **state, **figures}


MODELS = ["a.tflite", "b.tflite"]
HEADER = line({"program": "amc_bench", "version": "1", "library": "x", "cpus": 8, "threads": 1})
ROWS = [line(row(0, "a.tflite")), line(row(1, "b.tflite"))]
LOG = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
OUTPUT = HEADER + LOG + "".join(ROWS) + line({"done": 2})
SAMPLES = [
    Sample("a.tflite", 20, 1.25, 2.5, 3.125, 0.5, True, ("1593600",), ("1401600",)),
    Sample("b.tflite", 20, 1.25, 3.5, 3.125, 0.5, True, ("1593600",), ("1401600",)),
]


def test_title_and_command() -> None:
    # sha256sum of "program" and "library"
    assert RUNNER.title == "amc_bench 1310ca2c, LiteRT b718f135, xnnpack"
    job = Job(cores=(4, 5), watch=("/sys/a b",), warmup_ms=1234567.0, min_time_ms=0.5, threads=2)
    flags = (
        "--threads=2 --warmup=3 --warmup_ms=1234567 --runs=20 --min_time_ms=0.5 --max_runs=1000 --timeout_s=60 "
        "--cores=4,5"
    )
    assert RUNNER.flags(job) == flags
    command = RUNNER.command(["a.tflite", "it's"], job)
    assert command == f"./amc_bench --lib=./libLiteRt.so {flags} '--watch=/sys/a b' -- a.tflite 'it'\"'\"'s'"


def test_whole_output() -> None:
    assert RUNNER.parse(OUTPUT, MODELS, 0) == SAMPLES
    assert RUNNER.parse(OUTPUT.replace("\n", "\r\n"), MODELS, 0) == SAMPLES
    assert RUNNER.parse(OUTPUT.removesuffix("\n"), MODELS, 0) == SAMPLES


def test_a_killed_program_leaves_what_it_had_finished() -> None:
    first, second = RUNNER.parse(HEADER + ROWS[0] + ROWS[1][:50], MODELS, 137)
    assert first == SAMPLES[0]
    assert second.error == "amc_bench ended with exit code 137 (SIGKILL)"
    both = RUNNER.parse('CANNOT LINK EXECUTABLE "./amc_bench": library "libc.so.6" not found', MODELS, 1)
    end = 'amc_bench ended with exit code 1: CANNOT LINK EXECUTABLE "./amc_bench": library "libc.so.6" not found'
    assert [sample.error for sample in both] == [end, f"{NOT_REACHED}: {end}"]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", "printed nothing"),
        (HEADER + "".join(ROWS), "last line is missing"),
        (HEADER + ROWS[0] + line({"done": 2}), "breaks off after 1 of 2"),
        (HEADER + ROWS[0] + line({"done": 1}), "timed other than these 2 models"),
        (HEADER + ROWS[1] + line({"done": 2}), "a line is lost before .*b.tflite"),
        (HEADER + ROWS[0] * 2 + line({"done": 2}), "a line is lost before .*a.tflite"),
        (OUTPUT.replace("1.25", "1.26"), "garbled line .*1.26"),
        (OUTPUT.replace('"1","library"', '"2","library"'), "garbled line .*version"),
        ("".join(ROWS) + line({"done": 2}), "not the first line"),
        (HEADER + line({"index": 0, "model": "a.tflite"}) + ROWS[1] + line({"done": 2}), "without 'n': .*a.tflite"),
        ('{"fps": 3}\n' + OUTPUT, "garbled line .*fps"),
    ],
)
def test_what_no_such_program_prints_is_refused(text: str, quoted: str) -> None:
    with pytest.raises(ParseError, match=quoted):
        RUNNER.parse(text, MODELS, 0)


def unharmed(text: str, code: int) -> None:
    """Either found out, or every figure is the right one."""
    try:
        samples = RUNNER.parse(text, MODELS, code)
    except ParseError:
        return
    for sample, right in zip(samples, SAMPLES, strict=True):
        assert sample == right or (sample.error is not None and sample.min_us is None)
        assert code != 0 or sample == right


@given(st.integers(0, len(OUTPUT) - 1), st.integers(0, 255), st.sampled_from([0, 5, 137]))
def test_a_changed_byte_never_changes_a_figure(at: int, byte: int, code: int) -> None:
    mangled = bytearray(OUTPUT.encode())
    mangled[at] = byte
    unharmed(mangled.decode("utf-8", "replace"), code)


@given(st.integers(0, len(OUTPUT)), st.integers(0, len(OUTPUT)), st.sampled_from([0, 5, 137]))
def test_a_missing_stretch_never_changes_a_figure(start: int, end: int, code: int) -> None:
    unharmed(OUTPUT[:start], code)
    unharmed(OUTPUT[: min(start, end)] + OUTPUT[max(start, end) :], code)


@given(st.text(), st.integers(0, 255))
def test_any_text_gives_samples_or_a_parse_error(text: str, code: int) -> None:
    unharmed(text, code)
