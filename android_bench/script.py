"""The shell script that times blocks of models on the phone by itself, and the text that it leaves of each block.

It runs detached, so that a pulled cable doesn't stop it. A finished block is a file under `blocks/` that never changes
again, with its checksum beside it. POSIX sh; programs that toybox has.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from amc_latency.android_bench.phone.state import PhoneState, parse_state
from amc_latency.android_bench.runner import Job, ParseError, Runner, Sample
from amc_latency.android_bench.safe.text import shown_line

_MARK = "@amc"


@dataclass(frozen=True)
class Block:
    """Models timed one after the other, between two looks at the phone's state."""

    name: str
    """letters and digits, new in its run folder"""
    models: tuple[str, ...]
    """file names in the models folder"""


@dataclass(frozen=True)
class BlockResult:
    """What a block's text says."""

    models: tuple[str, ...]
    before: PhoneState
    after: PhoneState
    samples: tuple[Sample, ...]
    """in the models' order; a sample's `model` is the file name"""
    codes: tuple[int, ...]
    """exit code of each command, one a model or one for all"""


@dataclass(frozen=True)
class RunPaths:
    """Where a script works on the phone."""

    program_folder: str
    models: str
    run: str


def block_script(
    runner: Runner, job: Job, blocks: Sequence[Block], state_command: str, paths: RunPaths, launch: str
) -> str:
    """The script of `launch`, a name new in its run folder: times the blocks in order, then leaves `done-<launch>`."""
    lines = [
        f"cd {shlex.quote(paths.run)} || exit 1",
        f"echo $$ > pid-{launch}.new && mv pid-{launch}.new pid-{launch} || exit 1",
        # It was given up before it began.
        f"[ -e stopped-{launch} ] && exit 1",
        f"state() {{\n{state_command}\n}}",
        # Only what came to its end, for a disk may be full; and a checksum of what is on it, taken after the last byte.
        f"finish() {{ [ \"$(tail -n 1 $1.part)\" = '{_MARK} end' ] || exit 1",
        "sha256sum $1.part > $1.sum.new && mv $1.part $1.txt && mv $1.sum.new $1.sum || exit 1; }",
    ]
    for block in blocks:
        part = f"blocks/{block.name}"
        lines += [
            "{",
            f"echo {_MARK} models {' '.join(map(shlex.quote, block.models))}",
            f"echo {_MARK} state; state",
        ]
        for models in _commands(runner, block.models):
            command = runner.command([f"{paths.models}/{model}" for model in models], job)
            # In a subshell, so that a command that calls `exit` or changes folder ends nothing but itself.
            lines += [
                f"echo {_MARK} run",
                f"( cd {shlex.quote(paths.program_folder)} && {command}\n)",
                # The program's last line may lack its end.
                f'code=$?; echo; echo "{_MARK} code $code"',
            ]
        lines += [f"echo {_MARK} state; state", f"echo {_MARK} end", f"}} > {part}.part 2>&1", f"finish {part}"]
    lines += [f"echo > done-{launch}", ""]
    return "\n".join(lines)


def _commands(runner: Runner, models: Sequence[str]) -> Iterator[Sequence[str]]:
    """The models of each command."""
    step = runner.models_per_process or len(models)
    for start in range(0, len(models), step):
        yield models[start : start + step]


def parse_block(text: str, runner: Runner, paths: RunPaths) -> BlockResult:
    """Read a block's text. Raises `ParseError`."""
    sections = _sections(text)
    name, models_text, _ = sections[0]
    if name != "models" or sections[-1][0] != "end":
        raise ParseError(f"a block's text begins with its models and ends with its end, not '{shown_line(text, 80)}'")
    try:
        models = tuple(shlex.split(models_text))
    except ValueError as error:
        raise ParseError(f"a block's models are '{shown_line(models_text, 80)}'") from error
    states = [parse_state(body) for kind, _, body in sections if kind == "state"]
    runs = [body for kind, _, body in sections if kind == "run"]
    codes = tuple(_code(rest) for kind, rest, _ in sections if kind == "code")
    wanted = list(_commands(runner, models))
    if len(states) != 2 or not len(runs) == len(codes) == len(wanted):
        raise ParseError(f"a block of {len(models)} models has {len(runs)} runs and {len(states)} states")
    samples: list[Sample] = []
    for some, body, code in zip(wanted, runs, codes, strict=True):
        samples += runner.parse(body, [f"{paths.models}/{model}" for model in some], code)
    return BlockResult(models, states[0], states[1], tuple(samples), codes)


