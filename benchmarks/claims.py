"""Holds what the four papers claim about their methods' settings, what is expected here, and the rules that judge it.

``trends.py`` makes the runs. What is expected of each claim, and the rule that judges it, were written and committed
before the first run; a claim that was added later says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

import numpy as np

SEEDS = 3
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t for 95 % by degrees of freedom."""
SAME = 2.0  # points of k-NN; what differs by less is called the same
COLLAPSED = 0.95  # mean cosine of the embeddings from which they are collapsed
RISING = 0.5  # Spearman's correlation from which two measures rise together


@dataclass(frozen=True)
class Setting:
    """A frozen dataclass that says what is trained: a method's recipe with a setting changed."""

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
SIMCLR_64 = of("simclr", dimension=64)
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
        "an EMA teacher is better than none",
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
        "corinfomax-spectrum-of-one-width",
        "CorInfoMax, App. K",
        "its spectrum stays full where that of SimCLR with as many outputs falls",
        "the effective rank of its 64 outputs is higher than that of SimCLR's 64 in all seeds; added after the first "
        "seed, which showed that the claim before this one compares 64 outputs with 128",
        (CORINFOMAX, SIMCLR_64),
        fuller_spectrum(CORINFOMAX, SIMCLR_64),
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
