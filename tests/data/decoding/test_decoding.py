"""Decoding image files: brightness, damaged metadata, short files, limits, and what is never opened."""

import os
import resource
import struct
import threading
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from infomax.data.decoding import fast_jpegs
from infomax.data.decoding.decoder import decode, decode_pixels
from infomax.data.decoding.image_files import FORMATS
from infomax.data.decoding.options import Decoding, ValueRange, parse_value_range
from infomax.data.decoding.orientation import TURNS, turn
from infomax.data.images.files import FileImages
from infomax.data.images.selection import Subset
from infomax.data.sources.suffixes import IMAGE_SUFFIXES

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def encoded(image, kind, **options):
    stream = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def pgm(numbers, maxval):
    return b"P5 %d %d %d\n" % (*numbers.shape[::-1], maxval) + numbers.astype(">u2").tobytes()


def decoded(content, **decoding):
    return np.asarray(decode(BytesIO(content), "x", decoding=Decoding(**decoding)))


def grey(numbers):
    """The picture that one channel of bytes is."""
    return np.repeat(np.asarray(numbers).round().astype(np.uint8)[..., None], 3, -1)


def photo(height=375, width=500, seed=0):
    """Returns a picture with structure at all scales, as a photograph has."""
    noise = np.random.default_rng(seed).random((height // 8 + 1, width // 8 + 1, 3)) * 255
    return Image.fromarray(noise.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


# Brightness.


@pytest.mark.parametrize("largest", [200, 4095, 65535])
def test_the_same_16_bit_numbers_are_the_same_picture_in_every_format(largest):
    numbers = (RAMP * largest).astype(np.uint16)
    expected = grey(numbers / 257)
    files = [encoded(numbers, "PNG"), encoded(numbers, "TIFF"), pgm(numbers, 65535), encoded(numbers, "JPEG2000")]
    for content in files:
        np.testing.assert_array_equal(decoded(content), expected)
    darker = grey((numbers * (255 / 4095)).clip(0, 255))
    for content in files:
        np.testing.assert_array_equal(decoded(content, value_range=(0, 4095)), darker)


@pytest.mark.parametrize("maxval", [256, 1023, 4095])
def test_a_pgm_is_scaled_by_its_own_largest_number(maxval):
    numbers = (RAMP * maxval).astype(np.uint16)
    assert np.abs(decoded(pgm(numbers, maxval)).astype(int) - grey(numbers * (255 / maxval))).max() <= 1
    wanted = grey((numbers * (255 / 200)).clip(0, 255))  # the range is in the numbers of the file
    assert np.abs(decoded(pgm(numbers, maxval), value_range=(0, 200)).astype(int) - wanted).max() <= 1


QUANTITIES = {
    "float": RAMP.astype(np.float32),
    "height": (RAMP * 800 + 200).astype(np.float32),
    "int32": (RAMP * 4095).astype(np.int32),
}


@pytest.mark.parametrize("name", QUANTITIES)
def test_numbers_without_a_range_are_refused_until_it_is_given(name):
    content, values = encoded(QUANTITIES[name], "TIFF"), QUANTITIES[name].astype(float)
    with pytest.raises(ValueError, match=r"scan.tif cannot .* --value-range LOW,HIGH"):
        decode(BytesIO(content), "scan.tif")
    low, high = values.min(), values.max()
    expected = ((values - low) / (high - low) * 255).round()
    assert np.abs(decoded(content, value_range=(low, high)) - expected[..., None]).max() <= 1


def tiff(numbers, bits, sample_format, photometric=1, more=()):
    """A TIFF of one channel, made by hand, as Pillow writes few kinds."""
    data, (height, width) = numbers.tobytes(), numbers.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 0)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, len(data)), *more, (339, 3, sample_format)]
    tags[5] = (273, 4, 14 + 12 * len(tags))  # where the pixels begin
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    return head + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags) + bytes(4) + data


def test_numbers_with_a_sign_keep_what_is_below_zero():
    hounsfield = (RAMP * 4000 - 1000).astype("<i2")
    content = tiff(hounsfield, 16, 2)
    with pytest.raises(ValueError, match="--value-range"):
        decoded(content)
    result = decoded(content, value_range=(-1000, 3000))
    assert np.abs(result[..., 0] - RAMP * 255).max() <= 1


