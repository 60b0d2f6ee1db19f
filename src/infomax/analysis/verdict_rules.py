"""Rules of verdicts on a training: which rows of the metrics show what, in which words, and what to change.

A rule is one entry of :data:`RULES`; ``analysis/verdicts.py`` applies them. All thresholds were calibrated by
``benchmarks/verdicts.py``; docs/decisions.md says why they are what they are.
"""

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from statistics import median
from typing import Any, Literal

Name = Literal[
    "total collapse",
    "dimensional collapse",
    "cluster collapse",
    "uniform assignment",
    "dead prototypes",
    "divergence",
    "rate too high",
    "starved",
    "equal images",
    "equal views",
    "near-duplicates",
]
State = Literal["watching", "warning", "failed", "withdrawn"]
Level = Literal["healthy", "warning", "failed", "unknown"]
Row = Mapping[str, Any]

MAX = sys.float_info.max  # what is larger is infinite, or a whole number that no float holds
IN_A_ROW = 3  # measurements that must agree: a single one may be an accident of its batch
FIRST_STEP = 30  # healthy runs look collapsed until step 20
FIRST_SHARE = 0.05  # of the run; before it a long warm-up may look like no learning
POINT_COSINE = 0.96  # mean cosine of embeddings; healthy MIRA passed .951, MIRA with beta 0 stays at .967
POINT_LEVEL = 0.8  # collapse level of embeddings: their spread is a fifth of that of an isotropic distribution
FAILED_COSINE = 0.995  # nothing that reached it and stayed came back
RECOVERING = 3.0  # factor by which 1 - cosine grows over three measurements while a run leaves a collapse
FEW_DIMENSIONS = 0.25  # share of the untrained rank; healthy CorInfoMax falls to .37 of it and comes back
FEW_CLUSTERS = 0.5  # share of the largest entropy that the mean assignment can have
ONE_CLUSTER = 0.1  # share below which hardly more than a cluster is left
LEAST_PROTOTYPES = 10  # with fewer, an entropy of half its largest value can be right
LEAST_INFORMATION = 0.01  # share of ln K; healthy MIRA is at .004 at step 30 and then leaves
GUESSING = 0.998  # share of ln K: a loss at least so large is that of assigning all images alike
UNIFORM_STEP, UNIFORM_SHARE = 60, 0.08  # step and share of the run before which healthy MIRA and CARL are uniform too
LEAVING = 1.4  # factor by which mutual information grows over three measurements while a run leaves uniformity
UNIFORM_FAILED_SHARE = 0.25  # of the run, after which no healthy run was still uniform
DECIDED = 0.1  # mutual information, share of ln K, below which the largest assignment of an image says little
DEAD = 0.2  # share of prototypes in use
LOSS_ROWS = 10  # rows that a loss is compared with: at least the 50 steps before
LEAST_LOSS_ROWS = 5  # fewer give no deviation
LOSS_DEVIATIONS = 20.0  # median absolute deviations
LEAST_DEVIATION = 0.02  # share of the loss that a median absolute deviation counts as at least
BLOWN_UP = 1e3  # factor of the embeddings' norm over that before training
GROWN = 10.0  # factor of the embeddings' norm after the first steps; healthy runs have up to 4, rates of 20 give 40
FIRST_STEPS = 10  # after which it counts: healthy CorInfoMax has 30 at step 2, and is back at 3
HIGH_RATE = 1.0  # a lower rate is not named as the cause: a weight of the loss may be it
GRADIENT_JUMP = 10.0  # factor between the medians of the gradient's norm of three rows and of the three before
WAITING = 0.3  # share of the time
WAITING_FROM_STEP, WAITING_STEPS = 20, 50  # the first steps wait while workers start; so many must wait after them
SAME_PIXELS = 1e-3  # standard deviation of a pixel over images, of values from 0 to 1: less than rounding to 8 bits
SAME_VIEWS = 1e-4  # squared distance of the embeddings of two views, of at most 4
DUPLICATED = 0.2  # share of images with a near-duplicate
ALIVE = 0.5  # share of the untrained spread and rank that features keep if they are alive


