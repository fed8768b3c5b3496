"""Networks of torchvision, timm, the papers and the user's own file: built, given weights, saved, or refused."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from amc_latency.console import Console
from amc_latency.errors import JobError, UserError
from amc_latency.models.files.checkpoint import NORMALISATION_KEY, load_checkpoint, save_checkpoint
from amc_latency.models.files.weights import weights_digest
from amc_latency.models.load import NetworkOptions, cut_to, load_network
from amc_latency.models.registry import build_model, build_original, source_of
from amc_latency.models.spec import ModelSpec
from amc_latency.models.zoo.lenet import lenet5
from amc_latency.pixels import Normalisation
from amc_latency.search.config import SearchConfig
from amc_latency.search.run import search

OWN = """
from torch import nn

def build(classes=4, width=0.5):
    channels = int(16 * width)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(channels, classes),
    )

def fixed():
    import torch
    torch.manual_seed(3)
    return build()

def headless():
    return nn.Conv2d(1, 4, 3)

def nothing():
    return None
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(OWN)
    return tmp_path


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("input_chw", [(1, 28, 28), (1, 32, 32)])
def test_lenet5_has_the_papers_layers(input_chw: tuple[int, int, int]) -> None:
    model = lenet5(input_chw=input_chw)
    convs = (1 * 25 + 1) * 6 + (6 * 25 + 1) * 16
    assert parameters(model) == convs + (16 * 5 * 5 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10 == 61_706
    assert model(torch.zeros(2, *input_chw)).shape == (2, 10)


def test_lenet5_takes_other_sizes_and_widths_down_to_16_pixels() -> None:
    assert lenet5(0.5, 7, (3, 16, 40))(torch.zeros(2, 3, 16, 40)).shape == (2, 7)
    with pytest.raises(UserError, match="16 pixels"):
        lenet5(input_chw=(1, 15, 28))


# Parameters as torchvision, timm and the authors of EfficientNet-Lite publish them.
PUBLISHED = {
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "mnasnet1_0": 4_383_312,
    "squeezenet1_1": 1_235_496,
    "densenet121": 7_978_856,
    "googlenet": 6_624_904,
    "vgg16": 138_357_544,
    "torchvision:shufflenet_v2_x1_0": 2_278_604,
    "timm:tf_efficientnet_lite0": 4_652_008,
    "efficientnet_lite0": 4_652_008,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_name_builds_the_published_network(name: str) -> None:
    with torch.device("meta"):
        model = build_model(ModelSpec(name))
    assert parameters(model) == PUBLISHED[name]
    assert not model.training


def test_a_network_knows_its_own_input_and_classes() -> None:
    assert source_of("torchvision:inception_v3").described("torchvision:inception_v3").input == (3, 299, 299)
    assert source_of("timm:tf_efficientnet_b3").described("timm:tf_efficientnet_b3").input == (3, 300, 300)
    assert source_of("lenet5").described("lenet5") == ModelSpec("lenet5", input=(1, 28, 28), classes=10)
    assert source_of("resnet18").described("resnet18") == ModelSpec("resnet18")


def test_googlenet_without_its_own_transform_takes_pixels_as_its_weights_expect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=True).eval()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: original.state_dict())
    network = load_network(NetworkOptions("googlenet", input="3x64x64", weights="IMAGENET1K_V1"))
    assert network.trained
    ours = source_of("googlenet").normalisation("googlenet")
    theirs = torchvision.models.GoogLeNet_Weights.DEFAULT.transforms()
    assert ours is not None
    pixels = torch.rand(2, 3, 64, 64)

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    with torch.no_grad():
        expected = original(normalised(theirs.mean, theirs.std))
        torch.testing.assert_close(network.model(normalised(ours.mean, ours.std)), expected, rtol=1e-5, atol=1e-5)


def test_what_weights_expect_of_pixels_is_known() -> None:
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for name in ("resnet18", "torchvision:resnet18", "timm:resnet18"):
        found = source_of(name).normalisation(name)
        assert found is not None
        assert (found.mean, found.std) == imagenet
    lite = source_of("efficientnet_lite0").normalisation("efficientnet_lite0")
    assert lite is not None
    # (x - 127) / 128 of bytes, said of 0..1.
    assert ((200 / 255 - lite.mean[0]) / lite.std[0]) == pytest.approx((200 - 127) / 128)
    assert source_of("resnet20").normalisation("resnet20") is None
    assert source_of("net.py:build").normalisation("net.py:build") is None


