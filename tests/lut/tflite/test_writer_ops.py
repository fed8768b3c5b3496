"""The operators that are no window, each through the real LiteRT and held against PyTorch's own function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from amc_latency.lut.shapes.activations import write as write_activation
from amc_latency.lut.shapes.kinds.pools import avg_pool, max_pool
from amc_latency.lut.shapes.shape import ACTIVATIONS
from amc_latency.lut.tflite.run import run_tflite, tflite_ops
from amc_latency.lut.tflite.writer import TfliteGraph
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

PYTORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hard_swish": functional.hardswish,
    "hard_sigmoid": functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "gelu": functional.gelu,
}


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def check(build: Callable[[TfliteGraph, int], int], expected: Callable[[Tensor], Tensor], *chw: int) -> None:
    graph = TfliteGraph()
    c, *h_w = chw
    image = torch.from_numpy(values(2, *chw) * 4)
    model = graph.finish([build(graph, graph.input(*h_w, c))])
    wanted = expected(image)
    got = run_tflite(model, image.numpy())
    assert got.shape == tuple(wanted.shape)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-5, atol=2e-5)


ALONE = [name for name in ACTIVATIONS if name not in ("none", "prelu")]
"""Those that need nothing but what they act on."""


@pytest.mark.parametrize("name", ALONE)
def test_activations_equal_pytorch(name: str) -> None:
    check(lambda graph, x: write_activation(graph, x, name), PYTORCH[name], 7, 5, 6)


def test_a_leaky_relu_of_any_slope() -> None:
    check(
        lambda graph, x: write_activation(graph, x, "leaky_relu", 0.3), lambda x: functional.leaky_relu(x, 0.3), 7, 5, 6
    )


@pytest.mark.parametrize("chw", [(7, 5, 6), (7, 1, 1)])
def test_a_prelu_has_a_slope_a_channel(chw: tuple[int, int, int]) -> None:
    slopes = values(7)
    check(lambda graph, x: graph.prelu(x, slopes), lambda x: functional.prelu(x, torch.from_numpy(slopes)), *chw)


def test_a_prelu_of_a_vector() -> None:
    slopes = values(20)

    def expected(x: Tensor) -> Tensor:
        return functional.prelu(x.permute(0, 2, 3, 1).flatten(1), torch.from_numpy(slopes))

    check(lambda graph, x: graph.prelu(graph.flatten(x), slopes), expected, 5, 2, 2)


@pytest.mark.parametrize("name", ["none", "prelu", "mish"])
def test_an_activation_that_cannot_be_written_is_refused(name: str) -> None:
    graph = TfliteGraph()
    with pytest.raises(ValueError, match=name):
        write_activation(graph, graph.input(4, 4, 4), name)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_equals_pytorch(mode: str, factor: int) -> None:
    aligned = {} if mode == "nearest" else {"align_corners": False}
    check(
        lambda graph, x: graph.upsample(x, factor, mode),
        lambda x: functional.interpolate(x, scale_factor=factor, mode=mode, **aligned),
        *(5, 6, 7),
    )


def test_a_mode_that_cannot_be_written_is_refused() -> None:
    graph = TfliteGraph()
    with pytest.raises(ValueError, match="bicubic"):
        graph.upsample(graph.input(4, 4, 4), 2, "bicubic")


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_the_shuffle_is_shufflenets(groups: int) -> None:
    # ShuffleNet's own words (Zhang et al., 2018): reshape to (g, n), transpose, flatten.
    def shuffled(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    check(lambda graph, x: graph.shuffle(x, groups), shuffled, 12, 4, 5)


@pytest.mark.parametrize("number", [2, 5, 6, 11])
def test_concat_joins_channels_in_order(number: int) -> None:
    def joined(graph: TfliteGraph, x: int) -> int:
        return graph.concat([graph.slice(x, i, 1 + i % 3) for i in range(number)])

    check(joined, lambda x: torch.cat([x[:, i : i + 1 + i % 3] for i in range(number)], 1), 14, 3, 4)


def test_slices_and_joins_of_vectors() -> None:
    def swapped(graph: TfliteGraph, x: int) -> int:
        vector = graph.flatten(x)
        return graph.concat([graph.slice(vector, 4, 6), graph.slice(vector, 0, 4)])

    check(swapped, lambda x: x.flatten(1).roll(-4, 1), 10, 1, 1)


def test_squeeze_and_excitation_equals_pytorch() -> None:
    weight, bias = values(6, 6), values(6)

    def excited(graph: TfliteGraph, x: int) -> int:
        squeezed = graph.global_pool(x, keep_dims=True)
        assert graph.shape(squeezed) == (1, 1, 1, 6)
        excitation = graph.conv(squeezed, weight[:, None, None], bias)
        return graph.mul(x, write_activation(graph, excitation, "hard_sigmoid"))

    def expected(x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x, 1)
        scale = functional.conv2d(pooled, torch.from_numpy(weight)[..., None, None], torch.from_numpy(bias))
        return x * functional.hardsigmoid(scale)

    check(excited, expected, 6, 5, 7)


def test_products_and_constants() -> None:
    mean = values(4)
    check(
        lambda graph, x: graph.mul(x, graph.mul_constant(graph.add_constant(x, -mean), mean), "relu"),
        lambda x: functional.relu(x * (x - (m := torch.from_numpy(mean)[:, None, None])) * m),
        *(4, 5, 6),
    )


@pytest.mark.parametrize("chw", [(9, 1, 1), (5, 3, 4)])
def test_softmax_is_over_channels(chw: tuple[int, int, int]) -> None:
    check(lambda graph, x: graph.softmax(x), lambda x: torch.softmax(x, 1), *chw)


STEPS: dict[str, Callable[[TfliteGraph, int], int]] = {
    **{name: lambda graph, x, name=name: write_activation(graph, x, name) for name in ALONE},
    "conv": lambda graph, x: graph.conv(x, values(6, 1, 1, 6), values(6)),
    "up": lambda graph, x: graph.add_constant(x, np.full(6, 0.5)),
    "down": lambda graph, x: graph.add_constant(x, np.full(6, -0.5)),
    "half": lambda graph, x: graph.mul_constant(x, np.full(6, 0.5)),
    "negative": lambda graph, x: graph.mul_constant(x, np.full(6, -0.5)),
    "prelu": lambda graph, x: graph.prelu(x, values(6)),
    "add": lambda graph, x: graph.add(x, write_activation(graph, x, "relu")),
    "mul": lambda graph, x: graph.mul(x, graph.global_pool(x, keep_dims=True)),
    "square": lambda graph, x: graph.mul(x, x),
    "concat": lambda graph, x: graph.slice(graph.concat([x, write_activation(graph, x, "sigmoid")]), 3, 6),
    "shuffle": lambda graph, x: graph.shuffle(x, 2),
    "max_pool": lambda graph, x: max_pool(graph, x, 3, 1, 1),
    "padded_max_pool": lambda graph, x: max_pool(graph, x, 3, 1, 1, end=1),
    "avg_pool": lambda graph, x: avg_pool(graph, x, 3, 1, 1, count_include_pad=False),
    "softmax": lambda graph, x: graph.softmax(x),
    "bilinear": lambda graph, x: avg_pool(graph, graph.upsample(x, 2, "bilinear"), 2, 2),
}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5))
def test_what_is_taken_to_be_above_zero_is(steps: list[str]) -> None:
    """A max pool that pads with zeros relies on it."""
    graph = TfliteGraph()
    tensors = [graph.input(4, 4, 6)]
    for step in steps:
        tensors.append(STEPS[step](graph, tensors[-1]))
    interpreter = Interpreter(model_content=graph.finish(tensors[1:]))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values(1, 4, 4, 6) * 5)
    interpreter.invoke()
    for details, tensor in zip(interpreter.get_output_details(), tensors[1:], strict=True):
        assert not graph.is_non_negative(tensor) or interpreter.get_tensor(details["index"]).min() >= 0


def test_what_stays_above_zero_is_known_to() -> None:
    graph = TfliteGraph()
    x = graph.input(8, 8, 6, non_negative=True)
    for step in ("concat", "shuffle", "mul", "avg_pool", "bilinear", "hard_swish", "max_pool"):
        x = STEPS[step](graph, x)
        assert graph.is_non_negative(x), step
    assert "PADV2" not in tflite_ops(graph.finish([x]))
    assert not graph.is_non_negative(STEPS["down"](graph, x))
    assert not graph.is_non_negative(STEPS["conv"](graph, x))
    assert graph.is_non_negative(STEPS["hard_sigmoid"](graph, STEPS["down"](graph, x)))
