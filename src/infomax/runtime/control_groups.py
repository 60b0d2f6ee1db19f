"""Finds the control groups of this process, by which Linux and containers limit what it may use: version 1 and 2."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yields the folders of this process's groups that can have limits of a controller, the innermost first.

    A group's limit holds for all groups below it, so the least one of all folders counts. A folder of version 1 and one
    of version 2 have files of other names, as ``cpu.cfs_quota_us`` and ``cpu.max``.

    Args:
        controller: Name of the controller: ``cpu`` or ``memory``.
        root: Folder that ``/proc`` and the groups' files are looked for in; ``/`` but for tests.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):  # no Linux
        return
    paths = {}  # the process's group in each hierarchy: "" is version 2
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            paths[controllers and controller] = path
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = (*after.split(" "), "", "")[:3]
        hierarchy = {"cgroup2": "", "cgroup": controller}.get(kind)
        if hierarchy in paths and (kind == "cgroup2" or controller in options.split(",")):
            mounted, point = (_unescape(field) for field in before.split(" ")[3:5])
            group = _below(paths[hierarchy], mounted)
            for folder in (group, *group.parents):  # up to the mount point
                yield root / PurePosixPath(point).relative_to("/") / folder


def _unescape(field: str) -> str:
    """Returns a path of ``mountinfo``, where spaces are written as numbers."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        field = field.replace(code, chr(int(code[1:], 8)))
    return field


def _below(path: str, mounted: str) -> PurePosixPath:
    """Returns a group's path below the mount point, where the group ``mounted`` is; that one, if it is not below."""
    group = PurePosixPath(path)
    if ".." not in group.parts and group.is_relative_to(mounted):
        return group.relative_to(mounted)
    return PurePosixPath()  # a container sees its own group alone, and may be told its path outside of it