def test_a_tiff_whose_zero_is_white_is_inverted():
    numbers = (RAMP * 65535).astype("<u2")
    np.testing.assert_array_equal(decoded(tiff(numbers, 16, 1, photometric=0)), 255 - decoded(tiff(numbers, 16, 1)))


def test_numbers_that_are_none_are_black_and_change_no_other_pixel():
    numbers = RAMP.astype(np.float32)
    whole = decoded(encoded(numbers, "TIFF"), value_range=(0, 1))
    numbers[0, 5:8] = np.nan, np.inf, -np.inf
    result = decoded(encoded(numbers, "TIFF"), value_range=(0, 1))
    assert (result[0, 5:8] == 0).all()
    np.testing.assert_array_equal(np.delete(result, range(5, 8), 1), np.delete(whole, range(5, 8), 1))


def test_many_rows_are_scaled_as_few(monkeypatch):
    numbers = np.random.default_rng(0).integers(0, 65536, (50, 40)).astype(np.uint16)
    whole = decoded(encoded(numbers, "PNG"))
    monkeypatch.setattr("infomax.data.decoding.rgb.BLOCK", 100)
    np.testing.assert_array_equal(decoded(encoded(numbers, "PNG")), whole)


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "5,5", "9,1", "nan,1", "0,inf", "1%,101%", "1,99%"])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="--value-range .*: want LOW,HIGH"):
        parse_value_range(text)
    assert parse_value_range(" -1000, 3e3") == ValueRange(-1000, 3000)
    assert parse_value_range("0.1%, 99.9%") == ValueRange(0.1, 99.9, is_percentile=True)


def test_the_range_reaches_the_files_and_the_names_of_cached_features(tmp_path):
    (tmp_path / "a.tif").write_bytes(encoded(RAMP.astype(np.float32), "TIFF"))
    images = FileImages(tmp_path, ["a.tif"], None, [])
    part = Subset(images, np.array([0]), None, [])
    bright, dark = (part.decoded_by(Decoding(value_range)) for value_range in ((0, 1), (0, 10)))
    assert np.asarray(bright.open(0)).mean() > 100 > np.asarray(dark.open(0)).mean()
    assert len({images.state(np.array([0])), bright.state(np.array([0])), dark.state(np.array([0]))}) == 3


# Modes and transparency.

RGB = np.stack([RAMP, RAMP[::-1], RAMP.T], -1) * 255
PICTURE = Image.fromarray(RGB.astype(np.uint8))


MODES = {
    "PNG": ("L", "1", "LA", "RGBA", "P"),
    "TIFF": ("1", "L", "RGBA", "CMYK", "YCbCr", "LAB"),
    **dict.fromkeys(("GIF",), ("P",)),
    **dict.fromkeys(("BMP", "TGA", "PPM", "SGI", "WEBP", "PCX"), ("RGB",)),
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_a_picture_looks_alike_in_every_mode(kind, mode):
    image, tolerance = PICTURE.convert(mode), {"CMYK": 1, "YCbCr": 2, "LAB": 6}.get(mode, 0)
    options = {"lossless": True} if kind == "WEBP" else {}
    reference = PICTURE if mode in ("CMYK", "YCbCr", "LAB") else image.convert("RGB")
    result = decoded(encoded(image, kind, **options)).astype(int)
    assert np.abs(result - np.asarray(reference)).mean() <= tolerance


def chunk(kind, content, *, checksum=None):
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width, depth, colour, row, transparent):
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"tRNS", transparent), chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "depth", "colour", "row", "transparent", "expected"),
    [
        (4, 1, 0, b"\xa0", b"\0\0", [255, 255, 255, 255]),
        (4, 2, 0, b"\x1b", b"\0\1", [0, 255, 170, 255]),
        (4, 4, 0, b"\x01\x23", b"\0\2", [0, 17, 255, 51]),
        (3, 8, 0, b"\x05\x06\x07", b"\0\6", [5, 255, 7]),
        (3, 16, 0, struct.pack(">3H", 0, 257, 514), struct.pack(">H", 257), [0, 255, 2]),
        (2, 8, 2, b"\x05\x05\x05\x06\x06\x06", b"\0\5\0\5\0\5", [255, 6]),
        (2, 16, 2, struct.pack(">6H", *[1285] * 3, *[1542] * 3), struct.pack(">3H", *[1285] * 3), [255, 6]),
    ],
)
def test_the_colour_that_a_png_calls_transparent_is_white(width, depth, colour, row, transparent, expected):
    assert decoded(png(width, depth, colour, row, transparent))[0, :, 0].tolist() == expected


