"""Op-profile logs, block tables and device profiles of other people: damaged, cut, glued and with odd values."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.attacks.harness import Attack, Case, Wrong
from benchmarks.attacks.mutate import damaged, odd_number
from benchmarks.attacks.tables import allowed, finite

_ROOT = Path(__file__).resolve().parents[2]
_LOGS = ("bundled.op_profile.txt", "bundled.op_profile.csv")
_OFF = 0.01
"""A time that is further off than this is wrong, unless it is a trifle:"""
_TRIFLE = 1e-4
"""Of the whole network's time: a log's own rounding hides as much."""
_BLOCKS = (
    """\
Conv-input:224x224x3-output:112x112x32:
  count: 949
  mean: 4.397037934668071
  var: 0.1562765530967112
Logits-input:7x7x1280-output:1000:
  count: 949
  mean: 0.9348261327713382
  var: 0.1500926595152672
expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0:
  count: 310
  mean: 4.035709677419355
  var: 0.07046224958106981
expanded_conv-input:56x56x24-output:56x56x24-expand:6-kernel:3-stride:1-idskip:1:
  count: 403
  mean: 7.595687344913151
  var: 0.09267339867771683
""",
    """\
AvgPool2D-input:7x7x1152-output:1x1x1152:
  count: 495
  mean: 0.015270707070707077
  std: 0.000903109390250199
Conv-input:224x224x3-output:112x112x24:
  count: 500
  mean: 0.994418
  std: 0.01726798413249215
expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0:
  count: 500
  mean: 1.7728020000000002
  std: 0.026630561315901715
""",
)
_YAML = (
    "&a [*a]",
    "!!python/object/apply:os.abort []",
    "[" * 2000,
    "{a: b}",
    "? ",
    "| x",
    "2026-11-30",
    "~",
    '"\\x1b[2J"',
)
_TOML = (
    "nan",
    "inf",
    "-1",
    "[]",
    "{}",
    '""',
    '"\\u001b[2J"',
    "true",
    "0",
    "1e308",
    "2026-11-30",
    "[1, [2]]",
    "['.*.*x']",
)


def attacks() -> list[Attack]:
    """By kind of file."""
    return [
        Attack("op-profile logs", _logs, 20_000, 300),
        Attack("block tables (YAML)", _block_tables, 10_000, 300),
        Attack("own device profiles (TOML)", _profiles, 6_000, 300),
    ]


def _logs(folder: Path) -> Callable[[Case], None]:
    from amc_latency.lut.table.table import LatencyTable, TableError

    from amc_latency.errors import UserError
    from amc_latency.measuring.importing import import_into
    from amc_latency.models.load import NetworkOptions, load_network

    network = load_network(NetworkOptions())
    texts = [(_ROOT / "tests/lut/fixtures" / name).read_bytes() for name in _LOGS]
    path, out = folder / "x.log", folder / "x.tsv"

    def told() -> dict[str, float] | None:
        out.unlink(missing_ok=True)
        try:
            finite(asdict(import_into(network, None, [path], out, "phone", False)))
        except (UserError, TableError):
            return None
        table = LatencyTable.open(out)
        return {key: us for key in table.keys if (us := table.latency_us(key)) is not None}

    right = []
    for text in texts:
        path.write_bytes(text)
        found = told()
        assert found is not None
        right.append(found)

    def try_case(case: Case) -> None:
        which = case.draw.randrange(len(texts))
        case.content = _other_log(case.draw, texts[which])
        path.write_bytes(case.content)
        found = told()
        if found is None:
            return
        whole_us = max(right[which].values())
        for key, us in found.items():
            known = right[which].get(key)
            # A CSV log with another's counts has one row more: the whole network.
            if known is not None and abs(us - known) > max(_OFF * known, _TRIFLE * whole_us):
                raise Wrong(f"{key[:100]} takes {us} us, not {known}")

    return try_case


def _other_log(draw: random.Random, text: bytes) -> bytes:
    if draw.random() < 0.6:
        return damaged(draw, text)
    lines = text.split(b"\n")
    titles = [i for i, line in enumerate(lines) if b"=====" in line or b"Number of nodes" in line]
    match draw.randrange(5):
        case 0:
            one, other = draw.choice(titles), draw.choice(titles)
            lines[one], lines[other] = lines[other], lines[one]
        case 1:
            # A section twice, or in another's place.
            start, to = draw.choice(titles), draw.choice(titles)
            lines[to:to] = lines[start : start + draw.choice((3, 10, 40))]
        case 2:
            start = draw.choice(titles)
            del lines[start : start + draw.choice((1, 2, 3, 40))]
        case 3:
            at = draw.randrange(len(lines))
            lines[at] = re.sub(rb"[0-9.]+", lambda found: _sometimes(draw, found[0]), lines[at])
        case 4:
            cells = lines[at := draw.randrange(len(lines))].split(b"\t")
            draw.shuffle(cells)
            lines[at] = b"\t".join(cells)
    return b"\n".join(lines)


def _sometimes(draw: random.Random, text: bytes) -> bytes:
    return odd_number(draw).encode() if draw.random() < 0.3 else text


def _block_tables(folder: Path) -> Callable[[Case], None]:
    from amc_latency.lut.table.table import LatencyTable

    from amc_latency.measuring.importing import import_block_tables

    path, out = folder / "x.yaml", folder / "x.tsv"

    def try_case(case: Case) -> None:
        draw = case.draw
        text = draw.choice(_BLOCKS)
        if draw.random() < 0.5:
            case.content = damaged(draw, text.encode())
        else:
            lines = text.splitlines()
            at = draw.randrange(len(lines))
            name, _, _ = lines[at].rpartition(":")
            odd = draw.choice(_YAML) if draw.random() < 0.4 else odd_number(draw)
            lines[at] = (
                f"{name}: {odd}" if draw.random() < 0.7 else re.sub("[0-9]+", odd_number(draw), lines[at], count=1)
            )
            case.content = "\n".join(lines).encode()
        path.write_bytes(case.content)
        out.unlink(missing_ok=True)
        with allowed():
            finite(asdict(import_block_tables([path], out, "phone", "auto")))
            finite(LatencyTable.open(out).summary())

    return try_case


def _profiles(folder: Path) -> Callable[[Case], None]:
    from amc_latency.device.profiles import ProfileError, load_profile

    texts = [path.read_text() for path in sorted((_ROOT / "device/known").glob("*.toml"))]
    path = folder / "own.toml"

    def try_case(case: Case) -> None:
        draw = case.draw
        text = draw.choice(texts)
        if draw.random() < 0.4:
            case.content = damaged(draw, text.encode())
        else:
            lines = text.splitlines()
            settings = [i for i, line in enumerate(lines) if re.match(r"\w+ = ", line)]
            at = draw.choice(settings)
            name = lines[at].partition(" = ")[0]
            odd = draw.choice((*_TOML, odd_number(draw), "[" * 3000, "9" * 5000))
            lines[at] = draw.choice(
                (f"{name} = {odd}", f"{name}.a = {odd}", f"[{name}]", f"[[{name}]]", f'"\\u001b" = {odd}')
            )
            case.content = "\n".join(lines).encode()
        path.write_bytes(case.content)
        try:
            profile = load_profile(path)
        except ProfileError:
            return
        finite(asdict(profile))

    return try_case
