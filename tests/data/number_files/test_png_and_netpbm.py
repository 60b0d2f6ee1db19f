"""PNG and PGM, PPM and PFM files of more than 8 bits."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infomax.data.decoding.options import Decoding
from infomax.data.number_files import file_kind, read_numbers
from infomax.data.numbers import RGB_KIND

DEFAULT = Decoding()
RANDOM = np.random.default_rng(0)
COLOURS = {1: 0, 3: 2, 2: 4, 4: 6}  # a PNG's type of colour by its number of channels


def write_png(file: Path, values: np.ndarray, **chunks: bytes) -> Path:
    """Writes a PNG file of 16 bits [h, w, channels]; every second row is filtered."""
    height, width, channels = values.shape
    raw = values.astype(">u2").tobytes()
    rows = np.frombuffer(raw, np.uint8).reshape(height, -1)
    filtered = b"".join(b"\0" + row.tobytes() if y % 2 == 0 else _up(rows, y) for y, row in enumerate(rows))
    header = struct.pack(">IIBBBBB", width, height, 16, COLOURS[channels], 0, 0, 0)
    parts = [(b"IHDR", header), *((name.encode(), data) for name, data in chunks.items())]
    parts += [(b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts))
    return file


def _up(rows: np.ndarray, y: int) -> bytes:
    return b"\2" + (rows[y] - rows[y - 1]).tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def read(file: Path):
    numbers = read_numbers(file, str(file), DEFAULT)
    assert numbers.kind == file_kind(file, str(file), DEFAULT)
    assert numbers.values.dtype == numbers.kind.dtype
    return numbers


@pytest.mark.parametrize("channels", [1, 3])
def test_png_of_16_bits_keeps_each_number(tmp_path, channels):
    values = RANDOM.integers(0, 65536, (9, 7, channels)).astype(np.uint16)
    numbers = read(write_png(tmp_path / "x.png", values))
    assert (numbers.kind.channels, numbers.kind.low, numbers.kind.high) == (channels, 0, 65535)
    np.testing.assert_array_equal(numbers.values, values)


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_of_png_become_white(tmp_path, channels):
    values = RANDOM.integers(0, 65000, (9, 7, channels)).astype(np.uint16)
    opacity = np.where(np.arange(9) < 4, 65535, 0)[:, None, None].repeat(7, 1).astype(np.uint16)
    expected = np.where(opacity > 0, values, 65535)
    with_alpha = write_png(tmp_path / "x.png", np.concatenate([values, opacity], 2))
    np.testing.assert_array_equal(read(with_alpha).values, expected)
    values[4:] = 77
    one_colour = write_png(tmp_path / "y.png", values, tRNS=struct.pack(">H", 77) * channels)
    np.testing.assert_array_equal(read(one_colour).values, np.where(opacity > 0, values, 65535))


def test_orientation_of_png_is_obeyed(tmp_path):
    for channels in (1, 3):
        values = RANDOM.integers(0, 65536, (9, 7, channels)).astype(np.uint16)
        exif = Image.Exif()
        exif[0x0112] = 6
        file = write_png(tmp_path / "x.png", values, eXIf=exif.tobytes()[6:])
        np.testing.assert_array_equal(read(file).values, np.rot90(values, -1))


def test_ordinary_png_is_left_to_pillow(tmp_path):
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA"):
        Image.new("RGB", (4, 5), "red").convert(mode).save(tmp_path / "x.png")
        assert read(tmp_path / "x.png").kind is RGB_KIND


def test_pgm_and_ppm_have_the_numbers_of_the_file(tmp_path):
    for magic, channels in (("P5", 1), ("P6", 3), ("P2", 1), ("P3", 3)):
        values = RANDOM.integers(0, 4096, (5, 4, channels)).astype(np.uint16)
        header = f"{magic}\n# of a camera\n4 5\n4095\n".encode()
        text = " ".join(map(str, values.ravel())).encode()
        file = tmp_path / "x.ppm"
        file.write_bytes(header + (text if magic in ("P2", "P3") else values.astype(">u2").tobytes()))
        numbers = read(file)
        assert (numbers.kind.channels, numbers.kind.low, numbers.kind.high) == (channels, 0, 4095)
        np.testing.assert_array_equal(numbers.values, values)
        file.write_bytes(file.read_bytes()[:-5])
        with pytest.raises(
            ValueError, match=r"x.ppm cannot be read as an image: its end is missing: \d+ of \d+ numbers"
        ):
            read(file)
    file.write_bytes(b"P5 4 5 255\n" + bytes(20))
    assert read(file).kind is RGB_KIND
    file.write_bytes(b"P2 1 1 4095\n5000\n")
    with pytest.raises(ValueError, match="has the number 5000, and its header says that 4095 is the largest"):
        read(file)


def test_pfm_has_floating_point_numbers_from_the_lowest_row_on(tmp_path):
    values = RANDOM.normal(size=(5, 4, 1)).astype(np.float32)
    for scale, order in ((-1.0, "<"), (1.0, ">")):
        (tmp_path / "x.pfm").write_bytes(f"Pf\n4 5\n{scale}\n".encode() + values[::-1].astype(f"{order}f4").tobytes())
        np.testing.assert_array_equal(read(tmp_path / "x.pfm").values, values)


@pytest.mark.parametrize("content", [b"P5 99999 99999 4095\n", b"P5 999999999 999999999 65535\n12"])
def test_headers_that_claim_too_much_are_refused(tmp_path, content):
    (tmp_path / "x.pgm").write_bytes(content)
    with pytest.raises(ValueError, match="megapixels"):
        read(tmp_path / "x.pgm")


def test_a_file_that_is_no_image_is_refused(tmp_path):
    for content in (b"", b"hello", b"P9 nothing"):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(ValueError, match="x.png cannot be read as an image: cannot identify image file"):
            file_kind(tmp_path / "x.png", str(tmp_path / "x.png"), DEFAULT)
