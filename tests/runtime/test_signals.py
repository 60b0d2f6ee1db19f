"""Ctrl-C ends what is being done, whenever it comes."""

import io
import signal
import sys
import time
import weakref

import pytest

from infomax.runtime import signals
from infomax.runtime.signals import Interruption, repeat_lost_interrupts


def test_an_interrupt_that_python_ignores_is_raised_again(monkeypatch, capsys):
    """As in the callback of a weak reference, of which importing torch makes many."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    repeat_lost_interrupts()

    def drop_and_wait():
        value = set()
        reference = weakref.ref(value, lambda _: signal.raise_signal(signal.SIGINT))
        del value
        assert reference() is None
        until = time.monotonic() + 10
        while time.monotonic() < until:  # the interrupt is seen between two instructions, and ends no longer sleep
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        drop_and_wait()
    assert capsys.readouterr().err == ""


def test_ctrl_c_counts_at_once_while_there_is_nothing_to_save_but_sigterm_is_noted():
    with Interruption(at_once=True) as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with Interruption(at_once=True) as interruption:
        interruption.at_once = False
        signal.raise_signal(signal.SIGINT)
        assert interruption.signal == signal.SIGINT


def test_a_ctrl_c_that_comes_twice_at_once_is_one(monkeypatch, capsys):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        capsys.readouterr()
        signal.raise_signal(signal.SIGINT)  # passed on by the parent, as uv run does
        assert (interruption.signal, capsys.readouterr().err) == (signal.SIGINT, "")
        monkeypatch.setattr(signals, "SAME_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_errors_that_python_ignores_are_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    repeat_lost_interrupts()
    value = set()
    reference = weakref.ref(value, lambda _: 1 / 0)
    del value
    assert reference() is None
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_line_is_printed_at_the_moment_of_the_first_signal_alone(capsys):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        line = "infomax: SIGTERM: ending after this step\n"
        assert capsys.readouterr().err == line
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err == ""
    assert interruption.signal == signal.SIGTERM
    with Interruption():
        signal.raise_signal(signal.SIGINT)
        assert "infomax: Ctrl-C: ending after this step; Ctrl-C again ends at once, unsaved" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID"])
def test_another_rank_than_the_first_prints_nothing_at_a_signal(capsys, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
    assert interruption.signal == signal.SIGTERM
    assert capsys.readouterr().err == ""


def test_a_signal_amid_another_line_is_noted_all_the_same(monkeypatch):
    class Busy(io.StringIO):
        def write(self, text):
            raise RuntimeError("reentrant call")

    monkeypatch.setattr(sys, "stderr", Busy())
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
    assert interruption.signal == signal.SIGTERM
