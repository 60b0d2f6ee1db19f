"""Draws runs as lines of text for a terminal of any size, with a short course of what is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tqdm.utils import disp_len, disp_trim

from infomax.analysis.verdict_rules.rule import numbers
from infomax.analysis.verdicts import Verdict, describe_no_verdict
from infomax.reporting.watch.runs import Snapshot
from infomax.reporting.watch.sparkline import BLOCKS, LETTERS, sparkline
from infomax.runtime.durations import duration
from infomax.runtime.progress import format_rate
from infomax.runtime.text import escape

Style = Literal["", "name", "warning", "failed", "good", "soft"]
NAME_COLUMNS = 15  # of the name of a measurement
BAR_COLUMNS = 20
MOST_SPARK_COLUMNS = 60
LEAST_SPARK_COLUMNS = 8
LEAST_WAITING = 0.005  # share of the time; less rounds to nothing
INDENT = "  "


@dataclass(frozen=True)
class Line:
    """A frozen dataclass that holds one line of the picture, without characters that act on a terminal."""

    text: str
    style: Style = ""


@dataclass(frozen=True)
class Look:
    """A frozen dataclass that says for what the picture is drawn."""

    columns: int
    """Columns that a line takes at most."""
    rows: int | None = None
    """Lines of the picture at most; None if it may have any number."""
    is_ascii: bool = False
    """Whether the terminal knows the letters of ASCII alone."""

    @property
    def levels(self) -> str:
        """The characters of a course, from low to high."""
        return LETTERS if self.is_ascii else BLOCKS

    @property
    def block(self) -> str:
        """The character of a bar."""
        return "#" if self.is_ascii else "\u2588"


def picture(snapshots: Sequence[Snapshot], look: Look) -> list[Line]:
    """Returns the lines that show runs: a block for each, or a line for each if there is no room.

    No line is wider than it may be, and there are no more lines than fit.

    Args:
        snapshots: What is known of the runs.
        look: For what the picture is drawn.
    """
    blocks = [block(shown, look) for shown in snapshots]
    lines = [line for lines in blocks for line in (*lines, Line(""))][:-1]
    if look.rows is not None and len(lines) > look.rows:
        is_alone = len(snapshots) == 1
        lines = _lower_block(snapshots[0], look, look.rows) if is_alone else _short_lines(snapshots, look.rows)
    return [Line(_trim(line.text, look.columns), line.style) for line in lines]


def block(shown: Snapshot, look: Look) -> list[Line]:
    """Returns the lines of one run: what it is, how far it is, what was measured, and what is said of it."""
    lines = _head(shown, look)
    if shown.rows:
        lines += _progress(shown, look)
        lines += _courses(shown, look)
    return lines + _words(shown, look)


def one_line(shown: Snapshot) -> Line:
    """Returns a run in one line, whose most important values come first."""
    style: Style = ""
    texts = [_state_word(shown)]
    if standing := [verdict for verdict in shown.verdicts if verdict.state != "watching"]:
        style = "failed" if standing[0].state == "failed" else "warning"
        texts.append(", ".join(f"{verdict.name} ({verdict.state})" for verdict in standing))
    if shown.rows:
        texts += [f"{shown.share:.0%}", *_values(shown), *position_words(shown)[:1]]
        if shown.phase == "running" and (left := _time_left(shown)):
            texts.append(left)
    return Line(f"{escape(shown.folder)}: {', '.join(texts)}", style)


def progress_line(shown: Snapshot) -> str:
    """Returns how far a run is in one line for a file."""
    return ", ".join([*position_words(shown), *_values(shown), *speed_words(shown), _time_left(shown)]).strip(", ")


def describe_verdict(verdict: Verdict) -> str:
    """Returns a verdict in one line, with its numbers and what to change."""
    advice = f"; {verdict.advice}" if verdict.advice else ""
    if verdict.state == "watching":
        return f"seen at the last measurement, and may pass: {verdict.name}: {verdict.evidence}"
    return f"{verdict.name}, {verdict.state} since step {verdict.step:,}: {verdict.evidence}{advice}"


def health_words(shown: Snapshot) -> str:
    """Returns what is said of a run of which no verdict stands; empty if its health was not measured."""
    is_measured = any("health_rows" in row for row in shown.rows)
    if shown.settings is None or not is_measured or shown.verdicts:
        return ""
    return describe_no_verdict(shown.steps, shown.settings.total_steps)


def describe_age(shown: Snapshot) -> str:
    """Returns how old the newest row is; empty if there is none."""
    return f"newest row {duration(max(1.0, shown.age), rough=True)} ago" if shown.rows else ""


def _head(shown: Snapshot, look: Look) -> list[Line]:
    settings = shown.settings
    if settings is None:
        return [Line(escape(shown.folder), "name")]
    lines = [Line(f"{escape(shown.folder)}: {escape(settings.title)}", "name")]
    initial = [f"from {escape(settings.initial)}"] if settings.initial else []
    texts = [escape(settings.data), f"{settings.images:,} images", f"batches of {settings.batch_size:,}", *initial]
    return lines + _joined(texts, look, "soft")


def _progress(shown: Snapshot, look: Look) -> list[Line]:
    columns = min(BAR_COLUMNS, look.columns // 4)
    bar = f"|{look.block * int(shown.share * columns):{columns}}|"
    texts = [f"{bar} {shown.share:.0%}", *position_words(shown), *speed_words(shown)]
    if shown.phase == "running":
        texts.append(_time_left(shown))
    return _joined([text for text in texts if text], look)


def position_words(shown: Snapshot) -> list[str]:
    """Returns the epoch and the step in words."""
    settings = shown.settings
    if settings is None:
        return []
    epoch = min(shown.steps // settings.steps_per_epoch + 1, settings.epochs)
    return [f"epoch {epoch:,} of {settings.epochs:,}", f"step {shown.steps:,} of {settings.total_steps:,}"]


def speed_words(shown: Snapshot) -> list[str]:
    """Returns the images a second, and the share of the time spent waiting for them."""
    rate, waiting = shown.newest("images_per_second"), shown.newest("waiting")
    texts = [] if rate is None or rate <= 0 else [f"{format_rate(rate)} images/s"]
    return texts if waiting is None or waiting < LEAST_WAITING else [*texts, f"{waiting:.0%} waiting"]


def _time_left(shown: Snapshot) -> str:
    """Returns the time that is left from now on; empty if it is not known."""
    seconds = shown.seconds_left
    return describe_left(None if seconds is None else seconds - shown.age, shown)


def describe_left(seconds: float | None, shown: Snapshot) -> str:
    """Returns words for the time that is left; empty if it is not known, or no step is left."""
    if seconds is None or shown.settings is None or shown.steps >= shown.settings.total_steps:
        return ""
    left = max(1.0, seconds)
    return f"{duration(left, rough=left < 10)} left"


def _values(shown: Snapshot) -> list[str]:
    """Returns the newest loss and score in words."""
    loss, knn = shown.newest("loss"), shown.newest("knn_top1")
    texts = [] if loss is None else [f"loss {loss:.4g}"]
    return texts if knn is None else [*texts, f"k-NN {knn_words(shown)}"]


def knn_words(shown: Snapshot) -> str:
    """Returns the newest k-NN accuracy beside that of the encoder before training, as ``49.0% (untrained 47.1%)``."""
    references = {"initial encoder": "initial_knn_top1", "untrained": "untrained_knn_top1"}
    beside = [f"{name} {value:.1%}" for name, key in references.items() if (value := shown.newest(key)) is not None]
    return f"{shown.newest('knn_top1') or 0.0:.1%}" + (f" ({', '.join(beside)})" if beside else "")


def _beside_first(shown: Snapshot, form: str) -> Callable[[list[tuple[int, float]]], str]:
    """Returns a function that writes the last value of a course beside the first one."""
    is_random = shown.settings is None or shown.settings.initial is None

    def words(points: list[tuple[int, float]]) -> str:
        first, last = points[0], points[-1]
        name = "untrained" if first[0] == 0 and is_random else "first"
        return f"{last[1]:{form}} ({name} {first[1]:{form}})"

    return words


def _courses(shown: Snapshot, look: Look) -> list[Line]:
    """Returns a line for each measurement that the run has: its name, its course and its newest value."""
    kinds: list[tuple[str, str, Callable[[list[tuple[int, float]]], str]]] = [
        ("loss", "loss", _beside_first(shown, ".4g")),
        ("k-NN", "knn_top1", lambda points: knn_words(shown)),
        ("effective rank", "embedding_effective_rank", _beside_first(shown, ".1f")),
        ("mean cosine", "embedding_mean_cosine", _beside_first(shown, ".3f")),
        ("learning rate", "learning_rate", lambda points: f"{points[-1][1]:.3g}"),
    ]
    courses = [(name, points, words) for name, key, words in kinds if (points := course(shown, key))]
    texts = [words(_finite(points) or [(0, float("nan"))]) for _, points, words in courses]
    free = look.columns - len(INDENT) - NAME_COLUMNS - 1
    if free - max(map(disp_len, texts), default=0) < LEAST_SPARK_COLUMNS:
        texts = [text.partition(" (")[0] for text in texts]  # without what they stand beside
    room = free - max(map(disp_len, texts), default=0)
    columns = max(LEAST_SPARK_COLUMNS, min(MOST_SPARK_COLUMNS, room))
    last = max(1, shown.steps)
    lines = []
    for (name, points, _), text in zip(courses, texts, strict=True):
        drawn = sparkline(points, columns=columns, last_step=last, levels=look.levels)
        lines.append(Line(f"{INDENT}{name:{NAME_COLUMNS}}{drawn} {text}"))
    return lines


def course(shown: Snapshot, key: str) -> list[tuple[int, float]]:
    """Returns the steps and values of a measurement in its rows; a value that is no finite number is NaN."""
    points = []
    for row in shown.rows:
        if key in row:
            values = numbers(row, key)
            points.append((row["step"], float("nan") if values is None else values[0]))
    return points


def _finite(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(step, value) for step, value in points if value == value]


def _words(shown: Snapshot, look: Look) -> list[Line]:
    """Returns the lines at the end of a block: verdicts or closing lines, and what the run is doing."""
    lines: list[Line] = []
    if shown.closing:
        for text in shown.closing:
            lines += _wrapped(text, look)
    else:
        for verdict in shown.verdicts:
            style: Style = "failed" if verdict.state == "failed" else "warning"
            lines += _wrapped(describe_verdict(verdict), look, "soft" if verdict.state == "watching" else style)
        if words := health_words(shown):
            lines += _wrapped(words, look)
    if shown.problem and shown.phase != "absent":
        lines += _wrapped(shown.problem, look, "warning")
    texts = [shown.describe_phase()]
    if shown.phase == "running":
        texts.append(describe_age(shown))
    styles: dict[str, Style] = {"silent": "warning", "stopped": "warning", "finished": "good"}
    return lines + _wrapped(", ".join(text for text in texts if text), look, styles.get(shown.phase, "soft"))


def _state_word(shown: Snapshot) -> str:
    if shown.phase == "silent":
        return f"no news for {duration(shown.age, rough=True)}"
    return {"absent": "no run yet", "starting": "starting", "stopped": "stopped"}.get(shown.phase, shown.phase)


def _short_lines(snapshots: Sequence[Snapshot], rows: int) -> list[Line]:
    """Returns a line for each run; those for which there is no room are counted."""
    lines = [one_line(shown) for shown in snapshots]
    if len(lines) <= rows:
        return lines
    shown = lines[: rows - 1]
    return [*shown, Line(f"and {len(lines) - len(shown)} more runs, for which there is no room", "soft")]


def _lower_block(shown: Snapshot, look: Look, rows: int) -> list[Line]:
    """Returns the lines of one run for a low window: courses go first, then what is in the middle of the rest."""
    lines, courses = block(shown, look), _courses(shown, look)
    begin = len(_head(shown, look)) + len(_progress(shown, look))
    kept = max(0, len(courses) - (len(lines) - rows))
    lines = [*lines[: begin + kept], *lines[begin + len(courses) :]]
    if len(lines) > rows:
        lines = [*lines[: rows - 1], lines[-1]]
    return lines


def _joined(texts: Sequence[str], look: Look, style: Style = "") -> list[Line]:
    """Returns texts with commas between, in as many lines as they need; none is broken."""
    lines, line = [], ""
    for text in texts:
        longer = f"{line}, {text}" if line else text
        if line and disp_len(longer) > look.columns - len(INDENT):
            lines.append(f"{line},")
            longer = text
        line = longer
    return [Line(INDENT + text, style) for text in (*lines, line)]


def _wrapped(text: str, look: Look, style: Style = "") -> list[Line]:
    """Returns a sentence in as many lines as it needs, broken between words."""
    columns, lines, line = look.columns - len(INDENT), [], ""
    for word in escape(text).split(" "):
        longer = f"{line} {word}" if line else word
        if line and disp_len(longer) > columns:
            lines.append(line)
            longer = word
        line = longer
    return [Line(INDENT + text, style) for text in (*lines, line)]


def _trim(text: str, columns: int) -> str:
    """Returns a text that is at most so wide; what was cut off is two dots."""
    return text if disp_len(text) <= columns else disp_trim(text, max(columns - 2, 0)) + ".."[:columns]
