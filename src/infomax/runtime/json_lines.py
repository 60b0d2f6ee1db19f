"""Reads and appends to files with one JSON object a line, also after a full disk or a lost machine cut a line short."""

import json
import os
from pathlib import Path
from typing import Any

from infomax.runtime.locks import exclusive_file


def append_json_line(file: Path, row: dict[str, Any]) -> None:
    """Adds one line of JSON to a file, and makes the file if it does not exist.

    If the last line was cut short, a line break goes before the new one. A process that adds a line at the same time is
    waited for.
    """
    with file.open("ab+") as lines, exclusive_file(lines.fileno()):
        lines.seek(0, os.SEEK_END)  # it may have grown while this process waited
        is_cut = lines.tell() > 0 and (lines.seek(-1, os.SEEK_END), lines.read(1))[1] != b"\n"
        lines.write((("\n" if is_cut else "") + json.dumps(row) + "\n").encode())
        lines.flush()


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    """Reads the lines of JSON in a file, oldest first, and leaves out lines that were cut short."""
    rows = []
    for line in file.read_text().splitlines(keepends=True):
        try:
            rows += [json.loads(line)] if line.endswith("\n") else []
        except json.JSONDecodeError:  # a line that a full disk cut short, and that append_json_line ended later
            continue
    return rows
