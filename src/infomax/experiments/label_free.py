"""Measures encoders without labels, on images that runs were trained on and by what their metrics say.

In: the folder of an encoder and images. Out: numbers by name. :mod:`infomax.experiments.choose` ranks runs by them, and
``benchmarks/choosing.py`` says how well that works.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infomax.analysis import measures
from infomax.analysis.verdict_rules.rule import Verdict
from infomax.analysis.verdicts import VerdictTracker
from infomax.data.images.contract import Images
from infomax.data.images.selection import select_images
from infomax.evaluation.options import ComputeOptions, EvaluationOptions
from infomax.evaluation.representations import represent
from infomax.features.view_features import extract_view_features
from infomax.runs.run_folder import Run, trained_steps_of
from infomax.runtime.options import option_names, pick

VIEW_IMAGES, DRAWS = 250, 4
"""Images of which LiDAR is measured, at most, and draws of the views of each, of two global crops as a rule."""
COLLAPSES = ("total collapse", "dimensional collapse", "cluster collapse", "uniform assignment", "divergence")
"""Verdicts by which an encoder is no candidate."""


@dataclass(frozen=True)
class Measure:
    """A frozen dataclass that describes a measure, and the direction that its authors call the better one."""

    label: str
    """Name of the column, as ``RankMe``."""
    compute: Callable[[Tensor], float] | None
    """Computes it of features [n, d]; None for a measure that is read from the run's metrics."""
    sign: int
    """1 if larger values are to be better, -1 if smaller ones are."""
    best: float | None = None
    """The value that is to be best, if neither direction is."""

    def score(self, value: float) -> float:
        """Returns a number that is larger for a better value."""
        return self.sign * value if self.best is None else -abs(value - self.best)

    @property
    def direction(self) -> str:
        """Words for the order, as ``largest first``."""
        if self.best is not None:
            return f"nearest to {self.best:g} first"
        return "largest first" if self.sign > 0 else "smallest first"


MEASURES: Mapping[str, Measure] = {
    "rankme": Measure("RankMe", measures.rankme, 1),
    "effective_rank": Measure("effective rank", measures.effective_rank, 1),
    "participation_ratio": Measure("participation", measures.participation_ratio, 1),
    "stable_rank": Measure("stable rank", measures.stable_rank, 1),
    "alpha_req": Measure("alpha-ReQ", measures.alpha_req, -1, best=1.0),
    "spectrum_auc": Measure("spectrum AUC", measures.spectrum_auc, -1),
    "self_clustering": Measure("self-clustering", measures.self_clustering, -1),
    "lidar": Measure("LiDAR", None, 1),
    "embedding_rankme": Measure("RankMe of z", None, 1),
    "embedding_effective_rank": Measure("effective rank of z", None, 1),
    "embedding_uniformity": Measure("uniformity of z", None, -1),
    "embedding_alignment": Measure("alignment of z", None, -1),
    "assignment_mutual_information": Measure("information of assignments", None, 1),
    "loss": Measure("loss", None, -1),
}
"""The measures by name. Those of features are of the encoder's own output, in evaluation mode; z are the embeddings, as
the run itself has measured them."""
FROM_METRICS = tuple(name for name in MEASURES if name.startswith(("embedding_", "assignment_")) or name == "loss")


def sample_images(images: Images, count: int) -> Images:
    """Returns ``count`` images at equal distances, or all if there are no more."""
    if len(images) <= count:
        return images
    return select_images(images, np.linspace(0, len(images) - 1, count).astype(int), None, [])


def measure_features(
    encoder: Path, run: Run, images: Images, options: ComputeOptions, *, quiet: bool
) -> dict[str, float]:
    """Returns the measures of an encoder's features.

    Args:
        encoder: A run folder, or an encoder that was kept in it.
        run: The run.
        images: The images; LiDAR takes some of them.
        options: Device, workers and cache.
        quiet: Whether to show no progress bars.

    Raises:
        ValueError: naming the encoder, if an image cannot be read, or features are NaN or infinite.
    """
    shared = {name: getattr(options, name) for name in option_names(ComputeOptions)}
    evaluation = pick(EvaluationOptions, {**shared, "quiet": quiet})
    try:
        representation = represent(encoder, evaluation)
        features = representation.features(images, str(encoder))
        values = {name: x.compute(features) for name, x in MEASURES.items() if x.compute is not None}
        assert representation.encoder is not None
        some = sample_images(images, VIEW_IMAGES)
        views = replace(run.recipe.views, local_crops=())
        device = evaluation.network_device
        of_views = extract_view_features(
            representation.encoder,
            some,
            views,
            draws=DRAWS,
            device=device,
            workers=options.workers,
            pixel_format=run.recipe.preprocessing.pixel_format,
        )
        values["lidar"] = measures.lidar(of_views.to(torch.float64))
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(encoder) in text else f"{encoder}: {text}") from error
    return {name: value for name, value in values.items() if isfinite(value)}


def measure_metrics(run: Run, steps: int) -> dict[str, float]:
    """Returns the measures that a run's metrics have of its weights after some steps: each the newest by then."""
    values: dict[str, float] = {}
    for row in run.read_rows("metrics.jsonl"):
        if row["step"] <= steps:
            values |= {name: row[name] for name in FROM_METRICS if _is_number(row.get(name))}
    return values


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value)


def verdicts_by(run: Run, steps: int) -> tuple[Verdict, ...]:
    """Returns the verdicts on a run that hold after some of its steps, of its metrics alone."""
    recipe, total = run.recipe, run.recipe.steps(run.config["images"])
    per_epoch = max(1, total // recipe.epochs)
    tracker = VerdictTracker(method=recipe.method.name, total_steps=total, steps_per_epoch=per_epoch)
    for row in run.read_rows("metrics.jsonl"):
        if row["step"] <= steps:
            tracker.update(row)
    return tracker.current


def collapse_of(run: Run, encoder: Path) -> str:
    """Returns words for the collapse or divergence by which an encoder is no candidate; empty if there is none.

    Args:
        run: The run.
        encoder: Its folder, or an encoder that was kept in it.
    """
    steps = trained_steps_of(encoder)
    ill = [v for v in verdicts_by(run, steps) if v.name in COLLAPSES and v.state in ("warning", "failed")]
    if ill:
        return f"{ill[0].name} since step {ill[0].step}: {ill[0].evidence}"
    if encoder == run.path and run.collapsed:
        return "all images have the same representation"
    return ""
