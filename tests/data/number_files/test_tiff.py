"""TIFF files of satellites, microscopes and depth cameras: channels, depth, no-data numbers, names, and bad files."""

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from deep_files import make_cells, make_depth, make_tiles
from infomax.data.decoding.decoder import decode_pixels
from infomax.data.decoding.options import Decoding
from infomax.data.images.files import FileImages
from infomax.data.number_files import file_kind, read_numbers, read_rgb
from infomax.data.number_files import tiff as tiff_file
from infomax.data.numbers import RGB_KIND

DEFAULT = Decoding()
BANDS = {"photometric": "minisblack", "planarconfig": "contig"}
RANDOM = np.random.default_rng(0)


@pytest.fixture
def written(tmp_path):
    def write(values: np.ndarray, **options) -> Path:
        tifffile.imwrite(tmp_path / "x.tif", values, **options)
        return tmp_path / "x.tif"

    return write


def read(file: Path, decoding: Decoding = DEFAULT):
    numbers = read_numbers(file, str(file), decoding)
    assert numbers.kind == file_kind(file, str(file), decoding)
    assert numbers.values.dtype == numbers.kind.dtype
    assert numbers.values.shape[-1] == numbers.kind.channels
    return numbers


def refusal(file: Path, decoding: Decoding = DEFAULT) -> str:
    with pytest.raises(ValueError, match="^the file cannot be read as an image: ") as error:
        read_numbers(file, "the file", decoding)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tiles_of_a_satellite_have_named_bands_and_a_no_data_number(tmp_path):
    make_tiles(tmp_path, 2)
    numbers = read(tmp_path / "forest" / "00.tif")
    assert str(numbers.kind) == "5 channels of uint16"
    assert (numbers.kind.low, numbers.kind.high, numbers.kind.no_data) == (0, 65535, 0)
    assert numbers.kind.bands == ("B02", "B03", "B04", "B08", "B11")
    means = numbers.values.reshape(-1, 5).max(0)
    assert means.argmax() == 3  # near infrared of a forest


def test_hyperstacks_of_imagej_have_their_channels(tmp_path):
    make_cells(tmp_path, 2)
    numbers = read(tmp_path / "treated" / "01.tif")
    assert (numbers.values.shape, numbers.values.dtype) == ((32, 32, 2), np.float32)
    assert (numbers.kind.low, numbers.kind.high, numbers.kind.bands) == (None, None, ("DAPI", "GFP"))


def test_depth_maps_keep_their_holes(tmp_path):
    make_depth(tmp_path, 2)
    values = read(tmp_path / "ball" / "00.tif").values
    assert values.shape == (32, 32, 1)
    assert 0 < np.isnan(values).mean() < 0.2


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint32", "float16", "float32", "float64"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True, "byteorder": ">"}, {"tile": (16, 16), "compression": "zlib"}]
)
def test_types_bands_and_layouts_keep_each_number(written, dtype, planarconfig, options):
    values = RANDOM.integers(0, 120, (20, 24, 4)).astype(dtype)
    stored = values if planarconfig == "contig" else values.transpose(2, 0, 1)
    file = written(stored, photometric="minisblack", planarconfig=planarconfig, metadata=None, **options)
    np.testing.assert_array_equal(read(file).values, values)


def test_pages_of_which_nothing_is_said_are_channels_if_they_are_deep(written):
    values = RANDOM.integers(0, 60000, (6, 20, 24)).astype(np.uint16)
    np.testing.assert_array_equal(read(written(values)).values, values.transpose(1, 2, 0))
    np.testing.assert_array_equal(read(written(values, metadata=None)).values, values.transpose(1, 2, 0))


