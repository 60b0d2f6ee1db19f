"""Provenance of a run: the command, the time, the commit, the machine and the versions of packages."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Returns what ``config.json`` records of the process: command, time, commit, machine and package versions."""
    packages = ("infomax", "torch", "torchvision", "timm", "numpy")
    return {
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "commit": commit_of_source(),
        "machine": {"system": platform.platform(), "cpu": _cpu(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _cpu() -> str:
    """Returns the processor's name, or the architecture if the system does not tell the name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def commit_of_source() -> str | None:
    """Returns the git commit of the checkout that this code runs from, or None if it does not run from one.

    The commit ends in ``-dirty`` if files were changed since.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    describe = [*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        # An installed package may lie inside of a repository that does not contain it.
        listed = subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=False
        )
        if listed.returncode != 0:
            return None
        return subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:  # git is not installed
        return None
