"""Decoded images that are kept: the same batches, no file read twice, one memory for all processes, and no more."""

import multiprocessing
import os
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from infomax.data.augmentation.views import View, ViewSet, byol
from infomax.data.loading.keep_decoded import memory_to_keep, parse_keep_decoded
from infomax.data.loading.kept_images import KeptImages, table_size
from infomax.data.loading.training import training_batches
from infomax.data.loading.workers import TrainingImages
from infomax.data.sources.location import open_source
from started import keep_one

VIEWS = ViewSet(global_crops=byol(16), local_crops=(View(size=8, scale=(0.05, 0.14), bicubic=False),))
SIZES = ((160, 120), (90, 140), (33, 47), (120, 120), (64, 400), (200, 130), (31, 31), (128, 96))
ENOUGH = 10**7  # bytes


@pytest.fixture
def folder(tmp_path):
    """Returns a folder of JPEGs and PNGs of several sizes, some of them turned or gray, one of them damaged."""
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height), 3)
        exif = Image.Exif()
        exif[0x0112] = 1 + number
        options = {"exif": exif, "quality": 90, "progressive": number % 2 == 0}
        image = image.convert("L") if number == 3 else image
        image.save(tmp_path / f"{number}.{'png' if number == 5 else 'jpg'}", **(options if number != 5 else {}))
    (tmp_path / "7.jpg").write_bytes(b"\xff\xd8\xff damaged")
    return tmp_path


def batches_of(folder, *, keep_bytes, steps=range(16), workers=0, batch_size=2, **options):
    images = open_source(str(folder)).train
    options = {"seed": 3, "steps": steps, "workers": workers, "batch_size": batch_size, **options}
    return training_batches(images, VIEWS, keep_bytes=keep_bytes, **options)


def assert_same(batches, others):
    for a, b in zip(batches, others, strict=True):
        assert a.epoch == b.epoch
        assert a.index.tolist() == b.index.tolist()
        assert {key: str(error) for key, error in a.unreadable.items()} == {
            key: str(error) for key, error in b.unreadable.items()
        }
        assert all(map(torch.equal, a.images, b.images))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("room", ["for all", "for some"])
def test_kept_images_give_the_same_batches(folder, workers, room, monkeypatch):
    monkeypatch.setattr("infomax.data.loading.kept_images.SAID_FROM", 0)
    size = ENOUGH if room == "for all" else table_size(len(SIZES), max(1, workers)) + 60_000
    lines = []
    expected = list(batches_of(folder, keep_bytes=0))
    assert_same(expected, batches_of(folder, keep_bytes=size, workers=workers, say=lines.append))
    (line,) = lines
    assert ("keeps all 8 decoded images in memory" in line) == (room == "for all")
    assert (" of 8 decoded images, as many as fit into 0 MB" in line) == (room == "for some")


@pytest.mark.parametrize("start", [1, 4, 6, 11])
def test_a_resumed_run_keeps_images_too_and_microbatches_are_as_without(folder, start):
    options = {"steps": range(start, 16), "micro_batch_size": 1, "batch_size": 2}
    assert_same(batches_of(folder, keep_bytes=0, **options), batches_of(folder, keep_bytes=ENOUGH, **options))


def test_images_that_an_epoch_leaves_over_are_kept_later(folder):
    options = {"batch_size": 3, "steps": range(12)}  # 8 images: two are left over in each epoch
    assert_same(batches_of(folder, keep_bytes=0, **options), batches_of(folder, keep_bytes=ENOUGH, **options))


@pytest.mark.parametrize("workers", [0, 2])
def test_no_file_is_read_after_the_first_epoch(folder, workers):
    """The files are deleted after the first epoch, also those that later epochs need at another size."""
    (folder / "7.jpg").unlink()
    options = {"batch_size": 7, "steps": range(4), "workers": workers}
    expected = list(batches_of(folder, keep_bytes=0, **options))
    batches = batches_of(folder, keep_bytes=ENOUGH, **options)
    first = next(batches)
    if workers == 0:
        for file in folder.iterdir():
            file.unlink()
    rest = []
    for batch in batches:
        if not rest:  # the workers have ended
            for file in folder.iterdir():
                file.unlink()
        rest.append(batch)
    assert_same(expected, [first, *rest])
    assert not list(folder.iterdir())


def test_a_rank_goes_on_with_workers_until_it_has_seen_almost_all_images(folder, monkeypatch):
    """A rank of two reads half of the images in an epoch. It has the same batches as without keeping."""
    (folder / "7.jpg").unlink()
    made_here = []
    getitem = TrainingImages.__getitem__
    monkeypatch.setattr(TrainingImages, "__getitem__", lambda self, key: made_here.append(key[0]) or getitem(self, key))
    options = {"batch_size": 6, "steps": range(12), "world_size": 2, "rank": 1}
    expected = list(batches_of(folder, keep_bytes=0, **options))
    seen, first = set(), 0
    while len(seen) < 7:
        seen.update(expected[first].index.tolist())
        first += 1
    assert first > 1
    made_here.clear()
    assert_same(expected, batches_of(folder, keep_bytes=ENOUGH, workers=1, **options))
    assert made_here == list(range(first, 12))


