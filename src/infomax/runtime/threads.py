"""Says how many cores a process may use, and sets how OpenMP's threads wait, before torch is imported.

A container may have many cores and a quota of half of one. OpenMP sees the cores alone: its threads then stand still
together for most of the time, and wait for each other in the rest. On a machine with other work, a thread that looks
for work keeps a core from the thread that it waits for.
"""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from infomax.runtime.control_groups import control_groups

# Turns of the loop in which a thread of GNU's OpenMP looks for work before it sleeps: some tens of microseconds, which
# bridge the gaps between the operations of a step. Its own number, 300,000, is for milliseconds.
SPIN_COUNT = 1_000
BLOCK_TIME = 1  # milliseconds that a thread of LLVM's or Intel's OpenMP looks for work before it sleeps
COUNT_VARIABLES = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS")
"""A user who has set one of these has chosen the number of threads."""
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""A user who has set one of these has chosen how threads wait."""
LEAST_BUSY = 0.5  # cores that others keep; less may be the system's own work
LEAST_WINDOW = 0.3  # seconds; the system counts the time of a core in hundredths
_set_here: dict[str, str] = {}  # what the user has not set
_first_times: list[tuple[float, float]] = []  # of the machine and of this process, when the command or the call began


def available_cores() -> float:
    """Returns how many cores this process may use, of which a part is possible.

    It is the number of cores that the process may run on, or the quota of its control groups if that is less. A number
    that the user gave Python, by ``-X cpu_count`` or ``PYTHON_CPU_COUNT``, goes before both.
    """
    number = str(sys._xoptions.get("cpu_count") or os.environ.get("PYTHON_CPU_COUNT", ""))
    if number.isdecimal() and int(number) > 0:
        return float(number)
    return min(float(cores_to_run_on()), _own_quota())


def core_count() -> int:
    """Returns how many threads keep the cores of this process busy: a part of a core takes a thread too."""
    return max(1, math.ceil(available_cores()))


def cores_to_run_on() -> int:
    """Returns the number of cores that the system lets this process run on, whatever its quota."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _own_quota() -> float:
    """Returns this process's quota, read once: nothing that depends on it changes while a process runs."""
    return quota_in_cores()


def quota_in_cores(root: Path = Path("/")) -> float:
    """Returns the number of cores that the control groups of this process allow; infinity if they set no limit.

    Args:
        root: Folder that the groups are looked for in; ``/`` but for tests.
    """
    return min([math.inf, *(limit for group in control_groups("cpu", root) for limit in _limits(group))])


def _limits(group: Path) -> Iterator[float]:
    """Yields the limit of a control group, in cores, if it has one."""
    with suppress(OSError, ValueError):  # the first group of all has no such file
        quota, period = (group / "cpu.max").read_text().split()
        if quota != "max":
            yield int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:  # -1 is no limit
            yield int(quota) / int(period)


def cores_of_this_process() -> int:
    """Returns the share of :func:`core_count` that is this process's, if it is one of several ranks of this machine."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")  # torchrun sets it, and so does run_ranks
    return max(1, core_count() // max(1, int(ranks) if ranks.isdecimal() else 1))


def describe_quota() -> str | None:
    """Returns one line on the cores that a quota leaves of those that OpenMP counts; None if it leaves all."""
    if (quota := _own_quota()) >= (cores := cores_to_run_on()):
        return None
    return (
        f"a quota leaves {quota:.3g} of {cores} cores (cgroup); threads and workers are no more than {core_count()}, "
        "but for those that OMP_NUM_THREADS or --workers names"
    )


def cores_kept_by_others() -> float:
    """Returns how many of this process's cores other processes have kept busy since :func:`watch_cores`, on Linux.

    It is never more than the load of the last minute, so that what lasts a moment does not count. It is 0 where the
    system does not say.
    """
    if not _first_times:
        return 0.0
    began, busy_before = _first_times[0]
    seconds, busy = time.monotonic() - began, _seconds_of_others()
    if busy is None or seconds < LEAST_WINDOW:
        return 0.0
    return max(0.0, min((busy - busy_before) / seconds, os.getloadavg()[0]))


def _seconds_of_others(statistics: Path = Path("/proc/stat")) -> float | None:
    """Returns the seconds that other processes have worked on this process's cores; None if the system does not say."""
    try:
        lines = statistics.read_text().splitlines()
        cores, ticks = os.sched_getaffinity(0), os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return None
    busy = 0
    for name, *counts in (line.split() for line in lines if line.startswith("cpu")):
        if name.removeprefix("cpu").isdecimal() and int(name.removeprefix("cpu")) in cores:
            user, nice, system, _idle, _waiting, *interrupts = map(int, counts)
            busy += user + nice + system + sum(interrupts[:3])
    return busy / ticks - sum(os.times()[:4])


