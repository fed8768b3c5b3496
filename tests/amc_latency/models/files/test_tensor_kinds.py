"""Types and layouts of a checkpoint's tensors: what can stand for a float32 weight does, everything else is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.models.files.weights import put_weights, read_weights


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def loaded(path: Path, name: str, tensor: Tensor) -> nn.Module:
    """Another network with the file's weights, of which one is `tensor`."""
    torch.save({**network().state_dict(), name: tensor}, path)
    torch.manual_seed(1)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    put_weights(path, other, read_weights(path))
    return other


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_any_width_become_the_networks(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = network()[3].weight.detach().to(dtype)
    found = loaded(tmp_path / "net.pth", "3.weight", weight)[3].weight
    assert found.dtype == torch.float32
    assert torch.equal(found, weight.float())
    halves = {name: tensor.to(dtype) for name, tensor in network().state_dict().items()}
    save_file(halves, tmp_path / "net.safetensors")
    other = network()
    put_weights("net.safetensors", other, read_weights(tmp_path / "net.safetensors"))
    assert other[1].num_batches_tracked.dtype == torch.int64
    assert all(parameter.dtype == torch.float32 for parameter in other.parameters())


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.float32])
def test_a_counter_may_be_of_another_type(dtype: torch.dtype, tmp_path: Path) -> None:
    found = loaded(tmp_path / "net.pth", "1.num_batches_tracked", torch.tensor(7, dtype=dtype))
    assert found[1].num_batches_tracked.item() == 7


WRONG: dict[str, tuple[Callable[[], Tensor], str]] = {
    "int8": (lambda: torch.ones(2, 4, dtype=torch.int8), "3.weight is int8"),
    "int64": (lambda: torch.ones(2, 4, dtype=torch.int64), "3.weight is int64"),
    "uint8": (lambda: torch.ones(2, 4, dtype=torch.uint8), "3.weight is uint8"),
    "bool": (lambda: torch.ones(2, 4, dtype=torch.bool), "3.weight is bool"),
    "complex": (lambda: torch.ones(2, 4, dtype=torch.complex64), "3.weight is complex64"),
    "float8": (lambda: torch.ones(2, 4).to(torch.float8_e4m3fn), "3.weight is float8_e4m3fn"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(2, 4), 0.1, 0, torch.qint8), r"quantised \(qint8\)"),
    "channels": (
        lambda: torch.quantize_per_channel(torch.ones(2, 4), torch.ones(2), torch.zeros(2), 0, torch.qint8),
        r"quantised \(qint8\)",
    ),
    "sparse": (lambda: torch.ones(2, 4).to_sparse(), r"sparse \(sparse_coo\)"),
    "rows": (lambda: torch.ones(2, 4).to_sparse_csr(), r"sparse \(sparse_csr\)"),
    "meta": (lambda: torch.ones(2, 4, device="meta"), "on the meta device, without values"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_dense_float_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    make, message = WRONG[kind]
    with pytest.raises(UserError, match=r"net\.pth: weights must be dense float tensors, and 3\.weight.*") as refusal:
        loaded(tmp_path / "net.pth", "3.weight", make())
    assert refusal.match(message)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "tensor", [torch.tensor(1.5), torch.tensor(1j), torch.tensor(float("nan"))], ids=["half", "complex", "nan"]
)
def test_a_counter_that_counts_nothing_is_refused(tensor: Tensor, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1\.num_batches_tracked is \w+ in place of int64"):
        loaded(tmp_path / "net.pth", "1.num_batches_tracked", tensor)


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(float("nan")),
        torch.tensor(float("inf")),
        torch.tensor(float("nan"), dtype=torch.float16),
        # A double that no float holds.
        torch.tensor(1e300, dtype=torch.float64),
    ],
    ids=["nan", "infinity", "half", "double"],
)
def test_values_that_are_no_numbers_are_named(value: Tensor, tmp_path: Path) -> None:
    weight = torch.ones(2, 4, dtype=value.dtype)
    weight[1, 3] = value
    with pytest.raises(UserError, match=r"net\.pth: 3\.weight holds values that are no numbers"):
        loaded(tmp_path / "net.pth", "3.weight", weight)


def test_only_the_first_are_named() -> None:
    integers = {name: torch.ones_like(tensor, dtype=torch.int8) for name, tensor in network().state_dict().items()}
    with pytest.raises(UserError, match=r"0\.weight is int8; 0\.bias is int8; 1\.weight is int8; and 5 more: write it"):
        put_weights("net.pth", network(), integers)


def test_any_strides_will_do(tmp_path: Path) -> None:
    weight = torch.arange(8.0).reshape(4, 2).T
    assert torch.equal(loaded(tmp_path / "net.pth", "3.weight", weight)[3].weight, weight)
    assert torch.equal(loaded(tmp_path / "net.pth", "3.weight", torch.ones(1).expand(2, 4))[3].weight, torch.ones(2, 4))
