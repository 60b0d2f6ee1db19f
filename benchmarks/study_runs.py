"""Computes the runs of a study several at a time, and keeps each result: a command goes on where it was ended."""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from infomax.runtime.json_lines import append_json_line, read_json_lines

NICENESS = 10  # with which runs yield to other programs


class Results:
    """The results that are kept: a line for each, and one of provenance before those of a command at a commit."""

    def __init__(self, file: Path):
        self.file = file
        self.rows = read_json_lines(file) if file.exists() else []

    @property
    def measured(self) -> list[dict[str, Any]]:
        """Returns the results, without the lines of provenance."""
        return [row for row in self.rows if "commit" not in row]

    def begin(self, command: str) -> None:
        """Keeps the provenance of the results that follow, unless it stands there last."""
        from infomax.runs.provenance import provenance

        made = {**provenance(), "command": command}
        newest = next((row for row in reversed(self.rows) if "commit" in row), {})
        if (newest.get("commit"), newest.get("command")) != (made["commit"], command):
            self.add(made)

    def add(self, row: dict[str, Any]) -> None:
        """Keeps and prints a result."""
        append_json_line(self.file, row)
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def has(self, wanted: Mapping[str, Any]) -> bool:
        """Returns whether there is a row with these values."""
        return any(wanted.items() <= row.items() for row in self.rows)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how many runs are computed at a time, and for how long."""
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, with one thread each")
    parser.add_argument("--budget-seconds", type=float, default=float("inf"), help="no run is started after this time")


def prepare_process(niceness: int) -> None:
    """Prepares a process that computes runs: it has one thread, and at least this niceness."""
    import torch

    os.nice(max(0, niceness - os.nice(0)))  # a study that yields already does not yield more
    torch.set_num_threads(1)


def run_jobs(
    compute: Callable[..., Any],
    queue: list[Any],
    shared: tuple[Any, ...],
    keep: Callable[[Any], None],
    args: argparse.Namespace,
    *,
    niceness: int = NICENESS,
    context: Any = None,
    runs_per_process: int | None = None,
) -> None:
    """Computes runs until all are done or the time is over, keeps each result, and prints how many are left.

    Args:
        compute: Computes a run in a process of its own, from the job and what all jobs share.
        queue: The jobs, which are taken from it as they are started.
        shared: Arguments of ``compute`` after the job.
        keep: Is given each result as soon as it is known.
        args: Has the options of :func:`add_run_options`.
        niceness: With which the runs yield to other programs.
        context: How processes start; None starts them anew.
        runs_per_process: After which a process ends; None keeps it.
    """
    deadline = time.perf_counter() + args.budget_seconds
    context = context or multiprocessing.get_context("spawn")
    options = {"mp_context": context, "initializer": prepare_process, "initargs": (niceness,)}
    with ProcessPoolExecutor(args.processes, max_tasks_per_child=runs_per_process, **options) as pool:
        pending: set[Future] = set()
        while (queue and time.perf_counter() < deadline) or pending:
            while queue and len(pending) < args.processes and time.perf_counter() < deadline:
                pending.add(pool.submit(compute, queue.pop(0), *shared))
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                keep(future.result())
    print(f"{len(queue)} runs are left; the same command goes on" if queue else "all runs are done")
