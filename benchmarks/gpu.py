"""Measures infomax on one GPU: whole steps beside their bounds, the losses' share, and a fast run on CIFAR-10.

python benchmarks/gpu.py --cifar cifar10.npz       within ten minutes on one GPU; writes docs/results/gpu.json
python benchmarks/gpu.py --only compiled           steps and losses again under --compile, which takes minutes to begin
python benchmarks/gpu.py --only steps losses       some parts; the others stay as they were kept
python benchmarks/gpu.py --only bounds             what an H200 is bounded by, which needs no GPU
python benchmarks/gpu.py --quick --out FILE        at toy size, on a CPU too, to see that it works

The .npz is of train_x, train_label, test_x and test_label.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from turns import DEVICE, Row, clock, rates, seconds_of

from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import BatchPrefetcher, training_batches
from infomax.methods.base import Progress
from infomax.nn.blocks import l2_normalize
from infomax.planning.step_cost import FLOP_FORMULAS, CountedOperations, CountedStep, ShapeOnlyTensors, count_step_cost
from infomax.recipes.building import build_method
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.recipes.schema import Recipe
from infomax.runs import run_folder as runs
from infomax.runs.run_folder import Run
from infomax.training.engine import Engine
from infomax.training.loop import train_step

PARTS = ("bounds", "steps", "losses", "clock", "compiled")
OUT = Path(__file__).parents[1] / "docs" / "results" / "gpu.json"
RECIPES = {  # recipe, images a step, and image pairs a second that are to be reached
    "ResNet-18, 32 pixels": ("corinfomax/cifar10", 512, 25_000),
    "ResNet-18, 32 pixels, CARL": ("carl/cifar10", 512, 25_000),
    "ResNet-18, 32 pixels, MVEB's teacher": ("mveb/cifar10", 512, 18_000),
    "ResNet-18, 32 pixels, MIRA's teacher": ("mira/cifar10", 512, 18_000),
    "ResNet-50, 224 pixels": ("corinfomax/imagenet", 512, 2_200),
    "ResNet-50, 2 x 224 and 6 x 96 pixels, MIRA's teacher": ("mira/imagenet_multicrop_100", 256, 1_100),
}
COMPILED = [name for name in RECIPES if "CARL" not in name and "6 x 96" not in name]  # for time
SHARES = {  # recipes, and how much of a step their losses are to take at most
    "ResNet-18, 32 pixels": (("mira/cifar10", "corinfomax/cifar10", "carl/cifar10", "mveb/cifar10"), 0.03),
    "ResNet-50, 224 pixels": (("mira/imagenet_100", "corinfomax/imagenet", "mveb/imagenet_two_crops"), 0.01),
}
H200 = {"bfloat16": 790e12, "float32": 67e12, "float64": 67e12, "memory": 4.3e12}  # the first and last as measured
warnings.filterwarnings("ignore", "a batch of .* gives a poor covariance")  # no covariance matters here


def recipe_of(name: str, batch: int, quick: bool) -> Recipe:
    method, _, own = name.partition("/")
    stem = {"overrides": ["encoder.stem=cifar"]} if own == "cifar10" else {}  # also where a paper has the other one
    recipe = customise(get_recipe(method, own), batch_size=batch, precision="bf16", **stem)
    return customise(recipe, backbone="small", batch_size=16, image_size=32) if quick else recipe


class Operations(TorchDispatchMode):
    """A mode that notes the FLOPs and the bytes, read and written, of each operation, as if none were fused."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, int, torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        arguments = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        results = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        storages = {x.untyped_storage()._cdata for x in arguments}
        seen_again = all(x.untyped_storage()._cdata in storages for x in results) and not func._schema.is_mutable
        if results and not seen_again and "empty" not in func.name():
            formula = FLOP_FORMULAS.get(func._overloadpacket, lambda *_, **__: 0)
            flops = formula(*args, **(kwargs or {}), out_val=result)
            self.seen.append((flops, sum(x.nbytes for x in (*arguments, *results)), results[0].dtype))
        return result


def operations(recipe: Recipe) -> list[tuple[float, int, torch.dtype]]:
    """Returns FLOPs, bytes and type of each operation of a step, without making views and updating weights."""
    with torch.device("meta"):
        method: Any = build_method(recipe).to(memory_format=torch.channels_last)
    with ShapeOnlyTensors(allow_non_fake_inputs=True), CountedOperations() as counted, Operations() as noted:
        CountedStep(recipe, method.to_empty(device="cpu"), 1, counted).run()
    return noted.seen


