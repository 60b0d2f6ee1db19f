"""Searches the settings of the recipes for a CPU, in the same way for each method, so that none is neglected.

python benchmarks/tuning.py                            the embedded digits: an hour on two cores for all methods
python benchmarks/tuning.py --labelled cifar10.npz     10,000 photographs: two hours
python benchmarks/tuning.py --methods simclr byol      some methods alone
python benchmarks/tuning.py --full                     the digits' best trials at the recipes' full length: an hour
python benchmarks/tuning.py --full --labelled cifar10.npz --seeds 1 --precision bf16
                                                       those of photographs at three times the length: an hour
python benchmarks/tuning.py --toy                      a minute, to see that it works

Each method has the same trials on a data set: its recipe as it is, on digits three rates of SGD and three of AdamW, on
photographs one of SGD and three of AdamW, then half and twice the number that weighs its loss, or its temperature, with
the best of those. A rate that the recipe has is not tried again. All have the batch, the encoder and the views of the
recipe, and see a fifth of the digits recipe's images, or 60,000 photographs. A trial's score is k-NN on images that are
in no comparison: a quarter of the digits' training images, and photographs after the first 10,000.

Each trial is a line in docs/results/tuning.json as soon as it is known. What is there is not computed again. Whether a
search in short trainings finds what is good in long ones is tried with --full: the best trial of each method that is a
point better than its recipe is trained beside the recipe as it is, on digits for the recipe's own number of epochs, on
photographs for three times the search's, as the recipe's own would take days (docs/results/tuning_full.json). There
bfloat16 saves a third of the time on processors that have it; benchmarks/precision.py says what it changes.

Settings that are a point better there too are written into the recipes ``digits`` and ``small`` by hand; less may be
chance. ``python docs/results.py tables`` writes the page.
"""

import argparse
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import study_runs

OUT = Path(__file__).parents[1] / "docs" / "results" / "tuning.json"
OUT_FULL = OUT.with_name("tuning_full.json")
LEAST_GAIN = 0.01
"""By how much a trial has to be better than the recipe as it is; less may be chance."""
AS_IT_IS = ("recipe", 0.0)
"""Stands for the optimiser and the rate that the recipe has."""
ADAMW = (("adamw", 0.0007), ("adamw", 0.002), ("adamw", 0.006))
OPTIMISERS = {
    "digits": (AS_IT_IS, ("sgd", 0.03), ("sgd", 0.1), ("sgd", 0.3), *ADAMW),
    "small": (AS_IT_IS, ("sgd", 0.1), *ADAMW),
}
"""The optimisers and rates that are tried, by the recipe. A trial with photographs takes three times as long."""
FACTORS = (0.5, 2.0)
OWN = {
    "mira": ("teacher_temperature",),
    "corinfomax": ("attraction",),
    "carl": ("kl_start", "kl_end"),
    "mveb": ("entropy_weight",),
    "barlow": ("off_diagonal",),
    "byol": ("momentum",),
    "dino": ("teacher_temperature",),
    "emp_ssl": ("invariance",),
    "lejepa": ("weight",),
    "mmcr": ("weight",),
    "ressl": ("teacher_temperature",),
    "self_classifier": ("column_temperature",),
    "spectral": ("mu",),
    "twist": ("diversity",),
    "unigrad": ("weight",),
    "vicreg": ("invariance",),
    "visreg": ("weight",),
}
"""The settings that are halved and doubled; ``temperature`` of methods that are not here and have one."""
BELOW_ONE = {("byol", "momentum"), ("visreg", "weight")}
"""Those of them whose distance from 1 is halved and doubled in their place."""
DIGITS_EPOCHS, IMAGES_SEEN, PHOTOGRAPHS, HELD_OUT = 16, 60_000, 10_000, 2500
FULL_TIMES = 3
"""How many times as many photographs as a trial sees a training by which its settings are tried again."""


@dataclass(frozen=True)
class Trial:
    """A frozen dataclass that says which settings are tried."""

    data: str
    method: str
    optimizer: str
    rate: float
    own: float = 1.0
    """Factor of the method's own setting."""


