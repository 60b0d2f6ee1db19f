"""Hugging Face tables: which columns and splits are taken, what is said about it, and that nothing of them runs."""

import io
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from infomax.data.sources.location import open_source
from infomax.data.splits import origin_of_test_images, why_not_labelled

datasets = pytest.importorskip("datasets")
IMAGE, CATS = datasets.Image(), datasets.ClassLabel(names=["cat", "dog"])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def encoded(colour: int) -> bytes:
    """Returns a PNG of 6 x 5 pixels of one grey."""
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (colour,) * 3).save(file, "PNG")
    return file.getvalue()


def pictures(count, start=0):
    return [{"bytes": encoded(start + i), "path": None} for i in range(count)]


def table(**columns):
    """Returns a table; each column is a pair of its values and their kind."""
    features = datasets.Features({name: kind for name, (_, kind) in columns.items()})
    return datasets.Dataset.from_dict({name: values for name, (values, _) in columns.items()}, features=features)


def labelled(values, kind, name="label", count=10):
    return table(**{"image": (pictures(count), IMAGE), name: (values, kind)})


def opened(folder, *, prefix="hf", **splits):
    """Saves splits and opens them; the split ``all`` alone is a table without splits."""
    (splits["all"] if set(splits) == {"all"} else datasets.DatasetDict(splits)).save_to_disk(folder / "x")
    return open_source(f"{prefix}:{folder / 'x'}")


def grey(images, index):
    return images.open(index).getpixel((0, 0))[0]


def names(images):
    return [images.classes[i] for i in images.labels]


TWO = [0, 1] * 5


def test_columns_of_a_usual_name_are_taken_and_the_others_are_named(tmp_path):
    columns = {
        "mask": (pictures(10, 100), IMAGE),
        "image": (pictures(10), IMAGE),
        "blurry": ([1, 0] * 5, datasets.ClassLabel(names=["no", "yes"])),
        "label": (TWO, CATS),
    }
    source = opened(tmp_path, train=table(**columns), test=table(**columns))
    assert [grey(source.train, i) for i in (0, 9)] == [0, 9]
    assert names(source.train) == ["cat", "dog"] * 5
    assert source.notes == ("train, test: images are column image, labels label; left out: mask, blurry",)
    stream = opened(tmp_path, prefix="hf-stream", train=table(**columns), test=table(**columns))
    assert [sample.content for sample in stream.train.preview.samples] == [encoded(i) for i in range(10)]
    assert stream.notes == (
        "train: images are column image, labels label; left out: mask, blurry",
        "no labels of streams are used",
        "left out: splits test; train is trained on",
    )
    assert stream.train_split == "train"


def test_several_columns_without_a_usual_name_are_named(tmp_path):
    with pytest.raises(ValueError, match="has several columns of images: front, side are several, and none is called"):
        opened(tmp_path, all=table(front=(pictures(2), IMAGE), side=(pictures(2), IMAGE)))
    coarse = table(image=(pictures(10), IMAGE), coarse_label=([0] * 10, CATS), fine_label=(TWO, CATS))
    source = opened(tmp_path / "coarse", train=coarse)
    assert source.train.labels is None
    assert "train has no labels: of its columns of classes, coarse_label, fine_label are" in why_not_labelled(source)


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["dog", "cat"] * 5, datasets.Value("string"), ["dog", "cat"] * 5),
        (["dog", "cat"] * 5, datasets.Value("large_string"), ["dog", "cat"] * 5),
        (["dog", "cat"] * 5, datasets.Value("string_view"), ["dog", "cat"] * 5),
        ([3.0, 7.0] * 5, datasets.Value("float32"), ["3", "7"] * 5),
        ([3.0, 7.0] * 5, datasets.Value("float16"), ["3", "7"] * 5),
        ([True, False] * 5, datasets.Value("bool"), ["True", "False"] * 5),
        ([3, 7] * 5, datasets.Value("uint8"), ["3", "7"] * 5),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_values_that_name_one_class_an_image_are_labels(tmp_path, values, kind, classes):
    source = opened(tmp_path, train=labelled(values, kind), test=labelled(values[:6], kind, count=6))
    assert names(source.train) == classes
    assert names(source.test) == classes[:6]
    assert not why_not_labelled(source)
    assert bool(source.notes) == (kind.dtype.startswith(("string", "large_string", "float")))


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        ([0.5, 1.0] * 5, datasets.Value("float32"), "is not of whole numbers, as 0.5 for image 0"),
        ([0, 1, None, 1, 0] * 2, CATS, "lacks those of 2 images, as of image 2"),
        ([0, 1, None, 1, 0] * 2, datasets.Value("int64"), "lacks those of 2 images, as of image 2"),
        ([0, 1, -1, 1, 0] * 2, CATS, "lacks those of 2 images, as of image 2, which has -1"),
        ([[0, 1]] * 10, datasets.List(CATS), r"holds list<.*>; one class an image is wanted"),
        ([b"a", b"b"] * 5, datasets.Value("binary"), "holds binary; one class an image is wanted"),
        (["a", "b" * 300] * 5, datasets.Value("string"), "holds texts of up to 300 characters"),
        ([1] * 10, CATS, "has one class only"),
    ],
    ids=["fractions", "None", "None among numbers", "-1", "lists", "bytes", "captions", "one"],
)
def test_other_values_are_no_labels_and_the_images_are_trained_on(tmp_path, values, kind, reason):
    source = opened(tmp_path, train=labelled(values, kind))
    assert len(source.train) == 10
    assert source.train.labels is None
    with pytest.raises(AssertionError, match=f"train has (no labels: column label )?.*{reason}|train {reason}"):
        assert not why_not_labelled(source), why_not_labelled(source)


