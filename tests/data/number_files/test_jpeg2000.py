"""JPEG 2000 files of more than 8 bits."""

from importlib.util import find_spec

import numpy as np
import pytest
from imagecodecs import jpeg2k_encode
from PIL import Image

from infomax.data.decoding.options import Decoding
from infomax.data.number_files import file_kind, jpeg2000, read_numbers
from infomax.data.numbers import RGB_KIND

DEFAULT = Decoding()
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "bits", "dtype"),
    [((9, 7), 16, "u2"), ((9, 7), 12, "u2"), ((9, 7), 15, "u2"), ((9, 7, 3), 12, "u2"), ((9, 7), 12, "i2")],
)
@pytest.mark.parametrize("codecformat", ["jp2", "j2k"])
def test_numbers_are_those_of_the_file(tmp_path, shape, bits, dtype, codecformat):
    low, high = (0, 2**bits) if dtype == "u2" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    values = RANDOM.integers(low, high, shape).astype(dtype)
    file = tmp_path / "x.jp2"
    file.write_bytes(jpeg2k_encode(values, level=0, codecformat=codecformat, bitspersample=bits, reversible=True))
    numbers = read_numbers(file, "x", DEFAULT)
    assert numbers.kind == file_kind(file, "x", DEFAULT)
    assert numbers.kind.high == (2**bits - 1 if dtype == "u2" else None)
    np.testing.assert_array_equal(numbers.values, values.reshape(9, 7, -1))


def test_eight_bits_are_left_to_pillow(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.jp2")
    assert file_kind(tmp_path / "x.jp2", "x", DEFAULT) is RGB_KIND


def test_a_missing_package_is_named_unless_pillow_can(tmp_path, monkeypatch):
    monkeypatch.setattr(jpeg2000, "find_spec", lambda name: None if name == "imagecodecs" else find_spec(name))
    values = RANDOM.integers(0, 4096, (9, 7, 3)).astype(np.uint16)
    (tmp_path / "x.jp2").write_bytes(jpeg2k_encode(values, level=0, bitspersample=12, reversible=True))
    with pytest.raises(
        ValueError, match="x cannot .*3 channels of uint16, which needs the package imagecodecs: .*tiff"
    ):
        file_kind(tmp_path / "x.jp2", "x", DEFAULT)


def test_truncated_files_are_refused(tmp_path):
    encoded = jpeg2k_encode(RANDOM.integers(0, 4096, (90, 70)).astype(np.uint16), level=0, bitspersample=12)
    (tmp_path / "x.jp2").write_bytes(encoded[:120])
    with pytest.raises(ValueError, match=r"x cannot be read as an image"):
        read_numbers(tmp_path / "x.jp2", "x", DEFAULT)
