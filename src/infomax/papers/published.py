"""Reads the tables that the four papers print, from one TOML file a paper, to show them beside our own results.

Each file holds the paper's results and those of the methods that it compares with. One ``[[tables]]`` is one table of
the paper, or the numbers of one section of its text. A key of the table holds for all of its columns; if it is a list,
it has one entry for each column. A key of a row holds for that row.

==========  ============================================================================================================
columns     what the paper's header says
protocol    ``linear``: a linear classifier on frozen features; ``online-linear``: one that learns beside the training;
            ``knn``: weighted nearest neighbours on frozen features;
            ``finetune``: all weights, on a share of the labels; ``transfer``: logistic regression on frozen features;
            ``transfer-finetune``: all weights; ``detection``, ``segmentation``: Mask R-CNN; ``speed``, ``other``: no
            accuracy
probe       the name of ``infomax evaluate linear --probe`` that trains a linear classifier as the paper did
finetuning  the name of ``infomax evaluate finetune --setting`` that fine-tunes as the paper did
detector    ``--arch`` and ``--schedule`` of ``infomax evaluate detect`` as in the paper, with a hyphen: ``c4-2x``
data        the data set as the library names it; ``average``: the mean of the row's other numbers
subset      the share of the training labels that is used, if it is not all; for ``knn`` the share that is searched
values      as printed, accuracies in per cent; ``"-"`` if the paper has no number, or the copy that was read lost it
deviation   standard deviations over ``runs`` runs
uncertain   why these numbers may be misread or stand in the wrong row or column
==========  ============================================================================================================

A ``[[figures]]`` is a figure of the paper, or a table that holds no result, with its ``number``, ``title`` and
``kind``, one of :data:`KINDS`. The other keys are fields of :class:`Conditions`. A method's name is spelt in the same
way in all files.
"""

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, get_type_hints

from infomax.runtime.checks import choose

PAPERS = ("MIRA", "CorInfoMax", "CARL", "MVEB")
PROTOCOLS = (
    *("linear", "online-linear", "knn", "finetune", "transfer", "transfer-finetune"),
    *("detection", "segmentation", "speed", "other"),
)
TRANSFERS = ("transfer", "transfer-finetune", "detection", "segmentation")
"""Protocols whose encoders were trained on ImageNet; those of the others on the images that they are evaluated on."""
DATA = (
    *("cifar10", "cifar100", "stl10", "tiny-imagenet", "imagenet100", "imagenet"),
    *("aircraft", "caltech101", "cars", "dtd", "flowers", "food101", "pets", "sun397", "voc2007", "coco", "average"),
)
SUBSETS = ("", "1percent", "10percent")
PER_CENT = (
    *("top1", "top5", "mean_per_class", "map11", "mean", "percent_of_time"),
    *("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"),
)
DESCRIPTIVE = ("million_parameters", "runs")
"""Conditions that describe a number and do not tell one training from another: the first one follows from the backbone,
the second is about the printed number."""
COLUMN_KEYS = ("subset", "probe", "finetuning", "detector", "evaluation_seeds")
METRICS = (*PER_CENT, "seconds_per_epoch", "minutes_per_epoch", "hours", "gigabytes")


