"""What the papers trained: recipes, each with its data set, its cost, and where a paper prints what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from infomax.papers.published import Number, table
from infomax.recipes.schema import Recipe
from infomax.runtime.checks import choose


@dataclass(frozen=True)
class Cells:
    """Numbers in the method's own rows of a published table: of rows with these conditions, in all columns or some."""

    table: str
    columns: tuple[str, ...]
    conditions: dict[str, Any]

    def numbers(self, method: str) -> tuple[Number, ...]:
        one = table(self.table)
        for name in self.columns:
            choose(f"the column of {self.table}", name, [column.name for column in one.columns])
        return tuple(
            number
            for number in one.numbers()
            if number.row.method.lower() == method
            and vars(number.row.conditions).items() >= self.conditions.items()
            and (not self.columns or number.column.name in self.columns)
        )


def reported_in(table: str, *columns: str, **conditions: Any) -> Cells:
    """Where a paper prints what came of a recipe, as ``reported_in("mira-1", "100", multi_crop=False)``."""
    return Cells(table, columns, conditions)


@dataclass(frozen=True)
class Experiment:
    """A recipe with what a paper did with it, or one of our own.

    Attributes:
        method: As the library names it.
        function: Makes the recipe; its docstring says what it is.
        data: Name of the data set that it is for; None if any will do.
        exaflops: Floating-point operations of the whole training on that data set, in 1e18; None where there is none.
        cells: Where results are printed; the main one first.
    """

    method: str
    function: Callable[[], Recipe]
    data: str | None
    exaflops: float | None
    cells: tuple[Cells, ...]

    @property
    def name(self) -> str:
        """As ``mira/cifar10``."""
        return f"{self.method}/{self.function.__name__}"

    @property
    def about(self) -> str:
        return " ".join((self.function.__doc__ or "").split())

    def recipe(self) -> Recipe:
        return replace(self.function(), name=self.function.__name__)

    def numbers(self) -> tuple[Number, ...]:
        """All that the paper prints of it; the main result first."""
        return tuple(number for cells in self.cells for number in cells.numbers(self.method))

    @property
    def main(self) -> Number | None:
        """Its linear top-1 accuracy."""
        main = ("linear", "top1", "")
        return next((n for n in self.numbers() if (n.column.protocol, n.column.metric, n.column.subset) == main), None)


class Experiments(dict[str, Experiment]):
    """Those of one method, by the names of their functions."""

    def __init__(self, method: str):
        super().__init__()
        self.method = method

    def add(self, data: str | None, exaflops: float | None, *cells: Cells) -> Callable[[Any], Any]:
        """Decorates the function that makes the recipe; see :class:`Experiment`."""

        def added(function: Callable[[], Recipe]) -> Callable[[], Recipe]:
            self[function.__name__] = Experiment(self.method, function, data, exaflops, cells)
            return function

        return added
