"""PIL images in memory: those of one channel and more than 8 bits have their numbers, all others are RGB."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from infomax.data.images.pillow import PillowImages
from infomax.data.numbers import RGB_KIND

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_deep_images_have_their_numbers(dtype):
    values = RANDOM.integers(0, 60000, (6, 8)).astype(dtype)
    images = PillowImages([Image.fromarray(values), Image.new("RGB", (4, 4), "red")], None, [])
    numbers = images.read(0)
    assert (numbers.kind.channels, numbers.kind.dtype, numbers.kind) == (1, np.dtype(dtype), images.kind(0))
    assert (numbers.kind.low, numbers.kind.high) == ((0, 65535) if dtype == "uint16" else (None, None))
    np.testing.assert_array_equal(numbers.values[..., 0], values)
    assert images.kind(1) is RGB_KIND
    assert images.read(1).values.shape == (4, 4, 3)


def test_files_that_were_opened_have_the_numbers_of_the_file():
    values = RANDOM.integers(0, 4096, (6, 8)).astype(np.uint16)
    pgm = Image.open(BytesIO(b"P5 8 6 4095\n" + values.astype(">u2").tobytes()))
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, "TIFF", tiffinfo={262: 0})
    white_is_zero = Image.open(buffer)
    numbers = [PillowImages([image], None, []).read(0) for image in (pgm, white_is_zero)]
    np.testing.assert_array_equal(numbers[0].values[..., 0], values)
    assert numbers[0].kind.high == 4095
    np.testing.assert_array_equal(numbers[1].values[..., 0], 65535 - values)
