"""A U-Net of one's own, transposed convolutions and concatenations included, cut for a phone by mean IoU.

    python examples/unet.py [--speedup 2] [--out FOLDER] [--quick]

The task is to segment discs and squares on noise. The network, its loss and its loop know nothing of the library.
Latency is a Pixel 1's, by estimate; with the phone at hand: `amc.device("pixel1")` and `amc.profile`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import amc_latency as amc

CLASSES = 3
SIZE = 64


def scenes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images [n, 3, 64, 64] with a disc and a square each, and their masks [n, 64, 64]: 0 ground, 1 disc, 2 square."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    images, masks = torch.empty(n, 3, SIZE, SIZE), torch.zeros(n, SIZE, SIZE, dtype=torch.long)
    for image, mask in zip(images, masks, strict=True):
        places = torch.randint(12, SIZE - 12, (4,), generator=generator).tolist()
        radius, half = torch.randint(6, 12, (2,), generator=generator).tolist()
        mask[(x - places[0]) ** 2 + (y - places[1]) ** 2 < radius**2] = 1
        mask[((x - places[2]).abs() < half) & ((y - places[3]).abs() < half)] = 2
        brightness = torch.tensor([0.0, 1.0, 1.0])[mask] * (0.7 + 0.6 * torch.rand(1, generator=generator))
        image[:] = brightness + 0.5 * torch.randn(3, SIZE, SIZE, generator=generator)
    return images, masks


class Block(nn.Sequential):
    """Two 3x3 convolutions."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(
            *(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)),
            *(nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)),
        )


class UNet(nn.Module):
    """Ronneberger et al. 2015, small."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down1, self.down2 = Block(3, width), Block(width, 2 * width)
        self.bottom = Block(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.join2 = Block(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.join1 = Block(2 * width, width)
        self.mask = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(functional.max_pool2d(one, 2))
        bottom = self.bottom(functional.max_pool2d(two, 2))
        two = self.join2(torch.cat([two, self.up2(bottom)], 1))
        return self.mask(self.join1(torch.cat([one, self.up1(two)], 1)))


def train(
    model: nn.Module, images: Tensor, masks: Tensor, epochs: int, learning_rate: float, teacher: nn.Module | None = None
) -> None:
    """By the masks, and by what a `teacher` says of each pixel if there is one."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(16):
            logits = model(images[batch])
            loss = functional.cross_entropy(logits, masks[batch])
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(images[batch]).softmax(1)
                loss = loss + functional.cross_entropy(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def mean_iou(model: nn.Module, images: Tensor, masks: Tensor) -> float:
    """Intersection over union, the mean of the classes."""
    found = torch.cat([model(part).argmax(1) for part in images.split(32)])
    pairs = torch.bincount(CLASSES * masks.flatten() + found.flatten(), minlength=CLASSES**2).view(CLASSES, CLASSES)
    hit = pairs.diagonal()
    return float((hit / (pairs.sum(0) + pairs.sum(1) - hit).clamp(min=1)).mean())


class Segmentation:
    """What the search needs to know."""

    def __init__(self, train_images: Tensor, train_masks: Tensor, images: Tensor, masks: Tensor, epochs: int) -> None:
        self.train_images, self.train_masks, self.images, self.masks = train_images, train_masks, images, masks
        self.epochs = epochs

    def calibration(self) -> Iterator[Tensor]:
        return iter(self.train_images.split(32))

    def score(self, model: nn.Module, budget: int | None = None) -> float:
        return mean_iou(model, self.images[:budget], self.masks[:budget])

    def train(self, model: nn.Module, teacher: nn.Module) -> None:
        train(model, self.train_images, self.train_masks, self.epochs, 1e-3, teacher)

    def digest(self) -> str:
        return f"discs and squares 1, {len(self.train_images)} and {len(self.images)} images, {self.epochs} epochs"


def main(arguments: list[str] | None = None) -> amc.SearchResult:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("runs/unet"))
    parser.add_argument("--quick", action="store_true", help="a narrow network and few images")
    options = parser.parse_args(arguments)
    width, images, epochs, episodes = (8, 64, 2, 4) if options.quick else (16, 384, 6, 20)

    torch.manual_seed(0)
    model = UNet(width)
    train_set, held_back = scenes(images, seed=1), scenes(images // 4, seed=2)
    train(model, *train_set, epochs, 3e-3)

    net = amc.network(model, torch.randn(1, 3, SIZE, SIZE))
    task = Segmentation(*train_set, *held_back, epochs)
    with amc.device("pixel1", estimate=True) as device:
        result = amc.search(
            *(net, device),
            task=task,
            out=options.out,
            speedup=options.speedup,
            step=4,
            images=len(held_back[0]),
            episodes=episodes,
            baselines="uniform",
        )
    amc.export(result.network, options.out / "small.tflite")
    report = result.report
    print(f"{report.original_ms:.1f} -> {report.measured_ms:.1f} ms by estimate, met: {result.met}")
    print(
        f"mean IoU {report.accuracy_original:.3f} -> {report.accuracy:.3f}, uniform width {report.accuracy_uniform:.3f}"
    )
    return result


if __name__ == "__main__":
    main()
