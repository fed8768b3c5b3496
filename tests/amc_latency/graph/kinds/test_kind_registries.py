"""The two registries of kinds: each kind that the table knows can be made, written and joined, and by one record."""

from __future__ import annotations

from importlib import import_module
from itertools import chain
from pkgutil import iter_modules

from amc_latency.lut.imports.op_join import OPS
from amc_latency.lut.shapes import kinds as lut_kinds
from amc_latency.lut.shapes.registry import KINDS

from amc_latency.graph import kinds
from amc_latency.graph.registry import FUNCTIONS, MADE, MODULES, PLAIN, TORCH_KINDS


def listed(package: object) -> list[object]:
    """All records of a package's modules."""
    names = [f"{package.__name__}.{module.name}" for module in iter_modules(package.__path__)]  # type: ignore[attr-defined]
    return list(chain.from_iterable(import_module(name).KINDS for name in names))


def test_no_two_records_claim_the_same() -> None:
    assert len(listed(lut_kinds)) == len(KINDS)
    records = listed(kinds)
    assert len(records) == len(TORCH_KINDS)
    for registry, field in ((MODULES, "modules"), (FUNCTIONS, "functions"), (MADE, "made")):
        claimed = [each for record in records for each in dict.fromkeys(getattr(record, field))]
        assert sorted(map(str, claimed)) == sorted(map(str, registry))


def test_every_kind_of_a_table_is_made_of_a_network_and_found_in_a_log() -> None:
    assert MADE.keys() | {"noop", "quantize", "dequantize"} == KINDS.keys()
    roles = set(chain.from_iterable(OPS.values()))
    assert KINDS.keys() - roles == {"noop"}
    for name, made in MADE.items():
        # What has weights in a table is written with a module's own.
        assert (made.weight_axes is not None) == (name in ("conv", "depthwise", "grouped", "linear", "transposed"))
    assert all(made.rectified in ("", *MADE) for made in MADE.values())


def test_a_function_of_bare_parameters_is_a_kind_of_its_own_module() -> None:
    for plain in PLAIN.values():
        assert set(plain.tensors) < set(plain.arguments)
