"""Rules on losses, gradients and embeddings that grow: divergence, and rates that are too high."""

from collections.abc import Sequence
from statistics import median

from infomax.analysis.verdict_rules.collapse import judge_total_collapse
from infomax.analysis.verdict_rules.rule import (
    FIRST_STEPS,
    IN_A_ROW,
    History,
    Level,
    Row,
    Rule,
    compared,
    images_of,
    numbers,
)

LEAST_LOSS_ROWS = 5  # fewer give no deviation
LOSS_DEVIATIONS = 20.0  # median absolute deviations
LEAST_DEVIATION = 0.02  # share of the loss that a median absolute deviation counts as at least
BLOWN_UP = 1e3  # factor of the embeddings' norm over that before training
GROWN = 10.0  # factor of the embeddings' norm after the first steps; healthy runs have up to 4, rates of 20 give 40
HIGH_RATE = 1.0  # a lower rate is not named as the cause: a weight of the loss may be it
GRADIENT_JUMP = 10.0  # factor between the medians of the gradient's norm of three rows and of the three before


def lower_rate(row: Row, history: History) -> str:
    """Advises a tenth of the rate, and a warm-up."""
    return f"try {history.rate_times(0.1)}, or a warm-up, --set optimizer.warmup_epochs=10"


def lower_rate_or_full_precision(row: Row, history: History) -> str:
    """Advises a tenth of the rate, a warm-up, and full precision."""
    return f"{lower_rate(row, history)}; with half precision, --precision 32"


def judge_non_finite(row: Row, history: History) -> Level:
    """Judges whether the loss or the gradient is NaN or infinite; in JSON of others it may be null."""
    if "loss" not in row:
        return "unknown"
    return "failed" if any(key in row and numbers(row, key) is None for key in ("loss", "gradient_norm")) else "healthy"


def non_finite_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that the loss or the gradient is no number, as a sentence."""
    key = "loss" if numbers(row, "loss") is None else "gradient_norm"
    value = "NaN" if row[key] is None else row[key]
    return f"the {key.replace('_', ' ').replace('gradient norm', 'norm of the gradient')} became {value}"


NOT_FINITE = Rule(
    name="divergence",
    judge=judge_non_finite,
    evidence=non_finite_evidence,
    advice=lower_rate_or_full_precision,
    in_a_row=1,
    first_step=0,
    first_share=0,
)


def judge_norm(row: Row, history: History) -> Level:
    """Judges whether the embeddings have become very long, as the weights then are too."""
    norm, before = numbers(row, "embedding_norm"), numbers(history.untrained, "embedding_norm")
    if norm is None or before is None or not row["step"]:
        return "unknown"
    if judge_total_collapse(row, history) in ("warning", "failed") and history.highest_rate < HIGH_RATE:
        return "healthy"  # a weight of the loss has made one point of them, which the collapse's advice names
    return "failed" if norm[0] > BLOWN_UP * before[0] else "healthy"


def norm_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that embeddings are too long, as a sentence."""
    return f"the embeddings of {images_of(row)} have a mean norm of {compared(row, history, 'embedding_norm', '.3g')}"


LONG_EMBEDDINGS = Rule(
    name="divergence",
    judge=judge_norm,
    evidence=norm_evidence,
    advice=lower_rate_or_full_precision,
    explained_by=("equal images",),
)


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


def loss_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that the loss is too high, as a sentence."""
    middle, deviation = middle_and_deviation(losses_before(history))
    return (
        f"the loss is {row['loss']:.4g}; before, its median was {middle:.4g}, with a median absolute deviation of "
        f"{deviation:.2g}"
    )


HIGH_LOSS = Rule(
    name="divergence",
    judge=judge_loss,
    evidence=loss_evidence,
    advice=lower_rate_or_full_precision,
    settled=loss_does_not_fall,
    explained_by=("equal images",),
)


def judge_burst(row: Row, history: History) -> Level:
    """Judges whether the first steps were so long that embeddings grew at once."""
    norm, before = numbers(history.early, "embedding_norm"), numbers(history.untrained, "embedding_norm")
    if "health_rows" not in row or row["step"] <= FIRST_STEPS or norm is None or before is None:
        return "unknown"
    return "warning" if norm[0] > GROWN * before[0] and history.highest_rate >= HIGH_RATE else "healthy"


def burst_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that the first steps were too long, as a sentence."""
    early = history.early
    norm, cosine = (compared(early, history, f"embedding_{key}", ".3g") for key in ("norm", "mean_cosine"))
    return (
        f"with a rate of {history.highest_rate:.3g} the embeddings had after step {early['step']} a mean norm of "
        f"{norm} and a mean cosine of {cosine}"
    )


FIRST_STEPS_TOO_LONG = Rule(
    name="rate too high",
    judge=judge_burst,
    evidence=burst_evidence,
    advice=lower_rate,
    in_a_row=1,
    explained_by=("equal images",),
    withdrawn=False,
)


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


def gradient_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that the gradient grew, as a sentence."""
    norms = gradient_norms(history)
    before, now = median(norms[:IN_A_ROW]), median(norms[IN_A_ROW:])
    return f"the gradient's norm rose from {before:.3g} to {now:.3g}, the medians of three rows of metrics each"


GRADIENT_JUMPED = Rule(
    name="rate too high",
    judge=judge_gradient,
    evidence=gradient_evidence,
    advice=lower_rate,
    in_a_row=2,
    explained_by=("equal images",),
    withdrawn=False,
)
