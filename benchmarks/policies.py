"""Networks that a benchmark times: widths of a known network, and a precision for each of its layers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from amc_latency.lut.building.plan import Choices, nearest_counts, uniform_counts
from amc_latency.lut.shapes.architecture import Architecture
from amc_latency.lut.shapes.mixed import MixedArchitecture, mixed_shapes
from amc_latency.lut.shapes.precisions import FLOAT32, INT8
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import NetworkShape

from amc_latency.export.export import to_tflite
from amc_latency.export.quantised.export import quantised_by_noise
from amc_latency.measuring.precisions import random_precisions
from amc_latency.models.load import Network, cut_to

Counts = tuple[int, ...]


@dataclass(frozen=True)
class Policy:
    """Channels of each coupled group, and layers' precisions; float32 all if there are none."""

    counts: Counts
    precisions: tuple[str, ...] = ()

    def shapes(self, architecture: Architecture) -> NetworkShape:
        """Its layers, and the boundaries between precisions."""
        if not self.precisions:
            return architecture.shapes(self.counts)
        return mixed_shapes(architecture, self.precisions, self.counts)

    def content(self, network: Network) -> bytes:
        """Its file."""
        model = cut_to(network, self.counts).model
        if not self.precisions:
            return to_tflite(model, network.spec.input)
        return quantised_by_noise(model, network.spec.input, self.precisions)


def policy_of(architecture: Architecture, shapes: NetworkShape) -> Policy:
    """What the architecture was cut to, and in which precisions."""
    own = [shape for shape in shapes if not KINDS[shape.kind].is_boundary]
    found = {
        layer.out_group: shape.c_out * architecture.group_channels[layer.out_group] // layer.shape.c_out
        for layer, shape in zip(architecture.layers, own, strict=True)
        if isinstance(layer.out_group, int)
    }
    precisions = tuple(shape.precision for shape in own)
    counts = tuple(found[group] for group in range(len(architecture.group_channels)))
    return Policy(counts, () if {*precisions} == {FLOAT32} else precisions)


def random_networks(architecture: Architecture, choices: Choices, n: int, seed: int) -> list[Counts]:
    """Half with independent widths, half with one width and a jitter for each group."""
    rng = random.Random(seed)
    networks = []
    for i in range(n):
        width = rng.uniform(0.3, 1.0)
        keeps = [
            rng.uniform(0.25, 1.0) if i < n // 2 else min(1.0, width * rng.uniform(0.8, 1.2))
            for _ in architecture.group_channels
        ]
        wanted = [keep * channels for keep, channels in zip(keeps, architecture.group_channels, strict=True)]
        networks.append(nearest_counts(choices, wanted))
    return networks


def random_policies(mixed: MixedArchitecture, choices: Choices, n: int, seed: int) -> list[Policy]:
    """`random_networks`, by turns with a precision drawn for each layer alone, and in runs of several layers."""
    rng = random.Random(f"precisions {seed}")
    policies = []
    for i, counts in enumerate(random_networks(mixed.architecture, choices, n, seed)):
        alone = tuple(rng.choice(each) for each in mixed.allowed)
        policies.append(Policy(counts, random_precisions(mixed, rng) if i % 2 else alone))
    return policies


def uniform_policies(architecture: Architecture, choices: Choices, widths: Sequence[float]) -> list[Policy]:
    """The plain rivals of a pruned network."""
    return [Policy(uniform_counts(architecture, choices, width)) for width in widths]


def uniform_int8(mixed: MixedArchitecture, choices: Choices, widths: Sequence[float]) -> list[Policy]:
    """The same in int8, as far as layers have it."""
    precisions = tuple(INT8 if INT8 in each else FLOAT32 for each in mixed.allowed)
    plain = uniform_policies(mixed.architecture, choices, widths)
    return [Policy(policy.counts, precisions) for policy in plain]
