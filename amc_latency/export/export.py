"""PyTorch network -> `.tflite`, checked against PyTorch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from amc_latency.android_bench.safe.files import replacing
from amc_latency.closeness import ABSOLUTE, allowed, difference, output_range
from amc_latency.errors import UserError
from amc_latency.export.writing import ExportError, write
from amc_latency.graph.outputs import tensors_of
from amc_latency.graph.trace import NetworkGraph, trace
from amc_latency.lut.tflite.builder import Added
from amc_latency.lut.tflite.run import TfliteError, tflite_ops, tflite_outputs
from amc_latency.training.outcome import Accuracy

if TYPE_CHECKING:
    from amc_latency.pixels import Normalisation

OURS = "ours"
TOLERANCE = 1e-4
_AT_ZERO = ABSOLUTE / TOLERANCE
"""Outputs of this size are as far off as larger ones: what they are sums of is larger than they."""
_RANDOM_IMAGES = 4


@dataclass(frozen=True)
class ExportReport:
    """What an exported file is, and how far it is from PyTorch."""

    macs: int | None
    """None, like the parameters, where only another converter could read the network"""
    params: int | None
    max_abs_error: float
    """largest difference between an output of the file and of PyTorch, over all images"""
    output_range: float
    """what that error is to be seen beside: largest less smallest output of PyTorch, zero counted in"""
    ops: dict[str, int]
    """how often each TFLite operator occurs"""
    bytes: int
    converter: str = OURS
    """who wrote the file: see `amc_latency.export.choose`"""
    note: str | None = None
    """what the user should know of it"""
    precision: tuple[str, ...] = ()
    """of each layer; empty where all are float32"""
    io: str = "float32"
    """the type of its inputs and outputs"""
    takes: str = ""
    """its input in words, where it is quantised"""
    returns: str = ""
    """its first output likewise"""
    same_class: tuple[int, int] | None = None
    """of a quantised file: on how many images it puts the same class first as PyTorch, and of how many"""
    accuracy: Accuracy | None = None
    """of the file itself on test images, run by LiteRT; None where no labelled images were given"""
    pytorch_accuracy: Accuracy | None = None
    """of the network on the same images"""


@dataclass(frozen=True)
class Conversion:
    """A `.tflite` that nobody has checked yet."""

    content: bytes
    graph: NetworkGraph | None
    """None where the network can't be traced"""
    converter: str = OURS
    note: str | None = None
    pixels: Normalisation | None = None
    """if the file takes values of 0..255: the normalisation that is folded into it"""
    operators: tuple[tuple[Added, ...], ...] = ()
    """those of each of the graph's layers; none where another converter wrote the file"""
    network: nn.Module | None = None
    """what our own converter wrote, of which the graph is the trace"""


def to_tflite(model: nn.Module, input_chw: tuple[int, int, int]) -> bytes:
    """The network as a float32 `.tflite` with input [1, H, W, C]; `model` is not changed.

    Raises ExportError that names the first module or operation which is not supported.
    """
    return converted(frozen(model), input_chw).content


def export(
    model: nn.Module,
    input_chw: tuple[int, int, int],
    path: Path,
    images: Tensor | None = None,
    tolerance: float = TOLERANCE,
    pixels: Normalisation | None = None,
) -> ExportReport:
    """Write `model` to `path` with our own converter, once the file's outputs equal PyTorch's on `images` [N, C, H, W].

    Random images if there are none; `tolerance` is relative to the range of PyTorch's outputs (see `closeness`). Raises
    ExportError if they differ by more, if the network is not supported, or if the file can't be written; `path` then
    keeps what it held. With `pixels` the file takes values of 0..255 and normalises them itself.
    `amc_latency.export.choose.export_with` does the same with any converter.
    """
    images = check_images(images, input_chw)
    model = frozen(model)
    return save_checked(model, converted(model, input_chw, pixels), Path(path), images, tolerance)


def frozen(model: nn.Module) -> nn.Module:
    """A copy that is ready for a converter: eval mode, float32, on the CPU."""
    return copy.deepcopy(model).eval().float().cpu()


def converted(model: nn.Module, input_chw: tuple[int, int, int], pixels: Normalisation | None = None) -> Conversion:
    """Our own converter on a frozen network. Raises ExportError that names what is not supported."""
    graph = _traced(model, input_chw)
    written = write(model, graph, pixels)
    return Conversion(written.content, graph, pixels=pixels, operators=written.operators, network=model)


def check_images(images: Tensor | None, input_chw: tuple[int, int, int]) -> Tensor:
    """Images [N, C, H, W] that a file can be checked on, random ones for None. Raises ExportError for a wrong shape."""
    if images is None:
        return torch.randn(_RANDOM_IMAGES, *input_chw, generator=torch.Generator().manual_seed(0))
    if not len(images) or tuple(images.shape[1:]) != tuple(input_chw):
        raise ExportError(f"images {list(images.shape)} can't check a network with input [N, *{input_chw}]")
    return images.detach().float().cpu()


