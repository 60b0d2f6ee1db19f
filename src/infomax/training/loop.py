"""The training loop: takes batches, makes steps, scores the encoder, logs metrics and saves; on each rank of a run.

The loop owns the engine, the prefetcher, the online evaluation and the metrics log, and passes each one's results on to
the next. None of them knows another, except that a step's result is logged.
"""

import math
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from traceback import format_exc
from typing import Any, NoReturn

import torch

from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images
from infomax.data.loading.keep_decoded import memory_to_keep
from infomax.data.loading.training import BatchPrefetcher, training_batches
from infomax.data.loading.workers import Batch, load_kernels
from infomax.data.splits import Source, preview_images
from infomax.data.streams import Stream
from infomax.models.encoders import Encoder, build_encoder, save_encoder
from infomax.models.state_dicts import load_all_weights
from infomax.runs.run_folder import Run, resume_command
from infomax.runtime import checkpoints
from infomax.runtime.collectives import all_ranks_max, broadcast_from_rank0, rank, world_size
from infomax.runtime.determinism import deterministic_mode, quiet_compiler_warnings
from infomax.runtime.devices import float64_device, random_state_kept
from infomax.runtime.doors import in_callers_words, resume_words
from infomax.runtime.failures import CollapseError, MachineError, describe_machine_failure
from infomax.runtime.new_folders import new_folder
from infomax.runtime.ranks import device_of, rank_from_environment
from infomax.runtime.resumable_loop import ResumableLoop
from infomax.runtime.signals import Interruption
from infomax.runtime.stages import Stage
from infomax.runtime.text import note, show
from infomax.training.collapse import COLLAPSED, describe_collapse
from infomax.training.engine import Engine, NonFiniteError, Step
from infomax.training.health import Health
from infomax.training.image_check import measure_images
from infomax.training.initial import read_initial_weights
from infomax.training.loggers import DEFAULT_TOOLS
from infomax.training.loggers.tool import State
from infomax.training.metrics_log import MetricsLog
from infomax.training.online_evaluation import OnlineEvaluation, online_evaluation
from infomax.training.options import UNREADABLE_DEFAULT, LaunchOptions, most_unreadable
from infomax.training.output_observer import OutputObserver
from infomax.training.replay import capture
from infomax.training.rescue import FolderGoneError, check_folder, rescue_folder, save_elsewhere
from infomax.training.step_report import OnStep, StepReporter

SAVE_EVERY = 10.0  # seconds between two checkpoints, at least
SAVE_SHARE = 0.01  # the share of the time that saving may take


