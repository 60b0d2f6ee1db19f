"""Sets deterministic mode, and silences the warnings that torch's compiler gives about its own code."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def quiet_compiler_warnings(enabled: bool) -> Iterator[None]:
    """Ignores the warnings that torch's own code causes when it compiles; changes nothing if not ``enabled``."""
    if not enabled:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\._inductor")
        warnings.filterwarnings("ignore", ".* should not be instantiated", DeprecationWarning)  # torch 2.11
        yield


@contextmanager
def deterministic_mode(enabled: bool) -> Iterator[None]:
    """Uses only operations that give the same bits each time, if ``enabled``, and restores torch's settings at the end.

    If not ``enabled``, a GPU's fastest convolutions are used. cuDNN finds them by trying all of them for each input
    size, which pays because a run has few sizes.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not enabled
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this setting
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if torch.are_deterministic_algorithms_enabled() != before[0]:  # to set it imports torch's compiler, for seconds
            torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
