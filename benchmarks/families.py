"""Every classification family of torchvision: loaded, inspected, cut to half its channels and exported, or why not.

    python -m benchmarks.families [--networks torchvision:alexnet,timm:mobilenetv3_small_100,...]
    python -m benchmarks.families --networks timm     # the smallest network of each of timm's modules

Random weights with batch norms that have seen images; both files' outputs are compared with PyTorch's. What our own
exporter refuses is tried with another converter where one is installed.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from amc_latency.lut.building.plan import uniform_counts

from amc_latency.errors import JobError, UserError
from amc_latency.export.choose import export_with
from amc_latency.export.export import ExportReport
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import NetworkOptions, cut_to, load_model, load_network
from amc_latency.models.untrained import model_with_norm_statistics, with_norm_statistics
from benchmarks.common import machine, parser_of, versions

FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18"),
    *("resnext50_32x4d", "wide_resnet50_2", "shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1", "swin_t"),
    *("swin_v2_t", "vgg11", "vgg11_bn", "vit_b_16"),
)


def smallest_of_timm() -> list[str]:
    """The network with the fewest parameters of each of timm's modules."""
    import timm
    import torch

    names = []
    for module in timm.list_modules():
        sizes = {}
        for name in timm.list_models(module=module):
            try:
                with torch.device("meta"):
                    sizes[name] = sum(tensor.numel() for tensor in timm.create_model(name).parameters())
            except (RuntimeError, NotImplementedError):
                continue  # It reckons with the values of tensors while it is built.
        if sizes:
            names.append(f"timm:{min(sizes, key=lambda name: (sizes[name], name))}")
    return names


def relative(report: ExportReport) -> float:
    return report.max_abs_error / (report.output_range or 1.0)


def line(name: str, folder: Path) -> str:
    """What became of one network."""
    options = NetworkOptions(name)
    try:
        network = with_norm_statistics(load_network(options))
    except UserError as error:
        reason = f"refused: {error}"
        model, spec, *_ = load_model(options)
        try:
            report = export_with(
                "auto", model_with_norm_statistics(model, spec.input), spec.input, folder / "whole.tflite"
            )
            return f"{reason}; exported whole by {report.converter} to {relative(report):.0e}"
        except (JobError, UserError):
            return reason
    whole = export_with("ours", network.model, network.spec.input, folder / "whole.tflite")
    architecture = network.graph.architecture
    cut = cut_to(network, uniform_counts(architecture, Grid().choices(network), 0.5))
    report = export_with("ours", cut.model, cut.spec.input, folder / "cut.tflite")
    assert whole.macs is not None
    assert report.macs is not None
    return (
        f"{len(network.graph.groups):3} groups, {len(network.graph.left_whole):2} layers left whole; cut to "
        f"{100 * report.macs / whole.macs:3.0f} % of {whole.macs / 1e6:6,.0f} M MACs; off PyTorch's by "
        f"{relative(whole):.0e} whole, {relative(report):.0e} cut; "
        f"{whole.bytes / 1e6:.1f} -> {report.bytes / 1e6:.1f} MB"
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--networks", default=",".join(f"torchvision:{name}" for name in FAMILIES))
    options = parser.parse_args()
    print(f"{machine()}; {versions('torch', 'torchvision')}")
    with tempfile.TemporaryDirectory() as folder:
        for name in smallest_of_timm() if options.networks == "timm" else options.networks.split(","):
            began = time.perf_counter()
            try:
                text = line(name, Path(folder))
            except (JobError, UserError) as error:
                text = f"failed: {error}"
            print(f"{name:32} {text} ({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
