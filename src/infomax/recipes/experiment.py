"""Recipes with what a paper did with them: the data set, the cost, and where the paper prints the result."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from infomax.papers.published import Number, table
from infomax.recipes.schema import Recipe
from infomax.runtime.checks import choose


@dataclass(frozen=True)
class Cells:
    """A frozen dataclass that selects numbers of a published table, in the rows of the recipe's own method."""

    table: str
    """Id of the table, as ``mira-1``."""
    columns: tuple[str, ...]
    """Names of the columns; none stands for all of them."""
    conditions: dict[str, Any]
    """Conditions that a row must have."""

    def numbers(self, method: str) -> tuple[Number, ...]:
        """Returns the selected numbers.

        Raises:
            ValueError: if there is no such table or column.
        """
        published = table(self.table)
        for name in self.columns:
            choose(f"the column of {self.table}", name, [column.name for column in published.columns])
        return tuple(
            number
            for number in published.numbers()
            if number.row.method.lower() == method
            and vars(number.row.conditions).items() >= self.conditions.items()
            and (not self.columns or number.column.name in self.columns)
        )


def reported_in(table: str, *columns: str, **conditions: Any) -> Cells:
    """Returns where a paper prints the result of a recipe, as ``reported_in("mira-1", "100", multi_crop=False)``."""
    return Cells(table, columns, conditions)


@dataclass(frozen=True)
class Experiment:
    """A frozen dataclass that holds a recipe with what a paper did with it, or a recipe of our own.

    Attributes:
        method: Name of the method.
        function: Makes the recipe; its docstring says what it is.
        data: Name of the data set that it is for; None if any will do.
        exaflops: Floating-point operations of the whole training on that data set, in 1e18; None without a data set.
        cells: Where the paper prints its results; the main one first.
    """

    method: str
    function: Callable[[], Recipe]
    data: str | None
    exaflops: float | None
    cells: tuple[Cells, ...]

    @property
    def name(self) -> str:
        """Returns the full name, as ``mira/cifar10``."""
        return f"{self.method}/{self.function.__name__}"

    @property
    def about(self) -> str:
        """Returns the documentation of the recipe in one line."""
        return " ".join((self.function.__doc__ or "").split())

    def recipe(self) -> Recipe:
        """Returns the recipe itself."""
        return replace(self.function(), name=self.function.__name__)

    def numbers(self) -> tuple[Number, ...]:
        """Returns all that the paper prints of it; the main result first."""
        return tuple(number for cells in self.cells for number in cells.numbers(self.method))

    @property
    def main(self) -> Number | None:
        """Returns its linear top-1 accuracy; None if the paper prints none."""
        main = ("linear", "top1", "")
        return next((n for n in self.numbers() if (n.column.protocol, n.column.metric, n.column.subset) == main), None)


class Experiments(dict[str, Experiment]):
    """A dictionary of the recipes of one method by their names."""

    def __init__(self, method: str):
        super().__init__()
        self.method = method

    def add(self, data: str | None, exaflops: float | None, *cells: Cells) -> Callable[[Any], Any]:
        """Returns a decorator for the function that makes the recipe; see :class:`Experiment`."""

        def register(function: Callable[[], Recipe]) -> Callable[[], Recipe]:
            self[function.__name__] = Experiment(self.method, function, data, exaflops, cells)
            return function

        return register
