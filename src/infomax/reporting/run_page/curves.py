"""Section with the curves of a training: loss, scores, learning rate, gradient, and the measures of its health."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, log

from infomax.reporting.pages.blocks import Paragraph, SideBySide
from infomax.reporting.pages.charts import Curve, LineChart
from infomax.reporting.pages.page import Section
from infomax.reporting.run_page.content import Content
from infomax.reporting.run_page.shown_runs import ShownRun

MOST_POINTS = 400
"""Points of a curve; of more, a point is the mean of several lines, in a band from the lowest to the highest."""
MOST_LEVELS = 3
"""Levels of untrained encoders that a chart shows; of more, its caption has the numbers."""
NOT_OWN = {
    *("step", "epoch", "loss", "gradient_norm", "learning_rate", "images_per_second", "waiting", "seconds"),
    *("health_rows", "prototypes", "pixel_std", "near_duplicate_share", "collapsed", "evidence", "advice", "state"),
}
"""Keys of the metrics that are no measure of a method's own, beside those of the charts below."""


@dataclass(frozen=True)
class Plot:
    """A frozen dataclass that describes a chart: which keys of the metrics it shows, and what they say."""

    title: str
    y_label: str
    keys: Mapping[str, str]
    """Names of the curves by the keys of the metrics."""
    caption: str = ""
    log_y: bool = False
    scale: float = 1.0
    """Factor of the values, as 100 for shares in %."""


PLOTS = (
    Plot("Loss", "loss", {"loss": "loss"}, "A loss says little of what was learned: look at the measures below."),
    Plot(
        "Accuracy during the training",
        "%",
        {"knn_top1": "k-NN", "linear_top1": "linear"},
        "Of at most 2,000 test images. A k-NN curve that stays at the untrained encoder's level has learned nothing "
        "that k-NN can use.",
        scale=100,
    ),
    Plot("Learning rate", "rate", {"learning_rate": "learning rate"}),
    Plot("Gradient norm", "L2 norm", {"gradient_norm": "gradient norm"}, log_y=True),
    Plot(
        "Cosine",
        "mean cosine",
        {"embedding_mean_cosine": "embeddings", "feature_mean_cosine": "features"},
        "Between different images. 1: all images are one point. High before step 20 in healthy trainings too.",
    ),
    Plot(
        "Collapse level",
        "from 0 to 1",
        {"embedding_collapse_level": "embeddings", "feature_collapse_level": "features"},
        "0: spread as evenly as can be; 1: one point.",
    ),
    Plot(
        "Rank",
        "dimensions",
        {
            "embedding_effective_rank": "embeddings, effective rank",
            "feature_effective_rank": "features, effective rank",
            "embedding_participation_ratio": "embeddings, participation ratio",
            "feature_participation_ratio": "features, participation ratio",
        },
        "How many directions are used. With prototypes it falls while the encoder learns; it ignores scale, so look at "
        "the cosine first.",
    ),
    Plot(
        "Uniformity",
        "log mean potential",
        {"embedding_uniformity": "embeddings"},
        "About -4: embeddings are spread evenly over the sphere. 0: one point.",
    ),
    Plot(
        "Distance of two views of an image",
        "squared distance",
        {"embedding_alignment": "embeddings"},
        "Of their embeddings, from 0 to 4: they should be near each other while uniformity stays low.",
    ),
    Plot(
        "Assignments",
        "nats",
        {
            "assignment_mutual_information": "information about the image",
            "assignment_marginal_entropy": "entropy of the mean assignment",
        },
        "0 information: prototypes say nothing about an image. An entropy far below ln K: few prototypes are used.",
    ),
    Plot(
        "Prototypes in use",
        "%",
        {"prototypes_in_use": "prototypes in use"},
        "Of all prototypes, those that are the most probable one of at least a tenth of an equal share of the images.",
        scale=100,
    ),
    Plot("Embedding norm", "L2 norm", {"embedding_norm": "embeddings"}, log_y=True),
    Plot(
        "Entropy (MVEB)", "nats", {"entropy": "entropy"}, "Below that of the uniform density: 0 is as even as possible."
    ),
    Plot(
        "Mutual information (CorInfoMax)",
        "nats",
        {"ldmi": "log-determinant mutual information"},
        "Of the two branches, by their running covariances; it should rise.",
    ),
)
"""The charts in their order; one whose keys no run has is left out. What is left of the keys has a chart each."""
ACCURACY = "Accuracy during the training"


