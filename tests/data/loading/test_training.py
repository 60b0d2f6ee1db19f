"""Batches: each image once an epoch, equal views of arrays and files, and no effect of the number of workers."""

from contextlib import nullcontext
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import Preprocessing, ViewSet, byol, dino
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading import training as loaders
from infomax.data.loading.evaluation import evaluation_batches
from infomax.data.loading.training import BatchSchedule, training_batches
from infomax.data.loading.workers import Batch
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


def schedule_of(rank=0, *, world_size=1, start=0, micro_batch_size=12):
    return BatchSchedule(29, 12, 1, start, stop=6, micro_batch_size=micro_batch_size, rank=rank, world_size=world_size)


@pytest.mark.parametrize(
    ("world_size", "micro_batch_size"), [(1, None), (2, None), (3, None), (4, None), (1, 4), (2, 2), (3, 4)]
)
def test_ranks_and_microbatches_share_each_step_in_its_order(world_size, micro_batch_size):
    """The images of each step and their order depend neither on the number of ranks nor on the first step."""
    steps = [list(index) for _, index in schedule_of()]
    assert [len(step) for step in steps] == [12] * 6
    for start in (0, 3):
        options = {"start": start, "world_size": world_size, "micro_batch_size": micro_batch_size or 12}
        by_rank = [[index for _, index in schedule_of(rank, **options)] for rank in range(world_size)]
        per_step = len(by_rank[0]) // (6 - start)
        for step in range(start, 6):
            microbatches = [rank[(step - start) * per_step : (step - start + 1) * per_step] for rank in by_rank]
            assert [int(i) for rank in microbatches for index in rank for i in index] == steps[step]
            if micro_batch_size is not None:
                assert all(len(index) == micro_batch_size for rank in microbatches for index in rank)


def test_files_and_arrays_give_the_same_views_up_to_bytes(arrays, folder):
    """Crops of files are rounded to bytes by workers; crops of arrays are not, as they are made on the device."""
    views = ViewSet(global_crops=tuple(view for view in byol(16)), mean=(0, 0, 0), std=(1, 1, 1))
    results = []
    for images in (arrays, folder):
        (batch,) = epoch(images, 2, batch_size=11, workers=0)
        results.append(make_views(batch.images, views, seed=0, epoch=batch.epoch, index=batch.index))
    for a, b in zip(*results, strict=True):
        difference = (a - b).abs()
        assert difference.median() < 0.01
        # Solarisation turns values that rounding carries over its threshold; all others stay close.
        assert (difference < 0.05).float().mean() > 0.98


def test_workers_change_nothing(folder):
    batches = [epoch(folder, 1, batch_size=4, workers=n) for n in (0, 2)]
    for a, b in zip(*batches, strict=True):
        assert list(a.index) == list(b.index)
        assert all(torch.equal(x, y) for x, y in zip(a.images, b.images, strict=True))


def test_evaluation_keeps_the_order_and_shows_files_as_it_shows_arrays(arrays, folder):
    preprocessing = Preprocessing(resize=20, size=16)
    index = np.array([7, 0, 10, 3, 4])
    a, b = (torch.cat(list(evaluation_batches(x, index, preprocessing, workers=0))) for x in (arrays, folder))
    assert a.shape == (5, 3, 16, 16)
    assert ((a - b).abs() * 0.229 * 255).max() < 1.6  # bytes: PIL rounds
    batch = next(evaluation_batches(arrays, index[1:2], preprocessing))
    torch.testing.assert_close(batch[0], a[1])


def test_images_smaller_than_the_encoders_input_are_enlarged(tmp_path):
    Image.new("RGB", (9, 5), (255, 0, 0)).save(tmp_path / "x.png")
    images = open_source(str(tmp_path)).train
    batch = next(evaluation_batches(images, np.array([0]), Preprocessing(resize=32, size=32), workers=0))
    assert batch.shape == (1, 3, 32, 32)


