"""Conversion by Google's litert-torch, in this process: torch.export, MLIR, `.tflite`."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn

from amc_latency.errors import UserError
from amc_latency.export.export import ExportError, output_of
from amc_latency.export.reading import check_control_flow, quiet

HOW_TO = "pip install 'amc-latency[litert-torch]'"


def is_installed() -> bool:
    """Whether litert-torch is there; importing it takes seconds."""
    return find_spec("litert_torch") is not None


def to_tflite(model: nn.Module, input_chw: tuple[int, int, int]) -> bytes:
    """A frozen network as a float32 `.tflite` with input [1, H, W, C]; a feature map is returned as [1, H, W, C].

    Raises UserError if litert-torch is missing, ExportError with its reason if it can't convert the network.
    """
    if not is_installed():
        raise UserError(f"the converter litert-torch isn't installed: {HOW_TO}")
    image = torch.zeros(1, *input_chw)
    returns_map = output_of(model, image).ndim == 4
    check_control_flow(model, image)
    try:
        with quiet():
            import litert_torch

            # Without it a TRANSPOSE stands at each end: up to 60 % of a small layer's time.
            nhwc = litert_torch.to_channel_last_io(model, args=[0], outputs=[0] if returns_map else None).eval()
            return litert_torch.convert(nhwc, (image.permute(0, 2, 3, 1).contiguous(),)).model_content()
    except ImportError as failure:
        raise UserError(f"litert-torch is installed but can't be imported ({failure}): {HOW_TO}") from failure
    except Exception as failure:  # whatever torch.export, JAX and MLIR raise
        reason = next(iter(str(failure).strip().splitlines()), type(failure).__name__)
        raise ExportError(f"litert-torch can't convert the network: {reason}") from failure
