"""Saves a run in the temporary folder if its own folder cannot be written, or is gone."""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infomax.runtime import checkpoints
from infomax.runtime.files import write_atomic


class FolderGoneError(OSError):
    """An error that says that a run folder was removed, moved or replaced while the run trained."""


def check_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Checks that a folder is still that of a run.

    The folder's number on the disk does not tell: some network file systems give a new one from time to time.

    Args:
        folder: The run folder.
        config: What its ``config.json`` held when the training began.

    Raises:
        FolderGoneError: if it was removed, moved or replaced by that of another run.
    """
    try:
        now = json.loads((folder / "config.json").read_bytes())
        if now.get("started") == config.get("started"):
            return
    except (OSError, ValueError, AttributeError):
        pass
    raise FolderGoneError(f"{folder} was removed, moved or replaced while the run trained")


def rescue_folder(folder: Path, config: Mapping[str, Any]) -> Path:
    """Returns the folder for rescue copies of a run, below the temporary folder; it need not exist yet.

    It is the same one each time, so that repeated failures and several ranks leave no more than one. A run that is
    started later in the same place has another one.

    Args:
        folder: The run folder.
        config: The content of its ``config.json``.
    """
    run = f"{os.path.abspath(folder)}\n{config.get('started')}"
    name = hashlib.sha256(run.encode(errors="surrogateescape")).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"infomax-rescue-{os.getuid()}-{name}"


def save_elsewhere(folder: Path, config: Mapping[str, Any], state: dict[str, Any]) -> Path:
    """Saves a state in the run's rescue folder, with the ``config.json`` that makes it a run folder.

    Args:
        folder: The run folder.
        config: The content of its ``config.json``.
        state: The state, as a checkpoint holds it.

    Returns:
        The checkpoint.

    Raises:
        OSError: if the temporary folder cannot be written either.
    """
    rescued = rescue_folder(folder, config)
    try:
        rescued.mkdir(mode=0o700)
    except FileExistsError:
        if not _belongs_to_this_user_alone(rescued):  # others may write into the temporary folder
            rescued = Path(tempfile.mkdtemp(prefix="infomax-rescue-"))
    write_atomic(rescued / "config.json", json.dumps(config, indent=1).encode())
    file = checkpoints.save(rescued / "checkpoints", state)
    for old in checkpoints.list_checkpoints(file.parent):
        if old != file and checkpoints.step_of(old) <= state["step"]:
            old.unlink(missing_ok=True)
    return file


def _belongs_to_this_user_alone(folder: Path) -> bool:
    status = os.lstat(folder)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
