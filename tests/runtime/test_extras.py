"""What installs an optional part depends on where infomax comes from."""

import importlib.metadata
from types import SimpleNamespace

import pytest

from infomax.runtime import extras


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (None, "pip install 'infomax[onnx]'"),
        ('{"url": "https://x/infomax.whl", "archive_info": {}}', "pip install 'infomax[onnx]'"),
        (
            '{"url": "file:///x", "dir_info": {"editable": true}}',
            "in the clone, uv run --extra onnx infomax ..., or pip install -e '.[onnx]'",
        ),
    ],
)
def test_a_clone_is_told_from_a_package_of_an_index(monkeypatch, origin, words):
    monkeypatch.setattr(extras, "distribution", lambda name: SimpleNamespace(read_text=lambda file: origin))
    extras.is_clone.cache_clear()
    assert extras.how_to_install("onnx") == words
    extras.is_clone.cache_clear()


def test_every_extra_that_is_advised_exists():
    named = set(importlib.metadata.metadata("infomax").get_all("Provides-Extra"))
    assert {"faiss", "huggingface", "mlflow", "onnx", "parquet", "streams", "trackio", "wandb"} <= named
