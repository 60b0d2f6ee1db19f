"""Starts ranks on this machine, or reads from torchrun's and srun's variables which rank this process is."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess, parent_process
from typing import TYPE_CHECKING, Any

from infomax.runtime.failures import CollapseError, MachineError
from infomax.runtime.signals import Interruption, end_with_parent
from infomax.runtime.threads import thread_variables_in_children, user_chose_no_thread_count

if TYPE_CHECKING:
    import torch

STOPPED = 75  # exit code of a rank that ended after a signal, with its state saved
GRACE = 20.0  # seconds that the other ranks have to save and end after one rank has failed
CONNECTION_LOST = ("gloo", "NCCL", "Connection reset", "Connection closed", "TCPStore", "Broken pipe")


@dataclass(frozen=True)
class RankEnd:
    """A frozen dataclass that holds how a rank ended, as it reports itself.

    It counts instead of the exit code: libraries can crash while the interpreter takes itself apart, when all is done.
    """

    exit_code: int
    error: tuple[type[Exception], str] | None = None
    """Type and message of the exception that the rank ended with."""


@dataclass(frozen=True)
class RankInfo:
    """A frozen dataclass that holds a process's rank, the number of ranks, and its rank among those of its machine."""

    rank: int
    world_size: int
    local_rank: int


def rank_from_environment() -> RankInfo | None:
    """Reads the rank from the variables of torchrun or srun; None if this process is not one of several.

    Under srun it also sets ``MASTER_ADDR`` and ``MASTER_PORT``, which srun leaves out.
    """
    torchrun, srun = ("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    for rank, world_size, local_rank in (torchrun, srun):
        if all(name in os.environ for name in (rank, world_size, local_rank)) and int(os.environ[world_size]) > 1:
            if rank.startswith("SLURM"):
                # All tasks of one srun agree on the machine it was called on, and on a port made of the job's number.
                os.environ.setdefault("MASTER_ADDR", os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
                os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ["SLURM_JOB_ID"]) % 20000))
            return RankInfo(int(os.environ[rank]), int(os.environ[world_size]), int(os.environ[local_rank]))
    return None


def is_first_rank() -> bool:
    """Returns whether this process is the first one of those that torchrun or srun started, or the only one."""
    rank_info = rank_from_environment()
    return rank_info is None or rank_info.rank == 0


def device_of(device: str, local_rank: int) -> "torch.device":
    """Returns the device that a rank computes on: ``cpu``, ``mps``, or the GPU of its number if it is ``cuda``."""
    import torch

    if device != "cuda":
        return torch.device(device)
    return torch.device("cuda", local_rank % torch.cuda.device_count())  # srun may show each task one GPU alone