KINDS = ("data", "diagram", "settings")
"""Kinds of figures: drawn from numbers, drawn by hand, or a table of settings."""


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """A frozen dataclass that holds a figure of a paper, or a table without results."""

    paper: str
    number: str
    """As the paper has it, as ``Figure 2``."""
    title: str
    kind: str
    """One of :data:`KINDS`."""
    missing: str = ""
    """What of it no numbers are of; empty if nothing."""

    def __post_init__(self) -> None:
        choose("kind", self.kind, KINDS)

    @property
    def name(self) -> str:
        """Returns paper and number, as ``MIRA Figure 2``."""
        return f"{self.paper} {self.number}"


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """A frozen dataclass that holds the settings a number was measured with, as far as its row and column say them.

    A field is None if only the paper's text says it, or if nothing does.
    """

    backbone: str | None = None
    epochs: int | None = None
    """Epochs of pretraining."""
    schedule_epochs: int | None = None
    """Epochs of the whole run, if the encoder is one of before its end; else it is one after ``epochs``, the last."""
    batch_size: int | None = None
    learning_rate: float | None = None
    multi_crop: bool | None = None
    """Whether there were local crops beside the global ones."""
    crops: str | None = None
    """Numbers and sides of the crops in pixels, as ``2x224+6x96``."""
    moving_average: bool | None = None
    """Whether the targets come from an EMA of the weights."""
    dimension: int | None = None
    """Number of outputs of the projector."""
    prototypes: int | None = None
    """Number of prototypes (MIRA)."""
    iterations: int | None = None
    """Fixed-point iterations of the assignment (MIRA)."""
    attraction: float | None = None
    """alpha, the weight of the distance between the views (CorInfoMax)."""
    entropy_weight: float | None = None
    """beta, the weight of the entropy of the embeddings (MVEB)."""
    kl_start: float | None = None
    """lambda, the weight of the uniformity loss at the start (CARL)."""
    kl_end: float | None = None
    """Its weight from ``kl_epochs`` on (CARL)."""
    kl_epochs: int | None = None
    """Epochs over which the weight falls (CARL)."""
    million_parameters: float | None = None
    hardware: str | None = None
    runs: int | None = None
    """Number of runs that the printed number is the mean of."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Conditions).items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ValueError(f"{name} must be {kind}, but is {value!r}")

    def __or__(self, nearer: "Conditions") -> "Conditions":
        """Returns these conditions with those of ``nearer``, as a row's, in place of them if they are not None."""
        return replace(self, **{name: value for name, value in vars(nearer).items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class Column:
    """A frozen dataclass that holds what a column of a table measures, and the conditions it adds to each row."""

    name: str
    protocol: str
    data: str
    metric: str
    subset: str = ""
    """Share of the labelled images: ``1percent``, ``10percent``, or an empty text for all of them."""
    probe: str = ""
    """Name of ``infomax evaluate linear --probe`` that trains as the paper did; empty if there is none."""
    finetuning: str = ""
    """Name of ``infomax evaluate finetune --setting`` that trains as the paper did; empty if there is none."""
    detector: str = ""
    """``--arch`` and ``--schedule`` of ``infomax evaluate detect`` as in the paper, as ``c4-2x``; empty if there are
    none."""
    evaluation_seeds: int = 1
    """Number of seeds of the evaluation, of one encoder, that the printed number is the mean over."""
    conditions: Conditions

    @property
    def trained_on(self) -> str:
        """Returns the name of the data set that the encoder was trained on: ImageNet, if it is transferred."""
        return "imagenet" if self.protocol in TRANSFERS else self.data

    @property
    def kept_epoch(self) -> int | None:
        """Returns the epoch of a longer run after which the encoder was taken; None for the one of a whole run."""
        epochs, schedule = self.conditions.epochs, self.conditions.schedule_epochs
        return None if schedule is None or epochs == schedule else epochs

    def __post_init__(self) -> None:
        choose("protocol", self.protocol, PROTOCOLS)
        choose("data", self.data, DATA)
        choose("metric", self.metric, METRICS)
        choose("subset", self.subset, SUBSETS)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A frozen dataclass that holds one method's numbers, one for each column; None if the paper has no number."""

    method: str
    values: tuple[float | None, ...]
    deviations: tuple[float | None, ...]
    """Standard deviation of each number over runs; None if the paper has none."""
    uncertain: str = ""
    """Reason why the numbers may be misread or misplaced; empty if they are certain."""
    conditions: Conditions


@dataclass(frozen=True, kw_only=True)
class Table:
    """A frozen dataclass that holds one table of a paper, or the numbers of one section of its text."""

    id: str
    paper: str
    number: str
    title: str
    setting: str
    """Text on the setting that all rows share."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        choose("paper", self.paper, PAPERS)
        for row in self.rows:
            row_name = f"{self.id}, {row.method}"
            if not len(row.values) == len(row.deviations) == len(self.columns):
                raise ValueError(f"{row_name}: {len(self.columns)} columns need as many values, not {len(row.values)}")
            for column, value, deviation in zip(self.columns, row.values, row.deviations, strict=True):
                highest = 100 if column.metric in PER_CENT else float("inf")
                if value is not None and not 0 <= value <= highest:
                    raise ValueError(f"{row_name}: {column.metric} must be from 0 to {highest}, but is {value}")
                if deviation is not None and (value is None or not 0 <= deviation <= value):
                    raise ValueError(f"{row_name}: {deviation} is no standard deviation of {value}")

    def numbers(self) -> "tuple[Number, ...]":
        """Returns all numbers of the table, row by row, without the cells that have none."""
        return tuple(
            Number(table=self, column=column, row=row, value=value, deviation=deviation)
            for row in self.rows
            for column, value, deviation in zip(self.columns, row.values, row.deviations, strict=True)
            if value is not None
        )


@dataclass(frozen=True, kw_only=True)
class Number:
    """A frozen dataclass that holds one published number with its table, column and row."""

    table: Table
    column: Column
    row: Row
    value: float
    """The number as printed; accuracies in per cent."""
    deviation: float | None

    @property
    def conditions(self) -> Conditions:
        """Returns the conditions of the column and of the row together."""
        return self.column.conditions | self.row.conditions


@cache
def tables() -> tuple[Table, ...]:
    """Returns all tables, in the order of the papers and of their tables."""
    return tuple(_table(raw) for paper in PAPERS for raw in _content(paper)["tables"])


@cache
def figures() -> tuple[PublishedFigure, ...]:
    """Returns all figures, and the tables without results, in the order of the papers."""
    return tuple(PublishedFigure(paper=paper, **raw) for paper in PAPERS for raw in _content(paper)["figures"])


def _content(paper: str) -> dict[str, Any]:
    text = files("infomax.papers").joinpath(f"{paper.lower()}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def table(name: str) -> Table:
    """Returns the table with this id, as ``mira-5``.

    Raises:
        ValueError: if there is none; the message lists the ids.
    """
    by_id = {table.id: table for table in tables()}
    return by_id[choose("the published table", name, by_id)]


def find_numbers(
    *,
    method: str | None = None,
    protocol: str | None = None,
    data: str | None = None,
    metric: str | None = None,
    subset: str | None = None,
) -> tuple[Number, ...]:
    """Returns the published numbers that fit all arguments, table by table; an argument that is None fits all.

    Args:
        method: Name of a method in any table.
        protocol: One of :data:`PROTOCOLS`.
        data: Name of a data set; it may be any name, and for most there is no number.
        metric: One of :data:`METRICS`.
        subset: Share of the labelled images: ``1percent``, ``10percent``, or an empty text for all of them.

    Raises:
        ValueError: if the method, protocol, metric or subset is unknown; the message lists those there are.
    """
    methods = dict.fromkeys(row.method for table in tables() for row in table.rows)
    allowed_values = {"method": methods, "protocol": PROTOCOLS, "metric": METRICS, "subset": SUBSETS}
    wanted = {"method": method, "protocol": protocol, "metric": metric, "subset": subset, "data": data}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    for name, choices in allowed_values.items():
        if name in wanted:
            choose(name, wanted[name], choices)
    return tuple(
        number
        for table in tables()
        for number in table.numbers()
        if ({"method": number.row.method} | vars(number.column)).items() >= wanted.items()
    )


def _table(raw: dict[str, Any]) -> Table:
    texts = {key: raw.pop(key) for key in ("id", "paper", "number", "title", "setting")}
    names, rows = raw.pop("columns"), raw.pop("rows")
    columns: list[dict[str, Any]] = [{"name": name} for name in names]
    for key, value in raw.items():  # a list has one entry for each column, another value holds for all columns
        entries = value if isinstance(value, list) else [value] * len(names)
        for column, entry in zip(columns, entries, strict=True):
            column[key] = entry
    return Table(
        **texts, columns=tuple(_column(**column) for column in columns), rows=tuple(_row(**row) for row in rows)
    )


def _column(*, name: str, protocol: str, data: str, metric: str, **others: Any) -> Column:
    measured: dict[str, Any] = {"protocol": protocol, "data": data, "metric": metric}
    measured |= {key: others.pop(key) for key in COLUMN_KEYS if key in others}
    return Column(name=name, **measured, conditions=Conditions(**others))


def _row(
    *, method: str, values: list[Any], deviation: list[Any] | None = None, uncertain: str = "", **conditions: Any
) -> Row:
    return Row(
        method=method,
        values=_numbers(values),
        deviations=_numbers(deviation or ["-"] * len(values)),
        uncertain=uncertain,
        conditions=Conditions(**conditions),
    )


def _numbers(printed: list[Any]) -> tuple[float | None, ...]:
    return tuple(None if number == "-" else float(number) for number in printed)
