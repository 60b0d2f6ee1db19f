"""Rules on collapse: of embeddings, of their dimensions, of clusters, and of prototypes."""

from collections.abc import Sequence
from math import log

from infomax.analysis.verdict_rules.rule import History, Level, Name, Row, Rule, compared, images_of, numbers

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
ALIVE = 0.5  # share of the untrained spread and rank that features keep if they are alive
MORE_INFORMATION = {
    "mveb": "--set method.entropy_weight=0.01 or more",
    "corinfomax": "less attraction, --set method.attraction=250 or less",
    "carl": "--set method.kl_start=4 --set method.kl_end=1.5",
    "mira": "--set method.beta=0.67 --set method.beta_start=0.7",
}
"""Settings of each method that keep embeddings apart, at the values of the papers."""


SYMPTOMS_OF: tuple[Name, ...] = ("equal images", "divergence")
"""Verdicts of which every collapse is a mere consequence."""


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


def total_collapse_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show total collapse, as a sentence."""
    cosine = compared(row, history, "embedding_mean_cosine", ".3f")
    return f"the embeddings of {images_of(row)} have a mean cosine of {cosine}" + describe_features(row, history)


def keep_apart(row: Row, history: History) -> str:
    """Advises the setting of the method that keeps embeddings apart, and a lower rate."""
    setting = MORE_INFORMATION.get(history.method)
    return f"try {setting}; or {history.rate_times(0.1)}" if setting else f"try {history.rate_times(0.1)}"


TOTAL_COLLAPSE = Rule(
    name="total collapse",
    judge=judge_total_collapse,
    evidence=total_collapse_evidence,
    advice=keep_apart,
    settled=stays_a_point,
    explained_by=(*SYMPTOMS_OF, "cluster collapse", "uniform assignment"),
)


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


def dimensional_collapse_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show dimensional collapse, as a sentence."""
    rank = compared(row, history, "embedding_effective_rank", ".1f")
    ratio = compared(row, history, "feature_participation_ratio", ".1f")
    return (
        f"the embeddings of {images_of(row)} have an effective rank of {rank}, and the encoder's features a "
        f"participation ratio of {ratio}"
    )


def more_dimensions(row: Row, history: History) -> str:
    """Advises a larger batch, and for CorInfoMax less attraction."""
    larger = f"--batch-size {2 * row['health_rows']}"
    setting = MORE_INFORMATION.get(history.method)
    return f"try {setting}; or a larger batch, {larger}" if setting else f"try a larger batch, {larger}"


DIMENSIONAL_COLLAPSE = Rule(
    name="dimensional collapse",
    judge=judge_dimensional_collapse,
    evidence=dimensional_collapse_evidence,
    advice=more_dimensions,
    explained_by=(*SYMPTOMS_OF, "total collapse"),
)


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


def cluster_collapse_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show cluster collapse, as a sentence."""
    entropy = compared(row, history, "assignment_marginal_entropy", ".2f")
    largest = log(min(row["prototypes"], row["health_rows"]))
    return (
        f"{images_of(row)} share few of the {row['prototypes']:,} prototypes: the mean assignment has an entropy of "
        f"{entropy} nats, of at most {largest:.2f}" + describe_features(row, history)
    )


def balanced_clusters(row: Row, history: History) -> str:
    """Advises the weight that makes clusters equally large, near the paper's."""
    setting = MORE_INFORMATION.get(history.method)
    return f"try the paper's weights, {setting}" if setting else f"try {history.rate_times(0.1)}"


CLUSTER_COLLAPSE = Rule(
    name="cluster collapse",
    judge=judge_cluster_collapse,
    evidence=cluster_collapse_evidence,
    advice=balanced_clusters,
    explained_by=SYMPTOMS_OF,
)


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


def uniform_assignment_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show uniform assignment, as a sentence."""
    guessing = f"{log(row['prototypes']):.3f}"
    return (
        f"each of {images_of(row)} is assigned to all {row['prototypes']:,} prototypes alike: assignments tell "
        f"{row['assignment_mutual_information']:.3f} nats about the image, of at most {guessing}, and the loss is "
        f"{history.logged[-1]['loss']:.3f}, where guessing has {guessing}" + describe_features(row, history)
    )


def leave_uniformity(row: Row, history: History) -> str:
    """Advises what makes assignments differ: a weight, a higher rate, more steps."""
    setting = MORE_INFORMATION.get(history.method)
    words = f"try {setting}; or a higher rate" if setting else "try a higher rate"
    return f"{words}, {history.rate_times(3)}; or more --epochs, as short runs end before they leave this state"


UNIFORM_ASSIGNMENT = Rule(
    name="uniform assignment",
    judge=judge_uniform_assignment,
    evidence=uniform_assignment_evidence,
    advice=leave_uniformity,
    settled=leaves_no_uniformity,
    first_step=UNIFORM_STEP,
    first_share=UNIFORM_SHARE,
    explained_by=(*SYMPTOMS_OF, "cluster collapse"),
)


def judge_dead_prototypes(row: Row, history: History) -> Level:
    """Judges whether most prototypes are the nearest one of no image. The share is left out for too few images."""
    measured = numbers(row, "prototypes_in_use", "prototypes", "assignment_mutual_information")
    if measured is None or measured[1] < 2 or measured[2] < DECIDED * log(measured[1]):
        return "unknown"
    return "warning" if measured[0] <= DEAD else "healthy"


def dead_prototypes_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show dead prototypes, as a sentence."""
    return (
        f"{row['prototypes_in_use']:.0%} of the {row['prototypes']:,} prototypes are the nearest one of any image in "
        "an epoch"
    )


def fewer_prototypes(row: Row, history: History) -> str:
    """Advises about as many prototypes as are used."""
    count = max(LEAST_PROTOTYPES, round(2 * row["prototypes_in_use"] * row["prototypes"]))
    return f"try fewer prototypes, --set method.prototypes={count}"


DEAD_PROTOTYPES = Rule(
    name="dead prototypes",
    judge=judge_dead_prototypes,
    evidence=dead_prototypes_evidence,
    advice=fewer_prototypes,
    by_epoch=True,
    explained_by=(*SYMPTOMS_OF, "cluster collapse", "uniform assignment", "total collapse"),
)
