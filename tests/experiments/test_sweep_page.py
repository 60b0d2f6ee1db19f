"""The page of a sweep, its baselines and its differences, in the table, in sweep.json and in the figure."""

import json
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from html_pages import PADDED_EXPLOITS, PLAIN, CheckedPage
from infomax.data.sources.location import DataLocation
from infomax.evaluation.intervals import SEEDED, compare_repeated, compare_shares
from infomax.evaluation.paired import pack_hits
from infomax.evaluation.protocols.knn import KnnOptions, KnnRow
from infomax.evaluation.results import append_result, hash_hits
from infomax.evaluation.run import evaluation_hash
from infomax.experiments.options import SweepOptions
from infomax.experiments.sweep import Sweep, define_sweep
from infomax.experiments.sweep_differences import ANY_SEED, Measured
from infomax.experiments.sweep_page import scores_table, sweep_page
from infomax.experiments.sweep_results import SweepCell, SweepResult, collect_results
from infomax.experiments.sweep_runner import write_results
from infomax.reporting.pages.blocks import Commands, Notice
from infomax.reporting.pages.charts import BarChart, LineChart
from infomax.runs.run_folder import Run, create_run_folder
from infomax.runtime.options import pick

RNG = np.random.default_rng(0)
RIGHT = {
    name: RNG.random(200) < share for name, share in (("carl", 0.8), ("mira", 0.9), ("untrained", 0.5), ("pixels", 0.6))
}
KNOWN_BY = evaluation_hash(KnnOptions(), DataLocation("digits"), "32")


def row(name: str, representation: str = "trained encoder", **changes: Any) -> KnnRow:
    values: dict[str, Any] = {"data": "digits", "encoder": name, "metric": "top1", "classes": 10, "k": 20, "top5": 1.0}
    values |= {"labelled_images": 9, "test_images": 200, "temperature": 0.07, "seconds": 1.0, "interval": (0.7, 0.9)}
    values |= {"representation": representation, "top1": float(RIGHT[name].mean()), "evaluation": KNOWN_BY}
    made = KnnRow(**{**values, "hits": pack_hits(RIGHT[name], images="same"), **changes})
    return replace(made, hits_hash=hash_hits(made))


def sweep(what, out, **options) -> Sweep:
    return define_sweep(pick(SweepOptions, {"what": what, "out": out, **options}))


@pytest.fixture
def planned(tmp_path) -> Sweep:
    """A sweep of two recipes, both of which are done; the first one has baselines."""
    planned = sweep(["carl/digits", "mira/digits"], tmp_path / "s")
    for run in planned.runs:
        recipe, method = run.specification.recipe, run.variant.experiment.name.partition("/")[0]
        images = {"data": "digits", "images": 1438, "fingerprint": "0"}
        create_run_folder(run.folder, recipe, data=images, launch={}, overwrite=False)
        steps = recipe.steps(1438)
        (run.folder / "encoder.json").write_text(json.dumps({"steps": steps}))
        append_result(run.folder / "results.jsonl", row(method, trained_steps=steps))
    results = planned.runs[0].folder / "results.jsonl"
    append_result(results, row("untrained", "untrained encoder"))
    append_result(results, row("pixels", "raw pixels"))
    return planned


def test_baselines_are_measured_with_the_first_run_of_each_network(tmp_path):
    planned = sweep(["carl/digits", "mira/digits"], tmp_path, seeds=2)
    assert [run.measures_baselines for run in planned.runs] == [True, False, False, False]
    planned = sweep(["carl/digits"], tmp_path, vary=["encoder.backbone=small,resnet18"], seeds=2)
    assert [run.measures_baselines for run in planned.runs] == [True, True, False, False]
    commands = [argv for run in planned.runs for argv in run.remaining if argv[0] == "evaluate"]
    assert ["--no-baselines" in argv for argv in commands] == [False, False, True, True]
    planned = sweep(["carl/digits"], tmp_path, evaluate=["knn --no-baselines", "linear"])
    commands = [argv for run in planned.runs for argv in run.remaining if argv[0] == "evaluate"]
    assert [(argv[1], "--no-baselines" in argv) for argv in commands] == [("knn", True), ("linear", False)]


def test_baselines_stand_below_the_runs_and_each_run_is_compared_with_them(planned):
    result = collect_results(planned)
    lines = {line[0].text: line[1].text for line in result.table().rows}
    assert list(lines) == ["carl/digits: ours, 1 seed", "mira/digits: ours, 1 seed", "untrained encoder", "raw pixels"]
    assert lines["raw pixels"] == f"{100 * RIGHT['pixels'].mean():.2f}"
    over_first, over_untrained, over_pixels = result.difference_tables()
    assert over_first == result.differences()
    assert [line[0].text for line in over_first.rows] == ["mira/digits"]
    assert over_untrained.title.startswith("over untrained encoder: ")
    assert [line[0].text for line in over_pixels.rows] == ["carl/digits", "mira/digits"]
    assert over_pixels.rows[1][1].text == str(compare_shares(RIGHT["mira"], RIGHT["pixels"]))
    assert over_pixels.rows[1][1].text.endswith("clearly better")


