"""Several processes of one program, for tests. Forked: a spawned process would import everything again."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from infomax.runtime.collectives import process_group


def _work(rank: int, world: int, port: int, results: Any, function: Callable[..., Any], args: tuple) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with process_group(rank, world, device=torch.device("cpu")):
        results.put((rank, function(*args)))


def on_ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``function(*args)``, which must be of plain values, returns on each of ``world`` ranks."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = mp.get_context("fork")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(rank, world, port, results, function, args)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    out = {}
    while len(out) < world:
        while not results.empty():
            out |= [results.get()]
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
            raise AssertionError(f"a rank failed: exit codes {[process.exitcode for process in processes]}")
        time.sleep(0.01)
    for process in processes:
        process.join(timeout=60)
    return [out[rank] for rank in range(world)]
