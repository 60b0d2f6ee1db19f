"""Times training steps by stage, and their memory: infomax, a bare loop, and lightly's loop of the nearest method.

lightly's loops are put together here, from its public parts, as its examples do: a DataLoader with its transform, its
heads, its loss, its moving average. All train the same encoder, with heads of the same widths and the recipe's
optimiser, on the same images in batches of the same size.
"""

import copy
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from engine import bare
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from turns import DEVICE, WARM_UP, Row, clock, rates, row, seconds_of

from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.models.encoders import build_encoder
from infomax.nn.optimizers import Lars, parameter_groups
from infomax.recipes.building import AUTOCAST, build_method
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.recipes.schema import Recipe
from infomax.training.engine import Engine
from infomax.training.loop import train_step

STAGES = ("wait", "views", "forward", "loss", "backward", "optimiser", "EMA", "rest")
KIN = {"mira": "SwAV", "corinfomax": "VICReg", "carl": "SwAV", "mveb": "BYOL"}
PIXELS = np.random.default_rng(0).integers(0, 256, (2560, 32, 32, 3), np.uint8)


class Watch:
    """A stopwatch that adds up the seconds between marks, by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.last = clock()

    def mark(self, stage: str) -> None:
        now = clock()
        self.seconds[stage] += now - self.last
        self.last = now

    def taken(self) -> dict[str, float]:
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds

    def around(self, owner: Any, name: str, before: str, after: str) -> None:
        """Counts a function of ``owner`` as the stage ``after``, and the time until it is called as ``before``."""
        function = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.mark(before)
            result = function(*args, **kwargs)
            self.mark(after)
            return result

        setattr(owner, name, wrapper)

    def loss(self, function: Callable[[], Any], outputs: list[Tensor]) -> Any:
        """Counts the loss until its gradient reaches the outputs of the networks."""
        waiting = [True]

        def reached(gradient: Tensor) -> None:
            if waiting:
                waiting.pop()
                self.mark("loss")

        for x in outputs:
            x.register_hook(reached)
        result = function()
        self.mark("loss")
        return result


def recipe_of(method: str, batch: int | None = None) -> Recipe:
    return customise(get_recipe(method, "small" if DEVICE.type == "cpu" else "cifar10"), batch_size=batch)


def ours(recipe: Recipe, watch: Watch | None = None) -> Iterator[None]:
    """Yields after each step of the engine, with its loader."""
    engine = Engine(recipe, steps_per_epoch=len(PIXELS) // recipe.batch_size, device=DEVICE)
    options = {"batch_size": recipe.batch_size, "seed": 0, "steps": range(10**6), "device": DEVICE}
    batches = training_batches(ArrayImages(PIXELS, None, []), recipe.views, **options)
    if watch:
        loss: Any = engine.compute_loss
        engine.compute_loss = lambda online, *rest: watch.loss(lambda: loss(online, *rest), online)
        watch.around(engine, "views", "rest", "views")
        watch.around(engine.method, "target", "forward", "forward")
        watch.around(engine.method, "after_backward", "backward", "rest")
        watch.around(engine.optimizer, "step", "rest", "optimiser")
        watch.around(engine.method, "after_step", "rest", "EMA")
    while True:
        batch = next(batches)
        if watch:
            watch.mark("wait")
        train_step(engine, [batch])
        if watch:
            watch.mark("rest")
        yield


class Pictures(Dataset):
    """A data set of images that go through lightly's transform."""

    def __init__(self, transform: Callable[[Image.Image], list[Tensor]]):
        self.transform = transform

    def __len__(self) -> int:
        return 100 * len(PIXELS)  # one epoch for all steps

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(PIXELS[index % len(PIXELS)]))


class Kin(nn.Module):
    """A model of the method in lightly that is most similar to ours: its heads, transform and loss for two views."""

    def __init__(self, recipe: Recipe):
        from lightly import transforms as t
        from lightly.loss import NegativeCosineSimilarity, SwaVLoss, VICRegLoss
        from lightly.models.modules import heads

        super().__init__()
        method: Any = recipe.method
        encoder = build_encoder(**recipe.encoder.architecture(), seed=0)
        widths, self.name = (encoder.width, method.hidden, method.dimension), KIN[method.name]
        side = recipe.views.global_crops[0].size
        if self.name == "SwAV":
            projector = heads.SwaVProjectionHead(*widths)
            self.prototypes = heads.SwaVPrototypes(method.dimension, method.prototypes)
            self.transform = t.SwaVTransform(crop_sizes=(side, side), crop_counts=(2, 0))
            self.criterion = SwaVLoss()
        elif self.name == "VICReg":
            projector = heads.VICRegProjectionHead(*widths)
            self.transform, self.criterion = t.VICRegTransform(input_size=side), VICRegLoss()
        else:
            projector = heads.BYOLProjectionHead(*widths)
            self.predictor = heads.BYOLPredictionHead(method.dimension, method.hidden, method.dimension)
            first, second = t.BYOLView1Transform(input_size=side), t.BYOLView2Transform(input_size=side)
            self.transform, self.criterion = t.BYOLTransform(first, second), NegativeCosineSimilarity()
        self.online = nn.Sequential(encoder, projector)
        self.teacher = copy.deepcopy(self.online).requires_grad_(False) if self.name == "BYOL" else None

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        """Returns the inputs of the loss: two outputs of the online branch, then two of a teacher."""
        z = [self.online(view) for view in views]
        if self.name == "SwAV":
            return [self.prototypes(nn.functional.normalize(x)) for x in z]
        if self.teacher is None:
            return z
        with torch.no_grad():
            targets = [self.teacher(view) for view in views]
        return [*map(self.predictor, z), *targets]

    def loss(self, outputs: list[Tensor]) -> Tensor:
        if self.name == "SwAV":
            return self.criterion(outputs, [])
        if self.name == "VICReg":
            return self.criterion(*outputs)
        p0, p1, t0, t1 = outputs
        return (self.criterion(p0, t1) + self.criterion(p1, t0)) / 2


