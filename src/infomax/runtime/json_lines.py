"""Files with one JSON object a line, which survive a full disk or a lost machine."""

import json
import os
from pathlib import Path
from typing import Any


def append_json_line(file: Path, row: dict[str, Any]) -> None:
    """Add one line of JSON to a file."""
    with file.open("ab+") as lines:
        torn = lines.tell() > 0 and (lines.seek(-1, os.SEEK_END), lines.read(1))[1] != b"\n"
        lines.write((("\n" if torn else "") + json.dumps(row) + "\n").encode())


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of JSON in a file, but those that were cut off."""
    rows = []
    for line in file.read_text().splitlines(keepends=True):
        try:
            rows += [json.loads(line)] if line.endswith("\n") else []
        except json.JSONDecodeError:  # and went on after the disk had room again
            continue
    return rows
