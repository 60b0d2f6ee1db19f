"""Draws pictures on a terminal, one in the place of the other, and leaves the terminal as it was."""

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from infomax.reporting.watch.picture import Line, Style
from infomax.runtime.text import escape

OTHER_SCREEN, FIRST_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""To the screen that programs draw on, with the cursor hidden and no lines broken; and back to the lines of before."""
HOME, END_OF_LINE, REST_OF_SCREEN, PLAIN = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[0m"
STYLES: dict[Style, str] = {
    "name": "\x1b[1m",
    "warning": "\x1b[33m",
    "failed": "\x1b[1;31m",
    "good": "\x1b[32m",
    "soft": "\x1b[2m",
}
FALLBACK_SIZE = os.terminal_size((80, 24))


class Screen:
    """A context manager that draws on the terminal of the standard output, and reads keys from the standard input.

    Whatever ends the block, the cursor, the lines from before and the keyboard's mode come back; they do too while the
    process is stopped by Ctrl-Z.
    """

    def __init__(self) -> None:
        self._output = sys.stdout.fileno()
        self._keyboard: int | None = None
        self._keyboard_mode: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._uses_colours = not os.environ.get("NO_COLOR")
        self._encoding = sys.stdout.encoding or "ascii"

    def __enter__(self) -> Self:
        sys.stdout.flush()
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                signal.SIGTSTP: signal.signal(signal.SIGTSTP, self._stop),
                signal.SIGTERM: signal.signal(signal.SIGTERM, _end),
            }
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @property
    def size(self) -> os.terminal_size:
        """The terminal's columns and lines now."""
        try:
            size = os.get_terminal_size(self._output)
        except OSError:
            return FALLBACK_SIZE
        return size if size.columns and size.lines else FALLBACK_SIZE

    def draw(self, lines: Sequence[Line]) -> None:
        """Draws a picture in place of the last one, at once.

        Args:
            lines: Lines that fit: one column must stay free at their end.
        """
        drawn = "\r\n".join(f"{self._styled(line)}{END_OF_LINE}" for line in lines)
        self._write(f"{HOME}{drawn}{REST_OF_SCREEN}")

    def wait(self, seconds: float) -> str:
        """Waits for a key; returns it, or an empty text if none was pressed."""
        if self._keyboard is None:
            select.select([], [], [], seconds)
            return ""
        ready, _, _ = select.select([self._keyboard], [], [], seconds)
        if not ready:
            return ""
        key = os.read(self._keyboard, 64)
        if not key:  # the keyboard is gone, and would be ready for ever
            self._keyboard = None
        return key.decode("utf-8", "replace")

    def _styled(self, line: Line) -> str:
        begin = STYLES.get(line.style, "") if self._uses_colours else ""
        return f"{begin}{escape(line.text)}{PLAIN}" if begin else escape(line.text)

    def _begin(self) -> None:
        self._keyboard = _keyboard_of_foreground()
        if self._keyboard is not None:
            with suppress(termios.error):
                self._keyboard_mode = termios.tcgetattr(self._keyboard)
                tty.setcbreak(self._keyboard, termios.TCSADRAIN)
        self._write(OTHER_SCREEN)

    def _restore(self) -> None:
        with suppress(OSError):  # the terminal may be gone
            self._write(PLAIN + FIRST_SCREEN)
        if self._keyboard is not None and self._keyboard_mode is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._keyboard_mode)
        self._keyboard_mode = None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Stops the process as Ctrl-Z asks, and goes on drawing when it is continued."""
        self._restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._begin()

    def _write(self, text: str) -> None:
        content = text.encode(self._encoding, "backslashreplace")
        while content:
            content = content[os.write(self._output, content) :]


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _keyboard_of_foreground() -> int | None:
    """Returns the descriptor of the keyboard; None if there is none, or a shell has put this process behind."""
    try:
        keyboard = sys.stdin.fileno()
        is_ours = os.isatty(keyboard) and os.tcgetpgrp(keyboard) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return None
    return keyboard if is_ours else None