def test_a_transparent_palette_entry_is_white():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert decoded(encoded(image, "PNG", transparency=1))[0].tolist() == [[10, 20, 30], [255] * 3, [70, 80, 90]]
    half = decoded(encoded(image, "PNG", transparency=bytes([255, 0, 128])))[0]
    np.testing.assert_allclose(half, [[10, 20, 30], [255] * 3, [162, 167, 172]], atol=1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_or_pages_the_first_is_taken(kind):
    first, second = (Image.new("RGB", (30, 20), colour) for colour in ("red", "blue"))
    content = encoded(first, kind, save_all=True, append_images=[second])
    assert decoded(content)[5, 5, 0] > 200


# Metadata.


def exif(*entries, order="<"):
    """EXIF data with the given entries: tag, type, count, four bytes."""
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    body = b"".join(struct.pack(order + "HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0" + head + struct.pack(order + "H", len(entries)) + body + bytes(4)


TURNED = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
XMP = b'<x:xmpmeta tiff:Orientation="6"></x>'
BAD_EXIF = {
    "garbage": (b"Exif\0\0garbage that is no TIFF header", False),
    "empty": (b"Exif\0\0", False),
    "short": (b"Exif\0\0II*\0", False),
    "a text that is not there": (exif(TURNED, (0x010E, 2, 400, struct.pack("<I", 9999))), True),
    "orientation as text": (exif((0x0112, 2, 2, b"6\0\0\0")), False),
    "orientation 9": (exif((0x0112, 3, 1, struct.pack("<HH", 9, 0))), False),
    "folder that is not there": (exif(TURNED, (0x8769, 4, 1, struct.pack("<I", 7777))), True),
    "not ASCII": (exif(TURNED, (0x010E, 2, 4, b"\xe9\xff\x80\0")), True),
    "unknown type": (exif(TURNED, (0x9999, 99, 3, b"\1\2\3\4")), True),
    "rational without numbers": (exif(TURNED, (0x011A, 5, 1, struct.pack("<I", 0))), True),
    "big-endian": (exif((0x0112, 3, 1, struct.pack(">HH", 6, 0)), order=">"), True),
    "more entries than there are": (exif(TURNED).replace(b"\1\0\x12", b"\xff\xff\x12"), True),
}


@pytest.mark.parametrize("name", BAD_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("reduces", [False, True])
def test_damaged_exif_does_no_harm_and_orientation_is_read_where_it_can_be(kind, name, reduces):
    content, is_turned = BAD_EXIF[name]
    image = PICTURE.resize((80, 40))
    if kind == "PNG":
        plain = encoded(image, kind)
        data = plain[:33] + chunk(b"eXIf", content.removeprefix(b"Exif\0\0")) + plain[33:]
    else:
        plain, data = encoded(image, kind), encoded(image, kind, exif=content)
    upright = decode(BytesIO(plain), "x")
    expected = upright.transpose(Image.Transpose.ROTATE_270) if is_turned else upright
    asked = []
    result = decode(BytesIO(data), "x", (lambda *size: asked.append(size) or 1) if reduces else None)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))
    assert asked == ([expected.size] if reduces and kind == "JPEG" else [])


def jpeg_with(marker, payload):
    plain = encoded(PICTURE.resize((80, 40)), "JPEG")
    return plain[:2] + bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload + plain[2:]


def test_orientation_in_xmp_counts_if_it_can_be_read():
    space = b"http://ns.adobe.com/xap/1.0/\0"
    assert decoded(jpeg_with(0xE1, space + XMP)).shape == (80, 40, 3)
    assert decoded(jpeg_with(0xE1, space + b"<x:xmpmeta>\xa8\xff")).shape == (40, 80, 3)
    assert decoded(jpeg_with(0xE1, space + b"\xa8\xff" + XMP)).shape == (80, 40, 3)


@pytest.mark.parametrize(
    ("marker", "payload"),
    [
        (0xE2, b"ICC_PROFILE\0\1\7short"),
        (0xE2, b"MPF\0garbage"),
        (0xED, b"Photoshop 3.0\x008BIM\xff"),
        (0xFE, b"\xff" * 99),
        (0xE0, b"JFIF\0\1"),
        (0xEE, b"Adobe"),
        (0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
    ],
)
def test_damaged_segments_of_a_jpeg_do_no_harm(marker, payload):
    np.testing.assert_array_equal(
        decoded(jpeg_with(marker, payload)), decoded(encoded(PICTURE.resize((80, 40)), "JPEG"))
    )


PNG_CHUNKS = {
    "colour profile": chunk(b"iCCP", b"ICC\0\0not zlib"),
    "enormous text": chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 3 * 2**20)),
    "much text": b"".join(chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 1000000)) for _ in range(70)),
    "wrong checksum": chunk(b"tEXt", b"k\0v", checksum=1),
    "short chunks": chunk(b"gAMA", b"") + chunk(b"pHYs", b"") + chunk(b"cHRM", b"") + chunk(b"sRGB", b""),
    "damaged animation": chunk(b"acTL", b"\0\0\0\0\0\0\0\0"),
}