@dataclass(frozen=True)
class Verdict:
    """A frozen dataclass that holds what is said about a training at one step."""

    name: Name
    """What it is a sign of."""
    state: State
    """``watching`` if it was seen and may pass, ``warning``, ``failed``, or ``withdrawn`` if it has passed."""
    step: int
    """The number of updates that the measured weights have had."""
    epoch: int
    """The epoch, from 0."""
    evidence: str
    """A sentence with the numbers that show it, without a full stop."""
    advice: str
    """The options to change, or an empty text; without a full stop."""


@dataclass
class History:
    """Holds what rules know of a run beside the newest row."""

    method: str
    """Name of the method, as ``mira``."""
    total_steps: int
    """Number of steps of the whole run."""
    steps_per_epoch: int
    """Number of steps of an epoch."""
    untrained: Row = field(default_factory=dict)
    """The measurements of step 0; empty if there are none."""
    logged: deque[Row] = field(default_factory=lambda: deque(maxlen=LOSS_ROWS + IN_A_ROW))
    """The newest rows with a loss, the newest one last."""
    highest_rate: float = 0.0
    """The highest learning rate so far."""
    early: Row = field(default_factory=dict)
    """The last measurements of the first steps; empty if there are none."""

    def add(self, row: Row) -> None:
        """Adds the newest row."""
        if row["step"] == 0 and "health_rows" in row:
            self.untrained = row
        if 0 < row["step"] <= FIRST_STEPS and "health_rows" in row:
            self.early = row
        if numbers(row, "loss") is not None:
            self.logged.append(row)
        if rate := numbers(row, "learning_rate"):
            self.highest_rate = max(self.highest_rate, *rate)

    def rate_times(self, factor: float) -> str:
        """Returns the option of a learning rate, as ``--learning-rate 0.01``, relative to the highest one so far."""
        return f"--learning-rate {self.highest_rate * factor:.2g}" if self.highest_rate else "--learning-rate"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A frozen dataclass that holds one rule: which rows it judges and how, and what is said then.

    ``judge`` returns ``unknown`` for a row that lacks what it needs; such a row counts as no measurement. ``evidence``
    is only called for rows that were judged ``warning`` or ``failed``.
    """

    name: Name
    judge: Callable[[Row, History], Level]
    evidence: Callable[[Row, History], str]
    advice: Callable[[Row, History], str]
    settled: Callable[[Sequence[Row]], bool] = lambda rows: True
    """Whether the last measurements show that it does not pass by itself; given up to three of them."""
    in_a_row: int = IN_A_ROW
    """Number of measurements in a row that must be ill."""
    in_steps: int = 0
    """Number of steps that these measurements must cover."""
    by_epoch: bool = False
    """Whether an epoch counts as one measurement: its first one."""
    first_step: int = FIRST_STEP
    first_share: float = FIRST_SHARE
    """The rule says nothing before this step and this share of the run."""
    explained_by: tuple[Name, ...] = ()
    """Names of verdicts of which this one would be a mere consequence: it is not said while one of them holds."""
    withdrawn: bool = True
    """Whether it is withdrawn after three healthy measurements; a cause that has acted is not."""


def numbers(row: Row, *keys: str) -> list[float] | None:
    """Returns the values of a row if all are finite numbers; None otherwise."""
    values = [row.get(key) for key in keys]
    finite = [float(x) for x in values if isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= MAX]
    return finite if len(finite) == len(keys) else None


def judge_total_collapse(row: Row, history: History) -> Level:
    """Judges whether the embeddings of all images have become one point."""
    measured = numbers(row, "embedding_mean_cosine", "embedding_collapse_level")
    if measured is None or not row["step"]:
        return "unknown"
    cosine, level = measured
    if cosine < POINT_COSINE or level < POINT_LEVEL:
        return "healthy"
    return "failed" if cosine >= FAILED_COSINE else "warning"


def is_no_longer_recovering(rows: Sequence[Row]) -> bool:
    """Returns whether embeddings do not spread any more: healthy runs pass through a point and leave it."""
    spreads = [1 - row["embedding_mean_cosine"] for row in rows]
    return spreads[-1] <= RECOVERING * spreads[0]


def stays_a_point(rows: Sequence[Row]) -> bool:
    """Returns whether embeddings do not spread any more, and their assignments, if there are any, tell no more."""
    return is_no_longer_recovering(rows) and leaves_no_uniformity(rows)


def leaves_no_uniformity(rows: Sequence[Row]) -> bool:
    """Returns whether assignments tell no more of the image than before: a run that learns late tells ever more.

    It is so where there are no assignments.
    """
    information = [numbers(row, "assignment_mutual_information") for row in rows]
    first, last = information[0], information[-1]
    return first is None or last is None or last[0] <= LEAVING * first[0]


def judge_dimensional_collapse(row: Row, history: History) -> Level:
    """Judges whether embeddings and features have lost most of the dimensions that they had before training.

    The rank of methods with prototypes falls while they learn: it says nothing there.
    """
    keys = ("embedding_effective_rank", "feature_participation_ratio", "health_rows")
    measured, before = numbers(row, *keys), numbers(history.untrained, *keys)
    if measured is None or before is None or "prototypes" in row or not row["step"]:
        return "unknown"
    if measured[2] != before[2]:  # a rank depends on the number of rows
        return "unknown"
    fell = all(now <= FEW_DIMENSIONS * start for now, start in zip(measured[:2], before[:2], strict=True))
    return "warning" if fell else "healthy"


def judge_cluster_collapse(row: Row, history: History) -> Level:
    """Judges whether nearly all images are assigned to few clusters."""
    measured = numbers(row, "assignment_marginal_entropy", "prototypes", "health_rows")
    if measured is None or not row["step"]:
        return "unknown"
    entropy, prototypes, images = measured
    largest = min(prototypes, images)  # fewer images than prototypes cannot use all of them
    if largest < LEAST_PROTOTYPES:
        return "unknown"
    if entropy > FEW_CLUSTERS * log(largest):
        return "healthy"
    return "failed" if entropy <= ONE_CLUSTER * log(largest) else "warning"


def judge_uniform_assignment(row: Row, history: History) -> Level:
    """Judges whether each image is assigned to all clusters alike, so that assignments tell nothing about images."""
    measured = numbers(row, "assignment_mutual_information", "prototypes")
    loss = numbers(history.logged[-1], "loss") if history.logged else None
    if measured is None or loss is None or measured[1] < 2:
        return "unknown"
    information, prototypes = measured
    if information > LEAST_INFORMATION * log(prototypes) or loss[0] < GUESSING * log(prototypes):
        return "healthy"
    return "failed" if row["step"] >= UNIFORM_FAILED_SHARE * history.total_steps else "warning"


def judge_dead_prototypes(row: Row, history: History) -> Level:
    """Judges whether most prototypes are the nearest one of no image. The share is left out for too few images."""
    measured = numbers(row, "prototypes_in_use", "prototypes", "assignment_mutual_information")
    if measured is None or measured[1] < 2 or measured[2] < DECIDED * log(measured[1]):
        return "unknown"
    return "warning" if measured[0] <= DEAD else "healthy"


def judge_non_finite(row: Row, history: History) -> Level:
    """Judges whether the loss or the gradient is NaN or infinite; in JSON of others it may be null."""
    if "loss" not in row:
        return "unknown"
    return "failed" if any(key in row and numbers(row, key) is None for key in ("loss", "gradient_norm")) else "healthy"


def judge_loss(row: Row, history: History) -> Level:
    """Judges whether the loss is far above that of the steps before."""
    loss, before = numbers(row, "loss"), losses_before(history)
    if loss is None or len(before) < LEAST_LOSS_ROWS:
        return "unknown"
    middle, deviation = middle_and_deviation(before)
    return "warning" if loss[0] > middle + LOSS_DEVIATIONS * deviation else "healthy"


def losses_before(history: History) -> list[float]:
    """Returns the losses of the rows before the newest three, which may be ill themselves."""
    return [row["loss"] for row in list(history.logged)[:-IN_A_ROW]]


def middle_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns the median and the median absolute deviation, which is at least a share of the median."""
    middle = median(values)
    return middle, max(median(abs(value - middle) for value in values), LEAST_DEVIATION * abs(middle))


