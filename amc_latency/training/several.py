"""Training in several processes, a GPU each, on one machine or more: as many as `accelerate launch` has started.

    accelerate launch --num_processes 4 -m amc_latency train --data imagenet:DIR --out net.safetensors

Hugging Face Accelerate (extra `accelerate`) brings their gradients together. Each step's batch is dealt to them, so
that they take the steps of one process with the same options; batch norms go by each one's own share, and those of the
first count in the end. Several machines must see one `--out`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from amc_latency.accelerator import launched
from amc_latency.errors import UserError


class Processes:
    """The one process that there is."""

    number, count = 0, 1

    def wrapped(self, model: nn.Module) -> nn.Module:
        """What is called in place of `model`, so that gradients are those of all processes."""
        return model

    def part(self, batch: Tensor) -> Tensor:
        """This process's share of a batch [N, ...]."""
        return batch

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values

    def as_first(self, model: nn.Module) -> None:
        """Take over the first process's weights and statistics."""


class Launched(Processes):
    """Those that `accelerate launch` has started. Raises UserError where the package is not installed."""

    def __init__(self, device: torch.device) -> None:
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs
        except ImportError as error:
            raise UserError(
                "training in several processes takes Hugging Face Accelerate: pip install 'amc-latency[accelerate]'"
            ) from error
        # Own networks may define layers that no image passes. What is computed in half is our own affair.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._all: Any = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[unused])
        self.number, self.count = self._all.process_index, self._all.num_processes

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model under DistributedDataParallel."""
        found: nn.Module = self._all.prepare_model(model)
        return found

    def part(self, batch: Tensor) -> Tensor:
        """This process's share, one image more or less than another's."""
        return batch.tensor_split(self.count)[self.number]

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        found: Tensor = self._all.reduce(values, reduction="sum")
        return found

    def as_first(self, model: nn.Module) -> None:
        """Take over the first process's weights and statistics, once all have come here."""
        from accelerate.utils import broadcast

        for tensor in model.state_dict().values():
            tensor.copy_(broadcast(tensor.detach().clone(), from_process=0))
        self._all.wait_for_everyone()


def processes(device: torch.device) -> Processes:
    """Those that train together."""
    return Processes() if launched() is None else Launched(device)
