"""Section with detections: AP beside the papers' rows, AP during the training, true and detected objects drawn."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from infomax.evaluation.detection.detect_row import DetectRow, DrawnImage, read_pictures
from infomax.evaluation.detection.schedule import COCO_NAME
from infomax.evaluation.result_row import Score, row_fields
from infomax.evaluation.results import read_results
from infomax.papers import published
from infomax.reporting.comparison import format_published
from infomax.reporting.pages.blocks import Paragraph, Picture, Pictures, SideBySide, TableBlock
from infomax.reporting.pages.charts import Curve, LineChart
from infomax.reporting.pages.page import Block, Section
from infomax.reporting.run_page.content import Content, public
from infomax.reporting.tables import EMPTY, Cell, Table, make_table
from infomax.runs.public_words import public_data_name

MOST_RESULTS = 3
"""Results whose pictures are shown: more would make the page too large."""


def section(content: Content) -> Section | None:
    """Returns the section; None if nothing was detected with any of the encoders."""
    results = [(file, row) for place in content.places.places for file, row in _detections(place)]
    if not results:
        return None
    blocks = [block for file, row in results[-MOST_RESULTS:] for block in _blocks(file, row)]
    text = (
        "Mask R-CNN on the encoder, by COCO's average precision (AP): the mean over IoUs from 0.5 to 0.95, and that at "
        "0.5 and at 0.75. Pictures show images at equal distances among those to test on; nobody chose them."
    )
    return Section("Detection and segmentation", text, tuple(blocks))


def _detections(place: Path) -> list[tuple[Path, DetectRow]]:
    """Returns the results of a run folder or a file, the last of each detector and schedule."""
    file = place / "results.jsonl" if place.is_dir() else place
    rows = read_results(file, protocols=[DetectRow.protocol]) if file.is_file() else []
    last: dict[tuple, DetectRow] = {}
    for row in rows:
        if isinstance(row, DetectRow):
            key = (row.title, row.data, row.variant, row.budget)
            last.pop(key, None)
            last[key] = row
    return [(file, row) for row in last.values()]


def _blocks(file: Path, row: DetectRow) -> Iterator[Block]:
    """Yields the table, the chart and the pictures of one result."""
    yield TableBlock(_table(row))
    if len(row.points) > 1:
        yield _chart(row)
    pictures = read_pictures(file, row.pictures_hash) if row.pictures_hash else ()
    if not pictures:
        yield Paragraph("There are no pictures: they stand in a file beside the results, which is not there.")
    for drawn in pictures:
        yield SideBySide((_picture(drawn, detected=False), _picture(drawn, detected=True)))


def _table(row: DetectRow) -> Table:
    """Returns the scores of a result, and the papers' rows by the same detector."""
    marks = {field.name: field.mark for field in row_fields(DetectRow) if isinstance(field.mark, Score)}
    names = [name for name in marks if name != "interval"]
    lines: list[list[Cell | str]] = [[public(row.title), *(_cell(getattr(row, name)) for name in names)]]
    lines += _papers_lines(row.arch, names)
    data = public_data_name(row.data)
    title = f"{row.variant} on {data}, in %\n{row.labelled_images:,} images to train on, {row.test_images:,} to test on"
    differing = [*row.setting.departures, *([] if row.data == COCO_NAME else [f"data {data} (all of COCO 2017)"])]
    note = "As in the papers, where the schedule is the same, but for Detectron2's own ways."
    if differing:
        note = f"Not comparable with the papers' rows; ours (theirs): {'; '.join(differing)}."
    return make_table(["", *(marks[name].label for name in names)], lines, title=title, notes=[note])


def _papers_lines(arch: str, names: list[str]) -> list[list[Cell | str]]:
    """Returns the papers' rows by a detector, each with its schedule.

    Args:
        arch: The detector.
        names: Names of the scores, in the order of the table.
    """
    lines: list[list[Cell | str]] = []
    for table in published.tables():
        columns = {c.metric: i for i, c in enumerate(table.columns) if c.detector.startswith(f"{arch}-")}
        if not columns:
            continue
        schedule = table.columns[next(iter(columns.values()))].detector.removeprefix(f"{arch}-")
        for printed in table.rows:
            values = [printed.values[columns[name]] if name in columns else None for name in names]
            mark = ", perhaps misread" if printed.uncertain else ""
            lines.append(
                [
                    f"{table.paper}, {table.number}: {printed.method}, {schedule}{mark}",
                    *(EMPTY if x is None else Cell(format_published(x, None), x) for x in values),
                ]
            )
    return lines


def _cell(share: float) -> Cell:
    return Cell(f"{100 * share:.1f}", 100 * share)


def _chart(row: DetectRow) -> LineChart:
    """Returns the chart of the AP during the training."""
    iterations = [point["iteration"] for point in row.points]
    curves = tuple(
        Curve(words, iterations, [100 * point[name] for point in row.points], style)
        for style, (words, name) in enumerate(
            (("box AP", "box_ap"), ("box AP50", "box_ap50"), ("mask AP", "mask_ap"), ("mask AP50", "mask_ap50"))
        )
    )
    return LineChart("AP during the training", "iteration", "%", curves)


def _picture(drawn: DrawnImage, *, detected: bool) -> Pictures:
    """Returns an image with its true objects, or with the detected ones."""
    content = base64.b64decode(drawn["detected"] if detected else drawn["true"])
    with Image.open(BytesIO(content)) as image:
        width, height = image.size
    count = drawn["detected_objects"] if detected else drawn["true_objects"]
    words = f"{count:,} detected with a score of 0.5 or more" if detected else f"{count:,} true"
    name = public(drawn["name"])
    caption = f"{name}: {words}"
    return Pictures((Picture(content, "jpeg", width, height, f"{name} with objects drawn over it: {words}", caption),))
