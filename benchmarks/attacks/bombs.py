"""Small files that say they are large, and large ones of nothing: refused in a sentence, in little memory and time."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.attacks.commands import command
from benchmarks.attacks.harness import Attack, Case, Wrong

_GB = 1 << 30
_LENET = ("--model", "lenet5", "--weights")
_CLASSES = ("a", "b")


def attacks() -> list[Attack]:
    """All of them; a quick run has the first few."""
    return [Attack("bombs", _bombs, len(BOMBS), 12, case_s=60.0)]


def _bombs(folder: Path) -> Callable[[Case], None]:
    def try_case(case: Case) -> None:
        name, (make, *arguments) = list(BOMBS.items())[case.number % len(BOMBS)]
        case.note = name
        place = Path(f"bomb-{case.number}")
        place.mkdir()
        path = place / str(arguments[0])
        assert callable(make)
        make(path)
        words = [str(word).replace("FILE", str(path)).replace("DIR", str(place)) for word in arguments[1:]]
        said = command(*words)
        if said.code == 0 and not name.endswith("(may pass)"):
            raise Wrong(f"it was taken: {said.out[-300:]}")

    return try_case


def deflated_zeros(size: int, level: int = 9) -> Iterator[bytes]:
    """A raw deflate stream of so many zeros, without the time that it takes to compress them."""
    piece = 1 << 24
    press = zlib.compressobj(level, zlib.DEFLATED, -15)
    press.compress(bytes(piece))
    press.flush(zlib.Z_FULL_FLUSH)
    block = press.compress(bytes(piece)) + press.flush(zlib.Z_FULL_FLUSH)
    for _ in range(size // piece):
        yield block
    yield zlib.compressobj(level, zlib.DEFLATED, -15).flush()


def _zip_bomb(entry: str, size: int) -> Callable[[Path], None]:
    """A `.pt` one of whose entries is far larger than its file."""

    def make(path: Path) -> None:
        import torch

        file = io.BytesIO()
        torch.save({"weight": torch.zeros(4, 4)}, file)
        plain = {each.filename: each for each in zipfile.ZipFile(file).infolist()}
        source = zipfile.ZipFile(file)
        with path.open("wb") as out:
            central, count = b"", 0
            for name in plain:
                inner = name.partition("/")[2]
                if inner == entry:
                    parts, method, whole = list(deflated_zeros(size)), 8, size
                else:
                    content = source.read(name)
                    parts, method, whole = [content], 0, len(content)
                packed = sum(map(len, parts))
                check = zlib.crc32(b"".join(parts)) if method == 0 else 0
                start = out.tell()
                head = struct.pack("<HHHHHLLLHH", 20, 0, method, 0, 0x21, check, packed, whole, len(name), 0)
                out.write(b"PK\x03\x04" + head + name.encode())
                for part in parts:
                    out.write(part)
                tail = struct.pack("<HHHLL", 0, 0, 0, 0, start)
                central += (
                    b"PK\x01\x02" + struct.pack("<H", 20) + head[:-2] + struct.pack("<H", 0) + tail + name.encode()
                )
                count += 1
            start = out.tell()
            out.write(central + b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, count, count, len(central), start, 0))

    return make


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def _png(width: int, height: int, colour: int = 2, whole: bool = True) -> bytes:
    """A PNG of that many black pixels, in few bytes."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    size = height * (1 + width * channels) if whole else 1 << 24
    # The end of the stream lacks its checksum, which decoders don't need to have made all pixels.
    stream = b"\x78\xda" + b"".join(deflated_zeros(size + (1 << 24)))
    head = struct.pack(">LLBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", stream) + _chunk(b"IEND", b"")


def _photos(make: Callable[[], bytes], suffix: str, count: int = 4) -> Callable[[Path], None]:
    """A folder of small photos of two classes, and a few of another sort among them."""

    def fill(path: Path) -> None:
        from PIL import Image

        draw = random.Random(0)
        for name in _CLASSES:
            (path / name).mkdir(parents=True)
            for i in range(60):
                Image.frombytes("RGB", (32, 32), draw.randbytes(32 * 32 * 3)).save(path / name / f"{i}.png")
        content = make()
        for i in range(count):
            (path / _CLASSES[i % 2] / f"bomb-{i}{suffix}").write_bytes(content)

    return fill


def _jpeg() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (12_000, 12_000)).save(file, "JPEG", quality=30)
    return file.getvalue()


