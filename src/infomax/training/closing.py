"""The closing lines of a run: what its encoder gained by k-NN, or what the measures that need no labels say.

They are made of ``metrics.jsonl`` alone, so that they are the same when a finished run is opened again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from infomax.analysis.verdicts import NO_SIGN, describe_no_verdict, verdicts_of
from infomax.data.splits import counted
from infomax.evaluation.intervals import MATCHED, Difference
from infomax.recipes.registry import get_experiment
from infomax.recipes.schema import Recipe
from infomax.runs.run_folder import Run
from infomax.runs.training_verdicts import standing_verdicts

COMPARED = {"initial": "the initial encoder", "untrained": "the untrained encoder", "pixels": "the raw pixels"}
"""What a run's encoder is compared with at the end, by the words that begin its keys in the metrics."""


FEW_STEPS = 100  # fewer than any recipe of ours has, and within the first warm-ups
FEW_IMAGES, FEW_SHARE = 30_000, 0.05  # seen in all, and of those that the recipe shows: 4 epochs of the digits


def usual_steps(recipe: Recipe, images: int) -> int:
    """Returns the number of steps that a recipe has for so many images if nobody changes its epochs."""
    steps_per_epoch = recipe.steps(images) // recipe.epochs
    return steps_per_epoch * get_experiment(recipe.name, recipe.method.name).recipe(images=images).epochs


def trains_little(recipe: Recipe, images: int, steps: int) -> bool:
    """Returns whether so many steps of a recipe train almost nothing: they are few, or show few images in all.

    Args:
        recipe: The recipe, whose batch the user may have changed.
        images: Number of images in the data set.
        steps: Number of steps.
    """
    usual = usual_steps(recipe, images)
    few_images = min(FEW_IMAGES, FEW_SHARE * usual * recipe.batch_size)
    return steps < min(FEW_STEPS, usual) or steps * recipe.batch_size < few_images


def describe_few_steps(run: Run) -> str:
    """Returns a line on a finished run of so few steps that they trained almost nothing; empty if it has more."""
    steps, images = run.trained_steps, run.config["images"]
    if not run.finished or not trains_little(run.recipe, images, steps):
        return ""
    return (
        f"{counted(steps, 'step')} of {counted(run.recipe.batch_size)} change an encoder little: the recipe itself "
        f"has {usual_steps(run.recipe, images):,} steps"
    )


def gain_keys(reference: str) -> tuple[str, str, str]:
    """Returns the keys of the metrics that hold the gain over a reference and the limits of its 95 % interval."""
    return f"knn_over_{reference}", f"knn_over_{reference}_low", f"knn_over_{reference}_high"


CLOSING_KEYS = ("knn_test_images", "pixels_knn_top1", *(key for reference in COMPARED for key in gain_keys(reference)))
"""Keys of the metrics' last row, which compares the encoder with its references."""


def closing_lines(run: Run) -> list[str]:
    """Returns the lines that a run ends with; none if its metrics say nothing of it.

    The first one is on the gain by k-NN, or else on the spread of the embeddings; then one says if there were few
    steps, and then come the verdicts that stand.
    Of an encoder that has collapsed, whose scores mean nothing, there are the verdicts alone.

    Args:
        run: The run folder.

    Raises:
        ValueError: if ``metrics.jsonl`` is damaged.
    """
    rows, verdicts = run.read_rows("metrics.jsonl"), standing_verdicts(run)
    line = "" if run.collapsed else describe_gains(rows, run.trained_steps)
    if not line and not run.collapsed and (line := describe_spread(rows)) and verdicts == () and not verdicts_of(run):
        # Nor is there one that was seen at the end for too short a time to be said.
        words = describe_no_verdict(run.trained_steps, run.recipe.steps(run.config["images"]))
        line += f": {words}{', which does not say that it has learned' if words == NO_SIGN else ''}"
    lines = [] if run.collapsed else [x for x in (line, describe_few_steps(run)) if x]
    for verdict in verdicts or ():
        advice = f"; {verdict.advice}" if verdict.advice else ""
        lines.append(f"{verdict.name}, {verdict.state} since step {verdict.step}: {verdict.evidence}{advice}")
    return lines


def describe_gains(rows: Sequence[Mapping[str, Any]], step: int) -> str:
    """Returns a line on how much better the encoder is than its references by k-NN; empty if that is not known.

    Args:
        rows: The rows of ``metrics.jsonl``.
        step: The number of steps that the encoder was trained for.
    """
    newest: dict[str, Any] = {}
    for row in rows:
        if row["step"] == step:
            newest |= row
    gains = []
    for reference, words in COMPARED.items():
        if all(isinstance(newest.get(key), int | float) for key in gain_keys(reference)):
            value, low, high = (newest[key] for key in gain_keys(reference))
            gain = Difference(value, low, high, MATCHED)
            gains.append(f"{gain.numbers} over {words}: {gain.verdict}")
    if not gains or "knn_top1" not in newest or "knn_test_images" not in newest:
        return ""
    return f"k-NN {100 * newest['knn_top1']:.1f} % of {newest['knn_test_images']:,} test images: {'; '.join(gains)}"


def describe_spread(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a line on how the embeddings spread at the beginning and at the end; empty if it was not measured.

    Args:
        rows: The rows of ``metrics.jsonl``.
    """
    keys = {"embedding_effective_rank": ("effective rank", ".1f"), "embedding_mean_cosine": ("mean cosine", ".2f")}
    parts = []
    for key, (name, digits) in keys.items():
        values = [row[key] for row in rows if isinstance(row.get(key), int | float)]
        if values:
            parts.append(f"{name} from {values[0]:{digits}} to {values[-1]:{digits}}")
    return f"embeddings: {', '.join(parts)}" if parts else ""
