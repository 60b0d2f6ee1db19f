"""Batches: every image once, the same views on both roads, and the same whatever the number of workers."""

from contextlib import nullcontext
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import Preprocessing, ViewSet, byol, dino
from infomax.data.images import ArrayImages
from infomax.data.loading import training as loaders
from infomax.data.loading.evaluation import evaluation_batches
from infomax.data.loading.training import BatchSchedule, training_batches
from infomax.data.loading.workers import Batch
from infomax.data.preview import draw_views
from infomax.data.sources.location import open_source

VIEWS = ViewSet(global_crops=byol(16))


@pytest.fixture
def arrays() -> ArrayImages:
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.interpolate(torch.rand(11, 3, 6, 6, generator=generator), 24, mode="bicubic").clamp(0, 1)
    return ArrayImages((x * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy(), None, [])


@pytest.fixture
def folder(arrays, tmp_path):
    for i in range(len(arrays)):
        arrays.open(i).save(tmp_path / f"{i:02d}.png")
    return open_source(str(tmp_path)).train


def epoch(images, number, *, batch_size, seed=0, workers=None):
    count = len(images) // batch_size
    steps = range(number * count, (number + 1) * count)
    return list(training_batches(images, VIEWS, batch_size=batch_size, seed=seed, steps=steps, workers=workers))


def test_every_image_once_an_epoch_in_an_order_of_its_own(arrays):
    epochs = [epoch(arrays, number, batch_size=5, seed=3) for number in (0, 1, 0)]
    assert [len(batches) for batches in epochs] == [2, 2, 2]
    assert [batches[0].epoch for batches in epochs] == [0, 1, 0]
    orders = [np.concatenate([batch.index for batch in batches]) for batches in epochs]
    assert all(len(set(order)) == 10 for order in orders)
    assert list(orders[0]) == list(orders[2]) != list(orders[1])
    assert list(epoch(arrays, 0, batch_size=5, seed=4)[0].index) != list(orders[0][:5])


@pytest.mark.parametrize(("world", "part"), [(1, None), (2, None), (3, None), (4, None), (1, 4), (2, 2), (3, 4)])
def test_ranks_and_parts_share_each_step_in_its_order(world, part):
    """Whatever the number of ranks and the step to start from, step by step the same images in the same order."""
    whole = [list(index) for _, index in BatchSchedule(29, 12, seed=1, start=0, stop=6, part=12, rank=0, world=1)]
    assert [len(step) for step in whole] == [12] * 6
    for start in (0, 3):
        ranks = [
            [
                index
                for _, index in BatchSchedule(29, 12, seed=1, start=start, stop=6, part=part or 12, rank=r, world=world)
            ]
            for r in range(world)
        ]
        a_step = len(ranks[0]) // (6 - start)
        for step in range(start, 6):
            mine = [rank[(step - start) * a_step : (step - start + 1) * a_step] for rank in ranks]
            assert [int(i) for rank in mine for index in rank for i in index] == whole[step]
            assert part is None or all(len(index) == part for rank in mine for index in rank)


def test_files_and_arrays_give_the_same_views_up_to_bytes(arrays, folder):
    """Files are cropped by PIL in workers, which rounds to bytes; arrays on the device, which does not."""
    views = ViewSet(global_crops=tuple(view for view in byol(16)), mean=(0, 0, 0), std=(1, 1, 1))
    made = []
    for images in (arrays, folder):
        (batch,) = epoch(images, 2, batch_size=11, workers=0)
        made.append(make_views(batch.images, views, seed=0, epoch=batch.epoch, index=batch.index))
    for a, b in zip(*made, strict=True):
        difference = (a - b).abs()
        assert difference.median() < 0.01
        # Solarisation turns values that rounding carries over its threshold; all others stay close.
        assert (difference < 0.05).float().mean() > 0.98


def test_workers_change_nothing(folder):
    batches = [epoch(folder, 1, batch_size=4, workers=n) for n in (0, 2)]
    for a, b in zip(*batches, strict=True):
        assert list(a.index) == list(b.index)
        assert all(torch.equal(x, y) for x, y in zip(a.images, b.images, strict=True))


def test_evaluation_keeps_order_and_equals_on_both_roads(arrays, folder):
    how = Preprocessing(resize=20, size=16)
    index = np.array([7, 0, 10, 3, 4])
    a, b = (torch.cat(list(evaluation_batches(x, index, how, workers=0))) for x in (arrays, folder))
    assert a.shape == (5, 3, 16, 16)
    assert ((a - b).abs() * 0.229 * 255).max() < 1.6  # bytes: PIL rounds
    one = next(evaluation_batches(arrays, index[1:2], how))
    torch.testing.assert_close(one[0], a[1])


def test_a_folder_of_one_size_smaller_than_the_encoder_sees_is_enlarged(tmp_path):
    Image.new("RGB", (9, 5), (255, 0, 0)).save(tmp_path / "x.png")
    images = open_source(str(tmp_path)).train
    batch = next(evaluation_batches(images, np.array([0]), Preprocessing(resize=32, size=32), workers=0))
    assert batch.shape == (1, 3, 32, 32)


def test_the_picture_is_a_png_that_opens(arrays, tmp_path):
    png = draw_views(arrays, VIEWS, seed=0, title="arrays")
    (tmp_path / "x.png").write_bytes(png)
    with Image.open(tmp_path / "x.png") as image:
        width, height = image.size
    assert width > 300
    assert height > 300


def test_a_worker_hands_over_pieces_that_make_up_each_part(folder, monkeypatch):
    """Parts that are no multiple of a piece, over the end of an epoch, with and without workers."""
    whole = list(training_batches(folder, VIEWS, batch_size=5, seed=1, steps=range(4), workers=0))
    monkeypatch.setattr(loaders, "PIECE", 2)
    pieces = list(training_batches(folder, VIEWS, batch_size=5, seed=1, steps=range(4), workers=2))
    for a, b in zip(whole, pieces, strict=True):
        assert a.index.tolist() == b.index.tolist()
        assert a.epoch == b.epoch
        assert all(map(torch.equal, a.images, b.images))


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65, 1000])
def test_pieces_are_of_about_equal_size(count):
    """So that none is a single image, which nothing could stand in for."""
    plan = BatchSchedule(count, count, seed=0, start=0, stop=1, part=count, rank=0, world=1)
    sizes = [len(index) for _, index in loaders._Pieces(plan, None)]
    assert len(sizes) == loaders._pieces(count)
    assert sum(sizes) == count
    assert max(sizes) <= loaders.PIECE
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("title", ["a $b$ c$$ {x", "bytes \udcff in a name"])
def test_any_title_can_be_drawn(arrays, title):
    assert draw_views(arrays, VIEWS, seed=0, title=title).startswith(b"\x89PNG")


