"""Starts ranks on this machine, or reads from torchrun and srun which rank this process is."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess, parent_process
from typing import Any

import torch
import torch.multiprocessing as mp

from infomax.runtime.failures import MachineError
from infomax.runtime.signals import Interruption

STOPPED = 75  # exit code of a rank that was told to stop, and saved
GRACE = 20.0  # seconds that ranks have to save and end, once one of them has failed
CONNECTION_LOST = ("gloo", "NCCL", "Connection reset", "Connection closed", "TCPStore", "Broken pipe")


@dataclass(frozen=True)
class RankInfo:
    """Which of how many ranks this process is, and which of those on its machine."""

    rank: int
    world: int
    local_rank: int


def rank_from_environment() -> RankInfo | None:
    """What torchrun or srun say; None where this process was started by neither."""
    torchrun, srun = ("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    for rank, world, local in (torchrun, srun):
        if all(name in os.environ for name in (rank, world, local)) and int(os.environ[world]) > 1:
            if rank.startswith("SLURM"):  # the tasks of one srun; the first is where it was called
                os.environ.setdefault("MASTER_ADDR", os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
                os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ["SLURM_JOB_ID"]) % 20000))
            return RankInfo(int(os.environ[rank]), int(os.environ[world]), int(os.environ[local]))
    return None


def device_of(device: str, local_rank: int) -> torch.device:
    """That one rank computes on, of ``cpu`` or ``cuda``."""
    if device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())  # srun may show each task one GPU alone


def run_ranks(function: Callable[..., None], count: int, *args: Any) -> None:
    """Call ``function(*args)`` in ``count`` processes on this machine, and wait for them.

    When one fails the others are ended, within a minute. Signals are passed on, and each rank heeds them as a single
    process would.

    Raises:
        ValueError, FloatingPointError, OSError: as the first rank that failed did.
        MachineError: if it failed otherwise, saying how.
    """
    context = mp.get_context("spawn")  # a forked child hangs in the threads that torch had in its parent
    reports = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_rank, args=(rank, count, port, reports, function, args)) for rank in range(count)
    ]
    said: dict[int, Any] = {}
    with Interruption() as interruption:
        try:
            for process in processes:
                process.start()
            failed = _wait(processes, interruption, reports, said)
        finally:  # after a second Ctrl-C too
            for process in processes:
                if process.is_alive():
                    process.kill()
    codes = {process.exitcode for process in processes}
    if codes - {0, STOPPED, -signal.SIGTERM}:
        _raise_first(failed, said, count)
    if interruption.signal or codes != {0}:  # a rank may have been told directly
        interruption.end(interruption.signal or signal.SIGTERM)


def _wait(
    processes: Sequence[BaseProcess], interruption: Interruption, reports: Any, said: dict[int, Any]
) -> dict[int, int]:
    """Until all have ended; once one has failed the others are told to, and are killed if they do not.

    Returns the exit codes of those that failed by themselves.
    """
    told, deadline = False, float("inf")
    broken: dict[int, int] = {}
    while True:
        connection.wait([process.sentinel for process in processes if process.is_alive()], timeout=0.2)
        while not reports.empty():
            rank, *what = reports.get()
            said[rank] = what
        if time.monotonic() <= deadline:  # afterwards they are killed from here
            codes = {rank: process.exitcode or 0 for rank, process in enumerate(processes)}
            broken |= {rank: code for rank, code in codes.items() if code not in (0, STOPPED, -signal.SIGTERM)}
        running = [process for process in processes if process.is_alive()]
        if not running:
            return broken
        if broken and deadline == float("inf"):
            deadline = time.monotonic() + GRACE
        if (broken or interruption.signal) and not told:
            told = True
            for process in running:
                process.terminate()
        if time.monotonic() > deadline:
            for process in running:
                process.kill()


def _rank(rank: int, count: int, port: int, reports: Any, function: Callable[..., None], args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which passes it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    try:
        function(*args)
    except Exception as error:
        reports.put((rank, type(error), str(error)[:2000]))  # a longer one could fill the pipe
        sys.exit(1)
    except SystemExit:
        sys.exit(STOPPED)


def _end_with_parent() -> None:
    """Save and end if the process that waits for this one is killed."""
    parent: Any = parent_process()
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _raise_first(failed: dict[int, int], said: dict[int, Any], count: int) -> None:
    """Raise what went wrong first: what a rank that lost its connection says is a consequence."""
    lost = {rank for rank, (_, message) in said.items() if any(word in message for word in CONNECTION_LOST)}
    for rank in sorted(said.keys() - lost):
        kind, message = said[rank]
        if issubclass(kind, (ValueError, FloatingPointError, OSError, MachineError)):
            raise kind(message)
        raise MachineError(f"rank {rank} of {count} failed: {kind.__name__}: {message}")
    for rank, code in failed.items():
        if rank not in said:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            raise MachineError(f"rank {rank} of {count} {how}; the others were ended")
    raise MachineError(
        f"the ranks lost each other: {next((message for _, message in said.values()), 'no reason given')}"
    )
