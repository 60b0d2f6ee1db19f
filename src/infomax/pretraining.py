"""Pretraining: one thin Lightning module, which knows no method by name, and the function that runs it."""

import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from infomax import recipes, runs
from infomax.arguments import choose, choose_device
from infomax.callbacks import EncoderSaver, OnlineKnn, Reporter
from infomax.data.augment import make_views
from infomax.data.datasets import FolderImages, Source, labelled_splits, locate, open_source
from infomax.data.loaders import Batch, training_loader
from infomax.data.picture import draw_views
from infomax.encoders import build_encoder
from infomax.methods.base import Method, Progress, Views
from infomax.optim import Lars, parameter_groups
from infomax.recipes.schema import OptimizerSettings, Recipe
from infomax.runs import Run
from infomax.schedules import warmup_cosine_by_epoch, warmup_cosine_by_step

PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def build_method(recipe: Recipe) -> Method:
    """The untrained method of a recipe; its seed decides the weights."""
    encoder = build_encoder(**asdict(recipe.encoder), seed=recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed + 1)  # not the encoder's numbers again
        return recipe.method.build(encoder)


def build_optimizer(method: Method, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimiser of a recipe, over the trainable parameters of a method."""
    groups = parameter_groups(method, settings.weight_decay, decay_all=settings.decay_all)
    if settings.name == "adam":
        return torch.optim.Adam(groups, lr=settings.learning_rate)
    kind = {"sgd": torch.optim.SGD, "lars": Lars}[settings.name]
    return kind(groups, lr=settings.learning_rate, momentum=settings.momentum)


def learning_rate(settings: OptimizerSettings, progress: Progress, *, epochs: int) -> float:
    """Of the step that ``progress`` stands before."""
    common = {"peak": settings.learning_rate, "start": settings.warmup_start, "end": settings.end}
    if settings.per_epoch:
        warmup = settings.warmup_epochs
        return warmup_cosine_by_epoch(progress.epoch, epochs=epochs, warmup_epochs=warmup, **common)
    warmup = settings.warmup_epochs * progress.total_steps // epochs
    return warmup_cosine_by_step(progress.step, steps=progress.total_steps, warmup_steps=warmup, **common)


class Pretraining(lightning.LightningModule):
    """Views in, loss out, whatever the method."""

    def __init__(self, recipe: Recipe, *, steps_per_epoch: int):
        super().__init__()
        self.recipe = recipe
        self.total_steps = recipe.epochs * steps_per_epoch
        self.method = build_method(recipe).to(memory_format=torch.channels_last)  # twice as fast on a CPU

    @property
    def progress(self) -> Progress:
        return Progress(step=self.global_step, total_steps=self.total_steps, epoch=self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.method, self.recipe.optimizer)

    @torch.no_grad()
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Views:
        made = make_views(batch.images, self.recipe.views, seed=self.recipe.seed, epoch=batch.epoch, index=batch.index)
        return Views(full=made[:2], local=made[2:])

    def on_train_batch_start(self, batch: Views, batch_idx: int) -> None:
        rate = learning_rate(self.recipe.optimizer, self.progress, epochs=self.recipe.epochs)
        for group in self.optimizers(use_pl_optimizer=False).param_groups:  # pyrefly: ignore[missing-attribute]
            group["lr"] = rate

    def training_step(self, batch: Views, batch_idx: int) -> dict[str, Any]:
        try:
            loss, terms = self.method(batch, self.progress)
        except (torch.linalg.LinAlgError, ValueError) as error:  # embeddings that are no numbers cannot be factorised
            raise FloatingPointError(
                f"the loss could not be computed at step {self.global_step + 1}; what is in the run's checkpoints is "
                f"from before. A smaller --learning-rate is the usual cure ({error})"
            ) from error
        return {"loss": loss, "terms": terms}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.method.after_backward(self.progress)


def pretrain(
    *,
    data: str | None = None,
    method: str | None = None,
    out: str | Path,
    recipe: str | None = None,
    backbone: str | None = None,
    views: str | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    precision: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Train an encoder without labels; the words are those of ``infomax pretrain``.

    Args:
        data: ``digits`` (the default), a folder of images, or an .npz file.
        method: ``mira`` (the default), ``corinfomax``, ``carl`` or ``mveb``.
        out: The run folder to make; see docs/runs.md.
        recipe: Name of the recipe to start from; by default one that suits the images and the machine.
        backbone, views, image_size, epochs, batch_size, learning_rate, seed, precision: Changes to the recipe.
        overrides: Further changes, as ``key=value``; see :func:`infomax.recipes.customise`.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.
        workers: Processes that decode image files; None takes one a core, at most 8.
        resume: Continue the run in ``out``; what else is given must agree with it.
        overwrite: Replace the run in ``out``.
        quiet: No progress bar.

    Raises:
        ValueError: if anything asked for is not possible, before anything is written; or later, naming the file, if an
            image cannot be read.
        FloatingPointError: if the loss becomes infinite or NaN.
    """
    changes = {
        "backbone": backbone,
        "views": views,
        "image_size": image_size,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "precision": precision,
        "overrides": overrides,
    }
    device = choose_device(device)
    old = Run(Path(out)) if resume else None
    if old is not None:
        if overwrite:
            raise ValueError("--resume continues a run and --overwrite replaces it; give one of them")
        _check_same(old, data=data, method=method, recipe=recipe, changes=changes)
        plan, source = old.recipe, open_source(old.config["data"])
    else:
        runs.check_free(Path(out), overwrite=overwrite)
        source = open_source(data or "digits")
        plan = _plan(source, method or "mira", recipe, gpu=device == "cuda", changes=changes)
    _check_possible(plan, source, Path(out), device)
    images = {"data": locate(source.name), "images": len(source.train), "fingerprint": source.train.fingerprint()}
    module = Pretraining(plan, steps_per_epoch=len(source.train) // plan.batch_size)
    loader = training_loader(source.train, plan.views, batch_size=plan.batch_size, seed=plan.seed, workers=workers)
    picture = draw_views(loader, plan.views, seed=plan.seed)
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    launch = {"device": device, "gpu": gpu, "workers": loader.num_workers}
    if old is None:
        run = runs.create(Path(out), plan, data=images, launch=launch, overwrite=overwrite)
    else:
        run = old
        run.note_resumption(images, launch)
    (run.path / "views.png").write_bytes(picture)

    if not quiet:
        encoder = f"{plan.encoder.backbone} encoder at {plan.views.full[0].size} pixels"
        extent = f"{len(source.train)} images, {plan.epochs} epochs on {gpu or 'the CPU'}"
        print(f"{plan.method.name}, recipe {plan.name}: {encoder}, {extent}", file=sys.stderr)
    reporter = Reporter(run, plan, quiet=quiet)
    callbacks: list[Callback] = [reporter, EncoderSaver(run, plan)]
    if (splits := labelled_splits(source)) is not None:
        callbacks.append(OnlineKnn(*splits, plan, reporter, workers=workers))
    _fit(module, loader, run, callbacks, device=device)
    return run


def _fit(module: Pretraining, loader: DataLoader, run: Run, callbacks: list[Callback], *, device: str) -> None:
    """Train to the end, from the run's last checkpoint if it has one."""
    # One new file an epoch, and only then is the one before removed.
    checkpoints = ModelCheckpoint(
        run.path / "checkpoints", filename="{epoch:04d}", save_top_k=1, save_on_train_epoch_end=True
    )
    with _calm_lightning():
        trainer = lightning.Trainer(
            max_epochs=module.recipe.epochs,
            accelerator=device,
            devices=1,
            precision=PRECISIONS[module.recipe.precision],
            logger=TensorBoardLogger(run.path, name="tensorboard", version=""),
            callbacks=[*callbacks, checkpoints],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(module, loader, ckpt_path=run.checkpoint, weights_only=True)
        except SystemExit as stop:  # how Lightning ends on Ctrl-C
            raise KeyboardInterrupt from stop


def _plan(source: Source, method: str, recipe: str | None, *, gpu: bool, changes: dict[str, Any]) -> Recipe:
    """The recipe to follow: the named one or the one that suits, with the user's changes."""
    choose("--method", method, recipes.METHODS)
    side = min(source.train.open(0).size)
    name = recipe or recipes.default_recipe_name(method, data=source.name, side=side, gpu=gpu)
    return recipes.customise(recipes.get_recipe(method, name), **changes)


def _check_possible(plan: Recipe, source: Source, out: Path, device: str) -> None:
    """Refuse what these images or this machine cannot do."""
    if (count := len(source.train)) < plan.batch_size:
        raise ValueError(
            f"a step takes {plan.batch_size} images, which is more than the {count} images of {source.name}; "
            f"give a --batch-size of at most {count}"
        )
    if plan.precision == "16" and device == "cpu":
        raise ValueError("--precision 16 needs a GPU; a CPU takes 32 or bf16")
    if isinstance(source.train, FolderImages) and out.resolve().is_relative_to(source.train.root.resolve()):
        raise ValueError(f"--out {out} is inside --data {source.name}, whose images are all trained on; choose another")


def _check_same(run: Run, *, data: str | None, method: str | None, recipe: str | None, changes: dict[str, Any]) -> None:
    """Refuse to continue a run as another one."""
    plan = run.recipe
    asked = recipes.customise(plan, **changes)
    lines = runs.differences(plan, asked)
    for word, new, old in (
        ("data", data and locate(data), run.config["data"]),
        ("method", method, plan.method.name),
        ("recipe", recipe, plan.name),
    ):
        if new is not None and new != old:
            lines.append(f"{word}: {old} there, {new} asked for")
    if lines:
        raise ValueError(f"--resume: {run.path} was started otherwise: {'; '.join(lines)}")


@contextmanager
def _calm_lightning():
    """Lightning's hints about hardware, workers and its other products are not for our users."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
