"""DICOM files of one image: X-ray, CT, MR, ultrasound, by pydicom.

Numbers are those that the scanner means: stored numbers times the rescale slope plus its intercept, Hounsfield units of
CT. Of ``MONOCHROME1``, whose largest number is black, they are turned around. See docs/decisions.md.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any

import numpy as np

from infomax.data.decoding.image_files import RefusedImageError
from infomax.data.decoding.options import Decoding
from infomax.data.number_files.number_format import NumberFormat, OpenedNumbers
from infomax.data.numbers import NumberKind
from infomax.data.pixel_format import BYTE_MAX
from infomax.runtime.extras import how_to_install

DEFLATED = b"1.2.840.10008.1.2.1.99"  # a transfer syntax whose whole content is one stream of Deflate
FLOATS = {32: np.float32, 64: np.float64}
FLOAT32_BITS = 24  # of whole numbers that float32 holds exactly
GDCM = "the package gdcm (pip install python-gdcm)"
GRAY = ("MONOCHROME1", "MONOCHROME2")


def open_dicom(stream: IO[bytes], decoding: Decoding) -> OpenedNumbers:
    """Opens a DICOM file; see :class:`~infomax.data.number_files.number_format.NumberFormat`.

    Raises:
        ValueError: if it is damaged, holds no single image, or a package is missing that decodes it.
    """
    if find_spec("pydicom") is None:
        raise RefusedImageError(f"it is a DICOM file, which needs the package pydicom: {how_to_install('dicom')}")
    from pydicom import dcmread

    if DEFLATED in stream.read(2000):  # in the first part, which is never compressed
        raise RefusedImageError("its content is deflated as a whole, which is not read, for it could fill the memory")
    stream.seek(0)
    header: Any = dcmread(stream, stop_before_pixels=True)
    _check(header)
    photometric = header.get("PhotometricInterpretation", "")
    if photometric not in GRAY:
        kind = NumberKind(3, np.dtype(np.uint8), 0, BYTE_MAX)
        return OpenedNumbers(kind, header.Columns, header.Rows, lambda: _read_colour(stream, header))
    scale = _scale_of(header)
    return OpenedNumbers(scale.kind, header.Columns, header.Rows, lambda: scale.apply(_read_stored(stream)[..., None]))


def _check(header: Any) -> None:
    """Raises RefusedImageError if a file does not hold one image that can be decoded."""
    if not header.get("Rows") or not header.get("Columns"):
        raise RefusedImageError(f"it is a DICOM file without an image ({header.get('Modality', 'of no modality')})")
    if (frames := int(header.get("NumberOfFrames") or 1)) != 1:
        raise RefusedImageError(f"it has {frames} frames; save each as a file of its own")
    if "ModalityLUTSequence" in header:
        raise RefusedImageError("its numbers are given by a table (ModalityLUTSequence), which is not applied")
    if header.get("SamplesPerPixel", 1) != 1 and header.get("BitsAllocated") != 8:
        raise RefusedImageError(f"it is in colour of {header.get('BitsAllocated')} bits; want 8")
    _check_decoder(header.file_meta.TransferSyntaxUID)


def _check_decoder(syntax: Any) -> None:
    from pydicom.pixels import get_decoder

    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise RefusedImageError(f"its transfer syntax, {syntax.name}, is not read") from None
    if not is_available:
        raise RefusedImageError(f"it is compressed as {syntax.name}, which {GDCM} decodes")


@dataclass(frozen=True)
class _Scale:
    """A frozen dataclass that says how stored numbers of gray become those that are meant."""

    kind: NumberKind
    """What the numbers are then."""
    bits: int | None
    """How many bits of a stored number count; None for floating-point numbers."""
    is_signed: bool
    slope: float
    intercept: float
    turn_at: float | None
    """What numbers are subtracted from after that if the largest one is black; None if it is white."""
    padding: tuple[float, float] | None
    """The range of stored numbers that stand for no measurement; all become the first of them."""

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Returns the numbers that are meant, in the type of ``kind``."""
        values = stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        if self.bits is not None:
            unused = 8 * stored.dtype.itemsize - self.bits
            container = np.dtype(f"{'i' if self.is_signed else 'u'}{stored.dtype.itemsize}")
            values = (stored.view(container) << unused) >> unused  # other data may stand in the bits above
        if self.padding is not None and self.padding[0] != self.padding[1]:
            low, high = sorted(self.padding)
            values = np.where((values >= low) & (values <= high), self.padding[0], values)
        if self.kind.is_byte and self.bits != 8:
            values = np.rint(values * (BYTE_MAX / (2 ** (self.bits or 8) - 1)))
        if (self.slope, self.intercept) != (1, 0):
            values = values * np.float64(self.slope) + self.intercept
        if self.turn_at is not None:
            values = self.turn_at - values.astype(np.float64)
        return values.astype(self.kind.dtype, copy=False)


