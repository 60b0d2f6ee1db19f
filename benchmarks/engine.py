"""Measures the engine: collectives, microbatches, and its own overhead. Writes docs/results/engine.json.

python benchmarks/engine.py            minutes, on a Linux machine that does nothing else
python benchmarks/engine.py --quick    fewer repeats, to see that it works
"""

import argparse
import itertools
import json
import os
import socket
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from infomax.data.augmentation.make_views import make_views
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.data.loading.workers import Batch
from infomax.data.sources.location import open_source
from infomax.methods.base import Method, Progress, Views
from infomax.nn.blocks import l2_normalize
from infomax.recipes.building import build_method, build_optimizer, learning_rate
from infomax.recipes.customise import customise
from infomax.recipes.registry import METHODS, get_recipe
from infomax.recipes.schema import Recipe
from infomax.runs import run_folder as runs
from infomax.runtime.collectives import process_group
from infomax.training.engine import Engine
from infomax.training.loop import TrainingLoop, train_step
from infomax.training.options import LaunchOptions

OUT = Path(__file__).parents[1] / "docs" / "results" / "engine.json"
Calls = list[tuple[str, int, bool, float]]  # name, bytes left on this rank, whether each gave one number, seconds
CPU = torch.device("cpu")
WARM_UP = 2  # steps that are not counted: the first ones allocate
NOISE = np.random.default_rng(0).integers(0, 256, (2560, 32, 32, 3), np.uint8)  # images
COLLECTIVES = ("all_reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter_tensor", "broadcast")
ON_A_CPU = {"mira": (), "corinfomax": ("method.dimension=512",), "carl": (), "mveb": ("method.dimension=256",)}
AT_SCALE = [
    (64, "mira", "imagenet100", {"backbone": "resnet50", "views": "dino", "batch_size": 4096}),
    (64, "corinfomax", "imagenet100", {}),
    (64, "carl", "stl10", {}),
    (64, "mveb", "imagenet", {"overrides": ["method.score_scope=global"]}),
    (64, "mveb", "imagenet", {"overrides": ["method.score_scope=chunk:128"]}),
    (32, "mveb", "imagenet", {"overrides": ["method.score_scope=chunk:128"]}),  # as the authors: a chunk on each rank
]
warnings.filterwarnings("ignore", "a batch of .* gives a poor covariance")  # no covariance matters here


@contextmanager
def counted() -> Iterator[Calls]:
    """Yields a list of the collectives that the block calls; the first argument of each is its result on this rank."""
    calls: Calls = []

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(result: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            returned = call(result, *args, **kwargs)
            seconds, left = time.perf_counter() - start, result if isinstance(result, list) else [result]
            calls.append((name, sum(x.nbytes for x in left), left[0].numel() == 1, seconds))
            return returned

        return wrapper

    with patch.multiple(dist, **{name: counting(name, getattr(dist, name)) for name in COLLECTIVES}):
        yield calls


@torch.no_grad()
def outputs(method: Method, recipe: Recipe, rows: int) -> list[list[Tensor]]:
    """Returns random outputs of the online and of the target branch, of the method's sizes."""
    few = torch.randn(2, 3, 32, 32)
    views = Views(global_crops=[few] * 2, local_crops=[few] * len(recipe.views.local_crops))
    branches = method.online(views), method.target(views)
    return [[l2_normalize(torch.randn(rows, x.shape[1])) for x in branch] for branch in branches]


def loss_step(method: Method, recipe: Recipe, rows: int) -> Callable[[], None]:
    """Returns a function that computes the loss and its gradient for random outputs: a step without its networks."""
    online, target = outputs(method, recipe, rows)
    leaves, now = [x.requires_grad_() for x in online], Progress(step=0, total_steps=100, epoch=0)
    return lambda: method.loss(leaves, target, now).total.backward()


def described(method: Method, recipe: Recipe, ranks: int, calls: Calls) -> dict[str, Any]:
    shown = ("prototypes", "dimension", "iterations", "score_scope")
    return {
        "method": recipe.method.name,
        **{name: value for name, value in vars(recipe.method).items() if name in shown},
        "views": 2 + len(recipe.views.local_crops),
        "batch": recipe.batch_size,
        "ranks": ranks,
        "backbone": recipe.encoder.backbone,
        "gradient_bytes": sum(4 * p.numel() for p in method.parameters() if p.requires_grad),
        "calls": dict(Counter(name for name, *_ in calls)),
        "calls_of_one_number": sum(one_number for _, _, one_number, _ in calls),
        "bytes": sum(size for _, size, _, _ in calls),
    }


def _rank(number: int, world: int, repeats: int, method: Method, recipe: Recipe, results: Any) -> None:
    torch.manual_seed(number)
    with process_group(number, world, device=CPU):
        step, inside, whole = loss_step(method, recipe, recipe.batch_size // world), [], []
        for _ in range(WARM_UP + repeats):
            dist.barrier()
            start = time.perf_counter()
            with counted() as calls:
                step()
            whole.append(time.perf_counter() - start)
            inside.append([seconds for *_, seconds in calls])
        # A rank that comes to a collective early waits in it for the others; the one that comes last does not.
        mean, last = (torch.tensor(inside[WARM_UP:], dtype=torch.float64) for _ in range(2))
        dist.all_reduce(mean)
        dist.all_reduce(last, op=dist.ReduceOp.MIN)
        if number == 0:
            row = described(method, recipe, world, calls)
            row["seconds"] = float((mean / world).sum(1).median())
            row["seconds_without_waiting"] = float(last.sum(1).median())
            results.put({**row, "loss_seconds": float(np.median(whole[WARM_UP:])), "repeats": repeats})


def collectives(repeats: int) -> Iterator[dict[str, Any]]:
    """Measures the collectives of the loss and its gradient, on processes with one thread each, by gloo."""
    for name, overrides in ON_A_CPU.items():
        recipe = customise(get_recipe(name, "cifar10"), batch_size=256, overrides=overrides)
        method = build_method(recipe)
        for world in (2, 4):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]))
            # Forked, so that a rank need not import everything again: before this process has had a thread of torch's.
            results = mp.get_context("fork").SimpleQueue()
            mp.start_processes(_rank, (world, repeats, method, recipe, results), world, start_method="fork")
            yield results.get()


