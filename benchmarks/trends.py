"""Tries what the four papers claim about their methods at the scale of a CPU, three seeds each, at equal budgets.

python benchmarks/trends.py --labelled cifar10.npz --precision bf16   all runs: about three hours on two cores
python benchmarks/trends.py ... --seeds 1              the first seed of each
python benchmarks/trends.py --claims                           what is expected, without running anything
python benchmarks/trends.py --summary                          judges the claims by the runs that are there
python benchmarks/trends.py --toy                              minutes on the embedded digits, to see that it works

What is expected of each claim, and the rule that judges it, stood in this file before the first run. All runs are of
the recipe ``small`` with one setting changed, on the first 10,000 photographs, and see 200,000 images; their score is
k-NN on 2,500 photographs that none is trained on. Processors that have bfloat16 are faster in it, and
benchmarks/precision.py says what it changes. The learning rate of another batch goes with the root of its size, as
Adam's does. Each run is a line in docs/results/trends.json as soon as it is known, and is not computed again.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import study_runs

OUT = Path(__file__).parents[1] / "docs" / "results" / "trends.json"
IMAGES, HELD_OUT, IMAGES_SEEN, SEEDS = 10_000, 2500, 200_000, 3
SERIES = ("knn_top1", "ldmi")
"""Measures of which each epoch's is kept; of the others the last."""
KEPT = ("embedding_mean_cosine", "embedding_effective_rank", "feature_effective_rank", "ldmi", "seconds")
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t for 95 % by degrees of freedom."""
SAME = 2.0  # points of k-NN; what differs by less is called the same
COLLAPSED = 0.95  # mean cosine of the embeddings from which they are collapsed
RISING = 0.5  # Spearman's correlation from which two measures rise together


@dataclass(frozen=True)
class Setting:
    """A frozen dataclass that says what is trained: a method's recipe ``small`` with a setting changed."""

    method: str
    overrides: tuple[str, ...] = ()
    """Changes, as ``--set`` takes them."""
    views: str | None = None
    batch_size: int | None = None

    @property
    def name(self) -> str:
        """Returns words for it, which tell it from all others."""
        words = [*(x.removeprefix("method.") for x in self.overrides)]
        words += [f"views {self.views}"] if self.views else []
        words += [f"batch {self.batch_size}"] if self.batch_size else []
        return f"{self.method} {', '.join(words)}".strip()


def of(method: str, **changes: Any) -> Setting:
    """Returns a method's recipe with some of its own settings changed."""
    overrides = tuple(f"method.{key}={'none' if value is None else value}" for key, value in changes.items())
    return Setting(method, overrides)


Rows = list[dict[str, Any]]
Found = dict[str, Rows]
"""The rows of each setting, by its name."""


@dataclass(frozen=True)
class Outcome:
    """A frozen dataclass that says what the runs tell of a claim."""

    words: str
    """``holds``, ``does not hold`` or ``cannot be told``."""
    evidence: str
    """The numbers that it is told by."""


@dataclass(frozen=True)
class Claim:
    """A frozen dataclass that holds what a paper says, and how it is judged."""

    key: str
    source: str
    """Where it is said."""
    words: str
    expected: str
    """What is expected at this scale; written before the runs."""
    settings: tuple[Setting, ...]
    judge: Callable[[Found], Outcome] = field(compare=False)


