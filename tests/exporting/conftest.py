"""A run of a few seconds that the tests of exports share."""

import pytest

import infomax


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A run on the digits with results of k-NN."""
    options = {"epochs": 2, "image_size": 8, "batch_size": 700, "quiet": True}
    run = infomax.pretrain(data="digits", out=tmp_path_factory.mktemp("runs") / "digits", method="carl", **options)
    infomax.evaluate("knn", run)
    return run
