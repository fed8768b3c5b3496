"""This computer's key: made once by however many, both halves of one pair, and nobody else's to use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from amc_latency.device.adb.adb_direct import DirectTransport
from amc_latency.device.adb.adb_keys import signer
from amc_latency.device.adb.transport import TransportError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.fake_phone.adbd import FakeAdbd, parse_public_key, signature_fits

TOKEN = bytes(range(20))
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
FIRST_USER = """
import sys
from amc_latency.device.adb.adb_keys import signer
print("ready", flush=True)
sys.stdin.readline()
made = signer()
print(made.GetPublicKey().decode(), made.Sign(bytes(range(20))).hex())
"""


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "keys"
    monkeypatch.setenv("ANDROID_USER_HOME", str(folder))
    return folder


def modulus(folder: Path) -> int:
    key = serialization.load_pem_private_key((folder / "adbkey").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.public_key().public_numbers().n


def test_several_first_users_at_once_get_one_pair(keys: Path) -> None:
    command = [sys.executable, "-P", "-c", FIRST_USER]
    users = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(4)]
    for user in users:
        assert user.stdout is not None
        assert user.stdout.readline() == "ready\n"
    for user in users:
        assert user.stdin is not None
        user.stdin.write("\n")
        user.stdin.flush()
    answers = [user.communicate(timeout=60)[0].split() for user in users]
    assert len({answer[0] for answer in answers}) == 1
    public = parse_public_key((keys / "adbkey.pub").read_text())
    assert public == (modulus(keys), 65537)
    assert all(signature_fits(public, TOKEN, bytes.fromhex(answer[-1])) for answer in answers)
    assert sorted(os.listdir(keys)) == ["adbkey", "adbkey.pub"]
    assert (keys / "adbkey").stat().st_mode & 0o777 == 0o600


def test_the_library_makes_the_same_other_half(keys: Path) -> None:
    keygen = pytest.importorskip("adb_shell.auth.keygen")
    keys.mkdir()
    keygen.keygen(str(keys / "adbkey"))
    (keys / "adbkey").chmod(0o600)
    theirs = (keys / "adbkey.pub").read_bytes()
    (keys / "adbkey.pub").unlink()
    assert signer().GetPublicKey().split()[0] == theirs.split()[0]


def test_a_half_of_another_pair_is_replaced_before_a_phone_hears_of_it(keys: Path, tmp_path: Path) -> None:
    signer()
    other = (keys / "adbkey.pub").read_bytes()
    (keys / "adbkey").unlink()
    signer()
    (keys / "adbkey.pub").write_bytes(other)
    with FakeAdbd(tmp_path / "phone", auth="ask") as daemon:
        transport = DirectTransport(daemon.address)
        transport.connect()
        transport.close()
        assert daemon.known_keys == [(modulus(keys), 65537)]
    assert parse_public_key((keys / "adbkey.pub").read_text()) == (modulus(keys), 65537)


def test_what_the_user_wrote_beside_a_key_stays(keys: Path) -> None:
    signer()
    content = (keys / "adbkey.pub").read_bytes().split()[0] + b" me@here\n"
    (keys / "adbkey.pub").write_bytes(content)
    assert signer().GetPublicKey().split()[0] == content.split()[0]
    assert (keys / "adbkey.pub").read_bytes() == content


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o601])
def test_a_key_that_others_can_use_is_refused(keys: Path, mode: int) -> None:
    signer()
    (keys / "adbkey").chmod(mode)
    with pytest.raises(TransportError, match=rf"can be used by others \(mode {mode:o}\).*: chmod 600 {keys}/adbkey$"):
        signer()


def encrypted() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret"))


def short() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    return key.private_bytes(PEM, PKCS8, serialization.NoEncryption())


def elliptic() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PKCS8, serialization.NoEncryption())


@pytest.mark.parametrize("content", [lambda: b"", lambda: b"\0" * 100, encrypted, short, elliptic])
def test_what_is_no_such_key_is_said_in_a_line(keys: Path, content: object) -> None:
    keys.mkdir()
    (keys / "adbkey").write_bytes(content())  # type: ignore[operator]
    (keys / "adbkey").chmod(0o600)
    with pytest.raises(TransportError, match=r"^[^\n]*is no private key as adb makes them: delete it[^\n]*$"):
        signer()


@pytest.mark.timeout(20)
def test_a_pipe_in_a_key_s_place_is_not_waited_for(keys: Path) -> None:
    keys.mkdir()
    os.mkfifo(keys / "adbkey", 0o600)
    with pytest.raises(TransportError, match="is no regular file"):
        signer()
    (keys / "adbkey").unlink()
    os.mkfifo(keys / "adbkey.pub", 0o600)
    with pytest.raises(TransportError, match="is no regular file"):
        signer()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ANDROID_USER_HOME", str(tmp_path / "file" / "keys"))
    with pytest.raises(TransportError, match=r"cannot read or make the key .*: Not a directory"):
        signer()


def test_neither_rsa_nor_pyasn1_is_loaded() -> None:
    """The adb library requires both, for a way to sign that is not used here."""
    program = (
        "import sys; from amc_latency.device.adb import adb, adb_keys; "
        "print([m for m in ('rsa', 'pyasn1') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
