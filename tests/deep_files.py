"""Makes small image files as microscopes, satellites, scanners and depth cameras write them; all of it is drawn here.

Each maker writes ``count`` images into two folders of classes, in turns, and the classes differ in what the images
show: an encoder that sees all channels and the whole depth tells them apart.
"""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

NO_DATA = 0
"""The number that tiles of satellites hold where nothing was measured."""
BANDS = ("B02", "B03", "B04", "B08", "B11")
GDAL_METADATA, GDAL_NO_DATA = 42112, 42113  # tags of GeoTIFF files


def make_tiles(folder: Path, count: int = 12, seed: int = 0, side: int = 32) -> None:
    """Writes tiles of a satellite: 5 bands of reflectances as uint16, planes apart, with names and a no-data number."""
    for file, random, is_water in _files(folder, ("forest", "water"), count, seed, ".tif"):
        _write_bands(file, _tile(random, side, is_water=is_water), BANDS)


def make_band_files(folder: Path, count: int = 12, seed: int = 0, side: int = 32) -> None:
    """Writes the tiles of :func:`make_tiles` with each band in a file of its own, as ``forest/00_B02.tif``."""
    for file, random, is_water in _files(folder, ("forest", "water"), count, seed, ".tif"):
        for band, values in zip(BANDS, _tile(random, side, is_water=is_water), strict=True):
            _write_bands(file.with_name(f"{file.stem}_{band}.tif"), values[None], (band,))


def make_dicoms(folder: Path, count: int = 12, seed: int = 0, side: int = 32) -> None:
    """Writes X-ray images as DICOM: 12 bits stored, of a window; each third one has white for its smallest number."""
    for number, (file, random, has_nodule) in enumerate(_files(folder, ("clear", "nodule"), count, seed, ".dcm")):
        values = 1500 + 400 * _blob(side, side / 2, side / 2, side / 3) + random.normal(0, 20, (side, side))
        if has_nodule:
            values = values + 900 * _blob(side, *random.uniform(side / 4, side * 3 / 4, 2), side / 10)
        stored = values.clip(0, 4095).round().astype(np.uint16)
        is_inverted = number % 3 == 2
        write_dicom(
            file,
            4095 - stored if is_inverted else stored,
            PhotometricInterpretation="MONOCHROME1" if is_inverted else "MONOCHROME2",
            WindowCenter=2048,
            WindowWidth=3000,
        )


def make_cells(folder: Path, count: int = 12, seed: int = 0, side: int = 32) -> None:
    """Writes fluorescence images as ImageJ saves them: hyperstacks of two channels as float32 TIFF."""
    for file, random, is_treated in _files(folder, ("control", "treated"), count, seed, ".tif"):
        y, x = random.uniform(side / 4, side * 3 / 4, 2)
        nuclei = 300 + 2000 * _blob(side, y, x, side / 8) + random.normal(0, 30, (side, side))
        marker = 200 + (1500 if is_treated else 100) * _blob(side, y, x, side / 5) + random.normal(0, 30, (side, side))
        labels = {"axes": "CYX", "Labels": ["DAPI", "GFP"]}
        tifffile.imwrite(file, np.stack([nuclei, marker]).astype(np.float32), imagej=True, metadata=labels)


def make_depth(folder: Path, count: int = 12, seed: int = 0, side: int = 32) -> None:
    """Writes depth maps in metres as float32 TIFF; NaN stands where the camera saw nothing."""
    for file, random, is_box in _files(folder, ("ball", "box"), count, seed, ".tif"):
        tifffile.imwrite(file, _depth(random, side, is_ball=not is_box))


def make_depth_array(file: Path, count: int = 12, seed: int = 0, side: int = 32) -> None:
    """Writes the depth maps of :func:`make_depth` as one array float32 [count, side, side], an .npy file."""
    random = np.random.default_rng(seed)
    np.save(file, np.stack([_depth(random, side, is_ball=number % 2 == 0) for number in range(count)]))