def test_a_class_beyond_the_names_is_a_reason(tmp_path):
    """A table of others may contradict itself: two names of classes, and a third class."""
    opened(tmp_path, all=labelled([0, 1, 2, 1, 0] * 2, datasets.ClassLabel(names=["a", "b", "c"])))
    file = tmp_path / "x" / "dataset_info.json"
    info = json.loads(file.read_text())
    info["features"]["label"]["names"] = ["a", "b"]
    file.write_text(json.dumps(info))
    source = open_source(f"hf:{tmp_path / 'x'}")
    assert "column label has class 2, but there are names of 2 classes" in why_not_labelled(source)


def test_test_images_come_from_the_first_split_with_labels(tmp_path):
    source = opened(tmp_path, train=labelled(TWO, CATS), validation=labelled(TWO, CATS), test=labelled([-1] * 10, CATS))
    assert (source.train_split, source.test_split, source.val_split) == ("train", "validation", "")
    assert origin_of_test_images(source) == "validation"
    assert any(note.startswith("test is not tested on: it has no labels: column label") for note in source.notes)


def test_splits_are_known_in_any_case_and_others_are_named(tmp_path):
    source = opened(
        tmp_path, extra=labelled([0], CATS, count=1), Training=labelled(TWO, CATS), Testing=labelled(TWO, CATS)
    )
    assert (source.train_split, source.test_split) == ("Training", "Testing")
    assert source.notes == ("left out: extra (1 image); Training is used to train",)
    with pytest.raises(ValueError, match="has 'train' and 'Training', which both name a train split"):
        opened(tmp_path, train=labelled(TWO, CATS), Training=labelled(TWO, CATS))


def test_classes_are_matched_by_name_where_splits_number_them_otherwise(tmp_path):
    other = datasets.ClassLabel(names=["dog", "cat"])
    source = opened(tmp_path, train=labelled(TWO, CATS), test=labelled([0, 0, 1, 1], other, count=4))
    assert names(source.test) == ["dog", "dog", "cat", "cat"]
    assert source.test.labels.tolist() == [1, 1, 0, 0]


def test_bytes_in_a_column_of_a_usual_name_are_images(tmp_path):
    images = [encoded(i) for i in range(10)]
    binary = table(image=(images, datasets.Value("binary")), label=(TWO, CATS))
    source = opened(tmp_path, all=binary)
    assert grey(source.train, 7) == 7
    assert source.notes == ("column image holds bytes, which are read as image files",)
    with pytest.raises(ValueError, match="has no column of images; found thing, label"):
        opened(tmp_path, all=binary.rename_column("image", "thing"))


def test_a_folder_whose_splits_are_not_recognised_is_refused(tmp_path):
    """The package datasets makes one split of Training/ and Testing/; the test images would be trained on."""
    for split in ("Training", "Testing"):
        for name in ("cat", "dog"):
            (tmp_path / "d" / split / name).mkdir(parents=True)
            (tmp_path / "d" / split / name / "a.png").write_bytes(encoded(1))
    for prefix in ("hf", "hf-stream"):
        with pytest.raises(ValueError, match="has Testing, but the package datasets sees the splits train alone"):
            open_source(f"{prefix}:{tmp_path / 'd'}#4" if prefix == "hf-stream" else f"{prefix}:{tmp_path / 'd'}")
    (tmp_path / "d" / "Training").rename(tmp_path / "d" / "train")
    (tmp_path / "d" / "Testing").rename(tmp_path / "d" / "test")
    source = open_source(f"hf:{tmp_path / 'd'}")
    assert (len(source.train), len(source.test)) == (2, 2)


