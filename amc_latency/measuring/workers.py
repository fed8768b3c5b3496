"""Several workers, one table: how well they agree, before their rows are mixed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amc_latency.console import Console
from amc_latency.device.base import Device, DeviceError, Protocol, Timing, shuffled
from amc_latency.device.conditions import suspicions
from amc_latency.device.rounds.fleet import Fleet
from amc_latency.lut.building.build import layer_workloads
from amc_latency.lut.shapes.shape import LayerShape

_FIRST_ROUND = 1000
"""Not a table's round: what a killed session has left on a phone for one of those must stay there."""


@dataclass(frozen=True)
class AgreementLimits:
    """How workers are compared, and how far they may be apart for their rows to share a table."""

    layers: int = 12
    """reference layers, of all kinds and sizes of the network"""
    rounds: int = 3
    apart_pct: float = 2.0
    """by how much the slowest worker may take longer than the fastest, in the mean over the layers"""
    together_pct: float = 3.0
    """by how much a worker may be slower while the others work too, in the mean over the layers"""
    layer_together_pct: float = 15.0
    """the same for any single layer: one that lives on a shared cache hides in the mean"""


@dataclass(frozen=True)
class WorkerAgreement:
    """One worker beside the others."""

    name: str
    mean_pct: float
    """over the median of all workers, alone, in the mean over the layers; negative for a faster one"""
    worst_pct: float
    """of the layer that is furthest from that median"""
    worst_layer: str
    together_pct: float
    """how much longer it takes while the others work too, in the mean over the layers"""
    worst_together_pct: float
    """the same of the layer that suffers most"""
    worst_together_layer: str
    suspect_because: str | None = None
    """why a timing of it cannot be trusted"""

    @property
    def text(self) -> str:
        """All of it in a line."""
        suspect = f"; not to be trusted: {self.suspect_because}" if self.suspect_because else ""
        return (
            f"{self.name}: {self.mean_pct:+.1f} % from the median ({self.worst_pct:+.1f} % for {self.worst_layer}), "
            f"{self.together_pct:+.1f} % while all work{suspect}"
        )


@dataclass(frozen=True)
class Agreement:
    """How workers compare on the same layers."""

    layers: int
    workers: tuple[WorkerAgreement, ...]

    def problem(self, limits: AgreementLimits) -> str | None:
        """Why their rows should not be mixed, with the figures."""
        slowest = max(self.workers, key=lambda worker: worker.mean_pct)
        fastest = min(self.workers, key=lambda worker: worker.mean_pct)
        apart_pct = 100 * ((100 + slowest.mean_pct) / (100 + fastest.mean_pct) - 1)
        if apart_pct > limits.apart_pct:
            return (
                f"{slowest.name} takes {apart_pct:.1f} % longer than {fastest.name} for the same {self.layers} layers, "
                f"and {limits.apart_pct:g} % is the most"
            )
        worst = max(self.workers, key=lambda worker: worker.together_pct)
        if worst.together_pct > limits.together_pct:
            return (
                f"{worst.name} takes {worst.together_pct:.1f} % longer while the others work too, and "
                f"{limits.together_pct:g} % is the most"
            )
        hurt = max(self.workers, key=lambda worker: worker.worst_together_pct)
        if hurt.worst_together_pct > limits.layer_together_pct:
            return (
                f"{hurt.name} takes {hurt.worst_together_pct:.1f} % longer for {hurt.worst_together_layer} while the "
                f"others work too, and {limits.layer_together_pct:g} % is the most"
            )
        return None


def settle_workers(
    device: Device,
    shapes: Sequence[LayerShape],
    protocol: Protocol,
    force: bool,
    console: Console,
    limits: AgreementLimits = AgreementLimits(),
) -> None:
    """Compare the workers of a fleet on layers of the network `shapes`, and say how well they agree.

    Cores of this computer that don't agree, or that the protocol's threads need, are left to one. Phones that don't
    raise `DeviceError` unless `force`. One device alone is nothing to compare.
    """
    if not isinstance(device, Fleet):
        return
    # The core that is timed on where nobody asks for more.
    core = device.working[-1]
    if device.is_this_computer and protocol.threads > 1:
        console.say(
            f"timing with one worker: the table's protocol has {protocol.threads} threads, which take the cores"
        )
        device.keep(core)
        return
    console.say(f"comparing {', '.join(device.working)} on layers of the network, alone and all at once")
    agreement = check_agreement(device, shapes, protocol, limits)
    for worker in agreement.workers:
        console.say(worker.text)
    problem = agreement.problem(limits)
    if problem is None:
        return
    if device.is_this_computer:
        console.warn(f"timing on {core} alone: {problem}")
        device.keep(core)
    elif force:
        console.warn(f"the phones' rows are mixed all the same: {problem}")
    else:
        choice = f"`device={device.identity.name}@{device.working[0]}`"
        raise DeviceError(f"the phones do not agree: {problem}. Choose one, as {choice}, or insist with `force`")


