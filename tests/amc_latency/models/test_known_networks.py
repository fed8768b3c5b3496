import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from amc_latency.models import known_networks
from amc_latency.models.known_networks import KnownNetwork, known_network
from amc_latency.models.load import Network, NetworkOptions

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "lut" / "tables" / "host-epyc-zen4.tsv"
RUN = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
from amc_latency.cli.main import main
main()
"""
SMALL = NetworkOptions("lenet5")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "amc-latency" / "networks"


def predicted(*arguments: str) -> tuple[str, list[str]]:
    """What `predict` prints, and to standard error, whether torch was imported as the last line."""
    command = [sys.executable, "-c", RUN, "predict", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout, done.stderr.splitlines()


def test_a_known_network_is_predicted_the_same_without_torch(cache: Path) -> None:
    arguments = ("--model", "mobilenet_v2", "--width", "0.35", "--lut", str(TABLE))
    first, said = predicted(*arguments)
    again, said_again = predicted(*arguments)
    assert again == first
    assert "conv" in first
    assert said_again[:-1] == said[:-1]
    assert (said[-1], said_again[-1]) == ("True", "False")


def facts(network: Network | KnownNetwork) -> tuple[object, ...]:
    graph = network.graph
    return network.spec.name, network.trained, graph.architecture, graph.groups, graph.layer_names


@pytest.mark.parametrize("model", ["bundled", "lenet5", "mobilenet_v2", "torchvision:shufflenet_v2_x0_5"])
def test_all_that_a_prediction_reads_is_kept(cache: Path, model: str) -> None:
    options = NetworkOptions(model, input="3x32x32" if ":" in model else None)
    loaded, kept = known_network(options), known_network(options)
    assert isinstance(loaded, Network)
    assert isinstance(kept, KnownNetwork)
    assert facts(kept) == facts(loaded)
    assert [group.least for group in kept.graph.groups] == [group.least for group in loaded.graph.groups]


@pytest.mark.parametrize(
    "mangle",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content.replace(b'"again": false', b'"again":  true'),
        lambda content: b"\xff" * len(content),
        lambda content: hashlib.sha256(b"{}").hexdigest().encode() + b"{}",
    ],
)
def test_a_damaged_entry_is_written_anew(cache: Path, mangle) -> None:  # type: ignore[no-untyped-def]
    loaded = known_network(SMALL)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(mangle(whole))
    assert path.read_bytes() != whole
    assert facts(known_network(SMALL)) == facts(loaded)
    assert path.read_bytes() == whole


def test_another_networks_entry_is_not_taken(cache: Path) -> None:
    known_network(SMALL)
    (lenet,) = cache.iterdir()
    known_network(NetworkOptions("resnet20", input="3x32x32", classes=10))
    (resnet,) = {*cache.iterdir()} - {lenet}
    lenet.write_bytes(resnet.read_bytes())
    assert known_network(SMALL).spec.name == "lenet5"


def test_an_entry_of_no_network_under_a_right_digest_is_not_taken(cache: Path) -> None:
    known_network(SMALL)
    (path,) = cache.iterdir()
    record = json.loads(path.read_bytes()[64:])
    record["layers"][0]["shape"] = "conv 0x1x1>8 k1 s1 p0 none float32"
    text = json.dumps(record).encode()
    path.write_bytes(hashlib.sha256(path.name.encode() + text).hexdigest().encode() + text)
    assert isinstance(known_network(SMALL), Network)


def test_own_files_and_given_weights_are_never_kept(cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 10))\n")
    for _ in range(2):
        assert isinstance(known_network(NetworkOptions(f"{own}:net", input="3x2x2")), Network)
    assert not cache.exists()


def test_a_checkpoint_is_known_by_its_bytes(cache: Path, tmp_path: Path) -> None:
    from amc_latency.models.files.checkpoint import bundled_checkpoint, save_checkpoint
    from amc_latency.models.registry import build_model

    path = tmp_path / "net.safetensors"
    path.write_bytes(bundled_checkpoint().read_bytes())
    options = NetworkOptions(str(path))
    known_network(options)
    assert isinstance(known_network(options), KnownNetwork)
    spec = known_networks.load_network(SMALL).spec
    save_checkpoint(path, build_model(spec), spec)
    assert known_network(options).spec.name == "lenet5"


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file")
    assert isinstance(known_network(SMALL), Network)
    assert isinstance(known_network(SMALL), Network)
    assert cache.read_text() == "a file"


def test_the_oldest_entries_are_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_networks, "_MOST_KEPT", 2)
    for classes in (2, 3, 4):
        known_network(NetworkOptions("lenet5", classes=classes))
    assert len(list(cache.iterdir())) == 2
    assert isinstance(known_network(NetworkOptions("lenet5", classes=4)), KnownNetwork)
