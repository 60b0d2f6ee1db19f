"""Memory that a process shares with the workers that it starts, and that is gone when they are."""

import mmap
import os
from multiprocessing import reduction
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8


class SharedMemory:
    """Bytes that are 0 at first, in one memory for this process and the workers that are handed this object.

    No file has a name for them, so nothing is left behind when a process is killed. A page takes memory once it is
    written to.

    Args:
        length: Number of bytes, above 0.
    """

    def __init__(self, length: int):
        self.length = length
        if hasattr(os, "memfd_create"):  # Linux: unlike /dev/shm, it may be as large as the memory
            self.file: int | None = os.memfd_create("infomax")
            os.ftruncate(self.file, length)
            self.bytes = _map(self.file, length)
        else:
            self.file, self.tensor = None, torch.zeros(length, dtype=torch.uint8).share_memory_()
            self.bytes = self.tensor.numpy()

    def array(self, start: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """Returns the bytes from ``start`` on as an array."""
        length = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.bytes[start : start + length].view(dtype).reshape(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        """Hands the memory itself to a process that is being started, not a copy."""
        if self.file is None:
            return _from_tensor, (self.tensor,)
        return _from_file, (reduction.DupFd(self.file), self.length)  # pyrefly: ignore[missing-attribute]

    def __del__(self) -> None:
        if getattr(self, "file", None) is not None:
            os.close(self.file)  # pyrefly: ignore[bad-argument-type]


def _map(file: int, length: int) -> UInt8[np.ndarray, " length"]:
    return np.frombuffer(mmap.mmap(file, length), np.uint8)


def _from_file(handle: Any, length: int) -> SharedMemory:
    memory = SharedMemory.__new__(SharedMemory)
    memory.file, memory.length = handle.detach(), length
    memory.bytes = _map(memory.file, length)
    return memory


def _from_tensor(tensor: torch.Tensor) -> SharedMemory:
    memory = SharedMemory.__new__(SharedMemory)
    memory.file, memory.length, memory.tensor = None, len(tensor), tensor
    memory.bytes = tensor.numpy()
    return memory