def make_gray16(folder: Path, count: int = 12, seed: int = 0, side: int = 32) -> None:
    """Writes images of a microscope's 12-bit camera as PNG of 16 bits and one channel."""
    for file, random, is_sparse in _files(folder, ("dense", "sparse"), count, seed, ".png"):
        values = 200 + random.normal(0, 10, (side, side))
        for _ in range(2 if is_sparse else 8):
            values = values + 900 * _blob(side, *random.uniform(0, side, 2), side / 16)
        Image.fromarray(values.clip(0, 4095).round().astype(np.uint16)).save(file)


def write_dicom(file: Path, stored: np.ndarray, **elements: object) -> FileDataset:
    """Writes an image as a DICOM file, uncompressed, 12 bits stored if nothing else is said.

    Args:
        file: The file.
        stored: The stored numbers [h, w], or [frames, h, w], of 16 bits.
        elements: Further elements of the file by their keywords; they replace those that are written else.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"  # digital X-ray
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientName = "DX", "Nobody^Drawn"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = stored.tobytes()
    dataset.save_as(file, enforce_file_format=True)
    return dataset


def _files(folder: Path, classes: tuple[str, str], count: int, seed: int, suffix: str):
    """Yields for each image its file, the random numbers to draw it by, and whether it is of the second class."""
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        yield folder / classes[number % 2] / f"{number:02d}{suffix}", random, bool(number % 2)


def _tile(random: np.random.Generator, side: int, *, is_water: bool) -> np.ndarray:
    """Returns the bands [5, side, side] of a tile; near infrared tells the classes apart. Its corner has no data."""
    means = np.array([900, 800, 500, 200, 100] if is_water else [300, 500, 300, 3200, 1600])[:, None, None]
    clouds = 1 + 0.2 * _blob(side, *random.uniform(0, side, 2), side / 3)
    values = (means * clouds + random.normal(0, 30, (5, side, side))).clip(1, 10000).round().astype(np.uint16)
    y, x = np.mgrid[:side, :side]
    values[:, x + y < random.integers(0, side // 2)] = NO_DATA
    return values


def _write_bands(file: Path, values: np.ndarray, names: tuple[str, ...]) -> None:
    """Writes bands [bands, h, w] as GDAL does: planes apart, with their names and the no-data number in GDAL's tags."""
    items = "".join(
        f'<Item name="DESCRIPTION" sample="{number}" role="description">{name}</Item>'
        for number, name in enumerate(names)
    )
    tags = [
        (GDAL_METADATA, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True),
        (GDAL_NO_DATA, "s", 0, str(NO_DATA), True),
    ]
    is_one = len(values) == 1
    planar = {} if is_one else {"planarconfig": "separate"}
    tifffile.imwrite(
        file, values[0] if is_one else values, photometric="minisblack", metadata=None, extratags=tags, **planar
    )


def _depth(random: np.random.Generator, side: int, *, is_ball: bool) -> np.ndarray:
    """Returns a depth map [side, side] in metres: a ball or a box before a wall, with a shadow of NaN."""
    y, x = random.uniform(side / 3, side * 2 / 3, 2)
    rows, columns = np.mgrid[:side, :side]
    radius, wall = side / 4, random.uniform(3, 4)
    depth = wall + random.normal(0, 0.01, (side, side))
    if is_ball:
        squared = radius**2 - (rows - y) ** 2 - (columns - x) ** 2
        depth = np.where(squared > 0, 2 - np.sqrt(squared.clip(0)) / side, depth)
    else:
        depth = np.where((abs(rows - y) < radius) & (abs(columns - x) < radius), 2.0, depth)
    depth[:, : int(random.integers(1, 4))] = np.nan
    return depth.astype(np.float32)


def _blob(side: int, y: float, x: float, width: float) -> np.ndarray:
    """Returns a round spot [side, side] with 1 at its centre."""
    rows, columns = np.mgrid[:side, :side]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))
