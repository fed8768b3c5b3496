"""The GPU's clock, in a world of arithmetic in place of a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from amc_latency.device.gpu.cuda_worker import CudaClock


class World:
    """A GPU whose time is a count of milliseconds, in place of `torch.cuda`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capture_fails: bool = False) -> None:
        self.now_ms = 0.0
        self.captured: list[float] | None = None
        self.capture_fails = capture_fails
        world = self

        class Stream:
            def synchronize(self) -> None: ...

            def wait_stream(self, other: object) -> None: ...

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at_ms = world.now_ms

            def elapsed_time(self, end: Event) -> float:
                return end.at_ms - self.at_ms

        class Graph:
            def replay(self) -> None:
                world.now_ms += sum(self.kernels_ms)

        @contextmanager
        def graph(made: Graph, stream: Stream) -> Iterator[None]:
            world.captured = []
            yield
            made.kernels_ms, world.captured = world.captured, None
            if world.capture_fails:
                raise RuntimeError("operation not permitted when stream is capturing")

        class Properties:
            L2_cache_size = 50 << 20

        @contextmanager
        def stream(chosen: Stream) -> Iterator[None]:
            yield

        for name, value in {
            "Stream": Stream,
            "Event": Event,
            "CUDAGraph": Graph,
            "graph": graph,
            "stream": stream,
            "set_device": lambda device: None,
            "current_stream": Stream,
            "synchronize": lambda: None,
            "default_stream": lambda device: Stream(),
            "set_stream": lambda stream: None,
            "get_device_properties": lambda device: Properties,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
        monkeypatch.setattr(torch, "empty", self.empty)

    def kernel(self, ms: float) -> None:
        if self.captured is None:
            self.now_ms += ms
        else:
            self.captured.append(ms)

    def empty(self, size: int, **_: object) -> Any:
        assert size == 2 * (50 << 20)
        flush = type("Flush", (), {"zero_": lambda flush: self.kernel(7.0)})
        return flush()


JOB = {"warmup": 0, "warmup_ms": 0.0, "state": "hot"}


@pytest.mark.parametrize(("kernel_ms", "copies"), [(0.3, 4), (0.0001, 200), (5.0, 1)])
def test_a_graph_takes_a_millisecond(kernel_ms: float, copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    clock = CudaClock("cuda:0")
    launch = clock.prepare(lambda: world.kernel(kernel_ms), JOB)
    assert (launch.copies, launch.how, launch.graph) == (copies, f"CUDA graph of {copies}", True)
    assert clock.samples_ns(launch, 3) == pytest.approx([1e6 * kernel_ms * copies] * 3)
    assert torch.backends.cudnn.benchmark


def test_emptying_the_cache_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    clock = CudaClock("cuda:0")
    launch = clock.prepare(lambda: world.kernel(0.3), {**JOB, "state": "frame"})
    assert launch.copies == 1
    began_ms = world.now_ms
    assert clock.samples_ns(launch, 5) == pytest.approx([0.3e6] * 5)
    # One launch ahead of the five; the cache is emptied before each of these.
    assert world.now_ms - began_ms == pytest.approx(6 * 0.3 + 5 * 7.0)


def test_without_a_graph_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, capture_fails=True)
    launch = CudaClock("cuda:0").prepare(lambda: world.kernel(0.5), JOB)
    assert not launch.graph
    assert launch.how == "2 plain launches (no CUDA graph: operation not permitted when stream is capturing)"