def loss_does_not_fall(rows: Sequence[Row]) -> bool:
    """Returns whether the loss does not come down again, as it does after a schedule has begun anew."""
    return rows[-1]["loss"] >= rows[0]["loss"]


def judge_norm(row: Row, history: History) -> Level:
    """Judges whether the embeddings have become very long, as the weights then are too."""
    norm, before = numbers(row, "embedding_norm"), numbers(history.untrained, "embedding_norm")
    if norm is None or before is None or not row["step"]:
        return "unknown"
    if judge_total_collapse(row, history) in ("warning", "failed") and history.highest_rate < HIGH_RATE:
        return "healthy"  # a weight of the loss has made one point of them, which the collapse's advice names
    return "failed" if norm[0] > BLOWN_UP * before[0] else "healthy"


def judge_burst(row: Row, history: History) -> Level:
    """Judges whether the first steps were so long that embeddings grew at once."""
    norm, before = numbers(history.early, "embedding_norm"), numbers(history.untrained, "embedding_norm")
    if "health_rows" not in row or row["step"] <= FIRST_STEPS or norm is None or before is None:
        return "unknown"
    return "warning" if norm[0] > GROWN * before[0] and history.highest_rate >= HIGH_RATE else "healthy"


def judge_gradient(row: Row, history: History) -> Level:
    """Judges whether the gradient has become much longer from three rows of the log to the next three."""
    norms = gradient_norms(history)
    if numbers(row, "loss") is None or len(norms) < 2 * IN_A_ROW:
        return "unknown"
    before, now = median(norms[:IN_A_ROW]), median(norms[IN_A_ROW:])
    return "warning" if now > GRADIENT_JUMP * before else "healthy"


