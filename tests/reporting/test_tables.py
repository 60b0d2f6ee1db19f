"""Tables are data; a terminal and Markdown show the same cells."""

import pytest

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
