"""Verdicts in words on a training without labels: from the rows of its metrics alone.

In: the rows of ``metrics.jsonl`` as plain values, in their order. Out: a :class:`Verdict` when there is a sign of
collapse, divergence, a wrong setting or unsuitable images, with the numbers that show it and the option to change.
Nothing here says that a training is good: no verdict means that no sign was seen. Torch is not imported.

``analysis/verdict_rules/`` has the rules; :class:`VerdictTracker` does the rest: it counts measurements in a row,
waits for the part of a run in which healthy trainings look ill too, says a verdict once, and withdraws it.
"""

import os
from collections import deque
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from infomax.analysis.verdict_rules import RULES
from infomax.analysis.verdict_rules.rule import (
    FIRST_SHARE,
    FIRST_STEP,
    IN_A_ROW,
    History,
    Level,
    Name,
    Row,
    Rule,
    State,
    Verdict,
)
from infomax.runtime.json_lines import read_json_lines
from infomax.runtime.json_values import parse_value, read_json

NO_SIGN = "no sign of collapse or divergence"
"""Words for a training of which no verdict stands, after its first steps."""


def first_judged_step(total_steps: int) -> int:
    """Returns the step from which on most verdicts are said: before, healthy runs look ill too.

    Args:
        total_steps: Number of steps of the whole run.
    """
    return max(FIRST_STEP, ceil(FIRST_SHARE * total_steps))


def describe_no_verdict(steps: int, total_steps: int) -> str:
    """Returns what it means that no verdict stands: no sign was seen, or it is too early to tell.

    Args:
        steps: Number of steps that were trained.
        total_steps: Number of steps of the whole run.

    Examples:
        >>> from infomax.analysis.verdicts import describe_no_verdict
        >>> describe_no_verdict(58, 4000)
        'too early to judge its health: verdicts are said from step 200 on'
        >>> describe_no_verdict(200, 4000)
        'no sign of collapse or divergence'
    """
    first = first_judged_step(total_steps)
    return NO_SIGN if steps >= first else f"too early to judge its health: verdicts are said from step {first:,} on"


class _Course:
    """Holds the course of one rule in a run: how many of the newest measurements in a row were ill, and what was said.

    Args:
        rule: The rule.
    """

    def __init__(self, rule: Rule):
        self.rule = rule
        self.ill: deque[Row] = deque(maxlen=IN_A_ROW)
        self.ill_count = self.failed_count = self.healthy_count = 0
        self.begin = self.previous_step = 0
        self.newest_epoch = -1
        self.verdict: Verdict | None = None
        """The verdict that stands, if one was said and not withdrawn."""
        self.watched: Verdict | None = None
        """The verdict on the newest measurement, if it was ill."""

    def add(self, level: Level, row: Row, history: History) -> None:
        """Counts a measurement."""
        step = row["step"]
        if level == "healthy":
            self.ill.clear()
            self.ill_count, self.failed_count, self.healthy_count = 0, 0, self.healthy_count + 1
            self.watched = None
        else:
            self.begin = self.begin if self.ill_count else self.previous_step
            self.ill.append(row)
            self.ill_count, self.healthy_count = self.ill_count + 1, 0
            self.failed_count = self.failed_count + 1 if level == "failed" else 0
            self.watched = self._make("watching", row, history)
        self.previous_step = step

    @property
    def holds(self) -> bool:
        """Returns whether a verdict was said and stands, or the newest measurements are ill and do not get better."""
        return self.verdict is not None or (self.watched is not None and self.rule.settled(self.ill))

    def _make(self, state: State, row: Row, history: History) -> Verdict:
        rule = self.rule
        return Verdict(
            rule.name,
            state,
            row["step"],
            _epoch(row, history),
            rule.evidence(row, history),
            rule.advice(row, history),
        )

    def say(self, row: Row, history: History) -> Verdict | None:
        """Returns what is to be said now of the newest measurement: a verdict, its withdrawal, or None."""
        rule, step = self.rule, row["step"]
        if self.verdict is not None and rule.withdrawn and self.healthy_count >= IN_A_ROW:
            past = self.verdict
            self.verdict = None
            evidence = f"the last {self.healthy_count} measurements show it no more; it stood since step {past.step}"
            return Verdict(rule.name, "withdrawn", step, _epoch(row, history), evidence, "")
        ready = self.ill_count >= rule.in_a_row and step - self.begin >= rule.in_steps
        if not ready or step < max(rule.first_step, rule.first_share * history.total_steps):
            return None
        state: State = "failed" if self.failed_count >= rule.in_a_row else "warning"
        if self.verdict is not None and (self.verdict.state == "failed" or state == "warning"):
            return None
        if not rule.settled(self.ill):
            return None
        self.verdict = self._make(state, row, history)
        return self.verdict


def _epoch(row: Row, history: History) -> int:
    epoch = row.get("epoch")
    return epoch if type(epoch) is int else row["step"] // max(1, history.steps_per_epoch)


