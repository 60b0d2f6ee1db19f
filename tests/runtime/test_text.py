"""Text of others: it reads as before if it is harmless, and never acts on a terminal."""

import io
import os
import sys
import unicodedata
import warnings
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command import run_command
from infomax.runtime import progress
from infomax.runtime.progress import ProgressBar
from infomax.runtime.text import KEPT_FORMAT_CHARACTERS, begin_line, end_line, escape, escape_lines, note, show


@pytest.mark.parametrize(
    "text", ["", "plain text: 96.1 %", "dög 猫 δοκιμή", "नमस्ते", "\u0645\u06cc\u200c\u062e", "👩\u200d🔬", "a\\b"]
)
def test_harmless_text_stays_as_it_is(text):
    assert escape(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\udce9", r"\udce9"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("\ufeff", r"\ufeff"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_what_acts_on_a_terminal_is_shown_by_its_number(text, shown):
    assert escape(f"é{text}é") == f"é{shown}é"


@settings(derandomize=True, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_can_be_printed(text):
    shown = escape(text)
    assert shown.encode().decode() == shown
    acting = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert acting <= KEPT_FORMAT_CHARACTERS
    assert escape(shown) == shown
    assert escape_lines(text).count("\n") == text.count("\n")


def test_lines_for_the_user(capsys):
    note("cannot read a\x1b[2J.png")
    show("one\ntwo\x1b[2J")
    out, err = capsys.readouterr()
    assert err == "infomax: cannot read a\\x1b[2J.png\n"
    assert out == "one\ntwo\\x1b[2J\n"


def test_work_goes_on_if_nobody_reads_what_is_said(monkeypatch):
    """As after ``infomax pretrain ... 2>&1 | head -3``, or if Ctrl-C ended ``tee`` first."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        note("heard")
        assert os.read(reader, 100) == b"infomax: heard\n"
        os.close(reader)
        for _ in range(3):
            note("not heard")
            show("not heard either", file=stream)
            begin_line("importing")
            end_line("1 s", "importing")
            with ProgressBar("images", 2) as bar:
                bar.update()
        monkeypatch.undo()


def test_work_goes_on_if_the_disk_has_no_room_for_what_is_said(monkeypatch):
    with open("/dev/full", "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        note("lost")
        show("lost", file=stream)
        monkeypatch.undo()
        with suppress(OSError):
            stream.close()


def test_a_result_that_nobody_reads_is_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        with pytest.raises(BrokenPipeError):
            show("a table", file=stream)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so that closing it raises nothing


def test_a_bar_is_not_named_by_an_escape():
    with ProgressBar("a\x1b[2J", 2) as bar:
        bar.show_values(["b\x1b[2J"])
        for line in (bar.plain_line(), bar.terminal_line(79)):
            assert r"a\x1b[2J" in line
            assert r"b\x1b[2J" in line


@pytest.mark.parametrize("words", [("evaluate", "knn", "a\x1b[2J\u202e"), ("report", "a\x1b[2J\u202e")])
def test_an_error_that_names_a_file(monkeypatch, capsys, words):
    code, _, err = run_command(monkeypatch, capsys, *words)
    assert code in (1, 2)
    assert r"a\x1b[2J\u202e" in err
    assert "\x1b" not in err


def test_a_terminal_without_unicode_and_a_warning(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["infomax", "report", "--table", "list"])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    from infomax import cli

    cli.main()
    show("é")
    sys.stdout.seek(0)
    assert sys.stdout.read().endswith("\\xe9\n")
    assert "\\x1b" in warnings.formatwarning("a\x1b", UserWarning, "file", 1, "line")
