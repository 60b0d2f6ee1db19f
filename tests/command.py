"""Runs the command line inside the test's own process."""

import sys

import pytest

from infomax import cli


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Returns the exit code, standard output and standard error of ``infomax WORDS``."""
    monkeypatch.setattr(sys, "argv", ["infomax", *words])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err
