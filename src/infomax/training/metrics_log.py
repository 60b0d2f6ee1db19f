"""Training metrics: a progress bar, metrics.jsonl, the tools of ``--log``, and verdicts on the run's health."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from infomax.analysis.verdict_rules.rule import Verdict
from infomax.analysis.verdicts import VerdictTracker
from infomax.recipes.schema import Recipe
from infomax.runs.run_folder import Run
from infomax.runtime.progress import ProgressBar, format_rate
from infomax.runtime.text import note
from infomax.training.closing import CLOSING_KEYS
from infomax.training.engine import Step
from infomax.training.loggers import TOOLS
from infomax.training.loggers.forwarding import Forwarder
from infomax.training.loggers.tool import State

LOG_EVERY = 20  # steps
LEAST_WAITING = 0.01  # share of the time; less is not shown in the progress bar
ACCURACIES = {"knn_top1": "k-NN", "linear_top1": "linear"}
"""Names in the progress bar, by the keys of a row."""
REFERENCES = {"initial_knn_top1": "initial encoder", "untrained_knn_top1": "untrained"}
"""Names of what the k-NN accuracy stands beside in the progress bar, by the keys of a row."""
NOT_IN_BAR = (
    *("step", "epoch", "learning_rate", "images_per_second", "waiting", "seconds", "gradient_norm", "linear_top5"),
    *("linear_test_images", "linear_labelled_images", "linear_classes", "linear_first_step", "loss", *ACCURACIES),
    *REFERENCES,
    *CLOSING_KEYS,
)


class MetricsLog:
    """Shows metrics in a progress bar, writes them to ``metrics.jsonl``, and passes them on to tools.

    Args:
        run: The run folder.
        recipe: The recipe of the run.
        step: The step that the run goes on from. Later rows of ``metrics.jsonl`` are dropped: they are measured again.
        total_steps: Number of steps of the run.
        tools: Names of the tools that rows are passed on to.
        began: When the run would have begun had it not been interrupted, on the clock of ``time.perf_counter``.
        quiet: Whether to show no bar.

    Attributes:
        bar: The progress bar. Whoever makes the steps moves it.
    """

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        *,
        step: int,
        total_steps: int,
        tools: Sequence[str],
        began: float,
        quiet: bool,
    ):
        self.run, self.recipe = run, recipe
        self.row: dict[str, float] = {}
        logged_step = max((row["step"] for row in run.read_rows("metrics.jsonl")), default=0)
        kept = run.cut_metrics(step)
        self.forwarder = Forwarder(
            run, [TOOLS[name] for name in tools], step=step, logged_step=logged_step, say=self.say
        )
        steps_per_epoch, epochs = total_steps // recipe.epochs, recipe.epochs
        self.tracker = VerdictTracker(
            method=recipe.method.name, total_steps=total_steps, steps_per_epoch=steps_per_epoch
        )
        for row in kept:
            self.tracker.update(row)
            self.row |= {key: value for key, value in row.items() if key in REFERENCES}

        def position(done: int) -> str:
            epoch = min(done // steps_per_epoch + 1, epochs)
            return f"epoch {epoch} of {epochs}, step {done} of {total_steps}"

        self.bar = ProgressBar(
            run.path.name,
            total_steps,
            done=step,
            unit="steps",
            shows_rate=False,  # a row of the metrics has the images a second
            position=position,
            quiet=quiet,
            waits=True,  # the loop says that the first step is made
        )
        self.began = began
        self.begin_interval()

    def begin_interval(self) -> None:
        """Starts to measure the speed; what was done before, as scoring and saving, does not count."""
        self.since, self.steps, self.waited = time.perf_counter(), 0, 0.0

    def log_step(self, step: Step, learning_rate: float, *, waited: float, due: bool) -> None:
        """Counts a step for the speed, and writes a row about every 20th step.

        Args:
            step: The step, whose loss and gradient are known to be finite.
            learning_rate: The learning rate of this step.
            waited: Seconds that this step waited for images.
            due: Whether to write a row in any case, as at the end of an epoch.
        """
        number = step.number
        self.steps, self.waited = self.steps + 1, self.waited + waited
        if not due and number % LOG_EVERY:
            return
        norm = step.gradient_norm
        elapsed = time.perf_counter() - self.since
        row = {
            "step": number,
            "epoch": step.epoch,
            "loss": float(step.loss.total.detach()),
            **{name: float(value) for name, value in step.loss.terms.items()},
            **(
                {"gradient_norm": norm} if math.isfinite(norm) else {}
            ),  # under float16 the scaler may have to scale less first
            "learning_rate": learning_rate,
            "images_per_second": self.steps * self.recipe.batch_size / elapsed,
            "waiting": self.waited / elapsed,
            "seconds": time.perf_counter() - self.began,
        }
        self.record(row)
        self.begin_interval()

    def record(self, row: dict[str, Any]) -> None:
        """Writes a row everywhere, and says and writes the verdicts that follow from it. Health is not in the bar.

        A full disk costs the row, not the run.

        Raises:
            FileNotFoundError: if the run folder is gone.
        """
        self._write(row)
        if "health_rows" not in row:
            self.row = {**self.row, **row}
            self.bar.show_values(shown_values(self.row))
        for verdict in self.tracker.update(row):
            self.say(describe_verdict(verdict))
            self._write(
                {
                    "step": row["step"],
                    "epoch": verdict.epoch,
                    "verdict": verdict.name,
                    "state": verdict.state,
                    "evidence": verdict.evidence,
                    "advice": verdict.advice,
                }
            )

    def _write(self, row: dict[str, Any]) -> None:
        """Writes a row to ``metrics.jsonl``, and passes it on to the tools."""
        try:
            self.run.append_row("metrics.jsonl", row)
        except FileNotFoundError:
            raise
        except OSError as error:
            self.say(f"cannot write metrics: {error}")
        self.forwarder.send(row)

    @property
    def failure(self) -> Verdict | None:
        """Returns the verdict that the run has failed, if one stands."""
        return next((verdict for verdict in self.tracker.current if verdict.state == "failed"), None)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        note(line)

    def close(self, state: State) -> None:
        """Closes the bar, and tells the tools how the run has ended."""
        self.bar.close()
        self.forwarder.close(state)


def describe_verdict(verdict: Verdict) -> str:
    """Returns a verdict in one line: its name and state, the numbers that show it, and what to change."""
    advice = f"; {verdict.advice}" if verdict.advice else ""
    return f"health: {verdict.name}, {verdict.state}: {verdict.evidence}{advice}"


def shown_values(row: Mapping[str, float]) -> list[str]:
    """Returns what a progress bar shows of the metrics, the most important first: the loss, the speed, accuracies."""
    shown = [f"loss {row['loss']:.4g}"] if "loss" in row else []
    if speed := row.get("images_per_second"):
        shown.append(f"{format_rate(speed)} images/s")
    for name, words in ACCURACIES.items():
        if name in row:
            of_others = [f"{other} {row[key]:.1%}" for key, other in REFERENCES.items() if key in row]
            beside = f" ({', '.join(of_others)})" if name == "knn_top1" and of_others else ""
            shown.append(f"{words} {row[name]:.1%}{beside}")
    if row.get("waiting", 0.0) >= LEAST_WAITING:
        shown.append(f"{row['waiting']:.0%} waiting")
    return shown + [f"{name} {value:.4g}" for name, value in row.items() if name not in NOT_IN_BAR]