def test_pages_of_eight_bits_are_channels_if_the_file_says_so(written):
    values = RANDOM.integers(0, 255, (3, 20, 24)).astype(np.uint8)
    file = written(values, imagej=True, metadata={"axes": "CYX"})
    assert read(file).kind == RGB_KIND
    for pixels in (read(file).values, FileImages(file.parent, [file.name], None, []).open_pixels(0)):
        np.testing.assert_array_equal(pixels, values.transpose(1, 2, 0))
    assert str(read(written(values[:2], imagej=True, metadata={"axes": "CYX"})).kind) == "2 channels of uint8"
    file = written(values, metadata=None, photometric="minisblack")  # as a fax: the first page, as Pillow takes it
    np.testing.assert_array_equal(read(file).values, np.repeat(values[0][..., None], 3, 2))


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (np.zeros((5, 8, 8), np.uint16), {"imagej": True, "metadata": {"axes": "ZYX"}}, r"a stack of 5 slices \(Z\)"),
        (np.zeros((4, 2, 8, 8), np.float32), {"ome": True, "metadata": {"axes": "TCYX"}}, r"a stack of 4 times \(T\)"),
        (np.zeros((2, 5, 8, 8), np.uint16), {}, "are no channels"),
        (np.zeros((600, 6, 5), np.uint16), {}, "600 channels of uint16, more than the 512"),
        (np.zeros((8, 8), np.complex64), {}, "its numbers are complex64"),
        (np.zeros((8, 8, 2), np.int64), BANDS, "its numbers are int64"),
        (np.zeros((8, 8), np.uint16), {"photometric": "palette", "colormap": np.zeros((3, 65536), "u2")}, "PALETTE"),
    ],
)
def test_what_is_no_image_with_channels_is_refused(written, values, options, words):
    assert re.search(words, refusal(written(values, **options)))


