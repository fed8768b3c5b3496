"""Batch norm: in the layer before it where that can take it in, else a layer of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Channels, Plain, TorchKind
from amc_latency.graph.layers.layer_list import Value, check_no_pixels
from amc_latency.graph.layers.layer_shapes import plain_shape
from amc_latency.graph.operations import BATCH_NORMS


def _visit(call: Call) -> Value:
    norm: Any = call.module
    found, name, x = call.found, call.name, call.x
    if norm.running_mean is None or norm.weight is None:
        raise UserError(f"{name}: a batch norm without weights or without running statistics is not supported")
    if name in found.modules:
        raise UserError(f"{name}: a batch norm that is called twice is not supported")
    found.called(name)
    found.labels.use(name, "batch_norm", x.labels)
    if found.takes_in_norm(call.node, name, x):
        return x
    check_no_pixels(name, x, "a batch norm")
    # On its own it is a depthwise convolution of one pixel.
    return found.add(call, plain_shape(name, "depthwise", x.size), x.labels)


def _has_statistics(arguments: Mapping[str, Any]) -> bool:
    known = all(arguments.get(name) is not None for name in ("running_mean", "running_var"))
    return known and not arguments.get("training", False)


def _plain(old: Any, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> nn.Module:
    momentum = old.momentum if isinstance(old, _BatchNorm) else settings.get("momentum", 0.1)
    features, affine = len(tensors["running_mean"]), tensors["weight"] is not None
    kind = nn.BatchNorm1d if isinstance(old, nn.BatchNorm1d) else nn.BatchNorm2d
    new = kind(features, settings.get("eps", 1e-5), momentum, affine=affine, device="meta")
    new.num_batches_tracked = getattr(old, "num_batches_tracked", None)
    return new


KINDS = (
    TorchKind(
        "batch norm",
        _visit,
        BATCH_NORMS,
        channels=Channels("num_features"),
        plain=Plain(
            functional.batch_norm,
            ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
            _plain,
            ("weight", "bias", "running_mean", "running_var"),
            _has_statistics,
        ),
    ),
)
