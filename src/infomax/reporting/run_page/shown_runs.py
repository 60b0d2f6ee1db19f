"""The runs of a page, as their folders tell of them. No torch is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

from infomax.analysis.verdicts import Verdict, verdicts_of
from infomax.recipes.schema import Recipe
from infomax.reporting.comparison import distinct_places, shortest_names
from infomax.runs.run_folder import Run
from infomax.runs.training_verdicts import standing_verdicts
from infomax.runtime.near_names import missing_path

MOST_RUNS = 8
"""Runs of a page: there are so many colours that people with any colour vision tell apart."""


@dataclass(frozen=True)
class ShownRun:
    """A frozen dataclass that holds a run of the page."""

    name: str
    """The end of its folder's path, of as many folders as tell it from the others."""
    run: Run
    style: int
    """Number of the run on the page, from 0, by which charts draw it."""

    @property
    def words(self) -> str:
        """Its folder as a command takes it; of one elsewhere than below the working folder, the name alone."""
        path = self.run.path
        if not path.is_absolute():
            return str(path)
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else self.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of its ``config.json``."""
        return self.run.config

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with all changes."""
        return self.run.recipe

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The lines of its metrics."""
        return self.run.read_rows("metrics.jsonl")

    @cached_property
    def total_steps(self) -> int:
        """Number of steps of the whole training."""
        return self.recipe.steps(self.config["images"])

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps of an epoch."""
        return max(1, self.total_steps // self.recipe.epochs)

    @cached_property
    def trained_steps(self) -> int:
        """Number of steps of its encoder; 0 if there is none yet."""
        return self.run.trained_steps

    @cached_property
    def standing(self) -> tuple[Verdict, ...] | None:
        """The verdicts that stand at the end of its metrics, the gravest first; None if its health was not measured."""
        return standing_verdicts(self.run)

    @cached_property
    def current(self) -> tuple[Verdict, ...]:
        """The verdicts that hold at the end of its metrics, those that are only being watched among them."""
        return verdicts_of(self.run)

    @property
    def progress(self) -> str:
        """How far the training is, as ``epoch 3 of 12: 585 of 2,340 steps``; empty if it is at its end."""
        if self.trained_steps == self.total_steps:
            return ""
        done = max(self.trained_steps, max((row["step"] for row in self.rows), default=0))
        epoch = min(done // self.steps_per_epoch + 1, self.recipe.epochs)
        return f"epoch {epoch} of {self.recipe.epochs}: {done:,} of {self.total_steps:,} steps"

    def values(self, key: str) -> dict[int, float]:
        """Returns what the metrics have of a key, by the step; of steps that were made twice, what was written last.

        A value that is NaN or infinite is NaN.
        """
        values = {}
        for row in self.rows:
            value = row.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                values[row["step"]] = float(value) if isfinite(value) else float("nan")
            elif key in row:
                values[row["step"]] = float("nan")
        return dict(sorted(values.items()))

    def last(self, key: str) -> float | None:
        """Returns the last finite value that the metrics have of a key; None if there is none."""
        return next((value for value in reversed(self.values(key).values()) if isfinite(value)), None)

    @property
    def said(self) -> list[Mapping[str, Any]]:
        """The lines of the metrics with a verdict that was said or withdrawn."""
        return [row for row in self.rows if isinstance(row.get("verdict"), str)]


@dataclass(frozen=True)
class Places:
    """A frozen dataclass that holds what a report is of."""

    places: tuple[Path, ...]
    """All run folders and files of results, each once."""
    runs: tuple[ShownRun, ...]
    """The run folders among them."""

    @property
    def has_results(self) -> bool:
        """Returns whether there is a file with results among them."""
        files = (place / "results.jsonl" if place.is_dir() else place for place in self.places)
        return any(file.is_file() and file.stat().st_size > 0 for file in files)


def open_places(results: Sequence[str | PathLike[str]]) -> Places:
    """Opens the run folders and the files of results.

    Raises:
        ValueError: if there are none, or more than 8 runs; or naming the one that is not there or is something else.
    """
    if not results:
        raise ValueError("a run folder or a file of results is wanted; --table list names the published tables")
    places = distinct_places(results)
    runs: list[ShownRun] = []
    for place, name in zip(places, shortest_names(places), strict=True):
        if place.is_dir():
            shown = ShownRun(name, Run(place), len(runs))
            _ = shown.config, shown.recipe  # what is no run folder, or a damaged one, is said before anything is made
            runs.append(shown)
        elif not place.is_file():
            reason = "is neither a run folder nor a file of results" if place.exists() else missing_path(place)
            raise ValueError(f"{place}: {reason}")
    if len(runs) > MOST_RUNS:
        raise ValueError(f"a page shows at most {MOST_RUNS} runs, but {len(runs)} are named; write several pages")
    return Places(tuple(places), tuple(runs))
