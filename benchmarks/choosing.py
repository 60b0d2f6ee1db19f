"""Measures how well runs are chosen without labels: correlations with k-NN, and what a choice loses, by method.

python benchmarks/choosing.py                                half an hour on two cores: the embedded digits
python benchmarks/choosing.py --labelled cifar10.npz         hours: 10,000 images, half of them to train on
python benchmarks/choosing.py --budget-seconds 1800          starts no run after that time; the same command goes on
python benchmarks/choosing.py --toy                          a minute, to see that it works
python benchmarks/choosing.py --summary                      only writes what choose and the page read, from the rows

A run is one of a method with a factor on its learning rate and one on the weight of its own loss, and a seed. Its
encoder is kept after 25, 50, 75 and 100 % of the epochs. Each of these is measured as ``infomax choose`` measures it,
on training images without labels, and scored by k-NN on held-out images. Settings come first with all methods, then the
next settings, so that an early end leaves a smaller study and no half of one.

Each measured encoder is a line in docs/results/choosing.json as soon as it is known. What is there is not computed
again. At the end a summary is written to src/infomax/experiments/choosing.json, which ``infomax choose`` reads, and of
which ``python docs/results.py tables`` makes the page.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import study_runs

ROOT = Path(__file__).parents[1]
OUT, SUMMARY = ROOT / "docs" / "results" / "choosing.json", ROOT / "src" / "infomax" / "experiments" / "choosing.json"
METHODS = ("mira", "corinfomax", "carl", "mveb")
WEIGHTS: dict[str, tuple[tuple[str, ...], dict[float, float]]] = {
    "mira": (("beta",), {0.3: 0.3, 1.0: 1.0, 3.0: 1.35}),
    "corinfomax": (("attraction",), {0.3: 0.3, 1.0: 1.0, 3.0: 3.0}),
    "carl": (("kl_start", "kl_end"), {0.3: 0.3, 1.0: 1.0, 3.0: 3.0}),
    "mveb": (("entropy_weight",), {0.3: 0.3, 1.0: 1.0, 3.0: 3.0}),
}
"""Settings that weigh a method's own loss, and the factors that stand for 0.3, 1 and 3. MIRA's beta must be below 1."""
SETTINGS = ((1.0, 1.0), (0.3, 1.0), (3.0, 1.0), (1.0, 0.3), (1.0, 3.0))
CORNERS = ((0.3, 0.3), (0.3, 3.0), (3.0, 0.3), (3.0, 3.0))
SHARES = (0.25, 0.5, 0.75, 1.0)
LABELLED_IMAGES, DIGITS_EPOCHS, LABELLED_EPOCHS, IMAGES = 10_000, 20, 24, 1000
RESAMPLES = 1000  # of the bootstrap
RULES = ("last", "lowest loss", "random")
"""What a measure is compared with. Among whole runs, the recipe's own settings stand for ``last``."""


@dataclass(frozen=True)
class Job:
    """A frozen dataclass that says which run is trained."""

    data: str
    method: str
    rate: float
    """Factor of the recipe's learning rate."""
    weight: float
    """Factor of the weight of the method's own loss; of MIRA, 3 stands for 1.35."""
    seed: int
    epochs: int


def jobs(data: str, epochs: int) -> list[Job]:
    """Returns all runs of the study on one data set: each setting with seed 0, the recipe's own with two more."""
    settings = [(*setting, 0) for setting in SETTINGS] + [(1.0, 1.0, 1), (1.0, 1.0, 2)]
    settings += [(*setting, 0) for setting in CORNERS]
    return [Job(data, method, *setting, epochs) for setting in settings for method in METHODS]


def changes(job: Job, recipe: Any) -> list[str]:
    """Returns the settings of a run, as ``--set`` takes them."""
    names, factors = WEIGHTS[job.method]
    settings = [f"optimizer.learning_rate={job.rate * recipe.optimizer.learning_rate:.6g}"]
    return settings + [f"method.{name}={factors[job.weight] * getattr(recipe.method, name):.6g}" for name in names]


