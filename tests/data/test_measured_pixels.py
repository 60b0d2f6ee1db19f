"""The numbers of images that are not 8-bit RGB: their kind, their range, and their mean and spread."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from infomax.data.decoding.options import parse_value_range
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import FormattedImages
from infomax.data.images.files import FileImages
from infomax.data.images.selection import select_images
from infomax.data.measured_pixels import PixelChoice, measure_pixels
from infomax.data.numbers import to_pixels
from infomax.data.pixel_format import RGB, PixelFormat

RANDOM = np.random.default_rng(0)
GRAY16 = np.zeros((3, 4, 4, 1), np.uint16)


def arrays(values):
    return ArrayImages(np.asarray(values), None, [])


def choice(value_range=None, **options):
    return PixelChoice(value_range=None if value_range is None else parse_value_range(value_range), **options)


def test_rgb_bytes_keep_the_normalisation_of_the_recipe():
    assert measure_pixels(arrays(RANDOM.integers(0, 256, (4, 6, 6, 3), np.uint8)), choice()) is None
    assert measure_pixels(arrays(RANDOM.integers(0, 256, (4, 6, 6, 3), np.uint8)), choice(channels=3)) is None


def test_an_array_is_measured_to_the_last_number():
    values = RANDOM.integers(0, 4000, (40, 7, 5, 4), np.uint16)
    measured = measure_pixels(arrays(values), choice())
    assert measured is not None
    assert measured.pixel_format == PixelFormat(channels=4, low=(0.0,) * 4, high=(65535.0,) * 4)
    expected = values.reshape(-1, 4) / 65535
    np.testing.assert_allclose(measured.mean, expected.mean(0), rtol=1e-5)
    np.testing.assert_allclose(measured.std, expected.std(0), rtol=1e-5)
    notes = "; ".join(measured.notes)
    assert "4 channels of uint16: 0 to 65535, the range of uint16" in notes
    assert "no number is above 3999: --value-range 0,4095 (12 bits) would use the whole range" in notes


@pytest.mark.parametrize(
    ("largest", "proposed"), [(4095, "0,4095 (12 bits)"), (4096, "0,8191 (13 bits)"), (0, "0,1 (1 bit)")]
)
def test_the_range_that_is_proposed_has_a_whole_number_of_bits(largest, proposed):
    values = np.full((3, 4, 4, 1), largest, np.uint16)
    assert f"--value-range {proposed}" in "; ".join(measure_pixels(arrays(values), choice()).notes)


def test_files_are_decoded_once_for_percentiles_and_statistics(tmp_path, monkeypatch):
    for i in range(5):
        Image.fromarray(RANDOM.integers(0, 9000, (6, 6), np.uint16)).save(tmp_path / f"{i}.png")
    images = FileImages(tmp_path, [f"{i}.png" for i in range(5)], None, [])
    decoded, read = [], FileImages.read
    monkeypatch.setattr(FileImages, "read", lambda self, index: decoded.append(index) or read(self, index))
    measured = measure_pixels(images, choice("1%,99%"))
    assert sorted(decoded) == list(range(5))
    numbers = np.stack([read(images, i).values for i in range(5)])
    low, high = np.percentile(numbers, [1, 99])
    assert (measured.pixel_format.low, measured.pixel_format.high) == (pytest.approx([low]), pytest.approx([high]))
    assert measured.mean == pytest.approx([((numbers - low) / (high - low)).clip(0, 1).mean()], rel=1e-5)


def test_a_range_that_is_given_is_one_for_all_images_and_cuts_off_what_lies_outside():
    values = np.stack([np.full((3, 3, 1), x, np.float32) for x in (-2000, -1000, 0, 500, 9000)])
    measured = measure_pixels(arrays(values), choice("-1000,1000"))
    images = arrays(values).in_format(measured.pixel_format)
    assert images.batch(np.arange(5))[:, 0, 0, 0].tolist() == [0, 0, 32768, 49151, 65535]
    assert measured.mean == pytest.approx([(0 + 0 + 0.5 + 0.75 + 1) / 5], rel=1e-5)


def test_numbers_without_a_range_take_percentiles_of_all_images_and_of_each_channel():
    values = RANDOM.normal(size=(50, 20, 20, 2)).astype(np.float32) * [1, 100] + [0, 5000]
    values[0, 0, 0] = 1e9  # one hot pixel must not decide the range
    measured = measure_pixels(arrays(values.astype(np.float32)), choice())
    low, high = np.percentile(values.reshape(-1, 2).astype(np.float32), [0.1, 99.9], axis=0)
    np.testing.assert_allclose(measured.pixel_format.low, low, rtol=1e-5)
    np.testing.assert_allclose(measured.pixel_format.high, high, rtol=1e-5)
    assert "the percentiles 0.1 and 99.9" in measured.notes[0]
    wider = measure_pixels(arrays(values), choice("0%,100%"))
    assert wider.pixel_format.high == (1e9, 1e9)


def test_what_is_no_measurement_is_left_out_and_becomes_the_mean_of_its_channel():
    values = RANDOM.uniform(0.5, 3, (30, 8, 8, 2)).astype(np.float32)
    missing = RANDOM.random(values.shape) < 0.3
    with_nan = np.where(missing, np.nan, values)
    with_number = np.where(missing, np.float32(-9999), values)
    first = measure_pixels(arrays(with_nan), choice("0,4"))
    second = measure_pixels(arrays(with_number), choice("0,4", no_data=-9999.0))
    known = [values[..., c][~missing[..., c]] / 4 for c in range(2)]
    np.testing.assert_allclose(first.mean, [x.mean() for x in known], rtol=1e-5)
    np.testing.assert_allclose(first.std, [x.std() for x in known], rtol=1e-5)
    assert (first.mean, first.std, first.pixel_format.fill) == (second.mean, second.std, first.mean)
    for images, measured in ((with_nan, first), (with_number, second)):
        pixels = arrays(images).in_format(measured.pixel_format).batch(np.arange(30))
        for c in range(2):
            assert (pixels[..., c][missing[..., c]] == round(first.mean[c] * 65535)).all()
    assert any("are no measurement" in note for note in first.notes)


def test_a_channel_without_any_measurement_is_an_error():
    values = RANDOM.random((5, 4, 4, 2)).astype(np.float32)
    values[..., 1] = np.nan
    for value_range in (None, "0,1"):
        with pytest.raises(ValueError, match="channel 2 has no measurement"):
            measure_pixels(arrays(values), choice(value_range))


def test_a_constant_channel_is_said_and_divides_by_one():
    values = RANDOM.integers(0, 9000, (5, 4, 4, 2)).astype(np.uint16)
    values[..., 0] = 7
    measured = measure_pixels(arrays(values), choice())
    assert measured.std[0] == 1
    assert "channel 1: all numbers are the same" in measured.notes


def test_gray_is_made_of_rgb_where_it_is_asked_for(tmp_path):
    pixels = RANDOM.integers(0, 256, (6, 9, 9, 3), np.uint8)
    measured = measure_pixels(arrays(pixels), choice(channels=1))
    gray = np.stack([np.asarray(Image.fromarray(x).convert("L")) for x in pixels])[..., None]
    assert np.array_equal(arrays(pixels).in_format(measured.pixel_format).batch(np.arange(6)), gray)
    assert measured.mean == pytest.approx([gray.mean() / 255], abs=2e-3)
    for i, x in enumerate(pixels):
        Image.fromarray(x).save(tmp_path / f"{i}.png")
    files = FileImages(tmp_path, [f"{i}.png" for i in range(6)], None, []).in_format(measured.pixel_format)
    assert isinstance(files, FormattedImages)
    assert np.array_equal(files.open_pixels(3), gray[3])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((3, 4, 4, 5), np.uint16), {"channels": 4}, "--channels 4: 0 has 5 channels of uint16"),
        (np.zeros((3, 4, 4, 3), np.uint8), {"no_data": 0.0}, "--no-data 0: these images have 8 bits"),
        (np.zeros((3, 4, 4, 3), np.uint8), {"value_range": "1%,99%"}, "--value-range 1%,99%: these images have 8 bits"),
        (
            GRAY16,
            {"channels": 3, "no_data": 7.0},
            "--no-data 7 with --channels 3: 8-bit RGB has",
        ),
        (
            GRAY16,
            {"channels": 3, "value_range": "1%,99%"},
            "--value-range 1%,99% with --channels 3: 8-bit RGB is made by two numbers",
        ),
    ],
)
def test_options_that_contradict_the_images(values, options, message):
    with pytest.raises(ValueError, match=message):
        measure_pixels(arrays(values), choice(**options))


def test_a_format_refuses_other_images():
    deep = PixelFormat(channels=2, low=(0.0, 0.0), high=(1.0, 1.0))
    for values in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8)):
        with pytest.raises(ValueError, match="and the encoder takes 2 channels, 16-bit"):
            to_pixels(values, deep)
    with pytest.raises(ValueError, match="5 channels of float32, and the encoder takes 8-bit RGB"):
        arrays(np.zeros((1, 4, 4, 5), np.float32)).open_pixels(0)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_pixels_are_the_nearest_of_65536(dtype):
    values = RANDOM.uniform(-300, 300, (11, 13, 2))
    values = np.abs(values).astype(dtype) if np.dtype(dtype).kind == "u" else values.astype(dtype)
    deep = PixelFormat(channels=2, low=(-200.0, 0.0), high=(200.0, 100.0))
    exact = ((values.astype(np.float64) - [-200, 0]) / [400, 100]).clip(0, 1) * 65535
    assert np.abs(to_pixels(values, deep).astype(np.float64) - exact).max() <= 0.5 + 0.02  # float32 rounds a little


def test_a_mapped_array_stays_on_disk(tmp_path):
    values = RANDOM.integers(0, 9000, (20, 6, 6, 4), np.uint16)
    np.save(tmp_path / "x.npy", values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    images = ArrayImages(mapped, None, [], PixelFormat(channels=4, low=(0.0,) * 4, high=(65535.0,) * 4))
    some = select_images(images, np.array([3, 5, 7]), None, [])
    assert np.shares_memory(some.pixels, mapped)
    assert np.array_equal(some.batch(np.array([2, 0])), values[[7, 3]])
    again = select_images(some, np.array([1]), None, [])
    assert np.array_equal(again.open_pixels(0), values[5])
    assert some.fingerprint() == ArrayImages(values[[3, 5, 7]], None, []).fingerprint()


def test_gray_of_16_bits_becomes_rgb_for_an_encoder_of_rgb():
    values = np.array([[[[0], [257], [65535], [128]]]], np.uint16)
    pixels = arrays(values).in_format(RGB).open_pixels(0)
    assert pixels[0].tolist() == [[0] * 3, [1] * 3, [255] * 3, [0] * 3]
    assert replace(RGB, channels=3) == RGB
