"""Block tables of ProxylessNAS and Once-for-all: their keys, what becomes of them, and networks covered by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.imports.block_import import import_blocks
from amc_latency.lut.imports.block_predict import cover, is_block_table
from amc_latency.lut.imports.block_tables import looks_like_blocks, read_blocks
from amc_latency.lut.imports.import_log import ImportLogError
from amc_latency.lut.prediction.predict import MissingShapeError
from amc_latency.lut.shapes.shape import LayerShape, NetworkShape, network_text
from amc_latency.lut.table.table import LatencyTable, TableError
from hypothesis import given, settings
from hypothesis import strategies as st

PROXYLESS = """\
Conv-input:224x224x3-output:112x112x32:
  count: 949
  mean: 4.397037934668071
  var: 0.1562765530967112
Conv_1-input:7x7x320-output:7x7x1280:
  count: 949
  mean: 6.28499578503688
  var: 0.43429750694010927
Logits-input:7x7x1280-output:1000:
  count: 949
  mean: 0.9348261327713382
  var: 0.1500926595152672
expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0:
  count: 310
  mean: 4.035709677419355
  var: 0.07046224958106981
expanded_conv-input:56x56x24-output:56x56x24-expand:6-kernel:3-stride:1-idskip:1:
  count: 403
  mean: 7.595687344913151
  var: 0.09267339867771683
"""
"""Rows of ProxylessNAS's pixel_trim.yaml, as itouchz/Neural-Predictor-Tensorflow keeps it; milliseconds."""
OFA = """\
AvgPool2D-input:7x7x1152-output:1x1x1152:
  count: 495
  mean: 0.015270707070707077
  std: 0.000903109390250199
Conv-input:224x224x3-output:112x112x24:
  count: 500
  mean: 0.994418
  std: 0.01726798413249215
Logits-input:1x1x1536-output:1000:
  count: 500
  mean: 0.669412
  std: 0.07743974597065771
expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0:
  count: 500
  mean: 1.7728020000000002
  std: 0.026630561315901715
expanded_conv-input:112x112x24-output:56x56x32-expand:144-kernel:5-stride:2-idskip:0-se:0-hs:0:
  count: 63
  mean: 6.585063492063491
  std: 0.21637063094840722
expanded_conv-input:14x14x136-output:7x7x192-expand:408-kernel:3-stride:2-idskip:0-se:1-hs:1:
  count: 53
  mean: 1.0604716981132079
  std: 0.011931571839048449
"""
"""Rows of mit-han-lab/once-for-all, tutorial/checkpoints/latency_table@note10/224_lookup_table.yaml (MIT licence)."""
EXPANDED = "expanded_conv-input:56x56x24-output:56x56x24-expand:6-kernel:3-stride:1-idskip:1"
CONV = "Conv-input:224x224x3-output:112x112x32"


def entry(key: str, mean: object = 1.5, **rest: object) -> str:
    return f"{key}:\n" + "".join(f"  {name}: {value}\n" for name, value in {"mean": mean, **rest}.items())


