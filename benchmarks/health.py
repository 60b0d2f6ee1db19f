"""Measures what it costs to measure a run's health, by method. Writes docs/results/health.json.

python benchmarks/health.py          minutes, on a machine that does nothing else
python benchmarks/health.py --toy    one recipe, few repeats, to see that it works; writes to --out alone

For each recipe: the seconds of a step, of a step of which only prototypes are counted, and of a measurement, in turns;
the interval that follows, and the share of a whole run; the tensor operations of each kind of step; and how often the
host would have to wait for a GPU in it, beside the one wait of every step.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from turns import turns

from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.data.loading.workers import Batch
from infomax.recipes.customise import customise
from infomax.recipes.registry import METHODS, get_recipe
from infomax.recipes.schema import Recipe
from infomax.runs import run_folder as runs
from infomax.training.engine import Engine
from infomax.training.health import FIRST_STEPS, LEAST_INTERVAL, Health, next_measurement
from infomax.training.loop import train_step
from infomax.training.output_observer import OutputObserver

OUT = Path(__file__).parents[1] / "docs" / "results" / "health.json"
RECIPES = {"digits": 1438, "small": 5_000}  # images of an epoch
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "_linalg_check_errors")
SPREAD = (0.25, 0.5, 0.75)
warnings.filterwarnings("ignore", "a batch of .* gives a poor covariance")  # no covariance matters here


class Operations(TorchDispatchMode):
    """A mode that counts the operations on tensors, and those whose result the host would have to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        self.waits += func.overloadpacket.__name__ in WAITS
        return func(*args, **(kwargs or {}))


class Training:
    """One recipe at work: its engine, a batch, and its health.

    Args:
        recipe: The recipe.
        images: Images of an epoch.
    """

    def __init__(self, recipe: Recipe, images: int):
        steps = images // recipe.batch_size
        self.recipe, self.total = recipe, recipe.epochs * steps
        self.engine = Engine(recipe, steps_per_epoch=steps, device=torch.device("cpu"))
        side = recipe.views.global_crops[0].size
        pixels = np.random.default_rng(0).integers(0, 256, (recipe.batch_size, side, side, 3), np.uint8)
        (self.batch,) = training_batches(
            ArrayImages(pixels, None, []), recipe.views, batch_size=len(pixels), seed=0, steps=range(1)
        )
        self.health = Health(
            self.engine.method,
            batch_size=recipe.batch_size,
            steps_per_epoch=steps,
            total_steps=self.total,
            done=0,
        )
        self.seen = self.step(self.observer(measured=True))  # which the measurements are of

    def observer(self, *, measured: bool) -> OutputObserver | None:
        """Returns what observes a step that is measured, or one that is not."""
        self.health.next_step = 0 if measured else self.total
        return self.health.observer(0)

    def step(self, observer: OutputObserver | None) -> OutputObserver | None:
        """Makes one step; at a rate that has no time to warm up, noise may be too hard."""
        batch: Batch = self.batch
        try:
            train_step(self.engine, [batch], observer=observer)
        except FloatingPointError:
            self.engine.skip()
        return observer

    def measure(self) -> None:
        """Measures the step that was seen at the start."""
        assert self.seen is not None
        self.health.measure(self.seen, 0)

    def operations(self, function: Callable[[], Any]) -> dict[str, int]:
        """Returns how many operations a call makes, and how many of them a host would wait for."""
        with Operations() as counted:
            function()
        return {"operations": counted.count, "waits": counted.waits}


def measured_share(total: int, interval: int) -> tuple[int, float]:
    """Returns how often a run is measured, and the measurements in a step."""
    step, count = 0, 0
    while step < total:
        count, step = count + 1, next_measurement(step, total, interval)
    return count, count / total


def row(name: str, method: str, repeats: int) -> dict[str, Any]:
    training = Training(customise(get_recipe(method, name), precision="32"), RECIPES[name])
    seconds = turns(
        {
            "step": lambda: training.step(None),
            "counting": lambda: training.step(training.observer(measured=False)),
            "observing": lambda: training.step(training.observer(measured=True)),
            "measurement": training.measure,
        },
        repeats,
    )
    step, counting, observing, measurement = (float(np.median(x)) for x in seconds.values())
    cost = measurement + max(0.0, observing - counting)
    interval = int(np.ceil(LEAST_INTERVAL * measurement / step))
    count, frequency = measured_share(training.total, interval)
    low, middle, high = np.quantile(seconds["counting"] / seconds["step"] - 1, SPREAD).tolist()
    counted = {
        "step": training.operations(lambda: training.step(None)),
        "counting": training.operations(partial(lambda x: training.step(x), training.observer(measured=False))),
        "observing": training.operations(partial(lambda x: training.step(x), training.observer(measured=True))),
        "measurement": training.operations(training.measure),
    }
    return {
        "recipe": name,
        "method": method,
        "batch": training.recipe.batch_size,
        "rows": min(512, training.recipe.batch_size),
        "steps": training.total,
        "seconds_of_step": step,
        "seconds_of_measurement": cost,
        "steps_between_measurements": max(interval, training.total // 100),
        "measurements": count,
        "measurements_at_the_start": len([x for x in FIRST_STEPS if x < training.total]),
        "share_of_counting": middle,
        "quartiles_of_counting": [low, high],
        "share_of_run": frequency * cost / step,
        "counted": counted,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    names, repeats = (("digits",), 3) if arguments.toy else (tuple(RECIPES), 0)
    command = "python benchmarks/health.py" + " --toy" * arguments.toy
    result: dict[str, Any] = {**runs.provenance(), "command": command, "threads": torch.get_num_threads(), "rows": []}
    for name in names:
        for method in METHODS:
            times = repeats or {"digits": 30, "small": 9}[name]
            result["rows"].append(row(name, method, times))
            print(json.dumps(result["rows"][-1]), flush=True)
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
