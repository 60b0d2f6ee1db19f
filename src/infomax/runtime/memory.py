"""The memory of this machine."""

import os
from contextlib import suppress
from pathlib import Path


def machine_memory() -> int:
    """Returns the memory of this machine that the process may use, in bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


def device_memory(device: str) -> int:
    """Returns the memory of this machine for ``cpu``, and of its first GPU for ``cuda``, in bytes."""
    if device == "cpu":
        return machine_memory()
    import torch

    return torch.cuda.get_device_properties(0).total_memory