def check_agreement(
    fleet: Fleet, shapes: Sequence[LayerShape], protocol: Protocol, limits: AgreementLimits = AgreementLimits()
) -> Agreement:
    """Time reference layers on each worker alone and on all at once, by turns, so that a slow minute meets both alike.

    Raises `DeviceError` if no layer could be timed by all.
    """
    layers = reference_shapes(shapes, limits.layers)
    workloads = layer_workloads(layers)
    alone: dict[str, list[Timing]] = {name: [] for name in fleet.working}
    together: dict[str, list[Timing]] = {name: [] for name in fleet.working}
    for round_index in range(_FIRST_ROUND, _FIRST_ROUND + limits.rounds):
        order = shuffled(workloads, 0, round_index)
        for name in list(fleet.working):
            alone[name] += fleet.time_on(name, order, protocol, round_index)
        for name, timings in fleet.time_on_each(order, protocol, round_index).items():
            together[name] += timings
    names = fleet.working
    alone_us = {name: _latencies_us(alone[name], protocol, limits.rounds) for name in names}
    together_us = {name: _latencies_us(together[name], protocol, limits.rounds) for name in names}
    common = [
        layer.text
        for layer in layers
        if all(layer.text in timed for timed in (*alone_us.values(), *together_us.values()))
    ]
    if not common:
        errors = [timing.error for name in names for timing in (*alone[name], *together[name]) if timing.error]
        raise DeviceError(f"the workers cannot be compared: {errors[0] if errors else 'no layer was timed'}")
    median_us = {layer: statistics.median(alone_us[name][layer] for name in names) for layer in common}
    workers = []
    for name in names:
        over_pct = {layer: 100 * (alone_us[name][layer] / median_us[layer] - 1) for layer in common}
        worst = max(common, key=lambda layer: abs(over_pct[layer]))
        slowed_pct = {layer: 100 * (together_us[name][layer] / alone_us[name][layer] - 1) for layer in common}
        hurt = max(common, key=lambda layer: slowed_pct[layer])
        doubts = [why for timing in (*alone[name], *together[name]) for why in suspicions(timing.conditions)]
        workers.append(
            WorkerAgreement(
                name,
                mean_pct=statistics.fmean(over_pct.values()),
                worst_pct=over_pct[worst],
                worst_layer=worst,
                together_pct=statistics.fmean(slowed_pct.values()),
                worst_together_pct=slowed_pct[hurt],
                worst_together_layer=hurt,
                suspect_because=doubts[0] if doubts else None,
            )
        )
    return Agreement(len(common), tuple(workers))


def reference_shapes(shapes: Sequence[LayerShape], n: int) -> list[LayerShape]:
    """At most `n` of a network's layers (`n` is 3 or more): each kind in its share, each from small to large.

    The one with the most weights among them, which lives on a cache that others may share.
    """
    distinct = sorted(set(shapes), key=lambda shape: (shape.kind, shape.taps > 1, shape.macs, shape.h * shape.c_in))
    heaviest = max(distinct, key=lambda shape: shape.params)
    rest = [shape for shape in distinct if shape != heaviest]
    last = len(rest) - 1
    return [heaviest, *(rest[i] for i in sorted({round(i * last / (n - 2)) for i in range(n - 1)}) if rest)]


def _latencies_us(timings: Sequence[Timing], protocol: Protocol, rounds: int) -> Mapping[str, float]:
    """By layer, of those that were timed in every round; a second timing of a round takes the place of the first.

    The median over rounds, whatever the protocol takes: some fresh interpreters are 15 % faster than all others by the
    luck of their buffers' places, and one that is must not tell two workers apart.
    """
    by_layer: dict[str, dict[int, float]] = {}
    for timing in timings:
        latency_us = timing.counted_us(protocol)
        if latency_us:
            by_layer.setdefault(timing.workload, {})[timing.round] = latency_us
    whole = {layer: by_round.values() for layer, by_round in by_layer.items() if len(by_round) == rounds}
    return {layer: statistics.median(rounds_us) for layer, rounds_us in whole.items()}
