"""Files of results, as ``results.jsonl`` in a run folder: the one writer and the one reader of their rows."""

from collections.abc import Collection
from pathlib import Path

from infomax.evaluation.protocols import row_classes
from infomax.evaluation.result_row import ResultRow
from infomax.runtime.checks import choose
from infomax.runtime.json_lines import append_json_line, read_json_lines


def append_result(file: Path, row: ResultRow) -> None:
    """Adds one row to a file of results."""
    append_json_line(file, row.to_json())


def read_results(file: Path, *, protocols: Collection[str] | None = None) -> list[ResultRow]:
    """Reads the rows of a file of results, oldest first; a line that a full disk or a lost machine cut off is left out.

    Args:
        file: The file.
        protocols: Names of the protocols whose rows are read, as rows name them; None reads all rows.

    Raises:
        ValueError: naming the file, the row and the key, if a row is not what its protocol writes, or if no installed
            protocol knows it.
    """
    classes, rows = row_classes(), []
    for number, values in enumerate(read_json_lines(file), start=1):
        where = f"{file}, row {number}"
        if not isinstance(values.get("protocol", None), str):
            raise ValueError(f"{where}: the key 'protocol' is missing; infomax evaluate did not write this row")
        if protocols is not None and values["protocol"] not in protocols:
            continue
        try:
            name = choose("the key 'protocol'", values["protocol"], classes)
        except ValueError as error:
            raise ValueError(f"{where}: {error} A package that adds a protocol is needed to read its rows") from None
        rows.append(classes[name].from_json(values, where=where))
    return rows
