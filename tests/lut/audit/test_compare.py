"""Two tables side by side, with ratios that were put in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.audit.compare import diff
from amc_latency.lut.table.merge import merge
from amc_latency.lut.table.table import LatencyTable, TableError

from tests.lut.scripted_device import IDENTITY, PROTOCOL, key_of

CONVS = [key_of("conv", 8, c_out) for c_out in range(8, 96, 8)]
DEPTHWISE = [key_of("depthwise", c, c, kernel=3, padding=1) for c in (8, 16, 24)]
NETWORKS = [f"{conv} + {DEPTHWISE[0]}" for conv in CONVS[:4]]


def made(path: Path, us: dict[str, float], **identity) -> LatencyTable:
    table = LatencyTable.create(path, replace(IDENTITY, **identity), replace(PROTOCOL, rounds=1))
    for key, value in us.items():
        table.append(Timing(key, 0, 5, Summary(value, value, value, 0.0)))
    table.close()
    return table


def test_ratios_by_kind_rank_correlation_and_what_stands_out(tmp_path: Path) -> None:
    us = {key: 100.0 + 10 * i for i, key in enumerate(CONVS)}
    us |= {key: 10.0 + i for i, key in enumerate(DEPTHWISE)}
    us |= {key: 1000.0 + i for i, key in enumerate(NETWORKS)}
    # Convolutions twice as fast, depthwise half as fast; 9 convolutions keep 0.5, the odd one takes five times as long.
    other = {key: value * 0.5 for key, value in us.items() if key in CONVS}
    other[CONVS[-1]] = us[CONVS[-1]] * 5
    other |= {key: us[key] * 2 for key in DEPTHWISE}
    # The order of the networks is turned round.
    other |= {key: 2000.0 - i for i, key in enumerate(NETWORKS)}
    other[key_of("add", 8, 8)] = 1.0
    report = diff(made(tmp_path / "a", us), made(tmp_path / "b", other, name="phone", runtime="runtime 9"))
    assert (report.common, report.only_first, report.only_second) == (18, 0, 1)
    assert report.header == {"device": ("scripted", "phone"), "runtime": ("runtime 1", "runtime 9")}
    ratios = {kind.kind: (kind.n, kind.median, kind.p10) for kind in report.kinds}
    assert ratios["conv"] == (11, 0.5, 0.5)
    assert ratios["depthwise"] == (3, 2.0, 2.0)
    assert ratios["network"][:2] == (4, pytest.approx((1999 / 1001 + 1998 / 1002) / 2))
    # Of 18 sorted ratios, the 9th and the 10th: 10 of 0.5 come first.
    assert report.ratio == 0.5
    assert report.network_rank_correlation == pytest.approx(-1.0)
    # One swap: the last of 14 layers was the largest and still is, all others keep their order.
    assert report.layer_rank_correlation == pytest.approx(1.0)
    first = report.deviations[0]
    assert (first.key, first.ratio, first.against_median) == (CONVS[-1], 5.0, 10.0)
    assert report.notes == []


def test_too_few_pairs_and_equal_latencies_have_no_rank_correlation(tmp_path: Path) -> None:
    us = dict.fromkeys(CONVS[:4], 5.0)
    report = diff(made(tmp_path / "a", us), made(tmp_path / "b", {**us, CONVS[0]: 6.0}))
    assert (report.layer_rank_correlation, report.network_rank_correlation) == (None, None)


def test_spearman_is_one_less_six_times_the_squared_distances(tmp_path: Path) -> None:
    keys = CONVS[:5]
    first = made(tmp_path / "a", dict(zip(keys, (1.0, 2.0, 3.0, 4.0, 5.0), strict=True)))
    second = made(tmp_path / "b", dict(zip(keys, (2.0, 1.0, 4.0, 3.0, 5.0), strict=True)))
    assert diff(first, second).layer_rank_correlation == pytest.approx(1 - 6 * 4 / (5 * 24))


def test_nothing_in_common_is_a_clear_message(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a", {CONVS[0]: 1.0}), made(tmp_path / "b", {CONVS[1]: 1.0})
    with pytest.raises(TableError, match=r"no layer and no network in common.*profile the same model"):
        diff(first, second)


def test_estimates_and_rows_of_other_headers_are_said(tmp_path: Path) -> None:
    measured = made(tmp_path / "a", {CONVS[0]: 1.0})
    estimated = made(tmp_path / "b", {CONVS[0]: 2.0, CONVS[1]: 3.0}, estimated=True)
    merge([measured.path, estimated.path], tmp_path / "ab", force=True)
    notes = diff(LatencyTable.open(tmp_path / "ab"), estimated).notes
    assert len(notes) == 2
    assert "estimated 'False' and 'True'" in notes[0]
    assert notes[1].endswith("are estimated, not measured")