def test_ome_names_channels(written):
    values = RANDOM.random((2, 20, 24), np.float32)
    file = written(values, ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["nuclei & more", "membrane"]}})
    assert read(file).kind.bands == ("nuclei & more", "membrane")
    np.testing.assert_array_equal(read(file).values, values.transpose(1, 2, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed(written, orientation):
    values = RANDOM.integers(0, 255, (6, 8)).astype(np.uint8)
    ordinary = decode_pixels(written(values, extratags=[(274, "H", 1, orientation, True)]), "x")
    deep = read(written(values.astype(np.uint16), extratags=[(274, "H", 1, orientation, True)])).values
    np.testing.assert_array_equal(deep[..., 0], ordinary[..., 0])


def test_white_is_zero_and_alpha(written):
    values = RANDOM.integers(0, 65535, (6, 8)).astype(np.uint16)
    file = written(values, photometric="miniswhite", extratags=[(42113, "s", 0, "7", True)])
    np.testing.assert_array_equal(read(file).values[..., 0], 65535 - values)
    assert read(file).kind.no_data == 65535 - 7
    rgba = np.zeros((6, 8, 4), np.uint16)
    rgba[:3, :, 3] = 65535
    on_white = read(written(rgba, photometric="rgb", extrasamples=["unassalpha"])).values
    assert (on_white.shape[-1], on_white[:3].max(), on_white[3:].min()) == (3, 0, 65535)
    four = read(written(rgba, photometric="rgb", extrasamples=["unspecified"])).values
    np.testing.assert_array_equal(four, rgba)
    bytes_of_four = rgba.astype(np.uint8)
    assert str(read(written(bytes_of_four, photometric="rgb", extrasamples=[0])).kind) == "4 channels of uint8"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_ordinary_files_are_left_to_pillow(tmp_path, mode, compression):
    image = Image.fromarray(RANDOM.integers(0, 255, (16, 16, 3)).astype(np.uint8)).convert(mode)
    image.save(tmp_path / "x.tif", compression=compression)
    assert file_kind(tmp_path / "x.tif", "x", Decoding()) is RGB_KIND
    assert read_rgb(tmp_path / "x.tif", "x", Decoding()) is None
    np.testing.assert_array_equal(read(tmp_path / "x.tif").values, decode_pixels(tmp_path / "x.tif", "x"))


def test_three_bands_of_bytes_that_pillow_cannot_open_are_rgb(written):
    values = RANDOM.integers(0, 255, (16, 18, 3)).astype(np.uint8)
    file = written(values, metadata=None, **BANDS)
    assert read(file).kind is RGB_KIND
    images = FileImages(file.parent, [file.name], None, [])
    np.testing.assert_array_equal(images.open_pixels(0), values)
    np.testing.assert_array_equal(np.asarray(images.open(0)), values)


def test_deep_files_are_not_shown_as_bytes_by_accident(written):
    images = FileImages(written(np.zeros((8, 8, 5), np.uint16), **BANDS).parent, ["x.tif"], None, [])
    with pytest.raises(ValueError, match=r"x.tif cannot .* 5 channels of uint16, and the encoder takes 8-bit RGB"):
        images.open_pixels(0)


def test_a_missing_codec_is_named_unless_pillow_has_it(written, monkeypatch):
    values = RANDOM.integers(0, 60000, (20, 24, 2)).astype(np.uint16)
    one = written(values[..., 0], compression="lzw", predictor=True)
    expected = read(one).values

    class Lacking(dict):
        def __getitem__(self, key):
            raise KeyError(key)

    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", Lacking(), raising=False)
    np.testing.assert_array_equal(read(one).values, expected)
    file = written(values, compression="lzw", **BANDS)
    assert "stored by LZW with 16 bits, which needs the package imagecodecs" in refusal(file)
    assert "tiff" in refusal(file)


@pytest.mark.process
@pytest.mark.parametrize("compression", ["lzw", "zstd", "lerc", "jpeg2000"])
def test_without_imagecodecs_a_file_is_refused_when_its_header_is_read(written, compression):
    file = written(np.zeros((20, 24, 2), np.uint16), compression=compression, **BANDS)
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from pathlib import Path\n"
        "from infomax.data.decoding.options import Decoding\n"
        "from infomax.data.number_files import file_kind\n"
        f"file_kind(Path({str(file)!r}), 'x', Decoding())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "with 16 bits, which needs the package imagecodecs" in ran.stderr.strip().splitlines()[-1]


def test_a_codec_that_pillow_lacks_too_is_named(written, monkeypatch):
    file = written(np.zeros((20, 24), np.float32), compression="lerc")
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", {}, raising=False)
    assert "stored by LERC with 32 bits, which needs the package imagecodecs" in refusal(file)


def test_truncated_files_are_refused(written):
    for options in ({}, {"tile": (16, 16), "compression": "zlib"}, {"imagej": True, "metadata": {"axes": "CYX"}}):
        file = written(RANDOM.random((2, 40, 40), np.float32), **options)
        content = file.read_bytes()
        file.write_bytes(content[:-100] if "tile" not in options else content[: len(content) // 2])
        assert "its end is missing" in refusal(file)


def test_headers_that_claim_too_much_are_refused(written, monkeypatch):
    file = written(np.zeros((40, 50, 2), np.uint16), **BANDS)
    assert "50 x 40 pixels, 0.002 megapixels; --max-megapixels 0.001" in refusal(file, Decoding(max_megapixels=0.001))
    monkeypatch.setattr("infomax.data.number_files.machine_memory", lambda: 1000)
    monkeypatch.setattr("infomax.data.number_files.NO_HARM", 0)
    assert "too much for the" in refusal(file)


def test_deflated_bombs_are_not_unpacked(written, monkeypatch):
    monkeypatch.setattr(tiff_file, "_has_imagecodecs", lambda: False)
    monkeypatch.setattr(tiff_file, "ALLOWED", 0)
    values = np.zeros((64, 64, 2), np.uint16)
    file = written(values, compression="zlib", **BANDS)
    np.testing.assert_array_equal(read(file).values, values)
    content = file.read_bytes()
    with tifffile.TiffFile(file) as tiff:
        height = tiff.pages[0].tags["ImageLength"].valueoffset
        rows = tiff.pages[0].tags["RowsPerStrip"].valueoffset
    for place in (height, rows):
        content = content[:place] + (2).to_bytes(2, "little") + content[place + 2 :]
    file.write_bytes(content)
    assert "unpacks to more than its pixels" in refusal(file)


@pytest.mark.parametrize("seed", range(25))
def test_damaged_files_give_one_line_or_numbers(tmp_path, seed):
    make_tiles(tmp_path, 1)
    file, random = tmp_path / "forest" / "00.tif", np.random.default_rng(seed)
    content = bytearray(file.read_bytes())
    for place in random.integers(0, 600, 6):
        content[place] = random.integers(0, 256)
    file.write_bytes(content)
    with suppress(ValueError):
        read_numbers(file, "the file", DEFAULT)


def test_pillow_settings_stay(written):
    before = Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF
    read(written(np.zeros((8, 8), np.uint16)))
    assert before == (Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF)
