"""A run that is watched in a real terminal, and in a file."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from command import CODE, PATIENCE, run_command, start_command
from infomax.reporting.watch.follow import RunLines, interruption
from infomax.reporting.watch.runs import WatchedRun, WatchedRuns
from infomax.runtime.locks import FolderLock
from toy_data import TOY, write_toy
from watched_runs import TOTAL, add_encoder, add_rows, collapsed_rows, finish, loss_row, make_run, rows_until

SHOW, HIDE = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def infomax(monkeypatch, capsys):
    return lambda *words: run_command(monkeypatch, capsys, *words)


def test_one_picture_for_a_file(infomax, tmp_path):
    finish(make_run(tmp_path / "a"))
    code, out, err = infomax("watch", str(tmp_path / "a"), "--once")
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'a'}: mveb/digits with epochs=20\n")
    assert out.endswith("\n  finished\n")
    assert "\x1b" not in out
    code, out, _ = infomax("watch", str(tmp_path / "a"), "--once", "--ascii")
    assert out.removeprefix(str(tmp_path)).isascii()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "a run folder is wanted, as runs/a"),
        (("frist", "--once"), "frist is not a run folder: no such folder or file; did you mean first?"),
        (("empty", "--once"), "empty is not a run folder: it has no config.json"),
        (("a", "--every", "0"), "--every must be a number in [0.1, 86400], but is 0.0"),
        (("a", "--port", "-1"), "--port must be a whole number of at least 0, but is -1"),
        (("a", "--port", "70000"), "--port must be a number in [0, 65535], but is 70000"),
        (("a", "--once", "--serve"), "--once prints a picture and --serve shows a page: give one of them"),
    ],
)
def test_mistakes_are_one_line(infomax, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "first")
    (tmp_path / "empty").mkdir()
    assert infomax("watch", *words) == (2, "", f"infomax: {message}\n")


def test_finished_runs_end_the_command_at_once(infomax, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a", "runs/b"):
        finish(make_run(tmp_path / name))
    code, out, err = infomax("watch", "runs")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("runs/a")] == [
        "runs/a: mveb/digits with epochs=20, digits",
        "runs/a: epoch 20 of 20, step 220 of 220, loss 4, k-NN 70.0% (untrained 47.1%), 256 images/s, 10% waiting",
        "runs/a: embeddings: effective rank from 48.9 to 40.0, mean cosine from 0.32 to 0.30: no sign of collapse "
        "or divergence, which does not say that it has learned",
        "runs/a: finished",
    ]
    assert len(out.splitlines()) == 8


def test_a_file_gets_what_changes_and_now_and_then_the_progress(tmp_path):
    run = make_run(tmp_path / "a")
    watched, lines = WatchedRun(run.path), RunLines(every=10.0)

    def new(now):
        name = f"{run.path}: "
        return [line.removeprefix(name) for line in lines.new_lines(watched.update(), now)]

    with FolderLock(run.path):
        assert new(0.0) == ["mveb/digits with epochs=20, digits", "starting: no row yet"]
        assert new(1.0) == []
        add_rows(run, collapsed_rows(40))
        (line,) = new(2.0)
        assert line.startswith("epoch 4 of 20, step 40 of 220, loss 4.818, ")
        add_rows(run, collapsed_rows(80)[5:])
        (line,) = new(3.0)
        assert line.startswith("total collapse, failed since step 59: the embeddings of 128 images")
        assert new(4.0) == []
        assert len(new(13.0)) == 1  # the progress
        assert new(30.0) == []  # no row since
    (line,) = new(31.0)
    assert line.startswith("stopped at step 80, no process writes it: infomax pretrain --out ")
    with FolderLock(run.path):
        assert new(32.0) == []
        add_rows(run, [loss_row(TOTAL)])
        assert len(new(50.0)) == 1
        add_encoder(run)
    spread, verdict, last = new(51.0)  # as the run itself ends
    assert spread == "embeddings: effective rank from 40.0 to 40.0, mean cosine from 0.30 to 1.00"
    assert verdict.startswith("total collapse, failed since step 59: ")
    assert last == "finished"


class Terminal:
    """A real terminal in which a command runs; remembers all that was written to it.

    Args:
        words: The words of the command.
        folder: Its working folder.
        size: Columns and lines.
    """

    def __init__(self, *words, folder, size=(80, 24), **environment):
        self.reader, writer = os.openpty()
        self.writer = writer
        self.resize(*size)
        self.written = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, *words],
            cwd=folder,
            stdin=writer,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, columns, lines):
        fcntl.ioctl(self.writer, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys):
        os.write(self.reader, keys.encode())

    def read(self):
        while select.select([self.reader], [], [], 0.05)[0]:
            self.written += os.read(self.reader, 65536).decode("utf-8", "replace")
        return self.written

    def wait_for(self, pattern):
        until = time.monotonic() + PATIENCE
        while not re.search(pattern, self.read(), re.S):
            assert time.monotonic() < until, self.written
            assert self.process.poll() is None, (self.read(), self.process.stderr.read())

    def end(self):
        """Waits for the end; returns the exit code and what was written to the standard error."""
        while self.process.poll() is None:
            self.read()
        self.read()
        return self.process.returncode, self.process.stderr.read()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def terminal():
    opened = []

    def start(*words, **options):
        opened.append(Terminal(*words, **options))
        return opened[-1]

    yield start
    for one_terminal in opened:
        one_terminal.close()


def keyboard_mode(terminal):
    return termios.tcgetattr(terminal.writer)[3] & (termios.ICANON | termios.ECHO)


@pytest.mark.process
def test_a_terminal_is_drawn_on_and_left_as_it_was(tmp_path, terminal):
    run = make_run(tmp_path / "a")
    add_rows(run, rows_until(100))
    with FolderLock(run.path):
        shown = terminal("watch", "a", folder=tmp_path)
        before = keyboard_mode(shown)
        shown.wait_for("newest row ")
        assert shown.written.startswith(SHOW)
        assert keyboard_mode(shown) == 0
        pictures = shown.written.count("\x1b[H")
        shown.resize(40, 12)
        shown.wait_for(rf"(\x1b\[H.*){{{pictures + 1}}}")
        assert max(map(visible, shown.written.rpartition("\x1b[H")[2].splitlines())) < 40
        add_rows(run, [loss_row(120)])
        shown.wait_for("55%")
        shown.press("q")
        assert shown.end() == (0, "")
        assert keyboard_mode(shown) == before
    last = shown.written.rpartition(HIDE)[2]
    assert last.startswith("a: mveb/digits")  # the last picture stays
    assert "step 120 of 220" in last
    assert "\x1b" not in last


def visible(line):
    """Returns the columns that a drawn line takes."""
    return len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line))


@pytest.mark.process
@pytest.mark.parametrize(
    ("end", "code", "err"),
    [
        (lambda shown: shown.press("\x03"), 130, "infomax: interrupted\n"),
        (lambda shown: os.kill(shown.process.pid, signal.SIGTERM), 143, ""),
    ],
)
def test_however_it_ends_the_cursor_comes_back(tmp_path, terminal, end, code, err):
    shown = terminal("watch", "a", "--ascii", folder=tmp_path)
    shown.wait_for("waiting for a run")
    before = len(shown.written)
    end(shown)
    assert shown.end() == (code, err)
    assert "\x1b[?25h" in shown.written[before:]
    assert HIDE in shown.written[before:]
    assert "Traceback" not in shown.written


def test_ctrl_c_says_that_the_training_goes_on_if_there_is_one(tmp_path):
    run = make_run(tmp_path / "a").path
    runs = WatchedRuns([run])
    with FolderLock(run):
        assert str(interruption(runs)) == "; the training itself goes on"
    assert not str(interruption(runs))
    assert not str(interruption(WatchedRuns([tmp_path / "none"])))


@pytest.mark.process
def test_it_can_be_stopped_and_continued(tmp_path, terminal):
    shown = terminal("watch", "a", folder=tmp_path)
    shown.wait_for("waiting for a run")
    shown.press("\x1a")
    shown.wait_for(re.escape(HIDE))
    os.kill(shown.process.pid, signal.SIGCONT)
    shown.wait_for(re.escape(HIDE) + ".*" + re.escape(SHOW) + ".*waiting for a run")
    shown.press("q")
    assert shown.end() == (0, "")


@pytest.mark.process
def test_a_training_is_watched_from_before_its_beginning_to_its_end(tmp_path, terminal):
    """In a terminal and in a file, as two other shells would."""
    data = write_toy(tmp_path, train=64, test=16, side=8)
    settings = [word for setting in TOY["mveb"] for word in ("--set", setting)]
    in_terminal = terminal("watch", "runs/a", folder=tmp_path)
    in_terminal.wait_for("waiting for a run")
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", CODE, "watch", "runs/a", "--every", "0.1"]
        in_file = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.PIPE, text=True)
    words = ["pretrain", "--data", data, "--method", "mveb", "--out", "runs/a", "--image-size", "8", *settings]
    words += ["--epochs", "40", "--batch-size", "16", "--workers", "0"]
    trained = subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert trained.returncode == 0, trained.stderr
    assert in_file.communicate(timeout=PATIENCE)[1] == ""
    assert in_file.returncode == 0
    code, err = in_terminal.end()
    assert (code, err) == (0, "")
    closing = trained.stdout.splitlines()[:-1]
    assert closing
    log_text = (tmp_path / "log").read_text()
    assert log_text.splitlines()[-1] == "runs/a: finished"
    assert "step 160 of 160" in log_text
    assert "\x1b" not in log_text
    for line in closing:
        assert f"runs/a: {line}" in log_text
    last = in_terminal.written.rpartition(HIDE)[2]
    assert " ".join(last.split()).count(closing[0]) == 1


@pytest.mark.process
def test_it_ends_when_nobody_reads_it_any_more(tmp_path):
    """As after ``| head -1``, also if there is nothing to print."""
    add_rows(make_run(tmp_path / "a"), rows_until(40))
    shown = start_command(tmp_path, "watch", "a")
    assert shown.stdout.readline() == "a: mveb/digits with epochs=20, digits\n"
    shown.stdout.close()
    assert shown.wait(PATIENCE) == 0
    assert shown.stderr.read() == ""
