"""Runs a function on several ranks for tests, in forked processes, as spawned ones would import everything again."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from infomax.runtime.collectives import process_group

# At the first backward pass torch starts a thread for each device, after which no forked process can compute gradients.
# What an export to ONNX imports registers a device, so the first pass is made here, before any test.
torch.zeros(1, requires_grad=True).sum().backward()


def _run_rank(rank: int, world_size: int, port: int, results: Any, function: Callable[..., Any], args: tuple) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with process_group(rank, world_size, device=torch.device("cpu")):
        results.put((rank, function(*args)))


def _run_as_torchrun(
    rank: int, world_size: int, port: int, results: Any, function: Callable[..., Any], args: tuple
) -> None:
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in variables.items()})
    os.environ.update(GROUP_RANK="0", TORCHELASTIC_RUN_ID="test", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    results.put((rank, function(*args)))


def on_ranks(world_size: int, function: Callable[..., Any], *args: Any, as_torchrun: bool = False) -> list[Any]:
    """Calls ``function(*args)`` on each rank, and returns its results, which must be plain values, in rank order.

    The ranks form a process group; or, if ``as_torchrun``, they have torchrun's variables, and the function does it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("fork")
    results = context.SimpleQueue()
    processes = [
        context.Process(
            target=_run_as_torchrun if as_torchrun else _run_rank,
            args=(rank, world_size, port, results, function, args),
        )
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    result_of_rank = {}
    while len(result_of_rank) < world_size:
        while not results.empty():
            rank, result = results.get()
            result_of_rank[rank] = result
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
            raise AssertionError(f"a rank failed: exit codes {[process.exitcode for process in processes]}")
        time.sleep(0.01)
    for process in processes:
        process.join(timeout=60)
    return [result_of_rank[rank] for rank in range(world_size)]