def lightly(recipe: Recipe, watch: Watch | None = None) -> Iterator[None]:
    """Yields after each step of lightly's example loop; views are made while it waits for the loader."""
    from lightly.models.utils import update_momentum

    watch = watch or Watch()
    torch.manual_seed(0)
    model = Kin(recipe).to(DEVICE)
    settings = recipe.optimizer
    groups = parameter_groups(model, settings.weight_decay, decay_all=settings.decay_all)
    kind = {"sgd": partial(torch.optim.SGD, momentum=settings.momentum), "lars": Lars}.get(
        settings.name, torch.optim.Adam
    )
    optimizer = kind(groups, lr=settings.learning_rate)
    workers = 0 if DEVICE.type == "cpu" else min(16, os.cpu_count() or 1)
    half = AUTOCAST.get(recipe.precision)
    pictures = Pictures(model.transform)
    watch.last = clock()
    for views in DataLoader(pictures, recipe.batch_size, shuffle=True, drop_last=True, num_workers=workers):
        on_device = [view.to(DEVICE) for view in views[:2]]
        watch.mark("wait")
        with torch.autocast(DEVICE.type, half) if half else nullcontext():
            outputs = model(on_device)
            watch.mark("forward")
            loss = watch.loss(partial(model.loss, outputs), outputs[:2])
        loss.backward()
        watch.mark("backward")
        optimizer.step()
        optimizer.zero_grad()
        watch.mark("optimiser")
        if model.teacher is not None:
            update_momentum(model.online, model.teacher, 0.99)
            watch.mark("EMA")
        yield
        watch.last = clock()


def flops(recipe: Recipe) -> int:
    """Returns the FLOPs of one step of ours, in matrix products and convolutions."""
    steps = ours(recipe)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    return counter.get_total_flops()


def steps(quick: bool) -> Iterator[Row]:
    """Times all loops in one run, in turn; the bare loop only on a CPU, for which it is written."""
    speed = rates(3)["float32"]
    for method in KIN:
        recipe, watches = recipe_of(method, 32 if quick else None), {"infomax": Watch(), "lightly": Watch()}
        loops = {"infomax": ours(recipe, watches["infomax"]), "lightly": lightly(recipe, watches["lightly"])}
        loops["unwatched"] = ours(recipe)
        if DEVICE.type == "cpu":
            alone: Any = build_method(recipe).to(memory_format=torch.channels_last)
            loops["bare loop"] = bare(recipe, PIXELS, alone)
        seconds, stages = defaultdict(list), defaultdict(lambda: defaultdict(list))
        for turn in range(WARM_UP + (2 if quick else 15)):
            for name in list(loops)[:: -1 if turn % 2 else 1]:
                if name in watches:
                    watches[name].last = clock()
                taken = seconds_of(partial(next, loops[name]))
                if turn >= WARM_UP:
                    seconds[name].append(taken)
                for stage, part in (watches[name].taken() if name in watches else {}).items():
                    stages[name][stage].append(part)
        turns = {name: np.array(x) for name, x in seconds.items()}
        by_stage = {
            name: {stage: float(np.median(x[WARM_UP:])) for stage, x in stages[name].items()} for name in watches
        }
        more = {"recipe": recipe.name, "batch": recipe.batch_size, "kin": KIN[method], "precision": recipe.precision}
        more |= {"stages": by_stage, "flops": (count := flops(recipe)), "floor": count / speed}
        yield row(f"{method} / lightly's {KIN[method]}", turns, "unwatched", "lightly", **more)
        if "bare loop" in turns:
            yield row(f"{method} / a bare loop", turns, "unwatched", "bare loop", recipe=recipe.name)
        del loops


def peaks(quick: bool) -> Iterator[Row]:
    """Yields the peak bytes of a step of ours and of lightly's loop, each in a process of its own."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # bytes; a larger tensor that is freed leaves at once
    for method in KIN:
        peak_bytes = {}
        for name in ("infomax", "lightly"):
            with mp.get_context("spawn").Pool(1) as fresh:
                peak_bytes[name] = fresh.apply(_peak, (name, method, 32 if quick else None))
        both = {
            "ours": "infomax",
            "other": "lightly",
            "bytes": peak_bytes["infomax"],
            "bytes_of_other": peak_bytes["lightly"],
        }
        yield {
            "name": f"{method} / lightly's {KIN[method]}",
            "ratio": peak_bytes["infomax"] / peak_bytes["lightly"],
            **both,
        }


def _peak(name: str, method: str, batch: int | None) -> int:
    """Returns by how many bytes a second step raises the memory, so without weights, gradients and averages."""

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))

    torch.set_num_threads(1)
    loop = {"infomax": ours, "lightly": lightly}[name](recipe_of(method, batch))
    next(loop)
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        next(loop)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the highest starts anew from what is resident now
    before = resident("VmRSS")
    next(loop)
    return resident("VmHWM") - before
