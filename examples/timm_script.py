"""A training script in timm's style: the model, the loaders and the loop stay the user's own.

    python examples/timm_script.py [--model mobilenetv3_small_050] [--speedup 1.5] [--out FOLDER] [--quick]

Trains a small timm network on synthetic gratings (eight classes of direction), measures a latency table on this
computer, cuts the network to a share of its latency, and trains the cut one by distillation with the same loop.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter, accuracy
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import amc_latency as amc

CLASSES = 8
SIZE = 64


class Gratings(Dataset[tuple[Tensor, int]]):
    """Noisy stripes; the class is their direction."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= self.length:
            raise IndexError(index)
        label = index % CLASSES
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        phase, frequency = torch.rand(2, generator=generator).tolist()
        angle = math.pi * label / CLASSES
        y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        along = x * math.cos(angle) + y * math.sin(angle)
        stripes = torch.sin(2 * math.pi * (along * (0.08 + 0.1 * frequency) + phase))
        return stripes + 0.3 * torch.randn(3, SIZE, SIZE, generator=generator), label


def train(
    model: nn.Module, loader: DataLoader, epochs: int, learning_rate: float, teacher: nn.Module | None = None
) -> None:
    """One loop for both: by the labels alone, or with a `teacher` whose outputs count as well."""
    optimizer = create_optimizer_v2(model, opt="adamw", lr=learning_rate, weight_decay=0.02)
    scheduler = CosineLRScheduler(optimizer, t_initial=epochs * len(loader), t_in_epochs=False)
    for epoch in range(epochs):
        losses = AverageMeter()
        model.train()
        for step, (images, labels) in enumerate(loader):
            logits = model(images)
            loss = functional.cross_entropy(logits, labels, label_smoothing=0.1)
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(images).log_softmax(1)
                loss = loss + functional.kl_div(logits.log_softmax(1), wanted, reduction="batchmean", log_target=True)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step_update(epoch * len(loader) + step + 1)
            losses.update(loss.item(), len(images))
        print(f"epoch {epoch + 1} of {epochs}: loss {losses.avg:.3f}")


@torch.no_grad()
def validate(model: nn.Module, loader: DataLoader, most: int | None = None) -> float:
    """Top-1 accuracy in percent, on about `most` images if that is given."""
    top1 = AverageMeter()
    model.eval()
    for images, labels in loader:
        top1.update(accuracy(model(images), labels)[0].item(), len(images))
        if most is not None and top1.count >= most:
            break
    return top1.avg


class Compression:
    """What the search needs of this script."""

    def __init__(self, train_loader: DataLoader, val_loader: DataLoader, epochs: int) -> None:
        self.train_loader, self.val_loader, self.epochs = train_loader, val_loader, epochs

    def calibration(self) -> DataLoader:
        return self.train_loader

    def score(self, model: nn.Module, budget: int | None = None) -> float:
        return validate(model, self.val_loader, budget)

    def train(self, model: nn.Module, teacher: nn.Module) -> None:
        train(model, self.train_loader, self.epochs, 1e-3, teacher)

    def digest(self) -> str:
        return f"gratings 1, {len(self.train_loader.dataset)} images, {self.epochs} epochs"


def main(arguments: list[str] | None = None) -> amc.SearchResult:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenetv3_small_050", help="a network of timm's")
    parser.add_argument("--speedup", type=float, default=1.5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/timm_script"))
    parser.add_argument("--quick", action="store_true", help="few images, a smaller network, an estimated latency")
    options = parser.parse_args(arguments)
    images, epochs, name = (128, 2, "lcnet_035") if options.quick else (1200, options.epochs, options.model)

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES)
    # The same calibration inputs at every call: a search is repeatable, and so the loader doesn't shuffle.
    train_loader = DataLoader(Gratings(images, seed=1), batch_size=32)
    val_loader = DataLoader(Gratings(images // 4, seed=2), batch_size=64)
    train(model, train_loader, epochs, 3e-3)

    net = amc.network(model, torch.randn(1, 3, SIZE, SIZE))
    task = Compression(train_loader, val_loader, epochs)
    with amc.device("pixel1" if options.quick else "host", estimate=options.quick) as device:
        table = None
        if not options.quick:
            # A coarse table, for a short run; leave these arguments out for a good one.
            table = amc.profile(net, device, table=options.out / "table.tsv", step=32, goal="10%", rounds=1)
        result = amc.search(
            *(net, device, table),
            task=task,
            out=options.out / "search",
            speedup=options.speedup,
            step=32,
            episodes=10,
            baselines="uniform",
        )
    amc.export(result.network, options.out / "small.tflite")
    print(f"top-1 {result.report.accuracy_original:.1f} -> {result.report.accuracy:.1f} %, met: {result.met}")
    return result


if __name__ == "__main__":
    main()
