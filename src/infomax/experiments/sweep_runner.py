"""Sweeps carried out, one run after another, each in a process of its own; and kept."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from infomax.experiments.sweep import Sweep
from infomax.runs.provenance import provenance
from infomax.runs.run_folder import Run
from infomax.runtime.files import write_atomic


def commands(sweep: Sweep) -> list[str]:
    """A line of the shell for each run that is not done: to train and to judge it."""
    left = [trial.left for trial in sweep.trials]
    return [" && ".join(shlex.join(["infomax", *words]) for words in lines) for lines in left if lines]


def run(sweep: Sweep) -> list[str]:
    """Train and judge one run after another, each in a process of its own; the runs that failed.

    Raises:
        ValueError: if a recipe is not possible, before anything runs; or if a run refuses what it is told.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM; the run that it met is saved.
    """
    import torch

    from infomax.recipes.building import build_method

    with torch.device("meta"), catch_warnings(action="ignore"):  # no memory, no numbers: all settings are tried first
        for trial in sweep.trials:
            build_method(trial.recipe)
    sweep.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, trial in enumerate(sweep.trials, start=1):
        for words in trial.left:
            what = "training" if words is trial.training else " ".join(words[:2])
            print(f"{number} of {len(sweep.trials)}: {trial.folder.name}, {what}", file=sys.stderr)
            code, told = _carried_out(words)
            if told == signal.SIGINT or code == 130:
                raise KeyboardInterrupt
            if told:
                sys.exit(0)  # as a run ends that is told to
            if code == 2:
                raise ValueError(f"the command that was refused is: {shlex.join(['infomax', *words])}")
            if code != 0 or not trial.trained:
                how = f"ended with exit code {code}" if code else "was stopped"
                failed.append(f"{trial.folder.name}: {what} {how}")
                break
    return failed


def _carried_out(words: Sequence[str]) -> tuple[int, int]:
    """The exit code of a command in a process of its own, and the signal that came meanwhile, which it is sent too."""
    told = 0

    def passed_on(number: int, _: Any) -> None:
        nonlocal told
        told = told or number
        process.send_signal(number)

    with subprocess.Popen(
        [sys.executable, "-P", "-m", "infomax", *words],
        stdout=subprocess.DEVNULL,
        process_group=0,  # else Ctrl-C would reach it twice, which means at once
    ) as process:
        before = {number: signal.signal(number, passed_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return process.wait(), told
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def seconds_of(folder: Path) -> float:
    """That the training took, without what it took to start it."""
    rows = [row for row in Run(folder).read_rows("metrics.jsonl") if "seconds" in row]
    return round(rows[-1]["seconds"], 1) if rows else 0.0


def write(sweep: Sweep, figure: bytes) -> None:
    """``sweep.json`` and ``sweep.png``."""
    content = {**provenance(), "runs": described(sweep)}
    write_atomic(sweep.out / "sweep.json", json.dumps(content, indent=1).encode())
    write_atomic(sweep.out / "sweep.png", figure)


def described(sweep: Sweep) -> list[dict[str, Any]]:
    """Each run with its command, where and of which commit it was trained, and its results; for a file."""
    rows = []
    for trial in sweep.trials:
        if not (trial.folder / "config.json").is_file():
            continue
        config = json.loads((trial.folder / "config.json").read_text())
        found = {name: trial.row(name) for name in trial.judging}
        rows.append(
            {
                "recipe": trial.member.experiment.name,
                "changes": config.get("changes", []),
                "seed": trial.seed,
                "command": shlex.join(["infomax", *trial.training]),
                **{key: config[key] for key in ("started", "commit", "machine", "versions", "data", "images")},
                "training_seconds": seconds_of(trial.folder),
                "results": {words: row for words, row in found.items() if row},
            }
        )
    return rows
