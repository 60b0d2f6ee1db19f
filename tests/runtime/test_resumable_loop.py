"""Loops that a signal stops between two steps, and that save from time to time."""

import os
import signal
import time

import pytest
import torch

from infomax.runtime.collectives import rank
from infomax.runtime.doors import command_door
from infomax.runtime.progress import ProgressBar
from infomax.runtime.resumable_loop import ResumableLoop
from infomax.runtime.signals import Interruption
from ranks import on_ranks

CPU = torch.device("cpu")
NEVER = 1e9  # seconds
HINT = "the same command goes on from there"
RECEIVED = {
    signal.SIGTERM: "infomax: SIGTERM: ending after this step\n",
    signal.SIGINT: "infomax: Ctrl-C: ending after this step; Ctrl-C again ends at once, unsaved\n",
}
"""What is printed at the moment of a signal."""


def run_loop(steps, *, done=0, terminate_after=None, number=signal.SIGTERM, **options):
    """Makes the steps that are left, and receives a signal within one of them; returns the steps of each save."""
    saved = []
    options = {"save": lambda: saved.append(loop.done), "save_every": NEVER, "device": CPU, **options}
    with ResumableLoop(steps=steps, done=done, **options) as loop:
        for step in range(done, steps):
            if step + 1 == terminate_after:
                os.kill(os.getpid(), number)
            loop.step_done()
    return saved


def test_a_loop_that_nobody_stops_makes_all_steps_and_says_nothing(capsys):
    assert run_loop(5, resume_hint=HINT) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_stops_after_the_step_that_it_came_in(capsys, number, end):
    saved = []
    handler = signal.getsignal(number)
    with pytest.raises(end) as ended:
        run_loop(9, done=2, terminate_after=5, number=number, save=lambda: saved.append(5), name="x", resume_hint=HINT)
    assert saved == [5]
    assert getattr(ended.value, "code", 0) == 0
    assert capsys.readouterr().err == f"{RECEIVED[number]}infomax: x: stopped at step 5 of 9; {HINT}\n"
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize(("name", "of_name"), [("", ""), ("x", " of x")])
def test_ctrl_c_in_a_command_is_one_line_which_the_command_prints(capsys, name, of_name):
    with command_door(), pytest.raises(KeyboardInterrupt) as ended:
        run_loop(9, terminate_after=5, number=signal.SIGINT, name=name, resume_hint=HINT)
    assert str(ended.value) == f" at step 5 of 9{of_name}; {HINT}"
    assert capsys.readouterr().err == RECEIVED[signal.SIGINT]


def test_nothing_is_said_of_a_state_that_is_not_kept(capsys):
    with pytest.raises(SystemExit):
        run_loop(9, terminate_after=5)
    assert capsys.readouterr().err == RECEIVED[signal.SIGTERM]


def test_the_line_goes_where_the_caller_wants_it():
    lines = []
    with pytest.raises(SystemExit):
        run_loop(9, terminate_after=1, resume_hint="--resume goes on", say=lines.append)
    assert lines == ["stopped at step 1 of 9; --resume goes on"]


def test_a_signal_before_the_loop_counts_if_it_was_noted():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit):
            run_loop(9, interruption=interruption, save=lambda: None)
        os.kill(os.getpid(), signal.SIGTERM)  # the caller still notes it


def test_each_step_is_saved_if_no_time_need_pass_but_the_last():
    """The end is the caller's to save."""
    assert run_loop(4, save_every=0.0) == [1, 2, 3]


def test_saves_are_apart_by_their_interval_and_by_their_share_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def saves(seconds_of_save, **options):
        at = []

        def save():
            at.append(loop.done)
            now[0] += seconds_of_save

        with ResumableLoop(steps=100, save=save, device=CPU, **options) as loop:
            for _ in range(100):
                now[0] += 1
                loop.step_done()
        return at

    assert saves(0.0, save_every=29.5) == [30, 60, 90]
    assert saves(4.0, save_every=9.5, save_share=0.1) == [10, 51, 92]  # then 40 s must pass after each
    assert saves(4.0, save_every=9.5)[:3] == [10, 20, 30]


def test_a_save_between_signals_may_be_another_one():
    """It may be a save that survives a full disk; the last save before the end must fail on one."""
    saved = []
    options = {"save": lambda: saved.append("sure"), "try_to_save": lambda: saved.append("tried"), "save_every": 0.0}
    with pytest.raises(SystemExit):
        run_loop(9, terminate_after=3, **options)
    assert saved == ["tried", "tried", "sure"]


def test_the_bar_moves_with_the_steps_and_is_closed():
    bar = ProgressBar("steps", 7, done=3)
    closed, close = [], bar.close
    bar.close = lambda: (closed.append(bar.n), close())
    run_loop(7, done=3, bar=bar)
    assert closed == [7]


def stop_one_rank(signalled):
    saved, lines = [], []
    loop = ResumableLoop(
        steps=50, save=lambda: saved.append(loop.done), device=CPU, save_every=NEVER, resume_hint=HINT, say=lines.append
    )
    try:
        with loop:
            for step in range(50):
                if rank() == signalled and step == 7:
                    os.kill(os.getpid(), signal.SIGTERM)
                loop.step_done()
    except SystemExit:
        pass
    return saved, lines


@pytest.mark.parametrize("signalled", [0, 1])
def test_all_ranks_stop_after_the_same_step_and_the_first_one_says_so(signalled):
    first, second = on_ranks(2, stop_one_rank, signalled)
    assert first == ([8], [f"stopped at step 8 of 50; {HINT}"])
    assert second == ([8], [])
