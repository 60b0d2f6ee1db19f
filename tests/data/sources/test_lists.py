"""Text files that people write: encodings, delimiters, headers, and lines that are refused."""

import os

import numpy as np
import pytest
from PIL import Image

from infomax.data.sources.lists import read_lines
from infomax.data.sources.location import DataLocation, open_source
from infomax.data.splits import labelled_splits, why_not_labelled

FILES = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(5)]
TABLE = "".join(f"{file}\t{file[:3]}\n" for file in FILES)


@pytest.fixture
def folder(tmp_path):
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / file)
    return tmp_path


def open_text(folder, text, name="list.txt", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return open_source(str(folder / name))


@pytest.mark.parametrize(
    ("name", "text", "encoding", "notes"),
    [
        ("list.txt", TABLE, "utf-8", []),
        ("list.tsv", TABLE, "utf-8-sig", []),
        ("list.txt", TABLE, "utf-16", []),
        ("list.txt", TABLE, "utf-32", []),
        ("list.txt", TABLE.replace("\n", "\r\n"), "utf-8", []),
        ("list.txt", TABLE.replace("\n", "\r"), "utf-8", []),
        ("list.txt", TABLE.replace("\n", "  \n\n").replace("\t", " \t"), "utf-8", []),
        ("list.txt", TABLE.replace("\t", ","), "utf-8", []),
        ("list.txt", TABLE.replace("\t", " "), "utf-8", []),
        ("list.txt", TABLE.replace("\t", ";"), "utf-8", []),
        ("list.csv", TABLE.replace("\t", ","), "utf-8", []),
        ("list.csv", TABLE.replace("\t", ";"), "utf-8", []),
        ("list.csv", "path,label\n" + TABLE.replace("\t", ","), "utf-8-sig", ["line 1, 'path,label'"]),
        ("list.csv", "".join(f'"{file}","{file[:3]}"\n' for file in FILES), "utf-8", []),
        ("list.tsv", "Filename\tClass\n" + TABLE, "utf-8", ["line 1, 'Filename\tClass'"]),
        ("list.txt", TABLE.replace("/", "\\"), "utf-8", ["backslashes"]),
        ("list.txt", TABLE + TABLE, "utf-8", ["10 lines with a file named before, as 'cat/0.png'"]),
    ],
)
def test_lists_are_read_as_people_write_them(folder, name, text, encoding, notes):
    source = open_text(folder, text, name, encoding)
    assert list(source.train.files) == FILES
    assert [source.train.classes[i] for i in source.train.labels] == [file[:3] for file in FILES]
    assert len(labelled_splits(source)[1].index) == 2
    assert len(source.notes) == len(notes)
    for words, note in zip(notes, source.notes, strict=True):
        assert words.replace("\t", "\\t") in note


def test_a_delimiter_may_be_part_of_a_name(folder):
    for name in ("a,b c.png", "d;e.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    source = open_text(folder, "a,b c.png\nd;e.png\n")
    assert list(source.train.files) == ["a,b c.png", "d;e.png"]
    source = open_text(folder, "a,b c.png\tx y\nd;e.png\tz\n")
    assert source.train.classes == ["x y", "z"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (TABLE.replace("dog/4.png\tdog", "dog/4.png"), "line 10, 'dog/4.png', has no class, as others do"),
        (TABLE.replace("\n", "\t0.9\n"), "has 3 columns; a path and a class are wanted"),
        (TABLE + "cat/0.png\tdog\n", "line 11, 'cat/0.png.tdog', gives another class than a line before"),
        (TABLE.replace("dog\n", "cat\n"), "has one class only, cat"),
        ("\n".join(FILES), "the lines name files alone, and no classes"),
    ],
)
def test_each_cause_of_no_labels_shows_its_line(folder, text, cause):
    source = open_text(folder, text)
    assert len(source.train) == 10
    assert source.train.labels is None
    with pytest.raises(AssertionError, match=cause):
        raise AssertionError(why_not_labelled(source))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TABLE.replace("dog/3", "dog/33"),
            r"line 9 names 'dog/33.png', which is no file in .*, as 1 of 10 lines do$",
        ),
        ("cat/0.png big cat\n", r"line 1 names 'cat/0.png big cat', which is no file"),
        ("C:\\data\\cat\\0.png\n", r"line 1 names 'C:.*', which is no file in [^,]*$"),
        ("path\tlabel\n", "names no image"),
        ("", "names no image"),
        ("a\0b\n", r"is no text in UTF-8, or in UTF-16 with a byte order mark"),
    ],
)
def test_what_is_not_clear_is_refused_in_one_line_that_shows_it(folder, text, message):
    with pytest.raises(ValueError, match=message) as error:
        open_text(folder, text)
    assert str(error.value).startswith("--data ")
    assert "\n" not in str(error.value)


