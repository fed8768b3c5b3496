"""What a phone's programs print, made up by whoever knows the checksums: an error or a sample, never a traceback."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from amc_latency.android_bench.amc_bench import AmcBench
from amc_latency.android_bench.benchmark_model import BenchmarkModel
from amc_latency.android_bench.phone.state import NEEDED_PROGRAMS, parse_info
from amc_latency.android_bench.printed.log_lines import printed
from amc_latency.android_bench.runner import ParseError, RunnerError, Sample
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.android_bench.script import RunPaths, parse_block, parse_poll
from hypothesis import given, settings
from hypothesis import strategies as st

RUNNER = AmcBench({"amc_bench": b"program", "libLiteRt.so": b"library"})
ROW: dict[str, Any] = {
    "index": 0,
    "model": "a",
    "status": "ok",
    "delegated": True,
    "before": ["1"],
    "after": ["1"],
    "n": 20,
    "min_us": 1.0,
    "median_us": 2.0,
    "mean_us": 3.0,
    "std_us": 0.5,
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def text_of(row: dict[str, Any], **header: Any) -> str:
    from tests.android_bench.test_amc_bench import line

    first = {"program": "amc_bench", "version": "1"} | header
    return line(first) + line(row) + line({"done": 1})


def test_the_row_is_good_as_it_is() -> None:
    assert RUNNER.parse(text_of(ROW), ["a"], 0) == [Sample("a", 20, 1.0, 2.0, 3.0, 0.5, True, ("1",), ("1",))]


@pytest.mark.parametrize("field", [*ROW, "error", "fatal", "op_profile"])
@settings(max_examples=30, deadline=None)
@given(value=ANYTHING)
def test_any_value_in_any_field(field: str, value: Any) -> None:
    text = text_of(ROW | {field: value})
    for code in (0, 1):
        try:
            (sample,) = RUNNER.parse(text, ["a"], code)
        except ParseError:
            continue
        if sample.error is None:
            figures = (sample.min_us, sample.median_us, sample.mean_us, sample.std_us)
            assert all(type(us) in (int, float) and 0 <= us < math.inf for us in figures)  # type: ignore[operator]
            assert type(sample.n) is int
            assert all(isinstance(said, str) for said in (*sample.before, *sample.after))
        else:
            assert shown_line(sample.error, 1000) == sample.error
        with suppress(RunnerError):
            assert isinstance(RUNNER.op_profile(text, "a", code), str)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"a":' * 100_000, '{"n":' + "9" * 10_000, '{"n":NaN', '{"n":1e999'])
def test_json_that_no_program_prints(body: str) -> None:
    import zlib

    head = body if body.startswith("{") else f'{{"n":{body}'
    with pytest.raises(ParseError):
        RUNNER.parse(f'{head},"crc":"{zlib.crc32(head.encode()):08x}"}}\n', ["a"], 0)


@pytest.mark.parametrize("models", ["'a", '"', "a\\"])
def test_a_block_whose_models_are_half_quoted(models: str) -> None:
    with pytest.raises(ParseError, match="a block's models are"):
        parse_block(f"@amc models {models}\n@amc end\n", RUNNER, RunPaths("/p", "/m", "/r"))


@pytest.mark.parametrize("code", ["\N{SUPERSCRIPT TWO}", "9" * 5000, "", "-1"])
def test_a_block_whose_exit_code_is_none(code: str) -> None:
    state = "@amc state\ntime=1\nend=1\n"
    text = f"@amc models a\n{state}@amc run\n\n@amc code {code}\n{state}@amc end\n"
    with pytest.raises(ParseError, match="an exit code is a number"):
        parse_block(text, RUNNER, RunPaths("/p", "/m", "/r"))


def test_what_a_poll_says_is_shown_without_its_escapes() -> None:
    with pytest.raises(ParseError) as told:
        parse_poll("@amc \x1b[2J\n")
    assert str(told.value).isprintable()


def info(**said: str) -> str:
    names = ("model", "manufacturer", "device", "soc", "platform", "android", "sdk", "abi", "fingerprint")
    pairs = [f"{name}={said.get(name, '')}" for name in (*names, "machine", "bionic", "temporary")]
    pairs += [f"benchmark_model={said['benchmark_model']}"] if "benchmark_model" in said else []
    return "\n".join([*pairs, f"end={len(pairs)}"]).replace("bionic=\n", "bionic=1\n")


def test_a_phone_s_names_are_kept_without_control_characters() -> None:
    found = parse_info(info(model="Pixel\x1b]0;owned\x07", soc="\u202eG3", abi="arm64\x9b", fingerprint="x" * 999))
    assert (found.model, found.soc, found.abi) == ("Pixel\\x1b]0;owned\\x07", "\\u202eG3", "arm64\\x9b")
    assert found.title == "Pixel\\x1b]0;owned\\x07 (\\u202eG3)"
    assert found.fingerprint is not None
    assert len(found.fingerprint) == 200


def test_paths_that_cannot_be_shown_are_no_paths() -> None:
    assert parse_info(info(benchmark_model="/data/local/tmp/\x1b[Abenchmark_model")).benchmark_models == ()
    with pytest.raises(ParseError) as told:
        parse_info(info(temporary="/data/\x1b[2J"))
    assert str(told.value).isprintable()
    assert "setsid" in NEEDED_PROGRAMS


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["\n", " ", "\t\n", "--a=", "\x1b]", "=", "= ", "\r", "native : "])
def test_no_text_takes_for_ever(piece: str) -> None:
    """A tenth of what a phone may send. A search that goes back from every place would take hours."""
    text = piece * (1_600_000 // len(piece))
    printed(text)
    with pytest.raises(RunnerError):
        BenchmarkModel.from_help(text, "./benchmark_model", "0" * 64)
