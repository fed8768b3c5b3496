"""What people wrap a network in: taken off where the plain module is inside, else named.

Wrapped by the training script (DataParallel, torch.compile, a running average) the plain module is one attribute away.
TorchScript, `torch.export` and quantised networks are other things than a module of layers, and are refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from amc_latency.errors import UserError

WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch.ao.quantization.stubs.QuantWrapper": "module",
    "timm.utils.model_ema.ModelEma": "ema",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
}
"""class, and where in it the plain module is; by name, because nobody needs them imported"""
SEGMENTS = ("module", "_orig_mod")
"""what wrappers put into the names of weights"""
_QUANTISED = ("torch.ao.nn.", "torch.ao.quantization.", "torch.nn.quantized.", "torchao.")
_FLOAT = ("FloatFunctional", "QuantStub", "DeQuantStub", "QuantWrapper", "_InferenceStub")
"""of those places, what computes with plain numbers"""
_GIVE = "return the plain nn.Module"


def unwrapped(name: str, found: Any) -> nn.Module:
    """The plain module in what the function `name` returned; `UserError` that says what it is if none is in it."""
    if isinstance(found, nn.Module):
        while (inside := _inside(found)) is not None:
            found = inside
    if not isinstance(found, nn.Module):
        raise UserError(f"{name} returns {_described(found)}; it must return a torch.nn.Module")
    if (what := _foreign(found)) is not None:
        raise UserError(f"{name} returns {what}")
    for part, module in list(found.named_modules()):
        for child_name, child in list(module.named_children()):
            plain = child
            while (inside := _inside(plain)) is not None:
                plain = inside
            if (what := _foreign(plain)) is not None:
                raise UserError(f"{name}: its part {part + '.' if part else ''}{child_name} is {what}")
            if plain is not child:
                setattr(module, child_name, plain)
        # What `Module.compile` leaves behind.
        module._compiled_call_impl = None  # type: ignore[assignment]
    _check_values(name, found)
    return found


def plain_copy(name: str, given: Any) -> nn.Module:
    """A copy of the plain module in `given`, on the CPU and in eval mode; raises what `unwrapped` raises.

    `given`, called `name` in messages, stays as it is: on its device, in its mode, compiled.
    """
    while isinstance(given, nn.Module) and (inside := _inside(given)) is not None:
        given = inside
    if isinstance(given, nn.Module) and (what := _foreign(given)) is not None:
        raise UserError(f"{name} is {what}")
    if not isinstance(given, nn.Module):
        raise UserError(f"{name} is {_described(given)}; it must be a torch.nn.Module")
    return folded(unwrapped(name, copy.deepcopy(given)).cpu())


def folded(model: nn.Module) -> nn.Module:
    """`model` with the weights that it computes from other parameters as plain ones of the same values.

    Weight norm, spectral norm, pruning masks and other parametrizations, in eval mode; changed in place.
    """
    model.eval()
    for module in model.modules():
        if parametrize.is_parametrized(module):
            # PyTorch keeps the property in a class that a copy shares with the user's own module.
            own = type(module)
            module.__class__ = type(own.__name__, own.__bases__, dict(own.__dict__))
            for tensor in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)
                if tensor in ("weight", "bias") and (frozen := module._buffers.pop(tensor, None)) is not None:
                    module.register_parameter(tensor, nn.Parameter(frozen, requires_grad=False))
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                _remove_spectral_norm(module, hook)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
    return model


def _remove_spectral_norm(module: nn.Module, norm: SpectralNorm) -> None:
    remove_spectral_norm(module, norm.name)
    # PyTorch's own function looks for this one by a type that it no longer has.
    loading = module._load_state_dict_pre_hooks
    for number, hook in list(loading.items()):
        if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
            del loading[number]


def is_folded(model: nn.Module) -> bool:
    """Whether every weight is a parameter of its own."""
    hooks = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
    return not any(
        parametrize.is_parametrized(module) or any(isinstance(hook, hooks) for hook in _hooks(module))
        for module in model.modules()
    )


def without_segments(name: str) -> str:
    """A weight's name without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in SEGMENTS)


def _hooks(module: nn.Module) -> Iterator[Any]:
    yield from module._forward_pre_hooks.values()


def _inside(module: nn.Module) -> nn.Module | None:
    for kind in type(module).__mro__:
        attribute = WRAPPERS.get(f"{kind.__module__}.{kind.__qualname__}")
        if attribute is not None and isinstance(inside := getattr(module, attribute, None), nn.Module):
            return inside
    return None


def _foreign(module: nn.Module) -> str | None:
    """What a module is that holds no plain layers, and what to do."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return f"TorchScript ({kind.__name__}), which is compiled: {_GIVE} that torch.jit was given"
    if isinstance(module, torch.fx.GraphModule) and _is_exported(module):
        return f"what torch.export returns, operators without layers: {_GIVE} that was exported"
    if hasattr(module, "merge_and_unload"):
        return f"a network with adapters ({kind.__name__}): return its merge_and_unload()"
    if "FullyShardedDataParallel" in (each.__name__ for each in kind.__mro__):
        return f"a network in shards ({kind.__name__}): {_GIVE} with the whole weights loaded"
    # A QAT layer carries its observers as parts; the layer itself comes first.
    for name, part in module.named_modules():
        where = type(part).__module__
        if where.startswith(_QUANTISED) and type(part).__name__ not in _FLOAT:
            at = f" at {name}" if name else ""
            return (
                f"a network prepared for quantisation, or quantised ({where.partition('.')[0]}'s "
                f"{type(part).__name__}{at}): {_GIVE} of floats, from before torch.ao.quantization"
            )
    return None


def _is_exported(module: torch.fx.GraphModule) -> bool:
    calls = [node.target for node in module.graph.nodes if node.op == "call_function"]
    return any(isinstance(target, torch._ops.OpOverload) for target in calls)


def _described(found: Any) -> str:
    """What a function returned in place of a module, with what to do where that is known."""
    kind = type(found).__name__
    if isinstance(found, type):
        return f"the class {found.__name__}: call it, {found.__name__}(...)"
    if isinstance(found, torch.export.ExportedProgram):
        return f"{kind}, what torch.export makes of a network: {_GIVE} that was exported"
    if isinstance(found, Mapping) and found and all(isinstance(value, torch.Tensor) for value in found.values()):
        return f"{kind} of tensors, weights without their network: build it, and load_state_dict(...)"
    if isinstance(found, Mapping | tuple | list):
        values = found.values() if isinstance(found, Mapping) else found
        held = ", ".join(type(value).__name__ for value in list(values)[:4]) or "nothing"
        return f"{kind} with {held}"
    if callable(found):
        return f"{kind}, which is called but is no module"
    return kind


def _check_values(name: str, model: nn.Module) -> None:
    """Raise `UserError` for parameters that have no values yet."""
    for part, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise UserError(
                f"{name}: {part} has no shape yet (a lazy module): run the network once on an image before returning it"
            )
        if tensor.is_meta:
            raise UserError(f"{name}: {part} has no values (device meta): build the network on the CPU")
