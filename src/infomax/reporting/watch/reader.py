"""Reads the rows of a file that another process writes meanwhile: each row once, and none that is not whole yet."""

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from infomax.runtime.json_lines import MAX_LINE
from infomax.runtime.json_values import MAX_INTEGER

CHUNK = 1 << 20  # bytes that are read at once
REMEMBERED = 512  # bytes before the place where reading goes on, by which a file that was replaced is recognised


class LinesReader:
    """Reads a file of JSON lines from where it has stopped reading before.

    A file that was replaced, truncated or removed meanwhile is read anew, from its beginning.

    Args:
        file: The file, which need not exist.

    Attributes:
        changed_at: When the file was last changed, in seconds since 1970; None if there is none.
        damaged: Number of lines that are no rows, as those that a full disk has cut short.
    """

    def __init__(self, file: Path):
        self.file = file
        self.changed_at: float | None = None
        self._forget()

    def _forget(self) -> None:
        """Begins at the beginning again."""
        self.damaged, self._offset, self._before = 0, 0, b""
        self._file_number: tuple[int, int] | None = None
        self._state: tuple[int, ...] | None = None

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Reads what was added since the last call.

        A last line without a line break is being written: the next call reads it.

        Returns:
            The new rows, oldest first, and whether those of all calls before are no longer in the file.

        Raises:
            ValueError: if it is no regular file.
            OSError: if it cannot be read.
        """
        try:
            status = self.file.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{self.file} is no regular file with lines of JSON")
            if self._state == _state_of(status):
                return [], False
            with self.file.open("rb", buffering=0) as lines:
                status = os.fstat(lines.fileno())
                is_anew = self._file_number is not None and not self._goes_on(lines, status)
                if is_anew:
                    self._forget()
                rows = self._read_rows(lines)
        except (FileNotFoundError, NotADirectoryError):
            is_anew = self._file_number is not None
            self._forget()
            self.changed_at = None
            return [], is_anew
        self._file_number, self._state = (status.st_dev, status.st_ino), _state_of(status)
        self.changed_at = status.st_mtime
        return rows, is_anew

    def _goes_on(self, lines: BinaryIO, status: os.stat_result) -> bool:
        """Returns whether an open file still begins with what was read: a new one may have the same number."""
        if self._file_number != (status.st_dev, status.st_ino):
            return False
        lines.seek(self._offset - len(self._before))
        return lines.read(len(self._before)) == self._before

    def _read_rows(self, lines: BinaryIO) -> list[dict[str, Any]]:
        """Returns the rows of all whole lines from the place where reading has stopped."""
        rows: list[dict[str, Any]] = []
        rest, is_too_long = b"", False
        lines.seek(self._offset)
        while chunk := lines.read(CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                row = None if is_too_long else _parse_row(line)
                is_too_long = False
                if row is not None:
                    rows.append(row)
                elif line.strip():
                    self.damaged += 1
            if whole:
                self._offset = lines.tell() - len(rest)
            if len(rest) > MAX_LINE:
                rest, is_too_long = rest[:1], True
        self._remember(lines)
        return rows

    def _remember(self, lines: BinaryIO) -> None:
        """Keeps the last bytes of what was read."""
        start = max(0, self._offset - REMEMBERED)
        lines.seek(start)
        self._before = lines.read(self._offset - start)


def _state_of(status: os.stat_result) -> tuple[int, ...]:
    """Returns what changes whenever a file does."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _parse_row(line: bytes) -> dict[str, Any] | None:
    """Returns the row in a line; None if it is none: a row has the whole number ``step``."""
    try:
        row = json.loads(line)  # faster than parse_json, whose messages nobody would read
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] < MAX_INTEGER
    return row if is_row else None