def differences(first: Rows, second: Rows) -> tuple[float, float, float]:
    """Returns the mean difference of two settings in points of k-NN, and its 95 % interval over the common seeds.

    With one seed in common the interval is infinite.
    """
    by_seed = [{row["seed"]: 100 * row["knn_top1"] for row in rows} for rows in (first, second)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    values = [by_seed[0][seed] - by_seed[1][seed] for seed in seeds]
    if len(values) < 2:
        return (values[0] if values else 0.0), -float("inf"), float("inf")
    half = T_95[len(values) - 1] * stdev(values) / len(values) ** 0.5
    return fmean(values), fmean(values) - half, fmean(values) + half


def shown(name: str, difference: tuple[float, float, float]) -> str:
    """Returns a difference in words, with its interval."""
    mean, low, high = difference
    interval = "one seed" if low == -float("inf") else f"{low:+.1f} to {high:+.1f}"
    return f"{name}: {mean:+.1f} ({interval})"


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Returns the outcome of several parts of one claim: all must hold, and one that does not is enough."""
    words = [outcome.words for outcome in outcomes]
    joint = "cannot be told"
    if "does not hold" in words:
        joint = "does not hold"
    elif set(words) == {"holds"}:
        joint = "holds"
    return Outcome(joint, "; ".join(outcome.evidence for outcome in outcomes))


def higher(first: Setting, second: Setting) -> Callable[[Found], Outcome]:
    """Returns the rule that one setting scores higher than another: the interval of the difference is above 0."""

    def judge(found: Found) -> Outcome:
        difference = differences(found[first.name], found[second.name])
        words = "holds" if difference[1] > 0 else "does not hold" if difference[2] < 0 else "cannot be told"
        return Outcome(words, shown(f"{first.name} over {second.name}", difference))

    return judge


def alike(*settings: Setting) -> Callable[[Found], Outcome]:
    """Returns the rule that settings score alike: the interval of each two's difference is within :data:`SAME`."""

    def judge(found: Found) -> Outcome:
        outcomes = []
        for first, second in pairwise(settings):
            difference = differences(found[second.name], found[first.name])
            _, low, high = difference
            words = "cannot be told"
            if low >= -SAME and high <= SAME:
                words = "holds"
            elif low > SAME or high < -SAME:
                words = "does not hold"
            outcomes.append(Outcome(words, shown(f"{second.name} over {first.name}", difference)))
        return joined(outcomes)

    return judge


def best_inside(*settings: Setting) -> Callable[[Found], Outcome]:
    """Returns the rule that the best of settings in order is neither the first nor the last, and better than both."""

    def judge(found: Found) -> Outcome:
        means = [fmean(row["knn_top1"] for row in found[x.name]) for x in settings]
        best = settings[int(np.argmax(means))]
        if best in (settings[0], settings[-1]):
            inner = settings[1 + int(np.argmax(means[1:-1]))]
            difference = differences(found[best.name], found[inner.name])
            words = "does not hold" if difference[1] > 0 else "cannot be told"
            return Outcome(words, f"the best is at an end; {shown(f'{best.name} over {inner.name}', difference)}")
        return joined([higher(best, settings[0])(found), higher(best, settings[-1])(found)])

    return judge


def collapses(setting: Setting) -> Callable[[Found], Outcome]:
    """Returns the rule that a setting collapses: the embeddings of each seed have a mean cosine near 1."""

    def judge(found: Found) -> Outcome:
        cosines = [row["embedding_mean_cosine"] for row in found[setting.name]]
        evidence = f"{setting.name}: mean cosine {', '.join(f'{x:.2f}' for x in cosines)}"
        if all(x >= COLLAPSED for x in cosines):
            return Outcome("holds", evidence)
        return Outcome("does not hold" if all(x < COLLAPSED for x in cosines) else "cannot be told", evidence)

    return judge


def fuller_spectrum(first: Setting, second: Setting) -> Callable[[Found], Outcome]:
    """Returns the rule that the embeddings of one setting have a higher effective rank than another's in all seeds."""

    def judge(found: Found) -> Outcome:
        ranks = [[row["embedding_effective_rank"] for row in found[x.name]] for x in (first, second)]
        evidence = f"effective rank {fmean(ranks[0]):.1f} of {first.name}, {fmean(ranks[1]):.1f} of {second.name}"
        if min(ranks[0]) > max(ranks[1]):
            return Outcome("holds", evidence)
        return Outcome("does not hold" if max(ranks[0]) < min(ranks[1]) else "cannot be told", evidence)

    return judge


def rises_with_accuracy(setting: Setting, measure: str) -> Callable[[Found], Outcome]:
    """Returns the rule that a measure rises with k-NN over the epochs of each run."""

    def judge(found: Found) -> Outcome:
        from scipy.stats import spearmanr

        correlations = []
        for row in found[setting.name]:
            points = [(x[measure], x["knn_top1"]) for x in row["series"] if measure in x and "knn_top1" in x]
            correlations.append(float(spearmanr(*zip(*points, strict=True)).statistic) if len(points) > 2 else 0.0)
        evidence = f"Spearman over the epochs {', '.join(f'{x:+.2f}' for x in correlations)}"
        if all(x > RISING for x in correlations):
            return Outcome("holds", evidence)
        return Outcome("does not hold" if all(x <= 0 for x in correlations) else "cannot be told", evidence)

    return judge


def all_of(*judges: Callable[[Found], Outcome]) -> Callable[[Found], Outcome]:
    """Returns the rule that several rules hold."""
    return lambda found: joined([judge(found) for judge in judges])


MIRA, CORINFOMAX, CARL, MVEB, SIMCLR = (Setting(x) for x in ("mira", "corinfomax", "carl", "mveb", "simclr"))
ITERATIONS = tuple(of("mira", iterations=n) for n in (1, 3, 30))
PROTOTYPES = tuple(of("mira", prototypes=k) for k in (10, 30, 100, 1000, 3000))
NO_TEACHER, MULTI_CROP = of("mira", momentum=None), Setting("mira", views="mira-cifar:2+4")
ATTRACTIONS = tuple(of("corinfomax", attraction=a) for a in (25, 80, 800, 2500))
NO_KL, CONSTANT_1, CONSTANT_2, FALLING = (
    of("carl", kl_start=start, kl_end=end) for start, end in ((0, 0), (1, 1), (2, 2), (2, 1))
)
CLASSES = tuple(of("carl", prototypes=k) for k in (10, 30, 300, 1000))
ENTROPIES = tuple(of("mveb", entropy_weight=w) for w in (0.001, 0.003, 0.03, 0.1))
BATCHES = tuple(Setting("mveb", batch_size=size) for size in (32, 64, 256, 512))

CLAIMS = (
    Claim(
        "mira-iterations",
        "MIRA, Table 15",
        "1, 3 or 30 fixed-point iterations hardly differ",
        f"they differ by less than {SAME:g} points: the targets of one iteration lie near the fixed point",
        ITERATIONS,
        alike(*ITERATIONS),
    ),
    Claim(
        "mira-prototypes",
        "MIRA, Table 14",
        "more prototypes help up to a point",
        "300 are better than 10, and 3,000 differ from 1,000 by less than 2 points",
        (*PROTOTYPES, MIRA),
        all_of(higher(MIRA, PROTOTYPES[0]), alike(PROTOTYPES[-2], PROTOTYPES[-1])),
    ),
    Claim(
        "mira-teacher",
        "MIRA, Table 6",
        "a teacher helps",
        "an EMA teacher of momentum 0.9 is better than none",
        (MIRA, NO_TEACHER),
        higher(MIRA, NO_TEACHER),
    ),
    Claim(
        "mira-multi-crop",
        "MIRA, Table 6",
        "multi-crop helps",
        "four local crops beside two global ones help at the same number of images, for more time",
        (MIRA, MULTI_CROP),
        higher(MULTI_CROP, MIRA),
    ),
    Claim(
        "corinfomax-attraction",
        "CorInfoMax, Eq. 6 and its search",
        "there is an optimum of alpha",
        "the best of 25, 80, 250, 800 and 2500 is neither the first nor the last, and better than both",
        (*ATTRACTIONS, CORINFOMAX),
        best_inside(*ATTRACTIONS[:2], CORINFOMAX, *ATTRACTIONS[2:]),
    ),
    Claim(
        "corinfomax-spectrum",
        "CorInfoMax, App. K",
        "its spectrum stays full where SimCLR's falls",
        "the effective rank of its embeddings is higher than SimCLR's in all seeds",
        (CORINFOMAX, SIMCLR),
        fuller_spectrum(CORINFOMAX, SIMCLR),
    ),
    Claim(
        "corinfomax-ldmi",
        "CorInfoMax, App. L",
        "LDMI rises with accuracy",
        f"Spearman's correlation over the epochs is above {RISING:g} in all seeds",
        (CORINFOMAX,),
        rises_with_accuracy(CORINFOMAX, "ldmi"),
    ),
    Claim(
        "carl-collapse",
        "CARL, Eq. 5",
        "without the KL term it collapses",
        f"a mean cosine of {COLLAPSED:g} or more in all seeds",
        (NO_KL,),
        collapses(NO_KL),
    ),
    Claim(
        "carl-falling-weight",
        "CARL, Fig. 2",
        "a falling weight beats a constant one",
        "from 2 to 1 is better than 1 and than 2",
        (FALLING, CONSTANT_1, CONSTANT_2),
        all_of(higher(FALLING, CONSTANT_1), higher(FALLING, CONSTANT_2)),
    ),
    Claim(
        "carl-classes",
        "CARL, Fig. 3",
        "ten times the classes is a good number of clusters",
        "100 clusters are better than 10 and than 1,000",
        (*CLASSES, CARL),
        all_of(higher(CARL, CLASSES[0]), higher(CARL, CLASSES[-1])),
    ),
    Claim(
        "mveb-collapse",
        "MVEB, Fig. 4",
        "at a weight of 0.001 it collapses",
        f"a mean cosine of {COLLAPSED:g} or more in all seeds",
        (ENTROPIES[0],),
        collapses(ENTROPIES[0]),
    ),
    Claim(
        "mveb-weight",
        "MVEB, Fig. 4",
        "a weight near 0.01 is best",
        "the best of 0.001, 0.003, 0.01, 0.03 and 0.1 is neither the first nor the last, and better than both",
        (*ENTROPIES, MVEB),
        best_inside(*ENTROPIES[:2], MVEB, *ENTROPIES[2:]),
    ),
    Claim(
        "mveb-batch",
        "MVEB, Table 6",
        "it depends little on the batch",
        f"batches of 32 to 512 differ by less than {SAME:g} points from each other's next",
        (*BATCHES, MVEB),
        alike(*BATCHES[:2], MVEB, *BATCHES[2:]),
    ),
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


def compute(job: Job, work: Path, images: int, precision: str, toy: bool) -> dict[str, Any]:
    """Trains and scores one run. It is called in a process of its own."""
    import infomax
    from infomax.recipes.customise import customise_experiment
    from infomax.recipes.registry import get_experiment

    setting, start = job.setting, time.perf_counter()
    options: dict[str, Any] = {"overrides": setting.overrides, "views": setting.views, "batch_size": setting.batch_size}
    options = {key: value for key, value in options.items() if value}
    if setting.batch_size is not None:
        recipe = customise_experiment(get_experiment("small", setting.method), images=images)
        rate = recipe.optimizer.learning_rate * (setting.batch_size / recipe.batch_size) ** 0.5
        options["learning_rate"] = float(f"{rate:.4g}")
    options |= {"epochs": 2 if toy else max(1, IMAGES_SEEN // images), "seed": job.seed, "method": setting.method}
    options |= {"data": work / f"{job.data}.npz", "recipe": "small", "workers": 0, "log": ["none"], "device": "cpu"}
    options["precision"] = precision
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


def write_images(labelled: Path | None, work: Path) -> tuple[str, int]:
    """Writes the images to train on and those that are held out; returns the data set's name and how many to train."""
    if labelled is None:
        from infomax.data.sources.arrays import open_digits

        source = open_digits()
        pixels, labels = np.asarray(source.pretraining.pixels), np.asarray(source.train.labels)  # pyrefly: ignore
        name, half = "digits", len(pixels) * 3 // 4
    else:
        with np.load(labelled) as arrays:
            rows = slice(0, IMAGES + HELD_OUT)
            pixels, labels = arrays["train_x"][rows], arrays["train_label"][rows]
        name, half = labelled.stem, IMAGES
    parts = {"train_x": pixels[:half], "train_y": labels[:half], "test_x": pixels[half:], "test_y": labels[half:]}
    np.savez(work / f"{name}.npz", **parts)
    return name, half


def judged(rows: Rows) -> list[dict[str, Any]]:
    """Returns what the rows of one data set tell of each claim; a claim without all of its runs is not judged."""
    found: Found = {}
    for row in rows:
        found.setdefault(row["setting"], []).append(row)
    outcomes = []
    for claim in CLAIMS:
        seeds = min(len(found.get(setting.name, ())) for setting in claim.settings)
        outcome = claim.judge(found) if seeds else Outcome("not tried yet", "")
        outcomes.append({"claim": claim.key, "seeds": seeds, **asdict(outcome)})
    return outcomes


def claims_table(rows: Rows) -> str:
    """Returns the claims, what was expected and what came out, in Markdown."""
    lines = ["| claim | where | expected here | outcome | evidence, points of k-NN | seeds |", "| --- " * 6 + "|"]
    for claim, outcome in zip(CLAIMS, judged(rows), strict=True):
        words = outcome["words"] + (" so far" if 0 < outcome["seeds"] < SEEDS else "")
        cells = (claim.words, claim.source, claim.expected, words, outcome["evidence"], outcome["seeds"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, help="an .npz file with train_x, train_label, as of CIFAR-10")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--precision", default="32", help="of the networks, as of infomax pretrain")
    parser.add_argument("--claims", action="store_true", help="print what is expected, and run nothing")
    parser.add_argument("--summary", action="store_true", help="judge the claims by the runs that are there")
    study_runs.add_run_options(parser)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    if args.claims or args.summary:
        rows = study_runs.Results(args.out).rows[1:] if args.summary else []
        print(claims_table(rows))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        study(args, Path(temporary), Path(temporary) / "results.json" if args.toy else args.out)


def study(args: argparse.Namespace, work: Path, out: Path) -> None:
    """Makes all runs that are not there yet, and prints what they tell."""
    from infomax.runs.provenance import provenance
    from infomax.runtime.json_lines import append_json_line

    if not args.toy and args.labelled is None:
        raise SystemExit("--labelled FILE: an .npz file with train_x and train_label is wanted, as of CIFAR-10")
    if not out.exists():
        words = f"python benchmarks/trends.py --labelled cifar10.npz --precision {args.precision}"
        append_json_line(out, {**provenance(), "command": words})
    results, (data, images) = study_runs.Results(out), write_images(args.labelled, work)
    queue = [job for job in jobs(data, args.seeds) if not results.has(job.key)]
    study_runs.run_jobs(compute, queue, (work, images, args.precision, args.toy), results.add, args)
    print(json.dumps(judged([row for row in results.rows[1:] if row["data"] == data]), indent=1))


if __name__ == "__main__":
    main()