@contextmanager
def safe_path_in_children() -> Generator[None]:
    """Starts Python processes, until the block ends, that import no module from the folder they are started in.

    A new process of ``multiprocessing`` begins with ``python -c``, which looks for modules in the working folder first:
    a file there that has the name of a module, as ``socket.py``, would run.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def run_ranks(function: Callable[..., None], world_size: int, *args: Any) -> None:
    """Calls ``function(*args)`` in ``world_size`` new processes on this machine, and waits for them.

    If one fails, the others are ended within a minute. A signal to this process is passed on, and each rank handles it
    as a single process would.

    Raises:
        ValueError, FloatingPointError, OSError, CollapseError: if the first rank that failed raised it.
        MachineError: if a rank failed in any other way; the message says which rank and why.
    """
    import torch.multiprocessing as mp

    context = mp.get_context("spawn")  # a forked child would hang in threads that torch started in its parent
    reports = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    divides_threads = user_chose_no_thread_count()
    processes = [
        context.Process(target=_run_rank, args=(rank, world_size, port, divides_threads, reports, function, args))
        for rank in range(world_size)
    ]
    ends: dict[int, RankEnd] = {}
    with Interruption() as interruption:
        try:
            with safe_path_in_children(), thread_variables_in_children():
                for process in processes:
                    process.start()
            failed = _wait_for_ranks(processes, interruption, reports, ends)
        finally:  # also after a second Ctrl-C, which raises KeyboardInterrupt above
            for process in processes:
                if process.is_alive():
                    process.kill()
    exit_codes = set(_exit_codes(processes, ends).values())
    if exit_codes - {0, STOPPED, -signal.SIGTERM}:
        errors = {rank: end.error for rank, end in ends.items() if end.error is not None}
        _raise_first_failure(failed, errors, world_size)
    if interruption.signal or exit_codes != {0}:  # the signal may have been sent to a rank and not to this process
        interruption.end(interruption.signal or signal.SIGTERM)


def _wait_for_ranks(
    processes: Sequence[BaseProcess], interruption: Interruption, reports: Any, ends: dict[int, RankEnd]
) -> dict[int, int]:
    """Waits until all ranks have ended, and returns the exit codes of those that failed by themselves, by rank.

    After a failure or a signal all ranks get SIGTERM. After a failure they are killed if they do not end in time.

    Args:
        processes: The ranks, in their order.
        interruption: Holds the signal that this process received.
        reports: The queue that each rank writes its number and its end to.
        ends: Is filled with what is read from ``reports``.
    """
    sent_sigterm, deadline = False, float("inf")
    failed: dict[int, int] = {}
    while True:
        connection.wait([process.sentinel for process in processes if process.is_alive()], timeout=0.2)
        running = [process for process in processes if process.is_alive()]
        while not reports.empty():  # what has ended by now has reported before
            rank, end = reports.get()
            ends[rank] = end
        if time.monotonic() <= deadline:  # after the deadline an exit code may come from the kill below
            codes = _exit_codes(processes, ends)
            failed |= {rank: code for rank, code in codes.items() if code not in (0, STOPPED, -signal.SIGTERM)}
        if not running:
            return failed
        if failed and deadline == float("inf"):
            deadline = time.monotonic() + GRACE
        if (failed or interruption.signal) and not sent_sigterm:
            sent_sigterm = True
            for process in running:
                process.terminate()
        if time.monotonic() > deadline:
            for process in running:
                process.kill()


def _exit_codes(processes: Sequence[BaseProcess], ends: dict[int, RankEnd]) -> dict[int, int]:
    """Returns the exit code of each rank, by what it reported if it did; 0 of one that is still running."""
    codes = {rank: process.exitcode or 0 for rank, process in enumerate(processes)}
    return codes | {rank: end.exit_code for rank, end in ends.items()}


def _run_rank(
    rank: int,
    world_size: int,
    port: int,
    divides_threads: bool,
    reports: Any,
    function: Callable[..., None],
    args: tuple,
) -> None:
    """Calls ``function(*args)`` as one rank, in its own process, and reports how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which passes it on
    parent = parent_process()
    assert parent is not None
    end_with_parent(parent.pid or 0)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if divides_threads:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // world_size))
    end = RankEnd(0)
    try:
        function(*args)
    except Exception as error:
        end = RankEnd(1, (type(error), str(error)[:2000]))  # a longer message could fill the pipe and block
    except SystemExit:
        end = RankEnd(STOPPED)
    reports.put((rank, end))
    sys.exit(end.exit_code)


def _raise_first_failure(
    failed: dict[int, int], errors: dict[int, tuple[type[Exception], str]], world_size: int
) -> None:
    """Raises the error that caused the others; a rank that lost its connection failed because another rank did.

    Args:
        failed: Exit codes of the ranks that failed by themselves.
        errors: Type and message of the exceptions that ranks reported, by rank.
        world_size: The number of ranks, for the message.
    """
    lost_connection = {rank for rank, (_, text) in errors.items() if any(word in text for word in CONNECTION_LOST)}
    for rank in sorted(errors.keys() - lost_connection):
        kind, message = errors[rank]
        if issubclass(kind, (ValueError, FloatingPointError, OSError, MachineError, CollapseError)):
            raise kind(message)
        raise MachineError(f"rank {rank} of {world_size} failed: {kind.__name__}: {message}")
    for rank, code in failed.items():
        if rank not in errors:
            end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            raise MachineError(f"rank {rank} of {world_size} {end}; the others were ended")
    reason = next((message for _, message in errors.values()), "no reason given")
    raise MachineError(f"the ranks lost their connections: {reason}")
