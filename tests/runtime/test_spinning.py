"""Threads of OpenMP sleep while they wait, unless the machine is idle."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from infomax.runtime import spinning
from infomax.runtime.spinning import (
    can_switch,
    considerate_threads,
    sleep_while_waiting,
    spin_while_waiting,
    thread_seconds,
)
from infomax.runtime.threads import COUNT_VARIABLES, WAIT_VARIABLES

# Counts how often OpenMP's own threads go to sleep in a row of operations with short gaps.
COUNT_SLEEPS = """
import os, time
from pathlib import Path
import torch
from infomax.runtime.spinning import sleep_while_waiting, spin_while_waiting

def sleeps():
    lines = [(task / "status").read_text().split("\\n") for task in Path("/proc/self/task").iterdir()
             if int(task.name) != os.getpid()]
    return sum(int(line.split()[1]) for status in lines for line in status if line.startswith("voluntary"))

def work():
    before = sleeps()
    for _ in range(500):
        x.add_(1)
    return sleeps() - before

x = torch.zeros(2**16 * torch.get_num_threads())
work()
print(work())
sleep_while_waiting()
print(work())
spin_while_waiting()
print(work())
"""


@pytest.fixture
def two_threads(monkeypatch):
    """Gives torch two threads of two cores, and leaves the decision to infomax."""
    for name in (*COUNT_VARIABLES, *WAIT_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(spinning, "cores_to_run_on", lambda: 2)
    torch.set_num_threads(2)
    yield
    spin_while_waiting()


@pytest.fixture
def quick(monkeypatch):
    """Makes the watcher look often."""
    for name in ("TRIAL", "INTERVAL", "FIRST_REST", "LONGEST_REST"):
        monkeypatch.setattr(spinning, name, 0.01)


def wait_until(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


def threads_of_infomax() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("infomax-openmp")]


def test_threads_spin_while_the_machine_is_idle_and_sleep_while_it_is_busy(two_threads, quick, monkeypatch):
    is_busy, ran, waited = False, 0.0, 0.0

    def seconds_of_threads():
        nonlocal ran, waited
        ran, waited = ran + 1, waited + is_busy
        return {"1": (ran, waited), "2": (0.0, 0.0)}

    monkeypatch.setattr(spinning, "thread_seconds", seconds_of_threads)
    with considerate_threads():
        assert spinning._holders, "threads sleep before anything is known"
        wait_until(lambda: threads_of_infomax() == ["infomax-openmp-watcher"])
        is_busy = True
        wait_until(lambda: spinning._holders)
        is_busy = False
        wait_until(lambda: not spinning._holders)
    assert not threads_of_infomax()


def test_trials_become_rare_while_the_machine_is_busy(two_threads, monkeypatch):
    rests, waits = [], iter(range(10**6))

    def wait(event, seconds):
        rests.append(seconds)
        return len(rests) > 14

    monkeypatch.setattr(threading.Event, "wait", wait)
    monkeypatch.setattr(spinning, "spin_while_waiting", lambda: None)
    monkeypatch.setattr(spinning, "sleep_while_waiting", lambda: None)
    monkeypatch.setattr(spinning, "thread_seconds", lambda: {"1": (0.0, float(next(waits)))})
    spinning._Watcher().run()
    assert rests[::2] == [1, 2, 4, 8, 16, 16, 16, 16]
    assert set(rests[1::2]) == {spinning.TRIAL}


def test_a_process_that_does_nothing_learns_nothing(two_threads, monkeypatch):
    rests = []

    def wait(event, seconds):
        rests.append(seconds)
        return len(rests) > 8

    monkeypatch.setattr(threading.Event, "wait", wait)
    for name in ("spin_while_waiting", "sleep_while_waiting"):
        monkeypatch.setattr(spinning, name, lambda: None)
    monkeypatch.setattr(spinning, "thread_seconds", lambda: {"1": (5.0, 3.0)})
    spinning._Watcher().run()
    assert rests == [spinning.FIRST_REST, spinning.TRIAL] * 4 + [spinning.FIRST_REST]


def test_threads_sleep_where_the_system_does_not_tell_how_long_they_wait(two_threads, quick, monkeypatch):
    monkeypatch.setattr(spinning, "thread_seconds", dict)
    with considerate_threads():
        assert threads_of_infomax() == ["infomax-openmp-holder"]
    assert not threads_of_infomax()


def test_an_inner_block_leaves_the_decision_to_the_outer_one(two_threads):
    with considerate_threads():
        before = threads_of_infomax()
        with considerate_threads():
            assert threads_of_infomax() == before
        assert threads_of_infomax() == before


def test_an_error_ends_the_threads(two_threads):
    with pytest.raises(KeyboardInterrupt), considerate_threads():
        raise KeyboardInterrupt
    assert not threads_of_infomax()


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_THREAD_LIMIT"])
def test_a_users_variables_decide(two_threads, monkeypatch, name):
    assert can_switch()
    monkeypatch.setenv(name, "1")
    assert not can_switch()
    with considerate_threads():
        assert not threads_of_infomax()


def test_one_thread_never_waits(two_threads):
    torch.set_num_threads(1)
    with considerate_threads():
        assert not threads_of_infomax()


@pytest.mark.parametrize(("threads", "cores", "holders"), [(2, 2, 1), (4, 4, 1), (2, 3, 2), (8, 64, 9), (16, 4, 1)])
def test_there_are_more_threads_of_openmp_than_cores(monkeypatch, threads, cores, holders):
    monkeypatch.setattr(spinning, "cores_to_run_on", lambda: cores)
    count = spinning._holder_count(threads)
    assert count == holders
    assert threads + count * (threads - 1) > cores


@pytest.mark.parametrize(("threads", "cores"), [(2, 64), (192, 192)])
def test_no_crowd_of_threads_is_started(monkeypatch, threads, cores):
    for name in (*COUNT_VARIABLES, *WAIT_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(spinning, "cores_to_run_on", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert not can_switch()


def test_a_system_that_allows_no_more_threads_is_no_error(two_threads, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(spinning._Holder, "start", refuse)
    sleep_while_waiting()
    assert not spinning._holders


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells it")
def test_linux_tells_how_long_threads_wait():
    ran, waited = thread_seconds()[str(os.getpid())]
    assert ran > 0
    assert waited >= 0


@pytest.mark.skipif(sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="threads that wait, and Linux")
@pytest.mark.process
def test_holders_let_openmps_threads_sleep():
    environment = {name: x for name, x in os.environ.items() if name not in (*COUNT_VARIABLES, *WAIT_VARIABLES)}
    done = subprocess.run([sys.executable, "-c", COUNT_SLEEPS], env=environment, capture_output=True, text=True)
    before, asleep, after = (int(line) for line in done.stdout.split())
    assert before < asleep / 2, "this torch does not use GNU's OpenMP"
    assert after < asleep / 2


def test_sleeping_twice_is_sleeping(two_threads):
    sleep_while_waiting()
    sleep_while_waiting()
    assert threads_of_infomax() == ["infomax-openmp-holder"]