def test_a_damaged_encoding_is_named(folder):
    (folder / "list.txt").write_bytes("cat/0.png\n".encode("utf-16")[:-1])
    with pytest.raises(ValueError, match="is damaged: 'utf-16.*' codec"):
        open_source(str(folder / "list.txt"))


def test_a_fifo_is_not_waited_for(folder):
    os.mkfifo(folder / "classes.txt")
    with pytest.raises(ValueError, match=r"--classes .*classes.txt: cannot be read as a text file: is no file"):
        DataLocation(str(folder), classes=str(folder / "classes.txt")).open()


def test_names_that_are_not_in_utf_8_are_kept(folder):
    (folder / "list.txt").write_bytes(b"\xff.png\n")
    assert [line.text for line in read_lines(folder / "list.txt")] == ["\udcff.png"]


def keep(folder, option, text, encoding="utf-8"):
    (folder / "kept.list").write_bytes(text.encode(encoding))
    (folder / "data").mkdir(exist_ok=True)
    for name in ("cat", "dog"):
        if not (folder / "data" / name).exists():
            (folder / "data" / name).symlink_to(folder / name)
    return DataLocation(str(folder / "data"), **{option: str(folder / "kept.list")}).open()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_lists_of_images_and_of_classes_have_any_encoding(folder, encoding):
    source = keep(folder, "subset", "cat/0.png \r\ndog\\1.png\r\n\r\n", encoding)
    assert [source.train.name(i) for i in range(2)] == ["cat/0.png", "dog/1.png"]
    source = keep(folder, "classes", "dog\t\r\ncat\r\n", encoding)
    assert source.train.classes == ["cat", "dog"]


def test_a_name_of_two_images_is_refused_and_a_name_twice_is_told(folder):
    with pytest.raises(ValueError, match=r"the line '0.png' names 'cat/0.png' and 'dog/0.png'; give the path"):
        keep(folder, "subset", "cat/1.png\n0.png\n")
    with pytest.raises(ValueError, match=r"the line '0' names 'cat/0.png' and 'dog/0.png'"):
        keep(folder, "subset", "0\n")
    source = keep(folder, "subset", "cat/1.png\ncat/1.png\ndog/1.png\n")
    assert len(source.train) == 2
    assert source.notes[0].endswith("1 of its 3 lines name an image that another line names")


def test_a_subset_or_classes_that_leave_one_class_cannot_be_evaluated_on(folder):
    assert why_not_labelled(keep(folder, "subset", "\n".join(FILES[:5]))) == "the data has one class only, cat"
    assert why_not_labelled(keep(folder, "classes", "dog\n")) == "the data has one class only, dog"


def test_test_images_of_classes_that_a_subset_has_left_out_are_left_out_too(tmp_path):
    pixels = np.arange(9, dtype=np.uint8).repeat(64).reshape(9, 8, 8)
    labels = np.arange(9) % 3
    np.savez(tmp_path / "x.npz", train_x=pixels, train_y=labels, test_x=pixels[:3], test_y=labels[:3])
    (tmp_path / "some.txt").write_text("0\n1\n3\n4\n")
    source = DataLocation(str(tmp_path / "x.npz"), subset=str(tmp_path / "some.txt")).open()
    assert source.test.labels.tolist() == [0, 1]
    assert source.notes == ("test: 1 image left out, of classes without training images: 2 (1)",)
