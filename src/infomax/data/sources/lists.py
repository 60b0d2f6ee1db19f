"""Opens text files that list image files, and reads the lines of any text file that people wrote."""

import codecs
import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infomax.data.images.contract import Images
from infomax.data.images.files import FileImages
from infomax.data.images.packed_names import PackedNames
from infomax.data.sources.assemble import FoundSplit, assemble_source
from infomax.data.sources.band_files import BandImages, Bands, group_bands
from infomax.data.splits import Source, counted, shown_name

# Marks at the beginning of a file, by the encoding that they stand for; those of UTF-32 begin with those of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
PATH_HEADERS = {"path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "name", "images"}
LABEL_HEADERS = {"label", "labels", "class", "target", "category", "class_name", "y"}
CHECKED_FILES = 10_000  # of a longer list, about so many files are looked for; the others raise an error when opened
SAMPLE = 10  # lines by which the delimiter is chosen


@dataclass(frozen=True)
class Line:
    """A frozen dataclass that holds a line of a text file, without blanks at its ends."""

    number: int
    """Its number in the file, from 1."""
    text: str

    def __str__(self) -> str:
        return f"line {self.number}, '{shown_name(self.text)}',"


def read_lines(file: Path) -> list[Line]:
    """Returns the lines of a text file that are not empty, without blanks around them.

    A byte order mark says which encoding the file has; without one it is UTF-8. A name that is not in UTF-8 is kept
    byte for byte, as Python keeps the names of files.

    Raises:
        ValueError: if it is no text.
        OSError: if it cannot be read.
    """
    if file.exists() and not file.is_file():
        raise ValueError("is no file")  # a FIFO would be waited for
    content = file.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content:
        raise ValueError("is no text in UTF-8, or in UTF-16 with a byte order mark: it has bytes of value 0")
    try:
        text = content.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError as error:
        raise ValueError(f"is damaged: {error}") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [Line(number, stripped) for number, line in enumerate(lines, 1) if (stripped := line.strip())]


def open_list(data: str, file: Path, root: Path | None = None, bands: Bands | None = None) -> Source:
    """Opens a text file that names an image file on each line.

    The image's class may follow the path, after a tab, a comma or a blank. A first line with the names of the columns
    is left out. There are labels if each line has one class.

    Args:
        data: The source's name.
        file: The text file.
        root: The folder that paths are relative to; None takes that of the text file.
        bands: The bands of an image, if each is a file of its own; then an image has the class of its files.

    Raises:
        ValueError: if it names no image, or a path that is not a file, showing the line.
    """
    lines, folder = read_lines(file), root or file.parent
    if not lines:
        raise ValueError("names no image; want a file on each line")
    delimiter = _choose_delimiter(lines, file, folder)
    rows = [_split_line(line.text, delimiter) for line in lines]
    notes = []
    if _is_header(rows[0]) and not _is_file(folder, rows[0][0]):
        notes.append(f"left out: line 1, '{shown_name(lines[0].text)}', the names of the columns")
        lines, rows = lines[1:], rows[1:]
    if not rows:
        raise ValueError("names no image; want a file on each line")
    if _uses_backslashes(rows, folder):
        rows = [[row[0].replace("\\", "/"), *row[1:]] for row in rows]
        notes.append("paths have backslashes, which are read as slashes")
    _check_files(lines, rows, folder)
    class_of, reason = _classes(lines, rows)
    if repeated := len(rows) - len(class_of):
        example = Counter(row[0] for row in rows).most_common(1)[0][0]
        notes.append(f"left out: {counted(repeated, 'line')} with a file named before, as '{shown_name(example)}'")
    if bands is not None:
        _, band_notes = group_bands([*class_of], bands)
        class_of, clash = _class_of_each_image(class_of, bands)
        reason, notes = reason or clash, [*notes, *band_notes]
    classes, labels = [], None
    if not reason:
        classes, labels = np.unique(list(class_of.values()), return_inverse=True)
        classes = [str(name) for name in classes]
    names = PackedNames.pack(class_of)
    images: Images = FileImages(folder, names, labels, classes)
    if bands is not None:
        images = BandImages(folder, names, labels, classes, bands)
    return assemble_source(data, {"": FoundSplit(images, reason)}, notes=notes)


def _is_file(folder: Path, path: str) -> bool:
    return path != "" and "\0" not in path and (folder / path).is_file()


def _names_file(folder: Path, path: str) -> bool:
    """Returns whether a path names a file, with its backslashes or with slashes in their place."""
    return _is_file(folder, path) or ("\\" in path and _is_file(folder, path.replace("\\", "/")))


def _choose_delimiter(lines: Sequence[Line], file: Path, folder: Path) -> str:
    """Returns what stands between path and class: a tab, a comma, a semicolon or a blank; empty for paths alone.

    A tab is always a delimiter, and so is the comma of a .csv file. Others may be part of a name, so they are
    delimiters only if the paths before them are files, and the whole lines are none.
    """
    if file.suffix.lower() == ".csv":
        return ";" if ";" in lines[0].text and "," not in lines[0].text else ","
    if any("\t" in line.text for line in lines):
        return "\t"
    sample = lines[1:][:: max(1, len(lines) // SAMPLE)] or lines
    if any(_names_file(folder, line.text) for line in sample):
        return ""
    for delimiter in (",", ";", " "):
        if any(_names_file(folder, _split_line(line.text, delimiter)[0]) for line in sample):
            return delimiter
    return ""


def _split_line(text: str, delimiter: str) -> list[str]:
    """Returns the cells of a line, without blanks around them."""
    if delimiter == " ":
        return [cell.strip() for cell in text.rsplit(" ", 1)]
    cells = next(csv.reader([text], delimiter=delimiter)) if delimiter in (",", ";") else [text]
    return [cell.strip() for cell in (text.split("\t") if delimiter == "\t" else cells)]


def _is_header(row: Sequence[str]) -> bool:
    """Returns whether a row has the names of columns: the first is one of a path, the second, if any, of a class."""
    cells = [cell.lower() for cell in row]
    return cells[0] in PATH_HEADERS and all(cell in LABEL_HEADERS for cell in cells[1:2])


def _uses_backslashes(rows: Sequence[Sequence[str]], folder: Path) -> bool:
    """Returns whether the paths are those of Windows: with slashes in place of backslashes, they are files."""
    with_backslashes = [row[0] for row in rows if "\\" in row[0]][:SAMPLE]
    return any(not _is_file(folder, path) and _names_file(folder, path) for path in with_backslashes)


def _check_files(lines: Sequence[Line], rows: Sequence[Sequence[str]], folder: Path) -> None:
    """Raises ValueError if a path is not a file; of a long list some are looked for, evenly spread."""
    step = max(1, len(rows) // CHECKED_FILES)
    missing = [i for i in range(0, len(rows), step) if not _is_file(folder, rows[i][0])]
    if missing:
        line, path = lines[missing[0]], shown_name(rows[missing[0]][0])
        checked = len(range(0, len(rows), step))
        is_header = missing == [0] and checked > 1 and len(rows[0]) > 1
        hint = "; if it names the columns, they must be path and label" if is_header else ""
        share = f", as {len(missing)} of {checked} lines do" if checked > 1 else ""
        raise ValueError(f"line {line.number} names '{path}', which is no file in {folder}{share}{hint}")


def _classes(lines: Sequence[Line], rows: Sequence[Sequence[str]]) -> tuple[dict[str, str], str]:
    """Returns the class of each path in order, and why the classes are no labels; empty if they are."""
    class_of: dict[str, str] = {}
    reason = ""
    wants_classes = any(len(row) > 1 for row in rows)
    for line, row in zip(lines, rows, strict=True):
        name = row[1] if len(row) > 1 else ""
        if not reason and len(row) > 2:
            reason = f"has no labels: {line} has {len(row)} columns; a path and a class are wanted"
        elif not reason and wants_classes and name == "":
            reason = f"has no labels: {line} has no class, as others do"
        elif not reason and class_of.get(row[0], name) != name:
            reason = f"has no labels: {line} gives another class than a line before"
        class_of.setdefault(row[0], name)
    return class_of, reason if wants_classes else "has no labels: the lines name files alone, and no classes"


def _class_of_each_image(class_of: Mapping[str, str], bands: Bands) -> tuple[dict[str, str], str]:
    """Returns the class of each image whose bands are files, and why there are no labels if bands of one differ."""
    of_image: dict[str, str] = {}
    reason = ""
    for path, name in class_of.items():
        split = bands.split(path)
        if split is not None and of_image.setdefault(split[0], name) != name:
            reason = reason or f"has no labels: the bands of {shown_name(split[0])} are of different classes"
    return of_image, reason
