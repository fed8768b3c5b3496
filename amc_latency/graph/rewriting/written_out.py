"""Activations that a network writes out, as `x * relu6(x + 3) / 6`, become the one operation that they are."""

from __future__ import annotations

import math

from torch import fx, nn
from torch.nn import functional

from amc_latency.graph.operations import MULS, activation_of, with_scalar


def merge_written_out(graph: fx.Graph, root: nn.Module) -> bool:
    """Put hard sigmoids and hard swishes in the place of what comes to the same; whether there were any.

    TFLite has a hard swish as one operator, which is faster than the four that it is written with. The operations
    that are no longer needed stay in the graph.
    """
    changed = False
    for node in list(graph.nodes):
        function, x = functional.hardsigmoid, _hard_sigmoid_of(node, root)
        if x is None:
            function, x = functional.hardswish, _hard_swish_of(node, root)
        if x is not None:
            with graph.inserting_before(node):
                merged = graph.call_function(function, (x,))
            merged.meta = node.meta
            node.replace_all_uses_with(merged)
            changed = True
    return changed


def _hard_sigmoid_of(node: fx.Node, root: nn.Module) -> fx.Node | None:
    """The x of relu6(x + 3) / 6."""
    return _ramp_of(node.all_input_nodes[0], root) if _is_sixth(node) else None


def _hard_swish_of(node: fx.Node, root: nn.Module) -> fx.Node | None:
    """The x of x * hard_sigmoid(x), or of x * relu6(x + 3) / 6."""
    if _is_sixth(node):
        return next((x for x, factor in _factors(node.all_input_nodes[0]) if _ramp_of(factor, root) is x), None)
    for x, factor in _factors(node):
        if activation_of(factor, root) == "hard_sigmoid" and factor.all_input_nodes[0] is x:
            return x
    return None


def _factors(node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """The two tensors of a product, both ways round."""
    if node.target not in MULS or len(node.all_input_nodes) != 2:
        return []
    left, right = node.all_input_nodes
    return [(left, right), (right, left)]


def _ramp_of(node: fx.Node, root: nn.Module) -> fx.Node | None:
    """The x of relu6(x + 3)."""
    if activation_of(node, root) != "relu6":
        return None
    shifted = node.all_input_nodes[0]
    return shifted.all_input_nodes[0] if with_scalar(shifted) == ("add_scalar", 3.0) else None


def _is_sixth(node: fx.Node) -> bool:
    kind, number = with_scalar(node) or ("", 0.0)
    return kind == "mul_scalar" and math.isclose(number, 1 / 6, rel_tol=1e-6)
