"""A network's own Python code -> a graph of operations (torch.fx), or the line of it that can't be traced."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterator
from itertools import chain
from math import prod
from pathlib import Path
from traceback import walk_tb
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from amc_latency.errors import UserError

WAY_OUT = "such a network can't be cut, but `amc-latency export` may write it whole, with `converter='litert-torch'`"
"""what each refusal to trace a network, or to cut it, ends in"""
OPEN_BATCH = 65521
"""the largest prime below 2^16: no other size in a network is a multiple of it, so it tells the batch's size apart"""
EXAMPLE_READ = "example_read"
"""key of a traced module's `meta`: whether the network's code was told something that only the example tells"""

_MOST_OPERATIONS = 2**14


def live_nodes(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on."""
    live: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node in live:
            live |= {node, *node.all_input_nodes}
    return live


class UntraceableError(UserError):
    """A network whose code can't be turned into a graph: what it does depends on the values of the image."""


def symbolic(model: nn.Module, example: Tensor | None = None) -> fx.GraphModule:
    """Trace `model`, whose arguments after the image keep their defaults.

    With an `example` [N, C, H, W] on the meta device the code may ask for sizes and gets numbers, which stay in the
    graph; control flow that depends on them is no hindrance. Only sizes that are multiples of N stay open: give a prime
    N that no other size is a multiple of, and the batch's size stays free. What the code makes of buffers alone becomes
    a constant of the graph: trace the network itself, not a copy without values, where constants matter.

    Raises `UntraceableError` that says where and why.
    """
    if isinstance(model, fx.GraphModule):
        # Traced before; its operations still know whose they are.
        return _copied(model)
    tracer = _Tracer(example)
    try:
        with torch.no_grad():
            graph = tracer.trace(model)
        traced = fx.GraphModule(tracer.root, graph, type(model).__name__)
    except Exception as error:  # whatever a network's own code raises
        # Nobody gave it that many images.
        reason = _reason(error) if example is None else _reason(error).replace(str(len(example)), "N")
        raise UntraceableError(f"{where(error, model)}: the network can't be traced: {reason}; {WAY_OUT}") from error
    traced.meta[EXAMPLE_READ] = tracer.example_read
    return traced.train(model.training)


def _copied(model: fx.GraphModule) -> fx.GraphModule:
    graph = fx.Graph()
    output = graph.graph_copy(model.graph, {})
    if output is not None:
        graph.output(output)
    traced = fx.GraphModule(model, graph, type(model).__name__)
    traced.meta[EXAMPLE_READ] = False
    return traced.train(model.training)


class _Tracer(fx.Tracer):
    """Traces, and computes what the example becomes as soon as the network's code asks for a size."""

    def __init__(self, example: Tensor | None) -> None:
        super().__init__()
        self.example = example
        self.results: dict[fx.Node, Any] = {}
        self._skeleton: nn.Module | None = None
        self._waiting: list[tuple[fx.Node, str, Any, Any, Any]] = []
        self.example_read = False
        self._computing = False
        self._image: fx.Proxy | None = None
        self._made = 0

    def create_args_for_root(self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None) -> Any:
        names = [name for name in inspect.signature(root_fn).parameters if name != "self"]
        # The one argument is the image: fx would make unknowns of those that have a default as well.
        return root_fn, [self.root, self.create_proxy("placeholder", names[0] if names else "x", (), {})]

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, np.generic):
            a = a.item()
        # What `len` and `int` made of the batch's size: in the graph it stays open.
        if type(a) is int and a > 0 and self.has_open_batch and a % OPEN_BATCH == 0:
            open_size: Any = self.create_proxy("call_method", "size", (self._image, 0), {})
            return (open_size if a == OPEN_BATCH else open_size * (a // OPEN_BATCH)).node
        return super().create_arg(a)

    @property
    def has_open_batch(self) -> bool:
        """Whether the batch's size can be told from any other number."""
        return self.example is not None and len(self.example) == OPEN_BATCH

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> fx.Proxy:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        self._made += 1
        if self._made > _MOST_OPERATIONS:
            raise UserError(f"it takes more than {_MOST_OPERATIONS:,} operations: does its code loop over the images?")
        if kind == "placeholder" and self.example is not None:
            self.results[proxy.node] = self.example
            self._image = proxy
        elif kind != "output" and self.example is not None:
            # A list is copied: the network may go on to fill it.
            copied = map_aggregate((args, kwargs), lambda value: value)
            self._waiting.append((proxy.node, kind, target, *copied))
        return proxy

    def read(self, node: fx.Node) -> Any:
        """What the example is after `node`; None if that is not known."""
        self.example_read = True
        if self._skeleton is None:
            self._skeleton = _without_values(self.root)
        waiting, self._waiting = self._waiting, []
        for operation in waiting:
            self._compute(*operation)
        return self.results.get(node)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return fx.Proxy(node, self) if self.example is None else _Sized(node, self)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._computing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _compute(self, node: fx.Node, kind: str, target: Any, args: Any, kwargs: Any) -> None:
        assert self._skeleton is not None

        def result(value: Any) -> Any:
            if isinstance(value, fx.Proxy):
                return self.results[value.node]
            # A tensor that is neither a parameter nor a buffer, or made on the way.
            return value.to("meta") if isinstance(value, Tensor) else value

        self._computing = True
        try:
            args, kwargs = map_aggregate(args, result), map_aggregate(kwargs, result)
            if kind == "get_attr":
                owner, _, name = str(target).rpartition(".")
                self.results[node] = getattr(self._skeleton.get_submodule(owner), name)
            elif kind == "call_module":
                self.results[node] = self._skeleton.get_submodule(target)(*args, **kwargs)
            elif kind == "call_method":
                self.results[node] = getattr(args[0], target)(*args[1:], **kwargs)
            else:
                self.results[node] = target(*args, **kwargs)
        except (KeyError, NotImplementedError):
            pass  # An operation that the meta device lacks, or one after it: its sizes stay unknown.
        finally:
            self._computing = False


class _Sized(fx.Proxy):
    """A value in the making that knows its sizes."""

    tracer: _Tracer

    @property
    def shape(self) -> Any:
        result = self.tracer.read(self.node)
        if not isinstance(result, Tensor):
            return fx.proxy.Attribute(self, "shape")
        return _Sizes(self._size(dim, size) for dim, size in enumerate(result.shape))

    @property
    def data(self) -> Any:
        """The same values: nothing here needs gradients."""
        return self

    def size(self, dim: int | None = None) -> Any:
        result = self.tracer.read(self.node)
        if not isinstance(result, Tensor):
            return self.tracer.create_proxy("call_method", "size", (self,) if dim is None else (self, dim), {})
        return self.shape if dim is None else self._size(dim, result.shape[dim])

    def dim(self) -> Any:
        result = self.tracer.read(self.node)
        if not isinstance(result, Tensor):
            return self.tracer.create_proxy("call_method", "dim", (self,), {})
        return result.ndim

    def ndimension(self) -> Any:
        return self.dim()

    @property
    def ndim(self) -> Any:
        return self.dim()

    def __len__(self) -> int:
        result = self.tracer.read(self.node)
        is_known = isinstance(result, tuple | list) or (isinstance(result, Tensor) and self.tracer.has_open_batch)
        return len(result) if is_known else super().__len__()

    def __int__(self) -> int:
        result = self.tracer.read(self.node)
        if not isinstance(result, int | float) or not self.tracer.has_open_batch:
            raise TypeError("int() of something that only the image tells")
        return int(result)

    def __iter__(self) -> Iterator[Any]:
        result = self.tracer.read(self.node)
        if not isinstance(result, tuple | list):
            return super().__iter__()
        return iter([operator.getitem(self, index) for index in range(len(result))])

    def _size(self, dim: int, size: int) -> Any:
        assert self.tracer.example is not None
        is_open = size % len(self.tracer.example) == 0
        return self.tracer.create_proxy("call_method", "size", (self, dim), {}) if is_open else size


class _Sizes(tuple[Any, ...]):
    """A tensor's sizes, of which the batch's is open: as far as networks ask it, a `torch.Size`."""

    def numel(self) -> Any:
        return prod(self)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return _Sizes(found) if isinstance(key, slice) else found


def _without_values(model: nn.Module) -> nn.Module:
    """A copy of `model` on the meta device."""
    tensors: dict[int, Any] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        empty = torch.empty_like(tensor, device="meta", requires_grad=False)
        tensors[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, tensors)


def _reason(error: BaseException) -> str:
    """The first line of what an exception says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def where(error: Exception, model: nn.Module) -> str:
    """The line of the network's own code that raised, and the innermost module that was being called."""
    torch_folder = Path(torch.__file__).parent
    names = {id(module): name for name, module in model.named_modules()}
    line, module = "its code", ""
    for frame, number in walk_tb(error.__traceback__):
        path, owner = Path(frame.f_code.co_filename), frame.f_locals.get("self")
        if path != Path(__file__) and torch_folder not in path.parents and path.exists():
            line = f"{path}:{number}"
        if isinstance(owner, nn.Module) and names.get(id(owner)):
            module = f", in {names[id(owner)]} ({type(owner).__name__})"
    return line + module