@dataclass(frozen=True)
class FullTrial(Trial):
    """A frozen dataclass that says which settings are tried in a long training."""

    seed: int = 0


def recipe_name(data: str) -> str:
    """Returns the name of the recipes whose settings are searched on a data set."""
    return "digits" if data == "digits" else "small"


def own_optimiser(recipe: Any) -> tuple[str, float]:
    """Returns the optimiser and the rate that a recipe has."""
    return recipe.optimizer.name, recipe.optimizer.learning_rate


def own_settings(recipe: Any, factor: float) -> list[str]:
    """Returns a method's own settings with a factor, as ``--set`` takes them; none if it has none."""
    settings = []
    for name in OWN.get(recipe.method.name, ("temperature",)):
        if (value := getattr(recipe.method, name, None)) is not None:
            changed = 1 - factor * (1 - value) if (recipe.method.name, name) in BELOW_ONE else factor * value
            settings.append(f"method.{name}={changed:.6g}")
    return settings


def best(rows: list[dict[str, Any]], data: str, method: str) -> dict[str, Any]:
    """Returns the row of a method's best trial."""
    return max((row for row in rows if (row["data"], row["method"]) == (data, method)), key=lambda row: row["knn_top1"])


def run_trial(trial: Trial, work: Path, images: int, precision: str, toy: bool) -> dict[str, Any]:
    """Trains and scores one trial. It is called in a process of its own."""
    import infomax
    from infomax.recipes.customise import customise_experiment
    from infomax.recipes.registry import get_experiment

    name = recipe_name(trial.data)
    recipe = customise_experiment(get_experiment(name, trial.method), images=images)
    overrides = []
    if (trial.optimizer, trial.rate) != AS_IT_IS:
        overrides += [f"optimizer.name={trial.optimizer}", f"optimizer.learning_rate={trial.rate:g}"]
        overrides.append("optimizer.clip_steps=false")  # which is for larc alone
    if trial.own != 1:
        overrides += own_settings(recipe, trial.own)
    epochs = DIGITS_EPOCHS if trial.data == "digits" else max(1, IMAGES_SEEN // images)
    seed = 0
    if isinstance(trial, FullTrial):
        epochs, seed = recipe.epochs if trial.data == "digits" else FULL_TIMES * epochs, trial.seed
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        options: dict[str, Any] = {"data": work / f"{trial.data}.npz", "method": trial.method, "recipe": name}
        options |= {"epochs": 1 if toy else epochs, "workers": 0, "log": ["none"], "device": "cpu", "quiet": True}
        options |= {"seed": seed, "precision": precision}
        try:
            run = infomax.pretrain(**options, overrides=overrides, out=Path(folder) / "run")
            seconds = time.perf_counter() - start
            (score,) = infomax.evaluate("knn", run, no_baselines=True, no_cache=True, workers=0, out=os.devnull)
        except FloatingPointError as error:  # a rate that is too high is a result too
            return {**asdict(trial), "knn_top1": 0.0, "failed": str(error).partition(". ")[0]}
    return {**asdict(trial), "epochs": epochs, "knn_top1": score.top1, "seconds": round(seconds, 1)}


def write_images(labelled: Path | None, work: Path) -> str:
    """Writes the images to train on and those that are held out, and returns the data set's name."""
    if labelled is None:
        from infomax.data.sources.arrays import open_digits

        source = open_digits()
        pixels, labels = np.asarray(source.pretraining.pixels), np.asarray(source.train.labels)  # pyrefly: ignore
        name, half = "digits", len(pixels) * 3 // 4
    else:
        with np.load(labelled) as arrays:
            rows = slice(PHOTOGRAPHS, 2 * PHOTOGRAPHS + HELD_OUT)
            pixels, labels = arrays["train_x"][rows], arrays["train_label"][rows]
        name, half = labelled.stem, PHOTOGRAPHS
    parts = {"train_x": pixels[:half], "train_y": labels[:half], "test_x": pixels[half:], "test_y": labels[half:]}
    np.savez(work / f"{name}.npz", **parts)
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="an .npz file with train_x, train_label, as of CIFAR-10")
    parser.add_argument("--methods", nargs="+", help="default: all")
    study_runs.add_run_options(parser)
    parser.add_argument("--full", action="store_true", help="the best trials in long trainings")
    parser.add_argument("--seeds", type=int, default=2, help="of each long training")
    parser.add_argument("--precision", default="32", help="of the networks, as of infomax pretrain")
    parser.add_argument(
        "--out", type=Path, help=f"default: {OUT.name}, and with --full {OUT_FULL.name}, in docs/results"
    )
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    out = args.out or (OUT_FULL if args.full else OUT)
    with tempfile.TemporaryDirectory() as temporary:
        work, out = Path(temporary), Path(temporary) / "results.json" if args.toy else out
        data = write_images(args.labelled, work)
        results = study_runs.Results(out)
        results.begin(command(args))
        (study_at_full_length if args.full else study)(args, data, work, results)