def test_workers_hand_over_chunks_that_make_up_each_microbatch(folder, monkeypatch):
    """The microbatches are no multiple of a chunk, and go on over the end of an epoch; with and without workers."""
    whole = list(training_batches(folder, VIEWS, batch_size=5, seed=1, steps=range(4), workers=0))
    monkeypatch.setattr(loaders, "CHUNK_SIZE", 2)
    in_chunks = list(training_batches(folder, VIEWS, batch_size=5, seed=1, steps=range(4), workers=2))
    for a, b in zip(whole, in_chunks, strict=True):
        assert a.index.tolist() == b.index.tolist()
        assert a.epoch == b.epoch
        assert all(map(torch.equal, a.images, b.images))


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65, 1000])
def test_chunks_are_of_about_equal_size(count):
    """A chunk of a single image would have no other image of a stream to replace it."""
    schedule = BatchSchedule(count, count, seed=0, start=0, stop=1, micro_batch_size=count, rank=0, world_size=1)
    sizes = [len(index) for _, index in loaders._ChunkSampler(schedule, None, lambda epoch, microbatch: False)]
    assert len(sizes) == loaders._chunk_count(count)
    assert sum(sizes) == count
    assert max(sizes) <= loaders.CHUNK_SIZE
    assert max(sizes) - min(sizes) <= 1


GPU = torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def three_batches(read):
    """Yields three batches, and notes the number of each in ``read`` when it is read."""
    for number in range(3):
        read.append(number)
        yield Batch(torch.full((2, 4, 4, 3), number, dtype=torch.uint8), 0, np.arange(2), {})


def test_on_a_cpu_a_batch_is_read_when_it_is_due():
    read = []
    prefetcher = loaders.BatchPrefetcher(three_batches(read), torch.device("cpu"), lambda batch: [])
    prefetcher.prefetch()
    assert read == []
    assert next(prefetcher).views is None
    assert read == [0]
    assert prefetcher.pop_wait_seconds() > 0
    assert prefetcher.pop_wait_seconds() == 0
    assert len(list(prefetcher)) == 2


def test_on_a_gpu_the_next_batch_is_prefetched_once_and_handed_over_in_order(monkeypatch):
    """CUDA streams are mocked, as only the order of events is tested, also without a GPU."""
    stream = MagicMock()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", MagicMock())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    read, with_views = [], []

    def make(batch):
        with_views.append(int(batch.images[0, 0, 0, 0]))
        return [batch.images.float()]

    prefetcher = loaders.BatchPrefetcher(three_batches(read), torch.device("cuda"), make)
    received = []
    for batch in prefetcher:
        received.append(float(batch.views[0].mean()))
        for _ in range(2):
            prefetcher.prefetch()
        assert with_views == read == list(range(min(len(received) + 1, 3)))
    assert received == [0, 1, 2]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", ["arrays", "folder"])
def test_a_gpu_gets_the_same_views_one_step_ahead_without_being_waited_for(request, kind):
    """From arrays and from files: batches come in order, on the device, and their views are those of the CPU."""
    images = request.getfixturevalue(kind)
    options = {"batch_size": 5, "seed": 1, "steps": range(6), "workers": 2 if kind == "folder" else 0}

    def make(batch):
        return make_views(batch.images, VIEWS, seed=1, epoch=batch.epoch, index=batch.index)

    expected = list(training_batches(images, VIEWS, **options))
    prefetcher = loaders.BatchPrefetcher(training_batches(images, VIEWS, **options, device=GPU), GPU, make)
    for a, b in zip(expected, prefetcher, strict=True):
        prefetcher.prefetch()
        assert a.index.tolist() == b.index.tolist()
        for x, y in zip(make(a), b.views, strict=True):
            assert y.device.type == "cuda"
            assert y.is_contiguous(memory_format=torch.channels_last)
            assert ((x - y.cpu()).abs() < 1e-3).float().mean() > 0.999  # the rest solarise on the other side


@pytest.mark.gpu
@needs_gpu
def test_views_on_a_gpu_wait_for_nothing():
    global_crops, local_crops = dino(64, global_scale=(0.14, 1.0), local_scale=(0.05, 0.14))
    views = ViewSet(global_crops=global_crops, local_crops=local_crops)
    pixels = torch.randint(0, 256, (64, 80, 80, 3), dtype=torch.uint8, device=GPU)
    make_views(pixels, views, seed=0, epoch=0, index=np.arange(64))  # the first call may wait, as it sets up libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = make_views(pixels, views, seed=0, epoch=1, index=np.arange(64))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(x.isfinite().all() for x in results)