def test_the_fingerprint_knows_each_image_and_no_place(tmp_path):
    images = pictures(400)[:200] + pictures(200, 20)
    one = opened(tmp_path / "a", all=table(image=(images, IMAGE))).train.fingerprint()
    assert opened(tmp_path / "b", all=table(image=(images, IMAGE))).train.fingerprint() == one
    images[151] = {"bytes": encoded(99), "path": None}
    assert opened(tmp_path / "c", all=table(image=(images, IMAGE))).train.fingerprint() != one


def test_the_fingerprint_knows_the_files_that_a_table_names(tmp_path):
    def fingerprint(folder, colour):
        for i in range(3):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{i}.png").write_bytes(encoded(colour if i == 1 else 0))
        rows = [{"bytes": None, "path": str(tmp_path / folder / f"{i}.png")} for i in range(3)]
        # a table keeps the paths if it is not embedded; a saved one would have the bytes
        from infomax.data.sources.hugging_face import TableImages

        undecoded = table(image=(rows, IMAGE)).cast_column("image", datasets.Image(decode=False))
        images = TableImages(undecoded, "image", None, [])
        assert grey(images, 1) == colour
        return images.fingerprint()

    assert fingerprint("a", 5) == fingerprint("b", 5) != fingerprint("a", 6)


class Trap:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("prefix", ["hf", "hf-stream"])
def test_nothing_of_a_data_set_runs(tmp_path, monkeypatch, prefix):
    (tmp_path / "d").mkdir()
    ran = str(tmp_path / "ran")
    (tmp_path / "d" / "d.py").write_text(f"import os\nos.mkdir({ran!r})\n")
    for hostile in ("d", "d/d.py"):
        with pytest.raises(ValueError, match="scripts are no longer supported"):
            open_source(f"{prefix}:{tmp_path / hostile}")
    for name in ("train.pkl", "train.pickle", "train-00000-of-00001.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(ran)))
    monkeypatch.chdir(tmp_path)
    for name in ("pandas", "pandas:default", "csv", "json"):
        with pytest.raises(ValueError, match="is a kind of files to the package datasets, and no data set"):
            open_source(f"{prefix}:{name}")
    assert not os.path.exists(ran)


@pytest.mark.parametrize(
    "changes",
    [
        {"_format_type": "custom", "_format_kwargs": {"transform": "os.system"}},
        {"_format_type": "numpy", "_format_columns": ["label"]},
        {"_format_type": "nonsense"},
        {"_data_files": [{"filename": "../../../../../../etc/hostname"}]},
        {"_data_files": [{"filename": 7}]},
        {"_data_files": None},
        {"_split": ["x"]},
    ],
    ids=repr,
)
def test_a_saved_state_of_others_is_opened_as_images_or_refused(tmp_path, changes):
    opened(tmp_path, all=labelled(TWO, CATS))
    file = tmp_path / "x" / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    for prefix in ("hf", "hf-stream"):
        try:
            train = open_source(f"{prefix}:{tmp_path / 'x'}").train
        except ValueError as error:
            message = str(error)
        else:
            message = ""
            assert np.asarray((train.preview if prefix == "hf-stream" else train).open(3)).shape == (5, 6, 3)
        assert "\n" not in message


def test_a_folder_with_a_colon_in_its_name_is_a_folder(tmp_path):
    assert len(opened(tmp_path / "a:b", all=labelled(TWO, CATS)).train) == 10


def test_the_split_without_images_is_named(tmp_path):
    texts = table(text=(["a"], datasets.Value("string")))
    with pytest.raises(ValueError, match="split test has no column of images; found text"):
        opened(tmp_path, train=labelled(TWO, CATS), test=texts)


def test_the_sizes_of_all_images_are_known_without_reading_the_images(tmp_path, monkeypatch):
    """The fingerprint of a large table takes the sizes of all images, and the bytes of some; others stay on disk."""
    pyarrow = pytest.importorskip("pyarrow")
    rows = [{"bytes": bytes([i]) * 100_000, "path": None} for i in range(100)]
    many_batches = table(image=(rows, IMAGE)).map(writer_batch_size=5, cache_file_name=str(tmp_path / "many.arrow"))
    many_batches.save_to_disk(tmp_path / "x")
    monkeypatch.setattr("infomax.data.sources.hugging_face.LARGE", 1)
    monkeypatch.setattr("infomax.data.sources.hugging_face.SAMPLED_CONTENTS", 2)
    monkeypatch.setattr(datasets.config, "IN_MEMORY_MAX_SIZE", 0)
    train = open_source(f"hf:{tmp_path / 'x'}").train
    usual_pool, pool = pyarrow.default_memory_pool(), pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())
    pyarrow.set_memory_pool(pool)
    try:
        train.fingerprint()
    finally:
        pyarrow.set_memory_pool(usual_pool)
    assert 0 < pool.max_memory() < 2_000_000  # bytes; all images are 10,000,000