def test_baselines_of_several_networks_are_named_by_their_recipe(tmp_path):
    planned = sweep(["carl/digits"], tmp_path, vary=["encoder.backbone=small,resnet18"])
    for run in planned.runs:
        images = {"data": "digits", "images": 1438, "fingerprint": "0"}
        create_run_folder(run.folder, run.specification.recipe, data=images, launch={}, overwrite=False)
        append_result(run.folder / "results.jsonl", row("untrained", "untrained encoder"))
    lines = [cell.line for cell in collect_results(planned).baselines]
    assert lines == [f"untrained encoder of carl/digits, encoder.backbone={name}" for name in ("small", "resnet18")]


def test_sweep_json_has_the_differences_and_the_baselines(planned):
    write_results(planned)
    content = json.loads((planned.out / "sweep.json").read_text())
    records = {(x["line"], x["over"]): x for x in content["differences"]}
    assert len(records) == len(content["differences"]) == 5
    wanted = compare_shares(RIGHT["mira"], RIGHT["carl"])
    record = records["mira/digits", "carl/digits"]
    assert (record["value"], record["low"], record["high"]) == (wanted.value, wanted.low, wanted.high)
    assert (record["column"], record["verdict"]) == ("knn, top-1", wanted.verdict)
    assert content["runs"][0]["baselines"]["untrained encoder"]["knn"]["top1"] == RIGHT["untrained"].mean()
    assert content["runs"][1]["baselines"] == {}
    assert Image.open(BytesIO((planned.out / "sweep.png").read_bytes())).width > 500


def test_what_cannot_be_compared_is_in_sweep_json_with_the_reason(planned):
    other = planned.runs[1].folder / "results.jsonl"
    other.unlink()
    append_result(other, row("mira", trained_steps=planned.runs[1].specification.recipe.steps(1438), hits=None))
    (record, *_) = [difference.record() for difference in collect_results(planned).compared()]
    assert record == {
        "line": "mira/digits",
        "over": "carl/digits",
        "column": "knn, top-1",
        "why_none": "which images were right was not kept",
    }