def bounds(recipe: Recipe, speed: dict[str, float]) -> dict[str, float]:
    """Returns two lower bounds of a step's seconds: of its arithmetic alone, and without fusion.

    Without fusion an operation takes as long as it computes, or as memory takes for all that it reads and writes,
    whichever is longer.
    """
    flops = moved = arithmetic = unfused = 0.0
    for done, size, dtype in operations(recipe):
        seconds = done / speed.get(str(dtype).removeprefix("torch."), speed["float32"])
        flops, moved, arithmetic = flops + done, moved + size, arithmetic + seconds
        unfused += max(seconds, size / speed["memory"])
    return {"flops": flops, "bytes": moved, "arithmetic": arithmetic, "unfused": unfused}


def bounds_on_paper() -> Iterator[Row]:
    for name, (recipe_name, batch, goal) in RECIPES.items():
        limits = bounds(recipe_of(recipe_name, batch, quick=False), H200)
        yield {"name": name, "recipe": recipe_name, "batch": batch, "goal": goal, **limits}


def steps_of(recipe: Recipe, compiled: bool) -> Iterator[None]:
    """Yields after each step of the engine, with its loader, from images that are on the device."""
    full, noise = recipe.views.global_crops[0].size, np.random.default_rng(0)
    side = full if full <= 64 else 256
    pixels = noise.integers(0, 256, (max(2048, 4 * recipe.batch_size), side, side, 3), np.uint8)
    engine = Engine(recipe, steps_per_epoch=10**6, device=DEVICE, compiled=compiled)
    options = {"batch_size": recipe.batch_size, "seed": 0, "steps": range(10**9), "device": DEVICE}
    batches = BatchPrefetcher(
        training_batches(ArrayImages(pixels, None, []), recipe.views, **options), DEVICE, engine.make_views
    )
    for batch in batches:
        try:
            train_step(engine, [batch], prefetcher=batches)
        except FloatingPointError:  # noise may be too hard at a rate that has no time to warm up
            engine.skip()
        yield


def steps(quick: bool, speed: dict[str, float], compiled: bool = False) -> Iterator[Row]:
    for name in COMPILED[: 1 if quick else None] if compiled else RECIPES:
        recipe_name, batch, goal = RECIPES[name]
        recipe = recipe_of(recipe_name, batch, quick)
        running, start = steps_of(recipe, compiled), time.perf_counter()
        for _ in range(2 if quick else 10):
            next(running)
        clock()
        begun, each = time.perf_counter() - start, []
        start = time.perf_counter()
        while len(each) < 3 or time.perf_counter() - start < (1 if quick else 8):
            each.append(
                seconds_of(lambda r=running: [next(r) for _ in range(2 if quick else 10)]) / (2 if quick else 10)
            )
        low, middle, high = np.quantile(each, [0.25, 0.5, 0.75]).tolist()
        row = {"name": name, "recipe": recipe_name, "batch": recipe.batch_size, "precision": recipe.precision}
        row |= {"compiled": compiled, "seconds": middle, "quartiles": [low, high], "first_steps_seconds": begun}
        row |= {"pairs_per_second": recipe.batch_size / middle, "goal": goal, "bounds": bounds(recipe, speed)}
        yield row
        del running
        if compiled:
            torch.compiler.reset()  # which would keep the engine, and its memory


def losses(quick: bool, steps: list[Row], compiled: bool = False) -> Iterator[Row]:
    """Yields the time of each loss and its gradient as a share of a step; if compiled, for the first of SHARES."""
    for step, (names, most) in list(SHARES.items())[: 1 if compiled else None]:
        of = next(row["seconds"] for row in steps if row["name"] == step)
        for name in names[-1:] if quick and compiled else names:
            recipe = recipe_of(name, 512, quick)
            method, now = build_method(recipe).to(DEVICE), Progress(step=0, total_steps=100, epoch=0)
            online, target = (
                [l2_normalize(torch.randn(recipe.batch_size, *output.shape, device=DEVICE)) for output in branch]
                for branch in count_step_cost(recipe).outputs
            )
            leaves, objective, numbers = (
                [x.requires_grad_() for x in online],
                method.compute_loss,
                method.schedule_values(now),
            )
            if compiled:
                objective = torch.compile(objective, fullgraph=True, dynamic=False)
                numbers = torch.tensor(numbers, dtype=torch.float64, device=DEVICE)

            def loss(f: Any = objective, a: Any = leaves, t: Any = target, n: Any = numbers) -> None:
                torch.autograd.grad(f(a, t, n).total, a)

            start = time.perf_counter()
            loss()
            row = {"name": name, "step": step, "compiled": compiled, "first_seconds": time.perf_counter() - start}
            seconds = float(np.median([seconds_of(loss) for _ in range(3 if quick else 50)]))
            yield row | {"seconds": seconds, "share": seconds / of, "most": most}