def train(
    run: Run,
    launch: LaunchOptions,
    local_rank: int = 0,
    source: Source | None = None,
    on_step: OnStep | None = None,
) -> None:
    """Trains a run to its end, from its last checkpoint if it has one. It is called on every rank.

    Args:
        run: The run folder.
        launch: What a user decides about the machine.
        local_rank: This rank's number on its machine, from 0.
        source: The run's data, if they are open already.
        on_step: Is called after each step, on the first rank; see :func:`infomax.training.pretrain.pretrain`.

    Raises:
        ValueError: if the run's images are gone or changed, or too many of them cannot be read.
        FloatingPointError: if more steps than allowed have an infinite or NaN loss or gradient.
        MachineError: if memory, a worker process or another rank is lost.
        KeyboardInterrupt: after Ctrl-C. What was trained is saved.
        SystemExit: after SIGTERM or SLURM's warning. What was trained is saved.
    """
    device = device_of(launch.device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # The engine seeds random layers at each step. The caller's random state stays as it was.
    with (
        random_state_kept(device),
        quiet_compiler_warnings(launch.compile),
        deterministic_mode(launch.deterministic),
        # Until the first step there is nothing to save, and preparing can take long. Several ranks must end together.
        Interruption(at_once=world_size() == 1) as interruption,
    ):
        source = source or _open_run_data(run, device)
        TrainingLoop(run, launch, device, source, on_step).run_to_end(interruption)


def _open_run_data(run: Run, device: torch.device) -> Source:
    """Opens the run's data on each of several ranks.

    Raises:
        ValueError: on all ranks, if one of them does not have the images that the run was started with.
    """
    source, failure = None, ""
    try:
        source = run.location.open()
        if source.pretraining.fingerprint() != run.config["fingerprint"]:
            failure = f"the images of {source.name} are not those of the run on rank {rank()}"
    except (ValueError, OSError) as error:
        failure = str(error)
    if all_ranks_max(int(bool(failure)), device) or source is None:
        raise ValueError(failure or "another rank does not have the images of the run; its own message says more")
    return source


def train_step(
    engine: Engine,
    microbatches: Sequence[Batch],
    *,
    prefetcher: BatchPrefetcher | None = None,
    online: OnlineEvaluation | None = None,
    observer: OutputObserver | None = None,
) -> Step:
    """Trains on one global batch, prepares the next one meanwhile, and lets the online probe learn from it.

    Args:
        engine: The engine, whose weights change at the end.
        microbatches: This rank's share of the global batch.
        prefetcher: Where the batches come from, if it is to prefetch.
        online: The online evaluation, if there is any.
        observer: Keeps some of what the networks compute, if the run's health is measured.

    Raises:
        FloatingPointError: if the loss or the gradient is infinite or NaN. The step is then undone; the probe has not
            learned from it.
    """
    probe = None if online is None else online.probe
    with engine.step(microbatches, keep_features=probe is not None, observer=observer) as step:
        if prefetcher is not None:
            prefetcher.prefetch()  # the host works while the device computes this step
        step.check_finite()
        if probe is not None:  # before the weights change: if learning fails, both are one step behind
            probe.learn(microbatches, step.features, step.progress)
    return step


def checkpoint_to_resume(run: Run) -> Path | None:
    """Returns the checkpoint that a run goes on from; None if it starts from the first step.

    Raises:
        ValueError: if the run was trained, and has no checkpoint that can be read.
    """
    try:
        newest = checkpoints.newest_readable(run.path / "checkpoints", set_aside=True)
    except ValueError as error:
        raise ValueError(f"--resume {run.path}: {error}, or --overwrite the run") from error
    if newest is None and (steps := run.trained_steps):
        raise ValueError(
            f"--resume {run.path}: its encoder was trained for {steps} steps, but its checkpoints are gone; "
            "--overwrite the run to start anew"
        )
    return newest


def _state_to_resume(run: Run) -> tuple[Path | None, bool]:
    """Returns the checkpoint that a run goes on from, and whether its metrics until then have the accuracy of the
    untrained encoder."""
    newest = checkpoint_to_resume(run)
    step = -1 if newest is None else checkpoints.step_of(newest)
    return newest, any("untrained_knn_top1" in row and row["step"] <= step for row in run.read_rows("metrics.jsonl"))


class TrainingLoop:
    """Trains one run on one rank, from its last checkpoint to its end.

    It owns the engine, the prefetcher, the online evaluation, what measures health, and, on the first rank, the metrics
    log.

    Args:
        run: The run folder.
        launch: What a user decides about the machine.
        device: The device that this rank computes on.
        source: The run's data.
        on_step: Is called after each step, on the first rank.
    """

    def __init__(
        self, run: Run, launch: LaunchOptions, device: torch.device, source: Source, on_step: OnStep | None = None
    ):
        self.run, self.launch, self.device = run, launch, device
        self.config, self.epochs_to_keep = run.config, run.epochs_to_keep
        self.rescue_copy: Path | None = None
        self.source, self.collapse_checked_at = source, -1
        self.recipe = recipe = run.recipe
        self.images: Images | Stream = source.pretraining
        steps = len(self.images) // recipe.batch_size
        made_by_kernels = float64_device(device).type == "cpu" and recipe.precision != "64"
        is_cut = not isinstance(self.images, ArrayImages)
        load_kernels(recipe.views, recipe.preprocessing.pixel_format, cut=is_cut, make=made_by_kernels)
        newest, self.references_known = broadcast_from_rank0(lambda: _state_to_resume(run))
        initial = read_initial_weights(run) if newest is None and recipe.encoder.init is not None else None
        compiled = launch.compile
        self.engine = Engine(
            recipe,
            steps_per_epoch=steps,
            device=device,
            compiled=compiled,
            stages=run.stages,
            initial=initial,
            images=len(self.images),
        )
        width = self.engine.method.eval_encoder.width
        self.online = online_evaluation(source, recipe, width=width, device=device, workers=launch.workers)
        seconds, self.skipped, probe_is_new, absent = 0.0, 0, False, []
        if newest is not None:
            state = checkpoints.load(newest)
            absent = self.engine.load(state)
            seconds, self.skipped = state["seconds"], state["skipped"]
            probe_is_new = self.online is not None and not self.online.load(state, step=self.engine.steps_done)
        self.health = Health(
            self.engine.method,
            batch_size=recipe.batch_size,
            steps_per_epoch=steps,
            total_steps=self.engine.total_steps,
            done=self.engine.steps_done,
        )
        self.image_measures: dict[str, float] = {}
        self.began = time.perf_counter() - seconds  # as if it had not been interrupted
        self.saved_step = self.engine.steps_done
        self.unreadable: set[int] = set()
        self.named = {row["image"] for row in run.read_rows("unreadable.jsonl")}  # before it was resumed
        self.log, self.reporter = None, None
        if rank() == 0:
            step, total = self.engine.steps_done, self.engine.total_steps
            quiet = launch.quiet or step == total
            tools = tuple(run.launch.get("log", DEFAULT_TOOLS))
            self.log = MetricsLog(run, recipe, step=step, total_steps=total, tools=tools, began=self.began, quiet=quiet)
            if on_step is not None:
                self.reporter = StepReporter(run, on_step, batch_size=recipe.batch_size, steps=total)
            if newest is not None and not launch.quiet:
                position = f"step {step} of {total}, epoch {step / self.engine.steps_per_epoch:.2f} of {recipe.epochs}"
                self.say(f"{run.path} is finished" if step == total else f"going on from {position}")
            if probe_is_new and step < total:
                self.say("linear_top1 starts anew: the checkpoint has no classifier of these classes")
            if absent and step < total:
                self.say(f"{', '.join(absent)}: starts anew, as the checkpoint is from before it was kept")

    def run_to_end(self, interruption: Interruption) -> None:
        """Makes all steps that are left, and saves.

        Args:
            interruption: Notes the signals that are to stop the run.
        """
        state: State = "failed"
        try:
            # The workers end with the block: a rescue needs the memory that they hold, and no signal of theirs.
            with (
                closing(self._prefetcher()) as prefetcher,
                self._resumable_loop(interruption) as loop,
                ExitStack() as until_first_step,
            ):
                if self.engine.steps_done == 0:
                    self.measure_images()
                if self.engine.steps_done < self.engine.total_steps:
                    task = "first step, which is compiled" if self.launch.compile else "first step"
                    until_first_step.enter_context(Stage(task, forks=True))
                self.keep_encoder(again=False)
                for microbatches in self.batches(prefetcher):
                    self.begin_epoch()
                    interruption.at_once = False
                    self.train_or_skip(microbatches, prefetcher)
                    until_first_step.close()
                    self.keep_encoder()
                    if self.has_failed:
                        loop.ask_to_end()
                    loop.step_done()
                    del microbatches  # they would be kept until the next ones are there
            if self.engine.steps_done > self.saved_step:
                self.check_collapse()
                self.compare_with_references()  # a run that is killed here goes back, and compares again
                self.save()
            elif rank() == 0:  # the run was finished before; its encoder's file may be of an earlier step
                self.save_encoder()
            state = "finished"
        except (KeyboardInterrupt, SystemExit, CollapseError):
            state = "stopped"
            raise
        except Exception as error:
            for _ in range(10):
                try:
                    self.rescue()
                    break
                except RuntimeError as another:  # one more worker has ended: its signal comes at any time
                    self.say(str(another))
            cure = "lower --micro-batch-size (the gradient stays that of --batch-size), --image-size or --precision"
            if self.reporter is not None and error is self.reporter.error:
                raise  # the program's own error is no failure of the machine, whatever it says
            self._raise_if_folder_is_gone(error)
            description = describe_machine_failure(error, cure)
            if description is None:
                raise
            raise MachineError(
                f"{description}. Step {self.saved_step} is saved, and {resume_words()} goes on from there"
            ) from error
        finally:
            if self.log is not None:
                self.log.close(state)

    def _raise_if_folder_is_gone(self, error: Exception) -> None:
        """Raises the one line that says where the run is saved, if an error came of a run folder that is gone."""
        if not isinstance(error, OSError):
            return
        try:
            check_folder(self.run.path, self.config)
        except FolderGoneError as gone:
            if self.rescue_copy is None:
                raise gone from error
            place = self.rescue_copy.parent.parent
            raise FolderGoneError(
                f"{gone}; step {self.saved_step} is saved: {resume_command(place)} goes on"
            ) from error

    def _resumable_loop(self, interruption: Interruption) -> ResumableLoop:
        return ResumableLoop(
            steps=self.engine.total_steps,
            done=self.engine.steps_done,
            save=self.save,
            try_to_save=partial(self.save, may_fail=True),
            device=self.device,
            save_every=SAVE_EVERY,
            save_share=SAVE_SHARE,
            bar=None if self.log is None else self.log.bar,
            resume_hint=f"{resume_words()} goes on from there",
            say=self.say,
            interruption=interruption,
            make_error=self.collapse_error,
        )

    def _prefetcher(self) -> BatchPrefetcher:
        """Returns the microbatches of all steps that are left."""
        recipe, engine, keep_bytes = self.recipe, self.engine, self._bytes_to_keep()
        if self.online is not None:
            keep_bytes -= self.online.keep_images(keep_bytes // 4)
        batches = self._microbatches(range(engine.steps_done, engine.total_steps), keep_bytes)
        # The views of microbatches are made twice, when each is due: kept, they would take the memory that microbatches
        # are to spare.
        return BatchPrefetcher(batches, self.device, None if recipe.micro_batch_size else engine.make_views)

    def _microbatches(self, steps: range, keep_bytes: int = 0) -> Iterator[Batch]:
        """Yields this rank's microbatches of some steps.

        Args:
            steps: The steps, counted from the beginning of the run.
            keep_bytes: Memory that decoded images may take.
        """
        recipe = self.recipe
        return training_batches(
            self.images,
            recipe.views,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            steps=steps,
            micro_batch_size=recipe.micro_batch_size,
            rank=rank(),
            world_size=world_size(),
            workers=self.launch.workers,
            device=self.device,
            keep_bytes=keep_bytes,
            pixel_format=recipe.preprocessing.pixel_format,
            say=self.say,
        )

    def _bytes_to_keep(self) -> int:
        """Returns the memory that decoded images may take of this rank; says so if it was asked for in vain."""
        asked = self.launch.keep_decoded
        if isinstance(self.images, ArrayImages | Stream):
            if asked not in ("auto", "off"):
                reason = (
                    "those of a stream are not" if isinstance(self.images, Stream) else "these are in memory already"
                )
                self.say(f"--keep-decoded {asked}: decoded image files are kept; {reason}")
            return 0
        # srun does not say how many of its ranks are on this machine: then all might be.
        return memory_to_keep(asked, int(os.environ.get("LOCAL_WORLD_SIZE", world_size())))

    def batches(self, prefetcher: BatchPrefetcher) -> Iterator[list[Batch]]:
        """Yields this rank's microbatches of each step that is left."""
        share, micro_batch_size = self.recipe.batch_size // world_size(), self.recipe.micro_batch_size
        count = share // micro_batch_size if micro_batch_size else 1
        for _ in range(self.engine.steps_done, self.engine.total_steps):
            microbatches = [next(prefetcher) for _ in range(count)]
            for batch in microbatches:
                self.note_unreadable(batch)
            yield microbatches
            del microbatches

    def begin_epoch(self) -> None:
        """Lets a method that remembers images prepare itself for an epoch, if the next step is the first one of it."""
        engine = self.engine
        if engine.steps_done % engine.steps_per_epoch or not engine.method.remembers_images:
            return
        steps = range(engine.steps_done, engine.steps_done + engine.steps_per_epoch)
        # Nothing is compiled for passes without gradient.
        with torch.compiler.set_stance("force_eager") if self.launch.compile else nullcontext():
            engine.begin_epoch(lambda: closing(BatchPrefetcher(self._microbatches(steps), self.device)))
        self._begin_interval()

    def train_or_skip(self, microbatches: list[Batch], prefetcher: BatchPrefetcher) -> None:
        """Makes one step and reports it; a step with an infinite or NaN loss is skipped, if that is allowed."""
        waited = prefetcher.pop_wait_seconds()
        observer, start = self.health.observer(self.engine.steps_done), time.perf_counter()
        try:
            step = train_step(self.engine, microbatches, prefetcher=prefetcher, online=self.online, observer=observer)
        except FloatingPointError as error:
            self.skip_or_capture(error, microbatches)
        else:
            self.health.end_step(time.perf_counter() - start)
            if self.reporter is not None:
                self.reporter.end_interval()
            if observer is not None and observer.kept is not None:
                self.measure_health(observer, step)
            self.report(step, waited)
            if self.reporter is not None:
                self.report_to_program(step)

    def measure_health(self, observer: OutputObserver, step: Step) -> None:
        """Measures the weights that a step began with, from what it computed, and records it on the first rank."""
        updates = step.number - 1
        row = self.health.measure(observer, updates)
        if row is not None and self.log is not None:
            images = self.image_measures if updates == 0 else {}
            self.log.record({"step": updates, "epoch": step.epoch, **row, **images})

    def measure_images(self) -> None:
        """Looks at the images with the untrained encoder, on the first rank."""
        if rank() > 0:
            return
        encoder, recipe = self.engine.method.encoder, self.recipe
        eager = torch.compiler.set_stance("force_eager") if self.launch.compile else nullcontext()
        with (
            Stage("comparing some of the images with each other", slow_only=True),
            eager,
            suppress(ValueError, OSError),
        ):
            images = preview_images(self.source)  # the first ones of a stream may not be there
            self.image_measures = measure_images(
                encoder, images, recipe.preprocessing, seed=recipe.seed, device=self.device
            )

    @property
    def has_failed(self) -> bool:
        """Returns whether the run is to end because of a verdict; known to the first rank alone."""
        return self.launch.stop_on_collapse and self.log is not None and self.log.failure is not None

    def collapse_error(self) -> CollapseError:
        """Returns the error that ends a run of which a verdict says that it has failed."""
        verdict = self.log.failure if self.log is not None else None
        reason = "the first rank says why" if verdict is None else f"{verdict.name}, {verdict.evidence}"
        return CollapseError(
            f"stopped at step {self.engine.steps_done} of {self.engine.total_steps}, which is saved, as "
            f"--stop-on-collapse asks: {reason}. {resume_words()} goes on from there without --stop-on-collapse"
        )

    def report(self, step: Step, waited: float) -> None:
        """Reports a step, and scores the encoder if the step ends an epoch that is due for it."""
        engine = self.engine
        ends_epoch = engine.steps_done % engine.steps_per_epoch == 0
        epoch = step.epoch
        if self.log is not None:
            self.log.log_step(step, engine.learning_rate, waited=waited, due=ends_epoch)
        if ends_epoch and self.online is not None and self.online.is_due(epoch + 1):
            # Nothing is compiled for batches of other sizes, nor is what compiles imported in vain.
            with torch.compiler.set_stance("force_eager") if self.launch.compile else nullcontext():
                references = self.score_references(self.online)
                accuracies = self.online.score(engine.method.eval_encoder, epoch + 1) | references
            if self.log is not None:
                self.log.record({"step": engine.steps_done, "epoch": epoch, **accuracies})
                self.check_collapse()
                self._begin_interval()

    def report_to_program(self, step: Step) -> None:
        """Calls the function of the program that trains; if it raises anything, the run is saved first."""
        assert self.reporter is not None
        try:
            self.reporter.call(step, self.engine.learning_rate, began=self.began)
        except BaseException as error:
            self.save()
            line = f"on_step raised this after step {step.number} of {self.engine.total_steps}, which is saved; "
            error.add_note(in_callers_words(f"{line}{resume_words()} goes on from there"))
            if rank_from_environment() is not None:  # the process that started this rank shows the last line alone
                show(format_exc(), file=sys.stderr)
            raise

    def score_references(self, online: OnlineEvaluation) -> dict[str, float]:
        """Returns what the encoder's accuracies stand beside, with the first of them: that of the untrained encoder,
        and with initial weights that of the encoder that the run started from."""
        if self.references_known:
            return {}
        self.references_known, initial = True, self._load_initial_encoder()
        names = "the untrained encoder" if initial is None else "the initial and the untrained encoder"
        with Stage(f"scoring {names}", slow_only=True):
            return online.score_references(initial)

    def _load_initial_encoder(self) -> Encoder | None:
        """Returns the encoder that the run started from; None if its weights were random, or are gone, which is
        said."""
        if self.recipe.encoder.init is None:
            return None
        initial = build_encoder(**self.recipe.encoder.architecture(), seed=self.recipe.seed)
        try:
            load_all_weights(initial.backbone, read_initial_weights(self.run), str(self.run.path))
        except ValueError as error:  # the training goes on without the comparison
            self.say(f"not compared with its initial encoder: {error}")
            return None
        return initial

    def compare_with_references(self) -> None:
        """Records, at the end of a run with labels, how much better its encoder is than what it is compared with."""
        if self.online is None:
            return
        with Stage("comparing the encoder with the raw pixels", slow_only=True):
            gains = self.online.compare(self._load_initial_encoder)
        if self.log is not None:
            self.log.record({"step": self.engine.steps_done, "epoch": self.recipe.epochs - 1, **gains})

    def check_collapse(self) -> None:
        """Says, and keeps in the metrics, if the encoder now maps all images to the same vector; on the first rank."""
        engine = self.engine
        if self.log is None or self.collapse_checked_at == engine.steps_done:
            return
        self.collapse_checked_at = engine.steps_done
        try:
            images = preview_images(self.source)
            with torch.compiler.set_stance("force_eager") if self.launch.compile else nullcontext():
                preprocessing, encoder = self.recipe.preprocessing, engine.method.eval_encoder
                sentence = describe_collapse(encoder, images, preprocessing, device=self.device)
        except (ValueError, OSError):  # the first images of a stream cannot be read again
            return
        if sentence is not None:
            self.say(sentence)
        if sentence == COLLAPSED:
            epoch = (engine.steps_done - 1) // engine.steps_per_epoch
            self.log.record({"step": engine.steps_done, "epoch": epoch, "collapsed": 1})

    def skip_or_capture(self, error: FloatingPointError, microbatches: list[Batch]) -> None:
        """Skips a failed step if that many may be skipped; otherwise keeps all that shows its cause, and stops.

        Raises:
            FloatingPointError: if no more steps may be skipped.
        """
        engine, allowed = self.engine, self.launch.skip_nonfinite
        if self.log is not None and isinstance(error, NonFiniteError):
            place = {"step": engine.steps_done + 1, "epoch": engine.steps_done // engine.steps_per_epoch}
            self.log.record({**place, "loss": error.loss, "gradient_norm": error.gradient_norm})
        if self.skipped < allowed:
            self.skipped += 1
            self.say(f"{error}: skipped, {self.skipped} of at most {allowed}")
            engine.skip()
            return
        try:
            folder = capture(self.run, engine, microbatches, str(error), self.images)
        except OSError as failure:
            raise FloatingPointError(f"{error}; what led to it could not be kept: {failure}") from error
        command = shlex.join(["infomax", "replay", str(folder)])
        raise FloatingPointError(
            f"{error}. What led to it is in {folder}, and {command} shows where it arises. A smaller --learning-rate "
            "is the usual cure"
        ) from error

    def note_unreadable(self, batch: Batch) -> None:
        """Names each image that another one stood in for, once.

        Raises:
            ValueError: if more images than allowed cannot be read.
        """
        for index in batch.unreadable.keys() - self.unreadable:
            self.unreadable.add(index)
            self.say(f"skipped: {batch.unreadable[index]}", from_every_rank=True)
            if (name := self.images.name(index)) not in self.named:
                with suppress(OSError):  # a full disk
                    self.run.append_row("unreadable.jsonl", {"image": name, "reason": str(batch.unreadable[index])})
        share, count = self.launch.skip_unreadable, len(self.images)
        if len(self.unreadable) > most_unreadable(share, count):
            allowed = f"by default {UNREADABLE_DEFAULT}" if share is None else f"{share:g}"
            enough = min(0.99, math.ceil(200 * len(self.unreadable) / count) / 100)  # others may follow
            raise ValueError(
                f"{len(self.unreadable)} of {count} images cannot be read so far, and --skip-unreadable, {allowed}, is "
                f"the share that may be left out; {self.run.path}/unreadable.jsonl names them, and {resume_words()} "
                f"--skip-unreadable {enough:g} goes on without them. The last: "
                f"{next(reversed(batch.unreadable.values()), 'see there')}"
            )

    def save(self, *, may_fail: bool = False, rescuing: bool = False) -> None:
        """Writes a checkpoint and the encoder. The first rank writes for all, which hold the same.

        Args:
            may_fail: Whether a disk error is said and survived. Otherwise the checkpoint is written to a temporary
                folder.
            rescuing: Whether another rank than the first may write.

        Raises:
            OSError: if the run folder cannot be written, unless ``may_fail``; it names the temporary folder.
        """
        engine = self.engine
        if rank() > 0 and not rescuing:
            self.saved_step = engine.steps_done
            return
        probe = self.online.state() if self.online is not None else {}
        seconds = time.perf_counter() - self.began
        state = {**engine.state(), **probe, "seconds": seconds, "skipped": self.skipped}
        folder = self.run.path / "checkpoints"
        try:
            check_folder(self.run.path, self.config)
            checkpoints.save(folder, state)
            self.save_encoder()
            self.saved_step = engine.steps_done
        except OSError as error:
            if not may_fail or isinstance(error, FolderGoneError):
                self._save_elsewhere(state, error)
            self.say(f"cannot save, and trains on: {error}")
        self._begin_interval()

    def _begin_interval(self) -> None:
        """Starts to measure the speed anew, as after saving."""
        if self.log is not None:
            self.log.begin_interval()
        if self.reporter is not None:
            self.reporter.begin_interval()

    def _save_elsewhere(self, state: dict[str, Any], error: OSError) -> NoReturn:
        """Saves a state that cannot be saved in the run folder in the temporary one, and raises an error that says so.

        Args:
            state: The state.
            error: Says why the run folder cannot be written.
        """
        try:
            self.rescue_copy = save_elsewhere(self.run.path, self.config, state)
        except OSError as another:
            raise OSError(f"{error}; nor could step {state['step']} be saved elsewhere: {another}") from error
        self.saved_step = self.engine.steps_done
        place = self.run.path / "checkpoints"
        raise type(error)(f"{error}; moved to {place}, {self.rescue_copy} lets --resume go on") from error

    def save_encoder(self, folder: Path | None = None) -> None:
        """Writes the files that ``infomax.load`` reads.

        Args:
            folder: Where to; None takes the run folder.
        """
        encoder, steps = self.engine.method.eval_encoder, self.engine.steps_done
        folder = self.run.path if folder is None else folder
        save_encoder(encoder, asdict(encoder.settings), self.recipe.preprocessing, folder, steps=steps)

    def keep_encoder(self, *, again: bool = True) -> None:
        """Keeps the encoder in a folder of its own after an epoch that the user named. The first rank writes it.

        Args:
            again: Whether to replace one that is there, as that of a run that has gone back to an earlier checkpoint.

        Raises:
            OSError: if it cannot be written. The run is then saved at this step, and keeps it when it goes on.
        """
        epoch, rest = divmod(self.engine.steps_done, self.engine.steps_per_epoch)
        if rank() > 0 or rest or epoch not in self.epochs_to_keep or (not again and epoch in self.run.kept_epochs):
            return
        try:
            check_folder(self.run.path, self.config)
            with new_folder(self.run.kept_encoder(epoch)) as folder:
                self.save_encoder(folder)
        except OSError as error:
            self.save()
            raise type(error)(
                f"the encoder of epoch {epoch} cannot be kept: {error}; step {self.saved_step} is saved, and "
                f"{resume_words()} keeps it and goes on"
            ) from error
        self._begin_interval()

    def rescue(self) -> None:
        """Saves after a failure of the machine, on the first rank that is left, if all weights belong to one step."""
        if not self.engine.weights_consistent:
            return
        time.sleep(min(rank(), 10))  # seconds; the ranks before this one have then saved, if they live
        elsewhere = checkpoints.list_checkpoints(rescue_folder(self.run.path, self.config) / "checkpoints")
        if self.rescue_copy is not None or self.engine.steps_done in map(checkpoints.step_of, elsewhere):
            return  # a save has just failed, here or on another rank, and has left a copy elsewhere
        newest = next(iter(checkpoints.list_checkpoints(self.run.path / "checkpoints")), None)
        if self.engine.steps_done > (checkpoints.step_of(newest) if newest is not None else 0):
            try:
                self.save(rescuing=True)
            except FolderGoneError:
                pass  # which is said at the end
            except OSError as error:
                self.say(f"cannot save: {error}", from_every_rank=True)

    def say(self, line: str, *, from_every_rank: bool = False) -> None:
        """Prints a line for the user, on the first rank or on every rank."""
        if self.log is not None:
            self.log.say(line)
        elif from_every_rank:
            note(f"rank {rank()}: {line}")
