"""Normal form: the same network of plain torch.nn modules, held against the network's own forward."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.rewriting.normal_form import normal_form
from amc_latency.graph.trace import with_tensors
from amc_latency.graph.tracing import UntraceableError, symbolic
from amc_latency.models.spec import ModelSpec
from amc_latency.models.zoo import efficientnet_lite

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "efficientnet_b0": lambda: torchvision.models.efficientnet_b0(num_classes=10),
    "shufflenet_v2": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=10),
    "densenet": lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=10),
    "lite0": lambda: efficientnet_lite.build(ModelSpec(classes=10), "efficientnet_lite0"),
    "timm tf_mobilenetv3": lambda: timm.create_model("tf_mobilenetv3_small_minimal_100", num_classes=10),
    "timm mobilenetv3": lambda: timm.create_model("mobilenetv3_small_050", num_classes=10),
    "timm regnety": lambda: timm.create_model("regnety_002", num_classes=10),
}


def with_statistics(model: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * max(1.0, float(expected.detach().abs().max())))


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_names_are_the_networks_own(name: str) -> None:
    model = with_statistics(NETWORKS[name]())
    # An odd size: padding that depends on it differs from side to side.
    images = {count: torch.randn(count, 3, 65, 65) for count in (1, 3)}
    with torch.no_grad():
        expected = {count: model(image) for count, image in images.items()}
    keys, tensors = list(model.state_dict()), dict(model.named_parameters())
    normal = normal_form(model, (3, 65, 65))
    with torch.no_grad():
        for count, image in images.items():
            assert_same(normal(image), expected[count])
    assert sorted(normal.state_dict()) == sorted(keys)
    assert all(parameter is tensors[key] for key, parameter in normal.named_parameters())
    for node in symbolic(normal).graph.nodes:
        assert node.op != "get_attr"
        assert not node.kwargs.get("inplace")
        if node.op == "call_module":
            module = normal.get_submodule(node.target)
            assert type(module).__module__.startswith("torch.nn.modules.")
            assert not getattr(module, "inplace", False)


class SamePadding(nn.Conv2d):
    """TensorFlow's padding, worked out from the size that comes."""

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        if any(sides):
            x = functional.pad(x, sides)
        return functional.conv2d(x, self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


@pytest.mark.parametrize(
    ("stride", "size", "pads", "padding"), [(1, 8, 0, (1, 1)), (2, 8, 1, (0, 0)), (2, 7, 0, (1, 1))]
)
def test_padding_joins_the_convolution_where_all_sides_are_alike(
    stride: int, size: int, pads: int, padding: tuple[int, int]
) -> None:
    model = nn.Sequential(SamePadding(3, 4, 3, stride=stride)).eval()
    normal = normal_form(model, (3, size, size))
    assert type(normal.get_submodule("0")) is nn.Conv2d
    assert normal.get_submodule("0").padding == padding
    assert sum(node.target is functional.pad for node in symbolic(normal).graph.nodes) == pads
    image = torch.randn(2, 3, size, size)
    assert_same(normal(image), model(image))


class ReadsWhatWasOverwritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.relu(x) + x
        torch.clamp_(y, max=0.5)
        y.mul_(2)
        return functional.relu6(y, True) - y


def test_who_read_what_an_operation_overwrote_reads_its_result() -> None:
    model, image = ReadsWhatWasOverwritten().eval(), torch.randn(2, 3, 5, 5)
    expected = copy.deepcopy(model)(image)
    assert_same(normal_form(model, (3, 5, 5))(image), expected)


def test_a_plain_network_is_returned_as_it_is() -> None:
    model = torchvision.models.mobilenet_v2(width_mult=0.1)
    assert normal_form(model, (3, 32, 32)) is model
    assert not model.training
    assert not any(getattr(module, "inplace", False) for module in model.modules())


def test_a_copy_with_other_weights_is_a_network_of_its_own() -> None:
    model = normal_form(NETWORKS["densenet"](), (3, 32, 32))
    assert isinstance(model, fx.GraphModule)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(image)
        other = with_tensors(model, lambda _, tensor: tensor.clone())
        other.get_parameter("classifier.bias").add_(1)
        assert_same(other(image), expected + 1)
        assert torch.equal(model(image), expected)
        assert_same(copy.deepcopy(other)(image), expected + 1)


class MakesConstants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor([[1.0, 2.0], [3.0, 4.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * (self.table * 2).view(-1) + torch.ones(x.shape[1])


def test_what_is_made_of_a_buffer_keeps_its_values() -> None:
    normal = normal_form(MakesConstants(), (4, 1, 1))
    assert normal(torch.ones(3, 4, 1, 1)).tolist() == [[3.0, 5.0, 7.0, 9.0]] * 3


class Looks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_the_network_rejects_is_told_from_what_cannot_be_traced() -> None:
    with pytest.raises(UserError, match=r"can't be run on a 1x32x32 input: .* to have 3 channels") as error:
        normal_form(nn.Sequential(nn.Conv2d(3, 4, 3), SamePadding(4, 4, 3)), (1, 32, 32))
    assert not isinstance(error.value, UntraceableError)
    with pytest.raises(UntraceableError, match=r"in 0 \(Looks\)"):
        normal_form(nn.Sequential(Looks()), (1, 32, 32))
