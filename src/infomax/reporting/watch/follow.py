"""Shows runs until they are finished: on a terminal as a picture that changes, in a file as lines."""

import math
import os
import select
import shutil
import sys
import time
from collections.abc import Sequence

from infomax.reporting.watch.picture import Look, describe_verdict, picture, progress_line
from infomax.reporting.watch.runs import Snapshot, WatchedRuns, refuse_folder
from infomax.reporting.watch.screen import Screen
from infomax.runtime.text import escape, show

SECONDS_BETWEEN_PICTURES = 1.0
SECONDS_BETWEEN_LOOKS = 0.2  # at the keyboard and the size of the terminal
SECONDS_BETWEEN_READINGS = 2.0  # of files, for lines
MOST_OF_A_CORE = 0.05  # of a core of the machine that trains
FILE_COLUMNS = 100  # of a picture that goes to a file


def show_once(runs: WatchedRuns, *, is_ascii: bool) -> None:
    """Prints one picture of the runs.

    Raises:
        ValueError: if one of the folders holds no run.
    """
    snapshots = runs.update()
    for shown in snapshots:
        if shown.settings is None:
            refuse_folder(shown.folder)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else FILE_COLUMNS
    _show_picture(snapshots, Look(columns, is_ascii=is_ascii))


def follow(runs: WatchedRuns, *, every: float, is_ascii: bool) -> None:
    """Shows the runs until all are finished, or q is pressed.

    Args:
        runs: The runs.
        every: Seconds between two lines of a run, if the standard output is no terminal.
        is_ascii: Whether the terminal knows the letters of ASCII alone.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    try:
        if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            _follow_on_screen(runs, is_ascii=is_ascii)
        else:
            _follow_in_lines(runs, every=every)
    except KeyboardInterrupt:
        raise interruption(runs) from None


def interruption(runs: WatchedRuns) -> KeyboardInterrupt:
    """Returns the error of a Ctrl-C, which says that trainings go on if there are any."""
    trains = any(shown.phase in ("starting", "running", "silent") for shown in runs.update())
    return KeyboardInterrupt("; the training itself goes on" if trains else "")


def _follow_on_screen(runs: WatchedRuns, *, is_ascii: bool) -> None:
    """Draws pictures, and leaves the last one among the lines of the terminal."""
    snapshots = runs.update()
    size = shutil.get_terminal_size()
    if runs.are_finished(snapshots):
        _show_last(snapshots, size, is_ascii=is_ascii)
        return
    with Screen() as screen:
        read_at, pause, drawn_size = time.monotonic(), SECONDS_BETWEEN_PICTURES, None
        while not runs.are_finished(snapshots):
            if (size := screen.size) != drawn_size:
                screen.draw(picture(snapshots, Look(size.columns - 1, size.lines, is_ascii)))
                drawn_size, pause = size, least_pause(time.monotonic() - read_at)
            if "q" in screen.wait(SECONDS_BETWEEN_LOOKS).lower():
                break
            if time.monotonic() - read_at >= pause:
                read_at, drawn_size = time.monotonic(), None
                snapshots = runs.update()
        size = screen.size
    _show_last(snapshots, size, is_ascii=is_ascii)


def least_pause(cost: float) -> float:
    """Returns the seconds from one picture to the next: more if one takes long, as of a run with very many rows.

    Args:
        cost: Seconds that a picture took.
    """
    return max(SECONDS_BETWEEN_PICTURES, cost / MOST_OF_A_CORE)


def _show_last(snapshots: Sequence[Snapshot], size: os.terminal_size, *, is_ascii: bool) -> None:
    """Prints the last picture in full; many runs have a line each, as there is no room for more on the screen."""
    rows = max(size.lines, len(snapshots)) if len(snapshots) > 1 else None
    _show_picture(snapshots, Look(size.columns - 1, rows, is_ascii))


def _show_picture(snapshots: Sequence[Snapshot], look: Look) -> None:
    show("\n".join(line.text for line in picture(snapshots, look)))


def _follow_in_lines(runs: WatchedRuns, *, every: float) -> None:
    """Prints what changes, and how far each run is, every few seconds."""
    lines = RunLines(every)
    while True:
        snapshots = runs.update()
        for shown in snapshots:
            for line in lines.new_lines(shown, time.monotonic()):
                show(line)
        if runs.are_finished(snapshots) or not _wait_while_read(min(every, SECONDS_BETWEEN_READINGS)):
            return


def _wait_while_read(seconds: float) -> bool:
    """Waits; returns at once that nobody reads the standard output any more, as after ``| head``, if it is so."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # a stream of Python alone
        time.sleep(seconds)
        return True
    poll = select.poll()
    poll.register(output, 0)  # errors and ends are always told
    return not poll.poll(1000 * seconds)


class RunLines:
    """Chooses the lines about runs that a file gets: changes at once, the progress every few seconds.

    Args:
        every: Seconds between two lines on the progress of a run.
    """

    def __init__(self, every: float):
        self.every = every
        self._said: dict[str, set[str]] = {}
        self._printed: dict[str, tuple[float, int]] = {}

    def new_lines(self, shown: Snapshot, now: float) -> list[str]:
        """Returns the lines that are new about a run.

        Args:
            shown: What is known of it.
            now: The time, in seconds.
        """
        name = escape(shown.folder)
        title = "" if shown.settings is None else f"{shown.settings.title}, {shown.settings.data}"
        texts = {f"title {title}": title, **self._progress_text(name, shown, now)}
        for verdict in shown.verdicts:
            if verdict.state != "watching" and not shown.closing:
                texts[f"{verdict.name} {verdict.state} {verdict.step}"] = describe_verdict(verdict)
        texts |= {f"closing {line}": line for line in shown.closing}
        if shown.problem or shown.phase != "running":
            texts[f"{shown.phase} {shown.steps} {shown.problem}"] = shown.problem or shown.describe_phase()
        before = self._said.get(name, set())
        self._said[name] = set(texts)
        return [f"{name}: {text}" for key, text in texts.items() if text and key not in before]

    def _progress_text(self, name: str, shown: Snapshot, now: float) -> dict[str, str]:
        """Returns the line on how far a run is, if it is due and there are new rows."""
        printed_at, printed_rows = self._printed.get(name, (-math.inf, 0))
        is_due = now - printed_at >= self.every or shown.phase == "finished"
        if not is_due or len(shown.rows) in (0, printed_rows):
            return {}
        self._printed[name] = now, len(shown.rows)
        return {f"progress {now}": progress_line(shown)}
