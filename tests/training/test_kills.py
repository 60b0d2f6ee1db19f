"""Processes that are killed or that compete: bits stay the same, nothing stays locked, nothing is left running."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from command import PATIENCE, start_command, wait_for
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.runtime.locks import FolderLock
from infomax.runtime.resumable_loop import ResumableLoop
from infomax.training import loop, online_evaluation
from infomax.training.pretrain import pretrain
from interrupted_runs import differing

GONE = 10.0  # seconds that ranks and workers may outlive the process that was killed
ONCE_OR_OFTEN = [pytest.param(1, marks=pytest.mark.process), pytest.param(10, marks=pytest.mark.slow)]
TOY = ("--data", "digits", "--method", "carl", "--image-size", "8", "--batch-size", "256", "--epochs", "24")
WORDS = ("pretrain", "--out", "run", *TOY)
FORK = multiprocessing.get_context("fork")


def command_line(pid: int) -> bytes:
    """Returns the words of a process; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descendants(pid: int) -> list[int]:
    """Returns the processes that a process has started, and those that they have started."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [grandchild for child in children for grandchild in descendants(child)]


def kill(process) -> None:
    """Kills a command, and checks that all that it has started ends soon."""
    others = {pid: command_line(pid) for pid in descendants(process.pid)}
    process.kill()
    until = time.monotonic() + GONE
    while left := [pid for pid, words in others.items() if words and command_line(pid) == words]:
        assert time.monotonic() < until, f"{len(left)} of {len(others)} processes are left"
        time.sleep(0.1)
    process.communicate()


def carry_out_with_kills(folder: Path, words, kills: int, is_ready: Callable[[], object], locked: str) -> None:
    """Starts a command as often as it is killed, and then lets it end."""
    chance = random.Random(kills)
    for number in range(kills):
        process = start_command(folder, *words)
        while process.poll() is None and not is_ready() and chance.random() > 0.02:
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 1))
        kill(process)
        if (folder / locked).is_dir():
            FolderLock(folder / locked).release()
        assert number < kills
    process = start_command(folder, *words)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err


def state_of(folder: Path) -> dict:
    file = checkpoints.newest_readable(folder / "checkpoints")
    assert file is not None
    return checkpoints.load(file)


@pytest.mark.parametrize("kills", ONCE_OR_OFTEN)
@pytest.mark.parametrize(
    "words", [("--micro-batch-size", "64"), pytest.param(("--devices", "2"), marks=pytest.mark.slow)]
)
def test_a_killed_training_ends_with_the_same_bits(tmp_path, words, kills):
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    words = (*WORDS, *words, "--resume")
    carry_out_with_kills(tmp_path / "straight", words, 0, lambda: True, "run")
    killed = tmp_path / "killed"
    carry_out_with_kills(killed, words, kills, lambda: Run(killed / "run").read_rows("metrics.jsonl"), "run")
    assert not differing(state_of(tmp_path / "straight/run"), state_of(killed / "run"))


def live_until_a_save(out: Path, number: int) -> None:
    """Trains, saves after each step, and is killed within the n-th write of a file."""
    loop.SAVE_EVERY, loop.SAVE_SHARE = 0.0, 1e9
    fsync, calls = os.fsync, []

    def fsync_or_be_killed(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = fsync_or_be_killed
    short_run(out, resume=True)


def short_run(out: Path, **options) -> Run:
    return pretrain(
        data="digits", out=out, method="carl", image_size=8, batch_size=512, epochs=4, quiet=True, **options
    )


@pytest.mark.parametrize("kills", ONCE_OR_OFTEN)
def test_a_run_killed_within_its_saves_ends_with_the_same_bits(tmp_path, kills):
    straight = short_run(tmp_path / "straight")
    for kill_at in random.Random(0).sample(range(1, 25), kills):
        process = FORK.Process(target=live_until_a_save, args=(tmp_path / "killed", kill_at))
        process.start()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
    short_run(tmp_path / "killed", resume=True)
    assert not differing(state_of(straight.path), state_of(tmp_path / "killed"))
    assert not list((tmp_path / "killed").rglob("*.partial"))
    assert not list((tmp_path / "killed").rglob(".lock*"))


def scores(folder: Path) -> dict[tuple[str, int], float]:
    rows = Run(folder).read_rows("results.jsonl")
    return {(row["representation"], row["k"]): row["top1"] for row in rows}


@pytest.mark.parametrize("kills", ONCE_OR_OFTEN)
def test_a_killed_evaluation_ends_with_the_same_scores(tmp_path, kills):
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
        short_run(tmp_path / name / "run")
    words = ("evaluate", "knn", "run", "--k", "1", "5")
    carry_out_with_kills(tmp_path / "straight", words, 0, lambda: True, "run")
    killed = tmp_path / "killed"
    carry_out_with_kills(killed, words, kills, lambda: (killed / "run/results.jsonl").is_file(), "run")
    assert scores(tmp_path / "straight/run") == scores(killed / "run")


@pytest.mark.parametrize("kills", ONCE_OR_OFTEN)
def test_a_killed_sweep_ends_with_the_same_scores(tmp_path, kills):
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    words = ("sweep", "carl/digits", "--out", "s", "--epochs", "4", "--seeds", "2")
    carry_out_with_kills(tmp_path / "straight", words, 0, lambda: True, "s")
    killed = tmp_path / "killed"
    carry_out_with_kills(killed, words, kills, lambda: list(killed.glob("s/*/metrics.jsonl")), "s")
    runs = sorted(path.name for path in (tmp_path / "straight/s").iterdir() if path.is_dir())
    assert len(runs) == 2
    for run in runs:
        assert scores(tmp_path / "straight/s" / run) == scores(killed / "s" / run)
        assert not differing(state_of(tmp_path / "straight/s" / run), state_of(killed / "s" / run))


@pytest.mark.process
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (WORDS, WORDS),
        ((*WORDS[:3], "--resume"), (*WORDS[:3], "--resume")),
        ((*WORDS[:3], "--resume"), (*WORDS, "--overwrite")),
        (("sweep", "carl/digits", "--out", "run", "--epochs", "8"),) * 2,
    ],
    ids=["new-new", "resume-resume", "resume-overwrite", "sweep-sweep"],
)
def test_of_two_processes_that_write_one_folder_one_is_refused(tmp_path, first, second):
    if "--resume" in first:
        process = start_command(tmp_path, *WORDS)
        wait_for(lambda: Run(tmp_path / "run").read_rows("metrics.jsonl"), process)
        process.terminate()
        process.communicate(timeout=PATIENCE)
    processes = [start_command(tmp_path, *words) for words in (first, second)]
    endings = [(process.communicate(timeout=PATIENCE)[1], process.returncode) for process in processes]
    refused = [err.strip().splitlines()[-1] for err, code in endings if code == 2]
    assert sorted(code for _, code in endings) == [0, 2], endings
    assert "run is being written by process" in refused[0]
    rows = [row for file in tmp_path.rglob("metrics.jsonl") for row in Run(file.parent).read_rows(file.name)]
    steps = [row["step"] for row in rows if "loss" in row]
    assert len(steps) == len({*steps})  # no step was made twice


@pytest.mark.process
def test_two_evaluations_add_all_their_rows_to_one_file(tmp_path):
    short_run(tmp_path / "run")
    processes = [start_command(tmp_path, "evaluate", "knn", "run", "--k", "1", "5", "--no-cache") for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    rows = [(row["representation"], row["k"]) for row in Run(tmp_path / "run").read_rows("results.jsonl")]
    assert len(rows) == 2 * len({*rows})


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_stays_flat_over_a_long_run(tmp_path, monkeypatch):
    """3,000 steps and 40 scores in one process; what the first 500 steps take is not counted."""
    monkeypatch.setattr(online_evaluation, "EVALUATIONS", 40)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", images=rng.integers(0, 255, (120, 8, 8, 3), dtype=np.uint8), labels=np.arange(120) % 2)
    memory: dict[int, int] = {}
    step_done = ResumableLoop.step_done

    def measuring(self) -> None:
        if (self.done + 1) % 500 == 0:
            memory[self.done + 1] = resident_bytes()
        step_done(self)

    monkeypatch.setattr(ResumableLoop, "step_done", measuring)
    options = {"image_size": 8, "batch_size": 40, "epochs": 1000, "quiet": True, "overrides": ["method.prototypes=10"]}
    run = pretrain(data=tmp_path / "x.npz", out=tmp_path / "run", method="carl", **options)
    assert len([row for row in run.read_rows("metrics.jsonl") if "knn_top1" in row]) == 40
    assert memory[3000] - memory[500] < 2**24, memory
