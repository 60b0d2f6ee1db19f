"""Reads runs while they train: how far they are, what was measured, and what is said of it.

Only ``config.json`` and ``metrics.jsonl`` are read, and ``encoder.json`` once no process writes the run. A folder may
appear, be resumed, extended, replaced or deleted meanwhile.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from infomax.analysis.verdict_rules.rule import numbers
from infomax.analysis.verdicts import Verdict, VerdictTracker, first_judged_step
from infomax.reporting.watch.reader import LinesReader
from infomax.runtime.durations import duration
from infomax.runtime.json_values import parse_value, read_json
from infomax.runtime.locks import is_written
from infomax.runtime.near_names import missing_path

Row = Mapping[str, Any]
Phase = Literal["absent", "starting", "running", "silent", "stopped", "finished"]
NEWEST_ROWS = 10  # among which is the one with the highest step: health is written a step later
RECENT_ROWS = 50  # by which speed and the usual time between two rows are measured
SILENT_AFTER = 60.0  # seconds without a row after which a run is silent, at least
SILENT_FACTOR = 5.0  # ... as a multiple of the longest time between two rows of late


@dataclass(frozen=True)
class Settings:
    """A frozen dataclass that holds what the picture of a run needs of its ``config.json``."""

    title: str
    """The recipe with the changed settings, as ``mira/small with epochs=3``."""
    method: str
    data: str
    """What it trains on, as the user named it."""
    images: int
    batch_size: int
    epochs: int
    initial: str | None
    """The encoder that the run started from; None if from random weights."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch."""
        return max(1, self.images // max(1, self.batch_size))

    @property
    def total_steps(self) -> int:
        """Number of steps of the run."""
        return self.steps_per_epoch * max(1, self.epochs)

    @property
    def first_judged_step(self) -> int:
        """The step from which on most verdicts are said: before, healthy runs look ill too."""
        return first_judged_step(self.total_steps)


def read_settings(folder: Path) -> Settings:
    """Returns the settings of a run; the method need not be installed.

    Raises:
        ValueError: naming the file and the key, if ``config.json`` is not a run's.
        OSError: if it cannot be read.
    """
    file = folder / "config.json"
    config = parse_value(read_json(file), dict[str, Any], str(file))
    recipe = parse_value(config.get("recipe"), dict[str, Any], f"{file}: recipe")
    method = parse_value(recipe.get("method"), dict[str, Any], f"{file}: recipe.method")
    encoder = parse_value(recipe.get("encoder", {}), dict[str, Any], f"{file}: recipe.encoder")
    changes = parse_value(config.get("changes", []), list[str], f"{file}: changes")
    name = parse_value(method.get("name"), str, f"{file}: recipe.method.name")
    title = f"{name}/{parse_value(recipe.get('name'), str, f'{file}: recipe.name')}"
    return Settings(
        title=f"{title} with {', '.join(changes)}" if changes else title,
        method=name,
        data=parse_value(config.get("data"), str, f"{file}: data"),
        images=parse_value(config.get("images"), int, f"{file}: images"),
        batch_size=parse_value(recipe.get("batch_size"), int, f"{file}: recipe.batch_size"),
        epochs=parse_value(recipe.get("epochs"), int, f"{file}: recipe.epochs"),
        initial=parse_value(encoder.get("init"), str | None, f"{file}: recipe.encoder.init"),
    )


@dataclass(frozen=True)
class Snapshot:
    """A frozen dataclass that holds all that is known of a run at one time."""

    folder: Path
    phase: Phase
    """``absent`` before there is a run, ``starting`` before its first row, ``silent`` if rows are overdue, ``stopped``
    if no process writes it although steps are left."""
    now: float
    """The time, in seconds since 1970."""
    settings: Settings | None = None
    rows: Sequence[Row] = ()
    verdicts: tuple[Verdict, ...] = ()
    """The verdicts that stand, the gravest first; those that are only watched come last."""
    closing: tuple[str, ...] = ()
    """The closing lines of a finished run."""
    problem: str = ""
    """Why a file cannot be read; empty if all can."""
    changed_at: float | None = None
    """When the last row was written, or the run began, in seconds since 1970."""
    is_written: bool | None = None
    """Whether a process writes the run; None if that is not known."""
    saved_steps: int = 0
    """The steps of the encoder that a stopped run has saved; rows are written about every 20th step alone."""

    @property
    def steps(self) -> int:
        """The number of steps that the rows tell of, or the encoder that was saved after them."""
        return max(self.saved_steps, *(row["step"] for row in self.rows[-NEWEST_ROWS:]), 0)

    @property
    def share(self) -> float:
        """The share of the steps that are done, from 0 to 1."""
        return 0.0 if self.settings is None else min(1.0, self.steps / self.settings.total_steps)

    @property
    def age(self) -> float:
        """Seconds since the last row, or since the run began."""
        return 0.0 if self.changed_at is None else max(0.0, self.now - self.changed_at)

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the steps after the last row take, at the speed of late; None if that is not known."""
        recent = timed_rows(self.rows)
        if self.settings is None or not recent:
            return None
        first, last = (recent[0] if len(recent) > 1 else (0, 0.0)), recent[-1]
        steps, seconds = last[0] - first[0], last[1] - first[1]
        if steps <= 0 or seconds < 0:
            return None
        return seconds / steps * max(0, self.settings.total_steps - self.steps)

    def newest(self, key: str) -> float | None:
        """Returns the newest finite value of a measurement; None if there is none."""
        rows = (row for row in reversed(self.rows) if key in row)
        return next((values[0] for row in rows if (values := numbers(row, key)) is not None), None)

    @property
    def resume_command(self) -> str:
        """The command that goes on with a run that was stopped."""
        from infomax.runs.run_folder import resume_command  # which imports numpy

        return resume_command(self.folder)

    def describe_phase(self) -> str:
        """Returns what the run is doing, in words that stay the same until something changes, or minutes pass."""
        if self.phase == "absent":
            missing = "no config.json yet" if self.folder.exists() else missing_path(self.folder)
            return self.problem or f"{missing}; waiting for a run"
        if self.phase == "finished":
            return "finished"
        if self.phase == "stopped":
            place = f"at step {self.steps:,}" if self.rows or self.steps else "before its first row"
            return f"stopped {place}, no process writes it: {self.resume_command} goes on"
        if self.phase == "silent":
            may = "its process still holds the run" if self.is_written else "is it still running?"
            return f"no news for {duration(self.age, rough=True)}: {may}"
        return "starting: no row yet" if self.phase == "starting" else "running"


def timed_rows(rows: Sequence[Row]) -> list[tuple[int, float]]:
    """Returns steps and seconds of the newest rows that have both, the newest last."""
    timed = []
    for row in reversed(rows):
        if (seconds := numbers(row, "seconds")) is not None and "loss" in row:
            timed.append((row["step"], seconds[0]))
        if len(timed) == RECENT_ROWS:
            break
    return timed[::-1]


def usual_interval(rows: Sequence[Row]) -> float:
    """Returns the longest time between two rows of late, in seconds; 0 if there are too few."""
    times = [seconds for _, seconds in timed_rows(rows)]
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


class WatchedRun:
    """Follows one run folder.

    Args:
        folder: The folder, which need not exist yet.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._reader = LinesReader(folder / "metrics.jsonl")
        self._rows: list[dict[str, Any]] = []
        self._settings: Settings | None = None
        self._config_state: tuple[int, ...] | None = None
        self._tracker: VerdictTracker | None = None
        self._was_unlocked = self._locks_say_nothing = False
        self._changed_at: float | None = None
        self._updated_at = 0.0
        self._closing: tuple[str, ...] = ()
        self._closed_state: tuple[int, int] | None = None

    def update(self) -> Snapshot:
        """Reads what is new, and returns what is known now. A file that cannot be read is a problem, not an error."""
        locked = is_written(self.folder)  # before the rows: whoever has ended by now has written all of them
        rows, is_anew, is_changed, problem = [], False, False, ""
        try:
            is_changed = self._read_config()
            rows, is_anew = self._reader.read()
        except (ValueError, OSError) as error:
            problem = " ".join(str(error).split())
        if locked is False and self._was_unlocked and rows and self._rows:
            self._locks_say_nothing = True  # somebody writes it all the same, as a copy of another machine's folder
        self._was_unlocked = locked is False
        if locked is False and self._locks_say_nothing:
            locked = None
        self._take(rows, is_anew=is_anew, is_changed=is_changed)
        self._note_time(bool(rows) or is_anew)
        shown = Snapshot(
            folder=self.folder,
            phase="running",
            now=self._updated_at,
            settings=self._settings,
            rows=tuple(self._rows),
            verdicts=self._standing(),
            problem=problem,
            changed_at=self._changed_at,
            is_written=locked,
        )
        phase = self._phase(shown)
        closing = self._closing_lines(shown) if phase == "finished" else ()
        saved = self._saved_steps() or 0 if phase == "stopped" else 0
        return replace(shown, phase=phase, closing=closing, saved_steps=saved)

    def _read_config(self) -> bool:
        """Reads ``config.json`` if it has changed; returns whether what it says has."""
        before = self._settings
        try:
            status = (self.folder / "config.json").stat()
        except (FileNotFoundError, NotADirectoryError):
            self._config_state, self._settings = None, None
            return before is not None
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        if state != self._config_state:
            self._settings = read_settings(self.folder)
            self._config_state = state
        return before != self._settings

    def _note_time(self, has_news: bool) -> None:
        """Notes when the newest row was written, or the run began; another machine's clock may be wrong."""
        now = time.time()
        if self._changed_at is None or has_news or not self._rows:
            began = None if self._config_state is None else self._config_state[-1] / 1e9
            written = self._reader.changed_at if self._rows else began
            earliest = self._updated_at if self._rows and has_news else 0.0
            self._changed_at = None if written is None else min(max(written, earliest), now)
        self._updated_at = now

    def _take(self, rows: list[dict[str, Any]], *, is_anew: bool, is_changed: bool) -> None:
        """Takes new rows, after the known ones or in place of them, and judges them."""
        if is_anew:
            self._rows = []
        if is_anew or is_changed:
            self._tracker = None
        self._rows += rows
        if self._settings is None:
            return
        if self._tracker is None:
            settings, rows = self._settings, self._rows
            self._tracker = VerdictTracker(
                method=settings.method, total_steps=settings.total_steps, steps_per_epoch=settings.steps_per_epoch
            )
        for row in rows:
            self._tracker.update(row)

    def _standing(self) -> tuple[Verdict, ...]:
        """Returns the verdicts that stand; what may pass is left out while healthy runs look ill too."""
        if self._tracker is None or self._settings is None:
            return ()
        step = max((row["step"] for row in self._rows), default=0)
        is_early = step < self._settings.first_judged_step
        return tuple(verdict for verdict in self._tracker.current if verdict.state != "watching" or not is_early)

    def _phase(self, shown: Snapshot) -> Phase:
        """Returns what the run is doing."""
        settings = self._settings
        if settings is None:
            return "absent"
        if shown.is_written is not True and shown.steps >= settings.total_steps and self._is_saved(settings):
            return "finished"
        if shown.is_written is False:
            return "stopped"
        if shown.age > max(SILENT_AFTER, SILENT_FACTOR * usual_interval(self._rows)):
            return "silent"
        return "running" if self._rows else "starting"

    def _is_saved(self, settings: Settings) -> bool:
        """Returns whether the encoder is that of the last step; a copy of the folder may lack it."""
        return self._saved_steps() in (None, settings.total_steps)

    def _saved_steps(self) -> int | None:
        """Returns how many steps the encoder that is saved was trained for; None if there is none, 0 if unreadable."""
        file = self.folder / "encoder.json"
        try:
            steps = parse_value(read_json(file), dict[str, Any], str(file)).get("steps")
        except FileNotFoundError:
            return None
        except (ValueError, OSError):
            return 0
        return steps if isinstance(steps, int) else 0

    def _closing_lines(self, shown: Snapshot) -> tuple[str, ...]:
        """Returns the lines that the run has ended with."""
        state = len(self._rows), shown.steps
        if state != self._closed_state:
            from infomax.runs.run_folder import Run  # which imports numpy
            from infomax.training.closing import closing_lines

            try:
                self._closing = tuple(closing_lines(Run(self.folder)))
            except (ValueError, OSError):
                self._closing = ()
            self._closed_state = state
        return self._closing


class WatchedRuns:
    """Follows run folders, and all run folders in a folder of runs, as that of a sweep.

    Args:
        folders: Run folders, or folders of runs; they need not exist yet.

    Raises:
        ValueError: if one of them is something else, or none is named.
    """

    def __init__(self, folders: Sequence[Path]):
        if not folders:
            raise ValueError("a run folder is wanted, as runs/a")
        for folder in folders:
            _check_folder(folder)
        self.folders = tuple(dict.fromkeys(folders))
        self._runs: dict[Path, WatchedRun] = {}

    def update(self) -> list[Snapshot]:
        """Reads what is new of all runs, in the order of their folders."""
        current = {folder: self._runs.get(folder) or WatchedRun(folder) for folder in self._run_folders()}
        self._runs = current
        return [run.update() for run in current.values()]

    def are_finished(self, snapshots: Sequence[Snapshot]) -> bool:
        """Returns whether all runs are finished, and no sweep or demo is about to begin another one."""
        if not all(shown.phase == "finished" for shown in snapshots):
            return False
        return not any(is_written(folder) for folder in self.folders if not (folder / "config.json").is_file())

    def _run_folders(self) -> Iterator[Path]:
        for folder in self.folders:
            below = [] if (folder / "config.json").is_file() else runs_below(folder)
            yield from below or [folder]


def runs_below(folder: Path) -> list[Path]:
    """Returns the run folders directly in a folder, by name; none if there are none."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError:
        return []
    return [folder / name for name in names if (folder / name / "config.json").is_file()]


def _check_folder(folder: Path) -> None:
    """Checks that a folder is that of a run, or of runs, or may become one.

    Raises:
        ValueError: if it holds something else.
    """
    if not folder.exists() or (folder / "config.json").is_file() or runs_below(folder) or is_written(folder):
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a run folder, but a file")
    if any(not name.startswith(".") and name != "initial.safetensors" for name in os.listdir(folder)):
        refuse_folder(folder)


def refuse_folder(folder: Path) -> None:
    """Raises the error that says why a folder is none of a run."""
    from infomax.runs.run_folder import Run  # which imports numpy

    _ = Run(folder).config
