"""Fixtures that all tests use: one thread, a cache folder of their own, a fixed seed."""

import pytest
import torch


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