def _scale_of(header: Any) -> _Scale:
    """Returns how the stored numbers of a file of gray become those that are meant."""
    slope, intercept = _number(header, "RescaleSlope", 1), _number(header, "RescaleIntercept", 0)
    is_inverted = header.PhotometricInterpretation == "MONOCHROME1"
    if "BitsStored" not in header or "PixelRepresentation" not in header:
        dtype = np.dtype(FLOATS[header.BitsAllocated])
        return _Scale(NumberKind(1, dtype), None, True, slope, intercept, None, None)
    bits, is_signed = int(header.BitsStored), header.PixelRepresentation == 1
    if header.get("HighBit", bits - 1) != bits - 1 or not 1 <= bits <= header.BitsAllocated <= 32:
        raise RefusedImageError(f"its numbers of {bits} bits stand in places that are not read (HighBit)")
    smallest, largest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    ends = sorted((smallest * slope + intercept, largest * slope + intercept))
    is_plain = (slope, intercept) == (1, 0)
    is_unsigned = is_plain and not is_signed and bits <= 16
    if is_unsigned and bits <= 8:
        return _Scale(
            NumberKind(1, np.dtype(np.uint8), 0, BYTE_MAX), bits, False, 1, 0, BYTE_MAX if is_inverted else None, None
        )
    turn_at = sum(ends) if is_inverted else None
    # One type for all others, as files of one data set differ in sign, slope and intercept.
    dtype = np.dtype(np.uint16 if is_unsigned else np.float32 if bits <= FLOAT32_BITS else np.float64)
    window = _window(header) or (tuple(ends) if is_unsigned else ())
    padding = _padding(header)
    no_data = None if padding is None else padding[0] * slope + intercept
    if turn_at is not None:
        window = tuple(turn_at - end for end in reversed(window))
        no_data = None if no_data is None else turn_at - no_data
    low, high = window or (None, None)
    kind = NumberKind(1, dtype, low, high, no_data)
    return _Scale(kind, bits, is_signed, slope, intercept, turn_at, padding)


def _number(header: Any, keyword: str, default: float) -> float:
    """Returns the first number of an element; of newer files it stands in a group of the frame or of all frames."""
    for dataset in _groups(header):
        value = dataset.get(keyword)
        with suppress(TypeError, ValueError, IndexError):
            return float(value if not hasattr(value, "__getitem__") or isinstance(value, str) else value[0])
    return default


def _groups(header: Any) -> Iterator[Any]:
    yield header
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in (header.get(groups) or [])[:1]:
            for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                yield from (group.get(keyword) or [])[:1]


def _window(header: Any) -> tuple[float, ...]:
    """Returns the numbers that the first window shows as black and white, by DICOM PS3.3 C.11.2.1.2; () without one."""
    centre, width = _number(header, "WindowCenter", np.nan), _number(header, "WindowWidth", np.nan)
    if header.get("VOILUTFunction", "LINEAR") == "LINEAR":
        centre, width = centre - 0.5, width - 1
    low, high = centre - width / 2, centre + width / 2
    return (low, high) if low < high else ()


def _padding(header: Any) -> tuple[float, float] | None:
    """Returns the range of stored numbers outside of what was measured."""
    first = _number(header, "PixelPaddingValue", np.nan)
    return None if np.isnan(first) else (first, _number(header, "PixelPaddingRangeLimit", first))


def _read_stored(stream: IO[bytes]) -> np.ndarray:
    """Returns the stored numbers [h, w] of gray, or [h, w, 3] of RGB."""
    from pydicom.pixels import pixel_array

    stream.seek(0)
    source: Any = stream
    try:
        return pixel_array(source)
    except RuntimeError as error:  # the decoders that are there cannot decode this kind of it
        raise ValueError(f"{error}; {GDCM} may") from error
    except (ValueError, IndexError) as error:
        raise ValueError(f"its pixels are damaged, or their end is missing: {error}") from error


def _read_colour(stream: IO[bytes], header: Any) -> np.ndarray:
    """Returns bytes of RGB [h, w, 3]; a palette is applied."""
    from pydicom.pixels import apply_color_lut

    stored = _read_stored(stream)
    if stored.ndim == 2:
        stored = apply_color_lut(stored, header)
    return stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)


DICOM = NumberFormat("DICOM", lambda start: start[128:132] == b"DICM", open_dicom)
