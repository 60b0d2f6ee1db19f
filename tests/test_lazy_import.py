"""What is said while a name of the package loads what it needs."""

import importlib
import io
import time

import pytest

import infomax


@pytest.mark.parametrize("is_terminal", [True, False])
def test_somebody_at_a_terminal_is_told_of_an_import_that_takes_long(monkeypatch, is_terminal):
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", stream)

    def import_slowly(name):
        time.sleep(0.4)
        return importlib.import_module(name)

    monkeypatch.setattr(infomax, "import_module", import_slowly)
    monkeypatch.delitem(vars(infomax), "Run", raising=False)
    assert infomax.Run.__name__ == "Run"
    assert stream.getvalue().startswith("infomax: importing infomax.Run ... 0.") == is_terminal
