"""Networks as training scripts leave them: the plain module is taken out, or what it is is said in a line."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.ao.quantization as quantization
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

from amc_latency.errors import UserError
from amc_latency.models.files.checkpoint import load_checkpoint, save_checkpoint
from amc_latency.models.files.weights import put_weights
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.models.spec import ModelSpec
from amc_latency.models.zoo.wrappers import folded, is_folded, unwrapped

IMPORTS = """
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
"""
IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def deprecated() -> Iterator[None]:
    """TorchScript, old weight norm and old quantisation say that they are old."""
    with warnings.catch_warnings(action="ignore"):
        yield


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


class Holder(nn.Module):
    """A network with another one in it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class DistributedDataParallel(nn.Module):
    """As PyTorch's, which needs a process group to be made."""

    __module__ = "torch.nn.parallel.distributed"

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class ModelEmaV2(DistributedDataParallel):
    __module__ = "timm.utils.model_ema"


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile()
    return module


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda module: module,
    "compile": torch.compile,
    "compile in place": compiled_in_place,
    "data parallel": nn.DataParallel,
    "distributed": DistributedDataParallel,
    "average": AveragedModel,
    "timm's average": ModelEmaV2,
    "stubs": quantization.QuantWrapper,
    "two": lambda module: torch.compile(nn.DataParallel(module)),
    "average of compiled": lambda module: AveragedModel(torch.compile(module)),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_the_plain_module_is_taken_out(wrap: Callable[[nn.Module], nn.Module]) -> None:
    found = unwrapped("net.py:build", wrap(net()))
    assert type(found) is Net
    assert found.state_dict().keys() == net().state_dict().keys()
    assert torch.equal(found(IMAGE), net()(IMAGE))


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapped_part_is_taken_out(wrap: Callable[[nn.Module], nn.Module]) -> None:
    found = unwrapped("net.py:build", nn.Sequential(Holder(wrap(net())), nn.ReLU()))
    assert type(found[0].inner) is Net
    assert torch.equal(found(IMAGE), torch.relu(net()(IMAGE)))


def test_timm_knows_these_classes() -> None:
    from timm.utils import ModelEmaV3

    found = unwrapped("net.py:build", ModelEmaV3(net()))
    assert type(found) is Net


def quantised_layers() -> nn.Module:
    module = net()
    module.qconfig = quantization.get_default_qconfig("fbgemm")
    prepared = quantization.prepare(module)
    prepared(IMAGE)
    return quantization.convert(prepared)


def prepared_for_training() -> nn.Module:
    module = net().train()
    module.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(module)


class Adapted(Holder):
    """As PEFT's models: the plain network has to be asked for."""

    def merge_and_unload(self) -> nn.Module:
        return self.inner


