"""Tries what the four papers claim about their methods at the scale of a CPU, three seeds each, at equal budgets.

python benchmarks/trends.py --labelled cifar10.npz --precision bf16   all runs: about three hours on two cores
python benchmarks/trends.py ... --seeds 1          the first seed of each
python benchmarks/trends.py --gpu --labelled cifar10.npz --precision bf16 --seeds 1 --budget-seconds 480
                                                   at the papers' scale: as many runs as begin within eight minutes
python benchmarks/trends.py --claims               what is expected, without running anything
python benchmarks/trends.py --summary [--gpu]      judges the claims by the runs that are there
python benchmarks/trends.py --toy [--gpu]          minutes on the embedded digits, to see that it works

claims.py says what is expected, and how it is judged. All runs are of one recipe with one setting changed. On a CPU it
is ``small``: they see 200,000 images of the first 10,000 photographs, and their score is k-NN on 2,500 photographs that
none is trained on. With ``--gpu`` it is the method's ``cifar10``: 200 epochs of all 50,000 images, scored on the 10,000
test images. Processors that have bfloat16 are faster in it, and benchmarks/precision.py says what it changes. The
learning rate of another batch goes with the root of its size, as Adam's does. Each run is a line in
docs/results/trends.json or trends_gpu.json as soon as it is known, and is not computed again.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import study_runs
from claims import CLAIMS, SEEDS, Setting, claims_table, judged, of

RESULTS = Path(__file__).parents[1] / "docs" / "results"
IMAGES, HELD_OUT = 10_000, 2500  # of a CPU's runs
SERIES = ("knn_top1", "ldmi")
"""Measures of which each epoch's is kept; of the others the last."""
KEPT = ("embedding_mean_cosine", "embedding_effective_rank", "feature_effective_rank", "ldmi", "seconds")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A frozen dataclass that says how large the runs are."""

    recipe: str
    images_seen: int
    device: str
    out: Path
    granted: Mapping[str, Setting]
    """What the claims take for granted of a method's settings, if its recipe has others."""


CPU = Scale(recipe="small", images_seen=200_000, device="cpu", out=RESULTS / "trends.json", granted={})
GPU = Scale(
    recipe="cifar10",
    images_seen=200 * 50_000,
    device="auto",
    out=RESULTS / "trends_gpu.json",
    granted={"mira": of("mira", prototypes=300), "mveb": Setting("mveb", batch_size=128)},
)


@dataclass(frozen=True)
class Job:
    """A frozen dataclass that holds one run of the study."""

    data: str
    setting: Setting
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """Returns the values that tell its row from others."""
        return {"data": self.data, "setting": self.setting.name, "seed": self.seed}


def jobs(data: str, seeds: int) -> list[Job]:
    """Returns all runs, seed by seed."""
    settings = dict.fromkeys(setting for claim in CLAIMS for setting in claim.settings)
    return [Job(data, setting, seed) for seed in range(seeds) for setting in settings]


def changes_of(setting: Setting, scale: Scale) -> dict[str, Any]:
    """Returns the options of :func:`infomax.pretrain` that make a setting of the scale's recipe."""
    from infomax.recipes.customise import customise_experiment
    from infomax.recipes.registry import get_experiment

    granted = scale.granted.get(setting.method, Setting(setting.method))
    overrides = dict(word.split("=", 1) for word in (*granted.overrides, *setting.overrides))
    batch_size = setting.batch_size or granted.batch_size
    options: dict[str, Any] = {"views": setting.views, "batch_size": batch_size}
    options["overrides"] = tuple(f"{name}={value}" for name, value in overrides.items())
    if batch_size is not None:
        recipe = customise_experiment(get_experiment(scale.recipe, setting.method), images=IMAGES)
        rate = recipe.optimizer.learning_rate * (batch_size / recipe.batch_size) ** 0.5
        options["learning_rate"] = float(f"{rate:.4g}")
    return {key: value for key, value in options.items() if value}


