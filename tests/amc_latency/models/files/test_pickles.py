"""Pickles that are no weights are refused by their opcodes, before anything is made of them."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from amc_latency.errors import UserError
from amc_latency.models.files.pickles import why_not_run
from amc_latency.models.files.weights import read_weights


def nested(levels: int) -> bytes:
    """A dict whose key is a tuple of twice the tuple before, that many times: its hash takes 2^levels steps."""
    memo = [b"q" + bytes([0])]
    body = b"\x80\x02)" + memo[0]
    for i in range(levels):
        body += b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    return body + b"}h" + bytes([levels]) + b"K\x01s."


def archive(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", pickled)
        file.writestr("a/version", b"3\n")
    return path


def old_style(pickled: bytes) -> bytes:
    first = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(each, protocol=2) for each in first) + pickled


BYTEARRAY = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05" + (3_000_000_000).to_bytes(5, "little") + b"\x85R."


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("levels", "message"), [(45, "tuples in one another"), (24, "tuples in one another")])
def test_tuples_of_tuples_are_refused_at_once(tmp_path: Path, levels: int, message: str) -> None:
    for content in (None, old_style(nested(levels))):
        path = tmp_path / "a.pt"
        archive(path, nested(levels)) if content is None else path.write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            read_weights(path)
        assert len(str(caught.value)) < 1000


@pytest.mark.timeout(20)
def test_a_bytearray_is_refused_in_old_files_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(old_style(BYTEARRAY))
    with pytest.raises(UserError, match="it holds a bytearray"):
        read_weights(path)
    with pytest.raises(UserError, match="it holds a bytearray"):
        read_weights(archive(tmp_path / "b.pt", BYTEARRAY))


@pytest.mark.parametrize("new", [True, False])
def test_weights_are_read_as_ever(tmp_path: Path, new: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    state = collections.OrderedDict(model.state_dict())
    checkpoint = {"state_dict": state, "epoch": 3, "args": {"sizes": [(1, 2), ((3, 4), 5)]}}
    for content in (state, checkpoint):
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        found = read_weights(tmp_path / "a.pt")
        assert all(torch.equal(tensor, found[name]) for name, tensor in state.items())


def test_keys_that_are_no_text_are_named_by_their_type(tmp_path: Path) -> None:
    torch.save({(1, 2): 3, "x" * 5000: 4}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="with a tuple, xxx") as caught:
        read_weights(tmp_path / "a.pt")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("protocol", range(2, 6))
def test_the_stack_is_followed_in_every_protocol(protocol: int) -> None:
    value = {"a": [(1, 2.5, "x"), {3: (4, 5, 6, 7)}, b"y", None, True], "b": frozenset([1]), "c": range(3)}
    assert why_not_run(io.BytesIO(pickle.dumps(value, protocol))) is None
    deep: object = ()
    for _ in range(20):
        deep = (deep, 1, 2, 3)
    assert "tuples" in str(why_not_run(io.BytesIO(pickle.dumps(deep, protocol))))
    assert "broken" in str(why_not_run(io.BytesIO(b"\x80\x02h\x07.")))
