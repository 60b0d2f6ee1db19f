"""Compares training in bfloat16 with float32 on a CPU: the time of a step, and what is learned.

python benchmarks/precision.py --labelled cifar10.npz             half an hour of two quiet cores
python benchmarks/precision.py --labelled cifar10.npz --seeds 1   the first seed of each run
python benchmarks/precision.py --toy                              a minute on the embedded digits, to see that it works

Steps of both precisions are made in turn, in one process and on one thread, by processor time. The runs are those of
the recipes ``small`` on the first 10,000 photographs, and see 60,000 images; their score is k-NN on 2,500 that none is
trained on. Each result is a line in docs/results/precision.json as soon as it is known, and is not computed again.
``python docs/results.py tables`` writes the page.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import study_runs
from trends import write_images

OUT = Path(__file__).parents[1] / "docs" / "results" / "precision.json"
METHODS, PRECISIONS = ("mira", "corinfomax", "carl", "mveb", "simclr"), ("32", "bf16")
IMAGES_SEEN, SEEDS, TURNS = 60_000, 2, 15


@dataclass(frozen=True)
class Job:
    """A frozen dataclass that says what is computed: a run of one precision, or the time of steps of both."""

    method: str
    precision: str
    seed: int = 0

    @property
    def key(self) -> dict[str, Any]:
        """Returns the values that tell its row from others."""
        return {"method": self.method, "precision": self.precision, "seed": self.seed}


def step_times(method: str, recipe_name: str, repeats: int) -> dict[str, Any]:
    """Returns how long a step of a recipe takes in each precision."""
    import torch
    from steps import ours
    from turns import row, turns

    from infomax.recipes.customise import customise
    from infomax.recipes.registry import get_recipe

    torch.set_num_threads(1)
    loops = {
        precision: ours(customise(get_recipe(method, recipe_name), precision=precision)) for precision in PRECISIONS
    }
    contestants: dict[str, Callable[[], Any]] = {name: partial(next, loop) for name, loop in loops.items()}
    seconds = turns(contestants, repeats)
    return row(f"{method}/{recipe_name}", seconds, "bf16", "32", batch=get_recipe(method, recipe_name).batch_size)


def compute(job: Job, work: Path, data: str, images: int, toy: bool) -> dict[str, Any]:
    """Trains and scores one run. It is called in a process of its own."""
    import infomax

    start = time.perf_counter()
    options: dict[str, Any] = {"method": job.method, "precision": job.precision, "seed": job.seed, "recipe": "small"}
    options |= {"epochs": 1 if toy else max(1, IMAGES_SEEN // images), "data": work / f"{data}.npz", "device": "cpu"}
    with tempfile.TemporaryDirectory(dir=work) as folder:
        run = infomax.pretrain(**options, workers=0, log=["none"], quiet=True, out=Path(folder) / "run")
        seconds = time.perf_counter() - start
        (score,) = infomax.evaluate("knn", run, no_baselines=True, no_cache=True, workers=0, out=os.devnull)
    return {**job.key, "data": data, "epochs": options["epochs"], "knn_top1": score.top1, "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="an .npz file with train_x, train_label, as of CIFAR-10")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    study_runs.add_run_options(parser)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    if not args.toy and args.labelled is None:
        raise SystemExit("--labelled FILE: an .npz file with train_x and train_label is wanted, as of CIFAR-10")
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        study(args, work, work / "results.json" if args.toy else args.out)


def study(args: argparse.Namespace, work: Path, out: Path) -> None:
    """Times the steps and makes the runs that are not there yet."""
    methods = METHODS[:1] if args.toy else METHODS
    results = study_runs.Results(out)
    results.begin("python benchmarks/precision.py --labelled cifar10.npz")
    for method in methods:
        if not results.has({"name": f"{method}/small"}):
            results.add(step_times(method, "small", 3 if args.toy else TURNS))
    data, images = write_images(args.labelled, work)
    seeds = 1 if args.toy else args.seeds
    jobs = [Job(method, precision, seed) for seed in range(seeds) for method in methods for precision in PRECISIONS]
    queue = [job for job in jobs if not results.has(job.key)]
    study_runs.run_jobs(compute, queue, (work, data, images, args.toy), results.add, args)


if __name__ == "__main__":
    main()
