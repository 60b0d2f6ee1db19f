"""Tables say how much better one encoder is than another on the same images, and nothing of other images."""

from typing import Any

import numpy as np
import pytest

from infomax.evaluation.intervals import compare_shares
from infomax.evaluation.paired import NOT_KEPT, OTHER_IMAGES, pack_hits
from infomax.evaluation.protocols.knn import KnnRow
from infomax.evaluation.results import append_result, hash_hits
from infomax.evaluation.rows import ClusterRow
from infomax.recipes import registry
from infomax.reporting.comparison import report
from infomax.reporting.results import results_table
from infomax.runs.run_folder import create_run_folder

RNG = np.random.default_rng(0)
RIGHT = {
    name: RNG.random(100) < share
    for name, share in (("a", 0.9), ("b", 0.8), ("untrained encoder", 0.6), ("raw pixels", 0.85))
}


def row(name: str, *, k: int = 20, images: str | None = "same", **changes: Any) -> KnnRow:
    """A result of the trained encoder a or b, or of a baseline."""
    right = RIGHT[name]
    values: dict[str, Any] = {"data": "toy", "encoder": name, "metric": "top1", "classes": 10, "seconds": 1.0}
    values |= {"labelled_images": 9, "test_images": 100, "k": k, "temperature": 0.07, "top5": 1.0}
    values["representation"] = "trained encoder" if name in "ab" else name
    if images is not None:
        values["hits"] = pack_hits(right, images=images)
    made = KnnRow(**{**values, "top1": float(right.mean()), **changes})
    return KnnRow(**{**vars(made), "hits_hash": hash_hits(made)})


def run_folder(folder, rows):
    data = {"data": "toy", "images": 100, "fingerprint": "0"}
    recipe = registry.get_recipe("carl", "digits")
    run = create_run_folder(folder, recipe, data=data, launch={}, overwrite=False)
    for x in rows:
        origin = {"recipe": run.recipe_title, "trained_steps": 1} if x.representation == "trained encoder" else {}
        append_result(folder / "results.jsonl", KnnRow(**{**vars(x), **origin}))
    return folder


def cells(table, column):
    """Returns the cells of a column by the name of the line."""
    place = table.columns.index(column)
    return {line[0].text: line[place].text for line in table.rows}


def text(name: str, other: str) -> str:
    return str(compare_shares(RIGHT[name], RIGHT[other]))


def test_an_evaluation_says_how_much_better_the_encoder_is_than_each_baseline():
    rows = [row(name, k=k) for name in ("a", "untrained encoder", "raw pixels") for k in (1, 20)]
    table = results_table("k-NN", rows)
    column = "trained encoder over it"
    assert table.columns[-1] == column
    assert cells(table, column) == {
        "trained encoder": "",
        "untrained encoder": text("a", "untrained encoder"),
        "raw pixels": text("a", "raw pixels"),
    }
    assert text("a", "untrained encoder").endswith(": clearly better")
    assert text("a", "raw pixels").endswith(": not clearly better")
    assert (
        table.notes[-1] == f"{column}: points on the same test images (95 % interval of matched pairs, Newcombe 1998)"
    )


def test_nothing_is_said_of_an_encoder_alone_or_of_rows_without_hits():
    for rows in ([row("a")], [row("a", images=None), row("raw pixels", images=None)], [row("a"), row("a", k=1)]):
        assert results_table("k-NN", rows).columns[-1] == "top-5"
    values = {"data": "toy", "encoder": "0", "metric": "nmi", "classes": 3, "test_images": 9, "seconds": 1.0}
    scores = {"clusters": 3, "used_clusters": 3, "nmi": 0.5, "ari": 0.5, "accuracy": 0.5}
    names = ("trained encoder", "raw pixels")
    clusters = [ClusterRow(representation=name, **values, **scores) for name in names]
    assert results_table("clusters", clusters).columns[-1] == "matched"


@pytest.mark.parametrize(("classes", "shown"), [(2, False), (5, False), (6, True), (10, True)])
def test_top5_is_left_out_below_six_classes(classes, shown, tmp_path):
    rows = [row(name, classes=classes) for name in ("a", "raw pixels")]
    assert ("top-5" in results_table("k-NN", rows).columns) == shown
    (table,) = report(run_folder(tmp_path / "a", rows)).results
    assert ("top-5" in table.columns) == shown
    assert '"top5": 1.0' in (tmp_path / "a" / "results.jsonl").read_text()  # the file has it


def test_a_report_of_one_run_compares_it_with_its_baselines(tmp_path):
    rows = [row(name) for name in ("raw pixels", "a", "untrained encoder")]
    (table,) = report(run_folder(tmp_path / "a", rows)).results
    assert list(cells(table, "a over it").items()) == [
        ("a", ""),
        ("untrained encoder", text("a", "untrained encoder")),
        ("raw pixels", text("a", "raw pixels")),
    ]


def test_a_report_of_two_runs_compares_all_with_the_first_and_shows_references_once(tmp_path):
    names = ("untrained encoder", "raw pixels")
    first = run_folder(tmp_path / "a", [row(name, k=k) for k in (1, 20) for name in ("a", *names)])
    second = run_folder(tmp_path / "b", [row(name, k=k) for k in (20, 1) for name in ("b", *names)])
    (table,) = report(first, second).results
    lines = [(line[0].text, line[1].text) for line in table.rows]
    assert lines == [(name, k) for k in ("1", "20") for name in ("a", "b", *names)]
    assert cells(table, "over a") == {"a": "", **{name: text(name, "a") for name in ("b", *names)}}
    (other_way,) = report(second, first).results
    assert [line[0].text for line in other_way.rows[:2]] == ["b", "a"]
    assert cells(other_way, "over b")["a"] == text("a", "b")


def test_baselines_that_differ_stand_each_under_the_name_of_its_run(tmp_path):
    first = run_folder(tmp_path / "a", [row("a"), row("raw pixels")])
    second = run_folder(tmp_path / "b", [row("b"), row("raw pixels", top1=0.5, hits=None)])
    (table,) = report(first, second).results
    assert [line[0].text for line in table.rows] == ["a", "b", "raw pixels of a", "raw pixels of b"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"images": None}, NOT_KEPT), ({"images": "others"}, OTHER_IMAGES), ({"test_images": 99}, OTHER_IMAGES)],
)
def test_runs_on_other_images_or_without_hits_are_not_compared_and_that_is_said(tmp_path, changes, reason):
    first = run_folder(tmp_path / "a", [row("a")])
    second = run_folder(tmp_path / "b", [row("b", **changes)])
    (table,) = report(first, second).results
    assert "over a" not in table.columns
    assert table.notes == (f"no difference of b: {reason}",)


def test_a_file_of_results_beside_which_hits_are_gone_is_reported_all_the_same(tmp_path):
    first, second = (run_folder(tmp_path / name, [row(name)]) for name in "ab")
    (second / "results.hits.jsonl").unlink()
    (table,) = report(first, second).results
    assert table.notes == (f"no difference of b: {NOT_KEPT}",)


def test_verdicts_on_the_training_stand_below_the_tables(tmp_path):
    first = run_folder(tmp_path / "a", [row("a", verdicts=("total collapse", "starved"))])
    second = run_folder(tmp_path / "b", [row("b", verdicts=())])
    lines = report(first, second).origins
    assert lines[-1].startswith("a: its training ended with total collapse, starved; its metrics.jsonl has")
    assert not [line for line in lines if line.startswith("b: its training")]
