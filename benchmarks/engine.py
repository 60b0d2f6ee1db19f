"""What the engine costs: collectives, exact large batches, and its own overhead. Writes docs/results/engine.json.

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
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from infomax import runs
from infomax.data.augment import make_views
from infomax.data.datasets import ArrayImages, open_source
from infomax.data.loaders import Batch, training_loader
from infomax.distributed import process_group
from infomax.engine import Engine, build_method, build_optimizer, learning_rate
from infomax.methods.base import Method, Progress, Views
from infomax.nn import unit
from infomax.recipes import METHODS, customise, get_recipe
from infomax.recipes.schema import Recipe
from infomax.training import Launch, _Training

OUT = Path(__file__).parents[1] / "docs" / "results" / "engine.json"
CPU = torch.device("cpu")
WARM_UP = 2  # steps that are not counted: the first ones allocate
POOR = "a batch of .* gives a poor covariance"  # small batches here
# Each one's first argument is what it leaves on this rank.
COLLECTIVES = ("all_reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter_tensor", "broadcast")
ON_A_CPU = {"mira": (), "corinfomax": ("method.dimension=512",), "carl": (), "mveb": ("method.dimension=256",)}
MVEB = get_recipe("mveb", "imagenet")
MVEB_CHUNKS = customise(MVEB, overrides=["method.score_scope=chunk:128"])
AT_SCALE = [
    (64, customise(get_recipe("mira", "imagenet100"), backbone="resnet50", views="dino", batch_size=4096)),
    (64, get_recipe("corinfomax", "imagenet100")),
    (64, get_recipe("carl", "stl10")),
    (64, MVEB),
    (64, MVEB_CHUNKS),
    (32, MVEB_CHUNKS),  # as the authors ran it: no chunk lies on two ranks
]


class Call(NamedTuple):
    """Of a collective."""

    name: str
    bytes: int
    """That it leaves on this rank."""
    one_number: bool
    """Whether that is all that each rank gives."""
    seconds: float


@contextmanager
def counted() -> Iterator[list[Call]]:
    """The collectives that are called meanwhile."""
    calls: list[Call] = []

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(result: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            returned = call(result, *args, **kwargs)
            seconds = time.perf_counter() - start
            tensors = result if isinstance(result, list) else [result]
            one_number = all(x.numel() == 1 for x in tensors)
            calls.append(Call(name, sum(x.nbytes for x in tensors), one_number, seconds))
            return returned

        return wrapper

    with ExitStack() as patches:
        for name in COLLECTIVES:
            patches.enter_context(patch.object(dist, name, counting(name, getattr(dist, name))))
        yield calls


@torch.no_grad()
def outputs(method: Method, recipe: Recipe, rows: int) -> list[list[Tensor]]:
    """Random ones of the online and of the target branch, of the method's sizes."""
    few = [torch.randn(2, 3, 32, 32) for _ in range(2 + len(recipe.views.local))]
    views = Views(full=few[:2], local=few[2:])
    branches = method.online(views), method.target(views)
    return [[unit(torch.randn(rows, x.shape[1])) for x in branch] for branch in branches]


def loss_step(method: Method, recipe: Recipe, rows: int) -> Callable[[], None]:
    """The loss for random outputs, and its gradient at them: all of a step but the networks."""
    online, target = outputs(method, recipe, rows)
    leaves = [x.requires_grad_() for x in online]
    return lambda: method.loss(leaves, target, Progress(step=0, total_steps=100, epoch=0)).total.backward()


def described(method: Method, recipe: Recipe, ranks: int) -> dict[str, Any]:
    kept = ("prototypes", "dimension", "iterations", "score_scope")
    return {
        "method": recipe.method.name,
        **{name: value for name, value in vars(recipe.method).items() if name in kept},
        "views": 2 + len(recipe.views.local),
        "batch": recipe.batch_size,
        "ranks": ranks,
        "backbone": recipe.encoder.backbone,
        "gradient_bytes": sum(4 * p.numel() for p in method.parameters() if p.requires_grad),
    }


def summed(calls: list[Call]) -> dict[str, Any]:
    return {
        "calls": dict(Counter(call.name for call in calls)),
        "calls_of_one_number": sum(call.one_number for call in calls),
        "bytes": sum(call.bytes for call in calls),
    }