GPU = torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def some_batches(taken):
    for number in range(3):
        taken.append(number)
        yield Batch(torch.full((2, 4, 4, 3), number, dtype=torch.uint8), 0, np.arange(2), {})


def test_on_a_cpu_a_batch_is_read_when_it_is_due():
    taken = []
    ready = loaders.BatchPrefetcher(some_batches(taken), torch.device("cpu"), lambda batch: [])
    ready.prefetch()
    assert taken == []
    assert next(ready).views is None
    assert taken == [0]
    assert ready.waited() > 0
    assert ready.waited() == 0
    assert len(list(ready)) == 2


def test_on_a_gpu_the_next_batch_is_begun_once_and_handed_over_in_order(monkeypatch):
    """The order of things alone: streams are stood in for where there is no GPU."""
    stream = MagicMock()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda given: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", MagicMock())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, given: None)
    taken, made = [], []

    def make(batch):
        made.append(int(batch.images[0, 0, 0, 0]))
        return [batch.images.float()]

    ready = loaders.BatchPrefetcher(some_batches(taken), torch.device("cuda"), make)
    got = []
    for batch in ready:
        got.append(float(batch.views[0].mean()))
        for _ in range(2):
            ready.prefetch()
        assert made == taken == list(range(min(len(got) + 1, 3)))
    assert got == [0, 1, 2]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", ["arrays", "folder"])
def test_a_gpu_gets_the_same_views_one_step_ahead_without_being_waited_for(request, kind):
    """On every road: batches in order, on the device, and views as the CPU makes them."""
    images = request.getfixturevalue(kind)
    plan = {"batch_size": 5, "seed": 1, "steps": range(6), "workers": 2 if kind == "folder" else 0}

    def make(batch):
        return make_views(batch.images, VIEWS, seed=1, epoch=batch.epoch, index=batch.index)

    want = list(training_batches(images, VIEWS, **plan))
    got = loaders.BatchPrefetcher(training_batches(images, VIEWS, **plan, device=GPU), GPU, make)
    for a, b in zip(want, got, strict=True):
        got.begin()
        assert a.index.tolist() == b.index.tolist()
        for x, y in zip(make(a), b.views, strict=True):
            assert y.device.type == "cuda"
            assert y.is_contiguous(memory_format=torch.channels_last)
            assert ((x - y.cpu()).abs() < 1e-3).float().mean() > 0.999  # the rest solarise on the other side


@pytest.mark.gpu
@needs_gpu
def test_views_on_a_gpu_wait_for_nothing():
    full, local = dino(64, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14))
    views = ViewSet(global_crops=full, local_crops=local)
    pixels = torch.randint(0, 256, (64, 80, 80, 3), dtype=torch.uint8, device=GPU)
    make_views(pixels, views, seed=0, epoch=0, index=np.arange(64))  # what is set up once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = make_views(pixels, views, seed=0, epoch=1, index=np.arange(64))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(x.isfinite().all() for x in made)