def section(content: Content) -> Section | None:
    """Returns the section; None if there are no metrics."""
    runs = [shown for shown in content.runs if shown.rows]
    if not runs:
        return None
    charts, axis = tuple(curve_charts(runs)), common_axis(runs)
    events = tuple(Paragraph(line) for shown in runs for line in events_of(shown, content.prefix(shown)))
    text = "What the training wrote into metrics.jsonl, "
    text += "by epochs, as the runs have epochs of different lengths." if axis.by_epoch else "by steps."
    if any(len(shown.values("loss")) > MOST_POINTS for shown in runs):
        text += " A point is the mean of several lines of the metrics, in a band from the lowest to the highest."
    return Section("Curves", text, (*events, SideBySide(charts))) if charts else None


def curve_charts(runs: Sequence[ShownRun]) -> Iterator[LineChart]:
    """Yields the charts of some runs that have metrics, in the order of the page."""
    axis = common_axis(runs)
    for plot in (*PLOTS, *own_plots(runs)):
        yield from charts_of(plot, runs, axis)


@dataclass(frozen=True)
class Axis:
    """A frozen dataclass that says what a chart's x axis is."""

    by_epoch: bool
    """Whether it has epochs, and not steps."""

    @property
    def label(self) -> str:
        """Its label."""
        return "epoch" if self.by_epoch else "step"

    def place(self, shown: ShownRun, step: float) -> float:
        """Returns where a step of a run stands."""
        return step / shown.steps_per_epoch if self.by_epoch else step


def common_axis(runs: Sequence[ShownRun]) -> Axis:
    """Returns the axis on which some runs can be compared: epochs, if their steps are of different sizes."""
    return Axis(by_epoch=len({shown.steps_per_epoch for shown in runs}) > 1)


def own_plots(runs: Sequence[ShownRun]) -> Iterator[Plot]:
    """Yields a chart for each measure of a method's own that no other chart shows, as its terms of the loss."""
    known = {key for plot in PLOTS for key in plot.keys} | NOT_OWN
    for key in dict.fromkeys(key for shown in runs for row in shown.rows for key in row):
        is_known = key in known or key.startswith(
            ("embedding_", "feature_", "knn_", "linear_", "assignment_", "verdict")
        )
        if not is_known and not key.endswith("knn_top1"):
            name = key.replace("_", " ")
            yield Plot(f"Term of the loss: {name}", name, {key: name})


def charts_of(plot: Plot, runs: Sequence[ShownRun], axis: Axis) -> Iterator[LineChart]:
    """Yields the charts of a plot: one with all keys of a single run, or one a key with a curve for each run."""
    keys = [key for key in plot.keys if any(shown.values(key) for shown in runs)]
    if not keys:
        return
    groups = [keys] if len(runs) == 1 else [[key] for key in keys]
    for group in groups:
        title = plot.title if len(groups) == 1 else f"{plot.title}: {plot.keys[group[0]]}"
        curves = []
        for shown in runs:
            for key in group:
                if values := shown.values(key):
                    name = plot.keys[key] if len(runs) == 1 else shown.name
                    style = shown.style if len(runs) > 1 else len(curves)
                    points = {axis.place(shown, step): plot.scale * value for step, value in values.items()}
                    curves.append(curve(name, points, style))
        caption = plot.caption
        if plot.title == ACCURACY and "knn_top1" in group:
            levels, words = untrained_levels(runs, axis, first_style=max(x.style for x in curves) + 1)
            curves, caption = [*curves, *levels], f"{caption} {words}".strip()
        drawable = any(y is not None for x in curves for y in x.y)
        if drawable:
            title = f"{title}, {curves[0].name}" if len(runs) > 1 and len(curves) == 1 else title  # has no legend
            yield LineChart(title, axis.label, plot.y_label, tuple(curves), log_y=plot.log_y, caption=caption)


