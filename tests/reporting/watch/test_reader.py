"""Rows are read once, when they are whole, and anew if the file is another one."""

import json
import os

import pytest

from infomax.reporting.watch import reader as reading
from infomax.reporting.watch.reader import CHUNK, LinesReader


@pytest.fixture
def file(tmp_path):
    return tmp_path / "metrics.jsonl"


def lines(*steps, **values):
    return "".join(json.dumps({"step": step, **values}) + "\n" for step in steps)


def steps(read):
    rows, is_anew = read
    return [row["step"] for row in rows], is_anew


def test_each_row_is_read_once(file):
    reader = LinesReader(file)
    assert reader.read() == ([], False)
    assert reader.changed_at is None
    file.write_text(lines(1, 2))
    assert steps(reader.read()) == ([1, 2], False)
    assert steps(reader.read()) == ([], False)
    with file.open("a") as out:
        out.write(lines(3))
    assert steps(reader.read()) == ([3], False)
    assert reader.changed_at == file.stat().st_mtime


def test_only_what_is_new_is_read_from_the_disk(file, monkeypatch):
    file.write_text(lines(*range(5000), note="x" * 100))
    reader = LinesReader(file)
    reader.read()
    parsed, parse_row = [], reading._parse_row
    monkeypatch.setattr(reading, "_parse_row", lambda line: (parsed.append(line), parse_row(line))[1])
    with file.open("a") as out:
        out.write(lines(5000))
    assert steps(reader.read()) == ([5000], False)
    assert len(parsed) == 1


def test_a_torn_last_line_is_read_when_it_is_whole(file):
    reader = LinesReader(file)
    text = lines(1, 2)
    for end in range(len(text) + 1):
        file.write_text(text[:end])  # keeps the inode, as the run that appends does
        rows, is_anew = reader.read()
        assert not is_anew
        assert [row["step"] for row in rows] == [step for step in (1, 2) if end == len(lines(*range(1, step + 1)))]
    assert reader.damaged == 0


def test_a_line_that_a_full_disk_cut_short_is_counted_and_left_out(file):
    file.write_text('{"step": 1, "lo\n' + lines(2) + "[3]\n4\n\n" + '{"step": true}\n{"loss": 1}\n{"step": -1}\n')
    reader = LinesReader(file)
    assert steps(reader.read()) == ([2], False)
    assert reader.damaged == 6


def test_not_a_number_is_a_value(file):
    file.write_text('{"step": 1, "loss": NaN}\n')
    ((row,), _) = LinesReader(file).read()
    assert row["loss"] != row["loss"]


def test_a_file_that_was_replaced_is_read_anew(file, tmp_path):
    """As a resumed run replaces it, by a shorter one."""
    reader = LinesReader(file)
    file.write_text(lines(1, 2, 3))
    reader.read()
    (tmp_path / "new").write_text(lines(1, 2, 9, 10))
    (tmp_path / "new").replace(file)
    assert steps(reader.read()) == ([1, 2, 9, 10], True)


def test_a_file_that_was_truncated_is_read_anew(file):
    reader = LinesReader(file)
    file.write_text(lines(1, 2, 3))
    reader.read()
    os.truncate(file, len(lines(1)))
    assert steps(reader.read()) == ([1], True)


@pytest.mark.parametrize("old", [(1, 2, 3), tuple(range(100, 300))])
def test_another_file_with_the_same_inode_is_read_anew(file, old):
    """A file system may give a new file the number of one that was removed; it may be as long, or longer."""
    reader = LinesReader(file)
    file.write_text(lines(*old))
    reader.read()
    inode = file.stat().st_ino
    other = [step + 1 for step in old]
    file.write_text(lines(*other)[: len(lines(*old))])
    os.utime(file, (1, 1))
    assert file.stat().st_ino == inode
    rows, is_anew = reader.read()
    assert is_anew
    assert [row["step"] for row in rows] == other[: len(rows)]


def test_a_file_that_was_removed_is_no_row(file):
    reader = LinesReader(file)
    file.write_text(lines(1))
    reader.read()
    file.unlink()
    assert reader.read() == ([], True)
    assert reader.read() == ([], False)
    file.write_text(lines(5))
    assert steps(reader.read()) == ([5], False)


def test_lines_longer_than_what_is_read_at_once(file, monkeypatch):
    file.write_text(lines(1, note="x" * (2 * CHUNK)) + lines(2))
    assert steps(LinesReader(file).read()) == ([1, 2], False)
    monkeypatch.setattr("infomax.reporting.watch.reader.MAX_LINE", CHUNK)
    reader = LinesReader(file)
    assert steps(reader.read()) == ([2], False)
    assert reader.damaged == 1


def test_what_is_no_file_is_refused(file):
    os.mkfifo(file)
    with pytest.raises(ValueError, match="is no regular file"):
        LinesReader(file).read()
