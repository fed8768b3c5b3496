"""This computer's key, by which a phone knows it: the one that adb itself uses, made if there is none."""

from __future__ import annotations

import base64
import fcntl
import getpass
import os
import platform
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.device.adb.transport import TransportError
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

_BITS = 2048
_KEY_BYTES = 64_000
_FOR_OTHERS = 0o077


@dataclass(frozen=True)
class Signer:
    """What the adb library asks of a key; the names are its own."""

    key: rsa.RSAPrivateKey
    public: bytes

    def Sign(self, token: bytes) -> bytes:
        """The signature of a token that a phone made up."""
        return self.key.sign(token, padding.PKCS1v15(), utils.Prehashed(hashes.SHA1()))

    def GetPublicKey(self) -> bytes:
        """What a phone keeps of it once its user tapped Allow."""
        return self.public


def signer() -> Signer:
    """The pair `adbkey` and `adbkey.pub`, whole and fitting also where several processes are the first at once.

    Raises `TransportError` for a key that others may read, or that is none.
    """
    folder = Path(os.environ.get("ANDROID_USER_HOME") or Path.home() / ".android")
    path = folder / "adbkey"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one(folder):
            if not path.exists():
                _make(path)
            key = _read(path)
            public = _public(key)
            if not _same_key(path.with_name("adbkey.pub"), public):
                _write(path.with_name("adbkey.pub"), public, 0o644)
    except OSError as error:
        raise TransportError(f"cannot read or make the key {path}: {error.strerror}") from error
    return Signer(key, public)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Some file systems lock no folders; then the key is still made once, and its other half after it.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(path, key.private_bytes(pem, pkcs8, serialization.NoEncryption()), 0o600, over=False)


def _write(path: Path, content: bytes, mode: int, over: bool = True) -> None:
    """A whole file, or none; unless `over`, one that is there already stays, as adb may have made it just now."""
    descriptor, new = tempfile.mkstemp(prefix="adbkey-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
        if over:
            os.replace(new, path)
        else:
            try:
                os.link(new, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                os.replace(new, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(new)


def _read(path: Path) -> rsa.RSAPrivateKey:
    content = read_bytes(path, _KEY_BYTES)
    if (mode := path.stat().st_mode) & _FOR_OTHERS:
        raise TransportError(
            f"{path} can be used by others (mode {mode & 0o777:o}), and phones obey whoever has it: chmod 600 {path}"
        )
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != _BITS:
        raise TransportError(
            f"{path} is no private key as adb makes them: delete it, and adb or this program makes a new one"
        )
    return key


def _public(key: rsa.RSAPrivateKey) -> bytes:
    """The other half as phones read it: words, -1/n modulo 2^32, n, 2^4096 modulo n, exponent; and whose it is."""
    numbers = key.public_key().public_numbers()
    size, word = _BITS // 8, 1 << 32
    fields = struct.pack("<2I", size // 4, word - pow(numbers.n, -1, word))
    fields += numbers.n.to_bytes(size, "little") + pow(2, 2 * _BITS, numbers.n).to_bytes(size, "little")
    fields += struct.pack("<I", numbers.e)
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return base64.b64encode(fields) + f" {user}@{platform.node() or 'unknown'}".encode()


def _same_key(path: Path, public: bytes) -> bool:
    try:
        return read_bytes(path, _KEY_BYTES).split()[:1] == public.split()[:1]
    except FileNotFoundError:
        return False
