"""When, by what, where and by which versions a run is made."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """When, by what and where a run is started."""
    packages = ("infomax", "torch", "torchvision", "timm", "numpy")
    return {
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {"system": platform.platform(), "cpu": _cpu(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _cpu() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str | None:
    """Of the checkout that this code runs from, marked where it was changed since; None outside of one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        if (
            subprocess.run(
                [*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=False
            ).returncode
            != 0
        ):
            return None
        describe = [*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
        return subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:  # no git here
        return None
