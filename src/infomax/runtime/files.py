"""Writes files atomically, and names the cache folder."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Returns the folder for files that can be computed again: ``infomax`` below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home if os.path.isabs(home) else tempfile.gettempdir()) / "infomax"


def write_atomic(file: Path, content: bytes) -> None:
    """Writes a file so that at any time it has either its old content or all of the new one.

    The content is first written to a hidden file beside it, forced to the disk, and then moved.

    Raises:
        OSError: if it could not be written; ``file`` is then as it was.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")  # another process may write the same file
    try:
        with partial.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)  # the move is stored in the folder, which has to reach the disk too
        os.fsync(folder)
        os.close(folder)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