def gradient_norms(history: History) -> list[float]:
    """Returns the gradient's norms of the newest six rows of the log that have one, the newest last."""
    norms = [values[0] for row in history.logged if (values := numbers(row, "gradient_norm")) is not None]
    return norms[-2 * IN_A_ROW :]


def judge_waiting(row: Row, history: History) -> Level:
    """Judges whether a part of the training waited for images for much of its time."""
    waiting = numbers(row, "waiting")
    if waiting is None:
        return "unknown"
    return "warning" if waiting[0] > WAITING and row["step"] > WAITING_FROM_STEP else "healthy"


def before_training(key: str, ill: Callable[[float], bool], level: Level) -> Callable[[Row, History], Level]:
    """Returns a function that judges a measurement of step 0 alone.

    Args:
        key: Its key.
        ill: Says whether the value is ill.
        level: The level of such a value.
    """

    def judge(row: Row, history: History) -> Level:
        value = numbers(row, key)
        if row["step"] or value is None:
            return "unknown"
        return level if ill(value[0]) else "healthy"

    return judge


def images_of(row: Row) -> str:
    """Returns the number of measured images in words, as ``512 images``."""
    count = numbers(row, "health_rows")
    return "the images" if count is None else f"{count[0]:,.0f} images"


def compared(row: Row, history: History, key: str, form: str) -> str:
    """Returns a measurement and that before training, as ``0.998 (untrained 0.800)``."""
    before = numbers(history.untrained, key)
    return f"{row[key]:{form}}" + (f" (untrained {before[0]:{form}})" if before is not None else "")


