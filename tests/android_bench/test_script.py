"""The script of a run under the shells at hand, and what is read of it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from amc_latency.android_bench.phone.state import STATE_COMMAND
from amc_latency.android_bench.runner import Job, ParseError, Runner, Sample
from amc_latency.android_bench.script import (
    Block,
    RunPaths,
    block_script,
    launch_command,
    parse_block,
    parse_poll,
    poll_command,
    stop_command,
)
from hypothesis import given
from hypothesis import strategies as st

SHELLS = [shell for shell in ("dash", "mksh", "bash") if shutil.which(shell)]


class Echo(Runner):
    """Prints each model's file name and size; fails for a model called `bad`."""

    name = "echo"
    title = "echo"
    binary_sha256 = "0" * 64

    def __init__(self, models_per_process: int = 1, pause: str = "true") -> None:
        self.models_per_process = models_per_process
        self.pause = pause

    def command(self, models: Sequence[str], job: Job) -> str:
        names = " ".join(f"'{model}'" for model in models)
        # Without a line's end, as a program that dies may leave it; and out, as no command may.
        return (
            f"{self.pause}; for m in {names}; do wc -c < $m; done; printf '%s' end; "
            f"case '{' '.join(models)}' in *bad*) exit 3;; esac"
        )

    def flags(self, job: Job) -> str:
        return ""

    def op_profile(self, text: str, model: str, code: int) -> str:
        return text

    def parse(self, text: str, models: Sequence[str], code: int) -> list[Sample]:
        *sizes, end = text.split()
        if end != "end" or len(sizes) != len(models):
            raise ParseError(f"garbled: {text}")
        error = "failed" if code else None
        return [Sample(model, 1, float(size), error=error) for model, size in zip(models, sizes, strict=True)]


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    for folder in ("models", "run/blocks"):
        (tmp_path / folder).mkdir(parents=True)
    for name, size in (("a", 1), ("b", 22), ("bad", 333)):
        (tmp_path / "models" / name).write_bytes(b"x" * size)
    return RunPaths(str(tmp_path), str(tmp_path / "models"), str(tmp_path / "run"))


def write(paths: RunPaths, runner: Runner, blocks: Sequence[Block], launch: str = "1") -> None:
    script = block_script(runner, Job(), blocks, STATE_COMMAND, paths, launch)
    (Path(paths.run) / f"run-{launch}.sh").write_text(script)


def shell(command: str, name: str = "sh") -> str:
    done = subprocess.run([name, "-c", command], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done
    return done.stdout


def wait_for(paths: RunPaths, launch: str, *states: str) -> dict[str, str]:
    for _ in range(1000):
        poll = parse_poll(shell(poll_command(paths.run, launch)))
        if poll.state in states:
            return poll.finished
        time.sleep(0.01)
    raise AssertionError(f"never {states}")


@pytest.mark.parametrize("name", SHELLS)
@pytest.mark.parametrize("models_per_process", [0, 1])
def test_a_script_leaves_its_blocks_with_their_checksums(paths: RunPaths, name: str, models_per_process: int) -> None:
    runner = Echo(models_per_process)
    write(paths, runner, [Block("00001", ("a", "b", "a")), Block("00002", ("b", "bad"))])
    subprocess.run([name, "run-1.sh"], cwd=paths.run, check=True, timeout=20)
    finished = wait_for(paths, "1", "done")
    assert list(finished) == ["00001", "00002"]
    results = []
    for block, digest in finished.items():
        content = (Path(paths.run) / "blocks" / f"{block}.txt").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        results.append(parse_block(content.decode(), runner, paths))
    assert [result.models for result in results] == [("a", "b", "a"), ("b", "bad")]
    assert [[sample.min_us for sample in result.samples] for result in results] == [[1, 22, 1], [22, 333]]
    assert results[0].codes == ((0,) if models_per_process == 0 else (0, 0, 0))
    assert results[1].codes == ((3,) if models_per_process == 0 else (0, 3))
    assert results[1].samples[-1].error == "failed"
    assert results[0].before.time_s is not None
    assert abs(results[0].before.time_s - time.time()) < 100


def test_a_launch_that_is_given_twice_starts_once(paths: RunPaths) -> None:
    write(paths, Echo(pause=f"echo started >> {paths.run}/count; sleep 0.2"), [Block("00001", ("a",))])
    shell(launch_command(paths.run, "1"))
    shell(launch_command(paths.run, "1"))
    assert list(wait_for(paths, "1", "done")) == ["00001"]
    shell(launch_command(paths.run, "1"))
    time.sleep(0.3)
    assert (Path(paths.run) / "count").read_text() == "started\n"


@pytest.mark.parametrize("name", SHELLS)
def test_a_stop_leaves_nothing_running_and_finished_blocks_stand(paths: RunPaths, name: str) -> None:
    # `timeout` puts the program into a process group of its own.
    mark = "31.4159"
    pause = f"[ -e {paths.run}/blocks/00001.sum ] && timeout 100 sh -c 'sleep {mark}; true'"
    write(paths, Echo(pause=pause), [Block("00001", ("a",)), Block("00002", ("b",))])
    shell(launch_command(paths.run, "1"), name)
    while not (Path(paths.run) / "blocks/00001.sum").exists() or not running(mark):
        time.sleep(0.01)
    shell(f"( {stop_command(paths.run)} )", name)
    assert not running(mark)
    assert list(wait_for(paths, "1", "dead")) == ["00001"]
    shell(f"( {stop_command(paths.run)} )", name)


def running(mark: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"^sleep {mark}"], capture_output=True).returncode == 0


