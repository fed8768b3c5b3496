"""`amc-latency inspect`: groups, what is left whole and why, and shares of MACs and milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from amc_latency.lut.table.table import LatencyTable
from torch import Tensor, nn

from amc_latency.graph.trace import trace
from amc_latency.measuring.inspection import inspect, inspection_text
from amc_latency.models.load import Network, NetworkOptions, load_network
from amc_latency.models.spec import ModelSpec

TABLE = Path(__file__).parents[3] / "lut" / "tables" / "host-epyc-zen4.tsv"


class Shuffled(nn.Module):
    """Two groups that can be cut, one whose channels are dealt out, and one of grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.shuffle = nn.ChannelShuffle(2)
        self.narrow = nn.Conv2d(8, 12, 1)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.flatten(self.pool(self.grouped(self.narrow(self.shuffle(self.stem(x)))))))


def network_of(model: nn.Module, chw: tuple[int, int, int]) -> Network:
    model.eval()
    return Network(model, ModelSpec("own.py:build", input=chw, classes=5), trace(model, chw), trained=False)


def test_says_what_moves_together_what_is_left_whole_and_what_that_is_of_the_macs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = inspect(network_of(Shuffled(), (3, 4, 4)), None)
    (group,) = report.groups
    # Three groups of four channels are what the grouped convolution can lose.
    assert (group.name, group.channels, group.width) == ("narrow", 3, 4)
    assert [(member.module, member.role, member.repeat) for member in group.members] == [
        ("narrow", "producer", 4),
        ("grouped", "depthwise", 4),
        ("classifier", "consumer", 4),
    ]
    pixels = 4 * 4
    macs = {"stem": 3 * 8 * pixels, "narrow": 8 * 12 * pixels, "grouped": 9 * 4 * 12 * pixels, "classifier": 12 * 5}
    assert report.macs == sum(macs.values())
    assert group.macs_pct == pytest.approx(100 * (report.macs - macs["stem"]) / report.macs)
    assert {left.module: left.reason for left in report.left_whole} == {
        "stem": "shuffle deals them out",
        "classifier": "they are the network's output",
    }
    assert [(layer.name, layer.groups) for layer in report.layers][:3] == [
        ("stem", []),
        ("shuffle", []),
        ("narrow", [1]),
    ]
    assert report.predicted_ms is None
    assert group.ms_pct is None
    inspection_text(report)
    text = capsys.readouterr().out
    assert "group 1: 3 channels of 4" in text
    assert "left whole: stem, 8 channels: shuffle deals them out" in text


def test_a_network_with_nothing_to_cut_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    report = inspect(network_of(model, (3, 4, 4)), None)
    assert report.groups == []
    inspection_text(report)
    assert "nothing can be cut" in capsys.readouterr().out


def test_shares_of_milliseconds_are_those_of_the_tables_rows() -> None:
    network = load_network(NetworkOptions())
    table = LatencyTable.open(TABLE)
    report = inspect(network, table)
    shapes = network.graph.architecture.shapes()
    noop_us = table.latency_us("noop 1x1x1>1 k1 s1 p0 none float32")
    assert noop_us is not None
    # All of the uncut network's layers have rows of their own.
    us = [max(0.0, (table.latency_us(shape.text) or 0.0) - noop_us) for shape in shapes]
    assert all(us)
    shares = [layer.ms_pct for layer in report.layers]
    assert shares == pytest.approx([100 * each / sum(us) for each in us])
    # The stem's channels are made by the first convolution, and read by the depthwise and the pointwise one behind it.
    assert report.groups[0].ms_pct == pytest.approx(sum(share or 0.0 for share in shares[:3]))
    assert report.covers_pct == 100
