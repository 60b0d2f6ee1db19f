"""What holds when a run saves itself after a failure of the machine."""

import json
import multiprocessing
import shutil
import tempfile
import threading

import numpy as np
import pytest
from PIL import Image
from tensorboard.summary.writer.event_file_writer import _AsyncWriter

from infomax.runtime import checkpoints
from infomax.runtime.failures import MachineError
from infomax.runtime.resumable_loop import ResumableLoop
from infomax.training import loop, rescue
from infomax.training.engine import Engine
from infomax.training.loggers.tensorboard import silence_writer_threads
from infomax.training.loop import TrainingLoop
from infomax.training.pretrain import pretrain
from interrupted_runs import differing


def test_workers_have_ended_before_the_rescue(tmp_path, monkeypatch):
    """Out of memory, the checkpoint is written with the memory that the workers held."""
    (tmp_path / "images").mkdir()
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    backward, rescue, workers = Engine.backward, TrainingLoop.rescue, []

    def failing_backward(engine, *arguments, **options):
        workers.append(len(multiprocessing.active_children()))
        if len(workers) == 3:
            raise MemoryError("none left")
        return backward(engine, *arguments, **options)

    def counting_rescue(loop):
        workers.append(len(multiprocessing.active_children()))
        rescue(loop)

    monkeypatch.setattr(Engine, "backward", failing_backward)
    monkeypatch.setattr(TrainingLoop, "rescue", counting_rescue)
    options = {"method": "carl", "recipe": "small", "image_size": 8, "batch_size": 8, "epochs": 2, "workers": 1}
    with pytest.raises(MachineError, match="Step 2 is saved"):
        pretrain(data=tmp_path / "images", out=tmp_path / "run", device="cpu", quiet=True, **options)
    assert workers == [1, 1, 1, 0]


TOY = {
    "data": "digits",
    "method": "carl",
    "image_size": 8,
    "batch_size": 256,
    "epochs": 4,
    "overrides": ["seed=3"],
    "quiet": True,
}


def after_step(monkeypatch, number, act):
    """Lets something happen after a step of the training."""
    step_done = ResumableLoop.step_done

    def acting(loop):
        if loop.done + 1 == number:
            act()
        step_done(loop)

    monkeypatch.setattr(ResumableLoop, "step_done", acting)


def state_of(folder):
    return checkpoints.load(checkpoints.newest_readable(folder / "checkpoints"))


@pytest.mark.parametrize("happens", ["removed", "moved", "replaced"])
@pytest.mark.parametrize("saves", [True, False])
def test_a_folder_that_is_gone_ends_the_run_with_one_rescue_copy(tmp_path, monkeypatch, happens, saves):
    """At the next save or the next row of metrics; nothing is written into what is now in its place."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    straight, out = pretrain(out=tmp_path / "straight", **TOY), tmp_path / "run"

    def act():
        out.rename(tmp_path / "moved")
        if happens == "removed":
            shutil.rmtree(tmp_path / "moved")
        if happens == "replaced":
            shutil.copytree(straight.path, out)

    with monkeypatch.context() as patch:
        if saves:
            patch.setattr(loop, "SAVE_EVERY", 0.0)
            patch.setattr(loop, "SAVE_SHARE", 1e9)
        after_step(patch, 3, act)
        with pytest.raises(OSError, match="run was removed, moved or replaced .*; step .* is saved: infomax") as error:
            pretrain(out=out, **TOY)
    (copy,) = (tmp_path / "temporary").iterdir()
    assert f"--out {copy} --resume goes on" in str(error.value)
    if happens == "replaced":
        assert (out / "metrics.jsonl").read_bytes()[:99] == (straight.path / "metrics.jsonl").read_bytes()[:99]
        assert not differing(state_of(out), state_of(straight.path))
    else:
        assert not out.exists()
    pretrain(out=copy, resume=True, quiet=True)
    assert not differing(state_of(copy), state_of(straight.path))


def test_a_full_disk_leaves_one_rescue_copy_however_often_it_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    out = tmp_path / "run"
    after_step(monkeypatch, 1, lambda: (out / "checkpoints").write_text("in the way"))
    for options in ({}, {"resume": True}):
        with pytest.raises(OSError, match="lets --resume go on"):
            pretrain(out=out, **TOY, **options)
        (out / "checkpoints").unlink()
    assert len(list((tmp_path / "temporary").rglob("*.ckpt"))) == 1


def test_rescue_copies_of_two_runs_in_one_place_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = ({"started": f"2026-01-0{day}T00:00:00+00:00"} for day in (1, 2))
    earlier = rescue.save_elsewhere(tmp_path / "run", first, {"step": 9})
    later = rescue.save_elsewhere(tmp_path / "run", second, {"step": 4})
    assert checkpoints.newest_readable(later.parent) == later
    assert checkpoints.newest_readable(earlier.parent) == earlier
    assert json.loads((earlier.parent.parent / "config.json").read_text()) == first


def test_a_rescue_folder_of_somebody_else_is_not_written(tmp_path, monkeypatch):
    """In the temporary folder anybody may make a folder or a link of that name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "theirs").mkdir(mode=0o700)
    rescue.rescue_folder(tmp_path / "run", {}).symlink_to(tmp_path / "theirs")
    file = rescue.save_elsewhere(tmp_path / "run", {}, {"step": 1})
    assert file.is_file()
    assert not list((tmp_path / "theirs").iterdir())


class TornWriter:
    """A file of events that cannot be written, as in a folder that was removed."""

    def write(self, _):
        raise FileNotFoundError("gone")

    flush = close = lambda self: None


def test_tensorboards_thread_prints_no_traceback_of_its_own(monkeypatch, capsys):
    hook = threading.excepthook
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    try:
        silence_writer_threads()
        silence_writer_threads()
        writer = _AsyncWriter(TornWriter(), flush_secs=0)
        writer.write(b"1")
        writer._worker.join()
        with pytest.raises(FileNotFoundError):  # which is the line that a run prints
            writer.write(b"2")
        assert not seen
        other = threading.Thread(target=lambda: 1 / 0)
        other.start()
        other.join()
        assert [failure.exc_type for failure in seen] == [ZeroDivisionError]
    finally:
        threading.excepthook = hook
