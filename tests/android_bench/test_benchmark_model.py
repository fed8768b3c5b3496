"""`benchmark_model`: its commands, run by real shells, and its output, as the real program printed it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.android_bench.benchmark_model import BenchmarkModel, delegated, failure
from amc_latency.android_bench.printed.counts import Counts, parse_counts, parse_figures, parse_run
from amc_latency.android_bench.printed.op_profile import parse_op_profile
from amc_latency.android_bench.runner import Job, ParseError, RunnerError, Sample
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.android_bench.mutation import damaged

FIXTURES = Path(__file__).parent / "fixtures"
MODEL = "/data/local/tmp/m.tflite"
JOB = Job(warmup=2, warmup_ms=250, runs=20, min_time_ms=100, timeout_s=60, threads=2)
RUN = "Running benchmark for at least 1 iterations and at least 0 seconds but terminate if exceeding 60 seconds."
# The flags of LiteRT's program in the form that the classic one prints its own in; types and names are its source's.
LITERT_HELP = """INFO: STARTING!
ERROR: usage: ./benchmark_model <flags>
Flags:
\t--num_runs=50           \tint32\toptional\texpected number of runs
\t--min_secs=1            \tfloat\toptional\tminimum number of seconds
\t--max_secs=150          \tfloat\toptional\tmaximum number of seconds
\t--num_threads=-1        \tint32\toptional\tnumber of threads
\t--warmup_runs=1         \tint32\toptional\tminimum number of runs
\t--warmup_min_secs=0.5   \tfloat\toptional\tminimum number of seconds
\t--graph=                \tstring\toptional\tThe path to the model file.
\t--use_cpu=true          \tbool\toptional\tWhether to use CPU accelerator.
\t--use_gpu=false         \tbool\toptional\tWhether to use GPU accelerator.
\t--require_full_delegation=false\tbool\toptional\tWhether to require full delegation.
\t--use_profiler=false    \tbool\toptional\tWhether to use profiler.
"""
LITERT_OUTPUT = f"""INFO: STARTING!
INFO: [gpu_registry.cc:130] Attempting to load GPU accelerator(libLiteRtGpuAccelerator.so).
ERROR: [gpu_registry.cc:140] No GPU accelerator is there
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: {RUN}
INFO: count=1 curr=16615 p5=16615 median=16615 p95=16615

INFO: {RUN}
INFO: count=4 first=14078 curr=14119 min=14078 max=15836 avg=14939.2 std=841 p5=14078 median=15724 p95=15836

