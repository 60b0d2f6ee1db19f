"""The tables that the four papers print, read from one TOML file a paper, to be shown beside our own results.

Each file holds the paper's results and those of the methods that it compares with. One ``[[tables]]`` is one table of
the paper, or the numbers of one section of its text. A key of the table holds for all of its columns; if it is a list,
it has one entry for each column. A key of a row holds for that row.

==========  ============================================================================================================
columns     what the paper's header says
protocol    ``linear``: a linear classifier on frozen features; ``knn``: weighted nearest neighbours on them;
            ``finetune``: all weights, on a share of the labels; ``transfer``: logistic regression on frozen features;
            ``transfer-finetune``: all weights; ``detection``, ``segmentation``: Mask R-CNN; ``speed``, ``other``: no
            accuracy
probe       how the paper's own linear classifier was trained, as ``infomax evaluate linear --probe`` names it
data        the data set as the library names it; ``average``: the mean of the row's other numbers
subset      the share of the labelled images, if it is not all of them; for ``knn`` the share of those searched
values      as printed, accuracies in per cent; ``"-"`` if the paper has no number, or the copy that was read lost it
deviation   standard deviations over ``runs`` runs
uncertain   why these numbers may be misread or stand in the wrong row or column
==========  ============================================================================================================

The other keys are fields of :class:`Conditions`. Names of methods are spelt alike across papers.
"""

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, get_type_hints

from infomax.runtime.checks import choose

PAPERS = ("MIRA", "CorInfoMax", "CARL", "MVEB")
PROTOCOLS = (
    *("linear", "knn", "finetune", "transfer", "transfer-finetune"),
    *("detection", "segmentation", "speed", "other"),
)
DATA = (
    *("cifar10", "cifar100", "stl10", "tiny-imagenet", "imagenet100", "imagenet"),
    *("aircraft", "caltech101", "cars", "dtd", "flowers", "food101", "pets", "sun397", "voc2007", "coco", "average"),
)
SUBSETS = ("", "1percent", "10percent")
PER_CENT = (
    *("top1", "top5", "mean_per_class", "map11", "mean", "percent_of_time"),
    *("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"),
)
METRICS = (*PER_CENT, "seconds_per_epoch", "minutes_per_epoch", "hours", "gigabytes")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How a number came about, as far as its table says it; None where the table's text says it, or nothing does."""

    backbone: str | None = None
    epochs: int | None = None
    """Of pretraining."""
    batch_size: int | None = None
    learning_rate: float | None = None
    multi_crop: bool | None = None
    """Whether there were small crops beside the large ones."""
    crops: str | None = None
    """Numbers and sides of the crops."""
    moving_average: bool | None = None
    """Whether the targets come from a moving average of the weights."""
    dimension: int | None = None
    """Of the projector's output."""
    prototypes: int | None = None
    iterations: int | None = None
    attraction: float | None = None
    entropy_weight: float | None = None
    million_parameters: float | None = None
    hardware: str | None = None
    runs: int | None = None
    """How many runs the number is the mean of."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Conditions).items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ValueError(f"{name} must be {kind}, but is {value!r}")

    def __or__(self, nearer: "Conditions") -> "Conditions":
        return replace(self, **{name: value for name, value in vars(nearer).items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class Column:
    """What was measured, and what a table's columns vary."""

    name: str
    protocol: str
    data: str
    metric: str
    subset: str = ""
    """Of the labelled images; none means all of them."""
    probe: str = ""
    """How the paper's own linear classifier was trained, by the names of ``infomax evaluate linear --probe``."""
    conditions: Conditions

    def __post_init__(self) -> None:
        choose("protocol", self.protocol, PROTOCOLS)
        choose("data", self.data, DATA)
        choose("metric", self.metric, METRICS)
        choose("subset", self.subset, SUBSETS)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method's numbers, one for each column; None where there is none."""

    method: str
    values: tuple[float | None, ...]
    deviations: tuple[float | None, ...]
    """Standard deviations."""
    uncertain: str = ""
    """Why the numbers may be misread or misplaced; empty where they are certain."""
    conditions: Conditions


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of a paper, or the numbers of one section of its text."""

    id: str
    paper: str
    number: str
    title: str
    setting: str
    """What its rows share."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        choose("paper", self.paper, PAPERS)
        for row in self.rows:
            where = f"{self.id}, {row.method}"
            if not len(row.values) == len(row.deviations) == len(self.columns):
                raise ValueError(f"{where}: {len(self.columns)} columns need as many values, not {len(row.values)}")
            for column, value, deviation in zip(self.columns, row.values, row.deviations, strict=True):
                top = 100 if column.metric in PER_CENT else float("inf")
                if value is not None and not 0 <= value <= top:
                    raise ValueError(f"{where}: {column.metric} must be from 0 to {top}, but is {value}")
                if deviation is not None and (value is None or not 0 <= deviation <= value):
                    raise ValueError(f"{where}: {deviation} is no standard deviation of {value}")

    def numbers(self) -> "tuple[Number, ...]":
        """All that are there, row by row."""
        return tuple(
            Number(table=self, column=column, row=row, value=value, deviation=deviation)
            for row in self.rows
            for column, value, deviation in zip(self.columns, row.values, row.deviations, strict=True)
            if value is not None
        )


