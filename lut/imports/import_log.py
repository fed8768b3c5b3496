"""One op-profile log: what it says, and which of its ops belong to which layer of its network."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from amc_latency.android_bench.printed.counts import parse_counts
from amc_latency.android_bench.printed.log_lines import printed
from amc_latency.android_bench.printed.op_profile import Op, OpProfile, parse_op_profile
from amc_latency.android_bench.runner import ParseError
from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import LOG_BYTES
from amc_latency.lut.imports.op_join import Join, JoinError, join
from amc_latency.lut.shapes.shape import NetworkShape


class ImportLogError(ValueError):
    """A log or block table that cannot be imported, or not into this table: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class OpLog:
    """A log as it was read, its ops joined to the layers of its network."""

    path: Path
    sha256: str
    input: tuple[int, ...] | None
    """batch, height, width, channels, where the log says them of a single input"""
    profile: OpProfile
    join: Join
    runtime: str
    threads: int
    warmup: int
    """runs, as the log counts them"""

    @property
    def what(self) -> str:
        """What all logs of a table have in common."""
        return f"a {self.runtime} of {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def runs(self) -> int | None:
        """Counted runs; None where the log has the profile alone, as a CSV file does."""
        return self.profile.run.n if self.profile.run else None

    @property
    def network_ms(self) -> float | None:
        """The whole network's mean, of the counted runs."""
        return self.profile.run.mean_us / 1000 if self.profile.run else None

    def conditions(self, ops: Iterable[Op] | None = None) -> str:
        """What a row keeps of where it came from, as JSON."""
        values: dict[str, object] = {"source": self.path.name, "sha256": self.sha256, "format": self.runtime}
        if ops is not None:
            values["ops"] = [op.name for op in ops]
        return json.dumps(values)


def read_log(path: Path, shapes: NetworkShape, names: Sequence[str]) -> OpLog:
    """Raises `ImportLogError` for what is no op-profile log, or not one of the network of these layers."""
    try:
        data = read_bytes(path, LOG_BYTES)
    except FileNotFoundError as error:
        raise ImportLogError(f"there is no log {path}") from error
    except OSError as error:
        raise ImportLogError(f"cannot read the log {path}: {error.strerror or error}") from error
    text = _text(path, data)
    if not re.search(r"= Run Order =+\s*$", text, re.MULTILINE):
        if "===== Run Order =====" in text:
            raise ImportLogError(
                f"{path}: something follows on the lines of its op profile, as where a collector writes JSON or joins "
                "lines: import what the program itself printed"
            )
        raise ImportLogError(f"{path} has no op profile: was it made with --enable_op_profiling=true?")
    try:
        profile = parse_op_profile(text)
        joined = join(profile.ops, shapes, names)
        counts = parse_counts(text)
    except (ParseError, JoinError) as error:
        raise ImportLogError(f"{path}: {_printable(str(error))}") from error
    input_shape = re.search(r"Input shapes: \[([0-9]{1,6}(?:, ?[0-9]{1,6}){3})\]", text)
    threads = re.search(r"Num threads: \[([1-9][0-9]{0,2})\]", text)
    return OpLog(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        input=tuple(map(int, input_shape[1].split(","))) if input_shape else None,
        profile=profile,
        join=joined,
        runtime=_runtime(text, profile),
        threads=int(threads[1]) if threads else 1,
        warmup=counts[0].n if len(counts) > 1 else 0,
    )


def _text(path: Path, data: bytes) -> str:
    if not data.strip():
        raise ImportLogError(f"{path} is empty")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ImportLogError(f"{path} is not text in UTF-8 but in UTF-16: save it as UTF-8")
    text = printed(data.decode("utf-8", "replace"))
    garbage = sum(c == "\ufffd" or not (c.isprintable() or c.isspace()) for c in text)
    # A stray byte, of a name or of a terminal's colours, makes no log unreadable.
    if b"\0" in data or garbage > len(text) / 10:
        raise ImportLogError(f"{path} is not text: give what benchmark_model printed")
    return text


def _printable(message: str) -> str:
    """A message without what a log's names may bring into it."""
    return "".join(c for c in message if c.isprintable() and c != "\ufffd")[:500]


def _runtime(text: str, profile: OpProfile) -> str:
    """What ran, as far as a log shows it."""
    if profile.delegated:
        # Only LiteRT's own profile names the delegate with the type.
        litert = profile.ops[0].node_type.startswith("Delegate/")
        return f"{'LiteRT' if litert else 'TFLite'} XNNPACK op profile"
    return f"TFLite {'2018 ' if 'benchmark_tflite_model' in text else ''}op profile"
