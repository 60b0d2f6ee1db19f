"""Files of results, as ``results.jsonl`` in a run folder: the one writer and the one reader of their rows.

What a row got right is too long for its line, and stands under its hash in a file beside: ``results.hits.jsonl``.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from infomax.evaluation.protocols import row_classes
from infomax.evaluation.result_row import Hits, ResultRow
from infomax.runtime.checks import choose
from infomax.runtime.identity import specification_hash
from infomax.runtime.json_lines import append_json_line, read_json_lines
from infomax.runtime.json_values import parse_value
from infomax.runtime.text import note

Row = TypeVar("Row", bound=ResultRow)


def append_result(file: Path, row: ResultRow) -> None:
    """Adds one row to a file of results, and what it got right to the file of hits beside it.

    If the hits cannot be written, a line says so, and the row is kept without them.
    """
    if row.hits is not None and row.hits_hash is not None:
        try:
            append_json_line(hits_file(file), {"hash": row.hits_hash, **row.hits})
        except OSError as error:
            reason = error.strerror or error
            note(f"{hits_file(file)} cannot be written ({reason}): the result is kept, but not which images were right")
    append_json_line(file, row.to_json())


def hits_file(results: Path) -> Path:
    """Returns the file of hits beside a file of results: ``results.hits.jsonl`` beside ``results.jsonl``."""
    return results.with_suffix(".hits.jsonl")


def hash_hits(row: ResultRow) -> str | None:
    """Returns the hash of what a row got right; None if nothing is known of it."""
    return specification_hash(row.hits) if row.hits else None


def read_hits(results: Path) -> dict[str, Hits]:
    """Reads what the rows of a file of results got right, by hash; none if there is no file of hits.

    A line that was cut off, or whose content has another hash, is left out.

    Raises:
        ValueError: naming the file, the line and the key, if a value is of another type.
    """
    file = hits_file(results)
    lines = read_json_lines(file) if file.is_file() else []
    read: dict[str, Hits] = {}
    for number, line in enumerate(lines, start=1):
        content = {key: value for key, value in line.items() if key != "hash"}
        hits: Hits = parse_value(content, Hits, f"{file}, row {number}:")
        if specification_hash(hits) == line.get("hash"):
            read[line["hash"]] = hits
    return read


def with_hits(rows: Sequence[Row], results: Path) -> list[Row]:
    """Returns rows that were read from a file of results, with what they got right as far as it was kept.

    Args:
        rows: The rows.
        results: The file that they were read from.
    """
    if not any(row.hits_hash for row in rows):
        return list(rows)
    hits = read_hits(results)
    return [replace(row, hits=hits.get(row.hits_hash)) if row.hits_hash else row for row in rows]


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