INFO: [benchmark_litert_model.h:77] \n========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:82] Warmup (avg):         16.61 ms (1 runs)
INFO: [benchmark_litert_model.h:84] Inference (avg):      14.94 ms (4 runs)
INFO: [benchmark_litert_model.h:88] Inference (min):      14.08 ms
INFO: [benchmark_litert_model.h:90] Inference (max):      15.84 ms
INFO: [benchmark_litert_model.h:92] Inference (std):      0.84
"""


def fixture(name: str) -> str:
    """Both outputs of a real run, merged as on the phone: the errors first, or only the output if that holds all."""
    err = FIXTURES / f"{name}.err"
    return (err.read_text() if err.exists() else "") + (FIXTURES / f"{name}.out").read_text()


def classic() -> BenchmarkModel:
    return BenchmarkModel.from_help((FIXTURES / "help.txt").read_text(), "benchmark_model", "5d45" * 16)


def litert() -> BenchmarkModel:
    return BenchmarkModel.from_help(LITERT_HELP, "/data/local/tmp/benchmark_model", "ab" * 32)


def whole(output: str, code: int = 0) -> str:
    """As it comes from a command without watched files."""
    return f"{output}\n@sample exit {code}\n@sample watched 0\n"


# What a program can do


def test_the_two_programs_are_told_apart_by_their_help() -> None:
    assert classic().title == "benchmark_model 5d455d455d45 xnnpack"
    assert litert().title == "benchmark_model (LiteRT) abababababab xnnpack"


def test_flags_of_the_classic_program() -> None:
    assert classic().flags(JOB) == (
        "--num_threads=2 --warmup_runs=2 --warmup_min_secs=0.25 --num_runs=20 --min_secs=0.1 --max_secs=60"
        " --use_xnnpack=true"
    )
    profile = classic().flags(replace(JOB, op_profile=True))
    assert profile == f"{classic().flags(JOB)} --enable_op_profiling=true --op_profiling_output_mode=csv"


def test_flags_of_litert() -> None:
    # Its `--require_full_delegation` and the processor exclude each other.
    common = "--num_threads=2 --warmup_runs=2 --warmup_min_secs=0.25 --num_runs=20 --min_secs=0.1 --max_secs=60"
    assert litert().flags(JOB) == f"{common} --use_cpu=true"
    assert litert().flags(replace(JOB, op_profile=True)) == f"{common} --use_cpu=true --use_profiler=true"


def test_an_old_program_gets_only_the_flags_that_it_knows() -> None:
    lines = "\t--num_runs=50\tint32\truns\n\t--num_threads=1\tint32\tthreads\n\t--graph=\tstring\tgraph\n"
    runner = BenchmarkModel.from_help(f"usage: ./benchmark_model\nFlags:\n{lines}", "./benchmark_model", "0" * 64)
    assert runner.flags(JOB) == "--num_threads=2 --num_runs=20"
    assert runner.title.endswith("built-in kernels")
    with pytest.raises(RunnerError, match="too old for a profile"):
        runner.flags(replace(JOB, op_profile=True))


@pytest.mark.parametrize("flag", ["graph", "num_runs", "num_threads"])
def test_too_old(flag: str) -> None:
    lines = [line for line in LITERT_HELP.splitlines(keepends=True) if f"--{flag}=" not in line]
    with pytest.raises(RunnerError, match=f"too old: it does not know --{flag}"):
        BenchmarkModel.from_help("".join(lines), "./benchmark_model", "0" * 64)


@pytest.mark.parametrize(
    "says",
    [
        "sh: ./x: not executable: 64-bit ELF file",
        "Usage: ls [OPTION]...\n  --color=auto  colours",
        "",
        "CANNOT LINK\x1b[31m",
    ],
)
def test_no_benchmark_model(says: str) -> None:
    with pytest.raises(RunnerError, match=r"\./x is no benchmark_model: it says '") as caught:
        BenchmarkModel.from_help(says, "./x", "0" * 64)
    assert says[:11].strip() in str(caught.value)
    assert str(caught.value).isprintable()


# Its figures


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        (fixture("ok"), Counts(200, 454, 448, 450, 1031, 465.745, 61)),
        (fixture("opcsv"), Counts(4, 14078, 14078, 15724, 15836, 14939.2, 841)),
        (fixture("opcsv2"), Counts(4, 14638, 14562, 14739, 14766, 14676.2, 81)),
        (fixture("opprof"), Counts(4, 14080, 13916, 14085, 14837, 14229.5, 357)),
        (fixture("unknownflag"), Counts(1673, 454, 448, 450, 5882, 487.903, 364)),
        (fixture("dry"), Counts(0, 0, 0, 0, 0, 0, 0)),
        (LITERT_OUTPUT, Counts(4, 14078, 14078, 15724, 15836, 14939.2, 841)),
    ],
)
def test_the_counted_runs_of_real_outputs(text: str, figures: Counts) -> None:
    assert parse_run(text) == figures


def test_the_warm_up_comes_first() -> None:
    assert [(counts.n, counts.mean_us) for counts in parse_counts(fixture("ok"))] == [(5, 702.8), (200, 465.745)]


@pytest.mark.parametrize(
    ("line", "figures"),
    [
        ("count=4 curr=12(all same)", Counts(4, 12, 12, 12, 12, 12, 0)),
        ("count=4 curr=12(all same) p5=12 median=12 p95=12", Counts(4, 12, 12, 12, 12, 12, 0)),
        ("count=1 curr=9", Counts(1, 9, 9, 9, 9, 9, 0)),
        ("count=2 first=1 curr=3 min=1 max=3 avg=2 std=1", Counts(2, 1, 1, None, 3, 2, 1)),
        # 1204377 and 1204385: a mean of 1204381, six digits of which are printed.
        (
            "count=2 first=1204377 curr=1204385 min=1204377 max=1204385 avg=1.20438e+06 std=4",
            Counts(2, 1204377, 1204377, None, 1204385, 1204380, 4),
        ),
        ("count=0", Counts(0, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_every_form_of_a_line_of_figures(line: str, figures: Counts) -> None:
    assert parse_figures(line) == figures


@pytest.mark.parametrize(
    "line",
    [
        "count=2 curr=9",
        "count=1 curr=9(all same)",
        "count=1 first=1 curr=1 min=1 max=1 avg=1 std=0",
        "count=2 first=1 curr=3 min=1 max=3 avg=2.0 std=1",
        "count=2 first=1 curr=3 min=01 max=3 avg=2 std=1",
        "count=2 first=1 curr=3 min=1 max=3 avg=4 std=1",
        "count=2 first=0 curr=3 min=1 max=3 avg=2 std=1",
        "count=9 first=1 curr=3 min=1 max=30 avg=2 std=1",
        "count=9 first=1 curr=3 min=1 max=3 avg=2 std=9",
        "count=4 first=14638 curr=14562 min=14562 max=14766 avg=14676.2 std=81 p5=14562 median=14762 p95=14766",
        "count=4 first=14638 curr=14562 min=14562 max=14766 avg=14676.2 std=81 p5=14762 median=14739 p95=14766",
        "count=٣ curr=5(all same)",
    ],
)
def test_figures_that_no_runs_have(line: str) -> None:
    with pytest.raises(ParseError, match=re.escape(line)):
        parse_figures(line)


@pytest.mark.parametrize(
    ("old", "new", "quoted"),
    [
        ("Inference (avg): 465.745", "Inference (avg): 465.74", "Inference (avg): 465.74"),
        ("avg=465.745", "avg=465.755", "465.745"),
        ("min=448", "min=4x8", "min=4x8"),
        ("count=200", "count=100", "count=100"),
        ("median=450", "mediam=450", "mediam=450"),
        ("Running benchmark for at least 200", "Rnning benchmark for at least 200", "count=200"),
        ("Inference timings in us: Init", "Inference timing", "Inference timing: 56401"),
    ],
)
def test_damage_is_quoted(old: str, new: str, quoted: str) -> None:
    text = fixture("ok")
    assert old in text
    with pytest.raises(ParseError, match=re.escape(quoted)):
        parse_run(text.replace(old, new))


def test_litert_s_summary_must_be_of_the_same_runs() -> None:
    for old, new in (("14.94 ms (4", "14.93 ms (4"), ("ms (4 runs)", "ms (5 runs)"), ("14.08 ms", "14.10 ms")):
        with pytest.raises(ParseError, match=re.escape(new)):
            parse_run(LITERT_OUTPUT.replace(old, new))


# What went wrong


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("broken", 1, "The model is not a valid Flatbuffer buffer; Failed to load model /data/local/tmp/broken.tflite"),
        ("missing", 1, "Could not open '/nope.tflite'."),
        ("nograph", 1, "Please specify the name of your TF Lite input file with --graph"),
        ("version", 1, "benchmark_model does not know --version"),
        ("gpu", 1, "Can not open OpenCL library on this device"),
        ("unknownflag", 0, "benchmark_model does not know --bogus=1"),
        ("dry", 0, "ran the model not even once"),
    ],
)
def test_failed_runs_keep_the_program_s_words(name: str, code: int, words: str) -> None:
    (sample,) = classic().parse(whole(fixture(name), code), [MODEL], 0)
    assert sample.error is not None
    assert words in sample.error
    assert "\n" not in sample.error
    assert (sample.n, sample.mean_us) == (0, None)


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        ("timeout: exec ./benchmark_model: Exec format error", 126, "not built for this kind of processor"),
        ("./benchmark_model: 1: \x7fELF\x02: not found", 2, "not built for this kind of processor"),
        ("Segmentation fault", 139, "exit code 139: Segmentation fault"),
        ("", 134, "exit code 134: nothing"),
        (f"INFO: {RUN}", 124, "longer than its time-out"),
        ("", 137, "killed"),
        ("ERROR: Benchmarking failed.", 1, "exit code 1: Benchmarking failed."),
    ],
)
def test_failures(output: str, code: int, words: str) -> None:
    assert words in (failure(output, code) or "")


def test_what_litert_merely_did_not_find_is_no_failure() -> None:
    assert failure(LITERT_OUTPUT, 0) is None


def test_a_command_that_died_is_an_error_and_one_that_is_cut_off_a_parse_error() -> None:
    (sample,) = classic().parse("taskset: failed to set affinity\n", [MODEL], 1)
    assert sample == Sample(MODEL, error="exit code 1: taskset: failed to set affinity")
    for text in ("", fixture("ok"), whole(fixture("ok"))[:-5], whole(fixture("ok")).replace("@sample exit 0\n", "")):
        with pytest.raises(ParseError, match="cut off"):
            classic().parse(text, [MODEL], 0)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("ok", True),
        ("xnnpack_two.txt", True),
        ("xnnpack_half.txt", False),
        ("xnnpack_none.txt", False),
        ("missing", False),
    ],
)
def test_delegation(text: str, taken: bool) -> None:
    output = (FIXTURES / text).read_text() if text.endswith(".txt") else fixture(text)
    assert delegated(output, says=True) is taken


def test_delegation_of_the_main_graph_counts_and_only_that_of_xnnpack() -> None:
    line = "Replacing {} with delegate (TfLiteXNNPackDelegate) node, yielding {} partitions{}."
    assert delegated(line.format("3 node(s)", 1, ""), says=True) is True
    assert delegated(line.format("3 node(s)", 2, ""), says=True) is False
    other = line.format("1 out of 2 node(s)", 2, " for subgraph 1")
    assert delegated(line.format("3 out of 3 node(s)", 1, " for subgraph 0") + other, says=True) is True
    assert delegated(fixture("gpu"), says=True) is False
    assert delegated(LITERT_OUTPUT, says=False) is None


# Damaged texts


def true_sample() -> Sample:
    return Sample(MODEL, 200, 448.0, 450.0, 465.745, 61.0, True)


def assert_no_other_figures(text: str) -> None:
    """A mean is never wrong. Another figure may be only if it is still possible; that needs a checksum."""
    try:
        (sample,) = classic().parse(text, [MODEL], 0)
    except ParseError:
        return
    if sample.error is not None:
        assert sample.mean_us is None
        return
    assert sample.mean_us == 465.745
    assert sample.min_us is not None
    assert sample.median_us is not None
    assert sample.std_us is not None
    assert sample.n >= 200
    assert sample.min_us <= 449 <= sample.median_us <= 508 < 1031
    assert abs(sample.median_us - 465.745) <= sample.std_us + 1.01
    # One of so many runs took 1031 us.
    assert (sample.std_us + 1) ** 2 * sample.n >= (1031 - 465.75) ** 2 or sample.std_us == 61.0


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damaged_output_has_no_other_figures(data: st.DataObject) -> None:
    assert_no_other_figures(data.draw(damaged(whole(fixture("ok")))))


def test_every_other_digit_in_every_place_of_the_figures() -> None:
    text = whole(fixture("ok"))
    begin, end = text.index("INFO: Running benchmark for at least 200"), text.index("INFO: Note")
    places = [at for at in range(begin, end) if text[at].isdigit()]
    unseen = 0
    for at in places:
        for digit in set("0123456789") - {text[at]}:
            damaged_text = text[:at] + digit + text[at + 1 :]
            assert_no_other_figures(damaged_text)
            try:
                unseen += classic().parse(damaged_text, [MODEL], 0) != [true_sample()]
            except ParseError:
                continue
    # One in eight of these, all in n, min, median and std; were it many more, a check would have gone.
    assert unseen < 9 * len(places) / 7


# Commands


@pytest.fixture(params=["dash", "mksh"])
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shell, as `sh` too; mksh, Android's, with toybox's `timeout` and `taskset` as there."""
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"there is no {request.param}: install Debian's package {request.param}")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to(path)
    if request.param == "mksh":
        toybox = shutil.which("toybox")
        if toybox is None:
            pytest.skip("there is no toybox: install Debian's package toybox")
        for name in ("timeout", "taskset", "sleep", "cat"):
            (tools / name).symlink_to(toybox)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return path