def test_another_programs_process_number_is_left_alone(paths: RunPaths) -> None:
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as other:
        # As after a restart of the phone: the number of a script that is long gone is somebody else's.
        (Path(paths.run) / "pid-1").write_text(f"{other.pid}\n")
        (Path(paths.run) / "started-1").mkdir()
        assert parse_poll(shell(poll_command(paths.run, "1"))).state == "dead"
        shell(f"( {stop_command(paths.run)} )")
        assert other.poll() is None
        other.kill()


def test_a_run_folder_that_is_gone_has_nothing_to_stop(paths: RunPaths) -> None:
    shell(f"( {stop_command(paths.run + '/nowhere')} )")


GOOD = (
    "@amc models a b\n@amc state\ntime=5\nend=1\n@amc run\n1\n22\nend\n@amc code 0\n@amc state\ntime=6\nend=1\n"
    "@amc end\n"
)


def test_a_block_is_read() -> None:
    result = parse_block(GOOD, Echo(0), RunPaths("", "m", ""))
    assert (result.before.time_s, result.after.time_s) == (5, 6)
    assert [sample.model for sample in result.samples] == ["m/a", "m/b"]


@given(st.integers(0, len(GOOD) - 1))
def test_a_block_that_is_cut_off_is_refused(end: int) -> None:
    with pytest.raises(ParseError):
        parse_block(GOOD[:end].removesuffix("@amc end"), Echo(0), RunPaths("", "m", ""))


@given(st.integers(0, len(GOOD) - 1), st.characters())
def test_a_garbled_block_is_refused_or_says_what_it_said(position: int, character: str) -> None:
    text = GOOD[:position] + character + GOOD[position + 1 :]
    try:
        result = parse_block(text, Echo(0), RunPaths("", "m", ""))
    except (ParseError, ValueError):
        return
    # Figures are the runner's to guard, and the checksum's; here it is models, states and exit codes.
    assert len(result.samples) == len(result.models)
    assert len(result.codes) == 1


@given(st.text())
def test_a_poll_that_says_anything_else_is_refused(text: str) -> None:
    if not text.startswith("@amc "):
        with pytest.raises(ParseError):
            parse_poll(text)


def test_a_poll_names_what_is_finished() -> None:
    digest = "ab" * 32
    poll = parse_poll(f"{digest}  blocks/00001.part\n@amc running\n")
    assert (poll.finished, poll.state) == ({"00001": digest}, "running")
    with pytest.raises(ParseError, match="expected a block's checksum"):
        parse_poll(f"{digest[:-1]}  blocks/00001.part\n@amc running\n")
