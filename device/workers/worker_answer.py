"""What a worker answers, as far as it is believed: somebody's `.tflite` may have taken the process over."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from amc_latency.android_bench.safe.records import RecordError, from_values
from amc_latency.android_bench.safe.text import shown_line
from msgspec import Meta

_Ns = Annotated[int, Meta(ge=0, le=10**15)]
_SentinelNs = Annotated[int, Meta(ge=1, le=10**15)]


class HostAnswer(TypedDict, total=False):
    """See `amc_latency.device.host.host_worker`."""

    error: str
    chunk: list[Annotated[int, Meta(ge=0)]]
    cpu_ns: list[_Ns]
    wall_ns: list[_Ns]
    hot_cpu_ns: list[_Ns]
    hot_wall_ns: list[_Ns]
    sentinel_cpu_ns: list[_SentinelNs]
    sentinel_wall_ns: list[_SentinelNs]
    sentinel_hot_cpu_ns: list[_SentinelNs]
    sentinel_hot_wall_ns: list[_SentinelNs]


class GpuAnswer(TypedDict, total=False):
    """See `amc_latency.device.gpu.cuda_worker`."""

    error: str | None
    fatal: bool
    ns: list[_Ns]
    how: str
    graph: bool


def believed(answer: dict[str, Any]) -> dict[str, Any]:
    """A host worker's answer, or an error in its place."""
    try:
        found = from_values(answer, HostAnswer)
    except RecordError as error:
        return _nonsense(str(error))
    if (said := found.get("error")) is not None:
        return {"error": shown_line(said, 400)}
    runs = [found.get(name) for name in ("cpu_ns", "wall_ns", "chunk")]
    sentinels = [found.get(name) for name in ("sentinel_cpu_ns", "sentinel_wall_ns")]
    if "hot_cpu_ns" in found:
        runs += [found.get(name) for name in ("hot_cpu_ns", "hot_wall_ns")]
        sentinels += [found.get(name) for name in ("sentinel_hot_cpu_ns", "sentinel_hot_wall_ns")]
    if not _alike(runs) or not _alike(sentinels):
        return _nonsense("lists of different lengths")
    if max(found["chunk"]) >= len(found["sentinel_cpu_ns"]):
        return _nonsense("a run beside a sentinel that is not there")
    return dict(found)


def believed_gpu(answer: dict[str, Any]) -> dict[str, Any]:
    """A GPU worker's answer, or an error in its place."""
    try:
        found = from_values(answer, GpuAnswer)
    except RecordError as error:
        return _nonsense(str(error)) | {"fatal": True}
    if (said := found.get("error")) is not None:
        return {"error": shown_line(said, 400), "fatal": found.get("fatal", False)}
    if not found.get("ns") or "how" not in found or "graph" not in found:
        return _nonsense("no samples") | {"fatal": True}
    return {**found, "how": shown_line(found["how"], 400)}


def _alike(lists: list[Any]) -> bool:
    """Whether all are there, and of one length that is not 0."""
    return all(lists) and len({len(each) for each in lists}) == 1


def _nonsense(what: str) -> dict[str, Any]:
    return {"error": shown_line(f"the process that ran it answers nonsense: {what}", 400)}
