"""A detector's backbone cut under a latency budget, without labels: torchvision's SSDLite with MobileNetV3.

    python examples/ssdlite_backbone.py [--speedup 1.3] [--out FOLDER] [--quick]

The score is how well the cut backbone's feature maps agree with the original's. The maps keep their channels, as the
network gives them out, so the cut backbone is put back and the detector's heads run on it as before. Weights are
random here, so that nothing is downloaded; with your own the script is the same. Latency is a Pixel 1's, by estimate.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

import amc_latency as amc


def pictures(n: int, size: int, seed: int) -> Tensor:
    """Smooth random images [n, 3, size, size] in 0..1, some dark, some bright, in place of photos."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 12, 12, generator=generator) + torch.rand(n, 3, 1, 1, generator=generator) - 0.5
    return functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


def settle(stages: nn.Sequential, images: Tensor) -> None:
    """Let batch norms see images, as those of a trained detector have: with random weights outputs fade otherwise."""
    for module in stages.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        stages.train()(images)


class SameFeatures:
    """Feature maps as the original backbone makes them."""

    def __init__(self, backbone: nn.Module, calibration: Tensor, held_back: Tensor) -> None:
        self.inputs, self.held_back = calibration, held_back
        with torch.no_grad():
            self.wanted = [list(backbone(images).values()) for images in held_back.split(4)]

    def calibration(self) -> Iterator[Tensor]:
        return iter(self.inputs.split(8))

    @torch.no_grad()
    def score(self, model: nn.Module, budget: int | None = None) -> float:
        """The share of the maps' variance within channels that is explained, at most 1: R squared, the maps' mean."""
        shares = []
        for images, wanted in zip(self.held_back.split(4), self.wanted, strict=True):
            for found, map_ in zip(model(images).values(), wanted, strict=True):
                varied = map_ - map_.mean((0, 2, 3), keepdim=True)
                shares.append(1 - (found - map_).square().sum() / varied.square().sum())
        return float(torch.stack(shares).mean())

    def digest(self) -> str:
        return f"feature maps 1, {len(self.inputs)} and {len(self.held_back)} images"


def main(arguments: list[str] | None = None) -> tuple[amc.SearchResult, nn.Module]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=1.3)
    parser.add_argument("--out", type=Path, default=Path("runs/ssdlite_backbone"))
    parser.add_argument("--quick", action="store_true", help="few images, policies and widths")
    options = parser.parse_args(arguments)
    calibration, held_back, episodes, step = (8, 4, 1, 64) if options.quick else (64, 16, 20, 16)

    torch.manual_seed(0)
    detector = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    photos = list(pictures(calibration + held_back, 320, seed=1))
    inputs = detector.transform(photos)[0].tensors
    settle(detector.backbone.features, inputs[:calibration])
    detector.eval()

    net = amc.network(detector.backbone, inputs[:1])
    task = SameFeatures(detector.backbone, inputs[:calibration], inputs[calibration:])
    with amc.device("pixel1", estimate=True) as device:
        result = amc.search(
            *(net, device),
            task=task,
            out=options.out,
            speedup=options.speedup,
            step=step,
            episodes=episodes,
            baselines="uniform",
            calibration_images=calibration,
            recalibration_images=min(32, calibration),
        )
    detector.backbone = result.network.model
    with torch.no_grad():
        found = detector(photos[:2])
    report = result.report
    print(f"backbone {report.original_ms:.1f} -> {report.measured_ms:.1f} ms by estimate, met: {result.met}")
    print(f"agreement of feature maps {report.accuracy:.3f}; boxes: {[len(each['boxes']) for each in found]}")
    return result, detector


if __name__ == "__main__":
    main()
