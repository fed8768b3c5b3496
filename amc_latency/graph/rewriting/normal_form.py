"""Any traceable network -> the same network of plain torch.nn modules, which the walk, the cut and the exporter know.

timm's `BatchNormAct2d`, TensorFlow's "same" padding and the like call `functional.batch_norm` and `functional.conv2d`
with parameters of their own. A channel can only be cut from a layer that is a module, so each such call becomes an
`nn.BatchNorm2d` or `nn.Conv2d` in the place of the module that owned the parameters, with the very same parameters;
where that is the network itself, or another name than `weight` was given to them, beside it.
Hard swishes that are written out become one operation.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.kind import Plain
from amc_latency.graph.operations import MULS, OUT_OF_PLACE, names_channels
from amc_latency.graph.registry import PLAIN
from amc_latency.graph.rewriting.written_out import merge_written_out
from amc_latency.graph.trace import put_sizes, with_tensors
from amc_latency.graph.tracing import EXAMPLE_READ, OPEN_BATCH, UntraceableError, symbolic, where

_DROPS = (
    functional.dropout,
    functional.dropout2d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
    "contiguous",
)
# torchvision and timm wrap these, so that they stay whole; named, because neither needs to be imported for them.
_NAMED_DROPS = ("stochastic_depth", "drop_path")


def normal_form(model: nn.Module, input_chw: tuple[int, int, int]) -> nn.Module:
    """`model` in eval mode, for images [N, *input_chw], with every weight in a plain torch.nn module.

    What has that form already is returned as it is, but for `inplace`, which is switched off. Otherwise the result is a
    `fx.GraphModule` with the very same parameters, as far as the logits depend on them, under the same names but for
    those that got a module of their own: dropout, stochastic depth and identities are gone, operations make new
    tensors, hard swishes are one operation, modules that have the same tensors are one that is called several times,
    and sizes are those of this input, but for numbers of channels in a `view` or `reshape` to [N, C] or [N, C, 1, 1].
    Raises `UntraceableError`, or `UserError` with the network's own reason if it rejects the input.
    """
    model.eval()
    try:
        traced = symbolic(model, torch.empty(OPEN_BATCH, *input_chw, device="meta"))
    except UntraceableError:
        check_accepts(model, input_chw)
        raise
    rewriting = _Rewriting(model, traced, input_chw)
    if not rewriting.changed and not traced.meta[EXAMPLE_READ]:
        return model
    return rewriting.result(type(model).__name__)


def check_accepts(model: nn.Module, input_chw: tuple[int, int, int]) -> Tensor:
    """What `model` answers to one black image; `UserError` with the network's own reason if it raises."""
    tensor = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    try:
        with torch.no_grad():
            return model(torch.zeros(1, *input_chw, device=tensor.device))
    except Exception as error:  # whatever a network's own code raises
        reason = (str(error).strip().splitlines() or [""])[0]
        # "'a'" alone says little of a KeyError.
        reason = reason if isinstance(error, RuntimeError) and reason else f"{type(error).__name__} {reason}".strip()
        size = "x".join(map(str, input_chw))
        advice = "give another with `input=CxHxW`"
        if tensor.dtype != torch.float32:
            advice = f"its weights are {tensor.dtype}: call .float() on it"
        elif isinstance(error, (TypeError, KeyError)):
            advice = "its forward must take one image [N, C, H, W] alone"
        raise UserError(
            f"the network can't be run on a {size} input: {reason}, at {where(error, model)}; {advice}"
        ) from error


