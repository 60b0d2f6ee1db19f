"""The loop: data in, steps, measurements and checkpoints, on each rank of a run."""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import torch

from infomax.data.images import Images
from infomax.data.loading.training import BatchPrefetcher, training_batches
from infomax.data.loading.workers import Batch
from infomax.data.splits import Source
from infomax.data.streams import Stream
from infomax.models.encoders import save_encoder
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.runtime.collectives import all_ranks_max, broadcast_from_rank0, rank, world_size
from infomax.runtime.determinism import deterministic_mode, quiet_compiler_warnings
from infomax.runtime.failures import MachineError, describe_machine_failure
from infomax.runtime.ranks import device_of
from infomax.runtime.signals import Interruption
from infomax.training.engine import Engine, Step
from infomax.training.metrics_log import Reporter
from infomax.training.online_evaluation import OnlineEvaluation, online_evaluation
from infomax.training.options import LaunchOptions
from infomax.training.replay import capture

SAVE_SHARE, SAVE_EVERY = 0.01, 10.0  # of the time at most, and seconds at least between two


def train(run: Run, launch: LaunchOptions, local_rank: int = 0, source: Source | None = None) -> None:
    """Train a run to its end, from its last checkpoint if it has one; on every rank.

    Args:
        source: The run's data, where they are open already.
    """
    device = device_of(launch.device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Random layers are seeded step by step; the user's own numbers stay as they were.
    own_numbers = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with (
        own_numbers,
        quiet_compiler_warnings(launch.compile),
        deterministic_mode(launch.deterministic),
        Interruption() as interruption,
    ):
        TrainingLoop(run, launch, device, source or _open_alike(run, device)).run_to_end(interruption)


def _open_alike(run: Run, device: torch.device) -> Source:
    """The run's data, on each rank of several.

    Raises:
        ValueError: on all ranks, if one has not the images that the run was started with.
    """
    source, failure = None, ""
    try:
        source = run.location.open()
        if source.pretraining.fingerprint() != run.config["fingerprint"]:
            failure = f"the images of {source.name} are not those of the run on rank {rank()}"
    except (ValueError, OSError) as error:
        failure = str(error)
    if all_ranks_max(int(bool(failure)), device) or source is None:
        raise ValueError(failure or "another rank has not the images of the run; its own message says more")
    return source


def train_step(
    engine: Engine,
    microbatches: Sequence[Batch],
    *,
    prefetcher: BatchPrefetcher | None = None,
    online: OnlineEvaluation | None = None,
) -> Step:
    """Trains on one global batch, prepares the next one meanwhile, and lets the online probe learn from it.

    Args:
        engine: The engine, whose weights change at the end.
        microbatches: This rank's share of the global batch.
        prefetcher: Where the batches come from, if it is to prefetch.
        online: The online evaluation, if there is any.

    Raises:
        FloatingPointError: if the loss or the gradient is infinite or NaN. The step is then undone; the probe has not
            learned from it.
    """
    probe = None if online is None else online.probe
    with engine.step(microbatches, keep_features=probe is not None) as step:
        if prefetcher is not None:
            prefetcher.prefetch()  # the host works while the device computes this step
        step.check_finite()
        if probe is not None:  # before the weights change: if learning fails, both are one step behind
            probe.learn(microbatches, step.features, step.progress)
    return step


class TrainingLoop:
    """Trains one run on one rank, from its last checkpoint to its end.

    It owns the engine, the prefetcher, the online evaluation and, on the first rank, the metrics log.

    Args:
        run: The run folder.
        launch: What a user decides about the machine.
        device: The device that this rank computes on.
        source: The run's data.
    """

    def __init__(self, run: Run, launch: LaunchOptions, device: torch.device, source: Source):
        self.run, self.launch, self.device = run, launch, device
        self.recipe = recipe = run.recipe
        self.images: Images | Stream = source.pretraining
        steps = len(self.images) // recipe.batch_size
        self.engine = Engine(recipe, steps_per_epoch=steps, device=device, compiled=launch.compile)
        newest = broadcast_from_rank0(lambda: checkpoints.newest_readable(run.path / "checkpoints"))
        width = self.engine.method.eval_encoder.width
        self.online = online_evaluation(source, recipe, width=width, device=device, workers=launch.workers)
        seconds, self.skipped, anew = 0.0, 0, False
        if newest is not None:
            state = checkpoints.load(newest)
            self.engine.load(state)
            seconds, self.skipped = state["seconds"], state["skipped"]
            anew = self.online is not None and not self.online.load(state)
        self.prefetcher = self._prefetcher()
        self.saved_at = time.perf_counter()
        self.began = self.saved_at - seconds  # as if it had not been interrupted
        self.saved_step, self.save_cost = self.engine.steps_done, 0.0
        self.unreadable: set[int] = set()
        self.named = {row["image"] for row in run.read_rows("unreadable.jsonl")}  # before it was resumed
        self.reporter = None
        if rank() == 0:
            step, total = self.engine.steps_done, self.engine.total_steps
            self.reporter = Reporter(
                run, recipe, step=step, total_steps=total, began=self.began, quiet=launch.quiet or step == total
            )
            if newest is not None and not launch.quiet:
                where = f"step {step} of {total}, epoch {step / self.engine.steps_per_epoch:.2f} of {recipe.epochs}"
                self.say(f"{run.path} is finished" if step == total else f"going on from {where}")
            if anew and step < total:
                self.say("linear_top1 starts anew: the checkpoint has no classifier of these classes")

    def run_to_end(self, interruption: Interruption) -> None:
        """Makes all steps that are left."""
        try:
            for microbatches in self.batches():
                self.train_or_skip(microbatches)
                if signal := all_ranks_max(interruption.signal, self.device):  # ranks end at the same step, and alike
                    self.save()
                    self.say(f"stopped at step {self.engine.steps_done}; --resume goes on from there")
                    interruption.end(signal)
                if time.perf_counter() - self.saved_at > max(SAVE_EVERY, self.save_cost / SAVE_SHARE):
                    self.save(may_fail=True)
                del microbatches  # or they would be kept until the next ones are there
            if self.engine.steps_done > self.saved_step:
                self.save()
            elif rank() == 0:  # a finished run, whose encoder may be of an earlier step
                self.save_encoder()
        except Exception as error:
            for _ in range(10):
                try:
                    self.rescue()
                    break
                except RuntimeError as another:  # the end of one more worker, which a signal tells at any time
                    self.say(str(another))
            cure = "lower --micro-batch-size (the gradient stays that of --batch-size), --image-size or --precision"
            told = describe_machine_failure(error, cure)
            if told is None:
                raise
            raise MachineError(f"{told}. Step {self.saved_step} is saved, and --resume goes on from there") from error
        finally:
            if self.reporter is not None:
                self.reporter.close()

    def _prefetcher(self) -> BatchPrefetcher:
        """Returns the microbatches of all steps that are left."""
        recipe, engine = self.recipe, self.engine
        batches = training_batches(
            self.images,
            recipe.views,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            steps=range(engine.steps_done, engine.total_steps),
            micro_batch_size=recipe.micro_batch_size,
            rank=rank(),
            world_size=world_size(),
            workers=self.launch.workers,
            device=self.device,
        )
        # The views of microbatches are made twice, when each is due: kept, they would take the memory that microbatches
        # are to spare.
        return BatchPrefetcher(batches, self.device, None if recipe.micro_batch_size else engine.make_views)

    def batches(self) -> Iterator[list[Batch]]:
        """Yields this rank's microbatches of each step that is left."""
        share, micro_batch_size = self.recipe.batch_size // world_size(), self.recipe.micro_batch_size
        count = share // micro_batch_size if micro_batch_size else 1
        for _ in range(self.engine.steps_done, self.engine.total_steps):
            microbatches = [next(self.prefetcher) for _ in range(count)]
            for batch in microbatches:
                self.note_unreadable(batch)
            yield microbatches
            del microbatches

    def train_or_skip(self, microbatches: list[Batch]) -> None:
        """Makes one step and reports it; a step with an infinite or NaN loss is skipped, if that is allowed."""
        waited = self.prefetcher.pop_wait_seconds()
        try:
            step = train_step(self.engine, microbatches, prefetcher=self.prefetcher, online=self.online)
        except FloatingPointError as error:
            self.skip_or_capture(error, microbatches)
        else:
            self.report(step, waited)

    def report(self, step: Step, waited: float) -> None:
        """Reports a step, and scores the encoder if the step ends an epoch that is due for it."""
        engine = self.engine
        ends_epoch = engine.steps_done % engine.steps_per_epoch == 0
        epoch = step.progress.epoch
        if self.reporter is not None:
            rate = engine.optimizer.param_groups[0]["lr"]
            self.reporter.step_done(step, rate, waited=waited, due=ends_epoch)
        if ends_epoch and self.online is not None and self.online.is_due(epoch + 1):
            # Nothing is compiled for batches of other sizes, nor is what compiles imported in vain.
            with torch.compiler.set_stance("force_eager") if self.launch.compile else nullcontext():
                accuracies = self.online.score(engine.method.eval_encoder, epoch + 1)
            if self.reporter is not None:
                self.reporter.record({"step": engine.steps_done, "epoch": epoch, **accuracies})
                self.reporter.begin_interval()

    def skip_or_capture(self, error: FloatingPointError, microbatches: list[Batch]) -> None:
        """Leave a failed step out, if that many may be; otherwise keep all that it takes to see why, and stop."""
        engine, allowed = self.engine, self.launch.skip_nonfinite
        if self.skipped < allowed:
            self.skipped += 1
            self.say(f"{error}: skipped, {self.skipped} of at most {allowed}")
            engine.skip()
            return
        try:
            folder = capture(self.run, engine, microbatches, str(error), self.images)
        except OSError as failure:
            raise FloatingPointError(f"{error}; what led to it could not be kept: {failure}") from error
        raise FloatingPointError(
            f"{error}. What led to it is in {folder}, and infomax replay {folder} shows where it arises. A smaller "
            "--learning-rate is the usual cure"
        ) from error

    def note_unreadable(self, part: Batch) -> None:
        """Name each image that another one stood in for, once; too many of them stop the run."""
        for index in part.unreadable.keys() - self.unreadable:
            self.unreadable.add(index)
            self.say(f"skipped: {part.unreadable[index]}", from_each=True)
            if (name := self.images.name(index)) not in self.named:
                with suppress(OSError):  # a full disk
                    self.run.append_row("unreadable.jsonl", {"image": name, "reason": part.unreadable[index]})
        share = self.launch.skip_unreadable
        if self.unreadable and len(self.unreadable) > share * len(self.images):
            raise ValueError(
                f"{len(self.unreadable)} of {len(self.images)} images cannot be read so far, and --skip-unreadable "
                f"{share:g} is the share that may be left out; {self.run.path}/unreadable.jsonl names them. The last: "
                f"{next(reversed(part.unreadable.values()), 'see there')}"
            )

    def save(self, *, may_fail: bool = False, rescuing: bool = False) -> None:
        """A checkpoint and the encoder; on the first rank, for all ranks hold the same."""
        start, engine = time.perf_counter(), self.engine
        if rank() > 0 and not rescuing:
            self.saved_step, self.saved_at = engine.steps_done, start
            return
        probe = self.online.state() if self.online is not None else {}
        state = {**engine.state(), **probe, "seconds": start - self.began, "skipped": self.skipped}
        folder = self.run.path / "checkpoints"
        try:
            checkpoints.save(folder, state)
            self.save_encoder()
            self.saved_step = engine.steps_done
        except OSError as error:
            if not may_fail:
                elsewhere = checkpoints.save(Path(tempfile.mkdtemp(prefix="infomax-")), state)
                self.saved_step = engine.steps_done
                raise OSError(f"{error}; moved to {folder}, {elsewhere} lets --resume go on") from error
            self.say(f"cannot save, and trains on: {error}")
        self.saved_at = time.perf_counter()
        self.save_cost = self.saved_at - start
        if self.reporter is not None:
            self.reporter.begin_interval()

    def save_encoder(self) -> None:
        """What ``infomax.load`` reads."""
        settings = {**asdict(self.recipe.encoder), "seed": self.recipe.seed}
        encoder = self.engine.method.eval_encoder
        save_encoder(encoder, settings, self.recipe.preprocessing, self.run.path, steps=self.engine.steps_done)

    def rescue(self) -> None:
        """After a failure of the machine: keep what was computed, if it is whole, on the first rank that is left."""
        if not self.engine.weights_consistent:
            return
        time.sleep(min(rank(), 10))  # seconds; the ranks before have then saved, if they live
        newest = next(iter(checkpoints.list_checkpoints(self.run.path / "checkpoints")), None)
        if self.engine.steps_done > (checkpoints.step_of(newest) if newest is not None else 0):
            try:
                self.save(rescuing=True)
            except OSError as error:
                self.say(f"cannot save: {error}", from_each=True)

    def say(self, line: str, *, from_each: bool = False) -> None:
        """To the user, from the first rank or from each."""
        if self.reporter is not None:
            self.reporter.say(line)
        elif from_each:
            print(f"infomax: rank {rank()}: {line}", file=sys.stderr)
