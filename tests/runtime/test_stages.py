"""Stages: one line each, with seconds; a mistake that is found at once stays the only line."""

import re
import sys
import threading
import time

import pytest

from infomax.runtime import progress, stages
from infomax.runtime.progress import ProgressBar
from infomax.runtime.stages import Stage, importing_torch, stages_shown
from infomax.runtime.text import note, show


class Printed:
    """What was printed on the standard error since the test began."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self.capsys, self.text = capsys, ""

    def getvalue(self) -> str:
        self.text += self.capsys.readouterr().err
        return self.text


@pytest.fixture
def printed(capsys):
    """What a command prints that shows its stages."""
    with stages_shown(True):
        yield Printed(capsys)


def wait_for_line(printed: Printed) -> None:
    until = time.monotonic() + 20
    while not printed.getvalue():
        assert time.monotonic() < until
        time.sleep(0.001)


def seconds_hidden(text: str) -> str:
    return re.sub(r"\d+\.\d s", "N s", text)


def test_a_quick_stage_is_one_line(printed):
    with Stage("reading photos/") as stage:
        assert printed.getvalue() == ""
        stage.detail = "3,457 images"
    assert seconds_hidden(printed.getvalue()) == "infomax: reading photos/: 3,457 images, N s\n"


def test_the_line_of_a_slow_stage_begins_before_its_end(printed, monkeypatch):
    monkeypatch.setattr(stages, "BEGIN_AFTER", 0.0)
    before = threading.active_count()
    with Stage("reading photos/") as stage:
        wait_for_line(printed)
        assert printed.getvalue() == "infomax: reading photos/ ... "
        stage.detail = "1 image"
    assert seconds_hidden(printed.getvalue()) == "infomax: reading photos/ ... 1 image, N s\n"
    assert threading.active_count() == before


def test_a_stage_that_forks_begins_at_once_and_without_a_thread(printed):
    before = threading.active_count()
    with Stage("first step", forks=True):
        assert printed.getvalue() == "infomax: first step ... "
        assert threading.active_count() == before
    assert seconds_hidden(printed.getvalue()) == "infomax: first step ... N s\n"


def test_a_long_stage_says_on_the_way_that_it_goes_on(printed, monkeypatch):
    monkeypatch.setattr(stages, "STILL_EVERY", 0.01)
    with Stage("importing torch", at_once=True):
        while printed.getvalue().count("0 s ... ") < 2:
            time.sleep(0.001)
    assert re.fullmatch(r"infomax: importing torch \.\.\. (0 s \.\.\. ){2,}0\.\d s\n", printed.getvalue())


def test_a_long_stage_begins_its_line_again_after_another_one(printed, monkeypatch):
    monkeypatch.setattr(stages, "STILL_EVERY", 0.05)
    with Stage("importing torch", at_once=True):
        note("another line")
        while not printed.getvalue().endswith("0 s ... "):
            time.sleep(0.001)
    first, other, again = printed.getvalue().splitlines()
    assert (first, other) == ("infomax: importing torch ... ", "infomax: another line")
    assert again.startswith("infomax: importing torch ... 0 s ... ")


def test_a_mistake_that_is_found_at_once_stays_the_only_line(printed):
    with pytest.raises(ValueError, match="no such folder"), Stage("reading photos/"):
        raise ValueError("no such folder")
    assert printed.getvalue() == ""


def test_a_failure_ends_the_line_that_has_begun(printed):
    with pytest.raises(ValueError, match="no such folder"), Stage("reading photos/", at_once=True):
        raise ValueError("no such folder")
    note("no such folder")
    assert printed.getvalue() == "infomax: reading photos/ ... \ninfomax: no such folder\n"


@pytest.mark.parametrize("say", [note, lambda line: show(f"infomax: {line}", file=sys.stderr)])
def test_what_is_printed_within_a_stage_has_a_line_of_its_own(printed, say):
    with Stage("reading photos/", at_once=True):
        say("left out: 3 files")
    lines = seconds_hidden(printed.getvalue()).splitlines()
    assert lines == ["infomax: reading photos/ ... ", "infomax: left out: 3 files", "infomax: reading photos/: N s"]


def test_a_stage_within_a_stage_has_a_line_of_its_own(printed):
    with Stage("reading photos/", at_once=True), Stage("importing numpy", at_once=True):
        pass
    lines = seconds_hidden(printed.getvalue()).splitlines()
    whole = "infomax: reading photos/: N s"
    assert lines == ["infomax: reading photos/ ... ", "infomax: importing numpy ... N s", whole]


def test_a_stage_says_nothing_on_the_way_while_one_within_it_goes_on(printed, monkeypatch):
    monkeypatch.setattr(stages, "BEGIN_AFTER", 0.01)
    monkeypatch.setattr(stages, "STILL_EVERY", 0.01)
    outer, inner = "infomax: measuring steps ... ", "infomax: preparing kernels ... "
    with Stage("measuring steps", at_once=True):
        with Stage("preparing kernels", slow_only=True):
            while printed.getvalue().count("0 s ... ") < 5:
                time.sleep(0.001)
        before = len(printed.getvalue())
        while printed.getvalue().count("0 s ... ", before) < 2:
            time.sleep(0.001)
    first, within, again = printed.getvalue().splitlines()
    assert first.startswith(outer)
    assert within.startswith(inner)
    assert again.startswith(outer)


def test_of_two_stages_around_one_work_the_inner_one_has_the_line(printed, monkeypatch):
    monkeypatch.setattr(stages, "BEGIN_AFTER", 0.3)
    with Stage("opening the encoder", slow_only=True), Stage("opening runs/a", slow_only=True):
        wait_for_line(printed)
        time.sleep(0.05)
    assert seconds_hidden(printed.getvalue()) == "infomax: opening runs/a ... N s\n"


def test_a_stage_beside_a_progress_bar_is_one_whole_line(printed, monkeypatch):
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    with ProgressBar("features", 10) as bar, Stage("reading photos/", at_once=True):
        bar.update(1)
    assert " ... " not in printed.getvalue()
    assert re.search(r"(^|\r|\n)infomax: reading photos/: \d+\.\d s\n", printed.getvalue())


def test_a_bar_that_waits_leaves_the_line_to_the_stage_before_it(printed, monkeypatch):
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    with ProgressBar("runs/a", 10, waits=True) as bar:
        with Stage("first step", at_once=True):
            assert printed.getvalue() == "infomax: first step ... "
        bar.update(1)
        bar.update(1)
    first, bars = seconds_hidden(printed.getvalue()).split("\n", 1)
    assert first == "infomax: first step ... N s"
    assert re.search(r"runs/a: +20%", bars)


def test_stages_that_are_only_worth_a_line_if_they_are_slow(printed, monkeypatch):
    with Stage("opening runs/a", slow_only=True):
        pass
    assert printed.getvalue() == ""
    monkeypatch.setattr(stages, "BEGIN_AFTER", 0.0)
    with Stage("opening runs/a", slow_only=True):
        wait_for_line(printed)
    assert seconds_hidden(printed.getvalue()) == "infomax: opening runs/a ... N s\n"


def test_names_of_others_act_on_no_terminal(printed):
    with Stage("reading \x1b[31m", at_once=True) as stage:
        stage.detail = "\r0 images"
    assert "\x1b" not in printed.getvalue()
    assert "\r" not in printed.getvalue()


def test_python_sees_no_stages_unless_it_asks(capsys):
    with Stage("reading photos/"), Stage("importing torch", at_once=True):
        pass
    assert capsys.readouterr() == ("", "")


def test_torch_is_named_only_if_it_is_not_there_yet(printed, monkeypatch):
    with importing_torch():
        assert "torch" in sys.modules
    assert printed.getvalue() == ""
    monkeypatch.delitem(sys.modules, "torch")
    with importing_torch():
        pass
    assert seconds_hidden(printed.getvalue()) == "infomax: importing torch ... N s\n"
