"""Networks of the papers, cut at random: the sliced network computes what the whole one does without those channels.

The whole network is masked with NaN: a lost channel is NaN where it is made, so that it spoils whatever it flows into,
until a layer that mixes channels reads 0 in its place. That needs no idea of which layers a channel passes or where it
ends up, so it shows a member, an offset or an order that the coupled groups have wrong.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from amc_latency.graph.trace import trace
from amc_latency.models.load import Network
from amc_latency.models.registry import build_model
from amc_latency.models.spec import ModelSpec, parse_input
from amc_latency.models.untrained import with_norm_statistics
from amc_latency.prune.cut import cut

CUTS = 5
TOLERANCE = 1e-5
"""of the range of the outputs"""
# The least input that leaves the last feature map a pixel or a few; VGG's classifier reads 7x7 of any.
NETWORKS = {
    **dict.fromkeys(("mobilenet_v1", "mobilenet_v2", "mnasnet1_0", "efficientnet_lite0"), "3x64x64"),
    **dict.fromkeys(("mobilenet_v3_small", "mobilenet_v3_large", "squeezenet1_1", "googlenet"), "3x64x64"),
    **dict.fromkeys(("torchvision:regnet_y_400mf", "torchvision:efficientnet_b0"), "3x64x64"),
    **dict.fromkeys(("torchvision:shufflenet_v2_x1_0", "torchvision:resnext50_32x4d", "densenet121"), "3x64x64"),
    **dict.fromkeys(("resnet18", "resnet50", "vgg16", "vgg16_bn", "resnet20", "resnet56", "plain20"), "3x32x32"),
    "torchvision:inception_v3": "3x96x96",
    "lenet5": "1x28x28",
}


def random_network(name: str, input_text: str) -> Network:
    """The network with weights that were drawn once, and batch norms that have seen images."""
    spec = ModelSpec(name, input=parse_input(input_text), classes=10)
    # RegNet reckons its widths with tensors.
    with torch.device("cpu" if "regnet" in name else "meta"):
        model = build_model(spec)
        if name.startswith("vgg"):
            # 120 of its 138 million weights are in the first two, and drawing and slicing them would take seconds.
            model.classifier[0], model.classifier[3] = nn.Linear(512 * 7 * 7, 96), nn.Linear(96, 64)
            model.classifier[6] = nn.Linear(64, 10)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return with_norm_statistics(Network(model, spec, trace(model, spec.input), trained=False))


def random_keep(network: Network, seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    keep = []
    for group in network.graph.groups:
        count = int(torch.randint(group.least, group.channels + 1, (), generator=draw))
        keep.append(torch.randperm(group.channels, generator=draw)[:count].sort().values)
    return keep


def masked(network: Network, keep: list[Tensor], images: Tensor) -> Tensor:
    """The whole network's outputs on `images` where all but `keep` is missing."""

    def spoil(lost: Tensor) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output.clone().index_fill_(1, lost, torch.nan)

        return producer.register_forward_hook(hook)

    def read_zero(module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        return args[0].nan_to_num()

    handles = []
    for group, kept in zip(network.graph.groups, keep, strict=True):
        is_lost = torch.ones(group.channels, dtype=torch.bool)
        is_lost[kept] = False
        for name in group.producers:
            producer = network.model.get_submodule(name)
            values = len(producer.weight) // group.channels
            handles.append(spoil(is_lost.repeat_interleave(values).nonzero().flatten()))
    for module in network.model.modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            handles.append(module.register_forward_pre_hook(read_zero))
    outputs = network.model(images)
    for handle in handles:
        handle.remove()
    return outputs


@pytest.mark.parametrize("name", NETWORKS)
def test_a_sliced_network_is_the_masked_one(name: str) -> None:
    if name == "efficientnet_lite0" and find_spec("efficientnet_lite_pytorch") is None:
        pytest.skip("the extra lite0 (efficientnet-lite-pytorch) is not installed")
    network = random_network(name, NETWORKS[name])
    assert network.graph.groups
    images = torch.randn(2, *network.spec.input, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = network.model(images)
        for seed in range(CUTS):
            keep = random_keep(network, seed)
            small = cut(network.model, network.graph, keep)
            expected = masked(network, keep, images)
            output_range = float(expected.max() - expected.min())
            assert (small(images) - expected).abs().max() <= TOLERANCE * output_range  # also false for NaN
            assert (whole - expected).abs().max() > 0.01 * output_range
    counts = [len(kept) for kept in keep]
    assert trace(small, network.spec.input).architecture.shapes() == network.graph.architecture.shapes(counts)
