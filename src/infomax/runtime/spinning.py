"""Lets OpenMP's threads spin while they wait for each other if the machine is idle, and sleep if it is busy.

A thread of GNU's OpenMP, which torch's wheels for Linux bring along, looks for work for some milliseconds before it
sleeps. On an idle machine that is fast: work comes within microseconds. If there is other work, the thread keeps a core
from the thread that it waits for, and a step takes many times as long.

How long threads look is fixed when OpenMP is loaded, with one exception: if a process has more threads of OpenMP than
cores, they sleep almost at once. So threads that do nothing but exist switch between both. Results do not change, as
the number of threads that compute stays the same.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infomax.runtime.threads import cores_to_run_on, threads_within_quota

TRIAL, INTERVAL = 0.2, 0.5  # seconds of spinning until it is seen whether threads waited for cores; first, and later
BUSY_SHARE = 0.05  # of these seconds; if a thread waited longer, the machine is busy
ACTIVE_SHARE = 0.1  # of these seconds; if no thread ran longer, nothing is known of the machine
FIRST_REST, LONGEST_REST = 1.0, 16.0  # seconds of sleeping until the next trial
MAX_HOLDERS, MAX_THREADS = 16, 128  # threads that may be started for nothing but to exist: ours, and OpenMP's
GRAIN = 2**16  # elements of a vector for each thread, enough for torch to use all threads
_holders: "list[_Holder]" = []


class _Holder(threading.Thread):
    """A thread that lets OpenMP start threads for it and keeps them until it ends; none of them does anything."""

    def __init__(self) -> None:
        super().__init__(name="infomax-openmp-holder", daemon=True)
        self.is_ready, self.may_end = threading.Event(), threading.Event()

    def run(self) -> None:
        import torch

        torch.zeros(GRAIN * torch.get_num_threads()).add_(1)
        self.is_ready.set()
        self.may_end.wait()


def sleep_while_waiting() -> None:
    """Lets OpenMP's threads sleep as soon as they wait."""
    import torch

    while len(_holders) < _holder_count(torch.get_num_threads()):
        holder = _Holder()
        try:
            holder.start()
        except RuntimeError:  # the system allows this process no more threads
            break
        _holders.append(holder)
        holder.is_ready.wait()


def spin_while_waiting() -> None:
    """Lets OpenMP's threads look for work before they sleep, as long as its variables say."""
    while _holders:
        holder = _holders.pop()
        holder.may_end.set()
        holder.join()  # OpenMP's threads end with it


def _holder_count(threads: int) -> int:
    """Returns how many holders make more threads of OpenMP than there are cores; each brings all threads but itself."""
    return max(0, cores_to_run_on() - threads) // (threads - 1) + 1


def can_switch() -> bool:
    """Returns whether it is infomax's to decide how threads wait.

    It is not if there is one thread, if the user has set how threads wait or a limit of their number, or if there are
    so few threads for the cores, or so many cores, that many more threads would be needed.
    """
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_THREAD_LIMIT")):
        return False
    holders = _holder_count(threads)
    return holders <= MAX_HOLDERS and holders * (threads - 1) <= MAX_THREADS


def thread_seconds() -> dict[str, tuple[float, float]]:
    """Returns for each thread of this process how long it ran, and how long it was ready to run and had no core.

    Linux alone tells that; the result is empty elsewhere.
    """
    seconds = {}
    if os.path.exists("/proc/self/schedstat"):
        for task in Path("/proc/self/task").iterdir():
            try:
                ran, waited, _ = (task / "schedstat").read_text().split()
            except OSError:  # the thread has ended
                continue
            seconds[task.name] = int(ran) / 1e9, int(waited) / 1e9
    return seconds


class _Watcher(threading.Thread):
    """A thread that lets OpenMP's threads spin as long as the machine is idle, and tries after a while if it is.

    While threads sleep, nothing tells whether they could as well spin. So they spin for a moment; if one of them waited
    for a core, they sleep again, and the next trial comes later.
    """

    def __init__(self) -> None:
        super().__init__(name="infomax-openmp-watcher", daemon=True)
        self._stop_event = threading.Event()

    def run(self) -> None:
        rest = FIRST_REST
        while not self._stop_event.wait(rest):
            spin_while_waiting()
            seconds = self._seconds_until_busy()
            sleep_while_waiting()
            if seconds is not None:
                rest = FIRST_REST if seconds > FIRST_REST else min(2 * rest, LONGEST_REST)

    def _seconds_until_busy(self) -> float | None:
        """Waits until the machine is busy, and returns how long that took.

        Returns:
            The seconds; None if the watcher is to end, or if this process has done too little to tell.
        """
        begin, interval = time.perf_counter(), TRIAL
        while True:
            before, since = thread_seconds(), time.perf_counter()
            if self._stop_event.wait(interval):
                return None
            now = time.perf_counter()
            after = thread_seconds()
            names = before.keys() & after.keys()
            ran, waited = (max(after[name][i] - before[name][i] for name in names) / (now - since) for i in (0, 1))
            if waited > BUSY_SHARE:
                return now - begin
            if interval == TRIAL and ran < ACTIVE_SHARE:
                return None
            interval = INTERVAL

    def stop(self) -> None:
        """Ends the thread."""
        self._stop_event.set()
        self.join()


@contextmanager
def considerate_threads() -> Iterator[None]:
    """Keeps torch's threads within the quota, and lets them spin only while the machine is idle, until the block ends.

    Does nothing if an outer block does it.
    """
    with threads_within_quota():
        if _holders or any(isinstance(thread, _Watcher) for thread in threading.enumerate()) or not can_switch():
            yield
            return
        sleep_while_waiting()
        watcher = _Watcher()
        if thread_seconds():
            watcher.start()
        try:
            yield
        finally:
            if watcher.is_alive():
                watcher.stop()
            spin_while_waiting()
