"""PGM and PPM files of 16 bits, and PFM files of floating-point numbers, which stereo cameras' data sets have."""

import re
from typing import IO

import numpy as np

from infomax.data.decoding.options import Decoding
from infomax.data.number_files.number_format import NumberFormat, OpenedNumbers
from infomax.data.numbers import NumberKind

CHANNELS = {b"P2": 1, b"P3": 3, b"P5": 1, b"P6": 3, b"Pf": 1, b"PF": 3}
PLAIN = (b"P2", b"P3")  # numbers as text
MAX_HEADER = 10_000  # bytes; comments may stand in it
SPACE = rb"(?:\s|#[^\n]*\n)+"
HEADER = re.compile(rb"(P[2356Ff])" + SPACE + rb"(\d{1,9})" + SPACE + rb"(\d{1,9})" + SPACE + rb"([-+.\deE]{1,30})\s")


def open_netpbm(stream: IO[bytes], decoding: Decoding) -> OpenedNumbers | None:
    """Opens a PGM, PPM or PFM file; see :class:`~infomax.data.number_files.number_format.NumberFormat`.

    Raises:
        ValueError: if it is damaged.
    """
    header = HEADER.match(stream.read(MAX_HEADER))
    if header is None:
        return None
    magic, last = header[1], float(header[4])
    width, height, channels = int(header[2]), int(header[3]), CHANNELS[magic]
    is_float = magic in (b"Pf", b"PF")
    if not is_float and not 255 < last <= 65535:
        return None
    kind = NumberKind(channels, np.dtype(np.float32)) if is_float else NumberKind(channels, np.dtype("u2"), 0, last)

    def read() -> np.ndarray:
        stream.seek(header.end())
        count = width * height * channels
        if magic in PLAIN:
            values = _read_text(stream, count, last)
        else:
            stored = np.dtype("u2" if not is_float else "f4").newbyteorder("<" if is_float and last < 0 else ">")
            data = stream.read(count * stored.itemsize)
            values = np.frombuffer(data, stored, len(data) // stored.itemsize)
        if len(values) < count:
            raise ValueError(f"its end is missing: {len(values):,} of {count:,} numbers are there")
        values = values[:count].reshape(height, width, channels).astype(kind.dtype)
        return values[::-1] if is_float else values  # PFM begins with the lowest row

    return OpenedNumbers(kind, width, height, read)


def _read_text(stream: IO[bytes], count: int, largest: float) -> np.ndarray:
    """Returns the first ``count`` decimal numbers of a text, or as many as there are."""
    words = stream.read().split(None, count)[:count]
    values = np.array(words, dtype=np.bytes_).astype(np.int64)
    if len(values) and not 0 <= values.min() <= values.max() <= largest:
        raise ValueError(f"it has the number {values.max()}, and its header says that {largest:g} is the largest")
    return values


NETPBM = NumberFormat("PGM, PPM or PFM", lambda start: start[:2] in CHANNELS, open_netpbm)
