"""What happens beside the training: reports, scores on the way, and the encoder that is kept."""

import math
import sys
import time
from dataclasses import asdict
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from infomax.data.datasets import Labelled
from infomax.encoders import save_encoder
from infomax.evaluation.features import extract
from infomax.evaluation.knn import knn_scores
from infomax.evaluation.scores import top_k
from infomax.recipes.schema import Recipe
from infomax.runs import Run

LOG_EVERY = 20  # steps
HIDDEN = ("step", "epoch", "learning_rate", "images_per_second", "waiting", "seconds")  # in the bar
KNN_BANK, KNN_QUERIES, KNN_TIMES = 10_000, 2_000, 10  # images at most, and scores during a run


class Reporter(Callback):
    """The progress bar, ``metrics.jsonl`` and TensorBoard; stops the run when the loss is not a number."""

    def __init__(self, run: Run, recipe: Recipe, *, quiet: bool):
        self.run, self.recipe, self.quiet = run, recipe, quiet
        self.row: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.run.cut_metrics(trainer.global_step)
        self.bar = tqdm(
            desc=self.run.path.name,
            total=pl_module.total_steps,
            initial=trainer.global_step,
            disable=self.quiet,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,  # seconds; a log file keeps every line
            bar_format="{desc} {percentage:3.0f}%|{bar:10}| {elapsed} done, {remaining} left{postfix}",
        )
        self.started = self.since = self.ended = time.perf_counter()
        self.steps, self.waited = 0, 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        # What was done between two epochs, scoring and saving, was neither training nor waiting for data.
        now = time.perf_counter()
        self.since, self.ended = self.since + now - self.ended, now

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.waited += time.perf_counter() - self.ended

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step, last = trainer.global_step, trainer.is_last_batch
        self.steps += 1
        due = step % LOG_EVERY == 0 or last
        if due or pl_module.device.type == "cpu":  # to read a value from a GPU, it would have to be waited for
            self._check(float(outputs["loss"]), step)
        if due:
            now = time.perf_counter()
            self.row = {
                "step": step,
                "epoch": trainer.current_epoch,
                "loss": float(outputs["loss"]),
                **{name: float(value) for name, value in outputs["terms"].items()},
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "images_per_second": self.steps * self.recipe.batch_size / (now - self.since),
                "waiting": self.waited / (now - self.since),
                "seconds": now - self.started,
            }
            self.record(trainer, self.row)
            self.steps, self.waited, self.since = 0, 0.0, now
        self.bar.update(1)
        self.ended = time.perf_counter()

    def record(self, trainer: Trainer, row: dict[str, float]) -> None:
        """Write a row everywhere, and show it."""
        self.run.append("metrics.jsonl", row)
        scalars = {name: value for name, value in row.items() if name not in ("step", "epoch")}
        trainer.loggers[0].log_metrics(scalars, step=int(row["step"]))
        self.row = {**self.row, **row}
        shown = [f"{name} {value:.4g}" for name, value in self.row.items() if name not in HIDDEN]
        speed = f"{self.row.get('images_per_second', 0):.0f} images/s, {self.row.get('waiting', 0):.0%} waiting"
        self.bar.set_postfix_str(", ".join([*shown, speed]), refresh=False)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: Any) -> None:
        if hasattr(self, "bar"):
            self.bar.close()

    def _check(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} at step {step}; what is in {self.run.path}/checkpoints is from before. "
                "A smaller --learning-rate is the usual cure"
            )


class OnlineKnn(Callback):
    """Scores the representation by k-NN about ten times during the run, where there are labels to do it with."""

    def __init__(self, bank: Labelled, queries: Labelled, recipe: Recipe, reporter: Reporter, *, workers: int | None):
        self.bank, self.queries = bank.evenly(KNN_BANK), queries.evenly(KNN_QUERIES)
        self.recipe, self.reporter, self.workers = recipe, reporter, workers
        self.every = math.ceil(recipe.epochs / KNN_TIMES)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        done = trainer.current_epoch + 1
        if done % self.every and done != self.recipe.epochs:
            return
        encoder, how, device = pl_module.method.representation, self.recipe.preprocessing, pl_module.device
        bank, queries = (
            extract(encoder, part.images, part.index, how, device=device, workers=self.workers)
            for part in (self.bank, self.queries)
        )
        labels, true = torch.from_numpy(self.bank.labels), torch.from_numpy(self.queries.labels)
        accuracy = top_k(knn_scores(bank, labels, queries, classes=len(self.bank.images.classes)), true)
        row = {"step": trainer.global_step, "epoch": trainer.current_epoch, "knn_top1": accuracy}
        self.reporter.record(trainer, row)


class EncoderSaver(Callback):
    """Keeps the run folder's encoder at the state of the last finished epoch, so that a run can be judged any time."""

    def __init__(self, run: Run, recipe: Recipe):
        self.run, self.recipe = run, recipe

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        settings = {**asdict(self.recipe.encoder), "seed": self.recipe.seed}
        encoder = pl_module.method.representation
        save_encoder(encoder, settings, asdict(self.recipe.preprocessing), self.run.path)
