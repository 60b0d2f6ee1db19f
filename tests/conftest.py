"""Fixtures that all tests use: one thread, a cache folder of their own, a fixed seed."""

import signal

import pytest
import torch

from command import end_commands


@pytest.fixture(autouse=True)
def one_thread():
    """Sets one thread: small tensors are faster so, and sums have the same bits on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