def _rank(number: int, world: int, repeats: int, method: Method, recipe: Recipe, results: Any) -> None:
    torch.manual_seed(number)
    with process_group(number, world, device=CPU):
        step = loss_step(method, recipe, recipe.batch_size // world)
        inside, whole = [], []
        for _ in range(WARM_UP + repeats):
            dist.barrier()
            start = time.perf_counter()
            with counted() as calls:
                step()
            whole.append(time.perf_counter() - start)
            inside.append([call.seconds for call in calls])
        # A rank that comes to a collective early waits in it for the others; the one that comes last does not.
        mean, last = (torch.tensor(inside[WARM_UP:], dtype=torch.float64) for _ in range(2))
        dist.all_reduce(mean)
        dist.all_reduce(last, op=dist.ReduceOp.MIN)
        if number == 0:
            seconds = {
                "seconds": float((mean / world).sum(1).median()),
                "seconds_without_waiting": float(last.sum(1).median()),
                "loss_seconds": float(np.median(whole[WARM_UP:])),
            }
            results.put({**summed(calls), **seconds, "repeats": repeats})


def collectives(repeats: int) -> Iterator[dict[str, Any]]:
    """Of the loss and its gradient, on processes of this machine with one thread each, by gloo."""
    for name, overrides in ON_A_CPU.items():
        recipe = customise(get_recipe(name, "cifar10"), batch_size=256, overrides=overrides)
        for world in (2, 4):
            method = build_method(recipe)
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]))
            # Forked, so that a rank need not import everything again: before this process has had a thread of torch's.
            results = mp.get_context("fork").SimpleQueue()
            mp.start_processes(_rank, (world, repeats, method, recipe, results), world, start_method="fork")
            yield {**described(method, recipe, world), **results.get()}


