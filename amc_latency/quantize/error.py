"""How far a network's outputs on calibration images move when layers are rounded, or channels are cut.

As a share of what the outputs vary by: the squared error over the variance of each output channel over the images, both
summed over channels; 0 is the network as it was, and 1 as bad as its mean. For small changes shares add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from amc_latency.graph.outputs import tensors_of
from amc_latency.quantize.bits import FLOAT32
from amc_latency.quantize.fake import ROUNDED, Simulator
from amc_latency.quantize.ranges import Ranges


class OutputError:
    """Shares by which the outputs of `model`, in eval mode, on `images` [N, C, H, W] move; see above."""

    def __init__(self, simulator: Simulator, model: nn.Module, images: Tensor, batch: int = 16) -> None:
        self.simulator, self.model = simulator, model.eval()
        self._batches = images.split(batch)
        traced = simulator.traced(self.model)
        with torch.inference_mode():
            self._exact = [_outputs(traced(part)) for part in self._batches]
            self._variance = [
                float(_centred(torch.cat(parts)).square().sum()) for parts in zip(*self._exact, strict=True)
            ]

    def of(self, network: nn.Module) -> float:
        """Of a network of the same inputs and outputs, as one that was cut; averaged over outputs."""
        with torch.inference_mode():
            return self._share([_outputs(network(part)) for part in self._batches])

    def of_layers(self, policies: Sequence[Sequence[str]], ranges: Ranges) -> list[float]:
        """Of each of these precision policies; quick for policies that differ from float32 in late layers alone.

        Raises what `Simulator.network` raises.
        """
        networks = [self.simulator.network(self.model, policy, ranges) for policy in policies]
        found: list[list[list[Tensor]]] = [[] for _ in policies]
        first = [self._first_layer(policy) for policy in policies]
        with torch.inference_mode():
            for part in self._batches:
                exact = _Kept(self.simulator.traced(self.model), set(self.simulator.graph.tensors))
                exact.run(part)
                for i, network in enumerate(networks):
                    found[i].append(_outputs(_resumed(network, first[i], exact.values, part)))
        return [self._share(each) for each in found]

    def _first_layer(self, policy: Sequence[str]) -> str | None:
        """The node of the first layer that isn't float32."""
        return next(
            (node for node, name in zip(self.simulator.graph.layer_nodes, policy, strict=True) if name != FLOAT32), None
        )

    def _share(self, found: Sequence[Sequence[Tensor]]) -> float:
        errors = np.zeros(len(self._variance))
        for made, exact in zip(found, self._exact, strict=True):
            errors += [float((a - b).double().square().sum()) for a, b in zip(made, exact, strict=True)]
        return float(
            np.mean(
                [
                    error / varies if varies > 0 else float(error > 0)
                    for error, varies in zip(errors, self._variance, strict=True)
                ]
            )
        )


class _Kept(fx.Interpreter):
    """Runs a network and keeps what nodes made that others may go on from."""

    def __init__(self, traced: fx.GraphModule, names: set[str]) -> None:
        super().__init__(traced)
        self._names = names
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._names or n.meta.get("tensor_meta") is None:
            self.values[n.name] = value
        return value


def _resumed(network: fx.GraphModule, first: str | None, values: dict[str, Any], images: Tensor) -> Any:
    """What a network makes that is the exact one up to a layer's node, whose `values` up to there are known."""
    known: dict[fx.Node, Any] = {}
    for node in network.graph.nodes:
        if node.name == first or node.op == "output":
            break
        # What was put in is new; what lies within a layer is read by nothing that is left to run.
        if not node.name.startswith(ROUNDED):
            known[node] = values.get(node.name)
    return fx.Interpreter(network).run(images, initial_env=known)


def _outputs(output: Any) -> list[Tensor]:
    return tensors_of(output) or []


def _centred(values: Tensor) -> Tensor:
    channels = values.double().transpose(0, 1).flatten(1)
    return channels - channels.mean(1, keepdim=True)
