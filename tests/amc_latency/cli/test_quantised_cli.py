"""`export --precision` and `accuracy` as a user meets them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from amc_latency.lut.tflite.run import tflite_ops

from amc_latency.cli.main import main

FEW = Path(__file__).parents[2] / "integration" / "few_images.py"
DATA = ("--data", f"{FEW}:fewer_images")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["amc-latency", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return code, captured.out, captured.err

    return call


def test_a_file_for_a_camera_and_its_accuracy(run, tmp_path: Path) -> None:
    path = tmp_path / "small.tflite"
    code, out, err = run("export", "--precision", "int8", "--io", "uint8", *DATA, "--out", path)
    assert code == 0, err
    assert "is the first whose output is off" not in err
    first, second, of_file, of_pytorch, takes, *_ = out.splitlines()
    assert first == f"wrote {path}, {path.stat().st_size / 1e6:.3g} MB; layers: 29 int8"
    assert second.startswith("outputs are off by ")
    assert "the same class first on " in second
    assert of_file.startswith("accuracy of the file, run by LiteRT: 9")
    assert of_file.endswith(" of 200 images")
    assert of_pytorch.startswith("of the network in PyTorch:           9")
    assert takes.startswith("takes uint8 [1, 64, 64, 1], each 0.0111093 x (q -73), and returns uint8 [1, 10], each ")
    assert "the file takes pixels of 0..255, and normalises them itself by 0.286/0.353 (fashion_mnist)" in err
    # Of a file that takes bytes nobody need say how they are normalised.
    code, out, err = run("accuracy", path, *DATA, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert f"{found['accuracy_pct']:.2f} %" in of_file
    assert found["images"] == 200
    assert found["bytes"] == path.stat().st_size
    code, out, _ = run("accuracy", path, *DATA, "--images", 50)
    assert code == 0
    assert f"{path}: " in out
    assert " of 50 images, " in out


def test_a_float_files_accuracy_is_pytorchs(run, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    code, out, err = run("export", *DATA, "--out", path, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["accuracy"] == report["pytorch_accuracy"]
    assert report["precision"] == []
    # As the checkpoint remembers: the data's own figures, in the fourth digit others, may turn an image.
    _, out, _ = run("accuracy", path, *DATA, "--json", "--normalisation", "0.286/0.353")
    assert json.loads(out)["accuracy_pct"] == report["accuracy"]["accuracy_pct"]
    _, out, err = run("accuracy", path, *DATA, "--json")
    assert abs(json.loads(out)["accuracy_pct"] - report["accuracy"]["accuracy_pct"]) < 2
    assert re.search(
        r"pixels are normalised by the data's own figures, 0\.29\d*/0\.3\d*: --normalisation says others", err
    )
    # Another normalisation is another figure.
    _, out, _ = run("accuracy", path, *DATA, "--json", "--normalisation", "raw")
    assert json.loads(out)["accuracy_pct"] < report["accuracy"]["accuracy_pct"] - 20


def test_a_precision_a_layer(run, tmp_path: Path) -> None:
    names = ",".join(["int8"] * 14 + ["float32"] * 15)
    code, out, err = run("export", "--precision", names, *DATA, "--out", tmp_path / "x.tflite", "--json")
    assert code == 0, err
    assert json.loads(out)["precision"] == names.split(",")
    ops = tflite_ops((tmp_path / "x.tflite").read_bytes())
    assert (ops["QUANTIZE"], ops["DEQUANTIZE"]) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--precision", "int8"], "--data is missing: int8 needs the ranges of real images, such as --data bundled"),
        (["--io", "uint8"], "--data is missing"),
        (["--precision", "int7", *DATA], "--precision: no precision is called 'int7'"),
        (["--precision", "int8,int8", *DATA], "--precision has 2 names, and the network 29 layers"),
        (
            ["--calibration-images", "5", *DATA],
            "--calibration-images would change nothing here: float32",
        ),
        (["--precision", "int8", "--calibration-images", "0", *DATA], "--calibration-images is at least 1, not 0"),
        (["--precision", "int8", "--converter", "onnx2tf", *DATA], "--converter onnx2tf writes float32 alone"),
        (["--precision", "int8", "--data", "nowhere"], "no data source is called"),
        (["--precision", "int8", *DATA, "--pixels", "1,2"], "is no normalisation"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    run, tmp_path: Path, arguments: list[str], says: str
) -> None:
    code, _, err = run("export", *arguments, "--out", tmp_path / "x.tflite")
    assert code == 2
    assert says in err
    assert not (tmp_path / "x.tflite").exists()


def test_few_calibration_images_are_warned_of(run, tmp_path: Path) -> None:
    arguments = ("export", "--precision", "int8", *DATA, "--calibration-images", 5, "--out", tmp_path / "x.tflite")
    code, _, err = run("--quiet", *arguments)
    assert code == 0
    assert "5 different calibration images: ranges of fewer than 20 may cut off what others have" in err


def test_files_that_have_no_accuracy(run, tmp_path: Path) -> None:
    assert run("accuracy", tmp_path / "missing.tflite", *DATA)[0] == 2
    (tmp_path / "notes.tflite").write_text("only some text")
    code, _, err = run("accuracy", tmp_path / "notes.tflite", *DATA)
    assert code == 2
    assert "notes.tflite is not a .tflite file" in err