def _gif() -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0)
        + bytes(6)
        + b"\x2c"
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\x02\x02\x4c\x01\x00;"
    )


def _bmp() -> bytes:
    return (
        b"BM"
        + struct.pack("<LHHL", 1 << 20, 0, 0, 54)
        + struct.pack("<LllHHLLllLL", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(9000)
    )


def _text_png() -> bytes:
    small = _png(32, 32)
    text = b"x\0\0" + b"\x78\xda" + b"".join(deflated_zeros(2 * _GB))
    return small[:33] + _chunk(b"zTXt", text) + small[33:]


def _sparse(gb: int, head: bytes = b"") -> Callable[[Path], None]:
    """A file of zeros that takes no room."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.write(head)
            file.truncate(gb * _GB)

    return make


def _safetensors(
    header: bytes | Callable[[], bytes], size: int | None = None, data: bytes = b""
) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        text = header() if callable(header) else header
        path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + data)

    return make


def _spec(**fields: object) -> Callable[[Path], None]:
    """A checkpoint of one tensor, whose description says what it likes."""
    spec = {"name": "lenet5", "width": 1.0, "input": [1, 28, 28], "classes": 10, "channels": None, **fields}
    return _described(json.dumps(spec))


def _described(spec: str) -> Callable[[Path], None]:
    header = {"__metadata__": {"amc_latency_spec": spec}, "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    return _safetensors(json.dumps(header).encode(), data=bytes(4))


def _many_tensors() -> bytes:
    one = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return json.dumps({f"t{i}": one for i in range(400_000)}).encode()


def _log(*parts: bytes, times: int = 1) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            for part in parts:
                for _ in range(times):
                    file.write(part)

    return make


def _laughs(path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path.write_text("Conv-input:224x224x3-output:112x112x32:\n  mean: 1\n" + "\n".join(lines) + "\n")


def _nothing(path: Path) -> None:
    pass


_TRAIN = (
    "train",
    "--model",
    "lenet5",
    "--width",
    0.2,
    "--image-size",
    32,
    "--epochs",
    1,
    "--out",
    "DIR/net.safetensors",
)
_PHOTOS = (*_TRAIN, "--data", "folder:FILE")
_INSPECT = ("inspect", "--model", "FILE")
_WEIGHTS = ("inspect", *_LENET, "FILE")
_IMPORT = ("lut", "import", "FILE", "--out", "DIR/t.tsv")
_TABLE_TITLE = b"# amc-latency latency table, schema 3\n"

BOMBS: dict[str, tuple[object, ...]] = {
    "a .pt whose data are 4 GB of zeros": (_zip_bomb("data/0", 4 * _GB - (1 << 24)), "x.pt", *_WEIGHTS),
    "a .pt whose pickle is 2 GB of zeros": (_zip_bomb("data.pkl", 2 * _GB), "x.pt", *_WEIGHTS),
    "a .pt whose byteorder is 2 GB": (_zip_bomb("byteorder", 2 * _GB), "x.pt", *_WEIGHTS),
    "--classes 1000000 --width 16": (
        _nothing,
        "x",
        "inspect",
        "--model",
        "mobilenet_v1",
        "--width",
        16,
        "--classes",
        1000000,
    ),
    "a description of 10**9 channels": (_spec(channels=[10**9] * 4), "x.safetensors", *_INSPECT),
    "a description of 10**18 classes": (_spec(classes=10**18), "x.safetensors", *_INSPECT),
    "a description of Infinity classes": (_spec(classes=float("inf")), "x.safetensors", *_INSPECT),
    "a description that is deep": (_described("[" * 100_000), "x.safetensors", *_INSPECT),
    "a header of 2**62 bytes": (_safetensors(b"{}", 1 << 62), "x.safetensors", *_INSPECT),
    "a header that is deep": (_safetensors(b'{"a":' + b"[" * 100_000), "x.safetensors", *_INSPECT),
    "a log of 10 GB of nothing": (_sparse(10), "x.log", *_IMPORT, "--model", "lenet5"),
    "a table of 10 GB of nothing": (_sparse(10), "x.tsv", "lut", "check", "FILE"),
    "photos of 13000 x 13000 (may pass)": (_photos(lambda: _png(13_000, 13_000), ".png"), "photos", *_PHOTOS),
    "photos of 7900 x 7900 (may pass)": (_photos(lambda: _png(7_900, 7_900), ".png", 8), "photos", *_PHOTOS),
    "photos of 60000 x 60000 (may pass)": (
        _photos(lambda: _png(60_000, 60_000, whole=False), ".png"),
        "photos",
        *_PHOTOS,
    ),
    "photos with an alpha of 7900 x 7900 (may pass)": (
        _photos(lambda: _png(7_900, 7_900, 6), ".png"),
        "photos",
        *_PHOTOS,
    ),
    "JPEGs of 12000 x 12000 (may pass)": (_photos(_jpeg, ".jpg"), "photos", *_PHOTOS),
    "GIFs of 65535 x 65535 (may pass)": (_photos(_gif, ".gif"), "photos", *_PHOTOS),
    "BMPs of 60000 x 60000 (may pass)": (_photos(_bmp, ".bmp"), "photos", *_PHOTOS),
    "PNGs with 2 GB of text (may pass)": (_photos(_text_png, ".png"), "photos", *_PHOTOS),
    "photos of 10 GB of nothing (may pass)": (_photos(lambda: b"", ".png"), "photos", *_PHOTOS),
    "a width of 10**9": (_nothing, "x", "inspect", "--model", "lenet5", "--width", "1e9"),
    "a width of Infinity": (_nothing, "x", "inspect", "--model", "mobilenet_v2", "--width", "inf"),
    "a width of NaN": (_nothing, "x", "inspect", "--model", "mobilenet_v2", "--width", "nan"),
    "an input of 100000 x 100000": (_nothing, "x", "inspect", "--model", "mobilenet_v1", "--input", "3x100000x100000"),
    "a training on images of 10**6": (_nothing, "x", *_TRAIN[:6], 1000000, *_TRAIN[7:], "--data", "bundled"),
    "a description of a width of 10**9": (_spec(width=1e9), "x.safetensors", *_INSPECT),
    "a description of a width of NaN": (_spec(width=float("nan")), "x.safetensors", *_INSPECT),
    "a description of an input of 10**6": (_spec(input=[1, 10**6, 10**6]), "x.safetensors", *_INSPECT),
    "a description of an input of 10**6, a MobileNet": (
        _spec(name="mobilenet_v1", input=[3, 10**6, 10**6]),
        *("x.safetensors", *_INSPECT),
    ),
    "a description of a name of 10 MB": (_spec(name="x" * 10_000_000), "x.safetensors", *_INSPECT),
    "a description with a digit too many": (_described('{"classes": ' + "9" * 5000 + "}"), "x.safetensors", *_INSPECT),
    "a header of 90 MB of brackets": (_safetensors(lambda: b"[" * 90_000_000), "x.safetensors", *_INSPECT),
    "a header of 400,000 tensors": (_safetensors(_many_tensors), "x.safetensors", *_INSPECT),
    "a checkpoint of 20 GB of nothing": (_sparse(20, struct.pack("<Q", 2) + b"{}"), "x.safetensors", *_INSPECT),
    "weights of 20 GB of nothing": (_sparse(20, b"PK\x03\x04"), "x.pt", *_WEIGHTS),
    "a .tflite of 10 GB of nothing": (_sparse(10, b"\x1c\0\0\0TFL3"), "x.tflite", "bench", "FILE"),
    "a table of one endless line": (
        _log(_TABLE_TITLE, b"# device: ", b"x" * (1 << 20), times=150),
        "x.tsv",
        "lut",
        "check",
        "FILE",
    ),
    "a table of 100 MB of damage": (
        _log(_TABLE_TITLE, b"x\ty\n" * (1 << 18), times=100),
        "x.tsv",
        "lut",
        "show",
        "FILE",
    ),
    "a log of 150 MB of titles": (
        _log(b"====== Run Order ======\n" * 100_000, times=60),
        "x.log",
        *_IMPORT,
        "--model",
        "lenet5",
    ),
    "a log of one line of 150 MB": (_log(b"=" * (1 << 20), times=150), "x.log", *_IMPORT, "--model", "lenet5"),
    "a log of 150 MB of tabs": (_log(b"\t" * 999 + b"\n", times=150_000), "x.log", *_IMPORT, "--model", "lenet5"),
    "YAML that grows (may pass)": (_laughs, "x.yaml", *_IMPORT),
    "YAML that is deep": (_log(b"Conv-input:2x2x3-output:1x1x3: ", b"[" * 500_000), "x.yaml", *_IMPORT),
    "YAML of 100 MB of keys": (
        _log(b"Conv-input:224x224x3-output:112x112x32: {mean: 1}\n" * 20_000, times=100),
        "x.yaml",
        *_IMPORT,
    ),
}