def test_the_page_has_scores_intervals_verdicts_failures_and_commands(planned):
    ill = {"health_rows": 48, "embedding_mean_cosine": 0.9999, "embedding_collapse_level": 0.99}
    for step in (400, 450, 500, 550, 600):
        Run(planned.runs[1].folder).append_row("metrics.jsonl", {"step": step, "epoch": step // 10, **ill})
    result = collect_results(planned, ["mira-digits-seed1: training ended with exit code 1"])
    page = sweep_page(result)
    assert [s.heading for s in page.sections] == [
        "What went wrong",
        "Better than nothing learned?",
        "Scores",
        "Differences",
        "Runs",
        "Commands",
    ]
    failure, verdict = page.sections[0].blocks
    assert failure == Notice("failed", "mira-digits-seed1: training ended with exit code 1")
    assert verdict.kind == "failed"
    assert verdict.heading.startswith("mira-digits-seed0: total collapse since step ")
    assert "cosine" in verdict.evidence
    assert [(notice.kind, notice.heading) for notice in page.sections[1].blocks] == [
        ("good", "Clearly better than untrained encoder"),
        ("good", "Clearly better than raw pixels"),
    ]
    over_pixels = compare_shares(RIGHT["carl"], RIGHT["pixels"])
    assert page.sections[1].blocks[1].evidence.startswith(f"carl/digits {over_pixels.numbers} by knn, top-1; mira/")
    table, chart = page.sections[2].blocks
    assert [cell.text for cell in table.table.rows[0]][:4] == [
        "carl/digits",
        "knn, top-1",
        f"{100 * RIGHT['carl'].mean():.2f}",
        "70.0 to 90.0",
    ]
    assert isinstance(chart, BarChart)
    assert [name for name, _ in chart.bars] == ["carl/digits", "mira/digits", "untrained encoder", "raw pixels"]
    runs = page.sections[4].blocks[0].table.rows
    assert [run[0].text for run in runs] == ["carl-digits-seed0", "mira-digits-seed0"]
    assert runs[1][-1].text == "total collapse (failed)"
    assert runs[0][2].text == "trained"
    (commands,) = [block for block in page.sections[5].blocks if isinstance(block, Commands)]
    assert commands.text.splitlines()[0].startswith("infomax pretrain --data digits --recipe carl/digits --seed 0")
    CheckedPage(page.html())


def test_lines_that_are_not_clearly_better_than_a_baseline_are_warned_of(planned, monkeypatch):
    monkeypatch.setitem(RIGHT, "pixels", RIGHT["carl"])
    append_result(planned.runs[0].folder / "results.jsonl", row("pixels", "raw pixels"))
    page = sweep_page(collect_results(planned))
    assert page.title == "Sweep of carl/digits, mira/digits"
    notices = {(x.kind, x.heading): x.evidence for x in page.sections[0].blocks}
    warning = notices["warning", "Not clearly better than raw pixels"]
    assert warning.startswith("carl/digits +0.0 (")
    assert "mira/digits" not in warning
    assert notices["good", "Clearly better than raw pixels"].startswith("mira/digits +")


def test_lines_that_are_worse_than_a_baseline_are_said_to_be(planned, monkeypatch):
    monkeypatch.setitem(RIGHT, "pixels", RIGHT["mira"])
    append_result(planned.runs[0].folder / "results.jsonl", row("pixels", "raw pixels"))
    notices = [x for x in sweep_page(collect_results(planned)).sections[0].blocks if "raw pixels" in x.heading]
    assert [(x.kind, x.heading) for x in notices] == [
        ("failed", "Clearly worse than raw pixels"),
        ("warning", "Not clearly better than raw pixels"),
    ]
    assert notices[0].evidence.startswith("carl/digits -")


def test_a_page_of_a_sweep_that_has_begun_says_what_is_left(tmp_path):
    planned = sweep(["carl/digits"], tmp_path, seeds=2)
    page = sweep_page(collect_results(planned))
    assert page.text[0] == "0 of 2 runs are trained."
    left = [block for block in page.sections[-1].blocks if isinstance(block, Commands)][1]
    assert left.text.splitlines() == planned.commands()
    assert {row[2].text for row in page.sections[-2].blocks[0].table.rows} == {"not begun"}
    CheckedPage(page.html())


def cells(name: str, scores=(0.5, 0.6, 0.8)) -> list[SweepCell]:
    return [
        SweepCell(
            f"{name}{i}",
            f"{name}knn",
            tuple(100 * s + i for s in scores),
            paper=60.0 + i,
            position=float(i),
            varied=f"{name}x",
            curve=f"{name}c",
        )
        for i in range(3)
    ]


def of_cells(found: list[SweepCell], **changes: Any) -> SweepResult:
    fields: dict[str, Any] = {"runs": (), "evaluations": (), "title": "", "changes": (), "failures": (), "commands": ()}
    return SweepResult(**{**fields, "cells": tuple(found), **changes})


def test_curves_along_the_varied_number_have_intervals_and_lines_for_baselines():
    baseline = SweepCell("raw pixels", "knn", (40.0,))
    page = sweep_page(of_cells(cells(""), baselines=(baseline,)))
    (chart,) = [block for block in page.sections[0].blocks if isinstance(block, LineChart)]
    ours, paper, pixels = chart.curves
    assert ours.name == "ours: c"
    assert ours.x == (0.0, 1.0, 2.0)
    wanted = compare_repeated([50.0, 60.0, 80.0], [0.0] * 3, SEEDED)
    assert (ours.y[0], ours.low[0], ours.high[0]) == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert paper.y == (60.0, 61.0, 62.0)
    assert (pixels.x, pixels.y) == ((0.0, 2.0), (40.0, 40.0))
    assert len({curve.style for curve in chart.curves}) == 3
    assert not chart.log_x
    wide = [replace(cell, position=10.0**cell.position) for cell in cells("")]
    (chart,) = [block for block in sweep_page(of_cells(wide)).sections[0].blocks if isinstance(block, LineChart)]
    assert chart.log_x
    (data,) = CheckedPage(sweep_page(of_cells(wide)).html()).data
    assert data["xLog"]
    assert data["xLow"] < 1 < 100 < data["xHigh"]
    assert Image.open(BytesIO(of_cells(cells(""), baselines=(baseline,)).figure())).width > 500


def test_an_interval_is_that_of_the_row_or_over_the_seeds():
    one = Measured("top1", ((0, (row("carl"),)),))
    (low, high) = SweepCell("a", "b", (80.0,), measured=one).interval or (0.0, 0.0)
    assert (low, high) == pytest.approx((70.0, 90.0))
    assert SweepCell("a", "b", (80.0,), measured=Measured("top5", one.by_seed)).interval is None
    assert SweepCell("a", "b", (80.0,)).interval is None
    table = scores_table(of_cells([SweepCell("a", "b", (80.0, 82.0), measured=one)]))
    assert table.columns == ("", "measured by", "ours, %", "95 % interval", "scores")
    assert table.rows[0][3].text == "68.3 to 93.7"


def test_names_and_failures_do_nothing_on_the_page():
    def shape(name: str):
        measured = Measured("top1", ((ANY_SEED, (row("carl"),)),))
        more = [replace(cell, measured=measured) for cell in cells(name, (0.5,))]
        baseline = SweepCell(f"{name}pixels", f"{name}knn", (40.0,), measured=measured)
        texts = {"title": name, "changes": (name,), "failures": (name,), "commands": (name,)}
        return CheckedPage(sweep_page(of_cells(more, baselines=(baseline,), **texts)).html()).shape()

    plain = shape(PLAIN)
    for exploit in PADDED_EXPLOITS:
        assert shape(exploit) == plain, exploit
