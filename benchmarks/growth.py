"""How a large latency table costs: seconds, CPU seconds and memory of each command that reads one, by its rows.

    python -m benchmarks.growth [--rows 20000 50000 100000 200000] [--code BEFORE AFTER] [--runs 3] [--json]

The table is made up (see `synthetic_device`): nearly all rows are pointwise layers of five families, one round each, so
that each family has a fifth of all rows; none is a layer of the network that is predicted, whose pointwise layers are
all read off the families' staircases. The aims: with 200,000 rows `predict` under 3 s and 1 GB, `lut show` under 5 s,
`lut check` under 10 s; with 20,000 rows `predict` under 1 s and 400 MB; start of the process included. Of the runs of
a command the least of each figure is printed; with several checkouts as `--code` they take turns. On a computer that
others use too, the CPU seconds (of the process and the kernel for it) are what can be compared.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

# This script is called as a package is: its own folder must not be where `lut` is looked for.
from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.shapes.family import family
from amc_latency.lut.shapes.shape import NOOP, LayerShape, parse_shape
from amc_latency.lut.table.table_text import header_lines, row_line

from benchmarks.common import ROOT, parser_of
from benchmarks.synthetic_device import NOISE, layer_us

FAMILIES = tuple(parse_shape(f"conv 8x{size}x{size}>8 k1 s1 p0 relu6 float32") for size in (32, 16, 8, 4, 2))
WIDEST = 512
COMMANDS = {
    "predict": ("predict", "--model", "bundled", "--lut", "TABLE", "--json"),
    "lut show": ("lut", "show", "TABLE"),
    "lut check": ("lut", "check", "TABLE"),
    "lut export": ("lut", "export", "TABLE", "--csv", "OUT.csv"),
    "lut merge": ("lut", "merge", "TABLE", "FEW", "--out", "OUT.tsv", "--force"),
}


class Cost(NamedTuple):
    """Of one command in a process of its own."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    exit: int


class Code(NamedTuple):
    """A checkout, and the folder from which its packages are imported."""

    checkout: Path
    importable: Path

    @property
    def few(self) -> Path:
        """The table that is shipped."""
        return self.checkout / "lut" / "tables" / "host-epyc-zen4.tsv"

    @property
    def environment(self) -> dict[str, str]:
        """Of a command that runs this code: networks that it has traced are kept for this benchmark alone."""
        return {**os.environ, "PYTHONPATH": str(self.importable), "XDG_CACHE_HOME": str(self.importable / "cache")}


@contextmanager
def importable(checkout: Path) -> Iterator[Code]:
    """Its four folders under one name, as they are installed: else the installed ones' parts would be imported."""
    with tempfile.TemporaryDirectory() as name:
        package = Path(name) / "amc_latency"
        package.mkdir()
        parts = (checkout / part for part in ("lut", "device", "android_bench"))
        for path in (*(checkout / "amc_latency").iterdir(), *parts):
            (package / path.name).symlink_to(path)
        yield Code(checkout, Path(name))


def network(code: Code) -> list[LayerShape]:
    """The bundled network's layers, as the command line tells them: this process stays small."""
    command = [sys.executable, "-m", "amc_latency", "predict", "--model", "bundled", "--lut", str(code.few), "--json"]
    # In a checkout, its own packages would come first.
    done = subprocess.run(
        command, cwd=code.importable, capture_output=True, text=True, check=True, env=code.environment
    )
    return [parse_shape(layer["shape"]) for layer in json.loads(done.stdout)["layers"]]


def write_table(path: Path, rows: int, layers: list[LayerShape]) -> None:
    """So many rows: the no-op, those layers that are of none of the five families, and layers of these at random."""
    draw, protocol = random.Random(0), Protocol(rounds=1)
    families = {family(shape): shape for shape in FAMILIES}
    others = dict.fromkeys([NOOP, *(shape for shape in layers if family(shape) not in families)])
    taken = {*layers}
    with path.open("wb") as file:
        identity = DeviceIdentity("synthetic", "steps of 4 and 12", "arithmetic")
        file.write("\n".join([*header_lines(identity, protocol), ""]).encode())
        for row in range(rows):
            if row < len(others):
                shape = list(others)[row]
            else:
                base = FAMILIES[row % len(FAMILIES)]
                shape = next(iter(layers))
                while shape in taken or family(shape) not in families:
                    shape = replace(base, c_in=draw.randint(1, WIDEST), c_out=draw.randint(1, WIDEST))
                taken.add(shape)
            us = layer_us(shape) * (1 + draw.expovariate(1 / NOISE))
            summary = Summary(us, 1.01 * us, 1.02 * us, 0.02 * us)
            file.write(row_line(Timing(shape.text, 0, 10, summary, summary)) + b"\n")


def cost(command: tuple[str, ...], folder: Path, code: Code) -> Cost:
    """What the command costs in a process of its own."""
    names = {"TABLE": "t.tsv", "FEW": str(code.few), "OUT.csv": "out.csv", "OUT.tsv": "out.tsv"}
    arguments = [sys.executable, "-m", "amc_latency", *(names.get(word, word) for word in command)]
    begun_s = time.perf_counter()
    with subprocess.Popen(
        arguments, cwd=folder, env=code.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - begun_s, cpu_s, usage.ru_maxrss * 1024 / 1e6, process.returncode)


def least(costs: list[Cost]) -> Cost:
    """Each figure's least; an exit code that tells of a failure stays."""
    return Cost(*(min(figures) for figures in list(zip(*costs, strict=True))[:3]), max(each.exit for each in costs))


def main() -> None:
    parser = parser_of(__doc__, json=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 50_000, 100_000, 200_000])
    parser.add_argument("--code", type=Path, nargs="+", default=[ROOT], help="checkouts to run: this one, unless set")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--runs", type=int, default=3, help="how often each command is run")
    options = parser.parse_args()
    with ExitStack() as stack:
        codes = [stack.enter_context(importable(each.resolve())) for each in options.code]
        found = [row for rows in options.rows for row in measured(rows, codes, options.commands, options.runs)]
    if options.json:
        print(json.dumps(found))


def measured(rows: int, codes: list[Code], commands: list[str], runs: int) -> Iterator[dict[str, Any]]:
    """What each command costs by each checkout's code on a table of so many rows; it is printed too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The first prediction of a network traces it: nobody times that.
        layers, *_ = [network(code) for code in codes]
        write_table(folder / "t.tsv", rows, layers)
        costs: dict[tuple[Code, str], list[Cost]] = defaultdict(list)
        for command, _, code in itertools.product(commands, range(runs), codes):
            costs[code, command].append(cost(COMMANDS[command], folder, code))
    for code in codes:
        print(f"{rows:,} rows, {code.checkout}", file=sys.stderr)
        for command in commands:
            of = least(costs[code, command])
            failed = f" (exit code {of.exit})" if of.exit else ""
            figures = f"{of.seconds:6.2f} s, CPU {of.cpu_seconds:6.2f} s, {of.megabytes:6,.0f} MB"
            print(f"    {command:12} {figures}{failed}", file=sys.stderr, flush=True)
            yield {"rows": rows, "code": str(code.checkout), "command": command, **of._asdict()}


if __name__ == "__main__":
    main()
