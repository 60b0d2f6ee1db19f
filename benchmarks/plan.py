"""Compares the time and memory that infomax plan predicts with those of real runs. Writes docs/results/plan.json.

python benchmarks/plan.py            minutes, on a Linux machine that does nothing else
python benchmarks/plan.py --quick    shorter runs, to see that it works
"""

import argparse
import json
import multiprocessing as mp
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from infomax import pretrain
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.planning.plan import plan
from infomax.planning.step_cost import count_step_cost
from infomax.recipes.customise import customise
from infomax.recipes.registry import METHODS, get_recipe
from infomax.runs import run_folder as runs
from infomax.training.engine import Engine
from infomax.training.loop import train_step

OUT = Path(__file__).parents[1] / "docs" / "results" / "plan.json"
NOISE = np.random.default_rng(0).integers(0, 256, (2560, 32, 32, 3), np.uint8)  # images
EPOCHS = {"digits": 40, "noise.npz": 5, "few.npz": 2, "files": 4}  # of the runs that are timed
BATCHES = ((1024, None), (1024, 128))  # batch size and micro-batch size
warnings.filterwarnings("ignore", "a batch of .* gives a poor covariance")  # no covariance matters here


def files(folder: Path) -> None:
    """Writes JPEG files of 256 pixels, which take as long to decode as photographs."""
    folder.mkdir()
    large = np.random.default_rng(0).integers(0, 256, (1024, 16, 16, 3), np.uint8)
    for number, small in enumerate(large):
        Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)


def time(quick: bool) -> Iterator[dict[str, Any]]:
    """Yields the seconds that are predicted for runs, and those that their metrics say."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/noise.npz", images=NOISE)
        np.savez(f"{folder}/few.npz", images=NOISE[:256])
        files(Path(folder, "files"))
        epochs = {"digits": 4, "noise.npz": 1, "few.npz": 1, "files": 1} if quick else EPOCHS
        resnet = {"recipe": "cifar10", "batch_size": 64, "micro_batch_size": 16, "overrides": ["encoder.stem=cifar"]}
        cases: list[tuple[str, str, dict[str, Any]]] = [
            *((method, "digits", {}) for method in METHODS),
            *((method, "noise.npz", {"recipe": "small"}) for method in METHODS),
            ("mira", "files", {"recipe": "small"}),
            ("corinfomax", "few.npz", resnet),
        ]
        for number, (method, data, changes) in enumerate(cases):
            options = {**changes, "epochs": epochs[data], "data": data if data == "digits" else f"{folder}/{data}"}
            planned: Any = plan(method=method, device="cpu", **options).this_machine
            # The speed of a machine drifts, and a plan measures that of its own few seconds. So a second plan follows.
            run = pretrain(method=method, device="cpu", out=f"{folder}/{number}", quiet=True, **options)
            real = [row for row in run.read_rows("metrics.jsonl") if "loss" in row][-1]["seconds"]
            again: Any = plan(method=method, device="cpu", **options).this_machine
            timing, both = planned.timing, [planned.seconds[0], again.seconds[0]]
            predicted = sum(both) / 2
            row = {
                "method": method,
                **options,
                "data": data,
                "measured_images": timing.images,
                "step": timing.seconds_per_step,
            }
            yield {**row, "predictions": both, "predicted": predicted, "real": real, "ratio": predicted / real}


def memory() -> Iterator[dict[str, Any]]:
    """Yields the bytes that are predicted for a step, and those by which the memory of a process rises."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # bytes; a larger tensor that is freed leaves at once
    for method in METHODS:
        for images, part in BATCHES:
            recipe = customise(get_recipe(method, "small"), batch_size=images, micro_batch_size=part)
            counted = count_step_cost(recipe).memory
            with mp.get_context("spawn").Pool(1) as fresh:
                real = fresh.apply(_rise, (method, images, part))
            predicted = counted.peak - counted.weights - counted.gradients - counted.optimizer
            row = {"method": method, "images": images, "part": part}
            yield {**row, "predicted": predicted, "real": real, "ratio": predicted / real}


def _rise(method: str, images: int, part: int | None) -> int:
    """Returns by how many bytes a step raises the resident memory of a process that has made a step of 16 images.

    So weights, gradients, momentum and code are not counted.
    """

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))

    torch.set_num_threads(1)
    recipe = customise(get_recipe(method, "small"), batch_size=images, micro_batch_size=part)
    engine, pixels = Engine(recipe, steps_per_epoch=100, device=torch.device("cpu")), ArrayImages(NOISE, None, [])
    microbatches = list(
        training_batches(pixels, recipe.views, batch_size=images, seed=0, steps=range(1), micro_batch_size=part)
    )
    first = microbatches[0]
    train_step(engine, [first._replace(images=first.images[:16], index=first.index[:16])])
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (VmHWM) to what is resident now
    before = resident("VmRSS")
    train_step(engine, microbatches)
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    result: dict[str, Any] = {**runs.provenance(), "command": "python benchmarks/plan.py" + " --quick" * quick}
    for name, rows in (("memory", memory()), ("time", time(quick))):
        result[name] = []
        for row in rows:
            print(f"{name}: {json.dumps(row)}", flush=True)
            result[name].append(row)
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