def describe_features(row: Row, history: History) -> str:
    """Returns a clause on the encoder's features: a collapsed head can leave them as they were, or better."""
    keys = ("feature_mean_cosine", "feature_effective_rank")
    measured, before = numbers(row, *keys), numbers(history.untrained, *keys)
    if measured is None or before is None:
        return ""
    texts = [compared(row, history, key, form) for key, form in zip(keys, (".3f", ".1f"), strict=True)]
    numbers_of_both = f"mean cosine {texts[0]}, effective rank {texts[1]}"
    if measured[0] >= FAILED_COSINE > before[0]:
        return f"; the encoder's features, which are what is kept, have collapsed with them: {numbers_of_both}"
    if 1 - measured[0] >= ALIVE * (1 - before[0]) and measured[1] >= ALIVE * before[1]:
        return f"; the encoder's features, which are what is kept, still differ: {numbers_of_both}"
    return f"; the encoder's features, which are what is kept: {numbers_of_both}"


def total_collapse_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show total collapse, as a sentence."""
    cosine = compared(row, history, "embedding_mean_cosine", ".3f")
    return f"the embeddings of {images_of(row)} have a mean cosine of {cosine}" + describe_features(row, history)


def dimensional_collapse_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show dimensional collapse, as a sentence."""
    rank = compared(row, history, "embedding_effective_rank", ".1f")
    ratio = compared(row, history, "feature_participation_ratio", ".1f")
    return (
        f"the embeddings of {images_of(row)} have an effective rank of {rank}, and the encoder's features a "
        f"participation ratio of {ratio}"
    )


def cluster_collapse_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show cluster collapse, as a sentence."""
    entropy = compared(row, history, "assignment_marginal_entropy", ".2f")
    largest = log(min(row["prototypes"], row["health_rows"]))
    return (
        f"{images_of(row)} share few of the {row['prototypes']:,} prototypes: the mean assignment has an entropy of "
        f"{entropy} nats, of at most {largest:.2f}" + describe_features(row, history)
    )


def uniform_assignment_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show uniform assignment, as a sentence."""
    guessing = f"{log(row['prototypes']):.3f}"
    return (
        f"each of {images_of(row)} is assigned to all {row['prototypes']:,} prototypes alike: assignments tell "
        f"{row['assignment_mutual_information']:.3f} nats about the image, of at most {guessing}, and the loss is "
        f"{history.logged[-1]['loss']:.3f}, where guessing has {guessing}" + describe_features(row, history)
    )


def dead_prototypes_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show dead prototypes, as a sentence."""
    return (
        f"{row['prototypes_in_use']:.0%} of the {row['prototypes']:,} prototypes are the nearest one of any image in "
        "an epoch"
    )


def non_finite_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that the loss or the gradient is no number, as a sentence."""
    key = "loss" if numbers(row, "loss") is None else "gradient_norm"
    value = "NaN" if row[key] is None else row[key]
    return f"the {key.replace('_', ' ').replace('gradient norm', 'norm of the gradient')} became {value}"


def loss_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that the loss is too high, as a sentence."""
    middle, deviation = middle_and_deviation(losses_before(history))
    return (
        f"the loss is {row['loss']:.4g}; before, its median was {middle:.4g}, with a median absolute deviation of "
        f"{deviation:.2g}"
    )


def norm_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that embeddings are too long, as a sentence."""
    return f"the embeddings of {images_of(row)} have a mean norm of {compared(row, history, 'embedding_norm', '.3g')}"


