"""What a stopped training goes on from: weights, the optimizer's own tensors, the average, and how far it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from amc_latency.errors import UserError
from amc_latency.models.files.weights import check_fit, read_tensors, write_tensors
from amc_latency.training.averaging import WeightAverage

_MODEL, _OPTIMIZER, _AVERAGE = "model.", "optimizer.", "average."


@dataclass
class TrainingState:
    """What changes while `model` is trained."""

    model: nn.Module
    optimizer: Optimizer
    average: WeightAverage | None
    scaler: torch.amp.GradScaler
    epoch: int = 0
    """whole epochs that are done"""
    parts: int = 1
    """that a batch is computed in: more where memory ran out"""

    def save(self, path: Path, run: str) -> None:
        """Write all of it; `run` says which training it is of."""
        tensors = {f"{_MODEL}{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            # A parameter that got no gradient has none.
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{_OPTIMIZER}{key}.{name}"] = value
        if self.average is not None:
            tensors |= {f"{_AVERAGE}{name}": tensor for name, tensor in self.average.tensors.items()}
        scaler = json.dumps(self.scaler.state_dict())
        write_tensors(path, tensors, {"run": run, "epoch": str(self.epoch), "parts": str(self.parts), "scaler": scaler})

    def load(self, path: Path, run: str, epochs: int) -> None:
        """Go on from `path`, of `epochs` in all. Raises UserError for a state of another run, and for a damaged one."""
        tensors, metadata = read_tensors(path)
        if metadata.get("run") != run:
            raise UserError(
                f"{path}: belongs to another training run ({metadata.get('run', 'no training state')}), "
                f"not to {run}; delete it to start over, or resume with the same settings"
            )
        weights = _under(_MODEL, tensors)
        check_fit(path, self.model, weights)
        self.model.load_state_dict(weights)
        try:
            self._load_optimizer(_under(_OPTIMIZER, tensors))
            if self.average is not None:
                self.average.load(_under(_AVERAGE, tensors))
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(json.loads(metadata["scaler"]))
            self.epoch, self.parts = int(metadata["epoch"]), int(metadata["parts"])
            if not 0 <= self.epoch <= epochs or self.parts < 1:
                raise ValueError(f"epoch {self.epoch} of {epochs}, a batch in {self.parts} parts")
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: no whole training state ({error}); delete it to start over") from error

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for key_and_name, value in tensors.items():
            key, _, name = key_and_name.partition(".")
            parameter = parameters[name]
            state: dict[str, Any] = self.optimizer.state[parameter]
            # A count of steps stays where it is; what is as large as the weights lies as they do.
            counts = value.shape != parameter.shape or key == "step"
            state[key] = value.clone() if counts else torch.empty_like(parameter).copy_(value)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
