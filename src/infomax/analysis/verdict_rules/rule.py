"""What a rule of verdicts is, what it knows of a run, and what a verdict says."""

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Name = Literal[
    "total collapse",
    "dimensional collapse",
    "cluster collapse",
    "uniform assignment",
    "dead prototypes",
    "divergence",
    "rate too high",
    "starved",
    "equal images",
    "equal views",
    "near-duplicates",
]
State = Literal["watching", "warning", "failed", "withdrawn"]
Level = Literal["healthy", "warning", "failed", "unknown"]
Row = Mapping[str, Any]
MAX = sys.float_info.max  # what is larger is infinite, or a whole number that no float holds
IN_A_ROW = 3  # measurements that must agree: a single one may be an accident of its batch
FIRST_STEP = 30  # healthy runs look collapsed until step 20
FIRST_SHARE = 0.05  # of the run; before it a long warm-up may look like no learning
FIRST_STEPS = 10  # after which it counts: healthy CorInfoMax has 30 at step 2, and is back at 3
LOSS_ROWS = 10  # rows that a loss is compared with: at least the 50 steps before


@dataclass(frozen=True)
class Verdict:
    """A frozen dataclass that holds what is said about a training at one step."""

    name: Name
    """What it is a sign of."""
    state: State
    """``watching`` if it was seen and may pass, ``warning``, ``failed``, or ``withdrawn`` if it has passed."""
    step: int
    """The number of updates that the measured weights have had."""
    epoch: int
    """The epoch, from 0."""
    evidence: str
    """A sentence with the numbers that show it, without a full stop."""
    advice: str
    """The options to change, or an empty text; without a full stop."""


@dataclass
class History:
    """Holds what rules know of a run beside the newest row."""

    method: str
    """Name of the method, as ``mira``."""
    total_steps: int
    """Number of steps of the whole run."""
    steps_per_epoch: int
    """Number of steps of an epoch."""
    untrained: Row = field(default_factory=dict)
    """The measurements of step 0; empty if there are none."""
    logged: deque[Row] = field(default_factory=lambda: deque(maxlen=LOSS_ROWS + IN_A_ROW))
    """The newest rows with a loss, the newest one last."""
    highest_rate: float = 0.0
    """The highest learning rate so far."""
    early: Row = field(default_factory=dict)
    """The last measurements of the first steps; empty if there are none."""

    def add(self, row: Row) -> None:
        """Adds the newest row."""
        if row["step"] == 0 and "health_rows" in row:
            self.untrained = row
        if 0 < row["step"] <= FIRST_STEPS and "health_rows" in row:
            self.early = row
        if numbers(row, "loss") is not None:
            self.logged.append(row)
        if rate := numbers(row, "learning_rate"):
            self.highest_rate = max(self.highest_rate, *rate)

    def rate_times(self, factor: float) -> str:
        """Returns the option of a learning rate, as ``--learning-rate 0.01``, relative to the highest one so far."""
        if self.highest_rate:
            return f"--learning-rate {self.highest_rate * factor:.2g}"
        return f"a {'lower' if factor < 1 else 'higher'} --learning-rate"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A frozen dataclass that holds one rule: which rows it judges and how, and what is said then.

    ``judge`` returns ``unknown`` for a row that lacks what it needs; such a row counts as no measurement. ``evidence``
    is only called for rows that were judged ``warning`` or ``failed``.
    """

    name: Name
    judge: Callable[[Row, History], Level]
    evidence: Callable[[Row, History], str]
    advice: Callable[[Row, History], str]
    settled: Callable[[Sequence[Row]], bool] = lambda rows: True
    """Whether the last measurements show that it does not pass by itself; given up to three of them."""
    in_a_row: int = IN_A_ROW
    """Number of measurements in a row that must be ill."""
    in_steps: int = 0
    """Number of steps that these measurements must cover."""
    by_epoch: bool = False
    """Whether an epoch counts as one measurement: its first one."""
    first_step: int = FIRST_STEP
    first_share: float = FIRST_SHARE
    """The rule says nothing before this step and this share of the run."""
    explained_by: tuple[Name, ...] = ()
    """Names of verdicts of which this one would be a mere consequence: it is not said while one of them holds."""
    withdrawn: bool = True
    """Whether it is withdrawn after three healthy measurements; a cause that has acted is not."""


def numbers(row: Row, *keys: str) -> list[float] | None:
    """Returns the values of a row if all are finite numbers; None otherwise."""
    values = [row.get(key) for key in keys]
    finite = [float(x) for x in values if isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= MAX]
    return finite if len(finite) == len(keys) else None


def images_of(row: Row) -> str:
    """Returns the number of measured images in words, as ``512 images``."""
    count = numbers(row, "health_rows")
    return "the images" if count is None else f"{count[0]:,.0f} images"


def compared(row: Row, history: History, key: str, form: str) -> str:
    """Returns a measurement and that before training, as ``0.998 (untrained 0.800)``."""
    before = numbers(history.untrained, key)
    return f"{row[key]:{form}}" + (f" (untrained {before[0]:{form}})" if before is not None else "")
