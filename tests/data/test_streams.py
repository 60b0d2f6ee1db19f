"""Hugging Face data sets and WebDataset shards: the images that each rank reads, their order, and errors."""

import contextlib
import functools
import http.server
import io
import itertools
import json
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from infomax.data.augmentation.make_views import make_views
from infomax.data.augmentation.views import ViewSet, byol
from infomax.data.images.selection import first_readable
from infomax.data.loading.training import training_batches
from infomax.data.loading.workers import TrainingImages
from infomax.data.sources.location import open_source
from infomax.data.sources.shards import ShardStream, expand_braces
from infomax.data.splits import labelled_splits, preview_images
from infomax.data.streams import Stream

datasets = pytest.importorskip("datasets")

COUNT = 24


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


VIEWS = ViewSet(global_crops=byol(8))


def encoded(i: int) -> bytes:
    """Returns a PNG of 12 x 10 pixels whose colour stands for a number."""
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (10 * i, 255 - 10 * i, 0)).save(file, "PNG")
    return file.getvalue()


def number(content: bytes) -> int:
    return Image.open(io.BytesIO(content)).getpixel((0, 0))[0] // 10


@pytest.fixture
def shards(tmp_path):
    """Writes four shards of six images each, with labels and files of another kind; returns their name for --data."""
    for shard in range(4):
        with tarfile.open(tmp_path / f"s-{shard}.tar", "w") as tar:
            for i in range(6 * shard, 6 * shard + 6):
                for suffix, content in (("PNG", encoded(i)), ("cls", b"1"), ("json", b"{}")):
                    info = tarfile.TarInfo(f"{i:04d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return f"wds:{tmp_path}/s-{{0..3}}.tar"


@pytest.fixture
def saved(tmp_path):
    """Writes a data set by ``save_to_disk``; returns its folder."""

    def split(indices):
        features = datasets.Features(
            {
                "picture": datasets.Image(),
                "label": datasets.ClassLabel(names=["even", "odd"]),
                "size": datasets.Value("int32"),
            }
        )
        rows = {"picture": [{"bytes": encoded(i), "path": None} for i in indices], "label": [i % 2 for i in indices]}
        return datasets.Dataset.from_dict({**rows, "size": [1] * len(indices)}, features=features)

    datasets.DatasetDict(train=split(range(COUNT)), test=split(range(5))).save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def one_epoch(stream, *, epoch=0, rank=0, world_size=1, count=COUNT):
    samples = stream.read(3, epoch, rank, world_size)
    numbers = [number(sample.content) for sample in itertools.islice(samples, count)]
    samples.close()
    return numbers


def test_a_table_in_memory_has_splits_labels_and_images(saved):
    source = open_source(f"hf:{saved}")
    assert (len(source.train), len(source.test)) == (COUNT, 5)
    assert source.train.classes == ["even", "odd"]
    assert source.train.labels.tolist() == [i % 2 for i in range(COUNT)]
    assert source.train.open(7).getpixel((0, 0)) == (70, 185, 0)
    assert len(labelled_splits(source)[1].index) == 5
    assert source.train.fingerprint() == open_source(f"hf:{saved}").train.fingerprint() != source.test.fingerprint()


def test_a_folder_of_parquet_files_is_a_table_too(saved, tmp_path):
    (tmp_path / "parquet").mkdir()
    datasets.load_from_disk(saved)["train"].to_parquet(tmp_path / "parquet" / "train.parquet")
    with pytest.raises(ValueError, match=r"number of images is not known; give it at the end, as in .*#50000"):
        open_source(f"hf-stream:{tmp_path / 'parquet'}")
    stream = open_source(f"hf-stream:{tmp_path / 'parquet'}#24").train
    assert sorted(one_epoch(stream)) == list(range(COUNT))
    train = open_source(f"hf:{tmp_path / 'parquet'}").train
    assert [first_readable(train, i)[1].getpixel((0, 0))[0] for i in (0, 23)] == [0, 230]


def test_whole_numbers_are_labels_too(tmp_path):
    rows = {"img": [{"bytes": encoded(i), "path": None} for i in range(4)], "label": [7, 3, 7, 3]}
    kinds = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(tmp_path / "x")
    train = open_source(f"hf:{tmp_path / 'x'}").train
    assert [train.classes[i] for i in train.labels] == ["7", "3", "7", "3"]


def test_a_table_without_images_and_one_that_is_not_there_are_refused(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "x")
    with pytest.raises(ValueError, match="--data hf:.*has no column of images; found text"):
        open_source(f"hf:{tmp_path / 'x'}")
    with pytest.raises(ValueError, match="--data hf:.*nothing: cannot be opened"):
        open_source(f"hf:{tmp_path / 'nothing'}")


@pytest.fixture(params=["hub", "shards"])
def stream(request):
    if request.param == "shards":
        return open_source(request.getfixturevalue("shards")).train
    return open_source(f"hf-stream:{request.getfixturevalue('saved')}").train


def test_an_epoch_takes_every_image_once_in_an_order_of_its_own(stream):
    assert isinstance(stream, Stream)
    assert len(stream) == COUNT
    orders = [one_epoch(stream, epoch=epoch) for epoch in (0, 1, 0)]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert orders[0] == orders[2] != orders[1]
    assert one_epoch(stream, count=2 * COUNT)[COUNT:] != orders[0]  # a second pass, in another order


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_a_stream(shards, saved, world_size):
    """Two ranks read their own shards; three read all shards, and leave out the images of the others."""
    for stream in (open_source(shards).train, open_source(f"hf-stream:{saved}").train):
        ranks = [
            one_epoch(stream, rank=rank, world_size=world_size, count=COUNT // world_size) for rank in range(world_size)
        ]
        assert sorted(itertools.chain(*ranks)) == list(range(COUNT))


def batches(stream, steps, **options):
    return list(training_batches(stream, VIEWS, batch_size=8, seed=1, steps=steps, **options))


def test_workers_and_the_step_to_start_from_change_nothing(stream):
    uninterrupted = batches(stream, range(6), workers=0)
    assert [batch.epoch for batch in uninterrupted] == [0, 0, 0, 1, 1, 1]
    for start, workers in ((4, 0), (1, 2)):
        again = batches(stream, range(start, 6), workers=workers)
        assert len(again) == 6 - start
        for a, b in zip(uninterrupted[start:], again, strict=True):
            assert a.index.tolist() == b.index.tolist()
            assert all(map(torch.equal, a.images, b.images))


def test_an_images_views_depend_on_the_image_and_not_on_its_place(stream):
    """An image has the same crops in a microbatch, and the same views alone."""
    first = {int(i): row for batch in batches(stream, range(3), workers=0) for row, i in enumerate(batch.index)}
    assert len(first) == COUNT
    (batch,) = batches(stream, range(1), workers=0)
    microbatches = batches(stream, range(1), workers=0, micro_batch_size=3)
    assert [len(microbatch.index) for microbatch in microbatches] == [3, 3, 2]
    assert torch.equal(torch.cat([microbatch.images[0] for microbatch in microbatches]), batch.images[0])
    alone = make_views([x[2:3] for x in batch.images], VIEWS, seed=1, epoch=0, index=batch.index[2:3])
    together = make_views(batch.images, VIEWS, seed=1, epoch=0, index=batch.index)
    torch.testing.assert_close(together[0][2:3], alone[0])


def test_a_damaged_image_is_replaced_and_named(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for i, content in enumerate([encoded(1), b"no image", encoded(2)]):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    stream = open_source(f"wds:{tmp_path / 's.tar'}").train
    (batch,) = training_batches(stream, VIEWS, batch_size=3, seed=0, steps=range(1), workers=0)
    (reason,) = batch.unreadable.values()
    assert "s.tar: 1.png cannot be read as an image" in str(reason)
    assert batch.images[0].shape == (3, 8, 8, 3)


def test_shards_are_counted_once_and_their_number_is_kept(shards, tmp_path):
    source = open_source(shards)
    assert source.name == f"{shards}#24"
    assert len(open_source(f"{shards}#12").train) == 12
    assert open_source(f"wds:{tmp_path}/*.tar").name.endswith("*.tar#24")
    assert labelled_splits(source) is None
    assert [preview_images(source).open(i).size for i in (0, 19)] == [(12, 10)] * 2


def test_shards_that_are_not_there_or_hold_no_images_are_refused(shards, tmp_path):
    with pytest.raises(ValueError, match=r"--data wds:.*: no such shard: .*x-0\.tar"):
        open_source(f"wds:{tmp_path}/x-{{0..1}}.tar")
    with pytest.raises(ValueError, match="no such shard"):
        open_source(f"wds:{tmp_path}/*.none")
    with pytest.raises(ValueError, match="number of images is not known"):
        open_source("wds:https://example.org/{0..3}.tar")
    (tmp_path / "empty.tar").write_bytes(b"not a tar file")
    with pytest.raises(ValueError, match=r"empty\.tar breaks off or is no tar file"):
        open_source(f"wds:{tmp_path}/empty.tar")
    with tarfile.open(tmp_path / "none.tar", "w"):
        pass
    with pytest.raises(ValueError, match="no images in 1 shards"):
        open_source(f"wds:{tmp_path}/none.tar")


def test_an_error_while_reading_ahead_is_raised_by_the_reader(shards, tmp_path):
    stream = open_source(f"{shards}#24").train
    (tmp_path / "s-2.tar").unlink()
    with pytest.raises(FileNotFoundError):
        one_epoch(stream)


def test_a_shard_that_breaks_off_is_an_os_error(shards, tmp_path):
    content = (tmp_path / "s-2.tar").read_bytes()
    (tmp_path / "s-2.tar").write_bytes(content[:540])  # within the first image
    with pytest.raises(OSError, match=r"s-2\.tar breaks off"):
        one_epoch(open_source(f"{shards}#24").train)


def test_whole_numbers_are_numbered_alike_in_all_splits(tmp_path):
    kinds = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})

    def split(labels):
        rows = {"img": [{"bytes": encoded(i), "path": None} for i in range(len(labels))], "label": labels}
        return datasets.Dataset.from_dict(rows, features=kinds)

    datasets.DatasetDict(train=split([3, 5, 7]), test=split([3, 7])).save_to_disk(tmp_path / "x")
    source = open_source(f"hf:{tmp_path / 'x'}")
    for images, labels in ((source.train, ["3", "5", "7"]), (source.test, ["3", "7"])):
        assert [images.classes[i] for i in images.labels] == labels


def test_a_row_without_an_image_is_an_unreadable_image(tmp_path):
    rows = [{"bytes": encoded(1), "path": None}, None, None] * 3
    kinds = datasets.Features({"img": datasets.Image()})
    datasets.Dataset.from_dict({"img": rows}, features=kinds).save_to_disk(tmp_path / "x")
    train = open_source(f"hf:{tmp_path / 'x'}").train
    assert train.open(0).size == (12, 10)
    for i in (1, 2):
        with pytest.raises(ValueError, match=f"image {i} cannot be read"):
            train.open(i)
    (batch,) = batches(open_source(f"hf-stream:{tmp_path / 'x'}").train, range(1), workers=0)
    assert batch.unreadable


def test_the_preview_shows_what_training_sees(stream):
    """The crops of the preview's images are those that a worker cuts of the same images in training."""
    images = stream.preview
    assert [number(sample.content) for sample in images.samples] == list(range(20))  # in the stream's own order
    from_preview = TrainingImages(images, VIEWS, 1)[0, np.arange(20)]
    crops = dict(zip(from_preview.index.tolist(), from_preview.images[0], strict=True))
    (batch,) = batches(stream, range(1), workers=0)
    seen = [i for i in batch.index.tolist() if i in crops]
    assert len(seen) > 3
    assert all(torch.equal(crops[i], batch.images[0][batch.index.tolist().index(i)]) for i in seen)


def test_a_run_on_a_stream_goes_on_from_any_folder(shards, tmp_path, monkeypatch):
    from infomax import pretrain

    monkeypatch.chdir(tmp_path)
    options = {"out": "run", "quiet": True, "workers": 0}
    run = pretrain(data="wds:s-{0..3}.tar", method="carl", epochs=1, batch_size=8, image_size=8, **options)
    assert run.config["data"] == f"{shards}#24"
    monkeypatch.chdir(tmp_path.parent)
    pretrain(resume=True, **{**options, "out": tmp_path / "run"})
    pretrain(resume=True, data=shards, **{**options, "out": tmp_path / "run"})
    with pytest.raises(ValueError, match="are not those that the run was started with"):
        pretrain(resume=True, data=f"wds:{tmp_path}/s-0.tar", **{**options, "out": tmp_path / "run"})
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    monkeypatch.chdir(tmp_path)
    for hostile in COMMANDS:
        (tmp_path / "run" / "config.json").write_text(
            json.dumps({**config, "data": f"wds:{hostile}#24", "resumed": []})
        )
        with pytest.raises(ValueError, match="no such shard|is no address that is read"):
            pretrain(resume=True, **options)
        with pytest.raises(ValueError, match="no such shard|is no address that is read"):
            open_source(f"wds:{hostile}#24")
    assert not (tmp_path / "ran").exists()


COMMANDS = (
    "pipe:touch ran",
    "{p,p}ipe:touch ran",
    "pip{e:touch ran,e:touch ran}",
    "pipe://touch ran",
    "file://s-0.tar",
    "{file,file}://s-0.tar",
    "simplecache::file://s-0.tar",
    "zip://x::pipe://touch ran",
    "https://a.example/s-0.tar::file://x",
    "https://a.example/https://b.example",
    "reference://x",
    "github://user:name@main/x.tar",
    "ssh://host/x.tar",
    "{http,ssh}://host/x.tar",
)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ValueError, match=r"needs the package fsspec: .*\[streams\]'"):
        open_source("wds:https://a.example/s.tar#10")