FOREIGN: dict[str, tuple[Callable[[], Any], str]] = {
    "scripted": (lambda: torch.jit.script(net()), r"TorchScript \(RecursiveScriptModule\).*return the plain"),
    "traced": (lambda: torch.jit.trace(net(), IMAGE), r"TorchScript \(TopLevelTracedModule\)"),
    "scripted part": (lambda: Holder(torch.jit.script(net())), "its part inner is TorchScript"),
    "exported": (lambda: torch.export.export(net(), (IMAGE,)).module(), "what torch.export returns.*return the plain"),
    "program": (lambda: torch.export.export(net(), (IMAGE,)), "ExportedProgram, what torch.export makes"),
    "quantised": (quantised_layers, "quantised .*: return the plain nn.Module of floats"),
    "dynamic": (lambda: quantization.quantize_dynamic(net(), {nn.Linear}), "quantised .* at fc"),
    "for training": (prepared_for_training, "prepared for quantisation"),
    "adapters": (lambda: Adapted(net()), r"adapters \(Adapted\): return its merge_and_unload\(\)"),
    "class": (lambda: Net, r"returns the class Net: call it, Net\(\.\.\.\)"),
    "weights": (lambda: net().state_dict(), "OrderedDict of tensors, weights without their network"),
    "pair": (lambda: (net(), "name"), "returns tuple with Net, str; it must return a torch.nn.Module"),
    "dict": (lambda: {"model": net(), "epoch": 3}, "returns dict with Net, int; it must"),
    "empty": (lambda: {}, "returns dict with nothing; it must"),
    "function": (lambda: F.relu, "is called but is no module"),
    "nothing": (lambda: None, "returns NoneType; it must return"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), r"0\.weight has no shape yet"),
    "meta": (lambda: net().to("meta"), r"a\.weight has no values \(device meta\)"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_holds_no_plain_module_is_named_in_a_line(kind: str) -> None:
    make, message = FOREIGN[kind]
    with pytest.raises(UserError, match=message) as refusal:
        unwrapped("net.py:build", make())
    assert str(refusal.value).startswith("net.py:build")
    assert "\n" not in str(refusal.value)


def test_floats_of_a_network_that_can_be_quantised_are_no_quantised_network() -> None:
    class Ready(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.end, self.sum = quantization.QuantStub(), quantization.DeQuantStub(), None
            self.sum = torch.ao.nn.quantized.FloatFunctional()

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.sum.add(self.start(x), x))

    assert torch.equal(unwrapped("net.py:build", Ready())(IMAGE), 2 * IMAGE)


def weight_norms(module: Net) -> None:
    parametrizations.weight_norm(module.a)
    parametrizations.spectral_norm(module.b)
    parametrizations.orthogonal(module.fc)


def old_norms(module: Net) -> None:
    nn.utils.weight_norm(module.a)
    nn.utils.spectral_norm(module.b)


def pruned(module: Net) -> None:
    prune.l1_unstructured(module.a, "weight", 0.5)
    prune.random_unstructured(module.b, "bias", 0.5)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def own_parametrization(module: Net) -> None:
    parametrize.register_parametrization(module.a, "weight", Doubled())
    parametrize.register_parametrization(module.a, "bias", Doubled())


FOLDS = {each.__name__: each for each in (weight_norms, old_norms, pruned, own_parametrization)}


@pytest.mark.parametrize("change", FOLDS.values(), ids=FOLDS)
def test_computed_weights_become_plain_ones_of_the_same_values(change: Callable[[Net], None]) -> None:
    module = net()
    change(module)
    module.eval()
    expected = module(IMAGE)
    assert not is_folded(module)
    found = folded(module)
    assert found is module
    assert is_folded(found)
    assert torch.allclose(found(IMAGE), expected, atol=1e-6)
    assert found.state_dict().keys() == net().state_dict().keys()
    assert all(type(each) in (nn.Conv2d, nn.Linear, Net) for each in found.modules())


@pytest.mark.parametrize("change", FOLDS.values(), ids=FOLDS)
@pytest.mark.parametrize("keep", ["as trained", "folded"])
def test_a_parametrized_network_takes_its_file_and_can_be_cut(
    change: Callable[[Net], None], keep: str, tmp_path: Path
) -> None:
    trained = Net()
    change(trained)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    trained.eval()
    expected = trained(IMAGE)
    weights = tmp_path / "net.pt"
    torch.save((trained if keep == "as trained" else folded(trained)).state_dict(), weights)
    sources = "\n\n".join(map(inspect.getsource, (Net, Doubled, change)))
    (tmp_path / "net.py").write_text(
        f"{IMPORTS}\n\n{sources}\n\ndef build():\n    net = Net()\n    {change.__name__}(net)\n    return net\n"
    )
    name = f"{tmp_path / 'net.py'}:build"
    network = load_network(NetworkOptions(name, input="3x8x8", weights=str(weights)))
    assert torch.allclose(network.model(IMAGE), expected, atol=1e-5)
    assert [group.channels for group in network.graph.groups] == [8, 8]
    # A checkpoint is built anew by the same function.
    save_checkpoint(tmp_path / "net.safetensors", network.model, network.spec)
    again, spec, _ = load_checkpoint(tmp_path / "net.safetensors", name)
    assert spec == ModelSpec(name, input=(3, 8, 8), classes=4)
    assert torch.allclose(again(IMAGE), expected, atol=1e-5)


def saved_average() -> dict[str, Tensor]:
    average = AveragedModel(net())
    average.update_parameters(net())
    return average.state_dict()


FILES: dict[str, Callable[[], dict[str, Tensor]]] = {
    "average": saved_average,
    "compiled": lambda: torch.compile(net()).state_dict(),
    "both": lambda: AveragedModel(torch.compile(nn.DataParallel(net()))).state_dict(),
}


@pytest.mark.parametrize("kind", FILES)
def test_weights_of_a_wrapped_network_fit_the_plain_one(kind: str) -> None:
    other = Net()
    put_weights("net.pt", other, FILES[kind]())
    assert torch.equal(other.eval()(IMAGE), net()(IMAGE))


def test_weights_of_a_wrapped_part_fit() -> None:
    other = Holder(Net())
    for inner in (nn.DataParallel(net()), torch.compile(net()), net()):
        put_weights("net.pt", other, Holder(inner).state_dict())
        assert torch.equal(other.eval()(IMAGE), net()(IMAGE))
