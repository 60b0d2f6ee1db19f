"""What is said of images with more than 8 bits that an encoder of 8-bit RGB, or one with its own range, is given."""

import io

import numpy as np
import pytest
from PIL import Image

from infomax.data.augmentation.views import View, ViewSet
from infomax.data.decoding.options import Decoding
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.files import FileImages
from infomax.data.images.pillow import PillowImages
from infomax.data.pixel_format import RGB, PixelFormat
from infomax.data.preview import draw_views
from infomax.data.range_notes import range_notes
from infomax.data.sources.location import DataLocation
from infomax.training.opening import open_measured

NUMBERS = np.linspace(328, 2736, 64).round().astype(np.uint16).reshape(8, 8)
DARK = "1 channel of uint16: 328 to 2736 becomes 1 to 11 of the 0 to 255 of 8-bit RGB (--value-range)"
CURE = "no number is above 2736: --value-range 0,4095 (12 bits) would use the whole range"


@pytest.fixture
def files(tmp_path):
    Image.fromarray(NUMBERS).save(tmp_path / "0.png")
    Image.fromarray(NUMBERS).save(tmp_path / "1.tif")
    Image.new("RGB", (8, 8)).save(tmp_path / "2.png")
    (tmp_path / "3.png").write_bytes(b"damaged")
    return FileImages(tmp_path, ["0.png", "1.tif", "2.png", "3.png"], None, [])


@pytest.fixture(params=["files", "array", "pillow"])
def images(request, files):
    made = {
        "array": lambda: ArrayImages(NUMBERS[None, ..., None], None, []),
        "pillow": lambda: PillowImages([Image.fromarray(NUMBERS)], None, []),
    }
    return files if request.param == "files" else made[request.param]()


def test_images_of_each_source_that_become_almost_black_are_said_with_the_range_that_helps(images):
    assert range_notes(images, RGB) == [DARK, CURE]
    (line,) = range_notes(images.decoded_by(Decoding((0, 4095))), RGB)
    assert line == DARK.replace("1 to 11", "20 to 170")


def test_the_share_of_numbers_beyond_a_narrow_range_is_said(images):
    (line,) = range_notes(images.decoded_by(Decoding((1000, 2000))), RGB)
    share = ((NUMBERS <= 1000) | (NUMBERS >= 2000)).mean()
    assert line == f"{DARK.replace('1 to 11', '0 to 255')}; {share:.0%} of the pixels become black or white"


def test_what_is_opened_to_train_on_says_so(files):
    (files.root / "3.png").unlink()
    source = open_measured(DataLocation(str(files.root), channels=3))
    assert (source.measured, list(source.notes[-2:])) == (None, [DARK, CURE])


def test_a_damaged_file_of_16_bits_is_said_to_be_damaged_and_not_of_another_kind(files):
    file = files.root / "0.png"
    file.write_bytes(file.read_bytes()[:60])
    for open_image in (files.open, files.open_pixels):
        with pytest.raises(ValueError, match=r"0\.png cannot be read") as caught:
            open_image(0)
        assert "the encoder takes 8-bit RGB" not in str(caught.value)


def test_an_array_becomes_bytes_by_the_range_that_is_given():
    images = ArrayImages(NUMBERS[None, ..., None], None, []).decoded_by(Decoding((0, 4095)))
    expected = (NUMBERS * (255 / 4095)).round()
    np.testing.assert_array_equal(images.open_pixels(0), np.broadcast_to(expected[..., None], (8, 8, 3)))
    index = np.array([0])
    assert images.state(index) != images.decoded_by(Decoding()).state(index)  # other features, so another key


def test_images_of_bytes_have_no_range_and_those_that_are_bright_no_cure():
    assert range_notes(ArrayImages(np.zeros((2, 4, 4, 3), np.uint8), None, []), RGB) == []
    bright = ArrayImages(NUMBERS[None, ..., None] * np.uint16(16), None, [])
    assert [line.partition(":")[0] for line in range_notes(bright, RGB)] == ["1 channel of uint16"]


def test_an_encoder_that_keeps_its_range_is_said_with_it():
    images = ArrayImages(NUMBERS[None, ..., None], None, [])
    assert range_notes(images, PixelFormat(channels=1, low=(0.0,), high=(4095.0,))) == []
    (line,) = range_notes(images, PixelFormat(channels=1, low=(0.0,), high=(65535.0,)))
    assert "no number is above 2736: these images are almost black to this encoder, which takes 0 to 65535" in line


def test_three_channels_of_16_bits_are_said_without_an_option_that_does_nothing():
    images = ArrayImages(np.stack([NUMBERS] * 3, -1)[None], None, [])
    assert "--value-range" not in "".join(notes := range_notes(images, RGB))
    assert (
        notes[1] == "no number is above 2736: these images are almost black; save them as 8-bit RGB, with the range "
        "that is meant"
    )


@pytest.mark.parametrize(("decoding", "brightest"), [(Decoding(), 11), (Decoding((0, 4095)), 170)])
def test_a_picture_of_views_shows_what_is_trained_on(images, decoding, brightest):
    plain = View(size=8, flip=0.0, jitter=0.0, grayscale=0.0)
    picture = draw_views(images.decoded_by(decoding), ViewSet(global_crops=(plain, plain)), seed=0, title="", rows=1)
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)))
    top = next(y for y in range(40, len(pixels)) if (pixels[y, 24] < 100).all())  # below the words
    assert pixels[top + 4 : top + 90, 28:100].max() <= brightest
    crops = pixels[top + 4 : top + 90, 310:420]
    assert crops[(crops < 200)].max() <= brightest + 1
