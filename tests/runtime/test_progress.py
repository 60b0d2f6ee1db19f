"""How far a task is: one line of at most 80 columns in a terminal, plain lines in a file."""

import fcntl
import io
import os
import re
import select
import struct
import termios

import pytest
from tqdm.utils import disp_len

from infomax.runtime import progress
from infomax.runtime.progress import ProgressBar, format_rate
from infomax.runtime.text import note

VALUES = ["loss 3.21", "812 images/s", "k-NN 83.1%", "linear 84.0%", "3% waiting", "entropy 4.321"]


@pytest.fixture(autouse=True)
def time_left_at_once(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BEFORE_TIME_LEFT", 0.0)


def bar_with_values(task="runs", **options):
    bar = ProgressBar(task, 400, done=100, unit="steps", shows_rate=False, **options)
    for _ in range(progress.UPDATES_BEFORE_TIME_LEFT + 3):
        bar.update(10)
    bar.show_values(VALUES)
    return bar


@pytest.mark.parametrize("task", ["a", "a-very-long-name-of-a-run-folder-that-somebody-chose", "写真" * 20])
def test_a_line_fits_any_width_and_holds_the_most_important_values(task, capsys):
    bar = bar_with_values(task, position=lambda n: f"epoch {n // 100} of 4, step {n} of 400")
    for columns in range(1, 200):
        line = bar.terminal_line(columns)
        assert disp_len(line) <= columns
        assert "\n" not in line
        shown = [value for value in VALUES if value in line]
        if columns >= 41:
            assert "45%" in line
            assert shown[:2] == VALUES[:2]
        if columns >= 79:
            assert shown[:3] == VALUES[:3]
            assert " left" in line
    assert [value for value in VALUES if value in bar.terminal_line(201)] == VALUES
    assert "epoch 1 of 4, " in bar.terminal_line(201)


def test_values_are_left_out_from_the_last_one_on(capsys):
    bar = bar_with_values()
    assert bar.terminal_line(48) == "runs:  45%, loss 3.21, 812 images/s, k-NN 83.1%"
    assert bar.terminal_line(41) == "runs:  45%, loss 3.21, 812 images/s"
    assert "|" in bar.terminal_line(79)


def test_the_time_left_waits_for_some_steps_and_leaves_out_the_first(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BEFORE_TIME_LEFT", 5.0)
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def lines(seconds, *, done=0):
        now[0] = 100.0
        bar = ProgressBar("runs", 1000, done=done, unit="steps", shows_rate=False)
        for step, duration in enumerate([30.0, *[seconds] * 9], start=1):
            now[0] += duration
            bar.update()
            yield step, bar.plain_line().partition(" steps")[2]

    assert [step for step, line in lines(0.5) if "left" in line] == []
    assert [step for step, line in lines(1.0) if "left" in line] == [6, 7, 8, 9, 10]
    assert [step for step, line in lines(10.0) if "left" in line] == [6, 7, 8, 9, 10]
    assert dict(lines(1.0, done=890))[10] == ", 1.7 min left"


def test_a_file_gets_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with bar_with_values(position=lambda n: f"epoch {n // 100} of 4, step {n} of 400") as bar:
        bar.update(120)
        bar.update(100)
    err = capsys.readouterr().err
    assert not {"\r", "\u2588", "|", "\x1b"} & {*err}
    lines = err.splitlines()
    values = ", ".join(VALUES)
    assert lines[0] == "epoch 1 of 4, step 110 of 400"
    assert lines[-2] == f"epoch 3 of 4, step 300 of 400, {values}, 1 s left"
    assert re.fullmatch(f"epoch 4 of 4, step 400 of 400, {values}, took [0-9.]+ ms", lines[-1])


def test_a_file_gets_the_last_line_once(capsys, monkeypatch):
    bar = ProgressBar("train images", 3)
    bar.update(2)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    bar.update()
    bar.close()
    assert capsys.readouterr().err.count("train images: 3 of 3 images") == 1


def test_a_short_task_leaves_no_line_in_a_file(capsys):
    with ProgressBar("train images, raw pixels", 1234) as bar:
        bar.update(1234)
    assert capsys.readouterr().err == ""


def test_a_line_of_a_task_without_values(capsys, monkeypatch):
    bar = ProgressBar("train images, raw pixels", 12_000)
    bar.update(1000)
    assert bar.plain_line().startswith("train images, raw pixels: 1,000 of 12,000 images, ")
    assert bar.plain_line().endswith(" images/s")


@pytest.fixture
def terminal(monkeypatch):
    """A real terminal of some columns as the standard error; yields a function that returns what was written to it."""
    (reader, writer), streams = os.openpty(), []
    monkeypatch.setenv("TERM", "xterm")

    def open_terminal(columns):
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        stream = os.fdopen(os.dup(writer), "w", buffering=1, encoding="utf-8")
        monkeypatch.setattr("sys.stderr", stream)
        streams.append(stream)
        return read

    def read():
        text = b""
        while select.select([reader], [], [], 0)[0]:
            text += os.read(reader, 100_000)
        return text.decode()

    yield open_terminal
    for stream in streams:
        stream.close()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("columns", [40, 57, 80, 200])
def test_a_terminal_gets_one_line_that_never_wraps(terminal, columns):
    written = terminal(columns)
    with bar_with_values() as bar:
        note("a note")
        bar.update(220)
    text = written()
    drawn = [part for line in text.split("\n") for part in line.strip("\r").split("\r") if part.strip()]
    assert all(disp_len(part.rstrip()) < min(columns, 80) or part.startswith("infomax: ") for part in drawn)
    assert "infomax: a note" in drawn
    assert drawn[-1].startswith("runs: 100%")
    assert "loss 3.21, 812 images/s" in drawn[-1]
    assert text.endswith("\n")


@pytest.mark.parametrize(("kind", "columns"), [("dumb", 80), ("xterm", 0)])
def test_a_terminal_that_cannot_draw_a_line_again_gets_plain_lines(terminal, monkeypatch, kind, columns):
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    written = terminal(columns)
    with ProgressBar("test images", 3, done=1) as bar:
        bar.update(2)
    assert "test images: 3 of 3 images, " in written()


def test_a_notebook_gets_one_line_that_is_drawn_again(monkeypatch):
    """The stream of Jupyter's kernel is no terminal; its frontend draws a line again after a carriage return."""
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress, "SECONDS_IN_NOTEBOOK", 0.0)
    with bar_with_values() as bar:
        note("a note")
        bar.update(220)
    *_, last = stream.getvalue().rstrip("\n").split("\r")
    assert last.startswith("runs: 100% |##########| ")
    assert stream.getvalue().count("\n") == 2
    assert "infomax: a note\n" in stream.getvalue()


def test_rates():
    rates = [format_rate(rate) for rate in (0.25, 7.5, 812.4, 1234.5, 12_345)]
    assert rates == ["0.25", "7.5", "812", "1,234", "12,300"]