@pytest.mark.parametrize("name", PNG_CHUNKS)
@pytest.mark.parametrize("is_turned", [False, True])
def test_damaged_chunks_beside_the_pixels_of_a_png_do_no_harm(name, is_turned):
    plain = encoded(PICTURE.resize((80, 40)), "PNG")
    expected = decoded(plain)
    turn = chunk(b"eXIf", exif(TURNED)[6:]) if is_turned else b""
    for content in (
        plain[:33] + turn + PNG_CHUNKS[name] + plain[33:],
        plain[:33] + turn + plain[33:-12] + PNG_CHUNKS[name],
    ):
        np.testing.assert_array_equal(decoded(content), np.rot90(expected, -1) if is_turned else expected)


def test_damaged_pixels_of_a_png_are_refused():
    plain = encoded(photo(64, 64), "PNG")
    with pytest.raises(ValueError, match="x cannot be read as an image"):
        decoded(plain[: len(plain) // 2])
    wrong_palette = plain[:33] + chunk(b"PLTE", b"\1\2\3", checksum=1) + plain[33:]
    with pytest.raises(ValueError, match="x cannot be read as an image"):
        decoded(wrong_palette)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_damaged_tags_of_a_tiff_do_no_harm(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    plain = encoded(PICTURE.resize((80, 40)), "TIFF", exif=tags)
    wrong = {0x0112: orientation, 0x8769: 99999, 700: b"\xff<x"}
    broken = encoded(PICTURE.resize((80, 40)), "TIFF", tiffinfo=wrong)
    expected = np.rot90(np.asarray(PICTURE.resize((80, 40))), {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    for content in (plain, broken):
        np.testing.assert_array_equal(decoded(content), expected)


# Files that end early.


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_short_of_its_last_bytes_is_decoded_and_half_of_one_is_not(options, mode):
    content = encoded(photo().convert(mode), "JPEG", quality=90, **options)
    whole = decoded(content).astype(int)
    # The last scan of a progressive file in CMYK is that of an empty channel: a few bytes are half of it.
    for missing in (1, 2, 3) if mode == "CMYK" else (1, 2, 3, 20, 100):
        result = decoded(content[:-missing]).astype(int)
        assert (result != whole).any(-1).mean() < 0.02
        assert (result[:340] == whole[:340]).all() or "progressive" in options
    cuts = [int(len(content) * share) for share in (0.9, 0.5, 0.1)]
    if "restart_marker_rows" in options:  # cut exactly where a row of blocks begins
        rows = [i for i in range(len(content) - 1) if content[i] == 0xFF and 0xD0 <= content[i + 1] < 0xD8]
        cuts += rows[5:20:5]
    for length in cuts:
        with pytest.raises(ValueError, match="photo.jpg cannot be read as an image: its end is missing"):
            decode(BytesIO(content[:length]), "photo.jpg")


def test_a_progressive_jpeg_that_ends_between_two_scans_is_refused():
    content = encoded(photo(), "JPEG", progressive=True)
    scans = [place for place in range(len(content)) if content.startswith(b"\xff\xda", place)]
    assert len(scans) > 5
    for start in scans[1:]:
        with pytest.raises(ValueError, match="its end is missing"):
            decoded(content[:start])


def test_a_short_jpeg_is_reduced_too():
    content = encoded(photo(), "JPEG")
    assert decode(BytesIO(content[:-2]), "x", lambda width, height: 4).size == (125, 94)


def test_a_small_jpeg_without_its_picture_is_refused():
    content = encoded(photo(16, 16), "JPEG", quality=95)
    start = content.index(b"\xff\xda") + 14
    with pytest.raises(ValueError, match="its end is missing"):
        decoded(content[:start])


# What is not decoded.


def test_an_image_of_too_many_pixels_is_refused_before_memory_is_taken(tmp_path):
    bomb = encoded(Image.new("1", (14000, 13000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ValueError, match=r"bomb.png .* 14000 x 13000 .* 182 megapixels; --max-megapixels 120 is"):
        decode(BytesIO(bomb), "bomb.png")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP", "JPEG", "BMP", "JPEG2000", "PPM"])
def test_the_limit_holds_for_every_format_and_can_be_raised(kind):
    content = encoded(photo(60, 50), kind)
    for choose_divisor in (None, lambda width, height: 8):  # reduction makes no exception
        with pytest.raises(ValueError, match="--max-megapixels 0.0029"):
            decode(BytesIO(content), "x", choose_divisor, Decoding(max_megapixels=0.0029))
    assert decoded(content, max_megapixels=0.003).shape == (60, 50, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF"])
def test_a_raised_limit_is_not_bounded_by_that_of_pillow(kind, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decoded(encoded(photo(60, 50), kind)).shape == (60, 50, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_tile_larger_than_its_image_counts():
    content = tiff(np.zeros((60, 50), np.uint8), 8, 1, more=((322, 4, 60000), (323, 4, 60000)))
    with pytest.raises(ValueError, match="--max-megapixels"):
        decoded(content)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes in the file system")
def test_pipes_devices_and_folders_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "link.png", "zero.png", "folder.png"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as an image: it is not a regular file"):
            decode(tmp_path / name, name)
    with pytest.raises(ValueError, match="none.png cannot be read as an image"):
        decode(tmp_path / "none.png", "none.png")


def test_a_pipe_that_takes_a_file_s_place_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "file.png").touch()
    status = os.stat(tmp_path / "file.png")
    monkeypatch.setattr(os, "stat", lambda path, **_: status)
    with pytest.raises(ValueError, match="not a regular file"):
        decode(tmp_path / "pipe.png", "pipe.png")


def test_formats_that_start_programs_are_not_opened():
    content = encoded(photo(20, 20), "EPS")
    with pytest.raises(ValueError, match="cannot identify image file"):
        decoded(content)
    assert not IMAGE_SUFFIXES & {".eps", ".ps", ".wmf", ".emf", ".pdf", ".mpg", ".h5"}
    assert {".jpg", ".jfif", ".png", ".webp", ".tif", ".mpo", ".ppm"} <= IMAGE_SUFFIXES
    assert set(FORMATS) <= {*Image.OPEN, "MPO", "AVIF", "WEBP", "JPEG2000"}


def test_an_image_opens_in_another_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(decoded(encoded(PICTURE, "PNG"))))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(results[0], np.asarray(PICTURE))


# Any bytes.

SMALL = photo(24, 20)
KINDS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "PCX", "SGI", "QOI", "AVIF")
SEEDS = [encoded(SMALL, kind) for kind in KINDS]
SEEDS += [encoded(SMALL, "JPEG", progressive=True), encoded(SMALL, "TIFF", compression="tiff_lzw")]
SEEDS += [encoded(SMALL.convert("P"), "PNG", transparency=3), pgm(np.ones((5, 5), np.uint16), 999)]
EDITS = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4), st.integers(0, 4)), max_size=4)


# Pixels by a faster decoder.


def outcome(decode_file, content, choose_divisor):
    """Returns the pixels of an image, or the error."""
    try:
        return np.asarray(decode_file(BytesIO(content), "x", choose_divisor))
    except ValueError as error:
        return str(error)


def check_pixels(content, divisor=1):
    pixels, image = (outcome(function, content, lambda *_: divisor) for function in (decode_pixels, decode))
    assert type(pixels) is type(image)
    np.testing.assert_array_equal(pixels, image)


@pytest.mark.parametrize("size", [(97, 61), (64, 64), (33, 48), (8, 8), (200, 150)])
@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pixels_are_those_of_the_image(size, divisor, mode):
    image = photo(*size).convert(mode)
    for options in ({"progressive": True}, {"restart_marker_blocks": 2}, {"quality": 100, "optimize": True}):
        check_pixels(encoded(image, "JPEG", **options), divisor)
    if mode == "RGB":
        for options in ({"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"keep_rgb": True}):
            check_pixels(encoded(image, "JPEG", **options), divisor)
    for kind in ("PNG", "WEBP", "TIFF") if mode != "CMYK" else ():
        check_pixels(encoded(image, kind), divisor)


def test_pixels_of_damaged_files_are_those_of_the_image():
    """A file that ends early, has bytes too many or some changed is decoded or refused by the same rule, in words."""
    rng = np.random.default_rng(0)
    for subsampling in (0, 2):
        content = encoded(photo(61, 97), "JPEG", subsampling=subsampling, progressive=subsampling == 2)
        for cut in (1, 2, 3, 40, len(content) // 2, len(content) - 3):
            check_pixels(content[:-cut], 2)
        check_pixels(content + b"more" * 10)
        check_pixels(content[:2] + b"\xff\xff" + content[2:])
        for _ in range(60):
            changed = bytearray(content)
            for place in rng.integers(2, len(content), 2):
                changed[place] = rng.integers(256)
            check_pixels(bytes(changed), 2)


@pytest.mark.parametrize("orientation", range(10))
def test_pixels_are_turned_as_the_image_is(orientation):
    image, entries = photo(40, 56), Image.Exif()
    entries[0x0112] = orientation
    check_pixels(encoded(image, "JPEG", exif=entries), 2)
    turned = image.transpose(TURNS[orientation]) if orientation in TURNS else image
    np.testing.assert_array_equal(turn(np.asarray(image), orientation), np.asarray(turned))


def test_the_fast_decoder_is_used_if_it_is_there_and_gives_these_bytes():
    simplejpeg = pytest.importorskip("simplejpeg")
    assert fast_jpegs._faithful_decoder() is simplejpeg.decode_jpeg
    buffer, content = fast_jpegs.ReusedMemory(), encoded(photo(40, 56), "JPEG")
    first = decode_pixels(BytesIO(content), "x", None, buffer=buffer)
    assert np.shares_memory(first, buffer.content)
    assert fast_jpegs.decode_fast(content[:-100], 56, 40) is None


def test_a_decoder_that_gives_other_bytes_is_not_used(monkeypatch):
    simplejpeg = pytest.importorskip("simplejpeg")
    decode_jpeg = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *args, **options: decode_jpeg(*args, **options) ^ 1)
    fast_jpegs._faithful_decoder.cache_clear()
    try:
        assert fast_jpegs._faithful_decoder() is None
        check_pixels(encoded(photo(40, 56), "JPEG"))
    finally:
        fast_jpegs._faithful_decoder.cache_clear()


def check_any_bytes(content, edits, cut):
    """Checks that mutated bytes become an image, or the one error."""
    for place, new, removed in edits:
        at = int(place * len(content))
        content = content[:at] + new + content[at + removed :]
    content, error = content[: int(cut * len(content))], ""
    try:
        image = decode(BytesIO(content), "photo", decoding=Decoding((0, 9), 0.1))
    except ValueError as raised:
        error = str(raised)
    if error:
        assert error.startswith("photo cannot be read as an image: ")
    else:
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= 100_000


@seed(0)
@settings(max_examples=1500, deadline=None, database=None)
@given(st.sampled_from(SEEDS), EDITS, st.just(1.0) | st.floats(0, 1))
def test_any_bytes_become_an_image_or_one_error(content, edits, cut):
    check_any_bytes(content, edits, cut)


@pytest.mark.slow
@seed(1)
@settings(max_examples=100_000, deadline=None, database=None)
@given(st.sampled_from(SEEDS), EDITS, st.just(1.0) | st.floats(0, 1))
def test_any_bytes_become_an_image_or_one_error_at_length(content, edits, cut):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check_any_bytes(content, edits, cut)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes
