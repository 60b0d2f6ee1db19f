"""Reads and appends to files with one JSON object a line, also after a full disk or a lost machine cut a line short."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

from infomax.runtime.json_values import parse_json, shorten
from infomax.runtime.locks import exclusive_file

MAX_LINE = 1 << 24  # 16 MB


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
    """Reads the lines of JSON in a file, oldest first, and leaves out lines that were cut short.

    NaN and Infinity are numbers here, because Python writes them.

    Raises:
        ValueError: naming the file and the line, if it is no regular file, a line is JSON but no object with keys, or a
            line is longer than any row.
        OSError: if it cannot be read.
    """
    if not file.is_file():
        raise ValueError(f"{file} is no regular file with lines of JSON")
    rows = []
    with file.open("rb") as lines:
        for number in itertools.count(1):
            line, where = lines.readline(MAX_LINE + 1), f"{file}, line {number}"
            if len(line) > MAX_LINE:
                raise ValueError(f"{where} is longer than {MAX_LINE} bytes, and no row of infomax")
            if not line.endswith(b"\n"):
                return rows
            try:
                row = parse_json(line, where, allow_nan=True)
            except ValueError:  # a line that a full disk cut short, and that append_json_line ended later
                continue
            if not isinstance(row, dict):
                raise ValueError(f"{where} must be an object with keys, but is {shorten(row)}")
            rows.append(row)
    return rows
