"""Sets deterministic mode, and silences the warnings that torch's compiler gives about its own code."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Without the warnings that torch provokes itself when it compiles."""
    if not wanted:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\._inductor")
        warnings.filterwarnings("ignore", ".* should not be instantiated", DeprecationWarning)  # torch 2.11
        yield


@contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """Only operations that give the same bits each time, where wanted; otherwise a GPU's fastest convolutions, which it
    finds by trying them for each size, of which a run has few."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not wanted
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
