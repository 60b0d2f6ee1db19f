"""Locks: one process at a time writes a run folder, and no two processes write one file at once.

A folder is locked by the kernel (POSIX record locks), so that a lock vanishes with its process, however that ends. A
process that was forked, such as a worker that reads images, never holds it. NFS has these locks too. Where a file
system has none, a file with the number, the machine and the starting time of the process stands in for the lock.
"""

import errno
import json
import os
import socket
import struct
import sys
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from infomax.runtime.text import note

if sys.platform != "win32":  # where the losses can be imported, but nothing is written: runtime/systems.py
    import fcntl

LOCK_FILE = ".lock"
WRITER, FIRST_RANK = 0, 1  # bytes of the lock file: for the process that was started, and for the first of its ranks
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
PATIENCE = 60.0  # seconds to wait for a process that adds a row; it takes less than a millisecond
MAX_TRIES = 100  # times that the lock file is opened anew because its holder has removed it meanwhile
_held: dict[tuple[str, int], int] = {}  # folder and byte, and the process that holds it, for POSIX locks bind processes
_guard = threading.Lock()


class LockedError(ValueError):
    """An error that says which process writes a folder that was to be written."""


class FolderLock:
    """A lock on a folder, which is held from the beginning of the ``with`` block to its end.

    The process that a user starts takes it as :data:`WRITER`. If it starts ranks, the first of them takes it too, as
    :data:`FIRST_RANK`: if their parent is killed, nobody else writes the folder until they have ended.

    Args:
        folder: The folder, which must exist. The lock is a hidden file in it, which is removed at the end.
        part: :data:`WRITER` or :data:`FIRST_RANK`.

    Raises:
        LockedError: if another process holds it, saying which one and since when.
        OSError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, part: int = WRITER):
        self.folder, self.part = folder, part
        self._key = os.path.realpath(folder), part
        self._finalizer: Any = None
        _reserve(folder, self._key)
        try:
            self._acquire()
        except BaseException:
            _held.pop(self._key, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock: it was not given back, and the process was not forked since."""
        return self._finalizer.alive and _held.get(self._key) == os.getpid()

    def release(self) -> None:
        """Gives the lock back; a second call does nothing."""
        self._finalizer()

    def _acquire(self) -> None:
        file = self.folder / LOCK_FILE
        for _ in range(MAX_TRIES):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if taken := self._taken_part(descriptor):
                    raise LockedError(_describe_holder(self.folder, _read_holder(descriptor, taken - 1)))
                if is_file_at(descriptor, file):
                    _write_holder(descriptor, self.part)
                    break
            except OSError as error:
                os.close(descriptor)
                if error.errno not in UNSUPPORTED:
                    raise
                self._acquire_by_file(error)
                return
            except LockedError:
                os.close(descriptor)
                raise
            os.close(descriptor)  # the holder has removed this file between our opening and locking it
        else:
            raise LockedError(_describe_holder(self.folder, {}))
        removed = file if self.part == WRITER else None
        self._finalizer = weakref.finalize(self, _release, self._key, descriptor, removed)

    def _taken_part(self, descriptor: int) -> int:
        """Locks this part of the file; returns 0, or 1 plus the part that another process holds."""
        if not _try_lock(descriptor, self.part):
            return 1 + self.part
        if self.part == WRITER:  # ranks may be saving themselves after the process that started them was killed
            if not _try_lock(descriptor, FIRST_RANK):
                return 1 + FIRST_RANK
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, FIRST_RANK)
        return 0

    def _acquire_by_file(self, reason: OSError) -> None:
        """Makes a file that names this process, in place of a lock."""
        with suppress(OSError):
            (self.folder / LOCK_FILE).unlink()
        for part in {self.part, FIRST_RANK} if self.part == WRITER else {self.part}:
            file = self.folder / f"{LOCK_FILE}-{part}"
            if (holder := _live_holder(file)) is not None:
                raise LockedError(f"{_describe_holder(self.folder, holder)}; if it has ended, remove {file}")
        file = self.folder / f"{LOCK_FILE}-{self.part}"
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            raise LockedError(_describe_holder(self.folder, _live_holder(file) or {})) from None
        os.write(descriptor, json.dumps(_this_process()).encode())
        self._finalizer = weakref.finalize(self, _release, self._key, descriptor, file)
        if self.part == WRITER:
            note(f"{self.folder} cannot be locked ({reason.strerror}); {file} stands in")


def _reserve(folder: Path, key: tuple[str, int]) -> None:
    """Notes that this process takes a lock; raises LockedError if another thread of it has done so."""
    with _guard:
        if _held.get(key) == os.getpid():
            raise LockedError(_describe_holder(folder, _this_process()))
        _held[key] = os.getpid()


def _release(key: tuple[str, int], descriptor: int, file: Path | None) -> None:
    """Removes the lock's file and closes it, which unlocks it; a forked process closes its copy alone."""
    if _held.get(key) == os.getpid():
        if file is not None:  # removed while it is locked, so that nobody locks a file that is then removed
            with suppress(OSError):
                if is_file_at(descriptor, file):
                    file.unlink()
        del _held[key]
    os.close(descriptor)


