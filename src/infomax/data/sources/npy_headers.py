"""Reads the headers of .npy files, and of those in an .npz file, before memory is taken for their data."""

import warnings
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from typing import IO

import numpy as np

from infomax.data.sources.array_layouts import LAYOUTS, find_layout
from infomax.data.splits import shown_name
from infomax.runtime.memory import machine_memory

MAX_HEADER = 10_000  # bytes of the header of an array, as numpy limits it
MAX_RATIO = 1100  # zlib makes at most so many bytes of one; a zip file that claims more is made to fill the memory


@dataclass(frozen=True)
class ArrayHeader:
    """A frozen dataclass that holds what an array's header says."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{'pickled objects' if self.dtype.hasobject else self.dtype} {list(self.shape)}"

    @property
    def like_images(self) -> bool:
        """Whether it can be images, in one order of its axes or another."""
        try:
            find_layout("", self.shape, self.dtype, LAYOUTS[0])
        except ValueError:
            return False
        return True


def read_headers(file: zipfile.ZipFile) -> dict[str, ArrayHeader]:
    """Returns the headers of the arrays in an .npz file by their names.

    Raises:
        ValueError: if a header is damaged, or an array would be larger than the file or the memory.
    """
    headers = {}
    for member in file.infolist():
        if not member.filename.endswith(".npy"):
            continue
        key = member.filename.removesuffix(".npy")
        title = f"array {shown_name(key)}"
        if member.file_size > MAX_RATIO * (member.compress_size + 1):
            sizes = f"{member.compress_size} bytes cannot unpack to {member.file_size}"
            raise ValueError(f"{title} is damaged or made to fill the memory: {sizes}")
        memory = machine_memory()
        if member.file_size > memory:
            sizes = f"takes {member.file_size / 1e9:.1f} GB, more than the {memory / 1e9:.1f} GB of this machine"
            raise ValueError(f"{title} {sizes}; an .npy file stays on disk")
        with file.open(member) as stream:
            headers[key] = read_header(stream, title, member.file_size)
    return headers


def read_header(stream: IO[bytes], title: str, size: int) -> ArrayHeader:
    """Reads the header at the beginning of an array's file, and no data.

    Args:
        stream: The file.
        title: What an error calls the array.
        size: Bytes of the whole file.

    Raises:
        ValueError: if it is no header, or one of more data than the file has.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with warnings.catch_warnings(action="ignore"):  # of a header that Python 2 wrote
            shape, _, dtype = readers[np.lib.format.read_magic(stream)](stream, max_header_size=MAX_HEADER)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        raise
    except Exception as error:  # a damaged header makes numpy raise errors of many kinds
        raise ValueError(f"not a readable .npy of plain numbers: {title} has no header of an array") from error
    header = ArrayHeader(tuple(map(int, shape)), dtype)
    wanted, size = prod(header.shape) * dtype.itemsize, size - stream.tell()
    if any(length < 0 for length in header.shape) or (not dtype.hasobject and wanted > size):
        raise ValueError(f"{title} says that it is {header}, but has {size} bytes of data")
    return header


def read_array(file: zipfile.ZipFile, key: str) -> np.ndarray:
    """Reads an array of an .npz file; no pickles."""
    with file.open(f"{key}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=MAX_HEADER)