def burst_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that the first steps were too long, as a sentence."""
    early = history.early
    norm, cosine = (compared(early, history, f"embedding_{key}", ".3g") for key in ("norm", "mean_cosine"))
    return (
        f"with a rate of {history.highest_rate:.3g} the embeddings had after step {early['step']} a mean norm of "
        f"{norm} and a mean cosine of {cosine}"
    )


def gradient_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that the gradient grew, as a sentence."""
    norms = gradient_norms(history)
    before, now = median(norms[:IN_A_ROW]), median(norms[IN_A_ROW:])
    return f"the gradient's norm rose from {before:.3g} to {now:.3g}, the medians of three rows of metrics each"


def waiting_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that steps wait for images, as a sentence."""
    return f"the last steps waited for images for {row['waiting']:.0%} of the time"


def equal_images_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show equal images, as a sentence."""
    return (
        f"the images that were looked at are the same: each pixel has a standard deviation of "
        f"{row['pixel_std']:.2g} over them, where values go from 0 to 1"
    )


def equal_views_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show equal views, as a sentence."""
    return (
        f"the two views of an image are the same: the embeddings of {images_of(row)} have a squared distance of "
        f"{row['embedding_alignment']:.1g} to those of their second views, of at most 4"
    )


def near_duplicates_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show near duplicates, as a sentence."""
    return f"{row['near_duplicate_share']:.0%} of the images that were looked at have a near-duplicate among them"


MORE_INFORMATION = {
    "mveb": "--set method.entropy_weight=0.01 or more",
    "corinfomax": "less attraction, --set method.attraction=250 or less",
    "carl": "--set method.kl_start=4 --set method.kl_end=1.5",
    "mira": "--set method.beta=0.67 --set method.beta_start=0.7",
}
"""Settings of each method that keep embeddings apart, at the values of the papers."""


def keep_apart(row: Row, history: History) -> str:
    """Advises the setting of the method that keeps embeddings apart, and a lower rate."""
    setting = MORE_INFORMATION.get(history.method)
    return f"try {setting}; or {history.rate_times(0.1)}" if setting else f"try {history.rate_times(0.1)}"


def more_dimensions(row: Row, history: History) -> str:
    """Advises a larger batch, and for CorInfoMax less attraction."""
    larger = f"--batch-size {2 * row['health_rows']}"
    setting = MORE_INFORMATION.get(history.method)
    return f"try {setting}; or a larger batch, {larger}" if setting else f"try a larger batch, {larger}"


def balanced_clusters(row: Row, history: History) -> str:
    """Advises the weight that makes clusters equally large, near the paper's."""
    setting = MORE_INFORMATION.get(history.method)
    return f"try the paper's weights, {setting}" if setting else f"try {history.rate_times(0.1)}"


def leave_uniformity(row: Row, history: History) -> str:
    """Advises what makes assignments differ: a weight, a higher rate, more steps."""
    setting = MORE_INFORMATION.get(history.method)
    words = f"try {setting}; or a higher rate" if setting else "try a higher rate"
    return f"{words}, {history.rate_times(3)}; or more --epochs, as short runs end before they leave this state"


def fewer_prototypes(row: Row, history: History) -> str:
    """Advises about as many prototypes as are used."""
    count = max(LEAST_PROTOTYPES, round(2 * row["prototypes_in_use"] * row["prototypes"]))
    return f"try fewer prototypes, --set method.prototypes={count}"


def lower_rate(row: Row, history: History) -> str:
    """Advises a tenth of the rate, and a warm-up."""
    return f"try {history.rate_times(0.1)}, or a warm-up, --set optimizer.warmup_epochs=10"


def lower_rate_or_full_precision(row: Row, history: History) -> str:
    """Advises a tenth of the rate, a warm-up, and full precision."""
    return f"{lower_rate(row, history)}; with half precision, --precision 32"


def faster_loading(row: Row, history: History) -> str:
    """Advises what loads images faster."""
    return (
        "try more --workers, --keep-decoded with the gigabytes that the decoded images take, or image files that are "
        "not larger than needed"
    )


SYMPTOMS_OF: tuple[Name, ...] = ("equal images", "divergence")
"""Verdicts of which every collapse is a mere consequence."""

