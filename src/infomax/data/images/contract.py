"""Says what images that are opened by their index can do, and gives those of any source another pixel format."""

import hashlib
from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Int, UInt8, UInt16
from PIL import Image

from infomax.data.decoding.fast_jpegs import ReusedMemory
from infomax.data.decoding.image_files import DivisorChooser
from infomax.data.decoding.options import Decoding
from infomax.data.numbers import RGB_KIND, NumberKind, Numbers, pixels_of, to_gray
from infomax.data.pixel_format import PixelFormat
from infomax.data.shown_pixels import shown_image


class Images(ABC):
    """A data set whose images are opened by their index, from 0, in any order and from any process."""

    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n classes"] | None
    """For each image the index of its class in ``classes``; or a row with 1 for each class that it shows and 0 for the
    others, if it can show several. None if there are no labels."""
    classes: list[str]
    """Names of the classes; empty without labels."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Returns the image's name, which messages use: its path, or its number."""

    def key(self, index: int) -> int:
        """Returns the number that stands for the image when the random numbers of its views are drawn.

        The key is the index, except for images of a stream: there it is a hash of the encoded image, which does not
        depend on its place in the stream.
        """
        return index

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns a short hash that tells data sets apart: a run is resumed only if its data set still has the same.

        It covers the images and their order, as far as this takes little time, and not where they are: the pixels of an
        array, or of 1,000 of its images if they take 256 MB or more; of files, what
        :func:`infomax.data.fingerprints.hash_files` reads.
        """

    def hashes(self) -> tuple[str, str | None]:
        """Returns the fingerprint, and a short hash of when the files were changed last; both in one pass over them.

        The second changes if the files are copied too, so it says no more than that some may have been changed. It is
        None if there are no files, or :meth:`fingerprint` reads all their bytes.
        """
        return self.fingerprint(), None

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        """Returns a hash of the current content of some images: cached features are valid while it stays the same.

        It changes if their pixels do; for image files, if their size or their time of modification does.

        Args:
            index: Indices of the images; their order counts.
        """
        return hashlib.sha256(f"{self.fingerprint()} {index.tolist()}".encode()).hexdigest()

    def decoded_by(self, decoding: Decoding) -> "Images":
        """Returns the same images, decoded as the user decided; images that are not decoded stay as they are."""
        return self

    def kind(self, index: int) -> NumberKind:
        """Returns what the numbers of an image are; of a file, the header alone is read.

        Raises:
            ValueError: naming the image, if its header cannot be read.
        """
        return RGB_KIND

    def read(self, index: int) -> Numbers:
        """Returns the numbers of an image as its file or array holds them; those of 8-bit files are RGB.

        Raises:
            ValueError: naming the image, if it cannot be decoded.
        """
        return Numbers(self.open_pixels(index), RGB_KIND)

    def in_format(self, pixel_format: PixelFormat) -> "Images":
        """Returns the same images, whose pixels are those of a format; images are 8-bit RGB unless this is called."""
        return self if pixel_format.is_rgb else FormattedImages(self, pixel_format)

    def show(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        """Returns a picture of an image for people, whatever its channels and depth are.

        Images in 8-bit RGB are those that :meth:`open` returns, and so are all images in a format that was said by
        :meth:`in_format`. Of others the first channels are stretched for the eye.

        Args:
            index: Index of the image.
            choose_divisor: As :meth:`open` takes it.

        Raises:
            ValueError: naming the image, if it cannot be decoded.
        """
        kind = self.kind(index)
        if kind.is_byte and kind.channels == 3:
            return self.open(index, choose_divisor)
        return shown_image(self.read(index).values)

    @abstractmethod
    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        """Decodes an image: in RGB, turned as its EXIF orientation says, transparent pixels on white.

        Args:
            index: Index of the image.
            choose_divisor: Called with the width and height of a JPEG before it is decoded. If it returns 2, 4 or 8, it
                is decoded at 1/2, 1/4 or 1/8 of its size, which takes less time. None decodes it in full.

        Raises:
            ValueError: naming the image, if it cannot be decoded.
        """

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
        """Decodes an image to the pixels that an encoder is given; most JPEGs in less time than :meth:`open` takes.

        Without :meth:`in_format`, they are those of the image that :meth:`open` returns.

        Args:
            index: Index of the image.
            choose_divisor: As :meth:`open` takes it.
            buffer: Memory that may be decoded into. The result is then valid until the next image is decoded into it.

        Raises:
            ValueError: naming the image, if it cannot be decoded.
        """
        return np.asarray(self.open(index, choose_divisor))


class FormattedImages(Images):
    """Images of any source whose pixels are those of a format.

    Args:
        base: The images.
        pixel_format: The format.
    """

    def __init__(self, base: Images, pixel_format: PixelFormat):
        self.base, self.pixel_format = base, pixel_format
        self.labels, self.classes = base.labels, base.classes

    def __len__(self) -> int:
        return len(self.base)

    def name(self, index: int) -> str:
        return self.base.name(index)

    def key(self, index: int) -> int:
        return self.base.key(index)

    def fingerprint(self) -> str:
        return self.base.fingerprint()

    def hashes(self) -> tuple[str, str | None]:
        return self.base.hashes()

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        return self.base.state(index)

    def decoded_by(self, decoding: Decoding) -> "FormattedImages":
        return FormattedImages(self.base.decoded_by(decoding), self.pixel_format)

    def kind(self, index: int) -> NumberKind:
        return self.base.kind(index)

    def read(self, index: int) -> Numbers:
        return self.base.read(index)

    def in_format(self, pixel_format: PixelFormat) -> Images:
        return self.base.in_format(pixel_format)

    def show(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        return self.open(index, choose_divisor)

    def open(self, index: int, choose_divisor: DivisorChooser | None = None) -> Image.Image:
        return shown_image(self.open_pixels(index), self.pixel_format.show)

    def open_pixels(
        self, index: int, choose_divisor: DivisorChooser | None = None, buffer: ReusedMemory | None = None
    ) -> UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]:
        if (
            self.pixel_format.channels == 1 and not self.pixel_format.is_deep
        ):  # RGB is decoded in less time, and then made gray
            return to_gray(self.base.open_pixels(index, choose_divisor, buffer))
        try:
            return pixels_of(self.base.read(index).values, self.pixel_format)
        except ValueError as error:
            message = str(error)
            name = self.name(index)
            raise type(error)(message if name in message else f"{name}: {message}") from error