def against_the_clock(quick: bool, cifar: Path, seed: int, more: list[str]) -> Row:
    """Measures the seconds from the start of a process to a trained encoder and its linear accuracy.

    Args:
        more: Words for `infomax pretrain`.
    """
    small = ["--backbone", "small", "--epochs", "2", "--batch-size", "32", "--precision", "32"] if quick else []
    small += ["--set", "optimizer.warmup_epochs=1"] if quick else []
    with tempfile.TemporaryDirectory() as place:
        data = ["--data", str(cifar), "--seed", str(seed)]
        words = ["pretrain", "--recipe", "mveb/cifar10_speedrun", *data, *small, *more]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "infomax", *words, "--out", f"{place}/run"], check=True)
        trained = time.perf_counter() - start
        judge = ["evaluate", "linear", f"{place}/run", "--no-baselines"]
        subprocess.run([sys.executable, "-m", "infomax", *judge], check=True)
        seconds, run = time.perf_counter() - start, Run(Path(place, "run"))
        scores = [row for row in run.read_rows("metrics.jsonl") if "linear_top1" in row]
        (row,) = run.read_rows("results.jsonl")
    row = {"linear_top1": row["top1"], "online": [(x["epoch"], x["linear_top1"]) for x in scores]}
    return {
        "command": "infomax " + " ".join(words),
        "seed": seed,
        "more": more,
        "training_seconds": trained,
        "seconds": seconds,
        **row,
    }


def toy(place: str) -> Path:
    noise, path = np.random.default_rng(0), Path(place, "toy.npz")
    images = {f"{part}_x": noise.integers(0, 256, (320, 32, 32, 3), np.uint8) for part in ("train", "test")}
    np.savez(path, **images, **{f"{part}_label": np.arange(320) % 10 for part in ("train", "test")})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="CIFAR-10, all of it; without it nothing is trained to its end")
    parser.add_argument("--seed", type=int, default=0, help="of that training")
    parser.add_argument("--pretrain", default="", help="more words for it, as --pretrain='--compile --epochs 300'")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[1:4])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if DEVICE.type == "cpu" and not args.quick and args.only != ["bounds"]:
        parser.error("there is no GPU here; --quick --out FILE shows on a CPU that this works")
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    if "losses" in args.only and not {"steps"} & {*args.only, *result}:
        parser.error("--only losses: their share is that of steps, which have not been measured")
    torch.backends.cudnn.benchmark = True  # as in a run
    speed = H200 if args.only == ["bounds"] else rates(5 if args.quick else 25)
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"

    def keep(part: str, rows: Iterator[Row], *before: Row) -> None:
        only = part.removesuffix(" losses")
        kept = {**runs.provenance(), "command": f"python benchmarks/gpu.py --only {only}", "device": device}
        result[part] = {**kept, "rates": H200 if part == "bounds" else speed, "rows": list(before)}
        for row in rows:
            print(f"{part}: {json.dumps(row)}", flush=True)
            result[part]["rows"].append(row)
            args.out.write_text(json.dumps(result, indent=1) + "\n")

    if "bounds" in args.only:
        keep("bounds", bounds_on_paper())
    if "steps" in args.only:
        keep("steps", steps(args.quick, speed))
    if "losses" in args.only:
        keep("losses", losses(args.quick, result["steps"]["rows"]))
    if "compiled" in args.only:
        keep("compiled", steps(args.quick, speed, compiled=True))
        keep("compiled losses", losses(args.quick, result["compiled"]["rows"], compiled=True))
    with tempfile.TemporaryDirectory() as place:
        cifar = args.cifar or (toy(place) if args.quick else None)
        if "clock" in args.only and cifar is not None:
            this = args.seed, args.pretrain.split()
            kept = result.get("clock", {"rows": []})["rows"]
            others = [row for row in kept if (row["seed"], row.get("more", [])) != this]
            keep("clock", iter([against_the_clock(args.quick, cifar, *this)]), *others)
        elif "clock" in args.only:
            print("clock: nothing is trained without --cifar")


if __name__ == "__main__":
    main()
