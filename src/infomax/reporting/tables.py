"""Tables as data, and how a terminal and Markdown show them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from infomax.runtime.text import escape


@dataclass(frozen=True)
class Cell:
    """A frozen dataclass that holds one cell: the text that is shown, and the number behind it, if there is one."""

    text: str
    value: float | None = None
    """In the unit of the text; None if the cell is no number."""

    @classmethod
    def per_cent(cls, share: float) -> "Cell":
        """Returns the cell of a share from 0 to 1, in per cent with one digit."""
        return cls(f"{100 * share:.1f}", 100 * share)


EMPTY = Cell("")


@dataclass(frozen=True)
class Table:
    """A frozen dataclass that holds a table: its title, the names of its columns, its rows, and notes below it.

    The first column names the rows and stands left; the others stand right.

    Raises:
        ValueError: if a row has not one cell for each column.
    """

    title: str
    """Lines above the table; empty if it has none."""
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """Lines below the table."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of this table takes {len(self.columns)} cells, but has {len(row)}: {row}")

    def shortened(self, rows: int, where: str = "") -> "Table":
        """Returns the table with its first rows alone, and a note below that says how many are left out.

        Args:
            rows: Largest number of rows; a table that has no more is returned as it is.
            where: Words that follow the number that is left out, as ``, in all.csv``.
        """
        left = len(self.rows) - rows
        if left <= 0:
            return self
        return replace(self, rows=self.rows[:rows], notes=(f"and {left:,} more{where}", *self.notes))

    def text(self) -> str:
        """Returns the table for a terminal: aligned columns under a rule, between title and notes."""
        lines = self._lines()
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        aligned = []
        for line in lines:
            name, *others = (
                text.rjust(width) if column else text.ljust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            )
            aligned.append("  ".join([name, *others]).rstrip())
        rule = "-" * len(aligned[0])
        return "\n".join([*self._title_lines(), aligned[0], rule, *aligned[1:], *self.notes])

    def markdown(self) -> str:
        """Returns the table in Markdown; title and notes are paragraphs of their own."""
        alignment = ["---"] + ["---:"] * (len(self.columns) - 1)
        columns, *rows = [[text.replace("|", r"\|") for text in line] for line in self._lines()]
        table = "\n".join(f"| {' | '.join(line)} |" for line in (columns, alignment, *rows))
        return "\n\n".join([*self._title_lines(), table, *self.notes])

    def _lines(self) -> list[list[str]]:
        """Returns the texts of the columns' names and of each row; each is one line, whatever a class is named."""
        return [[escape(text) for text in self.columns], *([escape(cell.text) for cell in row] for row in self.rows)]

    def _title_lines(self) -> list[str]:
        return [self.title] if self.title else []


def make_table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell | str]], *, title: str = "", notes: Sequence[str] = ()
) -> Table:
    """Builds a table of cells and plain texts.

    Args:
        columns: A name for each column.
        rows: One cell or text for each column.
        title: Lines above the table.
        notes: Lines below the table.
    """
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(title, tuple(columns), cells, tuple(notes))
