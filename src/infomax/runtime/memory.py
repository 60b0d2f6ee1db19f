"""The memory of this machine."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def machine_memory() -> int:
    """Returns the memory of this machine that the process may use, in bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


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
    return min([available, *_left_in_control_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _left_in_control_groups(membership: Path, root: Path) -> Iterator[int]:
    """Yields the memory, in bytes, that each control group of this process leaves, if it has a limit.

    Args:
        membership: File that names the groups of the process.
        root: Folder of all groups, of version 1 or 2.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder = root / "memory" if controllers else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        inside = folder / path.lstrip("/")
        for group in (inside, *inside.parents):
            if not group.is_relative_to(folder):
                break
            with suppress(OSError, ValueError):  # no such file, or "max", which is no limit
                limit, used = (int((group / name).read_text()) for name in names)
                yield max(0, limit - used + _copies_of_files(group))


def _copies_of_files(group: Path) -> int:
    """Returns the bytes that a control group holds of files that were read, and would give up for others."""
    with suppress(OSError, ValueError):
        numbers = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(numbers.get("total_inactive_file", numbers.get("inactive_file", 0)))
    return 0


def device_memory(device: str) -> int:
    """Returns the memory of this machine for ``cpu``, and of its first GPU for ``cuda``, in bytes."""
    if device == "cpu":
        return machine_memory()
    import torch

    return torch.cuda.get_device_properties(0).total_memory
