"""One name for all converters: ours, litert-torch or onnx2tf, each file checked in the same way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.export import litert_torch, onnx2tf
from amc_latency.export.export import (
    OURS,
    TOLERANCE,
    Conversion,
    ExportError,
    ExportReport,
    check_images,
    converted,
    frozen,
    save_checked,
)
from amc_latency.graph.rewriting.normal_form import check_accepts, normal_form
from amc_latency.graph.trace import NetworkGraph, trace
from amc_latency.graph.tracing import WAY_OUT, UntraceableError

if TYPE_CHECKING:
    from amc_latency.pixels import Normalisation

AUTO = "auto"
_OTHERS: Mapping[str, Callable[[nn.Module, tuple[int, int, int]], bytes]] = {
    "litert-torch": litert_torch.to_tflite,
    "onnx2tf": onnx2tf.to_tflite,
}
CONVERTERS = (AUTO, OURS, *_OTHERS)


def export_with(
    converter: str,
    model: nn.Module,
    input_chw: tuple[int, int, int],
    path: Path,
    images: Tensor | None = None,
    tolerance: float = TOLERANCE,
    pixels: Normalisation | None = None,
) -> ExportReport:
    """Write `model` to `path` with one of `CONVERTERS`, once the file's outputs equal PyTorch's on `images`.

    `auto` is ours, and where ours refuses, or its file differs, the first of the others that is installed; the
    report's note says why.
    Images, tolerance, pixels and ExportError are those of `amc_latency.export.export.export`. Raises UserError for
    a converter that is unknown or not installed, saying how to install it, and for an input that the network
    rejects.
    """
    if converter not in CONVERTERS:
        raise UserError(f"there is no converter '{converter}': take one of {', '.join(CONVERTERS)}")
    images, path = check_images(images, input_chw), Path(path)
    model = frozen(model)
    if converter in _OTHERS:
        return save_checked(model, _by_other(converter, model, input_chw, pixels), path, images, tolerance)
    try:
        conversion = converted(_normal_form(model, input_chw), input_chw, pixels)
        return save_checked(model, conversion, path, images, tolerance)
    except (ExportError, UntraceableError) as refusal:
        # A folder that can't be written to is no better for another converter.
        if converter == OURS or isinstance(refusal.__cause__, OSError):
            raise
        cause = refusal.__cause__ if isinstance(refusal.__cause__, UserError) else refusal
        reason = str(cause).removesuffix(f"; {WAY_OUT}").removesuffix(".")
        other = _installed()
        if other is None:
            raise ExportError(
                f"our converter can't write the network: {reason}. Another one may: either {litert_torch.HOW_TO}, or "
                f"{onnx2tf.HOW_TO}"
            ) from refusal
        note = f"{other} wrote the file; ours can't: {reason}"
        try:
            return save_checked(model, _by_other(other, model, input_chw, pixels, note), path, images, tolerance)
        except ExportError as failure:
            raise ExportError(f"our converter can't write the network: {reason}; and {failure}") from failure


def _by_other(
    name: str,
    model: nn.Module,
    input_chw: tuple[int, int, int],
    pixels: Normalisation | None,
    note: str | None = None,
) -> Conversion:
    check_accepts(model, input_chw)
    whole = model if pixels is None else nn.Sequential(_Normalise(pixels, input_chw[0]), model).eval()
    return Conversion(_OTHERS[name](whole, input_chw), _graph(model, input_chw), name, note, pixels)


def _installed() -> str | None:
    if litert_torch.is_installed():
        return "litert-torch"
    return "onnx2tf" if onnx2tf.is_installed() else None


def _graph(model: nn.Module, input_chw: tuple[int, int, int]) -> NetworkGraph | None:
    try:
        return trace(_normal_form(model, input_chw), input_chw)
    except UserError:
        return None


def _normal_form(model: nn.Module, input_chw: tuple[int, int, int]) -> nn.Module:
    # Of a copy: it switches in-place operations off, and the file is compared with the network as it was.
    return normal_form(copy.deepcopy(model), input_chw)


class _Normalise(nn.Module):
    """Values of 0..255 [N, C, H, W] -> what the network expects."""

    mean: Tensor
    std: Tensor

    def __init__(self, pixels: Normalisation, channels: int) -> None:
        super().__init__()
        if len(pixels.mean) != channels:
            raise ExportError(f"{len(pixels.mean)} means were given for an image of {channels} channels")
        self.register_buffer("mean", 255 * torch.tensor(pixels.mean)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(pixels.std)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std
