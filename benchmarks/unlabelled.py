"""What refit is worth where there are no labels: agreement with the original network, step by step after the cut.

    python -m benchmarks.unlabelled RUN_FOLDER

The folder is that of `amc-latency search --unlabelled`. Its policy, and the uniform width beside it, are judged by the
test photos, which nothing was chosen by and nothing was fitted on: cut alone, with batch norms recalibrated, with refit
beside that, and fine-tuned on what the original says of the train photos.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import torch
from torch import nn

from amc_latency.data import Split, data_for
from amc_latency.data.logits import correct
from amc_latency.models.files.checkpoint import load_checkpoint
from amc_latency.models.load import NetworkOptions, cut_to, load_network
from amc_latency.prune.rank import consumer_l1, keep_indices
from amc_latency.prune.refit import collect, recalibrate_batch_norm, refit
from amc_latency.search.results.folder import CONFIG, REPORT
from benchmarks.common import parser_of


def agreement_pct(model: nn.Module, split: Split, size: tuple[int, int]) -> float:
    """Of the images, how many the network and the original put into the same class."""
    with torch.inference_mode():
        agreed = sum(
            correct(model(part.inputs(size)), part.labels)
            for part in (split.at(slice(i, i + 50)) for i in range(0, len(split), 50))
        )
    return 100 * agreed / len(split)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    report = json.loads((folder / REPORT).read_text())
    config = tomllib.loads((folder / CONFIG).read_text())
    names = [field.name for field in fields(NetworkOptions)]
    options = NetworkOptions(**{name: config[name] for name in names if name in config})
    network = load_network(options)
    data = data_for(network, config["data"], config["unlabelled"])
    size = network.spec.input[1:]
    calibration = data.train.take(config["calibration_images"]).inputs(size)
    statistics = collect(network.model, network.graph, calibration)
    importance = consumer_l1(network.model, network.graph)
    print(f"{len(data.train)} train photos, {len(data.held_back)} held back, {len(data.test)} test photos")
    print(f"{'percent of the test photos':28}{'cut':>8}{'+ batch norm':>14}{'+ refit':>9}{'fine-tuned':>12}{'ms':>9}")
    for row in report["rows"]:
        counts = tuple(row["counts"])
        if row["name"] == "original":
            shares = [agreement_pct(network.model, data.test, size)] * 4
        else:
            shares = [agreement_pct(cut_to(network, counts).model, data.test, size)]
            small = cut_to(network, counts).model
            recalibrate_batch_norm(small, calibration)
            shares.append(agreement_pct(small, data.test, size))
            small = cut_to(network, counts).model
            keep = [keep_indices(scores, count) for scores, count in zip(importance, counts, strict=True)]
            refit(small, network.model, network.graph, statistics, keep)
            recalibrate_batch_norm(small, calibration)
            shares.append(agreement_pct(small, data.test, size))
            tuned = folder / f"{'model' if row['name'] == 'ours' else row['name']}.safetensors"
            shares.append(agreement_pct(load_checkpoint(tuned)[0], data.test, size))
        figures = f"{shares[0]:8.1f}{shares[1]:14.1f}{shares[2]:9.1f}{shares[3]:12.1f}{row['measured_ms']:9.3f}"
        print(f"{row['name']:28}{figures}")


if __name__ == "__main__":
    main()