class _Rewriting:
    """One pass over the graph, from the image to the logits."""

    def __init__(self, model: nn.Module, traced: fx.GraphModule, input_chw: tuple[int, int, int]) -> None:
        self.model = model
        self.traced = traced
        self.graph = graph = traced.graph
        self.changed = self._merge_tied()
        self._free_channels(input_chw)
        self.order = {node: index for index, node in enumerate(graph.nodes)}
        self.plain: dict[str, nn.Module] = {}
        """the modules that are made, by name"""
        self._calls: dict[str, list[Any]] = {}
        for node in list(graph.nodes):
            if not self._dropped(node):
                self._out_of_place(node)
        self.changed |= merge_written_out(graph, traced)
        for node in list(graph.nodes):
            self._as_module(node)
        self.changed |= graph.eliminate_dead_code()

    def result(self, name: str) -> fx.GraphModule:
        """The rewritten network in eval mode."""
        for node in list(self.graph.nodes):
            if node.op == "call_module" and type(self._module(node)) is nn.Identity:
                self._bypass(node)
            elif node.op == "call_method" and node.target == "view":
                node.target = "reshape"  # A view wants a contiguous tensor, and `contiguous` is dropped.
        self._join_padding()
        self.graph.eliminate_dead_code()
        targets = {str(node.target) for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        found = {target: self.plain.get(target) or self._attribute(target) for target in targets}
        return fx.GraphModule(found, self.graph, name).eval()

    def _merge_tied(self) -> bool:
        """Modules with the very same tensors and settings become calls of the first; whether there were any."""
        first_of: dict[Any, str] = {}
        for node in self.graph.nodes:
            if node.op != "call_module":
                continue
            module = self.model.get_submodule(str(node.target))
            tensors = tuple(id(tensor) for tensor in chain(module.parameters(), module.buffers()))
            if tensors:
                node.target = first_of.setdefault((type(module), tensors, repr(module)), str(node.target))
        names = [name for name, _ in self.model.named_parameters(remove_duplicate=False)]
        return len(names) > len(list(self.model.parameters()))

    def _free_channels(self, input_chw: tuple[int, int, int]) -> None:
        """Reshape without numbers of channels, which hold in the uncut network alone."""
        told = [node for node in self.graph.nodes if names_channels(node)]
        if not told:
            return
        skeleton = with_tensors(self.traced, lambda _, tensor: torch.empty_like(tensor, device="meta"))
        assert isinstance(skeleton, fx.GraphModule)
        try:
            put_sizes(skeleton, input_chw)  # The nodes are those of `self.graph`.
        except UserError:
            return  # Another converter may take it; `trace` says why it can't be cut.
        for node in told:
            x = node.all_input_nodes[0]
            (images, *before), (batch, *after) = (each.meta["tensor_meta"].shape for each in (x, node))
            with self.graph.inserting_before(node):
                if images != batch:
                    continue
                if before == after:
                    new = x
                elif after == [prod(before)]:
                    new = self.graph.call_method("flatten", (x, 1))
                elif after == [*before, 1, 1]:
                    new = self.graph.call_method("reshape", (x, self.graph.call_method("size", (x, 0)), -1, 1, 1))
                else:
                    continue
            new.meta.setdefault("nn_module_stack", node.meta.get("nn_module_stack"))
            node.replace_all_uses_with(new)
            self.graph.erase_node(node)
            self.changed = True

    def _module(self, node: fx.Node) -> nn.Module:
        """What a call of a module calls."""
        return self.plain.get(str(node.target)) or self.model.get_submodule(str(node.target))

    def _attribute(self, target: str) -> Any:
        owner, _, name = target.rpartition(".")
        # A constant that the network makes on the way is the traced module's alone.
        model = self.model if hasattr(self.model.get_submodule(owner), name) else self.traced
        return getattr(model.get_submodule(owner), name)

    def _bypass(self, node: fx.Node) -> None:
        node.replace_all_uses_with(node.all_input_nodes[0])
        self.graph.erase_node(node)
        self.changed = True

    def _dropped(self, node: fx.Node) -> bool:
        """Whether `node` did nothing to its input in eval mode, and is gone."""
        if node.op not in ("call_function", "call_method"):
            return False
        if node.target is torch._assert:
            self.graph.erase_node(node)
            self.changed = True
            return True
        idle = node.target in _DROPS or getattr(node.target, "__name__", "") in _NAMED_DROPS
        if node.target in ("expand_as", Tensor.expand_as):
            # A product repeats its smaller factor by itself.
            whole = node.args[1]
            idle = all(user.target in MULS and whole in user.all_input_nodes for user in node.users)
        if node.target is functional.pad:
            idle = not any(_pad_sizes(node) or (1,))
        if idle:
            self._bypass(node)
        return idle

    def _out_of_place(self, node: fx.Node) -> None:
        if node.op == "call_module":
            module = self.model.get_submodule(str(node.target))
            if not getattr(module, "inplace", False):
                return
            # Another call of the same module has to find it set still.
            calls = [other for other in self.graph.nodes if other.op == "call_module" and other.target == node.target]
            if node is calls[-1]:
                module.inplace = False  # type: ignore[assignment]
        elif node.op == "call_method":
            name = str(node.target)
            if not name.endswith("_") or name.endswith("__"):
                return
            node.target = name.removesuffix("_")
            self.changed = True
        elif node.op == "call_function":
            if not self._function_out_of_place(node):
                return
            self.changed = True
        else:
            return
        # Who reads the input later on has so far read what this made of it.
        source = node.all_input_nodes[0]
        for user in list(source.users):
            if self.order[user] > self.order[node]:
                user.replace_input_with(source, node)
                self.changed = True

    def _function_out_of_place(self, node: fx.Node) -> bool:
        target: Any = node.target
        if target in OUT_OF_PLACE:
            # Only then does it matter; the rest of the code makes nothing of it.
            source = node.all_input_nodes[0]
            is_read = any(self.order[user] > self.order[node] for user in source.users)
            node.target = OUT_OF_PLACE[target] if is_read else target
            return is_read
        name = getattr(target, "__name__", "")
        for home in (torch, functional):
            if name.endswith("_") and not name.endswith("__") and getattr(home, name, None) is target:
                plain = getattr(home, name.removesuffix("_"), None) or getattr(torch, name.removesuffix("_"))
                node.target = plain
                return True
        if not inspect.isfunction(target) or "inplace" not in inspect.signature(target).parameters:
            return False
        bound = inspect.signature(target).bind(*node.args, **node.kwargs)
        if not bound.arguments.get("inplace"):
            return False
        bound.arguments["inplace"] = False
        node.args, node.kwargs = bound.args, bound.kwargs
        return True

    def _as_module(self, node: fx.Node) -> None:
        """A call with bare parameters -> a call of a plain module in the place of the one that owns them.

        Where no module owns all of them under their plain names, the new one is named after the first.
        """
        plain = PLAIN.get(node.target) if node.op == "call_function" else None
        if plain is None:
            return
        call = _arguments(node, plain.arguments)
        tensors = {name: call.get(name) for name in plain.tensors}
        rest = {key: value for key, value in call.items() if key not in tensors and key != "input"}
        if not plain.suits(call) or any(isinstance(value, fx.Node) for value in _flat(rest)):
            return
        found = {name: each for name, each in tensors.items() if each is not None}
        if not found or not all(isinstance(each, fx.Node) and each.op == "get_attr" for each in found.values()):
            return
        targets = {name: str(each.target) for name, each in found.items()}
        owner = _owner(targets)
        place = owner or f"{next(iter(targets.values())).replace('.', '_')}_{plain.function.__name__}"
        made_by = [node.target, targets, rest]
        if self._calls.setdefault(place, made_by) != made_by or (owner is None and hasattr(self.model, place)):
            return
        if place not in self.plain:
            old = nn.Module() if owner is None else self.model.get_submodule(owner)
            held = {name: self._attribute(targets[name]) if name in targets else None for name in tensors}
            self.plain[place] = _made_plain(plain, old, held, rest)
            if owner is None:
                self.traced.add_module(place, self.plain[place])  # The graph names only what its module has.
        with self.graph.inserting_before(node):
            new = self.graph.call_module(place, (call["input"],))
        new.meta = node.meta
        node.replace_all_uses_with(new)
        self.graph.erase_node(node)
        self.changed = True

    def _join_padding(self) -> None:
        """Give the same padding on all four sides to the convolution that alone reads it, if this rewriting made it."""
        for node in list(self.graph.nodes):
            conv = self.plain.get(str(node.target)) if node.op == "call_module" else None
            pad = node.all_input_nodes[0] if node.all_input_nodes else node
            if not isinstance(conv, nn.Conv2d) or len(pad.users) != 1 or conv.padding not in (0, (0, 0)):
                continue
            if pad.op == "call_module" and type(module := self._module(pad)) is nn.ZeroPad2d:
                sides = tuple(module.padding)
            elif pad.target is functional.pad:
                sides = _pad_sizes(pad) or ()
            else:
                continue
            calls = [other for other in self.graph.nodes if other.op == "call_module" and other.target == node.target]
            if len(calls) == 1 and len(sides) == 4 and len(set(sides)) == 1:
                conv.padding = (sides[0], sides[0])
                conv._reversed_padding_repeated_twice = list(sides)
                self._bypass(pad)


def _made_plain(plain: Plain, old: nn.Module, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> nn.Module:
    """The module whose forward is the function with these settings and tensors, which `old` may own."""
    new = plain.build(old, tensors, settings)
    for name, tensor in tensors.items():
        if name in new._parameters and tensor is not None and not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=False)
        setattr(new, name, tensor)
    return new.eval()


def _owner(targets: Mapping[str, str]) -> str | None:
    """The one module that owns all these tensors, each under its plain name; None if it is none, or the network."""
    owners = {target.rpartition(".")[0] for target in targets.values()}
    plain = all(target.rpartition(".")[2] == name for name, target in targets.items())
    return (owners.pop() or None) if plain and len(owners) == 1 else None


def _arguments(node: fx.Node, names: Sequence[str]) -> dict[str, Any]:
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _flat(settings: Mapping[str, Any]) -> list[Any]:
    return [item for value in settings.values() for item in (value if isinstance(value, tuple | list) else (value,))]


def _pad_sizes(node: fx.Node) -> tuple[int, ...] | None:
    """The sizes of a `functional.pad` with zeros; None if it is another, or they are not known."""
    call = _arguments(node, ("input", "pad", "mode", "value"))
    if call.get("mode", "constant") != "constant" or call.get("value") not in (None, 0, 0.0):
        return None
    sizes = tuple(call["pad"])
    return sizes if all(isinstance(size, int) for size in sizes) else None
