"""Block latency tables of ProxylessNAS and Once-for-all: what their keys say, as layer shapes.

Both are YAML, a key a block, and milliseconds (mit-han-lab/proxylessnas, search/utils/latency_estimator.py;
mit-han-lab/once-for-all, ofa/nas/efficiency_predictor/latency_lookup_table.py):

    expanded_conv-input:56x56x24-output:56x56x24-expand:6-kernel:3-stride:1-idskip:1:
      count: 403
      mean: 7.59

Sizes are height, width, channels. ProxylessNAS's `expand` is a factor, Once-for-all's the expanded channels, and its
keys end in `-se:0-hs:1`. What the keys don't say is taken from the networks that they are of:

| op            | stands for                                                                 |
| expanded_conv | conv 1x1 unless it expands nothing, depthwise, conv 1x1, add if idskip     |
| Conv          | the first conv, 3x3, stride 2 unless the size stays                        |
| Conv_1, _2    | conv 1x1                                                                   |
| AvgPool2D     | the global pool                                                            |
| Logits        | the classifier, and the global pool before it unless its input is 1x1      |

Activations are relu6 in ProxylessNAS and relu in Once-for-all, none after a block's last conv; padding is half the
kernel. No layer shape stands for squeeze-and-excitation or h-swish: blocks with them are left out, and in a table with
an `hs:1` its `Conv`s too, as they are MobileNetV3's.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import LOG_BYTES
from amc_latency.lut.imports.import_log import ImportLogError
from amc_latency.lut.shapes.shape import LayerShape, NetworkShape

BLOCK_RUNTIMES = {"proxylessnas": "ProxylessNAS block table", "ofa": "Once-for-all block table"}
"""By format: what stands as runtime in the header of a table that was imported from one."""
EXAMPLE = "expanded_conv-input:56x56x24-output:56x56x24-expand:6-kernel:3-stride:1-idskip:1"
_KEY = re.compile(
    r"(?P<op>[A-Za-z]\w{0,40})-input:(?P<h>N)x(?P<w>N)x(?P<c_in>N)-output:(?:(?P<h_out>N)x(?P<w_out>N)x)?(?P<c_out>N)"
    r"(?:-expand:(?P<expand>N)-kernel:(?P<kernel>N)-stride:(?P<stride>N)-idskip:(?P<idskip>[01])"
    r"(?:-se:(?P<se>[01])-hs:(?P<hs>[01]))?)?".replace("N", r"[0-9]{1,5}"),
    re.ASCII,
)
_LARGEST = 1e6
"""Of milliseconds, and of counts."""


@dataclass(frozen=True)
class Block:
    """One entry: a run of layers that was timed as a whole."""

    shapes: NetworkShape
    key: str
    line: int
    n: int
    mean_ms: float
    std_ms: float | None


@dataclass(frozen=True)
class BlockFile:
    """One block table as it was read."""

    path: Path
    sha256: str
    format: str
    """`proxylessnas` or `ofa`"""
    blocks: tuple[Block, ...]
    inexpressible: int
    """entries with squeeze-and-excitation or h-swish"""
    unreadable: tuple[str, ...]
    """line, key and reason of each entry that is no block"""


def looks_like_blocks(path: Path) -> bool:
    """Whether the file has a key such as a block table's; False for what cannot be read."""
    try:
        text = read_bytes(Path(path), LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return False
    # At the start of a line: a latency table quotes the keys that it was made of.
    return re.search(r"""^[\s{"']*\w+-input:[0-9]+x[0-9]+x[0-9]+-output:[0-9]""", text, re.MULTILINE) is not None


def read_blocks(path: Path, format: str | None = None) -> BlockFile:
    """Raises `ImportLogError` for what is no block table, or none of that format if one is named."""
    try:
        data = read_bytes(path, LOG_BYTES)
    except OSError as error:
        raise ImportLogError(f"cannot read {path}: {error.strerror or error}") from error
    entries = list(_entries(path, data))
    matches = {key: _KEY.fullmatch(key) for key, _, _ in entries}
    found = _format(path, [(line, key, matches[key]) for key, line, _ in entries], format)
    hard_swish = any(match is not None and match["hs"] == "1" for match in matches.values())
    blocks: dict[NetworkShape, Block] = {}
    inexpressible, unreadable = 0, []
    for key, line, texts in entries:
        match = matches[key]
        try:
            if match is None:
                raise ValueError(f"no key of a block, such as '{EXAMPLE}'")
            shapes = _shapes(match, found)
        except ValueError as error:
            unreadable.append(f"line {line}: '{key[:120]}': {error}")
            continue
        if "1" in (match["se"], match["hs"]) or (hard_swish and match["op"].startswith("Conv")):
            inexpressible += 1
            continue
        block = _block(path, shapes, key, line, texts)
        known = blocks.setdefault(shapes, block)
        if known.mean_ms != block.mean_ms:
            raise ImportLogError(
                f"{path}: lines {known.line} and {line} contradict each other: '{key[:120]}' takes "
                f"{known.mean_ms:g} ms and {block.mean_ms:g} ms; delete one"
            )
    if not blocks:
        raise ImportLogError(
            f"{path}: no entry can be used: {inexpressible} have squeeze-and-excitation or h-swish, which no layer "
            f"shape stands for, and {len(unreadable)} are no blocks{', ' + unreadable[0] if unreadable else ''}"
        )
    digest = hashlib.sha256(data).hexdigest()
    return BlockFile(path, digest, found, tuple(blocks.values()), inexpressible, tuple(unreadable))


def _entries(path: Path, data: bytes) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Each key of the file with its line and the texts under it. Two of the same name are two."""
    import yaml

    if b"\0" in data:
        raise _no_table(path)
    try:
        # Events, not values: they keep lines and both of two equal keys, construct nothing, and no depth is too much.
        events = iter(yaml.parse(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        start = (yaml.StreamStartEvent, yaml.DocumentStartEvent)
        if not isinstance(next(event for event in events if not isinstance(event, start)), yaml.MappingStartEvent):
            raise _no_table(path)
        for key in events:
            if isinstance(key, yaml.MappingEndEvent):
                break
            if not isinstance(key, yaml.ScalarEvent):
                raise _no_table(path)
            name = "".join(c for c in key.value if c.isprintable())
            yield name, key.start_mark.line + 1, _texts(path, events)
        if any(isinstance(event, yaml.DocumentStartEvent) for event in events):
            raise ImportLogError(f"{path} holds more than one YAML document: give each its own file")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not to be read"
        raise ImportLogError(f"{path}{where}: this is no YAML: {what}") from error


def _texts(path: Path, events: Iterator[Any]) -> dict[str, str]:
    """What stands under a key, if that is a mapping of scalars; nothing where it is a scalar itself."""
    import yaml

    texts: dict[str, str] = {}
    if isinstance(first := next(events), yaml.ScalarEvent):
        return texts
    if isinstance(first, yaml.MappingStartEvent):
        while not isinstance(name := next(events), yaml.MappingEndEvent):
            value = next(events)
            if not (isinstance(name, yaml.ScalarEvent) and isinstance(value, yaml.ScalarEvent)):
                raise _no_table(path)
            texts[name.value] = value.value
        return texts
    raise _no_table(path)


def _no_table(path: Path) -> ImportLogError:
    return ImportLogError(f"{path} is no block table: it is no mapping of keys such as '{EXAMPLE}' to their mean")


def _format(path: Path, entries: Sequence[tuple[int, str, re.Match[str] | None]], wanted: str | None) -> str:
    """The one format that all expanded convolutions of the file are of."""
    first: dict[str, tuple[int, str]] = {}
    for line, key, match in entries:
        if match is not None and match["expand"] is not None:
            first.setdefault("proxylessnas" if match["se"] is None else "ofa", (line, key))
    if len(first) > 1:
        lines = " and ".join(f"line {line} is of a {BLOCK_RUNTIMES[name]}" for name, (line, _) in first.items())
        raise ImportLogError(f"{path}: {lines}, and `expand` means another thing in each: give each its own file")
    if not first and wanted is None:
        raise ImportLogError(f"{path} has no expanded_conv to tell its format by, such as '{EXAMPLE}': give `format`")
    found = next(iter(first), wanted)
    assert found is not None
    if wanted not in (None, found):
        line, key = first[found]
        raise ImportLogError(f"{path}, line {line}: '{key[:120]}' is of a {BLOCK_RUNTIMES[found]}: `format={found!r}`")
    return found


def _shapes(match: re.Match[str], format: str) -> NetworkShape:
    """The layers that a key stands for, of h-swish and squeeze-and-excitation too. Raises `ValueError`."""
    sizes = {name: int(text) for name, text in match.groupdict().items() if text is not None and name != "op"}
    h, w, c_in, c_out = (sizes[name] for name in ("h", "w", "c_in", "c_out"))
    activation = "relu6" if format == "proxylessnas" else "relu"
    op = match["op"]
    if (op == "expanded_conv") != ("expand" in sizes):
        raise ValueError("expand, kernel, stride and idskip are for expanded_conv, which needs them")
    layers: list[LayerShape] = []
    match op:
        case "expanded_conv":
            wide = sizes["expand"] * (c_in if format == "proxylessnas" else 1)
            kernel, stride = sizes["kernel"], sizes["stride"]
            if wide != c_in:
                layers.append(LayerShape("conv", c_in, wide, h, w, activation=activation))
            depthwise = LayerShape("depthwise", wide, wide, h, w, kernel, stride, kernel // 2, activation)
            layers += [depthwise, LayerShape("conv", wide, c_out, depthwise.h_out, depthwise.w_out)]
            if sizes["idskip"]:
                if (h, w, c_in) != (sizes.get("h_out"), sizes.get("w_out"), c_out):
                    raise ValueError("idskip:1 adds an input of another size than the output")
                layers.append(LayerShape("add", c_out, c_out, h, w))
        case "Conv":
            layers.append(LayerShape("conv", c_in, c_out, h, w, 3, 1 if sizes.get("h_out") == h else 2, 1, activation))
        case "Conv_1" | "Conv_2":
            layers.append(LayerShape("conv", c_in, c_out, h, w, activation=activation))
        case "AvgPool2D":
            layers.append(LayerShape("global_pool", c_in, c_in, h, w))
        case "Logits":
            if (h, w) != (1, 1):
                layers.append(LayerShape("global_pool", c_in, c_in, h, w))
            layers.append(LayerShape("linear", c_in, c_out))
        case _:
            raise ValueError(f"'{op}' is none of expanded_conv, Conv, Conv_1, Conv_2, AvgPool2D, Logits")
    last = layers[-1]
    if (last.h_out, last.w_out, last.c_out) != (sizes.get("h_out", 1), sizes.get("w_out", 1), c_out):
        raise ValueError(f"from that input comes {last.h_out}x{last.w_out}x{last.c_out}")
    return tuple(layers)


def _block(path: Path, shapes: NetworkShape, key: str, line: int, texts: Mapping[str, str]) -> Block:
    where = f"{path}, line {line}: '{key[:120]}'"
    if "mean" not in texts:
        raise ImportLogError(f"{where} has no mean: was the file cut off?")
    mean_ms = _number(where, "mean", texts["mean"])
    if mean_ms == 0:
        raise ImportLogError(f"{where}: a mean of 0 ms was not timed: delete the entry")
    std_ms = None
    if "std" in texts:
        std_ms = _number(where, "std", texts["std"])
    elif "var" in texts:
        std_ms = math.sqrt(_number(where, "var", texts["var"]))
    n = int(_number(where, "count", texts["count"])) if "count" in texts else 0
    return Block(shapes, key, line, n, mean_ms, std_ms)


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < _LARGEST:
        raise ImportLogError(
            f"{where}: its {name} '{text[:40]}' is no number from 0 to {_LARGEST:,.0f}: correct or delete it"
        )
    return value