def at_scale() -> Iterator[dict[str, Any]]:
    """Counts the collectives of one of many ranks, in a process group whose other ranks do not exist."""
    for world, name, recipe_name, changes in AT_SCALE:
        recipe = customise(get_recipe(name, recipe_name), **changes)
        method = build_method(recipe)
        step = loss_step(method, recipe, recipe.batch_size // world)
        dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
        # MVEB's linear systems call no collective, and would take a minute.
        with counted() as calls, patch("infomax.methods.mveb._score", lambda z, *_: torch.zeros_like(z)):
            step()
        dist.destroy_process_group()
        yield described(method, recipe, world, calls)


def compared(one: Callable[[], Any], other: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Times two functions in turn, because a machine's speed drifts, and returns the ratio within each turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(WARM_UP + repeats):
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            (one, other)[which]()
            seconds[which].append(time.perf_counter() - start)
    first, second = (np.array(x[WARM_UP:]) for x in seconds)
    low, ratio, high = np.quantile(first / second, [0.25, 0.5, 0.75]).tolist()
    return {
        "seconds": float(np.median(first)),
        "seconds_of_other": float(np.median(second)),
        "ratio": ratio,
        "quartiles": [low, high],
        "repeats": repeats,
        "ratio_of_sums": float(first.sum() / second.sum()),  # with what comes now and then, as rows of metrics do
    }


def bare(recipe: Recipe, pixels: np.ndarray, method: Method) -> Iterator[None]:
    """Yields after each step of a loop that trains the same weights and does nothing else."""
    optimizer = build_optimizer(method, recipe.optimizer)
    steps_per_epoch, batch, order = len(pixels) // recipe.batch_size, recipe.batch_size, np.empty(0)
    progress = partial(Progress, total_steps=recipe.epochs * steps_per_epoch)
    for step in range(recipe.epochs * steps_per_epoch):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0:
            order = np.random.default_rng([recipe.seed, epoch]).permutation(len(pixels))
        index, now = order[position * batch :][:batch], progress(step=step, epoch=epoch)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe.optimizer, now, epochs=recipe.epochs)
        images = torch.from_numpy(pixels[index])
        with torch.no_grad():
            views = Views(make_views(images, recipe.views, seed=recipe.seed, epoch=epoch, index=index), [])
        optimizer.zero_grad()
        method.loss(method.online(views), method.target(views), now).total.backward()
        method.after_backward(now)
        optimizer.step()
        method.after_step(progress(step=step + 1, epoch=(step + 1) // steps_per_epoch))
        yield


def trained(training: TrainingLoop) -> Iterator[None]:
    """Yields after each step of a run: with its loader, engine, checks and metrics."""
    for microbatches in training.batches():
        training.train_or_skip(microbatches)
        yield


def overhead(repeats: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Compares a run's step with the bare loop's, on one thread, and checks that both end with the same weights."""
    launch = LaunchOptions(device="cpu", skip_unreadable=0.0, quiet=True)
    for name, count in repeats.items():
        pixels = open_source("digits").train.pixels if name == "digits" else NOISE
        for method in METHODS:
            recipe = get_recipe(method, name)
            with tempfile.TemporaryDirectory() as folder:
                data = f"{folder}/images.npz"
                np.savez(data, images=pixels)  # without labels, so that nothing is scored
                run = runs.create_run_folder(
                    Path(folder, "run"), recipe, data={"data": data}, launch={}, overwrite=False
                )
                training: Any = TrainingLoop(run, launch, CPU, open_source(data))
                alone: Any = build_method(recipe).to(memory_format=torch.channels_last)
                row = compared(partial(next, trained(training)), partial(next, bare(recipe, pixels, alone)), count)
                training.log.close()
            for mine, other in zip(training.engine.method.parameters(), alone.parameters(), strict=True):
                assert torch.equal(mine, other), f"{method}, {name}: the two loops did not do the same"
            yield {"recipe": name, "method": method, "batch": recipe.batch_size, **row}


def engine_and_parts(method: str, batch: int, part: int | None, name: str = "small") -> tuple[Engine, list[Batch]]:
    recipe = customise(get_recipe(method, name), batch_size=batch, micro_batch_size=part, precision="32")
    images, engine = ArrayImages(NOISE[:batch], None, []), Engine(recipe, steps_per_epoch=100, device=CPU)
    return engine, list(
        training_batches(images, recipe.views, batch_size=batch, seed=0, steps=range(1), micro_batch_size=part)
    )


def parts(repeats: int, cores: int) -> Iterator[dict[str, Any]]:
    """Compares a step in eight microbatches with the same batch at once."""
    cases = [("small", 512, 1, repeats), ("small", 512, cores, repeats), ("cifar10", 128, cores, max(1, repeats // 3))]
    for (name, batch, threads, times), method in itertools.product(cases, METHODS):
        torch.set_num_threads(threads)
        split, eight = engine_and_parts(method, batch, batch // 8, name)
        whole, one = engine_and_parts(method, batch, None, name)
        row = {"recipe": name, "backbone": split.recipe.encoder.backbone, "method": method, "threads": threads}
        seconds = compared(partial(train_step, split, eight), partial(train_step, whole, one), times)
        yield {**row, "batch": batch, "micro_batch_size": batch // 8, **seconds}


def memory() -> Iterator[dict[str, Any]]:
    """Yields the bytes that a step needs, each measured in a process of its own."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # bytes; a larger tensor that is freed leaves at once
    for method in METHODS:
        recipe, peaks = get_recipe(method, "small"), {}
        kept = outputs(build_method(recipe), recipe, 1024)
        for name, batch, part in (("whole", 1024, None), ("in_parts", 1024, 128), ("one_part", 128, None)):
            with mp.get_context("spawn").Pool(1) as fresh:
                peaks[name] = fresh.apply(_peak, (method, batch, part))
        yield {"method": method, **peaks, "outputs": sum(x.nbytes for branch in kept for x in branch)}


def _peak(method: str, batch: int, part: int | None) -> int:
    """Returns by how many bytes a step raises the resident memory of a process that has made a step of 16 images."""

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))

    torch.set_num_threads(1)
    engine, microbatches = engine_and_parts(method, batch, part)
    train_step(engine, [microbatches[0]._replace(images=microbatches[0].images[:16], index=microbatches[0].index[:16])])
    Path("/proc/self/clear_refs").write_text("5")  # the highest starts anew from what is resident now
    before = resident("VmRSS")
    train_step(engine, microbatches)
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    result: dict[str, Any] = {**runs.provenance(), "command": "python benchmarks/engine.py" + " --quick" * quick}
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    groups = {
        "collectives": collectives(3 if quick else 30),
        "at_scale": at_scale(),
        "overhead": overhead({"digits": 4, "small": 2} if quick else {"digits": 60, "small": 24}),
        "parts": parts(1 if quick else 9, cores),
        "memory": memory(),
    }
    for name, rows in groups.items():
        result[name] = []
        for row in rows:
            print(f"{name}: {json.dumps(row)}", flush=True)
            result[name].append(row)
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
