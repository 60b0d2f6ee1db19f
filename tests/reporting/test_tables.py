"""Tables are data; a terminal and Markdown show the same cells."""

import re
from typing import Any

import pytest

from infomax.evaluation.protocols.knn import KnnRow
from infomax.evaluation.rows import ClusterRow
from infomax.reporting.results import results_table
from infomax.reporting.tables import Cell, Table, make_table


def test_tables_align_and_show_shares_in_per_cent():
    table = make_table(["", "top-1", "note"], [["a", Cell.per_cent(0.5), "x"], ["long name", Cell.per_cent(1.0), "yy"]])
    assert table.text().splitlines() == [
        "           top-1  note",
        "----------------------",
        "a           50.0     x",
        "long name  100.0    yy",
    ]


def test_title_and_notes_stand_around_the_table():
    table = make_table(["a", "b"], [["x", "1"]], title="Title, in %", notes=["[1] a note"])
    assert table.text().splitlines() == ["Title, in %", "a  b", "----", "x  1", "[1] a note"]
    assert table.markdown().splitlines() == [
        "Title, in %",
        "",
        "| a | b |",
        "| --- | ---: |",
        "| x | 1 |",
        "",
        "[1] a note",
    ]


def test_no_name_acts_on_the_terminal_or_breaks_a_row():
    table = make_table(["", "n\x1b[2J"], [["cat\ndog\u202e|", "1"]], title="x")
    for text in (table.text(), table.markdown()):
        assert r"cat\ndog\u202e" in text
        assert r"n\x1b[2J" in text
        assert text.count("\n") == (3 if text == table.text() else 4)


def test_a_bar_in_a_cell_does_not_end_it_in_markdown():
    assert r"| a\|b | 1 |" in make_table(["", "n"], [["a|b", "1"]]).markdown()


def test_a_cell_keeps_the_number_behind_its_text():
    assert Cell.per_cent(0.12345) == Cell("12.3", pytest.approx(12.345))
    assert make_table([""], [["x"]]).rows[0][0].value is None


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="takes 2 cells, but has 1"):
        Table("", ("a", "b"), ((Cell("x"),),))


def knn_row(representation: str, score: float, *, k: int = 20, **changes: Any) -> KnnRow:
    values = {"data": "toy", "encoder": "", "metric": "top1", "classes": 2, "labelled_images": 8, "test_images": 4}
    values |= {"seconds": 1.0, "k": k, "temperature": 0.07, "top5": score}
    return KnnRow(representation=representation, top1=score, **{**values, **changes})


@pytest.mark.parametrize(
    ("untrained", "pixels", "named"),
    [
        pytest.param(0.4, 0.3, None, id="better than both"),
        pytest.param(0.5, 0.3, "the untrained encoder after 10 steps;", id="as good as one"),
        pytest.param(0.6, 0.7, "the untrained encoder and the raw pixels after 10 steps;", id="worse than both"),
    ],
)
def test_an_encoder_that_does_not_surpass_its_baselines_is_said(untrained, pixels, named):
    trained = knn_row("trained encoder", 0.5, trained_steps=10)
    rows = [trained, knn_row("untrained encoder", untrained), knn_row("raw pixels", pixels)]
    notes = results_table("k-NN", rows).notes
    cure = "a longer training may help"
    assert list(notes) == ([] if named is None else [f"the trained encoder is no better than {named} {cure}"])
    better_at_another_k = knn_row("trained encoder", 0.9, k=1), knn_row("untrained encoder", 0.1, k=1)
    assert not results_table("k-NN", [*rows[:2], *better_at_another_k]).notes
    assert not results_table("k-NN", [knn_row("timm:x", 0.1), *rows[1:]]).notes


def test_where_all_have_all_images_right_no_longer_training_is_advised():
    rows = [knn_row(name, 1.0, trained_steps=10) for name in ("trained encoder", "untrained encoder", "raw pixels")]
    (note,) = results_table("k-NN", rows).notes
    assert note == "the untrained encoder and the raw pixels reach 100.0 % too: on these images nothing can be better"


def test_nmi_of_many_clusters_of_few_images_is_said_to_be_high_by_chance():
    def row(representation, clusters, nmi):
        scores = {"nmi": nmi, "ari": 0.1, "accuracy": 0.4}
        common = {"data": "lab", "encoder": "", "metric": "nmi", "classes": 3, "test_images": 32, "seconds": 1.0}
        return ClusterRow(representation=representation, clusters=clusters, used_clusters=clusters, **scores, **common)

    few = [row("trained encoder", 1, 0.1), row("untrained encoder", 1, 0.05)]
    assert not results_table("clusters", few).notes
    table = results_table("clusters", [*few, row("its prototypes", 100, 0.4)])
    assert list(table.notes) == [
        "NMI is high by chance if 32 images fall into 100 clusters; ARI, which is 0 by chance, is not"
    ]
    assert re.search(r"^its prototypes +100 ", table.text(), re.MULTILINE)


def test_clusters_without_labels_are_not_said_to_be_worse():
    rows = [knn_row(name, score, classes=0) for name, score in (("trained encoder", 0.1), ("untrained encoder", 0.9))]
    assert not results_table("clusters", rows).notes
