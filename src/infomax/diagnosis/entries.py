"""Entries of a description: a name, a text and a value; and what they may not tell of a user."""

import getpass
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any

WIDTH = 79
INDENT = 16  # columns of an entry's name
UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


@dataclass(frozen=True)
class Entry:
    """A frozen dataclass that holds one line of a description."""

    name: str
    text: str
    value: Any = None
    """The same for programs, as JSON can hold it; None takes the text."""
    problem: str | None = None
    """What does not work because of it and what would help, in one line; None if nothing is wrong."""

    @property
    def json_value(self) -> Any:
        """The value for programs."""
        return self.text if self.value is None else self.value


@dataclass(frozen=True)
class Section:
    """A frozen dataclass that holds the entries about one subject."""

    title: str
    entries: Sequence[Entry] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Returns the section as lines of less than 80 columns, the title first."""
        lines = [self.title]
        for entry in self.entries:
            name = f"  {entry.name} " if len(entry.name) >= INDENT - 2 else f"  {entry.name}".ljust(INDENT)
            lines += wrap(
                name + entry.text, WIDTH, subsequent_indent=" " * INDENT, drop_whitespace=True, break_on_hyphens=False
            )
        return lines


def describe_size(count: float) -> str:
    """Formats a number of bytes with two digits or three, as ``1.3 GB``."""
    unit, size = next(((unit, size) for unit, size in UNITS if count >= size), ("bytes", 1))
    shown = count / size
    return f"{shown:.1f} {unit}" if size > 1 and shown < 10 else f"{shown:.0f} {unit}"


def anonymous(path: str | Path) -> str:
    """Returns a path that names neither the user nor the machine: the home folder is ``~``."""
    text, home = str(path), os.path.expanduser("~")
    if text == home or text.startswith(home.rstrip("/\\") + os.sep):
        text = "~" + text[len(home.rstrip("/\\")) :]
    for name, stand_in in ((_user(), "USER"), (socket.gethostname(), "HOST")):
        if name:
            text = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", stand_in, text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may have a user without a name
        return ""
