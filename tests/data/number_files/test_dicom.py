"""DICOM files: what numbers mean, their window, white that is the smallest number, compression, and what is refused."""

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from deep_files import make_dicoms, write_dicom
from infomax.data.decoding.options import Decoding
from infomax.data.images.files import FileImages
from infomax.data.number_files import dicom as dicom_file
from infomax.data.number_files import file_kind, read_numbers
from infomax.data.numbers import RGB_KIND
from infomax.data.sources.location import open_source

DEFAULT = Decoding()
RANDOM = np.random.default_rng(0)
STORED = RANDOM.integers(0, 4096, (6, 5)).astype(np.uint16)


@pytest.fixture
def written(tmp_path):
    def write(stored: np.ndarray = STORED, **elements) -> Path:
        write_dicom(tmp_path / "x.dcm", stored, **elements)
        return tmp_path / "x.dcm"

    return write


def read(file: Path):
    numbers = read_numbers(file, "the file", DEFAULT)
    assert numbers.kind == file_kind(file, "the file", DEFAULT)
    assert numbers.values.dtype == numbers.kind.dtype
    return numbers


def refusal(file: Path) -> str:
    with pytest.raises(ValueError, match="^the file cannot be read as an image: ") as error:
        read_numbers(file, "the file", DEFAULT)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_twelve_bits_have_their_range_or_that_of_the_window(written):
    numbers = read(written())
    assert (str(numbers.kind), numbers.kind.low, numbers.kind.high) == ("1 channel of uint16", 0, 4095)
    np.testing.assert_array_equal(numbers.values[..., 0], STORED)
    kind = read(written(WindowCenter=[2048, 100], WindowWidth=[1001, 50])).kind
    assert (kind.low, kind.high) == (1547.5, 2547.5)
    kind = read(written(WindowCenter=2048, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")).kind
    assert (kind.low, kind.high) == (1548, 2548)


def test_both_kinds_of_gray_look_alike(tmp_path):
    make_dicoms(tmp_path, 6)
    source = open_source(str(tmp_path))
    assert (len(source.train), source.train.classes) == (6, ["clear", "nodule"])
    for index in range(6):
        numbers = source.train.read(index)
        assert numbers.values[:4, :4].mean() < numbers.values[14:18, 14:18].mean()  # the body is bright
        assert numbers.kind.high - numbers.kind.low == 2999
    inverted = {source.train.kind(index).low for index in range(6)}
    assert inverted == {548.0, 4095 - 3547.0}


def test_hounsfield_units_and_padding(written):
    stored = np.array([[0, 1024], [4095, 2000]], np.uint16)
    numbers = read(written(stored, RescaleSlope=1, RescaleIntercept=-1024, PixelPaddingValue=0))
    assert (numbers.kind.dtype, numbers.kind.low, numbers.kind.no_data) == (np.float32, None, -1024)
    assert numbers.values[..., 0].tolist() == [[-1024, 0], [3071, 976]]
    numbers = read(written(stored, RescaleSlope=0.5, RescaleIntercept=10))
    assert (numbers.kind.dtype, numbers.values[..., 0].tolist()) == (np.float32, [[10, 522], [2057.5, 1010]])
    turned = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 40.5, "WindowWidth": 401}
    numbers = read(written(stored, RescaleSlope=1, RescaleIntercept=-1024, PixelPaddingValue=0, **turned))
    assert numbers.values[..., 0].tolist() == [[3071, 2047], [-1024, 1071]]
    assert (numbers.kind.low, numbers.kind.high, numbers.kind.no_data) == (2047 - 240, 2047 + 160, 3071)
    numbers = read(written(stored, PixelPaddingValue=0, PixelPaddingRangeLimit=1500))
    assert numbers.values[..., 0].tolist() == [[0, 0], [4095, 2000]]


def test_bits_that_do_not_count_are_left_out(written):
    stored = np.array([[0x0FFF, 0x07FF]], np.int16)
    numbers = read(written(stored | np.int16(0x1000)))
    assert (numbers.kind.dtype, numbers.values[..., 0].tolist()) == (np.float32, [[-1, 2047]])
    assert read(written(STORED | np.uint16(0xA000))).values[..., 0].tolist() == STORED.tolist()


def test_eight_bits_are_rgb(written, tmp_path):
    stored = RANDOM.integers(0, 256, (6, 8)).astype(np.uint8)
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    numbers = read(written(stored, **eight))
    assert numbers.kind is RGB_KIND
    np.testing.assert_array_equal(numbers.values, stored[..., None].repeat(3, 2))
    images = FileImages(tmp_path, ["x.dcm"], None, [])
    np.testing.assert_array_equal(images.open_pixels(0), numbers.values)
    np.testing.assert_array_equal(np.asarray(images.open(0)), numbers.values)
    numbers = read(written(stored, PhotometricInterpretation="MONOCHROME1", **eight))
    np.testing.assert_array_equal(numbers.values[..., 0], 255 - stored)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "PALETTE COLOR"])
