"""How a large latency table costs: seconds, CPU seconds and memory of each command that reads one, by its rows.

    python -m benchmarks.growth [--rows 20000 50000 100000 200000] [--code FOLDER] [--json]

The table is made up (see `synthetic_device`): nearly all rows are pointwise layers of five families, one round each, so
that each family has a fifth of all rows; none is a layer of the network that is predicted, whose pointwise layers are
all read off the families' staircases. The aims: with 200,000 rows `predict` under 3 s and 1 GB, `lut show` under 5 s,
`lut check` under 10 s; with 20,000 rows `predict` under 1 s and 400 MB; start of the process included. On a computer
that others use too, the CPU seconds (of the process and the kernel for it) are what can be compared.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

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


def network(code: Path) -> list[LayerShape]:
    """The bundled network's layers, as the command line tells them: this process stays small."""
    command = [sys.executable, "-m", "amc_latency", "predict", "--model", "bundled", "--lut", str(few(code)), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(code))
    return [parse_shape(layer["shape"]) for layer in json.loads(done.stdout)["layers"]]


def few(code: Path) -> Path:
    """The table that is shipped."""
    return code / "lut" / "tables" / "host-epyc-zen4.tsv"


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


def environment(code: Path) -> dict[str, str]:
    """Of a command that runs the code in that folder."""
    return {**os.environ, "PYTHONPATH": str(code)}


def cost(command: tuple[str, ...], folder: Path, code: Path) -> tuple[float, float, float, int]:
    """Seconds, CPU seconds, megabytes and exit code of a command in a process of its own."""
    names = {"TABLE": "t.tsv", "FEW": str(few(code)), "OUT.csv": "out.csv", "OUT.tsv": "out.tsv"}
    arguments = [sys.executable, "-m", "amc_latency", *(names.get(word, word) for word in command)]
    begun_s = time.perf_counter()
    with subprocess.Popen(
        arguments, cwd=folder, env=environment(code), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - begun_s, cpu_s, usage.ru_maxrss * 1024 / 1e6, process.returncode


def main() -> None:
    parser = parser_of(__doc__, json=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 50_000, 100_000, 200_000])
    parser.add_argument("--code", type=Path, default=ROOT, help="repository whose code is run: this one, unless set")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    code, found = options.code.resolve(), []
    layers = network(code)
    print(f"{'rows':>9} " + " ".join(f"{name:>28}" for name in options.commands), file=sys.stderr)
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_table(folder / "t.tsv", rows, layers)
            costs = {each: cost(COMMANDS[each], folder, code) for each in options.commands}
        found += [
            {
                "rows": rows,
                "command": each,
                "seconds": round(s, 2),
                "cpu_seconds": round(cpu_s, 2),
                "megabytes": round(mb),
                "exit": code_of,
            }
            for each, (s, cpu_s, mb, code_of) in costs.items()
        ]
        cells = (
            f"{s:.2f} s, CPU {cpu_s:.2f} s, {mb:,.0f} MB" + (f" ({bad})" if bad else "")
            for s, cpu_s, mb, bad in costs.values()
        )
        print(f"{rows:9,} " + " ".join(f"{cell:>28}" for cell in cells), file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
