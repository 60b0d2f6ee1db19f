"""Measures how long a step of a recipe takes on this machine, by some seconds of real training steps."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from math import log

import numpy as np
import torch
from torch import Tensor

from infomax.data.images.arrays import ArrayImages
from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.data.loading.keep_decoded import memory_to_keep
from infomax.data.loading.training import BatchPrefetcher, training_batches
from infomax.data.loading.workers import Batch
from infomax.data.pixel_format import BYTE_MAX, DEEP_MAX, PixelFormat
from infomax.data.splits import Source
from infomax.nn.blocks import l2_normalize
from infomax.planning.step_cost import Output, StepCost, count_step_cost
from infomax.recipes.schema import Recipe
from infomax.runtime.determinism import deterministic_mode
from infomax.runtime.devices import float64_device, random_state_kept, time_when_done
from infomax.training.engine import Engine
from infomax.training.loop import train_step
from infomax.training.online_evaluation import online_evaluation

MEASURED_SECONDS = 3.0  # time for which steps are repeated after a first one, and time for which images are read
LONGEST_STEP = 2.0  # seconds; the time of a longer step is extrapolated from a smaller one
LONGEST_LOSS = 0.5  # seconds; likewise for the loss alone
FIRST_STEP_IMAGES = 2  # so that also a ResNet-50 at 224 pixels makes its first step within two seconds
MIN_STEPS = 2
READING_BATCH = 32  # images
KEPT_BATCHES = range(2, 17)  # batches of the images that are kept to measure later epochs, at least and at most


@dataclass(frozen=True)
class Timing:
    """A frozen dataclass that holds the measured times of a run on one device, in seconds."""

    step_seconds: float
    """Time of a step, with making its views."""
    reading_seconds: float
    """Time to read and decode the images of a step in the first epoch; 0 if they are not files."""
    later_reading_seconds: float
    """The same in a later epoch, when decoded images are in memory, as far as there is room for them."""
    scoring_seconds: float
    """Time of all evaluations of the encoder during the run together."""
    images: int
    """Images of each measured step. If these are fewer than those of the recipe's step, the time of the networks was
    scaled by their FLOPs, and the loss was measured on its own."""
    steps: int
    """Number of measured steps."""
    device: str
    """``cpu``, ``cuda`` or ``mps``."""
    epochs: int
    """Epochs of the run."""

    @property
    def seconds_per_step(self) -> float:
        """Returns the mean time from one step of the run to the next, in seconds.

        On a CPU, workers and networks share the cores, so their times add up. An NVIDIA GPU works while workers read.
        Beside Apple's GPU nothing is read ahead.
        """
        together = max if self.device == "cuda" else sum
        first, later = (together((self.step_seconds, x)) for x in (self.reading_seconds, self.later_reading_seconds))
        return (first + (self.epochs - 1) * later) / self.epochs


def time_steps(
    recipe: Recipe,
    cost: StepCost,
    *,
    device: torch.device,
    source: Source | None = None,
    workers: int | None = None,
    images: int | None = None,
) -> Timing:
    """Measures steps of a recipe.

    Args:
        recipe: The recipe.
        cost: Cost of one of its steps for one rank; a step with that rank's share of the images is measured.
        device: Device to measure on.
        source: The images. None measures with random images of the recipe's size and without reading files.
        workers: Number of processes that decode image files.
        images: Number of training images, for a method that remembers them; None takes the source's, or one batch.
    """
    if images is None:
        images = recipe.batch_size if source is None else len(source.pretraining)
    with random_state_kept(device), deterministic_mode(False), warnings.catch_warnings(action="ignore"):
        return _StepTimer(recipe, cost, device, source, workers, images).timing()


def step_maker(
    recipe: Recipe, device: torch.device
) -> tuple[Callable[[], None], Callable[[Callable[[], object]], float]]:
    """Returns a function that makes one training step of a recipe, and one that times a call.

    The images are random and in memory; making their views on the device is a part of the step.

    Args:
        recipe: The recipe; all images of its batch pass at once.
        device: Device to compute on.
    """
    timer = _StepTimer(recipe, count_step_cost(recipe, device=device.type), device, None, None, recipe.batch_size)
    return timer.make_step(recipe.batch_size), timer.seconds_of


class _StepTimer:
    """Measures steps of an engine; :func:`time_steps` explains the arguments."""

    def __init__(
        self,
        recipe: Recipe,
        cost: StepCost,
        device: torch.device,
        source: Source | None,
        workers: int | None,
        images: int,
    ):
        self.recipe, self.cost, self.device, self.source, self.workers = recipe, cost, device, source, workers
        # There are so many steps that the first epoch does not end.
        self.engine = Engine(recipe, steps_per_epoch=10**6, device=device, images=images)
        self.online = None
        self.last_trial = 0, 0.0  # images and seconds of the last step that was tried
        if source is not None:
            width = self.engine.method.eval_encoder.width
            self.online = online_evaluation(source, recipe, width=width, device=device, workers=workers)

    def timing(self) -> Timing:
        """Measures all times of a run."""
        images = self.cost.images
        measured_images = self.choose_images()
        steps, step_seconds = self.time_mean_step(measured_images)
        if measured_images < images:
            measured_loss, full_loss = self.time_loss(measured_images, images)
            update = self.seconds_of(self.update_weights)
            networks = max(step_seconds - update - measured_loss, 0)
            step_seconds = update + networks * self.network_flops_ratio(measured_images) + full_loss
        reading, later_reading = self.time_reading()
        encoding_per_image = step_seconds * self.cost.encoder_flops / self.cost.flops
        evaluations, scored, last = self.count_scored_images()
        scoring = (evaluations * scored + last) * encoding_per_image + (scored + last) * reading
        if evaluations > 1:  # the images are kept if there is room
            scoring += (evaluations - 1) * scored * (0.0 if later_reading < reading else reading)
        return Timing(
            step_seconds,
            reading * images,
            later_reading * images,
            scoring,
            measured_images,
            steps,
            self.device.type,
            self.recipe.epochs,
        )

    def micro_batch_size(self, images: int) -> int:
        """Returns the micro-batch size that a step of ``images`` images is measured with."""
        if self.cost.micro_batch_size == self.cost.images:
            return images
        return min(self.cost.micro_batch_size, max(2, images // 2))

    def network_flops_ratio(self, images: int) -> float:
        """Returns the network FLOPs of the recipe's step divided by those of a step of ``images`` images."""
        full = self.cost.network_flops(self.cost.images, self.cost.micro_batch_size)
        return full / self.cost.network_flops(images, self.micro_batch_size(images))

    def choose_images(self) -> int:
        """Returns the number of images of the steps to measure.

        It starts with few images and doubles them while a step takes less than half of ``LONGEST_STEP``.
        """
        images = min(FIRST_STEP_IMAGES, self.cost.images)
        self.make_step(images)()  # the first step allocates memory and compiles kernels
        while images < self.cost.images:
            self.last_trial = images, self.seconds_of(self.make_step(images))
            if self.last_trial[1] >= LONGEST_STEP / 2:
                break
            images = min(2 * images, self.cost.images)
            images = images // self.micro_batch_size(images) * self.micro_batch_size(images)
        return images

    def time_mean_step(self, images: int) -> tuple[int, float]:
        """Returns the number of steps that were measured, and their mean time in seconds."""
        step = self.make_step(images)
        steps, seconds = 0, 0.0
        if images == self.cost.images:  # its first call makes the next views too; of a long step these are little
            step()
        elif self.last_trial[0] == images:
            steps, seconds = 1, self.last_trial[1]
        while steps < MIN_STEPS or seconds < MEASURED_SECONDS:
            seconds += self.seconds_of(step)
            steps += 1
        return steps, seconds / steps

    def make_step(self, images: int) -> Callable[[], None]:
        """Returns a function that trains one step of ``images`` images, which are in memory already."""
        microbatches = self.microbatches(images, self.micro_batch_size(images))
        make_views = self.engine.make_views if self.recipe.micro_batch_size is None else None
        batches = BatchPrefetcher(cycle(microbatches), self.device, make_views)

        def step() -> None:
            batch = list(islice(batches, len(microbatches)))
            try:
                train_step(self.engine, batch, prefetcher=batches, online=self.online)
            except FloatingPointError:  # expected with random images, or because there is no warm-up
                self.engine.skip()

        return step

    def microbatches(self, images: int, micro_batch_size: int) -> list[Batch]:
        """Returns the microbatches of one step: the source's images if they are arrays, else random ones."""
        views = self.recipe.views
        arrays = None if self.source is None else self.source.pretraining
        if isinstance(arrays, ArrayImages):
            batches = training_batches(
                arrays,
                views,
                batch_size=images,
                seed=0,
                steps=range(1),
                micro_batch_size=micro_batch_size,
                device=self.device,
                pixel_format=self.recipe.preprocessing.pixel_format,
            )
            return list(batches)
        pixels = self.recipe.preprocessing.pixel_format
        crops = [
            _random_pixels((images, view.size, view.size, pixels.channels), pixels)
            for view in (*views.global_crops, *views.local_crops)
        ]
        split_crops = [x.to(float64_device(self.device)).split(micro_batch_size) for x in crops]
        index = np.arange(images).reshape(-1, micro_batch_size)
        return [Batch(list(crops), 0, rows, {}) for *crops, rows in zip(*split_crops, index, strict=True)]

    def seconds_of(self, function: Callable[[], object]) -> float:
        """Returns the seconds that a call takes, with all work that it starts on a GPU."""
        start = self.now()
        function()
        return self.now() - start

    def now(self) -> float:
        """Returns the time in seconds, after all work on the device."""
        return time_when_done(self.device)

    def update_weights(self) -> None:
        """Does the part of a step whose time does not depend on the number of images."""
        self.engine.optimizer.step()
        self.engine.method.after_step(self.engine.progress(0))

    def time_loss(self, few: int, many: int) -> tuple[float, float]:
        """Returns the seconds of the loss and its gradient for few images and for many.

        If the loss of fewer than ``many`` images takes as long as ``LONGEST_LOSS``, the time for ``many`` is
        extrapolated by a power law, whose exponent is that of the last doubling.
        """
        self.run_loss(few)
        seconds = first = self.seconds_of(lambda: self.run_loss(few))
        images, exponent = few, 1.0
        while images < many and seconds < LONGEST_LOSS:
            more_images = min(2 * images, many)
            more_seconds = self.seconds_of(lambda more_images=more_images: self.run_loss(more_images))
            exponent = min(max(log(more_seconds / seconds) / log(more_images / images), 0), 3)
            images, seconds = more_images, more_seconds
        return first, seconds * (many / images) ** exponent

    def run_loss(self, images: int) -> None:
        """Computes the loss and its gradient for random outputs of ``images`` images."""

        def random_output(output: Output) -> Tensor:
            if output.is_integer:
                return torch.zeros(images, *output.shape, dtype=torch.int64, device=self.engine.loss_device)
            return l2_normalize(torch.randn(images, *output.shape, device=self.engine.loss_device))

        online, target = ([random_output(output) for output in branch] for branch in self.cost.outputs)
        leaves = [x.requires_grad_() for x in online]
        self.engine.method.loss(leaves, target, self.engine.progress(0)).total.backward()

    def time_reading(self) -> tuple[float, float]:
        """Returns the seconds per image that reading and cropping take while nothing else runs; 0 without files.

        The first number is that of the first epoch. The second one is that of later epochs, for which a run keeps
        decoded images. It is measured on some of the images, for which there is as much less room as they are fewer.
        """
        images = None if self.source is None else self.source.pretraining
        if images is None or isinstance(images, ArrayImages):
            return 0.0, 0.0
        batch_size = min(READING_BATCH, len(images))
        batches = training_batches(
            images,
            self.recipe.views,
            batch_size=batch_size,
            seed=0,
            steps=range(10**9),
            workers=self.workers,
            pixel_format=self.recipe.preprocessing.pixel_format,
        )
        for _ in range(2):  # until the workers have started
            next(batches)
        first, count = _repeat_for(MEASURED_SECONDS, batches)
        first /= batch_size
        room = memory_to_keep("auto", 1)
        if self.recipe.epochs == 1 or not room or not isinstance(images, Images):
            return first, first
        number = min(max(count // 2, KEPT_BATCHES[0]), KEPT_BATCHES[-1]) * batch_size
        index = np.linspace(0, len(images) - 1, min(number, len(images))).astype(np.int64)
        batches = training_batches(
            select_images(images, index, None, []),
            self.recipe.views,
            batch_size=batch_size,
            seed=0,
            steps=range(10**9),
            workers=self.workers,
            keep_bytes=room * len(index) // len(images),
            pixel_format=self.recipe.preprocessing.pixel_format,
        )
        for _ in range(2 * (len(index) // batch_size)):  # a JPEG is kept at each size that its crops have asked for
            next(batches)
        later, _ = _repeat_for(MEASURED_SECONDS / 3, batches)
        return first, min(first, later / batch_size)

    def count_scored_images(self) -> tuple[int, int, int]:
        """Returns the number of evaluations during the run, the images of each, and those that the last one has more.

        The last one scores all test images.
        """
        if self.online is None:
            return 0, 0, 0
        evaluations = -(-self.recipe.epochs // self.online.epochs_between)
        queries, test_images = len(self.online.queries.index), len(self.online.test.index)
        last = test_images - queries if self.online.probe is not None else 0
        return evaluations, len(self.online.bank.index) + queries, last


def _random_pixels(shape: tuple[int, ...], pixel_format: PixelFormat) -> Tensor:
    """Returns random pixels of a shape, of 8 or 16 bits as the format says."""
    dtype, largest = (np.uint16, DEEP_MAX) if pixel_format.is_deep else (np.uint8, BYTE_MAX)
    return torch.from_numpy(np.random.default_rng(0).integers(0, largest, shape, dtype, endpoint=True))


def _repeat_for(seconds: float, batches: Iterator[Batch]) -> tuple[float, int]:
    """Returns the mean time of a batch, in seconds, of those that are taken for some seconds, and their number."""
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or not count:
        next(batches)
        count += 1
    return elapsed / count, count
