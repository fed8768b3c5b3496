"""Joining a log's ops to a network's layers: every order that is the network's joins, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from amc_latency.android_bench.printed.op_profile import Op, parse_op_profile
from amc_latency.lut.imports.op_join import JoinError, join, op_kinds
from amc_latency.lut.shapes.shape import LayerShape
from hypothesis import assume, given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[1] / "fixtures"

# What TFLite's own kernels, and XNNPACK, call a layer of each kind.
TFLITE = {
    "conv": "CONV_2D",
    "depthwise": "DEPTHWISE_CONV_2D",
    "linear": "FULLY_CONNECTED",
    "add": "ADD",
    "avg_pool": "AVERAGE_POOL_2D",
    "max_pool": "MAX_POOL_2D",
    "global_pool": "MEAN",
}
XNNPACK = {
    "conv": "Convolution (NHWC, F32) IGEMM",
    "depthwise": "Convolution (NHWC, F32) DWConv",
    "linear": "Fully Connected (NC, F32) GEMM",
    "add": "Binary Elementwise (ND)",
    "avg_pool": "Average Pooling (NHWC, F32) Average Pooling",
    "max_pool": "Max Pooling (NHWC, F32)",
    "global_pool": "Mean (ND) Mean",
}
FITS = {"linear": ("linear", "conv"), "global_pool": ("global_pool", "avg_pool")}
"""By kind of layer, the kinds whose op could be its own too."""
WINDOWED = ("conv", "depthwise", "avg_pool", "max_pool")


def op(node_type: str, ms: float = 1.0, called: int = 1) -> Op:
    return Op(node_type=node_type, name=f"net/{node_type}", avg_ms=ms, first_ms=ms, times_called=called)


def layer(kind: str, padding: int = 0, activation: str = "none") -> LayerShape:
    if kind in WINDOWED:
        return LayerShape(kind, 8, 8, 9, 9, 3, 1, padding, activation)
    return LayerShape(kind, 8, 8, activation=activation)


times = st.integers(0, 10_000).map(lambda us: us / 1000)


@st.composite
def networks(
    draw: st.DrawFn,
) -> tuple[list[LayerShape], list[list[Op]], list[Op], dict[str, str]]:
    """Layers, the ops of each, those of the whole log with others among them, and what ops of a kind are called."""
    names = draw(st.sampled_from([TFLITE, XNNPACK]))
    tflite = names is TFLITE
    shapes, per_layer, ops = [], [], []
    for kind in draw(st.lists(st.sampled_from(list(names)), min_size=1, max_size=12)):
        padded = kind in WINDOWED and draw(st.booleans())
        activated = draw(st.booleans())
        own = [op(names[kind], draw(times))]
        if padded and draw(st.booleans()):
            own.insert(0, op("PAD" if tflite else "Constant Pad (ND, X32)", draw(times)))
        if activated and draw(st.booleans()):
            own.append(op("RELU6" if tflite else "Unary Elementwise (NC)", draw(times)))
        if draw(st.integers(0, 4)) == 0:
            ops.append(op("RESHAPE" if tflite else "Copy (NC, X32)", draw(times)))
        shapes.append(layer(kind, int(padded), "relu6" if activated else "none"))
        per_layer.append(own)
        ops += own
    if draw(st.booleans()):
        ops.append(op("SOFTMAX" if tflite else "Softmax (NC, F32)", draw(times)))
    return shapes, per_layer, ops, names


@given(networks())
def test_a_networks_own_ops_join_and_no_time_is_lost(network) -> None:
    shapes, per_layer, ops, _ = network
    joined = join(ops, shapes, [""] * len(shapes))
    assert [each.shape for each in joined.layers] == shapes
    assert [list(each.ops) for each in joined.layers] == per_layer
    total_us = sum(each.us for each in joined.layers) + 1000 * sum(each.avg_ms for each in joined.left_out)
    assert total_us == pytest.approx(1000 * sum(each.avg_ms for each in ops))


@given(networks(), st.data())
def test_a_layer_taken_away_put_in_or_exchanged_is_refused(network, data: st.DataObject) -> None:
    shapes, per_layer, _, names = network
    place = data.draw(st.integers(0, len(shapes) - 1))
    kind = shapes[place].kind
    stranger = [op(names[data.draw(st.sampled_from([k for k in names if k not in FITS.get(kind, (kind,))]))])]
    before, own, after = per_layer[:place], per_layer[place], per_layer[place + 1 :]
    change = data.draw(st.sampled_from(["remove", "insert", "exchange", "swap"]))
    if change == "swap":
        assume(after and shapes[place + 1].kind not in FITS.get(kind, (kind,)))
    middle = {
        "remove": [],
        "insert": [stranger, own],
        "exchange": [stranger],
        "swap": [*after[:1], own],
    }[change]
    # A product behind an average with a border may be the average's own, so a log with one more is no mistake.
    bordered = place > 0 and shapes[place - 1].kind == "avg_pool" and shapes[place - 1].padding > 0
    assume(not (bordered and "mul" in op_kinds(stranger[0].node_type)))
    changed = [*before, *middle, *(after[1:] if change == "swap" else after)]
    with pytest.raises(JoinError):
        join([each for ops in changed for each in ops], shapes, [""] * len(shapes))


def test_a_mistake_names_op_and_layer() -> None:
    shapes, names = [layer("conv"), layer("depthwise")], ["stem", "block"]
    own = [op("CONV_2D"), op("DEPTHWISE_CONV_2D")]
    mistakes = {
        r"op 2 of 2, ADD 'net/ADD', does not match layer 2 of 2, 'block' \(depthwise 8x9x9": [
            own[0],
            op("ADD"),
        ],
        r"op 3 of 3, CONV_2D 'net/CONV_2D', is left over after the network's 2 layers": [*own, op("CONV_2D")],
        r"its 1 ops are used up at layer 2 of 2, 'block'": own[:1],
        r"op 1 of 3, LSTM 'net/LSTM', is nothing that a layer": [op("LSTM"), *own],
        r"op 1 of 2, CONV_2D .* was called 2 times a run": [op("CONV_2D", called=2), own[1]],
    }
    for message, ops in mistakes.items():
        with pytest.raises(JoinError, match=message):
            join(ops, shapes, names)


def test_pads_and_activations_belong_only_to_layers_that_have_them() -> None:
    conv, relu, pad = op("CONV_2D"), op("RELU"), op("PAD")
    padded, active, bare = layer("conv", padding=1), layer("conv", activation="relu"), layer("conv")
    for ops, shape in (
        ([pad, conv], bare),
        ([pad, pad, conv], padded),
        ([conv, pad], padded),
        ([conv, relu], bare),
        ([conv, relu, relu], active),
        ([relu, conv], active),
        ([pad], padded),
    ):
        with pytest.raises(JoinError):
            join(ops, [shape], ["layer"])
    assert join([pad, conv], [padded], [""]).layers[0].us == 2000
    assert join([conv, relu], [active], [""]).layers[0].us == 2000


def test_a_matrix_product_is_a_linear_layer_or_a_pointwise_convolution() -> None:
    linear, pointwise, wide = LayerShape("linear", 8, 8), LayerShape("conv", 8, 8, 9, 9), layer("conv")
    strided = LayerShape("conv", 8, 8, 9, 9, stride=2)
    for name, allowed in {
        "Fully Connected (NC, F32) GEMM": [linear, pointwise],
        "Convolution (NHWC, F32) GEMM": [linear, pointwise],
        "Convolution (NHWC, F32) IGEMM": [linear, pointwise, strided, wide],
        "CONV_2D": [linear, pointwise, strided, wide],
        "FULLY_CONNECTED": [linear],
    }.items():
        for shape in (linear, pointwise, strided, wide):
            if shape in allowed:
                assert join([op(name)], [shape], [""]).layers[0].shape == shape
            else:
                with pytest.raises(JoinError):
                    join([op(name)], [shape], [""])


def test_xnnpacks_kernel_decides_only_where_it_matters() -> None:
    assert op_kinds("Convolution (NHWC, F32) DWConv") == ("depthwise",)
    assert op_kinds("Mean (ND) Mean") == op_kinds("Mean (ND, F32)") == ("global_pool",)
    assert op_kinds("Fully Connected (NC, F32) GEMM") == op_kinds("Fully Connected (NC, F32)")
    # LiteRT's own profile, as amc_bench prints it.
    assert op_kinds("Delegate/Convolution (NHWC, F32) DWConv") == ("depthwise",)
    assert op_kinds("Delegate/Mean (ND) Reduce2") == ("global_pool",)
    assert op_kinds("Delegate/Static Reshape (NC)") == op_kinds("RESHAPE")
    assert op_kinds("Multiply (ND, F32)") == op_kinds("MUL")
    assert op_kinds("Round (ND, F32)") == op_kinds("") == ()


def test_the_genuine_programs_log_of_a_strided_network_joins() -> None:
    # The network that fixtures/README.md describes: XNNPACK joins two of its PADs with their layers.
    shapes = [
        LayerShape("conv", 3, 8, 16, 16, 3, 2, 1, "relu6"),
        LayerShape("depthwise", 8, 8, 8, 8, 3, 1, 1, "relu6"),
        LayerShape("conv", 8, 8, 8, 8),
        LayerShape("add", 8, 8, 8, 8, activation="relu"),
        LayerShape("depthwise", 8, 8, 8, 8, 3, 2, 1, "relu"),
        LayerShape("conv", 8, 16, 4, 4, activation="relu"),
        LayerShape("max_pool", 16, 16, 4, 4, 3, 2, 1),
        LayerShape("avg_pool", 16, 16, 2, 2, 2),
        LayerShape("global_pool", 16, 16),
        LayerShape("linear", 16, 10),
    ]
    profile = parse_op_profile((FIXTURES / "strided.op_profile.txt").read_text())
    joined = join(profile.ops, shapes, [""] * len(shapes))
    assert [len(each.ops) for each in joined.layers] == [1, 1, 1, 2, 1, 1, 2, 1, 1, 1]
    assert joined.left_out == ()
    # The log's rows 3 and 4: the sum and its ReLU.
    assert joined.layers[3].us == pytest.approx(6 + 27)


ACTIVE, BLOCK = "activation", {"c_in": 8, "c_out": 8, "h": 9, "w": 9}


@pytest.mark.parametrize(
    ("ops", "shapes", "each"),
    [
        (  # squeeze-and-excitation, then a batch norm that stands alone
            "DEPTHWISE_CONV_2D HARD_SWISH MEAN CONV_2D CONV_2D ADD MUL MUL DEPTHWISE_CONV_2D SOFTMAX",
            [
                LayerShape("depthwise", **BLOCK, kernel=3, padding=1),
                LayerShape(ACTIVE, **BLOCK, activation="hard_swish"),
                LayerShape("global_pool", **BLOCK),
                LayerShape("conv", 8, 2, activation="relu"),
                LayerShape("conv", 2, 8),
                LayerShape(ACTIVE, 8, 8, activation="hard_sigmoid"),
                LayerShape("scale", **BLOCK),
                LayerShape("depthwise", **BLOCK),
                LayerShape("softmax", 8, 8),
            ],
            [1, 1, 1, 1, 1, 2, 1, 1, 1],
        ),
        (  # a unit of ShuffleNet V2, then SiLU
            "SLICE CONV_2D RELU CONCATENATION RESHAPE TRANSPOSE RESHAPE LOGISTIC MUL MUL RESIZE_BILINEAR SOFTMAX",
            [
                LayerShape("slice", 16, 8, 9, 9),
                LayerShape("grouped", **BLOCK, per_group=4, activation="relu"),
                LayerShape("concat", 16, 16, 9, 9, parts=2),
                LayerShape("shuffle", 16, 16, 9, 9, parts=2),
                LayerShape(ACTIVE, 16, 16, 9, 9, activation="silu"),
                LayerShape("mul", 16, 16, 9, 9),
                LayerShape("bilinear", 16, 16, 9, 9, stride=2),
            ],
            [1, 2, 1, 1, 2, 1, 1],
        ),
        (  # an average whose border doesn't count: a product in the file, but where TFLite's SAME says the same
            "PAD AVERAGE_POOL_2D MUL AVERAGE_POOL_2D MUL ADD PRELU PAD CONV_2D",
            [
                LayerShape("inner_avg_pool", **BLOCK, kernel=3, stride=2, padding=1),
                LayerShape("inner_avg_pool", **BLOCK, kernel=3, padding=1),
                LayerShape("mul_scalar", **BLOCK),
                LayerShape("add_scalar", **BLOCK),
                LayerShape(ACTIVE, **BLOCK, activation="prelu"),
                LayerShape("conv", **BLOCK, kernel=1, stride=2, kernel_w=7, padding_w=3),
            ],
            [3, 1, 1, 1, 1, 2],
        ),
        (  # as XNNPACK says it: a copy for each input of a concat, and one more that is no layer's
            "Copy_(NC,_X32) Copy_(NC,_X32) Copy_(NC,_X32) Sigmoid_(NC,_F32) Binary_Elementwise_(ND) Softmax_(NC,_F32)",
            [LayerShape("concat", **BLOCK, parts=2), LayerShape(ACTIVE, **BLOCK, activation="silu")],
            [2, 2],
        ),
    ],
    ids=["squeeze", "shuffle", "border", "xnnpack"],
)
def test_layers_that_are_several_ops_or_may_be_none(ops: str, shapes: list[LayerShape], each: list[int]) -> None:
    named = [op(name.replace("_(", " (").replace(",_", ", ").replace("y_E", "y E")) for name in ops.split()]
    joined = join(named, shapes, [""] * len(shapes))
    assert [layer.shape for layer in joined.layers] == shapes
    assert [len(layer.ops) for layer in joined.layers] == each
    assert sum(each) + len(joined.left_out) == len(named)


def test_a_product_too_many_is_refused() -> None:
    silu = LayerShape(ACTIVE, **BLOCK, activation="silu")
    with pytest.raises(JoinError, match="left over"):
        join([op("LOGISTIC"), op("MUL"), op("MUL")], [silu], [""])
    with pytest.raises(JoinError, match="does not match"):
        join([op("MUL"), op("LOGISTIC")], [silu], [""])
