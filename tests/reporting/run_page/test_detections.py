"""The section with detections: the AP beside the papers' rows, the AP during the training, and pictures."""

import base64
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import pytest
from PIL import Image

from infomax.evaluation.detection.detect_row import DetectRow, hash_pictures
from infomax.evaluation.detection.schedule import DetectorSetting
from infomax.evaluation.results import append_result
from infomax.reporting.pages.blocks import Paragraph, SideBySide, TableBlock
from infomax.reporting.pages.charts import LineChart
from infomax.reporting.pages.page import Page
from infomax.reporting.run_page import detections

SCORES = {"box_ap": 0.25, "box_ap50": 0.5, "box_ap75": 0.125, "mask_ap": 0.2, "mask_ap50": 0.4, "mask_ap75": 0.1}


def a_jpeg(width, height):
    content = BytesIO()
    Image.new("RGB", (width, height)).save(content, "JPEG")
    return base64.b64encode(content.getvalue()).decode()


@pytest.fixture
def row():
    setting = DetectorSetting(arch="c4", schedule="2x")
    names = ("arch", "schedule", "iterations", "batch_size", "norm", "freeze", "head", "boxes_per_image")
    names += ("train_sides", "test_side", "precise_batches", "precision", "seed")
    pictures = ({"name": "<b>.jpg", "true": a_jpeg(8, 4), "detected": a_jpeg(8, 4)},)
    drawn = tuple({**x, "true_objects": 3, "detected_objects": 1} for x in pictures)
    return DetectRow(
        **{name: getattr(setting, name) for name in names},
        learning_rate=setting.peak_rate,
        data="coco",
        representation="trained encoder",
        encoder="0",
        metric="box_ap",
        classes=80,
        labelled_images=117,
        test_images=5,
        seconds=1.0,
        ranks=8,
        scorer="pycocotools 2",
        **SCORES,
        points=tuple({"iteration": i, "loss": 1.0, **SCORES} for i in (9, 18)),
        pictures=drawn,
        pictures_hash=hash_pictures(drawn),
    )


def section_of(file):
    return detections.section(SimpleNamespace(places=SimpleNamespace(places=(file,))))


def write(file, row):
    row.write_beside(file)
    append_result(file, row)


def test_a_result_stands_above_the_papers_rows(tmp_path, row):
    file = tmp_path / "results.jsonl"
    write(file, row)
    section = section_of(file)
    table, chart, pictures = section.blocks
    assert isinstance(table, TableBlock)
    assert [cell.text for cell in table.table.rows[0]] == [
        "trained encoder",
        "25.0",
        "50.0",
        "12.5",
        "20.0",
        "40.0",
        "10.0",
    ]
    lines = {line[0].text: [cell.text for cell in line[1:]] for line in table.table.rows}
    assert lines["MIRA, Table 13: MIRA, 2x"] == ["40.6", "61", "44.1", "35.3", "57.2", "37.3"]
    assert lines["CorInfoMax, Table 11: CorInfoMax, 2x, perhaps misread"] == ["", "", "", "", "57.22", ""]
    assert not any("MVEB" in name for name in lines)
    assert table.table.notes == ("As in the papers, where the schedule is the same, but for Detectron2's own ways.",)
    assert isinstance(chart, LineChart)
    assert chart.curves[0].y == [25.0, 25.0]
    assert isinstance(pictures, SideBySide)
    html = Page("x", (), (section,), "").html()
    assert "&lt;b&gt;.jpg: 3 true" in html
    assert "<b>" not in html


def test_what_differs_from_the_papers_is_said(tmp_path, row):
    file = tmp_path / "results.jsonl"
    short = replace(row, budget=9, iterations=9, data="/home/me/mine", points=row.points[:1], pictures=None)
    write(file, row)
    write(file, short)
    blocks = section_of(file).blocks
    (note,) = blocks[3].table.notes
    assert "ours (theirs): iterations 9 (180,000); data mine (all of COCO 2017)" in note
    assert isinstance(blocks[-1], SideBySide)  # of the same images: the file of the pictures has them
    (tmp_path / "results.pictures.jsonl").unlink()
    assert isinstance(section_of(file).blocks[-1], Paragraph)


def test_without_a_detection_there_is_no_section(tmp_path):
    (tmp_path / "results.jsonl").write_text("")
    assert section_of(tmp_path / "results.jsonl") is None
    assert section_of(tmp_path) is None
