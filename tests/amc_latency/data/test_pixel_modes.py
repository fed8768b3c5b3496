"""Every mode of Pillow and every depth of its formats: the right grey or colour, or a refusal that names why."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amc_latency.data.photos.decoding import SUFFIXES
from amc_latency.data.photos.pixel_modes import Levels, as_bytes
from tests.amc_latency.data.photo_files import looked_at

SIZE = (12, 10)
RAMP = np.linspace(0, 1, SIZE[0] * SIZE[1]).reshape(SIZE)
INTEGERS = {
    "pgm16": ("P5", 65535),
    "pgm12": ("P5", 4095),
    "pgm10": ("P5", 1023),
    "pgm9": ("P5", 500),
    "pgm8": ("P5", 255),
    "pgm4": ("P5", 15),
    "plain16": ("P2", 65535),
    "plain12": ("P2", 4095),
}


def seen(path: Path, size: tuple[int, int] = SIZE) -> np.ndarray | str:
    """What a data set gets of the file: of a photo no larger than the network's input, all of it."""
    return looked_at(path, size)


def tiff(values: np.ndarray, photometric: int = 1, sample_format: int = 1, bits: int = 0, order: str = "<") -> bytes:
    """An uncompressed TIFF of these values [h, w] or [h, w, channels], written by the specification."""
    height, width = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1
    bits = bits or 8 * values.dtype.itemsize
    if bits == 12:
        flat = values.reshape(height, width // 2, 2).astype(int)
        first, second = flat[..., 0], flat[..., 1]
        data = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).tobytes()
    else:
        data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: samples, 278: height}
    tags |= {279: len(data), 339: sample_format}
    at = 8 + len(data) + len(data) % 2
    extra_at = at + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, value in sorted(tags.items()):
        if tag in (258, 339) and samples > 1:
            entries += struct.pack(f"{order}HHII", tag, 3, samples, extra_at + len(extra))
            extra += struct.pack(f"{order}{samples}H", *[value] * samples)
        else:
            entries += struct.pack(f"{order}HHII", tag, 4, 1, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    return head + data + b"\0" * (len(data) % 2) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + extra


def close(found: np.ndarray | str, expected: np.ndarray, most: float = 1.0) -> bool:
    assert isinstance(found, np.ndarray), found
    assert found.shape == expected.shape
    return float(np.abs(found.astype(float) - expected).max()) <= most


@pytest.mark.parametrize("kind", INTEGERS)
def test_a_pgm_is_scaled_by_its_own_maximum(tmp_path: Path, kind: str) -> None:
    magic, top = INTEGERS[kind]
    values = np.rint(RAMP * top).astype(int)
    head = f"{magic} {SIZE[1]} {SIZE[0]} {top}\n".encode()
    body = values.astype(">u2" if top > 255 else "u1").tobytes() if magic == "P5" else " ".join(map(str, values.flat))
    (tmp_path / "a.pgm").write_bytes(head + (body if isinstance(body, bytes) else body.encode()))
    assert close(seen(tmp_path / "a.pgm"), 255 * values / top)


@pytest.mark.parametrize("top", [255, 1023, 4095, 65535])
def test_a_ppm_is_scaled_by_its_own_maximum(tmp_path: Path, top: int) -> None:
    values = np.rint(np.stack([RAMP, 1 - RAMP, RAMP / 2], -1) * top).astype(">u2" if top > 255 else "u1")
    (tmp_path / "a.ppm").write_bytes(f"P6 {SIZE[1]} {SIZE[0]} {top}\n".encode() + values.tobytes())
    assert close(seen(tmp_path / "a.ppm"), 255 * values.astype(float) / top)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "sample_format", "bits", "top"),
    [
        ("u1", 1, 8, 2**8 - 1),
        ("u2", 1, 12, 2**12 - 1),
        ("u2", 1, 16, 2**16 - 1),
        ("u4", 1, 32, 2**32 - 1),
        ("i1", 2, 8, 2**7 - 1),
        ("i2", 2, 16, 2**15 - 1),
        ("i4", 2, 32, 2**31 - 1),
        ("f4", 3, 32, 1),
        ("f4", 3, 32, 255),
    ],
)
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_a_tiff_is_scaled_by_its_format(
    tmp_path: Path, dtype: str, sample_format: int, bits: int, top: int, order: str, white_is_zero: bool
) -> None:
    values = (RAMP * top).astype(dtype)
    (tmp_path / "a.tif").write_bytes(tiff(values, 0 if white_is_zero else 1, sample_format, bits, order))
    found = seen(tmp_path / "a.tif")
    if isinstance(found, str):
        # Pillow itself knows no such file.
        assert "cannot identify image file" in found
        assert (bits, sample_format) != (8, 1)
        assert (order == ">" and (bits == 12 or dtype == "u4")) or white_is_zero
        return
    grey = 255 * values.astype(float) / top
    assert close(found, 255 - grey if white_is_zero else grey)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_three_deep_channels(tmp_path: Path, order: str) -> None:
    values = np.rint(np.stack([RAMP, 1 - RAMP, RAMP / 2], -1) * 65535).astype("u2")
    (tmp_path / "a.tif").write_bytes(tiff(values, 2, order=order))
    assert close(seen(tmp_path / "a.tif"), values / 257)
    (tmp_path / "b.tif").write_bytes(tiff(values.astype("f4"), 2, 3, order=order))
    assert "cannot identify image file" in str(seen(tmp_path / "b.tif"))