class VerdictTracker:
    """Tells what is to be said about a training, from the rows of its metrics alone.

    Its results are a pure function of the rows: fed with the rows of ``metrics.jsonl`` again, it says the same again.

    Args:
        method: The name of the method, as ``mira``; rules hold for methods that are not ours too.
        total_steps: The number of steps of the whole run.
        steps_per_epoch: The number of steps of an epoch.

    Example:
        >>> from infomax.analysis.verdicts import VerdictTracker
        >>> tracker = VerdictTracker(method="mveb", total_steps=1000, steps_per_epoch=10)
        >>> collapsed = {"epoch": 5, "embedding_mean_cosine": 0.999, "embedding_collapse_level": 0.97}
        >>> verdicts = [verdict for step in (50, 60, 70) for verdict in tracker.update({"step": step, **collapsed})]
        >>> [(verdict.name, verdict.state, verdict.step) for verdict in verdicts]
        [('total collapse', 'failed', 70)]
    """

    def __init__(self, *, method: str, total_steps: int, steps_per_epoch: int):
        self._history = History(method, total_steps, steps_per_epoch)
        self._courses = [_Course(rule) for rule in RULES]
        self._newest = {"health_rows": -1, "loss": -1}

    def update(self, row: Mapping[str, Any]) -> list[Verdict]:
        """Takes the next row of ``metrics.jsonl``, and returns what is to be said now.

        Args:
            row: Any row: rules take what they need, and pass over rows and values that they cannot use.

        Returns:
            Verdicts that arise, become ``failed``, or are ``withdrawn``; usually none.
        """
        if type(row.get("step")) is not int or "verdict" in row or not self._is_new(row):
            return []
        self._history.add(row)
        verdicts = []
        for course in self._courses:
            rule = course.rule
            level = rule.judge(row, self._history)
            epoch = _epoch(row, self._history)
            if level == "unknown" or (rule.by_epoch and epoch <= course.newest_epoch):
                continue
            course.newest_epoch = epoch
            course.add(level, row, self._history)
            if level != "healthy" and self._is_explained(course):
                continue
            verdict = course.say(row, self._history)
            if verdict is not None and not self._stands_already(course, verdict):
                verdicts.append(verdict)
        return verdicts

    def _is_new(self, row: Row) -> bool:
        """Returns whether the row is after those of its kind so far: a file may hold rows of steps made twice."""
        for key, step in self._newest.items():
            if key in row:
                if row["step"] <= step:
                    return False
                self._newest[key] = row["step"]
        return True

    def _is_explained(self, course: _Course) -> bool:
        """Returns whether a verdict that explains this rule's holds, said or not."""
        return any(other.holds for other in self._courses if other.rule.name in course.rule.explained_by)

    def _stands_already(self, course: _Course, verdict: Verdict) -> bool:
        """Returns whether another rule has said a verdict of this name that is as grave and stands."""
        standing = [
            other.verdict.state
            for other in self._courses
            if other is not course and other.verdict is not None and other.rule.name == course.rule.name
        ]
        return "failed" in standing or (bool(standing) and verdict.state != "failed")

    @property
    def current(self) -> tuple[Verdict, ...]:
        """Returns the verdicts that stand now, the gravest first; those that are only ``watching`` come last.

        There is one of each name at most. A verdict that was withdrawn, or is explained by another, is not among them.
        """
        verdicts: dict[Name, Verdict] = {}
        order = {"failed": 0, "warning": 1, "watching": 2}
        for course in self._courses:
            watched = None if self._is_explained(course) else course.watched
            verdict = course.verdict or watched
            standing = verdicts.get(course.rule.name)
            if verdict is not None and (standing is None or order[verdict.state] < order[standing.state]):
                verdicts[course.rule.name] = verdict
        return tuple(sorted(verdicts.values(), key=lambda verdict: order[verdict.state]))


def verdicts_of(run: str | os.PathLike[str]) -> tuple[Verdict, ...]:
    """Returns the verdicts that stand at the end of a run's metrics: :attr:`VerdictTracker.current`.

    Args:
        run: A run folder, or an object of the class ``Run``.

    Raises:
        ValueError: naming the file and the key, if ``config.json`` or ``metrics.jsonl`` is not a run's.
        OSError: if a file cannot be read.
    """
    folder = Path(run)
    tracker, metrics = tracker_of(folder), folder / "metrics.jsonl"
    for row in read_json_lines(metrics) if metrics.exists() else []:
        tracker.update(row)
    return tracker.current


def tracker_of(run: str | os.PathLike[str]) -> VerdictTracker:
    """Returns a tracker for a run that has been fed nothing yet; see :func:`verdicts_of` for what it raises."""
    file = Path(run) / "config.json"
    config = parse_value(read_json(file), dict[str, Any], str(file))
    recipe = parse_value(config.get("recipe"), dict[str, Any], f"{file}: recipe")
    method = parse_value(recipe.get("method"), dict[str, Any], f"{file}: recipe.method")
    images = parse_value(config.get("images"), int, f"{file}: images")
    batch_size = parse_value(recipe.get("batch_size"), int, f"{file}: recipe.batch_size")
    epochs = parse_value(recipe.get("epochs"), int, f"{file}: recipe.epochs")
    name = parse_value(method.get("name"), str, f"{file}: recipe.method.name")
    steps = images // max(1, batch_size)
    return VerdictTracker(method=name, total_steps=steps * epochs, steps_per_epoch=steps)
