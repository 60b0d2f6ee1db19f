"""Runs that are killed, stopped, moved to other ranks, or fail: what was trained is kept, and goes on exactly."""

import gc
import json
import multiprocessing.synchronize
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image

from command import CODE, PATIENCE, start_command, wait_for
from infomax.cli import main
from infomax.data.images.files import FileImages
from infomax.data.sources.location import open_source
from infomax.data.splits import labelled_splits
from infomax.methods.base import Views
from infomax.recipes.registry import methods_with_papers
from infomax.runs.run_folder import Run
from infomax.runs.trained_method import load_trained_method
from infomax.runtime import checkpoints
from infomax.runtime.failures import MachineError
from infomax.runtime.files import write_atomic
from infomax.runtime.options import pick
from infomax.runtime.ranks import RankInfo, rank_from_environment
from infomax.training import loop as training
from infomax.training.engine import Engine
from infomax.training.metrics_log import shown_values
from infomax.training.options import PretrainOptions
from infomax.training.prepare import prepare_run
from infomax.training.pretrain import pretrain
from infomax.training.replay import replay
from interrupted_runs import LAUNCH, differing, train_until
from ranks import on_ranks

TOY = {
    "mira": ("method.hidden=16", "method.prototypes=10"),
    "corinfomax": ("method.hidden=16", "method.dimension=4"),
    "carl": ("method.hidden=16", "method.prototypes=10"),
    "mveb": ("method.hidden=16", "method.dimension=8", "method.momentum=0.9"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """48 images of 12 pixels in two classes."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    for i in range(48):
        pixels = rng.integers(0, 120, (12, 12, 3)) + 120 * (i % 2)
        (root / str(i % 2)).mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(root / str(i % 2) / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def arrays(folder):
    files = sorted(folder.rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    np.savez(folder.parent / "toy.npz", images=pixels, labels=np.array([int(file.parent.name) for file in files]))
    return folder.parent / "toy.npz"


def go(out, data, method="mira", *, overrides=(), **options) -> Run:
    settings = {"image_size": 8, "epochs": 4, "batch_size": 16, "quiet": True, "workers": 0, **options}
    return pretrain(data=str(data), method=method, out=out, overrides=(*TOY[method], *overrides), **settings)


def last(run) -> dict:
    path = run.path if isinstance(run, Run) else run
    return checkpoints.load(checkpoints.newest_readable(path / "checkpoints"))


def measured(run: Run) -> list[dict]:
    """Returns the rows, without what depends on the speed of the machine, as when health is due after step 40."""
    rows = [row for row in run.read_rows("metrics.jsonl") if row["step"] <= 40 or "health_rows" not in row]
    speeds = ("images_per_second", "waiting", "seconds", "prototypes_in_use")  # since the process began
    return [{k: v for k, v in row.items() if k not in speeds} for row in rows if "verdict" not in row]


def live(out, data, method, options):
    """A process's whole life: saves after every step, so that it is often killed while it does."""
    training.SAVE_EVERY, training.SAVE_SHARE = 0.0, 1e9
    torch.set_num_threads(1)
    go(out, data, method, resume=True, **options)


def kill_until_done(out, data, method, options, chance) -> int:
    """Start a run, kill it at a random moment, and again, until it is done; the number of kills."""
    kills = 0
    while True:
        before = newest_step(out)
        process = mp.get_context("fork").Process(target=live, args=(out, data, method, options))
        process.start()
        while chance.random() > 0.1 and newest_step(out) == before and process.is_alive():
            process.join(timeout=0.1)  # at times it is killed before it has trained
        process.join(timeout=chance.uniform(0, 0.6))
        if process.exitcode is not None:
            assert process.exitcode == 0
            return kills
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1


KILLED_IN_CI = ("mira", "carl")  # with an EMA teacher, and without


def newest_step(out) -> str:
    return next((file.name[:13] for file in checkpoints.list_checkpoints(out / "checkpoints")), "")


@pytest.mark.process
@pytest.mark.parametrize(
    "method", [pytest.param(x, marks=() if x in KILLED_IN_CI else pytest.mark.slow) for x in methods_with_papers()]
)
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(arrays, folder, tmp_path, method):
    """SIGKILL at least five times for each method, 20 in all: within steps, checkpoints, scores and start-up."""
    chance, kills, attempt = random.Random(method), 0, 0
    data, options = (folder, {"workers": 1}) if method == "carl" else (arrays, {})
    while kills < 5:
        options = {**options, "seed": attempt, "epochs": 24}
        killed = tmp_path / f"killed-{attempt}"
        straight = go(tmp_path / f"straight-{attempt}", data, method, **options)  # first: children start warm then
        kills += kill_until_done(killed, data, method, options, chance)
        assert not differing(last(straight), last(killed))
        assert measured(Run(killed)) == measured(straight)
        assert (killed / "encoder.safetensors").read_bytes() == (straight.path / "encoder.safetensors").read_bytes()
        attempt += 1


LONG = ("pretrain", "--data", "digits", "--out", "run", "--epochs", "500", "--method", "carl", "--image-size", "8")


def started(tmp_path):
    return lambda: Run(tmp_path / "run").read_rows("metrics.jsonl")


@pytest.mark.process
def test_sigterm_saves_and_exits_with_0(tmp_path):
    process = start_command(tmp_path, *LONG)
    wait_for(started(tmp_path), process)
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    step = last(tmp_path / "run")["step"]
    assert re.search(rf"stopped at step {step} of \d+; infomax pretrain --out run --resume goes on from there", err)
    assert "Traceback" not in err


@pytest.mark.process
def test_slurm_requeues_before_its_time_is_up(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(f"#!/bin/sh\necho $* > {tmp_path}/told\n")
    (tmp_path / "bin/scontrol").chmod(0o755)
    process = start_command(tmp_path, *LONG, SLURM_JOB_ID="17", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    wait_for(started(tmp_path), process)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert (tmp_path / "told").read_text() == "requeue 17\n"
    assert last(tmp_path / "run")["step"] > 0


def prepared(out, data, method, **changes) -> Run:
    """A run folder that nothing was trained in yet."""
    changes = {"image_size": 8, "epochs": 4, "batch_size": 16, "precision": "64", "overrides": TOY[method], **changes}
    machine = {"device": "cpu", "workers": 0, "quiet": True}
    return prepare_run(pick(PretrainOptions, {"data": data, "method": method, "out": out, **machine, **changes})).run


@pytest.mark.process
@pytest.mark.parametrize("worlds", [(2, 1), (2, 4)])
@pytest.mark.parametrize("method", methods_with_papers())
@pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
def test_a_run_goes_on_with_other_numbers_of_ranks(arrays, tmp_path, method, worlds):
    """Mid-epoch, with the same global batches: as one rank up to rounding, and to the bit if done again."""
    straight = prepared(tmp_path / "straight", arrays, method)
    training.train(straight, LAUNCH)
    ends = []
    for name in "ab" if method == "mira" else "a":
        run = prepared(tmp_path / name, arrays, method)
        for leg, world in enumerate(worlds):
            on_ranks(world, train_until, run, 4 * (leg + 1) if leg < len(worlds) - 1 else None)
        ends.append(last(run))
    assert ends[0]["step"] == last(straight)["step"] == 12
    assert not differing(ends[0], ends[-1])
    for name, tensor in last(straight)["method"].items():
        torch.testing.assert_close(ends[0]["method"][name], tensor, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.process
@pytest.mark.parametrize("world", [3])
def test_many_ranks_go_on_with_the_same_bits(arrays, tmp_path, world):
    straight, run = (prepared(tmp_path / name, arrays, "carl", precision="32") for name in "ab")
    on_ranks(world, train_until, straight, None)
    on_ranks(world, train_until, run, 5)
    assert last(run)["step"] == 5
    on_ranks(world, train_until, run, None)
    assert not differing(last(straight), last(run))


def ranks_of(process) -> list[int]:
    """The processes that a launcher has spawned."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.process
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_ends_the_others_with_its_reason(tmp_path, victim):
    process = start_command(tmp_path, *LONG, "--devices", "2")
    wait_for(started(tmp_path), process)
    ranks = ranks_of(process)
    assert len(ranks) == 2
    os.kill(ranks[victim], signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert f"infomax: rank {victim} of 2 was killed by SIGKILL" in err
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]
    assert last(tmp_path / "run")["step"] > 0  # the other one saved what it had


@pytest.mark.process
def test_ranks_do_not_outlive_the_process_that_waits_for_them(tmp_path):
    process = start_command(tmp_path, *LONG, "--devices", "2")
    wait_for(started(tmp_path), process)
    ranks = ranks_of(process)
    process.kill()
    process.communicate()
    until = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in ranks):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert last(tmp_path / "run")["step"] > 0


@pytest.mark.process
def test_a_signal_to_the_whole_group_is_one_wish_to_stop(folder, tmp_path):
    """SLURM, systemd and torchrun send a signal to the command, its ranks and their workers at once, and again."""
    words = ("--data", str(folder), "--batch-size", "16", "--workers", "1", "--devices", "2")
    process = start_command(tmp_path, *LONG, *words)
    wait_for(started(tmp_path), process)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert f"stopped at step {last(tmp_path / 'run')['step']} of " in err


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_to_many_ranks_saves_and_ends_them_all(tmp_path, number, code):
    process = start_command(tmp_path, *LONG, "--devices", "2")
    wait_for(started(tmp_path), process)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert err.count("stopped at step") == 1
    assert "Traceback" not in err
    assert last(tmp_path / "run")["step"] > 0


@pytest.mark.process
def test_torchrun_starts_the_ranks(tmp_path):
    words = ("--epochs", "1", "--image-size", "8", "--method", "carl", "--precision", "64", "--data", "digits")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python")
    command = [*torchrun, sys.executable, "-c", CODE, "pretrain", *words, "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run is done") == 1
    assert Run(tmp_path / "run").config["launch"]["devices"] == 2
    options = {"method": "carl", "epochs": 1, "image_size": 8, "precision": "64", "quiet": True}
    alone = pretrain(data="digits", out=tmp_path / "alone", **options)
    for name, tensor in last(alone)["method"].items():
        torch.testing.assert_close(last(tmp_path / "run")["method"][name], tensor, rtol=1e-6, atol=1e-8, msg=name)


def test_srun_places_its_tasks(monkeypatch):
    place = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "20017"}
    for name, value in {**place, "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.delenv("MASTER_PORT")
    monkeypatch.setenv("MASTER_ADDR", "x")
    monkeypatch.delenv("MASTER_ADDR")
    assert rank_from_environment() == RankInfo(rank=5, world_size=8, local_rank=1)
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("10.0.0.7", "20017")


def test_a_torn_checkpoint_is_named_and_the_one_before_it_used(arrays, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(training, "SAVE_SHARE", 1e9)
    straight, run = (go(tmp_path / name, arrays) for name in ("straight", "torn"))
    files = checkpoints.list_checkpoints(run.path / "checkpoints")
    assert [file.name[:13] for file in files] == ["step-00000012", "step-00000011"]
    files[0].write_bytes(files[0].read_bytes()[:-100])
    (run.path / "checkpoints" / ".step-00000012-00000000.ckpt.partial").touch()  # killed while it wrote
    pretrain(out=run.path, resume=True, quiet=True)
    assert f"{files[0]} is torn or damaged" in capsys.readouterr().err
    assert not differing(last(straight), last(run))
    assert sorted(file.suffix for file in (run.path / "checkpoints").iterdir()) == [".ckpt", ".ckpt", ".damaged"]
    for file in checkpoints.list_checkpoints(run.path / "checkpoints"):
        file.write_bytes(b"")
    for _ in range(2):  # the second time too: nothing is trained from step 0 without a word
        with pytest.raises(ValueError, match="none of the 3 checkpoints .* can be read; remove them .* --overwrite"):
            pretrain(out=run.path, resume=True, quiet=True)
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(ValueError, match="trained for 12 steps, but its checkpoints are gone; --overwrite"):
        pretrain(out=run.path, resume=True, quiet=True)


ALLOCATION = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")


@pytest.mark.parametrize(
    ("owner", "function", "failure", "raised"),
    [
        (Path, "read_bytes", OSError(5, "Input/output error"), OSError),
        (Path, "read_bytes", MemoryError(), MachineError),
        (torch, "load", ALLOCATION, MachineError),
    ],
)
def test_a_checkpoint_that_memory_or_the_disk_could_not_read_stays(
    arrays, tmp_path, monkeypatch, owner, function, failure, raised
):
    """Neither says anything about the checkpoint."""
    run = go(tmp_path / "run", arrays, epochs=1)
    before = sorted(file.name for file in (run.path / "checkpoints").iterdir())

    def failing(*_, **__):
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, failing)
        with pytest.raises(raised):
            pretrain(out=run.path, resume=True, quiet=True)
    assert sorted(file.name for file in (run.path / "checkpoints").iterdir()) == before


def test_who_only_reads_a_run_renames_nothing_in_it(arrays, tmp_path):
    run = go(tmp_path / "run", arrays, epochs=1)
    (file,) = checkpoints.list_checkpoints(run.path / "checkpoints")
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 1 checkpoints"):
        load_trained_method(run)
    assert file.exists()


def test_a_clock_that_jumps_changes_nothing(arrays, tmp_path, monkeypatch):
    straight = go(tmp_path / "straight", arrays)
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(training, "SAVE_SHARE", 1e9)
    now = iter(range(10**9, 0, -(10**5)))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    jumping = go(tmp_path / "jumping", arrays)
    assert not differing(last(straight), last(jumping))
    files = checkpoints.list_checkpoints(jumping.path / "checkpoints")
    os.utime(files[0], (1, 1))  # written when the clock was wrong
    assert checkpoints.newest_readable(jumping.path / "checkpoints").name.startswith("step-00000012")
    assert all(row["seconds"] >= 0 for row in jumping.read_rows("metrics.jsonl") if "loss" in row)


def on_a_small_disk(out, data, result):
    """Files of more than 100 kB cannot be written, which the kernel refuses as it does on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    training.SAVE_EVERY, training.SAVE_SHARE = 0.0, 1e9
    sys.stderr = result.with_name("err").open("w")
    try:
        go(out, data)
    except OSError as error:
        result.write_text(str(error))


@pytest.mark.process
def test_a_full_disk_costs_no_training_before_its_end(arrays, tmp_path):
    process = mp.get_context("fork").Process(target=on_a_small_disk, args=(tmp_path / "run", arrays, tmp_path / "said"))
    process.start()
    process.join(timeout=PATIENCE)
    message = (tmp_path / "said").read_text()
    assert "File too large" in message
    assert "cannot save, and trains on" in (tmp_path / "err").read_text()
    assert len([row for row in Run(tmp_path / "run").read_rows("metrics.jsonl") if "loss" in row]) == 4
    assert not list(tmp_path.rglob("*.partial"))
    straight = go(tmp_path / "straight", arrays)
    pretrain(out=tmp_path / "run", resume=True, quiet=True)
    assert not differing(last(straight), last(tmp_path / "run"))


def test_what_cannot_be_saved_in_its_place_is_saved_elsewhere(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    straight, run = go(tmp_path / "straight", arrays), prepared(tmp_path / "run", arrays, "mira", precision="32")
    (run.path / "checkpoints").write_text("in the way")
    with pytest.raises(OSError, match=r"moved to .*/run/checkpoints, (\S+) lets --resume go on") as failure:
        training.train(run, LAUNCH)
    (run.path / "checkpoints").unlink()
    (run.path / "checkpoints").mkdir()
    file = Path(re.search(r"checkpoints, (\S+) lets", str(failure.value))[1])
    file.rename(run.path / "checkpoints" / file.name)
    pretrain(out=run.path, resume=True, quiet=True)
    assert last(run)["step"] == 12
    assert not differing(last(straight), last(run))


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    write_atomic(tmp_path / "x", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))  # as a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(tmp_path / "x", b"new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x"]


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a file system that refuses everyone")
def test_a_folder_that_cannot_be_written_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["infomax", "pretrain", "--data", "digits", "--out", "/sys/infomax"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("infomax: [Errno")


@pytest.mark.process
def test_a_data_set_that_vanishes_loses_nothing(folder, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for file in folder.rglob("*.png"):
        (images / file.name).write_bytes(file.read_bytes())
    words = ("--data", "images", "--batch-size", "16", "--workers", "1", "--keep-decoded", "off")
    process = start_command(tmp_path, *LONG, *words)
    wait_for(started(tmp_path), process)
    images.rename(tmp_path / "elsewhere")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert re.search(r"\d+ of 48 images cannot be read so far|cannot be read as an image", err.strip().splitlines()[-1])
    step = last(tmp_path / "run")["step"]
    assert step > 0
    (tmp_path / "elsewhere").rename(images)
    process = start_command(tmp_path, "pretrain", "--out", "run", "--resume")
    wait_for(lambda: started(tmp_path)()[-1]["step"] > step, process)
    process.kill()
    process.communicate()


def test_keeping_decoded_images_changes_no_result(tmp_path, capsys):
    """Weights and metrics are the same with all images kept, with some, and without; so they are after resuming."""
    images, rng = tmp_path / "images", np.random.default_rng(0)
    images.mkdir()
    for i in range(40):
        pixels = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        pixels.resize((64 + i, 80 - i), 3).save(images / f"{i}.jpg", quality=90)
    without = go(tmp_path / "off", images, keep_decoded="off")
    for amount in ("auto", "0.0001"):
        kept = go(tmp_path / amount, images, keep_decoded=amount, workers=2 if amount == "auto" else 0)
        assert not differing(last(without), last(kept))
        assert measured(kept) == measured(without)
    assert "of 40 decoded images, as many as fit into 0 MB (--keep-decoded)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--keep-decoded some: want auto, off"):
        go(tmp_path / "wrong", images, keep_decoded="some")
    assert not (tmp_path / "wrong").exists()


def test_the_images_of_online_evaluation_are_read_once(folder, tmp_path, monkeypatch):
    """Scores are those without keeping; each image is opened once for all four evaluations."""
    opened = []
    open_image = FileImages.open
    monkeypatch.setattr(FileImages, "open", lambda self, *args: opened.append(args[0]) or open_image(self, *args))
    runs, counts = [], []
    for keep in ("off", "auto"):
        opened.clear()
        runs.append(go(tmp_path / keep, folder, keep_decoded=keep))
        counts.append(len(opened))
    assert measured(runs[0]) == measured(runs[1])
    assert sum("knn_top1" in row for row in measured(runs[0])) == 4
    splits = labelled_splits(open_source(str(folder)))
    assert splits is not None
    labelled, test = (len(part.index) for part in splits)
    # Those of the untrained encoder, whose statistics are of the labelled ones, and of the raw pixels are among them.
    assert counts[0] - counts[1] == 5 * (labelled + test) + labelled


def test_images_in_memory_are_not_kept_again_and_it_is_said_if_asked_for(arrays, tmp_path, capsys):
    go(tmp_path / "a", arrays, epochs=1)
    assert "--keep-decoded" not in capsys.readouterr().err
    go(tmp_path / "b", arrays, epochs=1, keep_decoded="0.1")
    assert "--keep-decoded 0.1: decoded image files are kept; these are in memory already" in capsys.readouterr().err


def test_a_damaged_image_is_skipped_counted_and_named(folder, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for file in folder.rglob("*.png"):
        (images / file.name).write_bytes(file.read_bytes())
    (images / "07.png").write_bytes(b"torn")
    run = go(tmp_path / "run", images, skip_unreadable=0.03, workers=1)
    assert run.read_rows("unreadable.jsonl") == [
        {"image": "07.png", "reason": run.read_rows("unreadable.jsonl")[0]["reason"]}
    ]
    assert capsys.readouterr().err.count("skipped:") == 1
    again = go(tmp_path / "again", images, skip_unreadable=0.03)
    assert not differing(last(run), last(again))  # whatever the number of workers
    (images / "09.png").unlink()
    (images / "09.png").mkdir()
    (images / "11.png").write_bytes(b"")
    with pytest.raises(ValueError, match="of 47 images cannot be read so far.*--skip-unreadable, 0.03, is"):
        go(tmp_path / "more", images, skip_unreadable=0.03)
    with pytest.raises(ValueError, match="1 of 47 images cannot be read so far"):
        go(tmp_path / "none", images, skip_unreadable=0)


@pytest.mark.process
def test_a_worker_that_is_killed_is_explained_and_loses_nothing(folder, tmp_path, monkeypatch):
    train_step = training.train_step

    def slowly(event):  # so that a worker which looks whether to end is sure to be killed with the lock in its hands
        with event._cond:
            time.sleep(0.5)
            return False

    monkeypatch.setattr(multiprocessing.synchronize.Event, "is_set", slowly)

    def kill_workers(engine, microbatches, **owned):
        if engine.steps_done == 5:
            for worker in mp.active_children():
                os.kill(worker.pid, signal.SIGKILL)
        return train_step(engine, microbatches, **owned)

    monkeypatch.setattr(training, "train_step", kill_workers)
    with pytest.raises(MachineError, match=r"lower --workers .*Step \d+ is saved, and --resume goes on"):
        go(tmp_path / "run", folder, workers=2, epochs=50, keep_decoded="off")  # workers go on decoding
    assert last(tmp_path / "run")["step"] >= 5


def with_little_memory(out, data, result):
    go(out.with_name("small"), data, epochs=1)  # what is loaded at the first step is there before the limit
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000, resource.RLIM_INFINITY))
    try:
        go(out, data, image_size=384, batch_size=48)  # far more than a process keeps free of earlier tests
    except MachineError as error:
        result.write_text(str(error))


@pytest.mark.process
def test_too_little_memory_says_which_options_to_lower(arrays, tmp_path):
    target = (tmp_path / "run", arrays, tmp_path / "said")
    process = mp.get_context("fork").Process(target=with_little_memory, args=target)
    process.start()
    process.join(timeout=PATIENCE)
    message = (tmp_path / "said").read_text()
    assert message.startswith("out of memory; lower --micro-batch-size")
    assert "--image-size" in message


def poisoned(monkeypatch, at):
    """Views of one step that are no numbers."""
    views = Engine.views

    def poisoned_views(self, batch):
        made_views = views(self, batch)
        return (
            Views([view * np.nan for view in made_views.global_crops], made_views.local_crops)
            if self.steps_done in at
            else made_views
        )

    monkeypatch.setattr(Engine, "views", poisoned_views)


@pytest.mark.parametrize("method", methods_with_papers())
def test_steps_that_are_no_numbers_are_skipped_up_to_a_limit(arrays, tmp_path, monkeypatch, method, capsys):
    poisoned(monkeypatch, {2, 7})
    run = go(tmp_path / "run", arrays, method, skip_nonfinite=2)
    assert "skipped, 2 of at most 2" in capsys.readouterr().err
    assert last(run)["skipped"] == 2
    assert not [n for n, x in last(run)["method"].items() if not x.isfinite().all()]
    with pytest.raises(FloatingPointError, match="at step 8"):
        go(tmp_path / "one", arrays, method, skip_nonfinite=1)


@pytest.mark.parametrize("micro_batch_size", [None, 4])
@pytest.mark.parametrize("method", methods_with_papers())
def test_a_failed_step_is_kept_and_replayed(arrays, tmp_path, monkeypatch, capsys, method, micro_batch_size):
    with pytest.raises(FloatingPointError, match=r"infomax replay (\S+)") as failure:
        go(tmp_path / "run", arrays, method, learning_rate=1e30, micro_batch_size=micro_batch_size)
    folder = Path(re.search(r"infomax replay (\S+)", str(failure.value))[1])
    assert folder.parent == tmp_path / "run" / "nonfinite"
    report = json.loads((folder / "report.json").read_text())
    assert report["command"] == f"infomax replay {folder}"
    assert len((folder / "names-0-of-1.txt").read_text().splitlines()) == 16
    result = replay(folder, device="cpu")
    assert result.reason == report["reason"]
    assert result.error or not np.isfinite(result.loss) or result.gradients
    monkeypatch.setattr(sys, "argv", ["infomax", "replay", str(folder), "--device", "cpu"])
    main()
    printed = capsys.readouterr().out
    assert "first layer to make infinite or NaN" in printed
    usual = "a new run with a smaller --learning-rate is the usual cure; infomax pretrain --out "
    assert printed.splitlines()[-1].startswith(usual)


def test_replay_names_the_layer(arrays, tmp_path, monkeypatch):
    poisoned(monkeypatch, {1})
    with pytest.raises(FloatingPointError):
        go(tmp_path / "run", arrays, "carl")
    (folder,) = (tmp_path / "run" / "nonfinite").iterdir()
    assert replay(folder, device="cpu").first_layer is None  # the views were no numbers before any layer saw them
    state = torch.load(folder / "state.ckpt", weights_only=True)
    state["method"]["projector.0.weight"][0, 0] = torch.inf
    torch.save(state, folder / "state.ckpt")
    monkeypatch.undo()
    result = replay(folder, device="cpu")
    assert result.first_layer == "projector.0"
    assert result.parameters == ("projector.0.weight",)


def test_deterministic_mode_is_on_for_the_run_alone(arrays, tmp_path, monkeypatch):
    train_step, seen = training.train_step, []

    def note_mode(*args, **owned):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return train_step(*args, **owned)

    monkeypatch.setattr(training, "train_step", note_mode)
    runs = [go(tmp_path / name, arrays, deterministic=True) for name in "ab"]
    assert seen == [True] * 24
    assert not torch.are_deterministic_algorithms_enabled()
    assert not differing(*map(last, runs))


@pytest.mark.process
def test_what_is_compiled_are_the_steps(tmp_path, monkeypatch):
    """Not the scoring, whose batches are of other sizes; and what is saved is as without, but for rounding."""
    compiled, sizes = torch.compile, set()

    def counting(graph, inputs):
        batch = [x for x in inputs if getattr(x, "shape", ())[1:] == (3, 12, 12)]
        return lambda *given: (sizes.update(len(x) for x in batch), graph(*given))[1]

    monkeypatch.setattr(torch, "compile", lambda model, **how: compiled(model, backend=counting, **how))
    torch.compiler.reset()
    words = {"data": "digits", "method": "mira", "epochs": 1, "device": "cpu", "quiet": True, "precision": "64"}
    plain, fast = (pretrain(out=tmp_path / str(on), compile=on, **words) for on in (False, True))
    assert sizes == {128}
    assert "knn_top1" in fast.read_rows("metrics.jsonl")[-2]  # the last one says what was gained
    states = [last(run)["method"] for run in (plain, fast)]
    assert states[0].keys() == states[1].keys()
    for name, weight in states[0].items():
        torch.testing.assert_close(states[1][name], weight, rtol=1e-6, atol=1e-8, msg=name)


def test_a_compiler_that_fails_is_told_of(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch._dynamo.exc.BackendCompilerFailed(print, RuntimeError("no compiler"), [])

    monkeypatch.setattr(Engine, "backward", fail)
    with pytest.raises(MachineError, match="torch.compile failed: leave out --compile"):
        pretrain(data="digits", method="mira", epochs=1, device="cpu", quiet=True, compile=True, out=tmp_path / "run")


def test_a_finished_training_leaves_nothing_behind(tmp_path, monkeypatch):
    """A cycle of references would keep the ranks' threads until the process ends, which then may crash."""
    engines, begin = [], Engine.__init__
    monkeypatch.setattr(
        Engine, "__init__", lambda self, *a, **k: (engines.append(weakref.ref(self)), begin(self, *a, **k))[1]
    )
    gc.collect()
    gc.disable()
    try:
        pretrain(data="digits", method="carl", epochs=1, device="cpu", quiet=True, out=tmp_path / "run")
        assert [engine() for engine in engines] == [None]
    finally:
        gc.enable()


def test_what_is_compiled_is_not_deterministic(tmp_path):
    with pytest.raises(ValueError, match="--compile .* cannot be --deterministic: leave out one of them"):
        pretrain(data="digits", compile=True, deterministic=True, device="cpu", out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_several_ranks_are_not_compiled(tmp_path):
    with pytest.raises(ValueError, match="--compile is for one device, not 2"):
        pretrain(data="digits", devices=2, compile=True, device="cpu", out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_users_random_numbers_are_left_alone(arrays, tmp_path):
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    go(tmp_path / "run", arrays, epochs=1)
    assert torch.equal(torch.rand(2), want)


def test_resume_says_where_it_goes_on_and_starts_what_is_not_there(arrays, tmp_path, capsys):
    run = prepared(tmp_path / "run", arrays, "carl")
    train_until(run, 4)
    capsys.readouterr()
    pretrain(out=run.path, resume=True, workers=0)
    err = capsys.readouterr().err
    assert "going on from step 4 of 12, epoch 1.33 of 4" in err
    pretrain(out=run.path, resume=True)
    assert f"{run.path} is finished" in capsys.readouterr().err
    seconds = [row["seconds"] for row in run.read_rows("metrics.jsonl") if "loss" in row]
    assert seconds == sorted(seconds)
    assert len(checkpoints.list_checkpoints(run.path / "checkpoints")) <= 2
    assert go(tmp_path / "new", arrays, "carl", resume=True).read_rows("metrics.jsonl")
    with pytest.raises(ValueError, match="not a run folder"):
        pretrain(out=tmp_path / "nothing", resume=True)


def test_a_bar_shows_the_most_important_metrics_first():
    row = {"step": 7, "epoch": 0, "loss": 4.61421, "entropy": 0.25, "learning_rate": 0.1, "images_per_second": 812.3}
    assert shown_values(row | {"waiting": 0.004}) == ["loss 4.614", "812 images/s", "entropy 0.25"]
    row |= {"waiting": 0.25, "knn_top1": 0.8314, "linear_top1": 0.9, "linear_top5": 1.0}
    shown = ["loss 4.614", "812 images/s", "k-NN 83.1%", "linear 90.0%", "25% waiting", "entropy 0.25"]
    assert shown_values(row) == shown