def test_without_a_network_the_weights_are_asked_for_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(JobError, match=r"IMAGENET1K_V1 of resnet18 can't be downloaded.*`weights=FILE`"):
        load_network(NetworkOptions("resnet18", weights="IMAGENET1K_V1"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (NetworkOptions("resnet101"), "did you mean 'torchvision:resnet101'"),
        (NetworkOptions("torchvision:resnet51"), "did you mean torchvision:resnet50"),
        (NetworkOptions("timm:mobilenetv3_large_10"), "did you mean timm:mobilenetv3_large_100"),
        (NetworkOptions("resnet18", weights="IMAGENET1K_V9"), "it has IMAGENET1K_V1, DEFAULT"),
        (NetworkOptions("resnet20", weights="DEFAULT"), "resnet20 has no weights of that name"),
        (NetworkOptions("resnet20", weights="none.pth"), r"none\.pth: no such file"),
        (NetworkOptions("timm:resnet18", weights="a1_in1k"), "`weights='pretrained'`"),
        (NetworkOptions("bundled", weights="none.pth"), "has weights of its own"),
        (NetworkOptions("efficientnet_lite0", classes=10), r"_fc\.weight: the network has \(10, 1280\)"),
        (NetworkOptions("missing.py:build"), r"missing\.py: no such file"),
        (NetworkOptions("net.py:build"), r"can't be run on a 3x224x224 input: .*`input=CxHxW`"),
        (NetworkOptions("net.py:nothing"), "returns NoneType"),
        (NetworkOptions("net.py:fixed", input="1x8x8", classes=7), "makes 4 logits, not `classes=7`"),
    ],
)
def test_what_cannot_be_loaded_is_refused(options: NetworkOptions, message: str, own: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_network(options)


@pytest.mark.parametrize(
    ("module", "name"), [("timm", "timm:resnet18"), ("efficientnet_lite_pytorch", "efficientnet_lite0")]
)
def test_what_an_optional_package_is_missing_for_is_said(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'amc-latency\[(timm|lite0)\]'"):
        load_network(NetworkOptions(name))


def test_an_own_network_is_told_what_it_asks_for(own: Path) -> None:
    network = load_network(NetworkOptions("net.py:build", input="1x8x8"))
    assert network.spec == ModelSpec("net.py:build", 0.5, (1, 8, 8), 4)
    assert not network.trained
    wide = load_network(NetworkOptions("net.py:build", width=2.0, input="1x8x8", classes=7))
    assert parameters(wide.model) == (9 + 1) * 32 + (32 + 1) * 7


def test_an_own_network_is_trained_where_the_user_says_so(own: Path) -> None:
    # That it is the same by any seed shows nothing: its function may set the seed.
    assert not load_network(NetworkOptions("net.py:fixed", input="1x8x8")).trained
    network = load_network(NetworkOptions("net.py:fixed", input="1x8x8", weights="own"))
    assert network.trained
    torch.manual_seed(3)
    assert torch.equal(network.model[0].weight, nn.Conv2d(1, 8, 3).weight)
    with pytest.raises(UserError, match="resnet20 has no weights of that name"):
        load_network(NetworkOptions("resnet20", weights="own"))
    with pytest.raises(UserError, match=r"net\.py:fixed has random weights.*`weights='own'` if the function loads"):
        search(SearchConfig(speedup=2, model="net.py:fixed", input="1x8x8"), own / "run", Console(quiet=True))


LITE0_PIXELS = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_published_figures_are_for_published_weights(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"model": "resnet18", "input": "3x32x32"}
    torch.manual_seed(1)
    resnet = torchvision.models.resnet18()
    torch.save(resnet.state_dict(), "w.pth")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: resnet.state_dict())
    published = load_network(NetworkOptions(**small, weights="IMAGENET1K_V1"))
    assert published.pixels == IMAGENET
    assert load_network(NetworkOptions(**small, weights="w.pth")).pixels is None
    assert load_network(NetworkOptions(**small)).pixels is None
    said = load_network(NetworkOptions(**small, weights="w.pth", normalisation="0.5,0.5,0.25/0.1,1,2"))
    assert said.pixels == Normalisation((0.5, 0.5, 0.25), (0.1, 1.0, 2.0))
    with pytest.raises(UserError, match=r"0\.5/0\.1 is for 1 channels, and resnet18 takes 3x32x32"):
        load_network(NetworkOptions(**small, weights="w.pth", normalisation="0.5/0.1"))
    # A checkpoint is of published weights, or says what else it expects.
    path = "saved.safetensors"
    save_checkpoint(Path(path), said.model, said.spec)
    assert load_network(NetworkOptions(path)).pixels == IMAGENET
    save_checkpoint(Path(path), said.model, said.spec, {NORMALISATION_KEY: LITE0_PIXELS.text})
    assert load_network(NetworkOptions(path)).pixels == LITE0_PIXELS
    assert load_network(NetworkOptions(path, normalisation="0.5,0.5,0.25/0.1,1,2")).pixels == said.pixels


def test_weights_of_a_file_make_a_trained_network(own: Path) -> None:
    spec = ModelSpec("net.py:build", 0.5, (1, 8, 8), 4)
    torch.manual_seed(7)
    other = build_original(spec)
    torch.save({"model": other.state_dict()}, "w.pth")
    network = load_network(NetworkOptions("net.py:build", input="1x8x8", weights="w.pth"))
    assert network.trained
    assert weights_digest(network.model) == weights_digest(other)


@pytest.mark.parametrize(
    "options",
    [
        NetworkOptions("net.py:build", input="1x8x8"),
        NetworkOptions("timm:tf_mobilenetv3_small_minimal_100", input="3x33x33", classes=5),
        NetworkOptions("torchvision:mobilenet_v3_small", input="3x32x32", classes=5),
        NetworkOptions("lenet5", width=0.5),
    ],
    ids=lambda options: options.model,
)
def test_whole_or_cut_a_network_survives_its_checkpoint(options: NetworkOptions, own: Path) -> None:
    whole = load_network(options)
    counts = tuple(max(1, 3 * channels // 4) for channels in whole.graph.architecture.group_channels)
    image = torch.randn(2, *whole.spec.input)
    for network in (whole, cut_to(whole, counts)):
        save_checkpoint(Path("saved.safetensors"), network.model, network.spec)
        model, spec, _ = load_checkpoint(Path("saved.safetensors"), options.model)
        assert spec == network.spec
        with torch.no_grad():
            assert torch.equal(model(image), network.model(image))


def test_a_checkpoint_of_an_own_file_that_is_gone_says_so(own: Path) -> None:
    network = load_network(NetworkOptions("net.py:build", input="1x8x8"))
    save_checkpoint(Path("saved.safetensors"), network.model, network.spec)
    Path("net.py").unlink()
    with pytest.raises(UserError, match=r"saved\.safetensors holds weights of net\.py:build.*net\.py: no such file"):
        load_checkpoint(Path("saved.safetensors"), "net.py:build")
