"""The genuine Android arm64 `benchmark_model`, emulated, on a phone without the daemon."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import LayerShape

from fake_phone.arm64.elf import ANDROID_LINKER, for_glibc, is_arm64, loader
from fake_phone.arm64.emulator import Emulator, arm64_phone_missing, benchmark_model, build_system
from fake_phone.programs import PhoneState, make_phone

MISSING = arm64_phone_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
ONE_RUN = "--num_threads=1 --use_xnnpack=true --warmup_runs=1 --warmup_min_secs=0 --num_runs=2 --min_secs=0"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_system(tmp_path_factory.mktemp("system"), benchmark_model())


@pytest.fixture(scope="module")
def phone(system: Path, tmp_path_factory: pytest.TempPathFactory) -> PhoneState:
    phone = make_phone(tmp_path_factory.mktemp("phone"), abi="arm64-v8a")
    push(phone, Emulator(phone.root, system), "benchmark_model", benchmark_model(), 0o755)
    shape = LayerShape("conv", 8, 16, 4, 4)  # 2048 MACs
    (phone.root / "data/local/tmp/layer.tflite").write_bytes(layer_model(shape))
    return phone


def push(phone: PhoneState, emulator: Emulator, name: str, data: bytes, mode: int) -> Path:
    path = phone.root / "data/local/tmp" / name
    path.write_bytes(data)
    path.chmod(mode)
    emulator.on_push(path)
    return path


def shell(phone: PhoneState, command: str, code: int = 0) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=phone.root / "data/local/tmp",
        env={"PATH": f"{phone.root}/bin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done
    return done.stdout


def test_it_has_the_flags_that_it_has_on_a_phone(phone: PhoneState) -> None:
    said = shell(phone, "./benchmark_model --help", code=1)
    assert said.startswith("INFO: STARTING!\nERROR: usage: ./benchmark_model <flags>\nFlags:\n")
    assert "\n\t--use_xnnpack=false " in said
    assert said.endswith("ERROR: Benchmarking failed.\n")
    assert sum(line.startswith("\t--") for line in said.splitlines()) == 77


def test_it_times_a_layer_and_hands_all_of_it_to_xnnpack(phone: PhoneState) -> None:
    said = shell(phone, f"taskset c ./benchmark_model --graph=layer.tflite {ONE_RUN}")
    assert "Replacing 1 out of 1 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions" in said
    assert "INFO: count=1 curr=" in said
    assert "INFO: count=2 first=" in said
    assert "\nINFO: Inference timings in us: Init: " in said
    assert phone.taskset_masks[-1] == "c"


def test_it_finds_a_phones_absolute_path(phone: PhoneState) -> None:
    said = shell(phone, f"./benchmark_model --graph=/data/local/tmp/layer.tflite {ONE_RUN}")
    assert "INFO: Loaded model /data/local/tmp/layer.tflite\n" in said


def test_it_profiles_operators_on_request(phone: PhoneState) -> None:
    profiled = f"./benchmark_model --graph=layer.tflite {ONE_RUN} --enable_op_profiling=true"
    assert "Delegate/Fully Connected (NC, F32) GEMM:0\n" in shell(phone, profiled)
    shell(phone, f"{profiled} --op_profiling_output_mode=csv --op_profiling_output_file=profile.csv")
    rows = (phone.root / "data/local/tmp/profile.csv").read_text().splitlines()
    assert "node type, first, avg_ms, %, cdf%, mem KB, times called, name" in rows
    # A comma within a name is written as a tab.
    assert any(row.endswith("Delegate/Fully Connected (NC\t F32) GEMM:0") for row in rows)


def test_it_refuses_a_broken_model(phone: PhoneState) -> None:
    (phone.root / "data/local/tmp/broken.tflite").write_bytes(b"TFL3 no model")
    said = shell(phone, f"./benchmark_model --graph=broken.tflite {ONE_RUN}", code=1)
    assert "ERROR: Failed to load model broken.tflite\nERROR: Benchmarking failed.\n" in said


def test_several_threads_run(phone: PhoneState) -> None:
    said = shell(phone, f"./benchmark_model --graph=layer.tflite {ONE_RUN.replace('threads=1', 'threads=3')}")
    assert "INFO: #threads used for CPU inference: [3]\n" in said
    assert "INFO: count=2 first=" in said


def test_the_phone_says_the_checksum_of_what_was_pushed(phone: PhoneState) -> None:
    pushed = hashlib.sha256(benchmark_model()).hexdigest()
    model = hashlib.sha256((phone.root / "data/local/tmp/layer.tflite").read_bytes()).hexdigest()
    assert shell(phone, "sha256sum ./benchmark_model layer.tflite") == (
        f"{pushed}  ./benchmark_model\n{model}  layer.tflite\n"
    )
    assert shell(phone, "cp benchmark_model copied; sha256sum < copied") == f"{pushed}  -\n"
    found = shell(phone, "find . -name 'cop*' -exec sha256sum {} +")
    assert found == f"{pushed}  ./copied\n"
    assert "No such file" in shell(phone, "sha256sum missing", code=1)


def test_a_program_keeps_the_mode_it_was_pushed_with(phone: PhoneState, system: Path) -> None:
    path = push(phone, Emulator(phone.root, system), "plain", benchmark_model(), 0o644)
    assert path.stat().st_mode & 0o777 == 0o644
    shell(phone, "chmod 755 plain && ./plain --help", code=1)


def test_another_processors_program_does_not_run(phone: PhoneState, system: Path) -> None:
    own = Path(shutil.which("true") or "/bin/true").read_bytes()
    push(phone, Emulator(phone.root, system), "own", own, 0o755)
    assert shell(phone, "./own", code=126) == "/system/bin/sh: ./own: not executable: 64-bit ELF file\n"
    assert shell(phone, "sha256sum own") == f"{hashlib.sha256(own).hexdigest()}  own\n"


def test_models_libraries_and_scripts_stay_as_they_are(phone: PhoneState, system: Path) -> None:
    library = (system / "lib64/libc.so").read_bytes()
    assert is_arm64(library)
    for data in (library, b"#!/bin/sh\n", b"", b"\0\0\0\0TFL3"):
        assert push(phone, Emulator(phone.root, system), "file", data, 0o755).read_bytes() == data


def test_only_sixteen_byte_entries_of_the_dynamic_section_change() -> None:
    before = benchmark_model()
    after = for_glibc(before)
    assert loader(before) == loader(after) == ANDROID_LINKER
    changed = [index for index in range(len(before)) if before[index] != after[index]]
    assert len(after) == len(before)
    # Nine tags of eight bytes each: the lists of constructors and destructors and their sizes, and three of versions.
    assert len({index // 16 for index in changed}) == 9
    assert max(changed) - min(changed) < 34 * 16
