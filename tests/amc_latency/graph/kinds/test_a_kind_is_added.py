"""What CONTRIBUTING.md says of adding a layer kind, done: its three files, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[4] / "CONTRIBUTING.md").read_text()
PROGRAM = """
import sys
from pathlib import Path

import numpy as np
import torch
from amc_latency.device.gpu import tflite_ops
from amc_latency.graph import kinds
from amc_latency.lut.shapes import kinds as lut_kinds

folder = Path(sys.argv[1])
lut_kinds.__path__.append(str(folder / "lut/shapes/kinds"))
kinds.__path__.append(str(folder / "amc_latency/graph/kinds"))
exec("OPERATORS |= {" + (folder / "device/gpu/tflite_ops.py").read_text() + "}", vars(tflite_ops))

from amc_latency.device.gpu.tflite_torch import load_module
from amc_latency.export.export import to_tflite
from amc_latency.graph.trace import trace
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import parse_shape
from amc_latency.lut.tflite.run import run_tflite, tflite_ops as operators
from amc_latency.prune.cut import cut
from torch import nn

class Exp(nn.Module):
    def forward(self, x):
        return torch.exp(x)

model = nn.Sequential(nn.Conv2d(3, 6, 3), Exp(), nn.Conv2d(6, 4, 1)).eval()
graph = trace(model, (3, 5, 5))
assert [layer.shape.kind for layer in graph.architecture.layers] == ["conv", "exp", "conv"]
small = cut(model, graph, [torch.tensor([0, 2, 5])])
image = torch.randn(1, 3, 5, 5)
with torch.inference_mode():
    expected = small(image).numpy()
file = to_tflite(small, (3, 5, 5))
np.testing.assert_allclose(run_tflite(file, image.numpy()), expected, rtol=1e-4, atol=1e-4)
(on_gpu,) = load_module(file)(image)
np.testing.assert_allclose(on_gpu.detach().numpy(), expected, rtol=1e-4, atol=1e-4)
assert operators(layer_model(parse_shape("exp 6x5x5>6 k1 s1 p0 none float32"))) == {"EXP": 1}
print("added")
"""


def test_a_layer_kind_is_added_as_it_says(tmp_path: Path) -> None:
    [section] = re.findall(r"^## Add a layer kind\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"^```python\n# ([^\n:]+)[^\n]*\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for place, code in blocks:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(code)
    command = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "added\n", done.stderr