def _try_lock(descriptor: int, part: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, part)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def is_file_at(descriptor: int, file: Path) -> bool:
    """Returns whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pid = os.getpid()
    return {"pid": pid, "host": socket.gethostname(), "since": now, "started": _start_of_process(pid)}


def is_written(folder: Path) -> bool | None:
    """Returns whether a process writes a folder now, without taking the lock: nothing in the folder changes.

    Args:
        folder: The folder, which need not exist.

    Returns:
        Whether one does; None if that cannot be known from here.
    """
    real = os.path.realpath(folder)
    if any(name == real and process == os.getpid() for (name, _), process in list(_held.items())):
        return True  # to open and close the file here would give the lock of this process back
    for part in (WRITER, FIRST_RANK):
        stand_in = _holder_in(folder / f"{LOCK_FILE}-{part}")
        if stand_in is not None and not _has_ended(stand_in):
            return True
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if _is_locked_by_another(descriptor):
                return True
            holders = _read_holders(descriptor).values()
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    hosts = {str(holder.get("host")) for holder in holders if isinstance(holder, dict)}
    return False if hosts <= {socket.gethostname()} else None  # the locks of another machine may not be seen from here


def _is_locked_by_another(descriptor: int) -> bool:
    """Returns whether another process has locked a part of an open file; raises OSError if that cannot be asked."""
    is_linux = sys.platform == "linux"  # the order of the parts of C's structure flock
    layout, place = ("hhqqi4x", 0) if is_linux else ("qqihh", 3)
    parts = [0] * 5
    parts[place] = fcntl.F_RDLCK  # the rest asks for the whole file, from its beginning
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *parts))
    return struct.unpack(layout, answer)[place] != fcntl.F_UNLCK


def _start_of_process(pid: int) -> str | None:
    """Returns when a process of this machine was started, in the system's units; None if it has ended or is unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _write_holder(descriptor: int, part: int) -> None:
    """Writes into the lock file which process holds a part of it."""
    holders = {} if part == WRITER else _read_holders(descriptor)
    content = json.dumps({**holders, str(part): _this_process()}).encode()
    with suppress(OSError):  # on a full disk the lock still holds, without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)


def _read_holders(descriptor: int) -> dict[str, Any]:
    try:
        holders = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return holders if isinstance(holders, dict) else {}


def _read_holder(descriptor: int, part: int) -> dict[str, Any]:
    """Returns which process holds a part of the lock; it may be about to write that."""
    for _ in range(20):
        holder = _read_holders(descriptor).get(str(part))
        if isinstance(holder, dict):
            return holder
        time.sleep(0.01)
    return {}


def _live_holder(file: Path) -> dict[str, Any] | None:
    """Returns the process that a file names, if it may still run; removes the file of a process that has ended."""
    if (holder := _holder_in(file)) is not None and _has_ended(holder):
        file.unlink(missing_ok=True)
        return None
    return holder


def _holder_in(file: Path) -> dict[str, Any] | None:
    """Returns the process that a file names, which is empty if it cannot be read; None if there is no such file."""
    try:
        holder = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _has_ended(holder: dict[str, Any]) -> bool:
    """Returns whether a process is known to have ended: it was one of this machine."""
    can_be_asked = holder.get("host") == socket.gethostname() and Path("/proc/self/stat").exists()
    return can_be_asked and _start_of_process(holder.get("pid", 0)) != holder.get("started")


def _describe_holder(folder: Path, holder: dict[str, Any]) -> str:
    process = f"process {holder['pid']} on host {holder.get('host')}" if "pid" in holder else "another process"
    since = f" since {holder['since']}" if "since" in holder else ""
    return f"{folder} is being written by {process}{since}; wait until it ends, or choose another folder"


@contextmanager
def exclusive_file(descriptor: int) -> Generator[None]:
    """Waits until no other process or thread has an open file locked by this function, and locks it for the block.

    On a file system without locks it does not wait.

    Raises:
        OSError: if another process keeps the lock for more than a minute.
    """
    until = time.monotonic() + PATIENCE
    while (is_locked := try_exclusive(descriptor)) is False:
        if time.monotonic() > until:
            raise OSError(errno.EAGAIN, "another process has kept the file locked for a minute")
        time.sleep(0.005)
    try:
        yield
    finally:
        if is_locked:
            unlock(descriptor)  # a process that was forked meanwhile would keep the lock


def try_exclusive(descriptor: int) -> bool | None:
    """Locks an open file for this opening of it; False if another opening has it, None if the file system cannot."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno in (*UNSUPPORTED, errno.EBADF):
            return None
        raise
    return True


def unlock(descriptor: int) -> None:
    """Gives back what :func:`try_exclusive` has locked, also for processes that were forked since."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