def at_scale() -> Iterator[dict[str, Any]]:
    """The same, only counted: one rank's share, in a process group whose other ranks do not exist."""
    for world, recipe in AT_SCALE:
        method = build_method(recipe)
        step = loss_step(method, recipe, recipe.batch_size // world)
        dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
        try:
            # MVEB's linear systems call no collective, and would take a minute.
            with counted() as calls, patch("infomax.methods.mveb._score", lambda z, *_: torch.zeros_like(z)):
                step()
        finally:
            dist.destroy_process_group()
        yield {**described(method, recipe, world), **summed(calls)}


def compared(one: Callable[[], Any], other: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Seconds of two functions that are called in turn, the order changing, and the ratio of the first to the second.

    The machine's speed drifts by more than what is to be measured, but hardly within a pair.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(WARM_UP + repeats):
        for which in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            (one, other)[which]()
            seconds[which].append(time.perf_counter() - start)
    first, second = (np.array(x[WARM_UP:]) for x in seconds)
    low, ratio, high = np.quantile(first / second, [0.25, 0.5, 0.75])
    return {
        "seconds": float(np.median(first)),
        "seconds_of_other": float(np.median(second)),
        "ratio": float(ratio),
        "quartiles": [float(low), float(high)],
        "repeats": repeats,
    }


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)


def bare(recipe: Recipe, pixels: np.ndarray, method: Method) -> Iterator[None]:
    """A loop that trains the same, and cares for nothing else."""
    optimizer = build_optimizer(method, recipe.optimizer)
    steps_per_epoch, batch, order = len(pixels) // recipe.batch_size, recipe.batch_size, np.empty(0)
    progress = partial(Progress, total_steps=recipe.epochs * steps_per_epoch)
    for step in range(recipe.epochs * steps_per_epoch):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0:
            order = np.random.default_rng([recipe.seed, epoch]).permutation(len(pixels))
        index, now = order[position * batch : (position + 1) * batch], progress(step=step, epoch=epoch)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe.optimizer, now, epochs=recipe.epochs)
        images = torch.from_numpy(pixels[index])
        with torch.no_grad():
            views = Views(make_views(images, recipe.views, seed=recipe.seed, epoch=epoch, index=index), [])
        optimizer.zero_grad()
        method.loss(method.online(views), method.target(views), now).total.backward()
        method.after_backward(now)
        optimizer.step()
        method.advance(progress(step=step + 1, epoch=(step + 1) // steps_per_epoch))
        yield


def trained(training: _Training) -> Iterator[None]:
    """All that a run does at a step: the loader, the engine, the checks, the reports."""
    for parts, waited in training.batches():
        loss, norm = training.engine.step(parts)
        training.after(loss, norm, waited)
        yield


def overhead(repeats: dict[str, int]) -> Iterator[dict[str, Any]]:
    """A run's step against the bare loop's, on one thread. Both end with the same weights, which is checked."""
    limits = {"workers": None, "deterministic": False, "skip_nonfinite": 0, "skip_unreadable": 0.0}
    launch = Launch(device="cpu", world=1, quiet=True, **limits)  # pyrefly: ignore
    for name, count in repeats.items():
        pixels = open_source("digits").train.pixels if name == "digits" else noise(2560)  # pyrefly: ignore
        for method in METHODS:
            with tempfile.TemporaryDirectory() as folder:
                np.savez(Path(folder, "images.npz"), images=pixels)  # without labels, so that nothing is scored
                recipe = get_recipe(method, name)
                data = {"data": str(Path(folder, "images.npz"))}
                run = runs.create(Path(folder, "run"), recipe, data=data, launch={}, overwrite=False)
                training: Any = _Training(run, launch, CPU)
                alone: Any = build_method(recipe).to(memory_format=torch.channels_last)
                ours, theirs = trained(training), bare(recipe, pixels, alone)
                row = compared(partial(next, ours), partial(next, theirs), count)
                training.reporter.close()
            for mine, other in zip(training.engine.method.parameters(), alone.parameters(), strict=True):
                assert torch.equal(mine, other), f"{method}, {name}: the two loops did not do the same"
            yield {"recipe": name, "method": method, "batch": recipe.batch_size, **row}


def engine_and_parts(method: str, batch: int, part: int | None) -> tuple[Engine, list[Batch]]:
    recipe = customise(get_recipe(method, "small"), batch_size=batch, device_batch=part)
    images = ArrayImages(noise(batch), None, [])
    loader = training_loader(images, recipe.views, batch_size=batch, seed=0, steps=range(1), part=part)
    return Engine(recipe, steps_per_epoch=100, device=CPU), list(loader)


def parts(repeats: int, cores: int) -> Iterator[dict[str, Any]]:
    """A step in eight parts against the same batch at once."""
    for threads, method in itertools.product(sorted({1, cores}), METHODS):
        torch.set_num_threads(threads)
        (split, eight), (whole, one) = engine_and_parts(method, 512, 64), engine_and_parts(method, 512, None)
        seconds = compared(partial(split.step, eight), partial(whole.step, one), repeats)
        yield {"method": method, "threads": threads, "batch": 512, "device_batch": 64, **seconds}


def memory() -> Iterator[dict[str, Any]]:
    """Bytes that a step needs, each in a process that holds nothing of earlier ones."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = (
        "65536"  # what is freed goes back to the system at once, all but small change
    )
    for method in METHODS:
        row: dict[str, Any] = {"method": method, "batch": 1024, "device_batch": 128}
        for name, batch, part in (("whole", 1024, None), ("in_parts", 1024, 128), ("one_part", 128, None)):
            with mp.get_context("spawn").Pool(1) as fresh:
                row[name] = fresh.apply(_peak, (method, batch, part))
        recipe = get_recipe(method, "small")
        row["outputs"] = sum(x.nbytes for branch in outputs(build_method(recipe), recipe, 1024) for x in branch)
        yield row


def _peak(method: str, batch: int, part: int | None) -> int:
    """Highest resident memory during a step, above that before it, which has weights, gradients and momentum."""

    def resident(what: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", POOR)
    engine, given = engine_and_parts(method, batch, part)
    few = given[0]._replace(images=given[0].images[:16], index=given[0].index[:16])  # pyrefly: ignore
    engine.step([few])  # loads and allocates what stays
    Path("/proc/self/clear_refs").write_text("5")  # the highest starts anew from what is resident now
    before = resident("VmRSS")
    engine.step(given)
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats")
    quick = parser.parse_args().quick
    warnings.filterwarnings("ignore", POOR)
    result = {**runs._circumstances(), "command": "python benchmarks/engine.py" + " --quick" * quick}
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    groups = {
        "collectives": collectives(3 if quick else 30),
        "at_scale": at_scale(),
        "overhead": overhead({"digits": 4, "small": 2} if quick else {"digits": 60, "small": 24}),
        "parts": parts(2 if quick else 10, cores),
        "memory": memory(),
    }
    for name, rows in groups.items():
        start, result[name] = time.perf_counter(), []
        for row in rows:
            print(f"{name}: {json.dumps(row)}", flush=True)
            result[name].append(row)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