def run(shell: str, command: str, folder: Path) -> tuple[str, int]:
    done = subprocess.run(
        [shell, "-c", command],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
    )
    return done.stdout, done.returncode


def program(folder: Path, body: str, name: str = "benchmark_model") -> BenchmarkModel:
    """A stand-in for the program, in `folder`. Of one that ends at once toybox's `timeout` says 127, now and then."""
    (folder / name).write_text(f"#!/bin/sh\nsleep 0.05\n{body}\n")
    (folder / name).chmod(0o755)
    return BenchmarkModel.from_help((FIXTURES / "help.txt").read_text(), name, "0" * 64)


def test_a_command_runs_the_program_between_two_looks_at_the_watched_files(shell: str, tmp_path: Path) -> None:
    (tmp_path / "freq").write_text("1600\n2nd line\n")
    (tmp_path / "no end").write_text("  38000")
    (tmp_path / "empty").write_text("")
    watch = tuple(str(tmp_path / name) for name in ("freq", "no end", "gone", "empty"))
    output = FIXTURES / "ok.out"
    runner = program(tmp_path, f"cat {output}; echo 'INFO: no end' >&2; printf 1900 > freq; printf half")
    text, code = run(shell, runner.command([MODEL], replace(JOB, watch=watch)), tmp_path)
    (sample,) = runner.parse(text, [MODEL], code)
    assert sample == replace(
        true_sample(), delegated=False, before=("1600", "38000", "?", "?"), after=("1900", "38000", "?", "?")
    )


