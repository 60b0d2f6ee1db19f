"""What a long evaluation keeps in a folder of its own, so that a killed process goes on and computes nothing twice."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from infomax.data.splits import LabelledImages
from infomax.runtime import checkpoints
from infomax.runtime.collectives import broadcast_from_rank0, rank
from infomax.runtime.files import write_atomic
from infomax.runtime.json_lines import append_json_line, read_json_lines


class Unfinished:
    """Finished parts of an evaluation, a line each in ``finished.jsonl``, and checkpoints of the part under way.

    On several ranks the folder is one that they share; the first writes.

    Args:
        path: The folder; None keeps nothing.
        told: All that decides the results, of plain values.

    Raises:
        ValueError: if the folder was made with anything else in ``told``, or is not such a folder.
    """

    def __init__(self, path: Path | None, told: dict[str, Any]):
        self.path = path
        if path is not None:
            broadcast_from_rank0(lambda: _claim(path, json.loads(json.dumps(told))))

    def finished(self, name: str) -> dict[str, Any] | None:
        """The row of a finished part, as :meth:`finish` was given it; None before."""
        if (path := self.path) is None:
            return None
        file = path / "finished.jsonl"
        rows = broadcast_from_rank0(lambda: read_json_lines(file) if file.is_file() else [])
        return next((row["row"] for row in rows if row["name"] == name), None)

    def finish(self, name: str, row: dict[str, Any]) -> None:
        """Keep a part's row, and its checkpoints no longer."""
        if self.path is not None and rank() == 0:
            append_json_line(self.path / "finished.jsonl", {"name": name, "row": row})
            shutil.rmtree(self.path / name, ignore_errors=True)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Keep a state, whose ``step`` numbers it; see :func:`infomax.runtime.checkpoints.save`."""
        if self.path is not None and rank() == 0:
            checkpoints.save(self.path / name, state)

    def newest(self, name: str) -> dict[str, Any] | None:
        """The state that was kept last, on the CPU; None without any."""
        if (path := self.path) is None:
            return None
        file = broadcast_from_rank0(lambda: checkpoints.newest_readable(path / name))
        return None if file is None else checkpoints.load(file)


def _claim(path: Path, told: dict[str, Any]) -> None:
    file = path / "settings.json"
    if not file.is_file():
        if path.exists() and not (path.is_dir() and all(there.suffix == ".partial" for there in path.iterdir())):
            raise ValueError(f"--work {path} exists and is not a folder of unfinished work; name another")
        path.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(told, indent=1).encode())
        return
    try:
        there = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    different = [key for key in {**there, **told} if there.get(key) != told.get(key)]
    if different:
        what = "; ".join(f"{key} was {there.get(key)}, is {told.get(key)}" for key in different)
        raise ValueError(f"--work {path} was begun with other settings: {what}. Name another folder")


def hash_labelled_images(part: LabelledImages) -> str:
    """Of labelled images, their labels and their order."""
    known = hashlib.sha256(part.images.state(part.index).encode())
    known.update(part.index.tobytes() + part.labels.tobytes())
    return known.hexdigest()[:16]
