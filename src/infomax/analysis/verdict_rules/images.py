"""Rules on the images: equal ones, equal views, near-duplicates, and steps that wait for them."""

from collections.abc import Callable

from infomax.analysis.verdict_rules.rule import History, Level, Row, Rule, images_of, numbers

WAITING = 0.3  # share of the time
WAITING_FROM_STEP, WAITING_STEPS = 20, 50  # the first steps wait while workers start; so many must wait after them
SAME_PIXELS = 1e-3  # standard deviation of a pixel over images, of values from 0 to 1: less than rounding to 8 bits
SAME_VIEWS = 1e-4  # squared distance of the embeddings of two views, of at most 4
DUPLICATED = 0.2  # share of images with a near-duplicate


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


def equal_images_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show equal images, as a sentence."""
    return (
        f"the images that were looked at are the same: each pixel has a standard deviation of "
        f"{row['pixel_std']:.2g} over them, where values go from 0 to 1"
    )


EQUAL_IMAGES = Rule(
    name="equal images",
    judge=before_training("pixel_std", lambda deviation: deviation < SAME_PIXELS, "failed"),
    evidence=equal_images_evidence,
    advice=lambda row, history: "look at views.png in the run folder, and at the files that --data names",
    in_a_row=1,
    first_step=0,
    first_share=0,
)


def equal_views_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show equal views, as a sentence."""
    return (
        f"the two views of an image are the same: the embeddings of {images_of(row)} have a squared distance of "
        f"{row['embedding_alignment']:.1g} to those of their second views, of at most 4"
    )


EQUAL_VIEWS = Rule(
    name="equal views",
    judge=before_training("embedding_alignment", lambda distance: distance < SAME_VIEWS, "warning"),
    evidence=equal_views_evidence,
    advice=lambda row, history: "look at views.png in the run folder, and try --views byol, which changes images",
    in_a_row=1,
    first_step=0,
    first_share=0,
    explained_by=("equal images",),
)


def near_duplicates_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show near duplicates, as a sentence."""
    return f"{row['near_duplicate_share']:.0%} of the images that were looked at have a near-duplicate among them"


NEAR_DUPLICATES = Rule(
    name="near-duplicates",
    judge=before_training("near_duplicate_share", lambda share: share > DUPLICATED, "warning"),
    evidence=near_duplicates_evidence,
    advice=lambda row, history: "remove them before training: infomax duplicates lists them",
    in_a_row=1,
    first_step=0,
    first_share=0,
    explained_by=("equal images",),
)


def judge_waiting(row: Row, history: History) -> Level:
    """Judges whether a part of the training waited for images for much of its time."""
    waiting = numbers(row, "waiting")
    if waiting is None:
        return "unknown"
    return "warning" if waiting[0] > WAITING and row["step"] > WAITING_FROM_STEP else "healthy"


def waiting_evidence(row: Row, history: History) -> str:
    """Returns the numbers that show that steps wait for images, as a sentence."""
    return f"the last steps waited for images for {row['waiting']:.0%} of the time"


def faster_loading(row: Row, history: History) -> str:
    """Advises what loads images faster."""
    return (
        "try more --workers, --keep-decoded with the gigabytes that the decoded images take, or image files that are "
        "not larger than needed"
    )


STARVED = Rule(
    name="starved",
    judge=judge_waiting,
    evidence=waiting_evidence,
    advice=faster_loading,
    in_steps=WAITING_STEPS,
)
