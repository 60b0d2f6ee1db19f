"""What is written to a terminal: one picture in the place of the other, and nothing that others could have written."""

import os
import select
import sys

import pytest

from infomax.reporting.watch.picture import Line
from infomax.reporting.watch.screen import FALLBACK_SIZE, FIRST_SCREEN, OTHER_SCREEN, Screen


@pytest.fixture
def open_terminal(monkeypatch):
    """A function that makes a real terminal the standard output, and returns what reads what was written to it."""
    reader, writer = os.openpty()
    stream = os.fdopen(writer, "w", encoding="ascii")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def read():
        text = b""
        while select.select([reader], [], [], 0)[0]:
            text += os.read(reader, 100_000)
        return text.decode()

    def start():  # in the test itself: pytest puts its own streams in place when it begins
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stdin", None)
        return read

    yield start
    stream.close()
    os.close(reader)


def test_a_picture_replaces_the_one_before(open_terminal):
    written = open_terminal()
    with Screen() as screen:
        assert written() == OTHER_SCREEN
        screen.draw([Line("a", "failed"), Line("b")])
        assert written().replace("\r\r", "\r") == "\x1b[H\x1b[1;31ma\x1b[0m\x1b[K\r\nb\x1b[K\x1b[J"
        assert screen.wait(0.0) == ""
        assert screen.size == FALLBACK_SIZE  # this one has no columns
    assert written().endswith(FIRST_SCREEN)


def test_whatever_happens_the_terminal_is_left(open_terminal):
    written = open_terminal()
    with pytest.raises(ZeroDivisionError), Screen():
        _ = 1 / 0
    assert written().endswith(FIRST_SCREEN)


def test_colours_can_be_switched_off(open_terminal, monkeypatch):
    written = open_terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    with Screen() as screen:
        written()
        screen.draw([Line("a", "failed")])
        assert written() == "\x1b[Ha\x1b[K\x1b[J"


def test_text_cannot_act_and_letters_that_the_terminal_lacks_are_written_out(open_terminal):
    written = open_terminal()
    with Screen() as screen:
        written()
        screen.draw([Line("\x1b[2J\x9b\u202e", "name"), Line("é")])
        lines = written().replace("\r\r", "\r")
    assert lines == "\x1b[H\x1b[1m\\x1b[2J\\x9b\\u202e\x1b[0m\x1b[K\r\n\\xe9\x1b[K\x1b[J"