@pytest.mark.parametrize(
    ("values", "sample_format", "complaint"),
    [
        (RAMP.astype("f4") * 900, 3, "floats of 0 to 900: only 0..1 and 0..255"),
        (RAMP.astype("f4") - 0.5, 3, "floats of -0.5 to 0.5"),
        (np.where(RAMP < 0.5, np.nan, RAMP).astype("f4"), 3, "floats of nan to nan"),
        (np.where(RAMP < 0.5, np.inf, RAMP).astype("f4"), 3, "floats of 0.5.* to inf"),
        ((RAMP * 99 - 50).astype("i4"), 2, "integers of -50 to 49: below 0"),
        ((RAMP * 99 - 50).astype("i2"), 2, "integers of -50 to 49: below 0"),
        ((RAMP * 99 - 50).astype("i1"), 2, "integers of -50 to 49: below 0"),
        ((RAMP * 255).astype("u4"), 1, "32-bit integers of 0 to 255: of the format's 4294967295 that is black"),
        ((RAMP * 255).astype("i4"), 2, "32-bit integers of 0 to 255: of the format's 2147483647 that is black"),
    ],
)
def test_values_of_no_range_are_refused_by_name(
    tmp_path: Path, values: np.ndarray, sample_format: int, complaint: str
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(values, 1, sample_format))
    found = seen(tmp_path / "a.tif")
    assert isinstance(found, str)
    assert found.replace("0.504202", "0.5").startswith(complaint.replace(".* ", " "))


def test_floats_that_overshoot_1_are_refused(tmp_path: Path) -> None:
    (tmp_path / "over.tiff").write_bytes(
        tiff(np.linspace(0, 1.2, 576, dtype=np.float32).reshape(24, 24), sample_format=3)
    )
    found = seen(tmp_path / "over.tiff")
    assert isinstance(found, str)
    assert "floats of 0 to 1.2: black if they are of 0..255" in found


def test_black_stays_black(tmp_path: Path) -> None:
    for number, dtype in enumerate(("u4", "f4", "u2")):
        path = tmp_path / f"{number}.tif"
        path.write_bytes(tiff(np.zeros(SIZE, dtype), 1, 3 if dtype == "f4" else 1))
        assert not np.asarray(seen(path)).any()


