"""`lut import` of a block table and `predict` from it, as a user meets them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from amc_latency.cli.main import main

LOG = Path(__file__).parents[2] / "lut" / "fixtures" / "bundled.op_profile.txt"
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and first stride of each stage (Sandler et al. 2018, table 2)."""


def block_keys(size: int = 224) -> list[str]:
    """MobileNetV2's blocks in order, as ProxylessNAS's tables name them."""
    side, channels = size // 2, 32
    keys = [f"Conv-input:{size}x{size}x3-output:{side}x{side}x32"]
    for expand, wide, count, first in MOBILENET_V2:
        for stride in (first, *[1] * (count - 1)):
            out = side // stride
            skip = int(stride == 1 and wide == channels)
            keys.append(
                f"expanded_conv-input:{side}x{side}x{channels}-output:{out}x{out}x{wide}"
                f"-expand:{expand}-kernel:3-stride:{stride}-idskip:{skip}"
            )
            side, channels = out, wide
    keys += [
        f"Conv_1-input:{side}x{side}x320-output:{side}x{side}x1280",
        f"Logits-input:{side}x{side}x1280-output:1000",
    ]
    return keys


def means_ms(keys: list[str]) -> dict[str, float]:
    return {key: 0.5 + index / 4 for index, key in enumerate(dict.fromkeys(keys))}


def text(means: dict[str, float]) -> str:
    return "".join(f"{key}:\n  count: 100\n  mean: {mean}\n  var: 0.01\n" for key, mean in means.items())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run a command in a folder of its own; gives the exit code, standard output and standard error."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["amc-latency", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, *capsys.readouterr()

    return call


def test_mobilenet_v2_costs_the_sum_of_its_blocks(run, tmp_path: Path) -> None:
    keys = block_keys()
    means = means_ms(keys)
    (tmp_path / "v2.yaml").write_text(text(means))
    code, out, err = run("lut", "import", "v2.yaml", "--out", "T", "--device", "note8")
    assert (code, err) == (0, "")
    assert "T: 15 blocks of note8, model not known, ProxylessNAS block table; estimated, not measured" in out

    code, out, err = run("predict", "--lut", "T", "--model", "mobilenet_v2", "--json")
    assert code == 0, err
    prediction = json.loads(out)
    assert prediction["predicted_ms"] == pytest.approx(sum(means[key] for key in keys))
    assert [block["ms"] for block in prediction["layers"]] == pytest.approx([means[key] for key in keys])
    assert prediction["estimated"] is True
    assert prediction["interval_ms"] is None
    # 1 + 16 expanding blocks of 3 and one of 2, 10 adds, 1 + 2.
    assert "20 blocks of the ProxylessNAS block table cover all 64 layers (100 %)" in prediction["note"]
    assert (prediction["macs"], prediction["params"]) == (
        sum(block["macs"] for block in prediction["layers"]),
        sum(block["params"] for block in prediction["layers"]),
    )
    # The MACs of torchvision's documentation: 0.3 GMAC.
    assert prediction["macs"] == pytest.approx(0.30e9, rel=0.01)

    code, out, _ = run("predict", "--lut", "T", "--model", "mobilenet_v2")
    assert code == 0
    assert "estimated, not measured" in out
    assert "by T, estimated for note8" in out
    assert "measured on" not in out


def test_a_network_of_other_blocks_is_refused_by_the_first_of_them(run, tmp_path: Path) -> None:
    keys = block_keys()
    means = means_ms(keys)
    # One that comes once: the third, which strides to 56x56.
    del means[keys[2]]
    (tmp_path / "v2.yaml").write_text(text(means))
    assert run("lut", "import", "v2.yaml", "--out", "T")[0] == 0
    code, out, err = run("predict", "--lut", "T", "--model", "mobilenet_v2")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "no block of T holds 'conv 16x112x112>96 k1 s1 p0 relu6 float32 + depthwise 96x112x112>96 k3 s2 p1" in err
    assert "from layer 4 on: its blocks cover 61 of the network's 64 layers (95 %)" in err


def test_what_was_left_out_is_said_with_its_share(run, tmp_path: Path) -> None:
    ofa = [f"expanded_conv-input:8x8x{c}-output:8x8x8-expand:48-kernel:3-stride:1-idskip:0" for c in (8, 16, 24)]
    means = {f"{ofa[0]}-se:0-hs:0": 1.0, f"{ofa[1]}-se:1-hs:0": 2.0, f"{ofa[2]}-se:0-hs:1": 3.0, "whatever": 4.0}
    (tmp_path / "ofa.yaml").write_text(text(means))
    code, out, _ = run("lut", "import", "ofa.yaml", "--out", "T")
    assert code == 0
    assert "ofa.yaml: 1 of 4 entries" in out
    assert "left out: 2 (50 %) with squeeze-and-excitation or h-swish" in out
    assert "left out: 1 (25 %) that are no blocks" in out
    assert "line 13: 'whatever': no key of a block" in out


REFUSED = {
    "profile": ["profile", "--lut", "T"],
    "profile of the replay": ["profile", "--device", "replay", "--lut", "T"],
    "search": ["search", "--target-ms", "1", "--lut", "T", "--out", "run"],
    "search on the replay": ["search", "--target-ms", "1", "--device", "replay", "--lut", "T", "--out", "run"],
    "a measured log": ["lut", "import", LOG, "--model", "bundled", "--device", "note8", "--out", "T"],
    "another block table": ["lut", "import", "more.yaml", "--device", "note8", "--out", "T"],
    "another device's": ["lut", "import", "v2.yaml", "--device", "note9", "--out", "T"],
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_table_is_read_only(what: str, run, tmp_path: Path) -> None:
    (tmp_path / "v2.yaml").write_text(text(means_ms(block_keys())))
    (tmp_path / "more.yaml").write_text(text(means_ms(block_keys(192))))
    assert run("lut", "import", "v2.yaml", "--out", "T", "--device", "note8")[0] == 0
    code, _, err = run("lut", "import", "v2.yaml", "--out", "U", "--model", "bundled")
    assert code == 2
    assert "--model would change nothing here: block tables are of no network" in err
    before = (tmp_path / "T").read_bytes()
    code, out, err = run(*REFUSED[what])
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert "T" in err
    assert (tmp_path / "T").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["notes.txt"], "notes.txt is no block table, and op-profile logs say no network: name theirs with --model"),
        (["missing.yaml"], "there is no log missing.yaml"),
        (["missing.yaml", "--format", "ofa"], "cannot read missing.yaml: No such file"),
        (["notes.txt", "--format", "proxylessnas"], "no block table"),
        (["v2.yaml", "--format", "ofa"], "--format proxylessnas"),
        (["v2.yaml", "--format", "op-profile", "--model", "bundled"], "has no op profile"),
        (["v2.yaml", LOG], f"v2.yaml is a block table and {LOG} is none"),
    ],
)
def test_what_is_no_block_table(arguments: list, message: str, run, tmp_path: Path) -> None:
    (tmp_path / "v2.yaml").write_text(text(means_ms(block_keys())))
    (tmp_path / "notes.txt").write_text("- measured on Tuesday\n")
    code, out, err = run("lut", "import", *arguments, "--out", "T")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "T").exists()
