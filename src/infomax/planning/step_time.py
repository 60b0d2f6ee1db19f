"""How long a step of a recipe takes on this machine, by some seconds of steps of the engine itself."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from math import log

import numpy as np
import torch
from torch import Tensor

from infomax.data.images import ArrayImages
from infomax.data.loading.training import BatchPrefetcher, training_batches
from infomax.data.loading.workers import Batch
from infomax.data.splits import Source
from infomax.nn.blocks import l2_normalize
from infomax.planning.step_cost import Cost
from infomax.recipes.schema import Recipe
from infomax.runtime.determinism import deterministic_mode
from infomax.training.engine import Engine
from infomax.training.loop import train_step
from infomax.training.online_evaluation import online_evaluation

SECONDS = 5.0  # that steps are measured for, after a first one; and again that images are read for
LONGEST = 3.0  # seconds of a step that is measured as it is; a longer one is put together from smaller ones
FEWEST = 8  # images of the first step


@dataclass(frozen=True)
class Timing:
    """Seconds of what a run consists of, on one device."""

    step: float
    """Of a step, with its views."""
    reading: float
    """Of reading and decoding the images of a step, where they are files."""
    scoring: float
    """Of all the times that the representation is scored during the run."""
    images: int
    """Of the steps that were measured; if fewer than a step's, theirs was scaled by FLOPs, the loss's apart."""
    steps: int
    """That were measured."""
    device: str

    @property
    def each(self) -> float:
        """Seconds from step to step: on a CPU, workers and networks share the cores; a GPU works while they read."""
        return self.step + self.reading if self.device == "cpu" else max(self.step, self.reading)


def time_steps(
    recipe: Recipe, cost: Cost, *, device: torch.device, source: Source | None = None, workers: int | None = None
) -> Timing:
    """Measure steps of a recipe.

    Args:
        cost: Of one of them, on one rank, whose share of the images is taken.
        source: The images; without them others of the recipe's size are made up, and none are read from files.
        workers: Processes that decode image files.
    """
    own_numbers = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with own_numbers, deterministic_mode(False), warnings.catch_warnings(action="ignore"):
        return _Measured(recipe, cost, device, source, workers).timing()


class _Measured:
    def __init__(self, recipe: Recipe, cost: Cost, device: torch.device, source: Source | None, workers: int | None):
        self.recipe, self.cost, self.device, self.source, self.workers = recipe, cost, device, source, workers
        self.engine = Engine(recipe, steps_per_epoch=10**6, device=device)  # at its start throughout
        self.online = None
        if source is not None:
            width = self.engine.method.eval_encoder.width
            self.online = online_evaluation(source, recipe, width=width, device=device, workers=workers)

    def timing(self) -> Timing:
        images = self.cost.images
        rows = self.largest_step()
        steps, seconds = self.steps(rows)
        if rows < images:
            here, there = self.loss_seconds(rows, images)
            rest = self.seconds_of(self.change_weights)
            seconds = rest + max(seconds - rest - here, 0) * self.share(rows) + there
        reading = self.reading_seconds()  # of an image
        scoring = self.scored() * (seconds * self.cost.encode / self.cost.flops + reading)
        return Timing(seconds, reading * images, scoring, rows, steps, self.device.type)

    def part(self, rows: int) -> int:
        """Images that go through the networks at once, where a step has so many."""
        if self.cost.part == self.cost.images:
            return rows
        return min(self.cost.part, max(2, rows // 2))

    def share(self, rows: int) -> float:
        """How many times the FLOPs of so many images a step takes."""
        return self.cost.networks(self.cost.images, self.cost.part) / self.cost.networks(rows, self.part(rows))

    def largest_step(self) -> int:
        """Images of the largest step that is not too long: twice as many, as long as they take half of the time."""
        rows = min(FEWEST, self.cost.images)
        self.stepper(rows)()  # the first one allocates and compiles
        while rows < self.cost.images and self.seconds_of(self.stepper(rows)) < LONGEST / 2:
            rows = min(2 * rows, self.cost.images)
            rows = rows // self.part(rows) * self.part(rows)
        return rows

    def steps(self, rows: int) -> tuple[int, float]:
        """How many steps of so many images were made, and their mean seconds."""
        step = self.stepper(rows)
        step()
        made, seconds = 0, 0.0
        while made < 3 or seconds < SECONDS:
            seconds += self.seconds_of(step)
            made += 1
        return made, seconds / made

    def stepper(self, rows: int) -> Callable[[], None]:
        """A function that makes a step of so many images, which are there already."""
        part = self.part(rows)
        parts = self.parts(rows, part)
        make = self.engine.make_views if self.recipe.micro_batch_size is None else None
        batches = BatchPrefetcher(cycle(parts), self.device, make)

        def step() -> None:
            try:
                train_step(self.engine, list(islice(batches, len(parts))), prefetcher=batches, online=self.online)
            except FloatingPointError:  # the images may be made up, and the steps are too few for a warm-up
                self.engine.skip()

        return step

    def parts(self, rows: int, part: int) -> list[Batch]:
        views = self.recipe.views
        images = None if self.source is None else self.source.pretraining
        if isinstance(images, ArrayImages):
            read = training_batches(
                images, views, batch_size=rows, seed=0, steps=range(1), micro_batch_size=part, device=self.device
            )
            return list(read)
        made = [
            torch.randint(256, (rows, v.size, v.size, 3), dtype=torch.uint8)
            for v in (*views.global_crops, *views.local_crops)
        ]
        made = [x.to(self.device) for x in made]
        each = zip(*(x.split(part) for x in made), np.arange(rows).reshape(-1, part), strict=True)
        return [Batch(list(crops), 0, index, {}) for *crops, index in each]

    def seconds_of(self, function: Callable[[], object]) -> float:
        start = self.now()
        function()
        return self.now() - start

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def change_weights(self) -> None:
        """What a step does whatever its number of images."""
        self.engine.optimizer.step()
        self.engine.method.after_step(self.engine.progress(0))

    def loss_seconds(self, few: int, many: int) -> tuple[float, float]:
        """Of the loss of few images and of many, with its gradient; from where it takes seconds, by its growth."""
        self.loss(few)
        seconds = first = self.seconds_of(lambda: self.loss(few))
        rows, power = few, 1.0
        while rows < many and seconds < LONGEST:
            more = min(2 * rows, many)
            longer = self.seconds_of(lambda more=more: self.loss(more))
            power = min(max(log(longer / seconds) / log(more / rows), 0), 3)
            rows, seconds = more, longer
        return first, seconds * (many / rows) ** power

    def loss(self, rows: int) -> None:
        def outputs(shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
            return [l2_normalize(torch.randn(rows, *shape, device=self.device)) for shape in shapes]

        online, target = map(outputs, self.cost.outputs)
        leaves = [x.requires_grad_() for x in online]
        self.engine.method.loss(leaves, target, self.engine.progress(0)).total.backward()

    def reading_seconds(self) -> float:
        """Of an image, where images are files: as long as it takes while nothing else is done."""
        images = None if self.source is None else self.source.pretraining
        if images is None or isinstance(images, ArrayImages):
            return 0.0
        size = min(32, len(images))
        read = training_batches(
            images, self.recipe.views, batch_size=size, seed=0, steps=range(10**9), workers=self.workers
        )
        for _ in range(2):  # until the workers have started
            next(read)
        start, count = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < SECONDS:
            next(read)
            count += size
        return seconds / count

    def scored(self) -> int:
        """Images that the representation is scored on during the run, each as often as it is."""
        if self.online is None:
            return 0
        times = -(-self.recipe.epochs // self.online.epochs_between)
        few, last = len(self.online.queries.index), len(self.online.test.index)
        return times * (len(self.online.bank.index) + few) + (last - few if self.online.probe is not None else 0)