def painted(mode: str) -> tuple[Image.Image, np.ndarray]:
    """An image of a mode, and the bytes that it stands for: by the definition of the mode."""
    ramp = np.rint(255 * RAMP).astype(np.uint8)
    colour = np.stack([ramp, 255 - ramp, ramp // 2], -1)
    alpha = np.full_like(ramp, 200)
    match mode:
        case "1":
            return Image.fromarray(ramp > 127), np.where(ramp > 127, 255, 0)
        case "L":
            return Image.fromarray(ramp), ramp
        case "LA":
            return Image.fromarray(np.stack([ramp, alpha], -1), "LA"), ramp
        case "La":
            # Grey times its opacity.
            part = np.rint(ramp * (200 / 255)).astype(np.uint8)
            return Image.merge("LA", [Image.fromarray(part), Image.fromarray(alpha)]).convert("LA"), ramp
        case "RGB":
            return Image.fromarray(colour), colour
        case "RGBX" | "RGBA":
            return Image.merge(mode, [*Image.fromarray(colour).split(), Image.fromarray(alpha)]), colour
        case "RGBa":
            whole = Image.merge("RGBA", [*Image.fromarray(colour).split(), Image.fromarray(alpha)])
            return whole.convert("RGBa"), colour
        case "CMYK":
            return Image.fromarray(np.concatenate([255 - colour, 0 * ramp[..., None]], -1), "CMYK"), colour
        case "YCbCr":
            return Image.fromarray(colour).convert("YCbCr"), colour
        case "HSV":
            return Image.fromarray(colour).convert("HSV"), colour
        case "P" | "PA":
            image = Image.fromarray(ramp)
            palette = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) // 2], -1).astype(np.uint8)
            image.putpalette(palette.tobytes())
            return image.convert("PA") if mode == "PA" else image, palette[ramp]
        case "I;16" | "I;16L" | "I;16N" | "I;16B":
            deep = np.rint(65535 * RAMP).astype(">u2" if mode.endswith("B") else "<u2")
            return Image.frombytes(mode, SIZE[::-1], deep.tobytes()), deep / 257
    raise AssertionError(mode)


MODES = ("1", "L", "LA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "P", "PA")
WIDE_MODES = ("I;16", "I;16L", "I;16N", "I;16B")


@pytest.mark.parametrize("mode", [*MODES, *WIDE_MODES])
def test_every_mode_in_memory(mode: str) -> None:
    image, expected = painted(mode)
    assert image.mode == mode
    found = as_bytes(image, Levels(65535, bits=16))
    assert found.mode == ("L" if expected.ndim == 2 else "RGB")
    assert close(np.asarray(found), expected, 6 if mode in ("HSV", "YCbCr") else 2)


def test_grey_times_its_opacity_in_memory() -> None:
    image, _ = painted("LA")
    premultiplied = image.convert("La")
    assert premultiplied.mode == "La"
    assert close(np.asarray(as_bytes(premultiplied, Levels(None))), painted("LA")[1], 2)


def test_lab_of_known_colours() -> None:
    # CIE L*a*b* under D50 of sRGB's white, black and red, in bytes: L 0..100 as 0..255, a and b signed.
    lab = [(255, 0, 0), (0, 0, 0), (round(54.29 * 2.55), 81, 70)]
    image = Image.frombytes("LAB", (3, 1), bytes(value % 256 for each in lab for value in each))
    found = np.asarray(as_bytes(image, Levels(None)))[0].astype(int)
    assert np.abs(found - [(255, 255, 255), (0, 0, 0), (255, 0, 0)]).max() <= 6


@pytest.mark.parametrize("mode", ["I", "I;16"])
def test_integers_of_a_format_that_says_no_range(mode: str) -> None:
    image = Image.new(mode, (2, 2), 300)
    with pytest.raises(ValueError, match="range that the format does not say"):
        as_bytes(image, Levels(None))


FORMATS = {
    "png": ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"),
    "tif": ("1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "P", "PA", "I;16", "I;16B", "LAB"),
    "pgm": ("L", "I;16"),
    "ppm": ("RGB",),
    "pnm": ("L", "RGB"),
    "pbm": ("1",),
    "bmp": ("1", "L", "RGB", "P"),
    "gif": ("L", "P", "1"),
    "webp": ("RGB", "RGBA", "RGBX", "L"),
    "jpg": ("L", "RGB", "CMYK"),
    "jpeg": ("YCbCr",),
    "tiff": ("I;16L",),
}


def test_every_suffix_is_tried() -> None:
    assert {f".{suffix}" for suffix in FORMATS} == set(SUFFIXES)


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix, modes in FORMATS.items() for mode in modes])
def test_every_mode_of_every_format(tmp_path: Path, suffix: str, mode: str) -> None:
    if mode == "LAB":
        image = Image.merge(
            "LAB", [Image.fromarray(np.rint(255 * RAMP).astype(np.uint8)), *[Image.new("L", SIZE[::-1])] * 2]
        )
        expected = np.asarray(image.convert("RGB"))
    else:
        image, expected = painted(mode)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    options |= {"quality": 100, "subsampling": 0} if suffix in ("jpg", "jpeg") else {}
    path = tmp_path / f"a.{suffix}"
    image.save(path, **options)
    found = seen(path)
    if suffix == "webp" and expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, -1)
    assert close(found, expected, 4)


def test_a_palette_of_grey_is_grey_and_transparency_is_left_out(tmp_path: Path) -> None:
    ramp = np.rint(255 * RAMP).astype(np.uint8)
    grey = Image.fromarray(ramp)
    grey.putpalette(bytes(value for value in range(256) for _ in range(3)))
    grey.save(tmp_path / "grey.png")
    assert close(seen(tmp_path / "grey.png"), ramp, 0)
    colour, expected = painted("P")
    colour.save(tmp_path / "clear.png", transparency=bytes(range(256)))
    assert close(seen(tmp_path / "clear.png"), expected, 0)
    Image.fromarray(ramp).save(tmp_path / "key.png", transparency=7)
    assert close(seen(tmp_path / "key.png"), ramp, 0)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_in_a_tiff(tmp_path: Path, orientation: int, dtype: str, compression: str | None) -> None:
    """By the camera's orientation. Given a path, Pillow scrambles some of these."""
    top = {"u1": 255, "u2": 65535, "f4": 1}[dtype]
    values = (RAMP * top).astype(dtype)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(values).save(tmp_path / "a.tif", exif=exif, compression=compression)
    upright = {
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.T,
        6: np.rot90(values, -1),
        7: values[::-1, ::-1].T,
        8: np.rot90(values),
    }[orientation]
    assert close(seen(tmp_path / "a.tif", upright.shape), 255 * upright.astype(float) / top)


def test_a_picture_of_several_pages_is_its_first(tmp_path: Path) -> None:
    pages = [Image.new("L", (10, 12), value) for value in (50, 200)]
    for suffix in ("tif", "gif", "webp", "png"):
        path = tmp_path / f"a.{suffix}"
        pages[0].save(path, save_all=True, append_images=pages[1:], **({"lossless": True} if suffix == "webp" else {}))
        assert np.asarray(seen(path)).max() == 50
