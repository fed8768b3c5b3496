"""Small trained-looking networks that fake quantisation is tried on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """A residual block whose sum is pooled; a gate; a join; a classifier of flattened maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.deep = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(8 * 2 * 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.norm(self.stem(x)))  # 0
        y = x + self.deep(x)  # 1, 2
        pooled = self.pool(y)  # 3
        return self.last(torch.cat([pooled, torch.sigmoid(pooled)], 1).flatten(1))  # 4: gate, 5: join, 6


def own_net() -> nn.Module:
    """Such a network in eval mode, its norm of some statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = Net()
        net.norm.running_mean.uniform_(-0.2, 0.2)
        net.norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(net.norm.weight, -1, 1)
    return net.eval()
