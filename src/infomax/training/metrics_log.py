"""What is said while a run trains, and where it is written."""

import math
import sys
import time
from functools import cached_property
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from infomax.recipes.schema import Recipe
from infomax.runs.run_folder import Run
from infomax.training.engine import Step

LOG_EVERY = 20  # steps
HIDDEN = ("step", "epoch", "learning_rate", "images_per_second", "waiting", "seconds", "gradient_norm")  # in the bar


class Reporter:
    """The progress bar, ``metrics.jsonl`` and TensorBoard.

    Args:
        step: That the run goes on from; later rows of ``metrics.jsonl`` are dropped, to be measured again.
        began: When it would have begun had it not been interrupted, on the clock of ``time.perf_counter``.
    """

    def __init__(self, run: Run, recipe: Recipe, *, step: int, total_steps: int, began: float, quiet: bool):
        self.run, self.recipe = run, recipe
        self.row: dict[str, float] = {}
        run.cut_metrics(step)
        self.first_step = step + 1
        self.bar = tqdm(
            desc=run.path.name,
            total=total_steps,
            initial=step,
            disable=quiet,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,  # seconds; a log file keeps every line
            bar_format="{desc} {percentage:3.0f}%|{bar:10}| {elapsed} done, {remaining} left{postfix}",
        )
        self.began = began
        self.begin_interval()

    @cached_property
    def board(self) -> SummaryWriter | None:
        """Made at the first row, so that a finished run gets no empty file."""
        return SummaryWriter(self.run.path / "tensorboard", purge_step=self.first_step)

    def begin_interval(self) -> None:
        """Start to measure speed; what was done before, as scoring and saving, does not count."""
        self.since, self.steps, self.waited = time.perf_counter(), 0, 0.0

    def step_done(self, done: Step, learning_rate: float, *, waited: float, due: bool) -> None:
        """Counts a step, and writes a row about it if one is due: at the end of an epoch and every 20 steps."""
        step, loss, norm = done.progress.step + 1, done.loss, done.gradient_norm
        self.steps, self.waited = self.steps + 1, self.waited + waited
        self.bar.update(1)
        if not due and step % LOG_EVERY:
            return
        elapsed = time.perf_counter() - self.since
        row = {
            "step": step,
            "epoch": done.progress.epoch,
            "loss": float(loss.total.detach()),
            **{name: float(value) for name, value in loss.terms.items()},
            **({"gradient_norm": norm} if math.isfinite(norm) else {}),  # float16 may have to scale less first
            "learning_rate": learning_rate,
            "images_per_second": self.steps * self.recipe.batch_size / elapsed,
            "waiting": self.waited / elapsed,
            "seconds": time.perf_counter() - self.began,
        }
        self.record(row)
        self.begin_interval()

    def record(self, row: dict[str, Any]) -> None:
        """Write a row everywhere, and show it. A full disk costs the row, not the run."""
        try:
            self.run.append_row("metrics.jsonl", row)
        except OSError as error:
            self.say(f"cannot write metrics: {error}")
        board: Any = self.board
        try:
            for name in row.keys() - {"step", "epoch"} if board else ():
                board.add_scalar(name, row[name], int(row["step"]))
        except OSError as error:  # raised once by its thread, which then is gone
            self.say(f"writes no more to TensorBoard: {error}")
            self.board = None
        self.row = {**self.row, **row}
        shown = [f"{name} {value:.4g}" for name, value in self.row.items() if name not in HIDDEN]
        speed = f"{self.row.get('images_per_second', 0):.0f} images/s, {self.row.get('waiting', 0):.0%} waiting"
        self.bar.set_postfix_str(", ".join([*shown, speed]), refresh=False)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.bar.write(f"infomax: {line}", file=sys.stderr)

    def close(self) -> None:
        self.bar.close()
        if (board := vars(self).get("board")) is not None:
            try:
                board.close()
            except OSError as error:
                self.say(f"cannot write to TensorBoard: {error}")
