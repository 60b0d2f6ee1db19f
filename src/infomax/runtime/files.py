"""Files that are either the old ones or the new ones, whatever happens while they are written."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Where what can be made again is kept: ``infomax`` below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home if os.path.isabs(home) else tempfile.gettempdir()) / "infomax"


def write_atomic(file: Path, content: bytes) -> None:
    """Write beside the place, make sure that it reached the disk, and move it there.

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
        folder = os.open(file.parent, os.O_RDONLY)  # the move too has to reach the disk
        os.fsync(folder)
        os.close(folder)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