@dataclass(frozen=True, kw_only=True)
class Number:
    """One published number and where it stands."""

    table: Table
    column: Column
    row: Row
    value: float
    """As printed: accuracies in per cent."""
    deviation: float | None

    @property
    def conditions(self) -> Conditions:
        """Those of the column and of the row."""
        return self.column.conditions | self.row.conditions


@cache
def tables() -> tuple[Table, ...]:
    """All tables, paper by paper."""
    texts = [files("infomax.papers").joinpath(f"{paper.lower()}.toml").read_text(encoding="utf-8") for paper in PAPERS]
    return tuple(_table(raw) for text in texts for raw in tomllib.loads(text)["tables"])


def table(name: str) -> Table:
    """The table of this id, as in ``mira-5``.

    Raises:
        ValueError: naming the ids, if none is this.
    """
    by_id = {table.id: table for table in tables()}
    return by_id[choose("the published table", name, by_id)]


def find(
    *,
    method: str | None = None,
    protocol: str | None = None,
    data: str | None = None,
    metric: str | None = None,
    subset: str | None = None,
) -> tuple[Number, ...]:
    """The numbers of this method, protocol, data set, metric and subset, table by table; of any, where it is None.

    Args:
        data: May be any name; of most there is no number.
        subset: Of the labelled images: 1percent, 10percent, or an empty text for all of them.

    Raises:
        ValueError: naming what there is, if one of the others is unknown.
    """
    methods = dict.fromkeys(row.method for table in tables() for row in table.rows)
    known = {"method": methods, "protocol": PROTOCOLS, "metric": METRICS, "subset": SUBSETS}
    wanted = {"method": method, "protocol": protocol, "metric": metric, "subset": subset, "data": data}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    for name, names in known.items():
        if name in wanted:
            choose(name, wanted[name], names)
    return tuple(
        number
        for table in tables()
        for number in table.numbers()
        if ({"method": number.row.method} | vars(number.column)).items() >= wanted.items()
    )


def _table(raw: dict[str, Any]) -> Table:
    about = {key: raw.pop(key) for key in ("id", "paper", "number", "title", "setting")}
    names, rows = raw.pop("columns"), raw.pop("rows")
    columns: list[dict[str, Any]] = [{"name": name} for name in names]
    for key, given in raw.items():
        entries = given if isinstance(given, list) else [given] * len(names)
        for column, entry in zip(columns, entries, strict=True):
            column[key] = entry
    return Table(
        **about, columns=tuple(_column(**column) for column in columns), rows=tuple(_row(**row) for row in rows)
    )


def _column(
    *, name: str, protocol: str, data: str, metric: str, subset: str = "", probe: str = "", **conditions: Any
) -> Column:
    measured = {"protocol": protocol, "data": data, "metric": metric, "subset": subset, "probe": probe}
    return Column(name=name, **measured, conditions=Conditions(**conditions))


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
