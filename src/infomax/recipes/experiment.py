"""Describes a paper's experiments: the recipe, the data set, the cost, and where the paper prints the result."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from infomax.papers.published import Column, Number, Row, table, tables
from infomax.recipes.schema import Recipe
from infomax.runtime.checks import choose

TYPICAL_IMAGES = 50_000  # of a data set whose number of images is not known
LINEAR = ("linear", "online-linear")
"""Protocols of a linear accuracy."""


@dataclass(frozen=True)
class Cells:
    """A frozen dataclass that selects numbers of a published table, in the rows of one method."""

    table: str
    """Id of the table, as ``mira-1``."""
    columns: tuple[str, ...]
    """Names of the columns; none stands for all of them."""
    conditions: dict[str, Any]
    """Conditions that a row must have."""
    row: str | None = None
    """The method's name in the table, as ``MoCo v3``; None if it is that of the recipe's own method."""

    def positions(self, method: str) -> tuple[tuple[Row, Column], ...]:
        """Returns the rows and columns of all selected cells, also of those whose number nobody can read.

        Raises:
            ValueError: if there is no such table or column.
        """
        published = table(self.table)
        for name in self.columns:
            choose(f"the column of {self.table}", name, [column.name for column in published.columns])
        return tuple(
            (row, column)
            for row in published.rows
            if row.method.lower() == (self.row or method).lower()
            and vars(row.conditions).items() >= self.conditions.items()
            for column in published.columns
            if not self.columns or column.name in self.columns
        )

    def numbers(self, method: str) -> tuple[Number, ...]:
        """Returns the selected numbers.

        Raises:
            ValueError: if there is no such table or column.
        """
        selected = self.positions(method)
        return tuple(number for number in table(self.table).numbers() if (number.row, number.column) in selected)


def reported_in(table: str, *columns: str, row: str | None = None, **conditions: Any) -> Cells:
    """Returns the cells in which a paper prints the result of a recipe.

    ``reported_in("mira-1", "100", multi_crop=False)`` selects the column ``100`` of MIRA's Table 1, in the rows of
    training without multi-crop.

    Args:
        table: Id of the table.
        columns: Names of columns; none stands for all of them.
        row: The method's name in the table, as ``MoCo v3``; None if the recipe's method has the same name.
        conditions: Conditions that a row must have.
    """
    return Cells(table, columns, conditions, row)


@dataclass(frozen=True)
class Experiment:
    """A frozen dataclass that holds a recipe with its data set, its cost and the numbers that a paper prints of it.

    The docstring of a paper's recipe has fixed fields: the table, section or figure in the paper; ``Paper:``, the
    linear top-1 accuracy that is printed there; ``Cost:``, the same number as ``exaflops``; and ``Decisions:``, names
    of paragraphs in docs/decisions.md. The docstring of a recipe of ours begins with "Our own recipe".

    Attributes:
        method: Name of the method.
        function: Function that makes the recipe; its docstring describes it.
        data: Name of the data set that it is for; None if any will do.
        exaflops: Floating-point operations of the whole training on that data set, in 1e18; None without a data set.
        cells: Cells of published tables that hold its results; the main result first.
        images_seen: Number of images that a training sees in all, each as often as there are epochs: the epochs follow
            from the number of images in the data set. None for a recipe that says its epochs. ``function`` takes the
            number of epochs if there is one.
    """

    method: str
    function: Callable[..., Recipe]
    data: str | None
    exaflops: float | None
    cells: tuple[Cells, ...]
    images_seen: int | None = None

    @property
    def name(self) -> str:
        """Returns the full name, as ``mira/cifar10``."""
        return f"{self.method}/{self.function.__name__}"

    @property
    def description(self) -> str:
        """Returns the docstring of the recipe in one line."""
        return " ".join((self.function.__doc__ or "").split())

    def recipe(self, *, images: int | None = None, epochs: int | None = None) -> Recipe:
        """Returns the recipe, with its name.

        Args:
            images: Number of images in the data set, which decides the epochs of a recipe with ``images_seen``; None
                takes 50,000.
            epochs: Passes over the images, for a recipe with ``images_seen``; None lets ``images`` decide. Other
                recipes keep theirs.
        """
        if self.images_seen is None:
            recipe = self.function()
        else:
            recipe = self.function(epochs or max(1, round(self.images_seen / (images or TYPICAL_IMAGES))))
        return replace(recipe, name=self.function.__name__)

    def numbers(self) -> tuple[Number, ...]:
        """Returns all numbers that the paper prints of this recipe; the main result first."""
        return tuple(number for cells in self.cells for number in cells.numbers(self.method))

    def positions(self, table: str) -> tuple[tuple[Row, Column], ...]:
        """Returns the row and the column of each cell of a published table that the recipe is to give.

        Args:
            table: Id of the table. The cells may have no number, if nobody can read it.
        """
        positions = (p for cells in self.cells if cells.table == table for p in cells.positions(self.method))
        return tuple(dict.fromkeys(positions))

    def positions_on_the_way(self, table_id: str) -> tuple[tuple[Row, Column], ...]:
        """Returns the row and the column of each cell of a published table that an encoder from within the run gives.

        They measure the same as a cell of :meth:`positions`, of an encoder that was kept after an earlier epoch.

        Args:
            table_id: Id of the table.
        """
        return tuple(
            (row, column)
            for row, last in self.positions(table_id)
            for column in table(table_id).columns
            if column.kept_epoch is not None and _without_epoch(column) == _without_epoch(last)
        )

    @property
    def main_number(self) -> Number | None:
        """Returns the linear top-1 accuracy with all labels, offline or online; None if the paper prints none."""
        for number in self.numbers():
            column = number.column
            if column.protocol in LINEAR and (column.metric, column.subset) == ("top1", ""):
                return number
        return None

    @property
    def main_column(self) -> Column | None:
        """Returns the column whose measure is the recipe's: that of the main number, or the first linear one of the
        paper on the same data, as for a figure. None for a recipe that is for any data."""
        if self.main_number is not None or self.data is None:
            return None if self.main_number is None else self.main_number.column
        columns = (column for table in tables() if table.paper.lower() == self.method for column in table.columns)
        return next((c for c in columns if c.protocol in LINEAR and c.data == self.data and c.metric == "top1"), None)


def _without_epoch(column: Column) -> Column:
    """Returns a column as if it did not say after which epoch of its run the encoder was taken."""
    conditions = replace(column.conditions, epochs=None)
    return replace(column, name="", conditions=conditions)


class Experiments(dict[str, Experiment]):
    """A dictionary of the recipes of one method by their names."""

    def __init__(self, method: str):
        super().__init__()
        self.method = method

    def add(
        self, data: str | None, exaflops: float | None, *cells: Cells, images_seen: int | None = None
    ) -> Callable[[Any], Any]:
        """Returns a decorator that adds the function which makes a recipe, under the function's name.

        Args:
            data: Name of the data set that the recipe is for; None if any will do.
            exaflops: Floating-point operations of the whole training, in 1e18; None without a data set.
            cells: Cells of published tables that hold its results; the main result first.
            images_seen: Number of images that a training sees in all. The function then takes the number of epochs.
        """

        def register(function: Callable[..., Recipe]) -> Callable[..., Recipe]:
            self[function.__name__] = Experiment(self.method, function, data, exaflops, cells, images_seen)
            return function

        return register
