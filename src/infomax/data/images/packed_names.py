"""Packs the names of many files into one block of bytes, which processes can share."""

import hashlib
from collections.abc import Iterable, Sequence
from operator import eq
from typing import overload

import numpy as np
from jaxtyping import UInt8


class PackedNames(Sequence[str]):
    """A sequence of many strings, such as file names, that is kept as one block of bytes.

    A list would hold a Python object for each string, in each worker.

    Args:
        block: The strings in UTF-8, each followed by a NUL. If it is mapped from a file, a process that receives these
            names maps the file too, instead of receiving the bytes.
    """

    def __init__(self, block: UInt8[np.ndarray, " bytes"]):
        self.block = block
        self.ends = np.flatnonzero(block == 0)
        if len(block) < 2**32:
            self.ends = self.ends.astype(np.uint32)  # half the memory, in each worker that is not forked

    @classmethod
    def pack(cls, names: Iterable[str]) -> "PackedNames":
        """Packs strings, which must not contain a NUL."""
        joined = b"".join(name.encode(errors="surrogateescape") + b"\0" for name in names)
        return cls(np.frombuffer(joined, np.uint8))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = 0 if index == 0 else int(self.ends[index - 1]) + 1
        return self.block[start : int(self.ends[index])].tobytes().decode(errors="surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # pyrefly: ignore[bad-override]

    def fingerprint(self) -> str:
        """Returns a short hash of the names and their order."""
        return hashlib.sha256(self.block.tobytes()[:-1].replace(b"\0", b"\n")).hexdigest()[:12]

    def __reduce__(self) -> tuple:
        if isinstance(self.block, np.memmap) and self.block.filename is not None:
            return _map_names, (self.block.filename, self.block.offset, len(self.block))
        return PackedNames, (np.asarray(self.block),)


def _map_names(file: str, offset: int, length: int) -> PackedNames:
    """Returns the names whose block is ``length`` bytes of a file, from ``offset`` on."""
    return PackedNames(np.memmap(file, np.uint8, mode="r", offset=offset, shape=(length,)))
