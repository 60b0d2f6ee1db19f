"""Rows of results as a table, whose columns follow from the classes of the rows."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from infomax.data.splits import counted
from infomax.evaluation.result_row import Condition, ResultRow, RowField, Score, row_fields
from infomax.evaluation.rows import ClusterListsRow, ClusterRow
from infomax.reporting.differences import BASELINES, DifferenceColumn, differences_over_baselines
from infomax.reporting.tables import EMPTY, Cell, Table, make_table

NEAREST, SHOWN_CLUSTERS, SHOWN_NAME = 3, 20, 18  # images of a cluster, clusters, and characters of an image's name
LONGER_TRAINING = "a longer training may help"
FEW_IMAGES = 20  # to a cluster; with fewer, labels that were drawn at random have an NMI far from 0
FULL_SCORE = 1.0
LEAST_CLASSES = 6
"""Classes from which on top-5 is shown; of fewer, almost every image is right."""


def results_table(
    title: str, rows: Sequence[ResultRow], *, limits: Sequence[str] = (), cure: str = LONGER_TRAINING
) -> Table:
    """Makes the table of the rows of one evaluation; its title says what they have in common.

    Args:
        title: Name of the protocol.
        rows: The rows, at least one.
        limits: Files that say which classes and images were kept.
        cure: What to do if the trained encoder surpasses no baseline, in words for a user.
    """
    first, shared = rows[0], shared_conditions(rows)
    words = [title]
    for field in _marked(rows, Condition):
        value = getattr(first, field.name, None)
        if field.name in shared and field.name != "data" and value not in (None, False):
            words.append(_label(field) if value is True else f"{_label(field)} {value}")
    head = ", ".join(words)
    if "data" in shared:
        same = {key: n for key, n in first.image_counts.items() if all(row.image_counts.get(key) == n for row in rows)}
        counts = " and ".join(f"{count} {word}" for word, count in same.items())
        head += f": {counts} images of {first.data}" if counts else f" of {first.data}"
        head += f" in {first.classes} classes" if first.classes else ""
        head += "".join(f", those of {file}" for file in limits)
    lines = (describe_lack_of_gain(rows, cure), describe_many_clusters(rows), describe_silhouette(rows))
    notes = [line for line in lines if line is not None]
    names = [row.title for row in rows]
    differences = differences_over_baselines(rows, names, names, names[0])
    head += "; scores in %" if has_shares(rows) else ""
    return rows_table(rows, names, hidden=shared, title=head, notes=notes, differences=differences)


def describe_lack_of_gain(rows: Sequence[ResultRow], cure: str = LONGER_TRAINING) -> str | None:
    """Returns a line that names the baselines which a run's encoder does not surpass; None if it surpasses all.

    A baseline is named if its main score is as high in each condition that both were measured in. How well images
    without labels fall into clusters is not compared: good features need not have the clearer ones.

    Args:
        rows: The rows of one evaluation.
        cure: What to do about it, in words for a user.
    """
    scores = {(row.representation, _condition_values(row)): row.score for row in rows if row.classes}
    trained = [row for row in rows if row.representation == "trained encoder" and row.classes]
    reached = []
    for name in BASELINES:
        pairs = [(row.score, scores.get((name, _condition_values(row)))) for row in trained]
        gains = [score - baseline for score, baseline in pairs if baseline is not None]
        if gains and max(gains) <= 0:
            reached.append(f"the {name}")
    if not reached:
        return None
    names = " and ".join(reached)
    if all(row.score >= FULL_SCORE for row in trained):
        verb = "reaches" if len(reached) == 1 and not reached[0].endswith("pixels") else "reach"
        return f"{names} {verb} 100.0 % too: on these images nothing can be better"
    steps = trained[0].trained_steps
    after = "" if steps is None else f" after {counted(steps, 'step')}"
    return f"the trained encoder is no better than {names}{after}; {cure}"


def describe_silhouette(rows: Sequence[ResultRow]) -> str | None:
    """Returns a line on what a silhouette does not tell; None if none of the rows has one.

    Args:
        rows: The rows of one evaluation.
    """
    if all(row.metric != "silhouette" for row in rows):
        return None
    return (
        "a silhouette says how far apart clusters are, not how good the encoder is; ten labelled images of each class "
        "would tell that: infomax evaluate few-shot"
    )


def describe_many_clusters(rows: Sequence[ResultRow]) -> str | None:
    """Returns a line that warns of NMI if clusters hold few images each: it then is high by chance; None otherwise.

    Args:
        rows: The rows of one evaluation.
    """
    many = [row for row in rows if isinstance(row, ClusterRow) and row.clusters * FEW_IMAGES > row.test_images]
    if not many:
        return None
    most = max(many, key=lambda row: row.clusters)
    return (
        f"NMI is high by chance if {counted(most.test_images)} fall into {most.clusters} clusters; ARI, which is 0 by "
        "chance, is not"
    )


def _condition_values(row: ResultRow) -> tuple[str, ...]:
    return tuple(str(getattr(row, field.name, None)) for field in _marked([row], Condition))


def lists_table(row: ResultRow) -> Table | None:
    """Makes the table of the clusters of a row that lists images: the size of each, and the images in its middle.

    Args:
        row: The row; another one has no such table.
    """
    if not isinstance(row, ClusterListsRow) or row.lists is None or row.distances is None:
        return None
    lines = [
        [f"{number}: {', '.join(map(_end_of, names[:NEAREST]))}", str(len(names)), f"{fmean(distances):.2f}"]
        for number, (names, distances) in enumerate(zip(row.lists, row.distances, strict=True), start=1)
    ]
    title = f"{len(lines)} clusters of {row.representation}, the largest first"
    smaller = len(lines) - SHOWN_CLUSTERS
    notes = [f"and {smaller} smaller ones"] if smaller > 0 else []
    notes.append("distance: the mean one of its images to its centre, of features at unit length")
    columns = ["cluster: the images nearest to its centre", "images", "distance"]
    return make_table(columns, lines[:SHOWN_CLUSTERS], title=title, notes=notes)


def _end_of(name: str) -> str:
    """Returns a name, or its end if it is long."""
    return name if len(name) <= SHOWN_NAME else f"...{name[3 - SHOWN_NAME :]}"


def describe_verdicts(name: str, rows: Sequence[ResultRow]) -> str | None:
    """Returns a line on the verdicts that were in force when the training of a run ended; None if there were none.

    Args:
        name: The run's name.
        rows: Rows of results, of which the newest one of a trained encoder tells.
    """
    verdicts = next((row.verdicts for row in reversed(rows) if row.verdicts is not None), ())
    if not verdicts:
        return None
    return f"{name}: its training ended with {', '.join(verdicts)}; its metrics.jsonl has the evidence and the advice"


def has_shares(rows: Sequence[ResultRow]) -> bool:
    """Returns whether a table of these rows has scores that are shares, which it shows in %."""
    return any(isinstance(x.mark, Score) and not x.mark.scale and _has(rows, x) for x in _marked(rows, Score))


def shared_conditions(rows: Sequence[ResultRow]) -> set[str]:
    """Returns the names of the conditions that are the same in all rows."""
    names = [field.name for field in _marked(rows, Condition)]
    return {name for name in names if all(getattr(row, name, None) == getattr(rows[0], name, None) for row in rows)}


def rows_table(
    rows: Sequence[ResultRow],
    names: Sequence[str],
    *,
    hidden: set[str],
    title: str,
    notes: Sequence[str] = (),
    differences: DifferenceColumn | None = None,
) -> Table:
    """Makes a table with a line for each row: its conditions, but the hidden ones, its scores, and a difference.

    Top-5 accuracies of fewer than 6 classes are left out.

    Args:
        rows: The rows.
        names: A name for each row.
        hidden: Names of conditions that have no column.
        title: Lines above the table.
        notes: Lines below it.
        differences: The last column, which is left out if it is empty, and the lines that explain it.
    """
    conditions = [field for field in _marked(rows, Condition) if field.name not in hidden and _holds(rows, field)]
    scores = [field for field in _marked(rows, Score) if any(_shown(row, field) is not None for row in rows)]
    lines = [
        [
            name,
            *(_condition_cell(getattr(row, field.name, None)) for field in conditions),
            *(_score_cell(_shown(row, field), field) for field in scores),
        ]
        for name, row in zip(names, rows, strict=True)
    ]
    columns = ["", *map(_label, conditions), *map(_label, scores)]
    if differences is not None:
        notes = [*notes, *differences.notes]
        if not differences.is_empty:
            columns.append(differences.header)
            lines = [[*line, cell] for line, cell in zip(lines, differences.cells, strict=True)]
    return make_table(columns, lines, title=title, notes=notes)


def _shown(row: ResultRow, field: RowField) -> Any:
    """Returns the value of a score that a table shows of a row; None if it shows none."""
    few_classes = field.name == "top5" and 0 < row.classes < LEAST_CLASSES
    return None if few_classes else getattr(row, field.name, None)


def _marked(rows: Sequence[ResultRow], mark: type[Condition] | type[Score]) -> list[RowField]:
    """Returns the marked fields of all rows in the order of their columns.

    The data set is the last condition. The interval stands behind the last score that is the metric of a row.
    """
    classes = dict.fromkeys(type(row) for row in rows)
    named = {field.name: field for cls in classes for field in row_fields(cls) if isinstance(field.mark, mark)}
    last = named.pop("data" if mark is Condition else "interval", None)
    ordered = list(named.values())
    if last is not None:
        metrics = {row.metric for row in rows}
        places = [index for index, field in enumerate(ordered, start=1) if field.name in metrics]
        ordered.insert(len(ordered) if mark is Condition else max(places, default=len(ordered)), last)
    return ordered


def _has(rows: Sequence[ResultRow], field: RowField) -> bool:
    return any(getattr(row, field.name, None) is not None for row in rows)


def _holds(rows: Sequence[ResultRow], field: RowField) -> bool:
    """Returns whether a condition holds in a row: a column of nothing but ``False`` says nothing."""
    return any(getattr(row, field.name, None) not in (None, False) for row in rows)


def _label(field: RowField) -> str:
    assert isinstance(field.mark, Condition | Score)
    scale = field.mark.scale if isinstance(field.mark, Score) else ""
    return f"{field.mark.label} ({scale})" if scale else field.mark.label


def _condition_cell(value: Any) -> Cell:
    return EMPTY if value is None else Cell(str(value))


def _score_cell(value: float | tuple[float, float] | None, field: RowField) -> Cell:
    if value is None:
        return EMPTY
    if isinstance(field.mark, Score) and field.mark.scale and isinstance(value, float):
        return Cell(f"{value:.3f}", value)
    if isinstance(value, tuple):
        low, high = value
        return Cell(f"{100 * low:.1f} to {100 * high:.1f}")
    return Cell.per_cent(value)
