"""Writes the files by which Linux says in which control groups a process is, and what these allow."""

from pathlib import Path

V2_MOUNTS = """\
24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
35 25 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""


def write_machine(root: Path, groups: str, mounts: str, **folders: dict[str, str] | str) -> Path:
    """Writes the files of a machine below a folder: of each control group, those of version 1, or ``cpu.max``."""
    files = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    for folder, content in folders.items():
        contents = {"cpu.max": content} if isinstance(content, str) else content
        files |= {f"{folder}/{name}": text for name, text in contents.items()}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