@pytest.mark.parametrize("name", ["benchmark_model", "my 'best' $(touch gone) bench"])
def test_names_reach_the_program_as_they_are(shell: str, tmp_path: Path, name: str) -> None:
    model = '/data/a b/it\'s $(touch gone) "m" `x`\\n;*.tflite'
    runner = program(tmp_path, 'for a in "$@"; do printf "[%s]\\n" "$a"; done; exit 1', name)
    text, code = run(shell, runner.command([model], JOB), tmp_path)
    assert text.splitlines()[: 1 + len(runner.flags(JOB).split())] == [
        f"[--graph={model}]",
        *(f"[{flag}]" for flag in runner.flags(JOB).split()),
    ]
    assert not list(tmp_path.rglob("gone"))
    assert runner.parse(text, [model], code)[0].model == model


def test_the_program_is_pinned_and_so_are_the_looks(shell: str, tmp_path: Path) -> None:
    runner = program(tmp_path, "grep Cpus_allowed_list /proc/self/status")
    command = runner.command([MODEL], replace(JOB, cores=(0,)))
    assert command.startswith("taskset 1 sh -c ")
    text, _ = run(shell, command, tmp_path)
    assert "Cpus_allowed_list:\t0\n" in text
    assert runner.command([MODEL], replace(JOB, cores=(4, 5, 6, 7))).startswith("taskset f0 sh -c ")