def save_checked(
    model: nn.Module, conversion: Conversion, path: Path, images: Tensor, tolerance: float = TOLERANCE
) -> ExportReport:
    """Keep a converted file if its outputs equal those of the frozen `model` on `images`; errors as `export`'s."""
    expected = outputs_of_all(model, images)
    try:
        with replacing(path) as unchecked:
            unchecked.write_bytes(conversion.content)
            error, found_range = check_same(model, conversion, images, expected, unchecked, tolerance)
    except OSError as failure:
        raise ExportError(f"can't write {path}: {failure.strerror}") from failure
    shapes = None if conversion.graph is None else conversion.graph.architecture.shapes()
    notes = [conversion.note] if conversion.note else []
    if found_range <= ABSOLUTE:
        near = "is 0" if found_range == 0 else f"is within {ABSOLUTE:g} of 0"
        notes.append(f"every output {near}, so equal outputs show nothing: load weights")
    return ExportReport(
        macs=None if shapes is None else sum(shape.macs for shape in shapes),
        params=None if conversion.graph is None else sum(conversion.graph.architecture.params()),
        max_abs_error=error,
        output_range=found_range,
        ops=tflite_ops(conversion.content),
        bytes=len(conversion.content),
        converter=conversion.converter,
        note="; ".join(notes) or None,
    )


def output_of(model: nn.Module, image: Tensor) -> Tensor:
    """What a frozen network returns for one image [1, C, H, W]. Raises ExportError if that is not one tensor."""
    with torch.inference_mode():
        output = model(image.clone())  # It may change it in place.
    if not isinstance(output, Tensor):
        raise ExportError(f"the network returns a {type(output).__name__}; it must return one tensor to be exported")
    return output


def outputs_of(model: nn.Module, image: Tensor) -> list[Tensor]:
    """All that a frozen network returns for one image [1, C, H, W], each tensor once.

    Raises ExportError if there is anything else in it.
    """
    with torch.inference_mode():
        found = tensors_of(model(image.clone()))  # It may change it in place.
    if not found:
        raise ExportError("the network must return tensors, alone or in tuples, lists and dicts, to be exported")
    return list({id(each): each for each in found}.values())


def _traced(model: nn.Module, input_chw: tuple[int, int, int]) -> NetworkGraph:
    try:
        return trace(model, input_chw)
    except UserError as error:
        raise ExportError(f"the network can't be exported: {error}") from error


def check_same(
    model: nn.Module,
    conversion: Conversion,
    images: Tensor,
    expected: list[np.ndarray],
    path: Path | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[float, float]:
    """Largest difference of an output of the file, which may lie at `path`, from those `expected` of the frozen model,
    and the largest range of one. Raises ExportError where one is off by more than `tolerance` allows.
    """
    pixels = conversion.pixels
    try:
        inputs = images if pixels is None else as_pixels(images, pixels)
        found = tflite_outputs(path or conversion.content, inputs.numpy())
    except (TfliteError, RuntimeError) as failure:  # LiteRT's own, of an operator that fails as it runs
        raise ExportError(f"the exported file can't be run: {str(failure).strip()}") from failure
    shapes = [[list(each.shape) for each in outputs] for outputs in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ExportError(f"the exported file returns {_listed(shapes[0])}, PyTorch {_listed(shapes[1])}")
    errors = []
    for number, (got, wanted) in enumerate(zip(found, expected, strict=True)):
        error, most = difference(got, wanted), allowed(wanted, tolerance, _AT_ZERO * tolerance)
        if not error <= most:  # also for NaN
            which = f" in output {number + 1} of {len(found)}" if len(found) > 1 else ""
            where = _where(conversion, images[:1], inputs[:1])
            raise ExportError(
                f"the exported file differs from PyTorch by {error:.2g}{which} where {most:.2g} is allowed; "
                f"it was not kept. {where}{_why(model, images, wanted, number, error)}"
            )
        errors.append(error)
    return max(errors), max(map(output_range, expected))


def outputs_of_all(model: nn.Module, images: Tensor) -> list[np.ndarray]:
    """Each output [N, ...] of a frozen network, a tensor that is returned twice once."""
    # One by one, as the file takes them: a network may have a batch of one built in.
    each = [outputs_of(model, image[None]) for image in images]
    return [torch.cat(list(found)).numpy() for found in zip(*each, strict=True)]


def _listed(shapes: list[list[int]]) -> str:
    return ", ".join(map(str, shapes))


def _where(conversion: Conversion, images: Tensor, inputs: Tensor) -> str:
    """The first layer that is off, as a sentence; empty where none is, or nobody knows."""
    from amc_latency.export.quantised.differences import differing_layer

    layers = 0 if conversion.graph is None else len(conversion.graph.architecture.layers)
    found = differing_layer(conversion, conversion.content, ("float32",) * layers, images, inputs)
    return "" if found is None else f"{found}. "


def _why(model: nn.Module, images: Tensor, expected: np.ndarray, number: int, error: float) -> str:
    """What an error of this size in the output of that number may come from."""
    exact = copy.deepcopy(model).double()
    try:
        rounding = max(
            difference(outputs_of(exact, image[None].double())[number].numpy(), row[None])
            for image, row in zip(images, expected, strict=True)
        )
    except RuntimeError:  # its code insists on float32
        rounding = 0.0
    if 10 * rounding > error:
        return (
            f"PyTorch's own rounding is off by {rounding:.2g} from what it computes in float64: this network enlarges "
            "small differences, as one with random weights may"
        )
    return "An in-place operation on a tensor that is read again may have this effect, or chance."


def as_pixels(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Values of 0..255 that are normalised to `images` [N, C, H, W]."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalisation.mean, normalisation.std))
    return (images * std + mean) * 255
