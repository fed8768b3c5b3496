"""Files among photos that would hang, fill memory or run a program."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amc_latency.data.items import Skipped, read_all
from amc_latency.data.photos.files import PhotoFiles
from amc_latency.data.photos.listing import images
from amc_latency.data.photos.room import Room
from amc_latency.data.photos.view import View
from amc_latency.errors import UserError
from tests.amc_latency.data.photo_files import QUIET, looked_at


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size, and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\x02\0\0\0")
    return start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(8_001, 8_000), (13_000, 13_000), (2**31 - 1, 1)])
def test_a_photo_of_too_many_pixels_is_not_decoded(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_header(width, height))
    found = looked_at(path, (8, 8))
    assert isinstance(found, str)
    assert f"{width * height:,} pixels" in found or "decompression bomb" in found


def test_a_progressive_jpeg_needs_memory_for_its_full_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (16, 16)).save(path, progressive=True)
    said = bytearray(path.read_bytes())
    frame = said.index(b"\xff\xc2")
    for start, size in ((frame + 5, 12_000), (frame + 7, 11_000)):
        said[start : start + 2] = size.to_bytes(2, "big")
    path.write_bytes(said)
    assert looked_at(path, (8, 8)) == "a progressive JPEG of 11000x12000 pixels takes too much memory"


@pytest.mark.parametrize("header", [b"P6 #", b"P6 #a\n 2#", b"P5\n3 2 #\r#", b"P6 2 2 #"])
def test_a_comment_without_end_is_not_read_to_its_end(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.ppm"
    path.write_bytes(header + b"a" * 5000 + b"\n2 2 255\n" + bytes(12))
    assert looked_at(path, (2, 2)) == "a comment that does not end within 4,096 bytes"


@pytest.mark.parametrize("side", [2, 100])
def test_a_comment_and_pixels_that_look_like_one_are_read(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 # made by hand\n%d %d 255\n" % (side, side) + b"###" * side**2)
    assert not isinstance(looked_at(path, (2, 2)), str)


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(70):
        deep /= "a"
    deep.mkdir(parents=True)
    with pytest.raises(UserError, match="lie 64 deep and more"):
        images(tmp_path)


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    across, down = np.meshgrid(np.linspace(0, 255, 6000), np.linspace(0, 255, 4000))
    Image.fromarray(np.stack([across, down, 255 - across], 2).astype(np.uint8)).save(path, quality=95)
    found = looked_at(path, (14, 14))
    assert isinstance(found, np.ndarray)
    # The middle 7/8 of the short side: 250 of its 4000 rows are left out at each edge, and 1250 of 6000 columns.
    rows = 255 * (250 + (np.arange(14) + 0.5) * 3500 / 14) / 3999
    columns = 255 * (1250 + (np.arange(14) + 0.5) * 3500 / 14) / 5999
    assert np.abs(found[:, :, 1] - rows[:, None]).max() < 3
    assert np.abs(found[:, :, 0] - columns[None, :]).max() < 3


@pytest.mark.timeout(20)
def test_what_is_no_photo_is_named_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    # Pillow would have Ghostscript draw it.
    (tmp_path / "drawing.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    files = PhotoFiles(tmp_path, ["pipe.jpg", "zero.png", "drawing.png"], View((8, 8)), Room(100))
    with pytest.raises(UserError) as caught:
        read_all(files, range(3), Skipped("here", 3, QUIET))
    assert str(caught.value).count("no regular file") == 2
    assert "drawing.png (cannot identify image file" in str(caught.value)


@pytest.mark.timeout(20)
def test_room_is_taken_by_turns() -> None:
    room, taken, most = Room(100), 0, 0
    lock = threading.Lock()

    def take(n: int) -> None:
        nonlocal taken, most
        for _ in range(50):
            with room.taken(n):
                with lock:
                    taken += min(n, 100)
                    most = max(most, taken)
                with lock:
                    taken -= min(n, 100)

    threads = [threading.Thread(target=take, args=(n,)) for n in (30, 40, 60, 100, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, taken) == (100, 0)