def test_a_program_that_hangs_is_stopped_even_if_it_does_not_want_to(shell: str, tmp_path: Path) -> None:
    for body in ("sleep 20", "trap '' TERM; sleep 20; sleep 20"):
        runner = program(tmp_path, body)
        text, code = run(shell, runner.command([MODEL], replace(JOB, timeout_s=0.2)), tmp_path)
        (sample,) = runner.parse(text, [MODEL], code)
        assert sample.error is not None
        assert "time-out" in sample.error


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'ERROR: no such thing' >&2; exit 3", "exit code 3: no such thing"),
        ("kill -SEGV $$", "exit code 139"),
        ("kill -KILL $$", "killed"),
        ("exit 0", None),
    ],
)
def test_exit_codes_arrive(shell: str, tmp_path: Path, body: str, words: str | None) -> None:
    runner = program(tmp_path, body)
    text, code = run(shell, runner.command([MODEL], JOB), tmp_path)
    if words is None:
        with pytest.raises(ParseError):
            runner.parse(text, [MODEL], code)
        return
    (sample,) = runner.parse(text, [MODEL], code)
    assert words in (sample.error or "")


def test_a_missing_program(shell: str, tmp_path: Path) -> None:
    text, code = run(shell, classic().command([MODEL], JOB), tmp_path)
    (sample,) = classic().parse(text, [MODEL], code)
    assert "exit code 127: " in (sample.error or "")
    assert "o such file" in (sample.error or "")


def test_a_core_that_is_not_there(shell: str, tmp_path: Path) -> None:
    runner = program(tmp_path, "echo never")
    text, code = run(shell, runner.command([MODEL], replace(JOB, cores=(60,))), tmp_path)
    (sample,) = runner.parse(text, [MODEL], code)
    assert (sample.error or "").startswith(f"exit code {code}: ")
    assert "never" not in text


def test_a_profile_is_handed_on_without_the_marks() -> None:
    text = whole((FIXTURES / "opcsv_stdout.txt").read_text())
    profile = parse_op_profile(classic().op_profile(text, MODEL, 0))
    assert [op.node_type for op in profile.ops] == ["Binary Elementwise (ND)", "CUMSUM"]
    with pytest.raises(RunnerError, match="Could not open"):
        classic().op_profile(whole(fixture("missing"), 1), MODEL, 0)
