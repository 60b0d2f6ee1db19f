"""Two processes never write one folder or one file at once, and what a killed process has locked is free."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from infomax.runtime import locks
from infomax.runtime.files import remove_leftovers, write_atomic
from infomax.runtime.json_lines import append_json_line, read_json_lines
from infomax.runtime.locks import FIRST_RANK, LOCK_FILE, FolderLock, LockedError, exclusive_file, is_written

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, part: int, connection, children: int = 0) -> None:
    """Locks the folder, says so, and waits to be killed; its forked children outlive it."""
    lock = FolderLock(folder, part)
    pids = []
    for _ in range(children):
        if (pid := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        pids.append(pid)
    connection.send(pids)
    time.sleep(60)
    lock.release()


def start_holder(folder: Path, part: int = locks.WRITER, children: int = 0):
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold, args=(folder, part, there, children))
    process.start()
    return process, here.recv()


def kill(process) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.fixture
def without_kernel_locks(monkeypatch):
    """A file system that has no locks, as some network file systems."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("part", [locks.WRITER, FIRST_RANK])
def test_a_locked_folder_is_refused_with_its_holder_and_free_when_that_is_killed(tmp_path, part):
    """A first rank that outlives the process that started it keeps the folder too."""
    process, _ = start_holder(tmp_path, part)
    with pytest.raises(LockedError, match=rf"being written by process {process.pid} on host \S+ since 20"):
        FolderLock(tmp_path)
    kill(process)
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["0"]["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_forked_children_do_not_hold_the_lock(tmp_path):
    """As workers that read images do for some seconds after their parent was killed."""
    process, children = start_holder(tmp_path, children=2)
    try:
        kill(process)
        assert all(Path(f"/proc/{pid}").exists() for pid in children)
        FolderLock(tmp_path).release()
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


def test_one_process_does_not_lock_a_folder_twice(tmp_path):
    """The kernel's locks would allow it."""
    (tmp_path / "link").symlink_to(tmp_path)
    with FolderLock(tmp_path):
        with pytest.raises(LockedError, match=rf"by process {os.getpid()} on"):
            FolderLock(tmp_path / "link")
        with FolderLock(tmp_path, FIRST_RANK):  # as a rank does, in another process
            pass
    FolderLock(tmp_path).release()


def test_a_lock_that_nobody_refers_to_is_given_back(tmp_path):
    lock = FolderLock(tmp_path)
    del lock
    FolderLock(tmp_path).release()


def take_in_turn(folder: Path, seconds: float) -> None:
    """Takes and releases the lock as often as it can; while it is held, nobody else may be inside."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with FolderLock(folder):
                (folder / "inside").mkdir()  # fails if another process is inside
                (folder / "inside").rmdir()
        except LockedError:
            pass


def test_the_removal_of_the_lock_file_lets_no_two_in(tmp_path):
    processes = [FORK.Process(target=take_in_turn, args=(tmp_path, 0.5)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_has_a_file_instead(tmp_path, without_kernel_locks, capsys):
    process, _ = start_holder(tmp_path)
    with pytest.raises(LockedError, match=rf"by process {process.pid} on .*; if it has ended, remove \S+lock-0"):
        FolderLock(tmp_path)
    kill(process)
    with FolderLock(tmp_path):
        assert "cannot be locked (No locks available)" in capsys.readouterr().err
    other = {"pid": 1, "host": "elsewhere", "since": "2026-01-01", "started": "7"}
    (tmp_path / f"{LOCK_FILE}-1").write_text(json.dumps(other))
    with pytest.raises(LockedError, match="by process 1 on host elsewhere since 2026-01-01; .*; if it has ended"):
        FolderLock(tmp_path)


def append_rows(file: Path, name: str) -> None:
    for number in range(200):
        append_json_line(file, {"name": name, "number": number, "text": "x" * 20_000})


def test_rows_of_two_processes_never_mix(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"cut": ')
    processes = [FORK.Process(target=append_rows, args=(file, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_json_lines(file)) == 400
    assert len(file.read_bytes().splitlines()) == 401


def test_rows_are_added_where_files_cannot_be_locked(tmp_path, without_kernel_locks):
    append_json_line(tmp_path / "rows.jsonl", {"a": 1})
    assert read_json_lines(tmp_path / "rows.jsonl") == [{"a": 1}]


def test_a_file_that_stays_locked_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.02)
    with (tmp_path / "x").open("wb") as first, (tmp_path / "x").open("rb") as second:
        with (
            exclusive_file(first.fileno()),
            pytest.raises(OSError, match="kept the file locked"),
            exclusive_file(second.fileno()),
        ):
            pass
        with exclusive_file(second.fileno()):
            pass


def test_threads_write_one_file_and_it_is_always_whole(tmp_path):
    file, contents = tmp_path / "x", {bytes([65 + i]) * 200_000 for i in range(4)}
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(10):
                write_atomic(file, content)
                remove_leftovers(tmp_path)  # those of living writers stay
                assert file.read_bytes() in contents
        except BaseException as error:  # of any kind: a thread's error would be lost
            failures.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def write_for_ever(file: Path, connection) -> None:
    fsync, os.fsync = os.fsync, lambda _: (connection.send(None), time.sleep(60))
    try:
        write_atomic(file, b"x")
    finally:
        os.fsync = fsync


def test_what_a_killed_process_was_writing_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    here, there = FORK.Pipe()
    process = FORK.Process(target=write_for_ever, args=(tmp_path / "x", there))
    process.start()
    here.recv()
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.glob(".x.*.partial"))) == 1
    kill(process)
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_leftovers_on_a_file_system_without_locks_stay_for_a_day(tmp_path, without_kernel_locks):
    for name, age in (("new", 0), ("old", 90_000)):
        (tmp_path / f".{name}.partial").touch()
        os.utime(tmp_path / f".{name}.partial", (time.time() - age,) * 2)
    remove_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".new.partial"]


def test_a_folder_is_asked_for_its_writer_without_being_locked(tmp_path):
    assert is_written(tmp_path / "none") is False
    assert is_written(tmp_path) is False
    for part in (locks.WRITER, FIRST_RANK):
        process, _ = start_holder(tmp_path, part)
        assert is_written(tmp_path) is True
        assert is_written(tmp_path / ".." / tmp_path.name) is True
        kill(process)
        assert is_written(tmp_path) is False
        assert (tmp_path / LOCK_FILE).exists()  # it is only looked at
    with FolderLock(tmp_path):
        assert is_written(tmp_path) is True
        with FORK.Pool(1) as pool, pytest.raises(LockedError):  # to ask has not given this process's lock back
            pool.apply(FolderLock, [tmp_path])
    assert is_written(tmp_path) is False


def test_the_writer_on_another_machine_may_not_be_seen_from_here(tmp_path):
    file = tmp_path / LOCK_FILE
    file.write_text(json.dumps({"0": {"pid": 1, "host": "elsewhere"}}))
    assert is_written(tmp_path) is None
    for content in ("", "[]", '{"0": 7}', "\xff"):
        file.write_text(content)
        assert is_written(tmp_path) is False
    file.unlink()
    os.mkfifo(file)
    assert is_written(tmp_path) in (False, None)


def test_a_writer_where_there_are_no_locks(tmp_path, without_kernel_locks, capsys):
    with FolderLock(tmp_path):
        assert is_written(tmp_path) is True
    stand_in = tmp_path / f"{LOCK_FILE}-0"
    ended = {**locks._this_process(), "started": "1"}
    stand_in.write_text(json.dumps(ended))
    assert is_written(tmp_path) is False
    assert stand_in.exists()
    stand_in.write_text(json.dumps({**ended, "host": "elsewhere"}))
    assert is_written(tmp_path) is True
