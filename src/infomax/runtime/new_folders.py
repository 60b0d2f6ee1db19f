"""Writes a folder beside its place and moves it there when all of it is known to be right."""

import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from infomax.runtime.files import OLD, PARTIAL
from infomax.runtime.locks import try_exclusive


@contextmanager
def partial_folder(out: Path) -> Generator[Path]:
    """Yields a new hidden folder beside ``out``, by its absolute path; it is removed at the end, however that comes.

    A process that is killed leaves the folder, unlocked; the next one that writes ``out`` removes it.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftover_folders(out)
    folder = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(6)}{PARTIAL}")
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try_exclusive(descriptor)
    try:
        with _ended_by_sigterm():
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """Yields an empty folder, and moves it to ``out`` at the end; an exception leaves what was there as it was."""
    with partial_folder(out) as folder:
        contents = folder / out.name
        contents.mkdir()
        yield contents
        move_folder(contents, out, folder / "replaced")


@contextmanager
def _ended_by_sigterm() -> Generator[None]:
    """Lets SIGTERM end the block as an exception does, so that what was begun is removed."""
    # Python allows handlers in no other thread, and a program may have a handler of its own.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def remove_leftover_folders(out: Path) -> None:
    """Deletes the hidden folders that killed processes have left while they wrote ``out``.

    On a file system without locks, folders stay for a day.
    """
    for folder in out.parent.glob(f".{glob_escape(out.name)}.*{PARTIAL}"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                is_unlocked = try_exclusive(descriptor)
                if is_unlocked is None:
                    is_unlocked = time.time() - folder.stat().st_mtime > OLD
                if is_unlocked:
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def glob_escape(name: str) -> str:
    """Returns a pattern that matches one name alone."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def move_folder(written: Path, out: Path, trash: Path) -> None:
    """Moves a folder to its place; one that is there goes to ``trash`` first, and comes back if the move fails."""
    if not os.path.lexists(out):
        written.rename(out)
        return
    out.rename(trash)
    try:
        written.rename(out)
    except BaseException:
        trash.rename(out)
        raise