def compute(job: Job, work: Path, scale: Scale, images: int, precision: str, toy: bool) -> dict[str, Any]:
    """Trains and scores one run. It is called in a process of its own."""
    import infomax

    start, options = time.perf_counter(), changes_of(job.setting, scale)
    options |= {"method": job.setting.method, "recipe": scale.recipe, "data": work / f"{job.data}.npz"}
    options |= {"epochs": 2 if toy else max(1, scale.images_seen // images), "seed": job.seed, "workers": 0}
    options |= {"log": ["none"], "device": scale.device, "precision": precision}
    with tempfile.TemporaryDirectory(dir=work) as folder:
        try:
            run = infomax.pretrain(**options, out=Path(folder) / "run", quiet=True)
        except FloatingPointError as error:  # as of a run that diverges, which is a result too
            return {**job.key, "knn_top1": 0.0, "failed": str(error).partition(". ")[0]}
        metrics = run.read_rows("metrics.jsonl")
        (score,) = infomax.evaluate("knn", run, no_baselines=True, no_cache=True, workers=0, out=os.devnull)
    last = {name: row[name] for row in metrics for name in KEPT if name in row}
    series: dict[int, dict[str, float]] = {}
    for row in metrics:
        series.setdefault(row["epoch"], {}).update({name: row[name] for name in SERIES if name in row})
    seconds = round(time.perf_counter() - start, 1)
    kept_series = [{"epoch": epoch, **values} for epoch, values in series.items() if values]
    return {**job.key, "knn_top1": score.top1, **last, "seconds": seconds, "series": kept_series}


def write_images(labelled: Path | None, work: Path, *, whole: bool = False) -> tuple[str, int]:
    """Writes the images to train on and those to score on; returns the data set's name and how many to train on.

    Args:
        labelled: The file of images; None stands for the embedded digits.
        work: The folder to write to.
        whole: Whether to take all images of the file with its test images, in place of some that are held out.
    """
    if labelled is None:
        from infomax.data.sources.arrays import open_digits

        source = open_digits()
        pixels, labels = np.asarray(source.pretraining.pixels), np.asarray(source.train.labels)  # pyrefly: ignore
        name, half = "digits", len(pixels) * 3 // 4
    else:
        name, half = labelled.stem, IMAGES
        with np.load(labelled) as arrays:
            pixels, labels = arrays["train_x"], arrays["train_label"]
            if whole:
                half = len(pixels)
                pixels = np.concatenate([pixels, arrays["test_x"]])
                labels = np.concatenate([labels, arrays["test_label"]])
        end = None if whole else IMAGES + HELD_OUT
        pixels, labels = pixels[:end], labels[:end]
    parts = {"train_x": pixels[:half], "train_y": labels[:half], "test_x": pixels[half:], "test_y": labels[half:]}
    np.savez(work / f"{name}.npz", **parts)
    return name, half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="an .npz file with train_x, train_label, as of CIFAR-10")
    parser.add_argument("--gpu", action="store_true", help="the papers' scale, for which a CPU would take weeks")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--precision", default="32", help="of the networks, as of infomax pretrain")
    parser.add_argument("--claims", action="store_true", help="print what is expected, and run nothing")
    parser.add_argument("--summary", action="store_true", help="judge the claims by the runs that are there")
    study_runs.add_run_options(parser)
    parser.add_argument("--out", type=Path, help="file of the results")
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    scale = GPU if args.gpu else CPU
    out = args.out or scale.out
    if args.claims or args.summary:
        rows = study_runs.Results(out).measured if args.summary else []
        print(claims_table(rows))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        study(args, scale, work, work / "results.json" if args.toy and not args.out else out)


def study(args: argparse.Namespace, scale: Scale, work: Path, out: Path) -> None:
    """Makes all runs that are not there yet, and prints what they tell."""
    if not args.toy and args.labelled is None:
        raise SystemExit("--labelled FILE: an .npz file with train_x and train_label is wanted, as of CIFAR-10")
    results, (data, images) = study_runs.Results(out), write_images(args.labelled, work, whole=args.gpu)
    options = f"{' --gpu' * args.gpu} --labelled cifar10.npz --precision {args.precision}"
    results.begin(f"python benchmarks/trends.py{options}")
    queue = [job for job in jobs(data, args.seeds) if not results.has(job.key)]
    study_runs.run_jobs(compute, queue, (work, scale, images, args.precision, args.toy), results.add, args)
    print(json.dumps(judged([row for row in results.measured if row["data"] == data]), indent=1))


if __name__ == "__main__":
    main()