def test_memory_that_the_system_refuses_is_said_and_done_without(folder):
    lines = []
    assert_same(batches_of(folder, keep_bytes=0), batches_of(folder, keep_bytes=2**62, say=lines.append))
    (line,) = lines
    assert "keeps no decoded images, as the system refuses the memory: " in line


def test_nothing_is_kept_in_a_single_epoch(folder, monkeypatch):
    monkeypatch.setattr("infomax.data.loading.training.KeptImages", None)
    assert len(list(batches_of(folder, keep_bytes=ENOUGH, steps=range(4)))) == 4
    with pytest.raises(TypeError):
        next(iter(batches_of(folder, keep_bytes=ENOUGH, steps=range(5))))


def pixels_of(kept: KeptImages, row: int) -> np.ndarray:
    place = kept.find(np.array([row]), np.array([2]))
    assert place.is_kept.all()
    start, height, width = int(place.offset[0]), int(place.height[0]), int(place.width[0])
    return kept.pixels[start : start + 3 * height * width].reshape(height, width, 3)


@pytest.mark.process
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_one_process_keeps_another_sees(method):
    kept = KeptImages(3, table_size(3, 2) + 1000, 2)
    context = multiprocessing.get_context(method)
    keep_one(kept, 0, 5, 0)
    process = context.Process(target=keep_one, args=(kept, 2, 9, 1))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (pixels_of(kept, 2) == 9).all()
    assert (pixels_of(kept, 0) == 5).all()
    assert kept.number_of_images() == 2


SCRIPT = """
import multiprocessing, sys
from infomax.data.augmentation.views import ViewSet, byol
from infomax.data.loading.training import training_batches
from infomax.data.sources.location import open_source
multiprocessing.set_start_method(sys.argv[2])
images = open_source(sys.argv[1]).train
views = ViewSet(global_crops=byol(16))
steps = range(10**9 if sys.argv[3] == "endless" else 16)
room = 10**7 if sys.argv[3] == "kept" else 0
batches = training_batches(images, views, batch_size=2, seed=3, steps=steps, workers=1, keep_bytes=room)
for batch in batches:
    print(batch.epoch, *(int(x.sum()) for x in batch.images), *multiprocessing.active_children(), flush=True)
"""


@pytest.mark.process
def test_workers_of_every_kind_give_the_same_batches(folder):
    """Python 3.14 starts workers by a server, whose children have another parent than the training process."""
    printed = set()
    for method in ("fork", "spawn", "forkserver"):
        command = [sys.executable, "-c", SCRIPT, str(folder), method, "kept"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        printed.add(tuple(line.split(" <")[0] for line in lines))
        assert "<" in lines[0]  # a worker
        assert "<" not in lines[-1]  # none any more
    assert len(printed) == 1


@pytest.mark.process
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_with_a_training_process_that_is_killed(folder, method):
    command = [sys.executable, "-c", SCRIPT, str(folder), method, "endless"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        worker = int(re.search(r"pid=(\d+)", line)[1])
        process.kill()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"worker {worker} lives on")


def test_writers_take_no_more_than_their_parts():
    kept = KeptImages(10, table_size(10, 2) + 512, 2)  # 128 bytes for each image: two fit into a part
    for row in range(3):
        assert not kept.is_full
        keep_one(kept, row, row, 0)
    assert kept.is_full
    assert kept.number_of_images() == 2
    keep_one(kept, 3, 3, None)  # the other part, now that nobody else writes
    keep_one(kept, 4, 4, 1)
    keep_one(kept, 4, 7, 1)  # it is kept already
    assert KeptImages(10, table_size(10, 2) + 512, 2).describe() is None
    assert [int(pixels_of(kept, row)[0, 0, 0]) for row in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert kept.describe() == "keeps 4 of 10 decoded images, as many as fit into 0 MB (--keep-decoded)"


@pytest.mark.parametrize("text", ["none", "-1", "0", "nan", "inf", ""])
def test_a_wrong_amount_is_named(text):
    with pytest.raises(ValueError, match=f"^--keep-decoded {text}: want auto, off, or a number of GB above 0, as 4$"):
        parse_keep_decoded(text)


def test_more_than_the_machine_has_is_refused():
    with pytest.raises(ValueError, match=r"^--keep-decoded 1e9: the memory of this machine is [0-9.]+ GB$"):
        parse_keep_decoded("1e9")


def test_ranks_of_a_machine_share_the_memory():
    assert memory_to_keep("0.5", 2) == 250_000_000
    assert memory_to_keep("off", 1) == 0
    assert 0 < memory_to_keep("auto", 2) < memory_to_keep("auto", 1) * 0.75


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="Linux has this folder")
def test_no_file_names_the_memory(folder):
    before = set(os.listdir("/dev/shm"))
    kept = KeptImages(10, 100_000, 2)
    keep_one(kept, 0, 1, None)
    assert set(os.listdir("/dev/shm")) == before


def test_options_of_views_decide_what_is_kept(folder):
    """Crops of large views need the full size, and those of small ones a part of it: both are as without keeping."""
    (folder / "7.jpg").unlink()
    for side in (4, 40, 150):
        views = ViewSet(global_crops=tuple(replace(view, size=side) for view in byol(side)))
        images = open_source(str(folder)).train
        options = {"batch_size": 7, "seed": 0, "steps": range(5), "workers": 0}
        assert_same(
            training_batches(images, views, **options), training_batches(images, views, keep_bytes=ENOUGH, **options)
        )
