"""Training's images a second beside a plain PyTorch loop's, of the same network, batch and images.

    python -m benchmarks.throughput [--model mobilenet_v1] [--width 0.5] [--size 64] [--batch 128] [--steps 24]
                                    [--rounds 5] [--accelerator cpu] [--autocast off] [--threads 1]

Both take turns, so that a busy machine slows both. The plain loop is what a tutorial has: pixels are scaled, the loss
is cross entropy, SGD takes the step; nothing is shifted or flipped. `augmented` is ours with what `train` does to
images, `all` with an average of the weights, clipped gradients and a teacher beside it. Medians over rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import machine, parser_of, versions


def plain_epoch(model: Any, images: Any, labels: Any, batch: int, device: Any, autocast: Any) -> None:
    """A pass of the plain loop."""
    import torch
    from torch.nn import functional

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    model.train()
    for indices in torch.randperm(len(labels)).split(batch):
        x = images[indices].to(device).float().div(255).sub(0.5).div(0.5).contiguous(memory_format=torch.channels_last)
        with autocast():
            loss = functional.cross_entropy(model(x), labels[indices].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    float(loss.detach())


def main() -> None:
    """Read the options, run, print."""
    import contextlib

    import torch

    from amc_latency.accelerator import accelerator_of, autocast_dtype, prepared
    from amc_latency.data import InMemory
    from amc_latency.models.registry import build_model
    from amc_latency.models.spec import ModelSpec
    from amc_latency.pixels import Normalisation
    from amc_latency.training.loop import fit, memory_format
    from amc_latency.training.recipe import TrainConfig

    parser = parser_of(__doc__)
    parser.add_argument("--model", default="mobilenet_v1")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=24, help="a pass; of fewer than 22 batch norms are estimated anew")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--autocast", default="off")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = prepared(accelerator_of(options.accelerator))
    dtype = autocast_dtype(device, options.autocast)
    autocast = contextlib.nullcontext if dtype is None else lambda: torch.autocast(device.type, dtype)
    spec = ModelSpec(options.model, options.width, input=(options.channels, options.size, options.size), classes=10)
    torch.manual_seed(0)
    n = options.batch * options.steps
    pixels = torch.randint(0, 256, (n, *spec.input), dtype=torch.uint8)
    figures = ((0.5,) * options.channels,) * 2
    split = InMemory(pixels, torch.randint(0, 10, (n,)), Normalisation(*figures))
    model, teacher = (build_model(spec).to(device) for _ in range(2))
    model.to(memory_format=memory_format(model))
    common: dict[str, Any] = {
        "epochs": 1,
        "batch_size": options.batch,
        "learning_rate": 0.01,
        "image_size": spec.input[1:],
        "low_resolution_epochs": 0,
        "autocast": options.autocast,
    }
    ours = TrainConfig(**common, augment=False)
    more = TrainConfig(**common, kind="finetune", ema_decay=0.99, clip_norm=1.0)
    loops: dict[str, Callable[[], None]] = {
        "plain": lambda: plain_epoch(model, pixels, split.labels, options.batch, device, autocast),
        "ours": lambda: fit(model, split, ours),
        "augmented": lambda: fit(model, split, TrainConfig(**common)),
        "all": lambda: fit(model, split, more, teacher=teacher),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(options.rounds + 1):
        for name, run in loops.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    size = "x".join(map(str, spec.input))
    print(f"{machine()}, {options.threads} threads\n{versions('torch')}, on {device}, autocast {options.autocast}")
    print(f"{spec.name} {spec.width:g}, {size}, batches of {options.batch}, {n:,} images a pass")
    for name, each in seconds.items():
        ratios = [own / plain for own, plain in zip(each, seconds["plain"], strict=True)]
        rate, ratio = n / statistics.median(each), statistics.median(ratios)
        spread = f"{min(ratios):.3f}-{max(ratios):.3f}"
        print(f"{name:10} {rate:9,.0f} images/s, {ratio:.3f} of the plain loop's time ({spread})")


if __name__ == "__main__":
    main()