def test_colour_is_rgb(written, photometric):
    elements = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PhotometricInterpretation": photometric}
    if photometric == "PALETTE COLOR":
        for colour in ("Red", "Green", "Blue"):
            elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            elements[f"{colour}PaletteColorLookupTableData"] = (np.arange(256, dtype="<u2")[::-1] * 257).tobytes()
        stored = RANDOM.integers(0, 256, (6, 8)).astype(np.uint8)
        expected = (255 - stored)[..., None].repeat(3, 2)
    else:
        elements |= {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "Rows": 6, "Columns": 8, "NumberOfFrames": 1}
        stored = RANDOM.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        expected = stored if photometric == "RGB" else None
    numbers = read(written(stored, **elements))
    assert numbers.kind is RGB_KIND
    if expected is not None:
        np.testing.assert_array_equal(numbers.values, expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_files_have_the_same_numbers(written, tmp_path, syntax):
    dataset = pydicom.dcmread(written())
    if syntax == JPEG2000Lossless:
        from imagecodecs import jpeg2k_encode

        encoded = jpeg2k_encode(STORED, level=0, codecformat="j2k", bitspersample=12, reversible=True)
        dataset.PixelData = encapsulate([encoded])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax)
    dataset.save_as(tmp_path / "y.dcm")
    np.testing.assert_array_equal(read(tmp_path / "y.dcm").values[..., 0], STORED)


def test_a_file_that_begins_as_a_tiff_is_dicom(written):
    file = written()
    file.write_bytes(b"II*\0" + file.read_bytes()[4:])
    np.testing.assert_array_equal(read(file).values[..., 0], STORED)


def test_big_endian_files_have_the_same_numbers(written):
    for dtype, bits in ((np.uint16, 12), (np.uint32, 32)):
        file = written(STORED.astype(dtype), BitsAllocated=max(16, bits), BitsStored=bits, HighBit=bits - 1)
        dataset = pydicom.dcmread(file)
        dataset.PixelData = STORED.astype(np.dtype(dtype).newbyteorder(">")).tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(file, dataset, little_endian=False, implicit_vr=False, force_encoding=True)
        numbers = read(file)
        np.testing.assert_array_equal(numbers.values[..., 0], STORED)
        assert numbers.kind.high == (4095 if bits == 12 else None)


def test_floating_point_numbers(written):
    file = written()
    dataset = pydicom.dcmread(file)
    values = RANDOM.normal(size=(6, 5)).astype(np.float32)
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        del dataset[keyword]
    dataset.FloatPixelData, dataset.BitsAllocated = values.tobytes(), 32
    dataset.save_as(file)
    np.testing.assert_array_equal(read(file).values[..., 0], values)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"NumberOfFrames": 30}, "it has 30 frames; save each as a file of its own"),
        ({"ModalityLUTSequence": []}, "ModalityLUTSequence"),
        ({"HighBit": 15}, "HighBit"),
        ({"Rows": 60000, "Columns": 60000}, "3600 megapixels; --max-megapixels"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in colour of 16 bits"),
        ({"Rows": None}, r"a DICOM file without an image \(DX\)"),
    ],
)
def test_what_is_no_single_image_is_refused(written, elements, words):
    assert re.search(words, refusal(written(**elements)))


def test_a_missing_decoder_and_a_missing_package_are_named(written, monkeypatch):
    file = written()
    dataset = pydicom.dcmread(file)
    dataset.PixelData = encapsulate([b"no code stream"])
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"
    dataset.save_as(file)
    assert "compressed as JPEG-LS Lossless Image Compression, which the package gdcm (pip install" in refusal(file)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    dataset.save_as(file)
    assert "transfer syntax, MPEG2 Main Profile / Main Level, is not read" in refusal(file)
    monkeypatch.setattr(dicom_file, "find_spec", lambda name: None)
    assert "needs the package pydicom" in refusal(file)


def test_truncated_and_deflated_files_are_refused(written):
    file = written(np.zeros((60, 50), np.uint16))
    content = file.read_bytes()
    for size in (140, 300, 700, len(content) - 500):
        file.write_bytes(content[:size])
        refusal(file)
    file.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"))
    assert "deflated" in refusal(file)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_files_give_one_line_or_numbers(written, seed):
    random, file = np.random.default_rng(seed), written(WindowCenter=5, WindowWidth=9)
    content = bytearray(file.read_bytes())
    for place in random.integers(132, len(content) - 60, 6):
        content[place] = random.integers(0, 256)
    file.write_bytes(content)
    with suppress(ValueError):
        read(file)


@pytest.mark.process
def test_pydicom_is_imported_when_such_a_file_is_met():
    modules = "infomax.data.images.files, infomax.data.images.pillow"
    code = f"import {modules}, sys; assert not {{'pydicom', 'tifffile', 'torch'}} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)
