"""Processes and signals: ranks on this machine, those that torchrun or srun start, and being interrupted."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Self

import torch
import torch.multiprocessing as mp

from infomax.arguments import MachineError

GRACE = 20.0  # seconds that ranks have to save and end, once one of them has failed
CONNECTION_LOST = ("gloo", "NCCL", "Connection reset", "Connection closed", "TCPStore", "Broken pipe")


@dataclass(frozen=True)
class Place:
    """Which of how many ranks this process is, and which of those on its machine."""

    rank: int
    world: int
    local_rank: int


def given_place() -> Place | None:
    """What torchrun or srun say; None where this process was started by neither."""
    torchrun, srun = ("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    for rank, world, local in (torchrun, srun):
        if all(name in os.environ for name in (rank, world, local)) and int(os.environ[world]) > 1:
            if rank.startswith("SLURM"):  # the tasks of one srun; the first is where it was called
                os.environ.setdefault("MASTER_ADDR", os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
                os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ["SLURM_JOB_ID"]) % 20000))
            return Place(int(os.environ[rank]), int(os.environ[world]), int(os.environ[local]))
    return None


class Interruption:
    """Ctrl-C, SIGTERM and the warning that SLURM sends before the time is up, to be heeded between two steps.

    A second signal interrupts at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            warning = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, *warning)}
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a rank leaves Ctrl-C to the process above it
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def end(self) -> None:
        """End the process as the signal wants, after what was computed is safe.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: with 0, after SIGTERM, or after SLURM was told to queue the job again.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal == signal.SIGUSR1 and os.environ.get("SLURM_PROCID", "0") == "0":
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        raise SystemExit(0)


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
    with Interruption() as interruption:
        for process in processes:
            process.start()
        told, deadline = False, float("inf")
        while running := [process for process in processes if process.is_alive()]:
            connection.wait([process.sentinel for process in running], timeout=0.2)
            failed = any(process.exitcode for process in processes)
            if (failed or interruption.signal is not None) and not told:
                told, deadline = True, time.monotonic() + GRACE if failed else float("inf")
                for process in running:
                    process.terminate()
            if time.monotonic() > deadline:
                for process in running:
                    process.kill()
    if any(process.exitcode for process in processes):
        _raise_first(processes, reports)
    if interruption.signal is not None:
        interruption.end()


def _rank(rank: int, count: int, port: int, reports: Any, function: Callable[..., None], args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which passes it on
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    try:
        function(*args)
    except Exception as error:
        reports.put((rank, type(error), str(error)))
        sys.exit(1)


def _raise_first(processes: Sequence[BaseProcess], reports: Any) -> None:
    """Raise what went wrong first: what a rank that lost its connection says is a consequence."""
    said = {}
    while not reports.empty():
        rank, kind, message = reports.get()
        said[rank] = kind, message
    for rank, process in enumerate(processes):
        if process.exitcode and rank not in said and process.exitcode != -signal.SIGTERM:
            number = -process.exitcode
            how = f"was killed by {signal.Signals(number).name}" if number > 0 else f"exited with {process.exitcode}"
            raise MachineError(f"rank {rank} of {len(processes)} {how}; the others saved what they had and ended")
    lost = {r for r, (_, message) in said.items() if any(word in message for word in CONNECTION_LOST)}
    for rank in [*sorted(said.keys() - lost), *sorted(lost)]:
        kind, message = said[rank]
        if kind in (ValueError, FloatingPointError, OSError, MachineError):
            raise kind(message)
        raise MachineError(f"rank {rank} of {len(processes)} failed: {kind.__name__}: {message}")
    raise MachineError("a rank was ended before it had begun")
