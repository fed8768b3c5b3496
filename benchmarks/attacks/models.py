"""`.tflite` files, damaged at random and in their sizes and offsets: in the worker that runs them, and the readers."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.attacks.harness import Attack, Case, Wrong
from benchmarks.attacks.mutate import damaged

if TYPE_CHECKING:
    from amc_latency.device.base import Timing, Workload

_WHOLE_EVERY = 100
"""One case of so many is an undamaged file, which must be timed: the worker is there again, whatever was before."""
_WORDS = (0, 1, 2, 3, 7, 255, 4096, 65535, 1 << 20, 1 << 30, -1, -2, -128, -(1 << 31), (1 << 31) - 1)
_WORKER_S = 3.0
_SHAPES = (
    "conv 3x12x12>8 k3 s2 p1 relu6 float32",
    "depthwise 8x9x9>8 k3 s1 p1 none float32",
    "signed_max_pool 4x9x9>4 k3 s2 p1 none float32",
    "avg_pool 4x8x8>4 k2 s2 p0 none float32",
    "global_pool 8x5x5>8 k1 s1 p0 none float32",
    "linear 16x1x1>10 k1 s1 p0 none float32",
    "concat 8x4x4>8 k1 s1 p0 n2 none float32",
    "bilinear 4x6x6>4 k1 s2 p0 none float32",
    "softmax 10x1x1>10 k1 s1 p0 none float32",
    "shuffle 8x4x4>8 k1 s1 p0 n2 none float32",
)


def attacks() -> list[Attack]:
    """By who reads them."""
    return [
        Attack(".tflite in the host's worker", _in_worker, 10_000, 200, case_s=30.0),
        Attack(".tflite in the readers", _in_readers, 10_000, 400),
    ]


def _models() -> list[bytes]:
    from amc_latency.lut.building.layer_model import layer_model
    from amc_latency.lut.shapes.shape import parse_shape

    from amc_latency.export.export import to_tflite
    from amc_latency.models.load import NetworkOptions, load_network
    from amc_latency.models.untrained import with_norm_statistics

    network = with_norm_statistics(load_network(NetworkOptions("lenet5", 0.3, weights="random")))
    return [*(layer_model(parse_shape(text)) for text in _SHAPES), to_tflite(network.model, (1, 28, 28))]


def _other(draw: random.Random, model: bytes) -> bytes:
    """Damage; or one to three aligned words of it, which are mostly sizes, offsets and codes, set to another value."""
    if draw.random() < 0.4:
        return damaged(draw, model)
    content = bytearray(model)
    for _ in range(draw.choice((1, 1, 2, 3))):
        size = draw.choice((1, 2, 4, 4, 4))
        # Weights are in the middle; the tables before and behind them are what a reader follows.
        at = draw.randrange(len(content) - 4) // size * size
        known = int.from_bytes(content[at : at + size], "little", signed=True)
        word = draw.choice((*_WORDS, known + 1, known - 1, known * 2, -known))
        content[at : at + size] = struct.pack("<q", max(min(word, 1 << 40), -(1 << 40)))[:size]
    return bytes(content)


class _Endless:
    """The workloads of a round that ends with the attack: always the file that is being tried."""

    def __init__(self) -> None:
        self.model = b""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Workload]:
        from amc_latency.device.base import Workload

        while True:
            yield Workload("file", lambda: self.model)


def _in_worker(folder: Path) -> Callable[[Case], None]:
    from amc_latency.device.base import Protocol
    from amc_latency.device.host.host import HostDevice
    from amc_latency.device.host.reference import ReferenceSpeeds

    class Known(ReferenceSpeeds):
        """No time is spent on this computer's speed."""

        def get(self, key: str) -> float | None:
            return 100.0

    models, endless = _models(), _Endless()
    device = HostDevice(references=Known(folder / "reference.json"))
    protocol = Protocol(warmup=0, runs=1, min_time_ms=0.0, max_runs=1, rounds=1, timeout_s=_WORKER_S)
    rounds: list[Iterator[Timing]] = []

    def timed(model: bytes) -> Timing:
        endless.model = model
        if not rounds:
            any_round: Any = endless
            rounds.append(device.time_round(any_round, protocol, 0))
        try:
            return next(rounds[0])
        except BaseException:
            rounds.clear()
            raise

    def try_case(case: Case) -> None:
        model = case.draw.choice(models)
        whole = case.number % _WHOLE_EVERY == 0
        case.content = model if whole else _other(case.draw, model)
        timing = timed(case.content)
        error = timing.error or ""
        if error and (whole or "\n" in error or len(error) > 500):
            raise Wrong(f"{'the undamaged file' if whole else 'not in a line'}: {error!r}")
        for summary in (timing.cpu, timing.wall) if timing.error is None else ():
            if summary is None or not (summary.min_us is not None and 0 <= summary.min_us < math.inf):
                raise Wrong(f"no time: {timing}")

    return try_case


def _in_readers(folder: Path) -> Callable[[Case], None]:
    from amc_latency.device.gpu.tflite_torch import UnsupportedModelError, load_module
    from amc_latency.device.rounds.measure import BadModelError
    from amc_latency.device.tflite.tflite_inputs import sized, tflite_inputs
    from amc_latency.lut.tflite.run import TfliteError, tflite_ops

    models = _models()
    readers: tuple[Callable[[bytes], object], ...] = (
        load_module,
        tflite_ops,
        lambda model: [each.title for each in tflite_inputs(model)],
        lambda model: sized(model, ["1x4x4x3"]),
    )

    def try_case(case: Case) -> None:
        case.content = _other(case.draw, case.draw.choice(models))
        for reader in readers:
            try:
                reader(case.content)
            except (UnsupportedModelError, TfliteError, BadModelError) as error:
                if not str(error):
                    raise Wrong(f"an empty {type(error).__name__}") from error

    return try_case