RULES = (
    Rule(
        name="equal images",
        judge=before_training("pixel_std", lambda deviation: deviation < SAME_PIXELS, "failed"),
        evidence=equal_images_evidence,
        advice=lambda row, history: "look at views.png in the run folder, and at the files that --data names",
        in_a_row=1,
        first_step=0,
        first_share=0,
    ),
    Rule(
        name="equal views",
        judge=before_training("embedding_alignment", lambda distance: distance < SAME_VIEWS, "warning"),
        evidence=equal_views_evidence,
        advice=lambda row, history: "look at views.png in the run folder, and try --views byol, which changes images",
        in_a_row=1,
        first_step=0,
        first_share=0,
        explained_by=("equal images",),
    ),
    Rule(
        name="near-duplicates",
        judge=before_training("near_duplicate_share", lambda share: share > DUPLICATED, "warning"),
        evidence=near_duplicates_evidence,
        advice=lambda row, history: "remove them before training: infomax duplicates lists them",
        in_a_row=1,
        first_step=0,
        first_share=0,
        explained_by=("equal images",),
    ),
    Rule(
        name="divergence",
        judge=judge_non_finite,
        evidence=non_finite_evidence,
        advice=lower_rate_or_full_precision,
        in_a_row=1,
        first_step=0,
        first_share=0,
    ),
    Rule(
        name="divergence",
        judge=judge_norm,
        evidence=norm_evidence,
        advice=lower_rate_or_full_precision,
        explained_by=("equal images",),
    ),
    Rule(
        name="divergence",
        judge=judge_loss,
        evidence=loss_evidence,
        advice=lower_rate_or_full_precision,
        settled=loss_does_not_fall,
        explained_by=("equal images",),
    ),
    Rule(
        name="rate too high",
        judge=judge_burst,
        evidence=burst_evidence,
        advice=lower_rate,
        in_a_row=1,
        explained_by=("equal images",),
        withdrawn=False,
    ),
    Rule(
        name="rate too high",
        judge=judge_gradient,
        evidence=gradient_evidence,
        advice=lower_rate,
        in_a_row=2,
        explained_by=("equal images",),
        withdrawn=False,
    ),
    Rule(
        name="cluster collapse",
        judge=judge_cluster_collapse,
        evidence=cluster_collapse_evidence,
        advice=balanced_clusters,
        explained_by=SYMPTOMS_OF,
    ),
    Rule(
        name="uniform assignment",
        judge=judge_uniform_assignment,
        evidence=uniform_assignment_evidence,
        advice=leave_uniformity,
        settled=leaves_no_uniformity,
        first_step=UNIFORM_STEP,
        first_share=UNIFORM_SHARE,
        explained_by=(*SYMPTOMS_OF, "cluster collapse"),
    ),
    Rule(
        name="total collapse",
        judge=judge_total_collapse,
        evidence=total_collapse_evidence,
        advice=keep_apart,
        settled=stays_a_point,
        explained_by=(*SYMPTOMS_OF, "cluster collapse", "uniform assignment"),
    ),
    Rule(
        name="dimensional collapse",
        judge=judge_dimensional_collapse,
        evidence=dimensional_collapse_evidence,
        advice=more_dimensions,
        explained_by=(*SYMPTOMS_OF, "total collapse"),
    ),
    Rule(
        name="dead prototypes",
        judge=judge_dead_prototypes,
        evidence=dead_prototypes_evidence,
        advice=fewer_prototypes,
        by_epoch=True,
        explained_by=(*SYMPTOMS_OF, "cluster collapse", "uniform assignment", "total collapse"),
    ),
    Rule(
        name="starved",
        judge=judge_waiting,
        evidence=waiting_evidence,
        advice=faster_loading,
        in_steps=WAITING_STEPS,
    ),
)
"""All rules. One explains another only if it stands before it."""