def command(args: argparse.Namespace) -> str:
    """Returns the command that makes the same results, without the folders of this machine."""
    words = f"python benchmarks/tuning.py{' --full' * args.full}"
    words += f" --labelled {args.labelled.name}" if args.labelled else ""
    return words + (f" --precision {args.precision}" if args.precision != "32" else "")


def count_images(data: str, work: Path) -> int:
    """Returns the number of images to train on."""
    with np.load(work / f"{data}.npz") as arrays:
        return len(arrays["train_x"])


def study_at_full_length(args: argparse.Namespace, data: str, work: Path, results: study_runs.Results) -> None:
    """Trains each method's best trial beside its recipe as it is in long trainings, if it was clearly better."""
    from infomax.recipes.registry import METHODS

    rows = study_runs.Results(OUT).measured
    queue = []
    for seed in range(args.seeds):
        for method in args.methods or [*METHODS]:
            chosen = best(rows, data, method)
            as_it_is = Trial(data, method, *AS_IT_IS)
            (reference,) = (row for row in rows if asdict(as_it_is).items() <= row.items())
            if chosen["knn_top1"] - reference["knn_top1"] >= LEAST_GAIN:
                settings = {key: chosen[key] for key in Trial.__dataclass_fields__}
                queue += [FullTrial(**settings, seed=seed), FullTrial(**asdict(as_it_is), seed=seed)]
    shared = (work, count_images(data, work), args.precision, args.toy)
    study_runs.run_jobs(run_trial, [t for t in queue if not results.has(asdict(t))], shared, results.add, args)


def study(args: argparse.Namespace, data: str, work: Path, results: study_runs.Results) -> None:
    """Makes all trials that are not there yet: first the optimisers of all methods, then their own settings."""
    from infomax.recipes.registry import METHODS, get_recipe

    name = recipe_name(data)
    images = count_images(data, work)
    methods = (args.methods or [*METHODS])[: 2 if args.toy else None]
    optimisers = OPTIMISERS[name][: 2 if args.toy else None]
    shared = (work, images, args.precision, args.toy)
    first = [
        Trial(data, method, *optimiser)
        for optimiser in optimisers
        for method in methods
        if optimiser != own_optimiser(get_recipe(method, name))
    ]
    study_runs.run_jobs(
        run_trial, [trial for trial in first if not results.has(asdict(trial))], shared, results.add, args
    )
    if not all(results.has(asdict(trial)) for trial in first):
        return  # the time is over
    second = []
    for factor in FACTORS:
        for method in methods:
            if own_settings(get_recipe(method, name), factor):
                row = best([row for row in results.measured if row["own"] == 1], data, method)
                second.append(Trial(data, method, row["optimizer"], row["rate"], factor))
    study_runs.run_jobs(
        run_trial, [trial for trial in second if not results.has(asdict(trial))], shared, results.add, args
    )


if __name__ == "__main__":
    main()
