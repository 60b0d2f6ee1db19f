"""Shows how far a task is: a line that is redrawn in a terminal or notebook, a plain line every ten seconds in a file.

All progress of infomax is shown by :class:`ProgressBar`. A line in a terminal is at most 80 columns wide, and narrower
than the terminal, so that it never wraps: values that do not fit are left out, the least important ones first.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self

from tqdm import tqdm
from tqdm.utils import disp_len, disp_trim

from infomax.runtime.durations import duration
from infomax.runtime.text import escape, show, unread_lines_are_dropped

SECONDS_BETWEEN_LINES = 10.0
"""Seconds between two lines in a file."""
SECONDS_IN_NOTEBOOK = 0.5
"""Seconds between two drawings of a line in a notebook, each of which travels through the network."""
COLUMNS = 80
"""Columns that a line in a terminal has at most; one of them stays empty, as a cursor may need it."""
BAR_COLUMNS = 10
RATE_SECONDS = 15.0
"""Seconds back to which the number of units a second is measured."""
UPDATES_BEFORE_TIME_LEFT = 5
"""Number of updates after the first one from which on the time that is left is shown."""
SECONDS_BEFORE_TIME_LEFT = 5.0
"""Seconds after the first update from which on the time that is left is shown."""
BEFORE_TIME_LEFT = 3
"""Number of values that are more important than the time that is left."""


class ProgressBar:
    """Shows on the standard error how far a task is.

    Args:
        task: The words in front of the line, as ``train images, trained encoder``.
        total: Number of units in all.
        done: Number of units that were done before now.
        unit: Name of a unit, in the plural.
        shows_rate: Whether the units a second are shown, after the first value.
        position: Returns the words for a number of done units that a file shows in place of the task and the count.
        quiet: Whether to show nothing.
        waits: Whether a terminal shows nothing before the first unit is done, because another line says what is done
            until then.

    Attributes:
        n: Number of units that are done.
    """

    def __init__(
        self,
        task: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "images",
        shows_rate: bool = True,
        position: Callable[[int], str] | None = None,
        quiet: bool = False,
        waits: bool = False,
    ):
        self.task, self.total, self.n, self.unit = escape(task), total, done, unit
        self._shows_rate, self._position = shows_rate, position
        self._values: tuple[str, ...] = ()
        self._began = self._printed_at = time.perf_counter()
        self._recent = deque([(self._began, done)])
        self._first_update: tuple[float, int] | None = None
        self._updates = 0
        self._quiet = quiet or done >= total
        self._prints_lines, self._printed_n = False, done
        self._terminal: Any = None
        self._draws = not self._quiet and _is_terminal()
        if self._draws and not waits:
            self._terminal = _TerminalLine(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """Counts units that are done now, and shows them if it is time to."""
        self.n += count
        if self._quiet:
            return
        now = time.perf_counter()
        self._first_update, self._updates = self._first_update or (now, self.n), self._updates + 1
        self._recent.append((now, self.n))
        while len(self._recent) > 2 and self._recent[1][0] < now - RATE_SECONDS:
            self._recent.popleft()
        if self._draws:
            with unread_lines_are_dropped():
                self._terminal = self._terminal or _TerminalLine(self)
                self._terminal.update(count)
        elif now - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._print_line(now)

    def show_values(self, values: Sequence[str]) -> None:
        """Shows other values from the next line on, the most important one first, as ``["loss 3.21"]``."""
        self._values = tuple(map(escape, values))

    def close(self) -> None:
        """Shows the last state and ends the line; a second call does nothing."""
        if self._terminal is not None:
            with unread_lines_are_dropped():
                self._terminal.close()
        elif self._prints_lines and self.n >= self.total and self._printed_n < self.n:
            self._print_line(time.perf_counter())
        self._quiet = True
        self._terminal, self._prints_lines = None, False

    def plain_line(self) -> str:
        """Returns the line that a file keeps: all values, without any character of a bar."""
        position = f"{self.task}: {self.n:,} of {self.total:,} {self.unit}"
        if self._position is not None:
            position = self._position(self.n)
        return ", ".join(text for text in (position, *self._all_values(), self._time_left()) if text)

    def terminal_line(self, columns: int) -> str:
        """Returns the line for a terminal.

        Args:
            columns: Columns that the line may take.
        """
        share = self.n / self.total if self.total else 1.0
        values, time_left = self._all_values(), self._time_left()
        position = "" if self._position is None else self._position(self.n).partition(",")[0]
        first, later = values[:BEFORE_TIME_LEFT], values[BEFORE_TIME_LEFT:]
        room = max(columns // 4, columns - len(": 100%") - sum(disp_len(text) + 2 for text in (*first, time_left)))
        task = self.task if disp_len(self.task) <= room else disp_trim(self.task, max(room - 2, 1)) + ".."
        head = f"{task}: {min(share, 1.0):4.0%}"
        kept, free = set(), columns - disp_len(head)
        for text in (*first, time_left, "bar", position, *later):
            needed = BAR_COLUMNS + 3 if text == "bar" else disp_len(text) + 2
            if text and needed <= free:
                kept.add(text)
                free -= needed
        shown = [text for text in (*first, position, *later, time_left) if text in kept]
        if "bar" in kept:
            head += f" {_draw_bar(share)}{shown.pop(0) if shown else ''}"
        return disp_trim(", ".join((head, *shown)).rstrip(), columns)

    def _all_values(self) -> list[str]:
        values = list(self._values)
        if self._shows_rate and (rate := self._rate()):
            values.insert(min(1, len(values)), f"{format_rate(rate)} {self.unit}/s")
        return values

    def _rate(self) -> float:
        """Returns the units a second of late; 0 if nothing was done."""
        (before, first), (now, last) = self._recent[0], self._recent[-1]
        return (last - first) / (now - before) if now > before else 0.0

    def _time_left(self) -> str:
        """Returns words for the time that is left, by the mean speed so far; for the whole time if all is done.

        The first update, within which kernels are loaded and workers started, is left out of the speed.
        """
        now = time.perf_counter()
        if self.n >= self.total:
            return f"took {duration(now - self._began)}"
        if self._first_update is None or self._updates <= UPDATES_BEFORE_TIME_LEFT:
            return ""
        began, first = self._first_update
        if now - began < SECONDS_BEFORE_TIME_LEFT or self.n == first:
            return ""
        left = max(1.0, (now - began) / (self.n - first) * (self.total - self.n))
        return f"{duration(left, rough=left < SECONDS_BETWEEN_LINES)} left"

    def _print_line(self, now: float) -> None:
        show(self.plain_line(), file=sys.stderr)
        self._printed_at, self._printed_n, self._prints_lines = now, self.n, True


class _TerminalLine(tqdm):
    """Draws the line of a :class:`ProgressBar` in a terminal: up to ten times a second, below what else is printed."""

    def __init__(self, progress: ProgressBar):
        self.progress = progress
        interval = SECONDS_IN_NOTEBOOK if _is_notebook() else 0.1
        super().__init__(
            total=progress.total, initial=progress.n, dynamic_ncols=True, file=sys.stderr, mininterval=interval
        )

    def __str__(self) -> str:
        terminal_columns = self.format_dict["ncols"] or COLUMNS
        return self.progress.terminal_line(max(min(terminal_columns, COLUMNS) - 1, 1))


def _is_terminal() -> bool:
    """Returns whether the standard error is a terminal or notebook that can draw a line again.

    A terminal without columns, as that of ``docker exec -t`` and of CI, shows nothing that is drawn, and gets the lines
    of a file.
    """
    if _is_notebook():
        return True
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):  # its size is not known
        return False


def _is_notebook() -> bool:
    """Returns whether the standard error is shown by Jupyter, which draws a line again after a carriage return."""
    return type(sys.stderr).__module__.partition(".")[0] == "ipykernel"


def _draw_bar(share: float) -> str:
    block = "\u2588" if "utf" in (sys.stderr.encoding or "").lower() else "#"
    return f"|{block * int(share * BAR_COLUMNS):{BAR_COLUMNS}}| "


def format_rate(rate: float) -> str:
    """Formats a number of units a second with three digits at most: 0.25, 7.5, 812, 12,300."""
    if rate >= 1000:
        return f"{round(rate, -2):,.0f}" if rate >= 10_000 else f"{rate:,.0f}"
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