@pytest.fixture
def write(tmp_path: Path):
    def call(text: str | bytes, name: str = "blocks.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return call


def texts_ms(path: Path) -> dict[str, float]:
    return {network_text(block.shapes): block.mean_ms for block in read_blocks(path).blocks}


def test_a_proxylessnas_table_as_released(write) -> None:
    file = read_blocks(write(PROXYLESS))
    assert (file.format, file.inexpressible, file.unreadable) == ("proxylessnas", 0, ())
    assert {network_text(block.shapes): block.mean_ms for block in file.blocks} == {
        "conv 3x224x224>32 k3 s2 p1 relu6 float32": 4.397037934668071,
        "conv 320x7x7>1280 k1 s1 p0 relu6 float32": 6.28499578503688,
        "global_pool 1280x7x7>1280 k1 s1 p0 none float32 + linear 1280x1x1>1000 k1 s1 p0 none float32": (
            0.9348261327713382
        ),
        # It expands nothing: no first pointwise.
        "depthwise 32x112x112>32 k3 s1 p1 relu6 float32 + conv 32x112x112>16 k1 s1 p0 none float32": 4.035709677419355,
        "conv 24x56x56>144 k1 s1 p0 relu6 float32 + depthwise 144x56x56>144 k3 s1 p1 relu6 float32"
        " + conv 144x56x56>24 k1 s1 p0 none float32 + add 24x56x56>24 k1 s1 p0 none float32": 7.595687344913151,
    }
    assert [block.n for block in file.blocks] == [949, 949, 949, 310, 403]
    assert file.blocks[0].std_ms == pytest.approx(0.1562765530967112**0.5)


def test_an_ofa_table_as_released_without_what_no_layer_shape_stands_for(write) -> None:
    file = read_blocks(write(OFA))
    # The block with squeeze-and-excitation, and the first conv, which has MobileNetV3's h-swish.
    assert (file.format, file.inexpressible, file.unreadable) == ("ofa", 2, ())
    assert texts_ms(file.path) == {
        "global_pool 1152x7x7>1152 k1 s1 p0 none float32": 0.015270707070707077,
        "linear 1536x1x1>1000 k1 s1 p0 none float32": 0.669412,
        "depthwise 24x112x112>24 k3 s1 p1 relu float32 + conv 24x112x112>24 k1 s1 p0 none float32"
        " + add 24x112x112>24 k1 s1 p0 none float32": 1.7728020000000002,
        # The expanded channels themselves, not a factor.
        "conv 24x112x112>144 k1 s1 p0 relu float32 + depthwise 144x112x112>144 k5 s2 p2 relu float32"
        " + conv 144x56x56>32 k1 s1 p0 none float32": 6.585063492063491,
    }
    assert file.blocks[0].std_ms == 0.000903109390250199


def test_convs_of_an_ofa_table_without_any_h_swish_count(write) -> None:
    (expanded,) = [f"{EXPANDED.replace('expand:6', 'expand:144')}-se:0-hs:0"]
    path = write(entry("Conv-input:64x48x3-output:32x24x8") + entry(expanded))
    assert next(iter(texts_ms(path))) == "conv 3x64x48>8 k3 s2 p1 relu float32"


def test_json_is_yaml_and_odd_sizes_round_up(write) -> None:
    key = "expanded_conv-input:41x21x8-output:21x11x16-expand:3-kernel:7-stride:2-idskip:0"
    path = write(json.dumps({key: {"count": 3, "mean": 2.5}}))
    assert looks_like_blocks(path)
    assert texts_ms(path) == {
        "conv 8x41x21>24 k1 s1 p0 relu6 float32 + depthwise 24x41x21>24 k7 s2 p3 relu6 float32"
        " + conv 24x21x11>16 k1 s1 p0 none float32": 2.5
    }


@settings(deadline=None)
@given(
    c_in=st.integers(1, 400),
    c_out=st.integers(1, 400),
    factor=st.integers(1, 8),
    h=st.integers(1, 300),
    w=st.integers(1, 300),
    kernel=st.sampled_from((3, 5, 7)),
    stride=st.sampled_from((1, 2)),
    ofa=st.booleans(),
)
def test_a_block_s_macs_are_its_key_s(tmp_path_factory, c_in, c_out, factor, h, w, kernel, stride, ofa) -> None:
    h_out, w_out, wide = -(-h // stride), -(-w // stride), c_in * factor
    key = f"expanded_conv-input:{h}x{w}x{c_in}-output:{h_out}x{w_out}x{c_out}-expand:{wide if ofa else factor}"
    key += f"-kernel:{kernel}-stride:{stride}-idskip:0{'-se:0-hs:0' if ofa else ''}"
    path = tmp_path_factory.getbasetemp() / "key.yaml"
    path.write_text(entry(key))
    (block,) = read_blocks(path).blocks
    expanding = h * w * c_in * wide if factor > 1 else 0
    assert sum(shape.macs for shape in block.shapes) == expanding + h_out * w_out * wide * (kernel**2 + c_out)


@settings(deadline=None)
@given(st.text(st.sampled_from(EXPANDED + "\n:{}[]&*!-?#|>%@'\" 9sha"), max_size=60), st.booleans())
def test_no_text_is_a_traceback(tmp_path_factory, text: str, after: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(entry(EXPANDED) + text if after else text)
    message = ""
    try:
        assert read_blocks(path).blocks
    except ImportLogError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


BAD = {
    "nothing": (b"", "no block table"),
    "binary": (b"TFL3\0\0" * 9, "no block table"),
    "not UTF-8": (b"\xff\xfa\xff" * 9, "no YAML"),
    "a list": (b"- 1\n- 2\n", "no block table"),
    "far too deep": (b"[" * 100_000, "no block table"),
    "other keys": (b"conv: 1\n", "give `format`"),
    "cut in a key": ((entry(EXPANDED) + "expanded_conv-inp").encode(), "line 4: this is no YAML"),
    "cut in an entry": ((entry(EXPANDED) + f"{CONV}:\n  count: 3\n").encode(), "line 3: 'Conv-input:224x224x3-"),
    "no number": (entry(EXPANDED, "fast").encode(), "its mean 'fast' is no number"),
    "NaN": (entry(EXPANDED, ".nan").encode(), "its mean '.nan' is no number"),
    "nan": (entry(EXPANDED, "nan").encode(), "its mean 'nan' is no number"),
    "negative": (entry(EXPANDED, -0.1).encode(), "line 1: 'expanded_conv-input:56x56x24"),
    "infinite": (entry(EXPANDED, "1e999").encode(), "its mean '1e999' is no number"),
    "no time at all": (entry(EXPANDED, 0).encode(), "0 ms was not timed"),
    "a negative variance": (entry(EXPANDED, var=-1).encode(), "its var '-1' is no number"),
    "a list of means": (entry(EXPANDED, [1, 2]).encode(), "no block table"),
    "a contradiction": ((entry(EXPANDED) + entry(EXPANDED, 2)).encode(), "lines 1 and 3 contradict each other"),
    "both formats": ((entry(EXPANDED) + entry(f"{EXPANDED}-se:0-hs:0")).encode(), "line 3 is of a Once-for-all"),
    "no blocks": (entry(EXPANDED.replace("56x56x24-e", "56x56x25-e")).encode(), "and 1 are no blocks, line 1: "),
    "nothing expressible": (
        entry(f"{EXPANDED.replace('expand:6', 'expand:144')}-se:1-hs:0").encode(),
        "no entry can be used: 1 have squeeze-and-excitation",
    ),
    "two documents": (f"---\n{entry(EXPANDED)}---\n{entry(CONV)}".encode(), "more than one YAML document"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_one_line_and_leave_nothing_behind(what: str, write, tmp_path: Path) -> None:
    data, message = BAD[what]
    path = write(data)
    with pytest.raises(ImportLogError) as caught:
        import_blocks([path], tmp_path / "T")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("conv3x3", "no key of a block"),
        (EXPANDED.replace("56x56x24-output", "56x24-output"), "no key of a block"),
        (EXPANDED.replace("kernel:3", "kernel:333333"), "no key of a block"),
        (EXPANDED.partition("-kernel")[0], "no key of a block"),
        (EXPANDED.partition("-expand")[0], "which needs them"),
        (EXPANDED.replace("expanded_conv", "shuffle"), "for expanded_conv"),
        ("Conv_9-input:7x7x320-output:7x7x1280", "'Conv_9' is none of"),
        (EXPANDED.replace("output:56x56x24", "output:28x28x24"), "idskip:1 adds an input of another size"),
        (EXPANDED.replace("stride:1-idskip:1", "stride:2-idskip:0"), "from that input comes 28x28x24"),
        (EXPANDED.replace("56", "0"), "positive"),
        ("AvgPool2D-input:7x7x8-output:1x1x9", "from that input comes 1x1x8"),
        ("Conv-input:224x224x3-output:56x56x32", "from that input comes 112x112x32"),
    ],
)
def test_keys_that_are_no_blocks_are_named_and_left_out(key: str, reason: str, write) -> None:
    file = read_blocks(write(PROXYLESS + entry(key)))
    (text,) = file.unreadable
    assert text.startswith(f"line 21: '{key}': ")
    assert reason in text
    assert len(file.blocks) == 5


def test_the_same_twice_is_once(write) -> None:
    assert len(read_blocks(write(entry(EXPANDED) * 2)).blocks) == 1


@pytest.mark.parametrize(("text", "wanted"), [(PROXYLESS, "ofa"), (OFA, "proxylessnas")])
def test_a_file_of_another_format_than_said(text: str, wanted: str, write) -> None:
    with pytest.raises(ImportLogError, match=r"line [0-9]+: .* `format="):
        read_blocks(write(text), wanted)


def test_the_table_says_that_it_is_estimated_and_where_its_rows_are_from(write, tmp_path: Path) -> None:
    report = import_blocks([write(PROXYLESS)], tmp_path / "T", "pixel1")
    assert (report.rows_added, report.blocks, report.estimated) == (5, 5, True)
    assert "# figures: estimated, not measured" in (tmp_path / "T").read_text().splitlines()
    table = LatencyTable.open(tmp_path / "T")
    assert (table.identity.name, table.identity.runtime) == ("pixel1", "ProxylessNAS block table")
    assert table.identity.estimated
    assert is_block_table(table)
    assert table.latency_us("conv 3x224x224>32 k3 s2 p1 relu6 float32") == pytest.approx(4397.04, abs=0.005)
    assert json.loads(table.rows[0].conditions)["key"] == CONV
    assert not looks_like_blocks(tmp_path / "T")


def test_files_of_one_format_are_rounds_and_of_two_are_refused(write, tmp_path: Path) -> None:
    paths = [write(entry(EXPANDED, mean), f"{mean}.yaml") for mean in (1.0, 1.5)]
    import_blocks(paths, tmp_path / "T")
    table = LatencyTable.open(tmp_path / "T")
    assert table.latency_us(table.keys[0]) == 1250
    with pytest.raises(ImportLogError, match="each its own `out`"):
        import_blocks([*paths, write(OFA, "ofa.yaml")], tmp_path / "U")


def test_nothing_is_ever_added_to_it(write, tmp_path: Path) -> None:
    path, out = write(PROXYLESS), tmp_path / "T"
    import_blocks([path], out)
    before = out.read_bytes()
    assert import_blocks([path], out).rows_added == 0
    with pytest.raises(ImportLogError, match="nothing is added to estimates"):
        import_blocks([write(entry(EXPANDED), "more.yaml")], out)
    table = LatencyTable.open(out)
    with pytest.raises(TableError, match="holds estimates"):
        table.expect(replace(table.identity, estimated=False))
    assert out.read_bytes() == before


def test_a_folder_that_is_not_there_and_a_device_that_is_no_name(write, tmp_path: Path) -> None:
    path = write(PROXYLESS)
    with pytest.raises(ImportLogError, match="there is no folder"):
        import_blocks([path], tmp_path / "no" / "T")
    with pytest.raises(ImportLogError, match="no plain name"):
        import_blocks([path], tmp_path / "T", "pixel 1")
    with pytest.raises(ImportLogError, match="cannot read"):
        import_blocks([tmp_path], tmp_path / "T")
    assert list(tmp_path.iterdir()) == [path]


A, B, C, D = (LayerShape("conv", c, c + 1, 8, 8, activation="relu6") for c in (1, 2, 3, 4))


def table_of(path: Path, blocks: dict[NetworkShape, float]) -> LatencyTable:
    """A block table of these as well, in microseconds."""
    source = path.with_suffix(".yaml")
    source.write_text(entry(EXPANDED))
    import_blocks([source], path)
    table = LatencyTable.open(path).detached()
    for shapes, us in blocks.items():
        table.append(Timing(network_text(shapes), 0, 1, wall=Summary(None, None, us, None)))
    return table


def ranges(table: LatencyTable, shapes: NetworkShape) -> list[tuple[int, int, float]]:
    return [(block.start, block.stop, block.us) for block in cover(table, shapes)]


def test_a_longer_block_goes_before_its_parts_unless_the_rest_would_be_left_out(tmp_path: Path) -> None:
    table = table_of(tmp_path / "T", {(A,): 1, (B,): 2, (A, B): 4, (C,): 8, (B, C, D): 16})
    assert ranges(table, (A, B)) == [(0, 2, 4)]
    assert ranges(table, (A, B, C)) == [(0, 2, 4), (2, 3, 8)]
    # Longest first would take A + B here, and D is in no other block.
    assert ranges(table, (A, B, C, D)) == [(0, 1, 1), (1, 4, 16)]


def test_relu_costs_what_relu6_costs(tmp_path: Path) -> None:
    table = table_of(tmp_path / "T", {(A,): 1})
    assert ranges(table, (LayerShape("conv", 1, 2, 8, 8, activation="relu"),)) == [(0, 1, 1)]
    with pytest.raises(MissingShapeError):
        cover(table, (LayerShape("conv", 1, 2, 8, 8),))


def test_the_first_layers_in_no_block_are_named_and_the_share(tmp_path: Path) -> None:
    table = table_of(tmp_path / "T", {(A,): 1, (B, C): 2})
    with pytest.raises(MissingShapeError) as caught:
        cover(table, (A, B, C, D, B, A, C, A))
    assert caught.value.shape == D
    message = str(caught.value)
    assert f"'{D} + {B}', from layer 4 on" in message
    assert "cover 5 of the network's 8 layers (62 %)" in message


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=8), st.data())
def test_any_chain_of_known_blocks_is_covered_by_no_more_blocks(tmp_path_factory, parts, data) -> None:
    folder = tmp_path_factory.mktemp("chain")
    blocks = {tuple(LayerShape("conv", c, c, 4, 4) for c in part): float(sum(part)) for part in parts}
    table = table_of(folder / "T", blocks)
    chain = data.draw(st.lists(st.sampled_from(list(blocks)), min_size=1, max_size=6))
    shapes = tuple(shape for block in chain for shape in block)
    found = ranges(table, shapes)
    assert [start for start, _, _ in found] == [0, *(stop for _, stop, _ in found[:-1])]
    assert found[-1][1] == len(shapes)
    assert len(found) <= len(chain)
    # A block costs the sum of its channels here, however the chain is cut.
    assert sum(us for _, _, us in found) == sum(shape.c_in for shape in shapes)
