"""Whole networks that a table is calibrated on: which, and their files."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from amc_latency.android_bench.safe.files import replacing
from amc_latency.android_bench.safe.folders import WorkingFolder
from amc_latency.lut.building.build import NetworkWorkload
from amc_latency.lut.building.plan import Choices, nearest_counts, uniform_counts
from amc_latency.lut.shapes.architecture import Architecture
from amc_latency.lut.shapes.mixed import MixedArchitecture, mixed_shapes
from amc_latency.lut.shapes.precisions import FLOAT32, PRECISIONS
from amc_latency.lut.shapes.shape import NetworkShape, network_text
from amc_latency.models.load import Network, cut_to

Counts = tuple[int, ...]
UNIFORM = 5
"""Uniform widths, from the uncut network to the narrowest on the grid, that a table is calibrated on."""
RANDOM = 8
"""Random networks that it is calibrated on beside them: those are off in other ways than uniform ones."""
HELD_OUT = 4
"""Random networks that show the error of a calibration without them; afterwards they calibrate too."""
_WIDTHS = (1.0, 0.6, 0.3)
"""Uniform widths that are timed in each precision but float32, as far as layers have it."""
_STAYS = 0.75
"""Probability that a layer has the precision of the one before: boundaries cost, so a search makes few."""


@dataclass(frozen=True)
class Policy:
    """Channels of each coupled group, and layers' precisions; without any all are float32."""

    counts: Counts
    precisions: tuple[str, ...] = ()

    def shapes(self, architecture: Architecture) -> NetworkShape:
        """Its layers, and what stands between precisions."""
        if not self.precisions:
            return architecture.shapes(self.counts)
        return mixed_shapes(architecture, self.precisions, self.counts)

    def content(self, network: Network) -> bytes:
        """Its file; ranges are of noise, which no layer takes longer for. Raises ExportError."""
        model = cut_to(network, self.counts).model
        # Whoever only predicts need not wait for torch.
        if self.precisions:
            from amc_latency.export.quantised.export import quantised_by_noise

            return quantised_by_noise(model, network.spec.input, self.precisions)
        from amc_latency.export.export import to_tflite

        return to_tflite(model, network.spec.input)


def workload(network: Network, policy: Policy, folder: WorkingFolder) -> NetworkWorkload:
    """The network as the policy has it, to be timed; its file lies in `folder` once it was made."""
    shapes = policy.shapes(network.graph.architecture)
    return NetworkWorkload(shapes, partial(_file, network, policy, shapes, folder))


def _file(network: Network, policy: Policy, shapes: NetworkShape, folder: WorkingFolder) -> bytes:
    """Written once a build, since each round asks again; named by its shapes, which are all that is timed."""
    path = folder.path() / f"{hashlib.sha256(network_text(shapes).encode()).hexdigest()[:16]}.tflite"
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(policy.content(network))
    return path.read_bytes()


def calibrating(
    architecture: Architecture, choices: Choices, lowest: float, mixed: MixedArchitecture | None = None
) -> list[Policy]:
    """Uniform widths, the uncut network first, and random ones; both in precisions too if layers may have several.

    `choices` are the coupled groups', `lowest` the smallest share of channels that is kept.
    """
    widths = [round(1 - i * (1 - lowest) / (UNIFORM - 1), 6) for i in range(UNIFORM)]
    uniform = list(dict.fromkeys(uniform_counts(architecture, choices, width) for width in widths))
    found = [*uniform, *random_counts(architecture, choices, RANDOM, "calibration", lowest, uniform)]
    policies = list(map(Policy, found))
    if mixed is not None:
        for precisions in _all_alike(mixed):
            policies += [
                Policy(uniform_counts(architecture, choices, max(width, lowest)), precisions) for width in _WIDTHS
            ]
        policies += random_policies(mixed, choices, RANDOM, "mixed calibration", lowest)
    return list(dict.fromkeys(policies))


def held_out_of(
    architecture: Architecture, choices: Choices, lowest: float, mixed: MixedArchitecture | None = None
) -> list[Policy]:
    """Random ones that are not among those, and as many in precisions."""
    seen = calibrating(architecture, choices, lowest, mixed)
    plain = [policy.counts for policy in seen if not policy.precisions]
    policies = [Policy(each) for each in random_counts(architecture, choices, HELD_OUT, "held-out", lowest, plain)]
    if mixed is not None:
        policies += random_policies(mixed, choices, HELD_OUT, "mixed held-out", lowest)
    return [policy for policy in dict.fromkeys(policies) if policy not in seen]


def random_counts(
    architecture: Architecture, choices: Choices, n: int, seed: str, lowest: float, other_than: Sequence[Counts] = ()
) -> list[Counts]:
    """`n` networks that are not among the others, fewer where the grid has no more.

    By turns each group has a width of its own, and all have one that each is a little off of, as searches end.
    """
    rng = random.Random(f"{seed} networks 0")
    found: dict[Counts, None] = {}
    for i in range(20 * n):
        width = rng.uniform(lowest, 1.0)
        wanted = [
            channels * (rng.uniform(lowest, 1.0) if i % 2 else min(1.0, width * rng.uniform(0.8, 1.2)))
            for channels in architecture.group_channels
        ]
        counts = nearest_counts(choices, wanted)
        if len(found) < n and counts not in other_than:
            found[counts] = None
    return list(found)


def random_policies(mixed: MixedArchitecture, choices: Choices, n: int, seed: str, lowest: float) -> list[Policy]:
    """Networks of `random_counts` or the uncut one, by turns with precisions in runs of layers and each drawn alone."""
    rng = random.Random(f"{seed} precisions 0")
    counts = random_counts(mixed.architecture, choices, n, seed, lowest) or [mixed.architecture.group_channels]
    return [Policy(counts[i % len(counts)], random_precisions(mixed, rng, 0.0 if i % 2 else _STAYS)) for i in range(n)]


def random_precisions(mixed: MixedArchitecture, rng: random.Random, stays: float = _STAYS) -> tuple[str, ...]:
    """A precision for each layer by chance, that of the layer before with the probability `stays`.

    Calls of one module have the same.
    """
    values, name = list(mixed.full), FLOAT32
    for layer, allowed in enumerate(mixed.allowed):
        variable = mixed.by_layer[layer]
        if variable is None:
            continue
        if rng.random() >= stays:
            name = rng.choice(allowed)
        values[variable] = allowed.index(name) + 1 if name in allowed else len(allowed)
    return mixed.precisions(values)


def _all_alike(mixed: MixedArchitecture) -> list[tuple[str, ...]]:
    """Of each precision but float32: that of every layer that may have it."""
    names = [name for name in PRECISIONS if name != FLOAT32 and any(name in each for each in mixed.allowed)]
    return [tuple(name if name in each else FLOAT32 for each in mixed.allowed) for name in names]
