"""The memory of this machine."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from infomax.runtime.control_groups import control_groups


def machine_memory() -> int:
    """Returns the memory of this machine that the process may use, in bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([memory, *(limit for limit, _ in _limits())])


def available_memory() -> int:
    """Returns the memory that the process could take now, in bytes: what is free, or holds copies of files.

    It is half of the machine's memory where the system does not say.
    """
    try:
        meminfo = Path("/proc/meminfo").read_text()
    except OSError:
        return machine_memory() // 2
    lines = [line for line in meminfo.splitlines() if line.startswith("MemAvailable")]
    available = 1024 * int(lines[0].split()[1]) if lines else machine_memory() // 2
    return min([available, *(left for _, left in _limits())])


def _limits(root: Path = Path("/")) -> Iterator[tuple[int, int]]:
    """Yields the limit of each control group of this process, if it has one, and what is left of it, in bytes.

    Args:
        root: Folder that the groups are looked for in; ``/`` but for tests.
    """
    for group in control_groups("memory", root):
        for names in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):  # no such file, or "max", which is no limit
                limit, used = (int((group / name).read_text()) for name in names)
                yield limit, max(0, limit - used + _copies_of_files(group))


def _copies_of_files(group: Path) -> int:
    """Returns the bytes that a control group holds of files that were read, and would give up for others."""
    with suppress(OSError, ValueError):
        numbers = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(numbers.get("total_inactive_file", numbers.get("inactive_file", 0)))
    return 0


def device_memory(device: str) -> int:
    """Returns the memory of a kind of device, in bytes.

    That is the memory of this machine for ``cpu``, that of its first GPU for ``cuda``, and what Apple's GPU may take of
    the machine's for ``mps``.
    """
    if device == "cpu":
        return machine_memory()
    import torch

    if device == "mps":
        return torch.mps.recommended_max_memory()
    return torch.cuda.get_device_properties(0).total_memory