def curve(name: str, points: Mapping[float, float], style: int) -> Curve:
    """Returns a curve of at most :data:`MOST_POINTS` points; a value that is NaN is a gap."""
    x, y = list(points), list(points.values())
    if len(x) <= MOST_POINTS:
        return Curve(name, tuple(x), tuple(None if isnan(value) else value for value in y), style)
    size = -(-len(x) // MOST_POINTS)
    groups = [(x[i : i + size], [v for v in y[i : i + size] if isfinite(v)]) for i in range(0, len(x), size)]
    means = tuple(sum(values) / len(values) if values else None for _, values in groups)
    low, high = (tuple(limit(values) if values else None for _, values in groups) for limit in (min, max))
    return Curve(name, tuple(sum(xs) / len(xs) for xs, _ in groups), means, style, low, high)


def untrained_levels(runs: Sequence[ShownRun], axis: Axis, *, first_style: int) -> tuple[list[Curve], str]:
    """Returns the k-NN accuracy of the untrained and initial encoders as level curves; or words if they are many."""
    levels: dict[tuple[str, float], list[ShownRun]] = {}
    for key, name in (("initial_knn_top1", "initial encoder"), ("untrained_knn_top1", "untrained encoder")):
        for shown in runs:
            if (value := shown.last(key)) is not None:
                levels.setdefault((name, value), []).append(shown)
    if not levels:
        return [], ""
    if len(levels) > MOST_LEVELS:
        numbers = [
            f"{', '.join(x.name for x in who)} {100 * value:.1f} % ({name})" for (name, value), who in levels.items()
        ]
        return [], f"k-NN before the training: {'; '.join(numbers)}."
    curves = []
    for number, ((name, value), who) in enumerate(levels.items()):
        ends = (0.0, max(axis.place(shown, max(row["step"] for row in shown.rows)) for shown in who))
        of_runs = "" if len(who) == len(runs) else f" of {', '.join(shown.name for shown in who)}"
        curves.append(Curve(f"k-NN, {name}{of_runs}", ends, (100 * value, 100 * value), first_style + number))
    return curves, ""


def events_of(shown: ShownRun, prefix: str = "") -> Iterator[str]:
    """Yields a sentence for each event of a run: verdicts, resumptions, extensions.

    Args:
        shown: The run.
        prefix: Words before each sentence, as the run's name.
    """

    def when(step: int) -> str:
        return f"step {step:,} (epoch {step / shown.steps_per_epoch:.1f})"

    verdicts = [f"{row['verdict']}, {row.get('state', '')} at {when(row['step'])}" for row in shown.said]
    if verdicts:
        yield f"{prefix}Verdicts: {'; '.join(verdicts)}."
    for extension in shown.config.get("extended", []):
        epochs, step = extension["epochs"], extension["step"]
        yield f"{prefix}Extended by {epochs} epochs after {when(step)}, with a schedule of their own."
    if resumed := len(shown.config.get("resumed", [])):
        yield f"{prefix}Resumed {'once' if resumed == 1 else f'{resumed} times'}; what was measured twice counts once."
    if shown.progress:
        yield f"{prefix}Unfinished: {shown.progress}."
    prototypes = shown.last("prototypes")
    if prototypes and prototypes > 1:
        yield f"{prefix}K = {prototypes:.0f} prototypes, ln K = {log(prototypes):.2f} nats."
