"""The ops of an op-profile log, joined to a network's layers on their order: a log says kinds and names, no shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amc_latency.android_bench.printed.op_profile import Op
from amc_latency.lut.shapes.kinds.elementwise import ACTIVATION
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape

PAD = "pad"
"""Belongs to the padded layer after it, whose shape holds the padding."""
LEFT_OUT = "left out"
"""Is no layer, unless the next one is what it may be: moves data, or makes probabilities of logits."""
_OTHERS = {
    PAD: ("PAD", "PADV2", "Constant Pad"),
    LEFT_OUT: (
        *("EXPAND_DIMS", "RESHAPE", "SOFTMAX", "SQUEEZE", "TRANSPOSE"),
        *("Copy", "Reshape", "Softmax", "Static Reshape", "Transpose"),
    ),
}


def _roles_by_op() -> Mapping[str, tuple[str, ...]]:
    by_role = [*(item for kind in KINDS.values() for item in kind.log.ops.items()), *_OTHERS.items()]
    found: dict[str, tuple[str, ...]] = {}
    for role, names in by_role:
        found |= {name: (*found.get(name, ()), role) for name in names}
    return found


OPS = _roles_by_op()
"""What an op of a log may be, TFLite's or XNNPACK's without the layout and types in brackets: roles as in `Log.ops`."""


class JoinError(ValueError):
    """Ops that are not those of the network: which one does not fit which layer."""


@dataclass(frozen=True)
class LayerOps:
    """One layer of the network with its ops in a log: its own, perhaps a PAD before it and an activation after it.

    A SiLU and a hard sigmoid are two ops, and a concat is as many copies as it has inputs where XNNPACK runs it.
    """

    shape: LayerShape
    ops: tuple[Op, ...]

    @property
    def us(self) -> float:
        """The ops' mean microseconds."""
        return 1000 * sum(op.avg_ms for op in self.ops)

    @property
    def lacks_activation(self) -> bool:
        """Whether an activation may follow: its own op may hold one, which a log does not say."""
        return self.shape.activation != "none" and op_kinds(self.ops[-1].node_type) != (ACTIVATION,)

    def lacks(self, kinds: Sequence[str], fits_next: bool) -> bool:
        """Whether an op of these kinds is one more of the layer's own; `fits_next` if it may be the next layer's."""
        extra = KINDS[self.shape.kind].log.extra(self.shape)
        if extra is None or extra.role not in kinds or (extra.may_be_next and fits_next):
            return False
        return extra.own <= sum(extra.role in op_kinds(op.node_type) for op in self.ops) < extra.total


@dataclass(frozen=True)
class Join:
    """All ops of a log: those of each layer in order of execution, and those that are no layer's."""

    layers: tuple[LayerOps, ...]
    left_out: tuple[Op, ...]


def join(ops: Sequence[Op], shapes: Sequence[LayerShape], names: Sequence[str]) -> Join:
    """Give each layer, in order of execution, the next op of its kind, and a PAD or an activation of its own.

    Raises `JoinError` that names layer and op where they don't match, and for ops too many or too few.
    """
    layers: list[LayerOps] = []
    left_out: list[Op] = []
    pads: list[Op] = []
    for place, op in enumerate(ops, start=1):
        what = f"op {place} of {len(ops)}, {op.node_type} '{op.name[:120]}',"
        kinds = op_kinds(op.node_type)
        if not kinds:
            raise JoinError(f"{what} is nothing that a layer of a latency table could be")
        if op.times_called != 1:
            raise JoinError(f"{what} was called {op.times_called} times a run: it is several ops of one name")
        shape = shapes[len(layers)] if len(layers) < len(shapes) else None
        fits = shape is not None and not KINDS[shape.kind].log.roles(shape).isdisjoint(kinds)
        fused = kinds == (ACTIVATION,) and bool(layers) and layers[-1].lacks_activation and not fits
        if (fused or (layers and layers[-1].lacks(kinds, fits))) and not pads:
            layers[-1] = LayerOps(layers[-1].shape, (*layers[-1].ops, op))
        elif LEFT_OUT in kinds and not fits:
            left_out.append(op)
        elif shape is None:
            raise JoinError(f"{what} is left over after the network's {len(shapes)} layers: another `model`?")
        elif kinds == (PAD,) and (any(shape.padding_hw) or shape.end) and not pads:
            pads.append(op)
        elif fits:
            layers.append(LayerOps(shape, (*pads, op)))
            pads = []
        else:
            raise JoinError(
                f"{what} does not match layer {len(layers) + 1} of {len(shapes)}, "
                f"{_layer_text(shape, names[len(layers)])}: another `model`?"
            )
    if len(layers) < len(shapes):
        first = _layer_text(shapes[len(layers)], names[len(layers)])
        raise JoinError(
            f"its {len(ops)} ops are used up at layer {len(layers) + 1} of {len(shapes)}, {first}: another `model`?"
        )
    return Join(tuple(layers), tuple(left_out))


def op_kinds(node_type: str) -> tuple[str, ...]:
    """What an op may be: `OPS` of its name, with XNNPACK's kernel behind the brackets if that matters, else none."""
    name, _, rest = node_type.removeprefix("Delegate/").partition(" (")
    kernel = rest.partition(")")[2]
    return OPS.get(name + kernel) or OPS.get(name, ())


def _layer_text(shape: LayerShape, name: str) -> str:
    return f"'{name or shape.kind}' ({shape})"