def command_output(text: str) -> tuple[str, int]:
    """The output and the exit code of a block's first command. Raises `ParseError`."""
    sections = _sections(text)
    outputs = [body for kind, _, body in sections if kind == "run"]
    codes = [rest for kind, rest, _ in sections if kind == "code"]
    if not outputs or not codes:
        raise ParseError("a block's text has no command's output")
    return outputs[0], _code(codes[0])


def _sections(text: str) -> list[tuple[str, str, str]]:
    """Each marker's name, the rest of its line, and the text up to the next marker."""
    found: list[tuple[str, str, list[str]]] = []
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith(f"{_MARK} "):
            name, _, rest = line.removeprefix(f"{_MARK} ").partition(" ")
            found.append((name, rest, []))
        elif found:
            found[-1][2].append(line)
        else:
            raise ParseError(f"expected '{_MARK} models', found '{shown_line(line, 120)}'")
    if not found:
        raise ParseError("a block's text is empty")
    return [(name, rest, "\n".join(body)) for name, rest, body in found]


def _code(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text):
        raise ParseError(f"an exit code is a number, not '{shown_line(text, 40)}'")
    return int(text)


def launch_command(run: str, launch: str) -> str:
    """Starts `run-<launch>.sh` detached, once: given again after a lost answer it does nothing."""
    return (
        f"cd {shlex.quote(run)} && mkdir started-{launch} 2>/dev/null && "
        f"{{ setsid sh run-{launch}.sh </dev/null >log-{launch} 2>&1 & }}; [ -d started-{launch} ]"
    )


def poll_command(run: str, launch: str) -> str:
    """Prints the checksums of finished blocks, and whether the script runs or has come to its end."""
    return (
        # The state first: of a script that is done, all blocks are then there to be listed.
        f"cd {shlex.quote(run)} && {{ if [ -e done-{launch} ]; then echo {_MARK} done; "
        f"elif [ -e stopped-{launch} ]; then echo {_MARK} dead; "
        f"elif [ ! -e pid-{launch} ]; then echo {_MARK} starting; "
        f"else p=$(cat pid-{launch}); grep -q run-{launch}.sh /proc/$p/cmdline 2>/dev/null && echo {_MARK} running || "
        # It may have finished between the two looks.
        f"{{ [ -e done-{launch} ] && echo {_MARK} done || echo {_MARK} dead; }}; fi; "
        # A sign of life for other computers: see `amc_latency.device.phone.lock`.
        "cat blocks/*.sum 2>/dev/null; touch ../owner; }"
    )


@dataclass(frozen=True)
class Poll:
    """What a poll found: the checksum of each finished block, and the script's state."""

    finished: dict[str, str]
    state: str
    """`starting`, `running`, `done` or `dead`"""


def parse_poll(text: str) -> Poll:
    """Read what `poll_command` printed. Raises `ParseError`."""
    finished: dict[str, str] = {}
    states = []
    for line in text.splitlines():
        if line.startswith(f"{_MARK} "):
            states.append(line.removeprefix(f"{_MARK} "))
            continue
        digest, _, path = line.partition("  ")
        name = path.removeprefix("blocks/").removesuffix(".part")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not re.fullmatch("[0-9a-z]+", name):
            raise ParseError(f"expected a block's checksum, found '{shown_line(line, 120)}'")
        finished[name] = digest
    if len(states) != 1 or states[0] not in ("starting", "running", "done", "dead"):
        raise ParseError(f"a poll says one state, not {shown_line(str(states))}")
    return Poll(finished, states[0])


def stop_command(runs: str) -> str:
    """Kills all processes of all scripts that were started in the run folders that the quoted pattern `runs` names.

    By session: `timeout` puts what it runs into a process group of its own. A session whose leader is another program
    is left alone: after a restart of the phone the number may be anybody's.
    """
    return (
        f"for f in {runs}/started-*; do [ -d $f ] && : > ${{f%/*}}/stopped-${{f##*-}}; done 2>/dev/null; "
        f"all=' '; for f in {runs}/pid-*; do [ -e $f ] || continue; s=$(cat $f); rm -f $f; "
        '[ ! -d /proc/$s ] || grep -q run-${f##*-}.sh /proc/$s/cmdline || continue; all="$all$s "; done; '
        "[ \"$all\" = ' ' ] || for d in /proc/[0-9]*; do read l < $d/stat || continue; set -- ${l##*) }; "
        'case $all in *" $4 "*) kill -9 ${d#/proc/};; esac; done; true'
    )
