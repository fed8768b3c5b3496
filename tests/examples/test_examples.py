"""The examples, each in its quick form: what a user's script gets back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from amc_latency.lut.tflite.run import tflite_ops, tflite_outputs
from torch import nn

from examples import ssdlite_backbone, timm_script, unet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]


def parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def test_the_cut_backbone_is_put_back_into_its_detector(tmp_path: Path) -> None:
    result, detector = ssdlite_backbone.main(["--quick", "--out", str(tmp_path / "run")])
    assert result.met
    assert result.report.measured_ms <= result.report.original_ms / 1.3
    original = ssdlite_backbone.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    assert parameters(detector.backbone) < parameters(original.backbone)
    with torch.no_grad():
        found = detector(list(ssdlite_backbone.pictures(2, 320, seed=3)))
        maps = [list(each.backbone.eval()(torch.zeros(1, 3, 320, 320)).values()) for each in (detector, original)]
    assert [each.shape for each in maps[0]] == [each.shape for each in maps[1]]
    for each in found:
        assert len(each["boxes"]) > 0
        assert each["boxes"].shape[1] == 4
        assert bool(each["boxes"].isfinite().all())


def test_a_unet_is_cut_trained_and_written(tmp_path: Path) -> None:
    result = unet.main(["--quick", "--out", str(tmp_path / "run")])
    assert result.met
    assert result.report.measured_ms <= result.report.original_ms / 2
    images, masks = unet.scenes(16, seed=2)
    small = result.network.model
    whole = unet.mean_iou(small, images, masks)
    assert whole == pytest.approx(result.report.accuracy)
    ops = tflite_ops((tmp_path / "run" / "small.tflite").read_bytes())
    assert (ops["TRANSPOSE_CONV"], ops["CONCATENATION"]) == (2, 2)
    with torch.no_grad():
        wanted = small(images[:2])
    (shipped,) = tflite_outputs(tmp_path / "run" / "small.tflite", images[:2].numpy())
    assert torch.allclose(torch.from_numpy(shipped), wanted, atol=1e-3)


def test_mean_iou_is_the_mean_of_what_is_shared() -> None:
    """Of four pixels."""

    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(torch.tensor([[[0, 1], [2, 2]]]), 3).permute(0, 3, 1, 2).float()

    masks = torch.tensor([[[0, 1], [1, 2]]])
    # ground {0}: 1 of 1; disc: found 1, meant 2: 1 of 2; square: found 2, meant 1: 1 of 2.
    assert unet.mean_iou(Fixed(), torch.zeros(1, 3, 2, 2), masks) == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)


def test_a_training_script_in_timms_style(tmp_path: Path) -> None:
    result = timm_script.main(["--quick", "--out", str(tmp_path / "run")])
    assert result.met
    assert result.report.measured_ms <= result.report.original_ms / 1.5
    loader = timm_script.DataLoader(timm_script.Gratings(32, seed=2), batch_size=64)
    assert timm_script.validate(result.network.model, loader) == pytest.approx(result.report.accuracy)
    (logits,) = tflite_outputs(tmp_path / "run" / "small.tflite", next(iter(loader))[0][:2].numpy())
    assert logits.shape == (2, timm_script.CLASSES)
