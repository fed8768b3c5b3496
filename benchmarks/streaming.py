"""A folder of photos that fits no memory: seconds until a search judges its first policy, memory, images a second.

    python -m benchmarks.streaming                    50,000 links to 40 photos, 224x224, EfficientNet-Lite0
    python -m benchmarks.streaming --photos DIR       links to that folder's photos
    python -m benchmarks.streaming --quick            400 links, MobileNetV1

The folder lies as ImageNet does, train/CLASS/* and val/CLASS/*, in a temporary place. Labels mean nothing: figures are
of time and memory alone. Memory is what this process and those that decode have together, pages that they share
counted once, looked at five times a second. On a busy machine processor time is what counts.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import machine, parser_of, versions

CLASSES = 100
VALIDATION = 0.1
"""of the photos"""
DECODED = 1000
"""photos by which images a second are told"""


def photos_of_matplotlib(folder: Path, n: int = 40) -> list[Path]:
    """Parts of the photo that comes with matplotlib, each of 500x375 as ImageNet's mostly are."""
    import numpy as np
    from matplotlib import cbook
    from PIL import Image

    whole = Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    random, paths = np.random.default_rng(0), []
    for i in range(n):
        width = int(random.integers(250, whole.width))
        height = width * 3 // 4
        left, top = (int(random.integers(0, room)) for room in (whole.width - width, whole.height - height))
        paths.append(folder / f"{i}.JPEG")
        part = whole.crop((left, top, left + width, top + height)).resize((500, 375))
        part.save(paths[-1], quality=90)
    return paths


def make_folder(folder: Path, photos: list[Path], images: int) -> None:
    """`images` links to `photos` in `CLASSES` classes, a tenth of them in val."""
    classes = min(CLASSES, images // 40)
    for i in range(images):
        part = "val" if i % round(1 / VALIDATION) == 0 else "train"
        place = folder / part / f"n{i // 10 % classes:08}"
        if i < 20 * classes:
            place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:06}.JPEG").symlink_to(photos[i % len(photos)])


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """The most MB that this process and its children had together, once the block has ended."""
    found, done = {"peak_mb": 0.0}, threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            found["peak_mb"] = max(found["peak_mb"], sum(map(_shared_kib, _family())) * 1024 / 1e6)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def _family() -> list[Path]:
    own = Path("/proc/self")
    found = [own]
    for file in own.glob("task/*/children"):
        try:
            found += [Path("/proc", pid) for pid in file.read_text().split()]
        except OSError:
            continue
    return found


def _shared_kib(process: Path) -> int:
    """Memory of a process, shared pages in proportion."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _cpu_s() -> float:
    """Processor time of this process and of those that decoded for it and have ended."""
    return sum(os.times()[:4])


class _Rate:
    """Images a second, and a second of processor time."""

    def __init__(self) -> None:
        self.start, self.cpu_start = time.perf_counter(), _cpu_s()

    def tell(self, figures: dict[str, Any], name: str, images: int) -> None:
        """Write both down for so many images."""
        seconds, cpu_s = time.perf_counter() - self.start, _cpu_s() - self.cpu_start
        figures[f"{name}, images/s"] = round(images / seconds)
        figures[f"{name}, images/s of a core"] = round(images / cpu_s)


def run(options: Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    import torch

    from amc_latency.console import Console
    from amc_latency.data import Streaming, data_for
    from amc_latency.data.augmentation import Augmentation
    from amc_latency.models.load import NetworkOptions, load_network
    from amc_latency.search.judge.config import JudgeConfig
    from amc_latency.search.judge.judge import Judge

    figures: dict[str, Any] = {"machine": machine(), "versions": versions("torch", "torchvision", "pillow")}
    network = load_network(NetworkOptions(options.model, input=f"3x{options.size}x{options.size}"))
    size = network.spec.input[1:]
    with peak_memory() as memory:
        start = time.perf_counter()

        cpu_start = _cpu_s()

        def lap(name: str) -> None:
            nonlocal start
            figures[name] = round(time.perf_counter() - start, 1)
            print(name, figures[name], file=sys.stderr)
            start = time.perf_counter()

        streaming = Streaming(options.memory_gib)
        data = data_for(network, f"imagenet:{folder}", console=Console(), streaming=streaming)
        lap("load_s")
        figures["sha256"] = data.digest()[:16]
        lap("digest_s")
        judge = Judge(network, data, JudgeConfig())
        judge.introduce(judge.config.images, 0.0, Console())
        lap("introduce_s")
        judge.evaluator  # noqa: B018  # calibration images, their statistics, and the held-back images
        lap("collect_s")
        full = network.graph.architecture.group_channels
        least = [group.least for group in network.graph.groups]
        figures["until_first_episode_cpu_s"] = round(_cpu_s() - cpu_start, 1)
        judge(tuple(max(count // 2, low) for count, low in zip(full, least, strict=True)))
        lap("first_episode_s")
    names = ("load_s", "digest_s", "introduce_s", "collect_s")
    figures |= {"until_first_episode_s": round(sum(figures[name] for name in names), 1)}
    figures |= {"search_peak_mb": round(memory["peak_mb"])}
    few = min(options.decoded, len(data.train))
    with peak_memory() as memory:
        rate = _Rate()
        rate.tell(figures, "evaluation", sum(len(labels) for _, labels in data.train.take(few).parts(size)))
        for name in ("crop,flip", "crop,flip,trivial,erasing"):
            generator = torch.Generator().manual_seed(0)
            dealt = torch.randperm(few, generator=generator).split(128)
            rate = _Rate()
            batches = data.train.batches(dealt, size, Augmentation.of(name), generator)
            rate.tell(figures, name, sum(len(labels) for _, labels in batches))
    figures["decoding_peak_mb"] = round(memory["peak_mb"])
    return figures


def main() -> None:
    """Make the folder, print the figures, and remove it."""
    parser = parser_of(__doc__, json=True)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--photos", type=Path, help="a folder of photos to link to")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--memory-gib", type=float, default=1.5)
    parser.add_argument("--decoded", type=int, default=DECODED)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.images, options.model, options.size, options.decoded, options.memory_gib = (
            400,
            "mobilenet_v1",
            64,
            100,
            0.01,
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        photos = photos_of_matplotlib(folder / "photos")
        if options.photos is not None:
            photos = [
                path.resolve() for path in sorted(options.photos.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")
            ]
        make_folder(folder / "set", photos, options.images)
        figures = run(options, folder / "set")
    print(json.dumps(figures) if options.json else "\n".join(f"{key:32} {value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
