"""An average of the weights of all steps, the later the heavier, which is often better than the last ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of a model's weights and of the statistics in its batch norms.

    Of `decay` 0.999 the last thousand steps are about two thirds (Polyak and Juditsky, SIAM J. Control Optim. 30,
    1992). In the first steps it keeps less of itself, so that the weights before them don't linger:
    (1 + steps) / (10 + steps).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = model.state_dict()
        floats = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.tensors[name] for name in floats], [now[name] for name in floats], 1 - decay)
        for name, tensor in self.tensors.items():
            # What only counts is no number to be averaged.
            if not tensor.is_floating_point():
                tensor.copy_(now[name])

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what an earlier run had."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