def write_shard(path, members, **options):
    """Writes a tar file of names and contents, in their order."""
    with tarfile.open(path, options.pop("mode", "w")) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def numbers_of(stream) -> list[int]:
    return [number(content) for _, content in stream._read(None, 0, 1)]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (lambda i: [(f"{i:04}.seg.png", encoded(20)), (f"{i:04}.png", encoded(i))], "4 x .seg.png"),
        (lambda i: [(f"{i:04}.bmp", encoded(20)), (f"{i:04}.jpg", encoded(i)), (f"{i:04}.png", b"")], "4 x .bmp"),
        (lambda i: [(f"cat/._{i}.png", b"\0" * 99), (f"cat/{i}.png", encoded(i))], "4 x hidden files"),
        (lambda i: [(f"__MACOSX/{i}.png", b"\0" * 99), (f"./cat/{i}.PNG", encoded(i))], "4 x hidden files"),
        (lambda i: [(f"{i}.img", encoded(20)), (f"{i}.JPEG", encoded(i)), (f"{i}.cls", b"1")], "4 x .img"),
    ],
    ids=["mask", "several", "macos", "zip of macos", "other kinds"],
)
def test_the_image_of_each_sample_is_trained_on(tmp_path, members, expected):
    write_shard(tmp_path / "s.tar", [member for i in range(4) for member in members(i)])
    source = open_source(f"wds:{tmp_path / 's.tar'}")
    assert source.name.endswith("#4")
    assert expected in " ".join(source.notes)
    assert numbers_of(source.train) == [0, 1, 2, 3]


