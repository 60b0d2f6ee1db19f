"""Fixtures that all tests use: one thread, a cache folder of their own, a fixed seed."""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

# Threads that wait for each other take most of the time of small matrices, and pytest-xdist keeps all cores busy
# anyway. BLAS and OpenMP read this when numpy and torch are imported, also in the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
# Each session and many tests have a cache folder of their own, in which every process would compile the kernels anew.
CACHE = Path(__file__).parent.parent / ".pytest_cache"
os.environ.setdefault("NUMBA_CACHE_DIR", str(CACHE / "numba"))
if sys.dont_write_bytecode:
    # Each of the many processes that tests start would compile torch, which takes as long as importing it. What may
    # not be written beside the sources is written into pytest's own folder.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(CACHE / "bytecode")

import torch
from threadpoolctl import threadpool_limits

from browser import as_file, opened_page, start_chromium
from command import end_commands


@pytest.fixture(autouse=True)
def one_thread():
    """Sets one thread: small tensors are faster so, and sums have the same bits on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def one_thread_in_blas():
    """Sets one thread in numpy, too, which a plugin of pytest may have imported before this file."""
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True, scope="session")
def session_cache_folder(tmp_path_factory):
    """Sets a cache folder for the tests and the processes that they start, apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Processes inherit that Ctrl-C is ignored, as a shell has it for what it starts in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_command_outlives_its_test():
    yield
    end_commands()


@pytest.fixture(scope="session")
def chromium():
    """The system's Chromium, without a window."""
    with start_chromium() as browser:
        yield browser


@pytest.fixture
def open_page(chromium, tmp_path):
    """A function that opens a page in Chromium: ``open_page(html, width=360, scheme="dark")``; see ``browser.py``."""
    with ExitStack() as stack:
        yield lambda html, **window: stack.enter_context(opened_page(chromium, as_file(tmp_path, html), **window))
