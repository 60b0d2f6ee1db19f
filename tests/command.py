"""Runs the command line, inside the test's own process or in one of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infomax import cli

CODE = "from infomax.cli import main; main()"
PATIENCE = 240.0  # seconds; a slow or busy machine needs some of them, and only what hangs needs more
_started: list[subprocess.Popen[str]] = []


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Returns the exit code, standard output and standard error of ``infomax WORDS``."""
    monkeypatch.setattr(sys, "argv", ["infomax", *words])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # which the command replaces
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # which the command sets
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def start_command(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Starts ``infomax WORDS`` in a folder and a process group of its own; it ends with the test at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
    )
    _started.append(process)
    return process


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Waits until a condition holds, while a process runs."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def end_commands() -> None:
    """Kills what :func:`start_command` has started and is still running, its ranks and workers too."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