def train_and_measure(job: Job, work: Path, images: int) -> list[dict[str, Any]]:
    """Trains one run, and returns a row for each encoder that it kept. It is called in a process of its own."""
    import infomax
    from infomax.data.splits import preview_images
    from infomax.evaluation.options import ComputeOptions
    from infomax.experiments import label_free
    from infomax.recipes.customise import customise_experiment
    from infomax.recipes.registry import get_experiment

    start, data = time.perf_counter(), "digits" if job.data == "digits" else work / f"{job.data}.npz"
    name = "digits" if job.data == "digits" else "small"
    recipe = customise_experiment(get_experiment(name, job.method), images=images, epochs=job.epochs)
    keep = sorted({max(1, round(share * job.epochs)) for share in SHARES})
    folder = "-".join(map(str, vars(job).values()))
    options: dict[str, Any] = {"data": data, "method": job.method, "recipe": name, "seed": job.seed, "workers": 0}
    options |= {"epochs": job.epochs, "keep_epochs": keep, "log": ["none"], "device": "cpu", "quiet": True}
    options["batch_size"] = min(recipe.batch_size, images // 2)
    overrides = changes(job, recipe)
    run = infomax.pretrain(**options, overrides=overrides, out=work / "runs" / folder, resume=True)
    seconds, rows = time.perf_counter() - start, []
    source = run.location.open()
    measured_on = label_free.sample_images(preview_images(source), IMAGES)
    compute = ComputeOptions(device="cpu", workers=0, no_cache=True)
    for epoch in keep:
        encoder = run.kept_encoder(epoch)
        steps = run.recipe.steps(run.config["images"]) // job.epochs * epoch
        values = label_free.measure_features(encoder, run, measured_on, compute, quiet=True)
        (score,) = infomax.evaluate("knn", encoder, no_baselines=True, no_cache=True, workers=0, out=os.devnull)
        collapse = label_free.collapse_of(run, run.path if epoch == job.epochs else encoder)
        measures = values | label_free.measure_metrics(run, steps)
        rows.append(
            {
                **asdict(job),
                "epoch": epoch,
                "steps": steps,
                "images": len(measured_on),
                "test_images": score.test_images,
                "knn_top1": score.top1,
                "collapse": collapse,
                "measures": {name: float(f"{value:.6g}") for name, value in measures.items()},
                "seconds": round(seconds, 1),
            }
        )
    return rows


# ---- What the rows say


def groups(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what was found: for each data set, for each method and all of them, with and without collapsed runs."""
    found = []
    for data in dict.fromkeys(row["data"] for row in rows):
        for method in (*METHODS, "all"):
            for with_collapsed in (False, True):
                own = [row for row in rows if row["data"] == data and method in (row["method"], "all")]
                runs = complete_runs(own)
                if not with_collapsed:
                    runs = [run for run in runs if not run[-1]["collapse"]]
                if len(runs) > 2:
                    words = {"data": data, "method": method, "with_collapsed": with_collapsed}
                    found.append({**words, **group(runs)})
    return found


def complete_runs(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Returns the rows of each run all of whose encoders are measured, by epoch."""
    by_run: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        by_run.setdefault(tuple(row[key] for key in Job.__dataclass_fields__), []).append(row)
    ordered = [sorted(run, key=lambda row: row["epoch"]) for run in by_run.values()]
    return [run for run in ordered if run[-1]["epoch"] == run[-1]["epochs"] and len(run) == len(ordered[0])]


def group(runs: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Returns what some runs show: the correlations of each measure, and what its choices and those of rules lose."""
    from infomax.experiments.label_free import MEASURES

    knn = np.array([[row["knn_top1"] for row in run] for run in runs])
    resamples = np.random.default_rng(0).multinomial(len(runs), np.full(len(runs), 1 / len(runs)), RESAMPLES)
    weights = np.concatenate([np.ones((1, len(runs)), int), resamples])  # the first one is the sample itself
    last = lost_within(knn, np.full(len(runs), knn.shape[1] - 1))
    rules: dict[str, Any] = {
        "last": {**shares("regret_within", mean_over(last, weights)), **own_settings(runs, knn, weights)},
        "random": {
            **shares("regret_within", mean_over(knn.max(1) - knn.mean(1), weights)),
            **shares("regret_among", best_among(knn, weights) - mean_over(knn[:, -1], weights)),
        },
    }
    measures: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        if not all(name in row["measures"] for run in runs for row in run):
            continue
        values = np.array([[measure.score(row["measures"][name]) for row in run] for run in runs])
        lost = lost_within(knn, values.argmax(1))
        difference = mean_over(lost - last, weights)
        high = np.quantile(difference[1:], 0.975)
        losses = {
            **shares("regret_within", mean_over(lost, weights)),
            **shares("regret_among", lost_among(knn, values, weights)),
            **shares("regret_within_above_last", difference),
            "beats_last": bool(high < 0),
        }
        if name == "loss":
            rules["lowest loss"] = losses
        measures[name] = {
            **correlation("spearman", spearman(values.ravel(), knn.ravel(), np.repeat(weights, knn.shape[1], 1))),
            **correlation("kendall", kendall(values.ravel(), knn.ravel(), np.repeat(weights, knn.shape[1], 1))),
            **correlation("spearman_at_end", spearman(values[:, -1], knn[:, -1], weights)),
            **correlation("kendall_at_end", kendall(values[:, -1], knn[:, -1], weights)),
            **losses,
        }
    counts = {"runs": len(runs), "encoders": int(knn.size), "epochs": runs[0][0]["epochs"]}
    return {**counts, "best_knn": float(knn.max()), "rules": rules, "measures": measures}


def own_settings(runs: Sequence[Sequence[dict[str, Any]]], knn: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Returns what the recipes' own settings lose to the best run; nothing if they are not there."""
    own = np.array([(run[-1]["rate"], run[-1]["weight"]) == (1.0, 1.0) for run in runs])
    counts = weights * own
    drawn = counts.sum(1) > 0
    if not drawn[0]:
        return {}
    means = (counts[drawn] @ knn[:, -1]) / counts[drawn].sum(1)
    return shares("regret_among", best_among(knn, weights[drawn]) - means)


def shares(name: str, values: np.ndarray) -> dict[str, Any]:
    """Returns a value and its 95 % interval, of the sample and its resamples, in points of per cent."""
    bounds = np.quantile(values[1:], [0.025, 0.975])
    rounded = [round(100 * float(x), 3) + 0.0 for x in (values[0], *bounds)]  # + 0.0 makes 0 of -0
    return {name: rounded[0], f"{name}_interval": rounded[1:]}


def correlation(name: str, values: np.ndarray) -> dict[str, Any]:
    """Returns a correlation and its 95 % interval; None where one of the two is constant."""
    if not np.isfinite(values[0]):
        return {name: None, f"{name}_interval": None}
    rounded = [round(float(x), 3) for x in (values[0], *np.nanquantile(values[1:], [0.025, 0.975]))]
    return {name: rounded[0], f"{name}_interval": rounded[1:]}


def mean_over(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the mean of a value of each run, in each resample."""
    return weights @ values / weights.sum(1)


def lost_within(knn: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns what the chosen encoder of each run loses to the best one of that run."""
    return knn.max(1) - np.take_along_axis(knn, chosen[:, None], 1)[:, 0]


def best_among(knn: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the best score at the end among the runs of each resample."""
    return np.where(weights > 0, knn[:, -1], -np.inf).max(1)


def lost_among(knn: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns what the run with the largest value at its end loses to the best one, in each resample."""
    chosen = np.where(weights > 0, values[:, -1], -np.inf).argmax(1)
    return best_among(knn, weights) - knn[chosen, -1]


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation in each resample, whose row of ``weights`` says how often each point is in it."""
    ranks = [weighted_ranks(values, weights) for values in (x, y)]
    total = weights.sum(1, keepdims=True)
    a, b = (rank - (weights * rank).sum(1, keepdims=True) / total for rank in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights * a * b).sum(1) / np.sqrt((weights * a * a).sum(1) * (weights * b * b).sum(1))


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the rank of each point in each resample; equal ones have the mean of their ranks."""
    below = (values[None] < values[:, None]) + 0.5 * (values[None] == values[:, None])
    return weights @ below.T


def kendall(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns Kendall's tau-b in each resample; copies of a point are ties with each other."""
    a, b = (np.sign(values[:, None] - values[None]) for values in (x, y))
    both, of_a, of_b = ((weights @ pairs * weights).sum(1) for pairs in (a * b, a * a, b * b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return both / np.sqrt(of_a * of_b)


def write_summary(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Writes what ``infomax choose`` and the page of measurements read."""
    origin, measured = rows[0], [row for row in rows if "commit" not in row]
    total = {data: len(jobs(data, 1)) for data in dict.fromkeys(row["data"] for row in measured)}
    content = {**origin, "runs_planned": total, "images": IMAGES}
    of_groups = ",\n".join(json.dumps(found) for found in groups(measured))
    file.write_text(f'{json.dumps(content)[:-1]}, "groups": [\n{of_groups}\n]}}\n')


# ---- The command


def write_labelled(file: Path, work: Path) -> str:
    """Writes half of 10,000 images to train on and half to be held out, and returns the data set's name."""
    with np.load(file) as arrays:
        pixels, labels = (arrays[key][:LABELLED_IMAGES] for key in ("train_x", "train_label"))
    half = len(pixels) // 2
    parts = {"train_x": pixels[:half], "train_y": labels[:half], "test_x": pixels[half:], "test_y": labels[half:]}
    np.savez(work / f"{file.stem}.npz", **parts)
    return file.stem


class Results(study_runs.Results):
    """The results that are kept: a line for each encoder, and one of provenance before those of a commit."""

    def has(self, wanted: Job) -> bool:
        """Returns whether the last encoder of a run is there."""
        return super().has({**asdict(wanted), "epoch": wanted.epochs})

    def add_all(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keeps and prints the rows of a run."""
        for row in rows:
            self.add(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="an .npz file with train_x, train_label, as of CIFAR-10")
    parser.add_argument("--epochs", type=int, help="of each run; default: 20 on digits, else 24")
    study_runs.add_run_options(parser)
    parser.add_argument("--work", type=Path, help="folder of the images and the runs; default: a temporary one")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--summary", action="store_true", help="only write the summary of what is there")
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        out = Path(temporary) / "results.json" if args.toy else args.out
        results = Results(out)
        if not args.summary:
            study(args, work, results)
        write_summary(results.rows, Path(temporary) / "summary.json" if args.toy else SUMMARY)


def study(args: argparse.Namespace, work: Path, results: Results) -> None:
    """Trains and measures the runs that are not there yet."""
    from infomax.data.sources.location import open_source

    data = "digits" if args.labelled is None else write_labelled(args.labelled, work)
    source = open_source("digits" if data == "digits" else str(work / f"{data}.npz"))
    epochs = args.epochs or (DIGITS_EPOCHS if data == "digits" else LABELLED_EPOCHS)
    queue = jobs(data, 4 if args.toy else epochs)
    if args.toy:
        queue = [job for job in queue if job.rate == job.weight or 1.0 in (job.rate, job.weight)][: 3 * len(METHODS)]
    results.begin("python benchmarks/choosing.py")
    left = [job for job in queue if not results.has(job)]
    shared = (work, len(source.pretraining))
    study_runs.run_jobs(train_and_measure, left, shared, results.add_all, args)


if __name__ == "__main__":
    main()