def describe_busy_machine(threads: int) -> str | None:
    """Returns one line on the cores that other processes keep busy, if fewer threads would then be faster.

    Their number stays as it is: with another one, sums are rounded otherwise.

    Args:
        threads: The number of threads that the process uses.
    """
    if not user_chose_no_thread_count():
        return None
    others, cores = cores_kept_by_others(), cores_to_run_on()
    if (left := max(1, round(cores - others))) >= threads:
        return None
    line = (
        f"other processes keep {others:.1f} of {cores} cores busy, and {threads} threads wait for each other: "
        f"OMP_NUM_THREADS={left} is faster for as long as they do; sums are then rounded otherwise, so that results "
        "differ"
    )
    if not any(name in os.environ for name in WAIT_VARIABLES):  # torch was imported before infomax had a say
        line += f". GOMP_SPINCOUNT={SPIN_COUNT} before Python starts is several times faster, with the same results"
    return line


def watch_cores() -> None:
    """Notes how much other processes have worked so far, for :func:`cores_kept_by_others`."""
    if (busy := _seconds_of_others()) is not None:
        _first_times[:] = [(time.monotonic(), busy)]


def set_thread_variables() -> None:
    """Sets the variables that OpenMP reads when it is loaded, as with torch, if the user has set none of their kind.

    There are no more threads than the quota allows, and they sleep soon when they have no work. This is for processes
    of infomax's own, before they import torch: the variables hold for all libraries of a process.
    """
    watch_cores()
    _set_here.update(_thread_variables())
    os.environ.update(_set_here)


def set_wait_variables() -> None:
    """Sets how threads wait, in a process that somebody else has started, before infomax imports torch there.

    It does nothing if torch is imported already, as OpenMP then has read the variables, or the user has set one. The
    number of threads stays: :func:`threads_within_quota` sees to it for a while.
    """
    if "torch" not in sys.modules:
        waits = {name: value for name, value in _thread_variables().items() if name in WAIT_VARIABLES}
        _set_here.update(waits)
        os.environ.update(waits)


def _thread_variables() -> dict[str, str]:
    """Returns the variables to set, none of a kind of which the user has set one."""
    variables = {}
    if user_chose_no_thread_count() and core_count() < cores_to_run_on():
        variables["OMP_NUM_THREADS"] = str(core_count())
    if not any(name in user_environment() for name in WAIT_VARIABLES):
        variables |= {"GOMP_SPINCOUNT": str(SPIN_COUNT), "KMP_BLOCKTIME": str(BLOCK_TIME)}
    return variables


def user_chose_no_thread_count() -> bool:
    """Returns whether the number of threads is infomax's to decide."""
    return not any(name in user_environment() for name in COUNT_VARIABLES)


def user_environment() -> dict[str, str]:
    """Returns the environment as the user has set it, for a process that sets its own variables."""
    return {name: value for name, value in os.environ.items() if _set_here.get(name) != value}


@contextmanager
def thread_variables_in_children() -> Iterator[None]:
    """Starts processes, until the block ends, with the variables of :func:`set_thread_variables`."""
    variables = _thread_variables()
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def threads_within_quota() -> Iterator[None]:
    """Lets torch use no more threads than the quota allows, until the block ends, unless the user chose their number.

    In a process that somebody else has started, torch is loaded already, and counts the cores alone.
    """
    import torch

    before = torch.get_num_threads()
    if before > core_count() and user_chose_no_thread_count():
        torch.set_num_threads(core_count())
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
