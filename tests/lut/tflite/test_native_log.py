"""What LiteRT tells of itself does not reach standard error; what others say does."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.tflite.native_log import without_chatter
from amc_latency.lut.tflite.run import TfliteError, run_tflite


def test_litert_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    model = layer_model(LayerShape("conv", 4, 8, h=4, w=4))
    assert run_tflite(model, np.zeros((1, 4, 4, 4), np.float32)).shape == (1, 8, 4, 4)
    with pytest.raises(TfliteError):
        run_tflite(b"0000TFL3 broken", np.zeros((1, 4, 4, 4), np.float32))
    assert "INFO" not in capfd.readouterr().err


def test_other_lines_come_out_also_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        with without_chatter():
            os.write(2, b"INFO: chatter\nERROR: a real one\nVERBOSE: more\nWARNING: and this\n")
            raise ValueError("kept")

    with pytest.raises(ValueError, match="kept"):
        broken()
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "ERROR: a real one\nWARNING: and this\nafter\n"