def test_a_shard_without_images_says_what_is_in_it(tmp_path):
    write_shard(tmp_path / "s.tar", [("2020.01.02.txt", b""), ("a.img", b"")])
    with pytest.raises(ValueError, match=r"found 1 x \.txt, 1 x \.img, want files such as 0001\.jpg"):
        open_source(f"wds:{tmp_path / 's.tar'}")


def test_a_folder_with_brackets_and_a_compressed_shard(tmp_path):
    folder = tmp_path / "j [v1]"
    folder.mkdir()
    write_shard(folder / "s-000.tar", [("1.png", encoded(1))])
    write_shard(folder / "s-001.tar.gz", [("2.png", encoded(2))], mode="w:gz")
    assert numbers_of(open_source(f"wds:{folder}/s-000.tar").train) == [1]
    assert numbers_of(open_source(f"wds:{folder}/*").train) == [1, 2]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_shard_that_breaks_off_is_refused_alike_when_counted_and_read(tmp_path, share):
    write_shard(tmp_path / "s.tar", [(f"{i}.png", encoded(i) + b"\0" * 5000) for i in range(4)])
    content = (tmp_path / "s.tar").read_bytes()
    end = content.rindex(b"3.png") + 512 + 5000  # of the last image
    (tmp_path / "s.tar").write_bytes(content[: int(share * end)])
    with pytest.raises(ValueError, match=r"s\.tar breaks off or is no tar file"):
        open_source(f"wds:{tmp_path / 's.tar'}")
    with pytest.raises(OSError, match=r"s\.tar breaks off or is no tar file"):
        list(open_source(f"wds:{tmp_path / 's.tar'}#4").train._read(None, 0, 1))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_claims_an_enormous_size_takes_no_memory(tmp_path, kind):
    info = tarfile.TarInfo("0.png")
    info.size, info.type = 2**60, kind
    (tmp_path / "s.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 2000)
    with pytest.raises(ValueError, match=r"s\.tar breaks off"):
        open_source(f"wds:{tmp_path / 's.tar'}")
    with pytest.raises(OSError, match=r"s\.tar breaks off"):
        list(ShardStream([str(tmp_path / "s.tar")], 4)._read(None, 0, 1))


def test_links_and_devices_in_a_shard_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/hostname"
            tar.addfile(info)
    with pytest.raises(ValueError, match="no images in 1 shards; found nothing"):
        open_source(f"wds:{tmp_path / 's.tar'}")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a-{08..10}.tar", ["a-08.tar", "a-09.tar", "a-10.tar"]),
        ("a-{8..10}", ["a-8", "a-9", "a-10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{0..10..4}", ["0", "4", "8"]),
        ("{x,y}{0..1}", ["x0", "x1", "y0", "y1"]),
        ("a{b}c{}", ["a{b}c{}"]),
        ("a", ["a"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern, names):
    assert expand_braces(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..999999999999}", "{0..9999}{0..9999}", "{a,{b,c}}"])
def test_braces_that_make_too_many_names_are_refused(pattern):
    with pytest.raises(ValueError, match="names more than 1000000 shards|braces within braces"):
        open_source(f"wds:{pattern}")


def test_a_replaced_shard_has_another_fingerprint(shards, tmp_path):
    before = open_source(f"{shards}#24").train.fingerprint()
    write_shard(tmp_path / "s-2.tar", [("a.png", encoded(1))])
    assert open_source(f"{shards}#24").train.fingerprint() != before


def test_shards_are_read_from_a_server(shards, tmp_path):
    """A server of this machine stands for any; fsspec reads it by aiohttp."""
    pytest.importorskip("aiohttp")
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        stream = open_source(f"wds:{address}/s-{{0..3}}.tar#24").train
        assert numbers_of(stream) == list(range(24))
        with pytest.raises(OSError, match="none.tar"):
            numbers_of(open_source(f"wds:{address}/none.tar#24").train)
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A server of files that prints nothing."""

    def log_message(self, *_):
        """Prints nothing."""


def test_keys_are_whole_numbers_that_an_array_holds(stream):
    with contextlib.closing(stream.read(0, 0, 0, 1)) as endless:
        samples = list(itertools.islice(endless, COUNT))
    keys = np.array([sample.key for sample in samples])
    assert keys.dtype == np.int64
    assert (keys >= 0).all()
    assert len(set(keys.tolist())) == COUNT


def test_shards_that_hold_fewer_images_than_said_are_one_error(tmp_path):
    write_shard(tmp_path / "s.tar", [("n01.txt", b"")])
    with pytest.raises(ValueError, match="there are no images"):
        first_readable(preview_images(open_source(f"wds:{tmp_path / 's.tar'}#5")), 0)


@pytest.mark.parametrize("count", ["", "#3"])
def test_images_whose_names_have_several_dots_are_read(tmp_path, count):
    """Without any image named as 0001.png, the last dot begins the suffix, whether the images are counted or not."""
    write_shard(tmp_path / "s.tar", [(f"n01.000{i}.png", encoded(i)) for i in range(3)])
    source = open_source(f"wds:{tmp_path / 's.tar'}{count}")
    assert numbers_of(source.train) == [0, 1, 2]
    assert "names in the shards have several dots" in " ".join(source.notes)
