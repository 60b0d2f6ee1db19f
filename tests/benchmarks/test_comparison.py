"""The comparison of all methods keeps what was measured elsewhere beside what a folder of runs has."""

import json
import sys

import comparison


def collect(monkeypatch, runs, out):
    monkeypatch.setattr(sys, "argv", ["comparison.py", str(runs), "--collect", "--out", str(out)])
    comparison.main()
    return json.loads(out.read_text())["comparisons"]


def test_collecting_keeps_what_other_runs_measured(tmp_path, monkeypatch):
    out = tmp_path / "comparison.json"
    kept = [{"data": data, "budget": "images", "recommendation": "kept"} for data in ("digits", "cifar10")]
    out.write_text(json.dumps({"comparisons": kept}))
    assert collect(monkeypatch, tmp_path / "none", out) == kept
    measured = {"data": "digits", "budget": "images", "recommendation": "measured"}
    monkeypatch.setattr(comparison, "collect", lambda data, budget, _: measured if budget == "images" else None)
    assert collect(monkeypatch, tmp_path / "none", out) == [measured, kept[1]]


def test_each_set_of_images_is_compared_at_equal_images_and_at_equal_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparison.subprocess, "run", lambda words, **_: Ended(words))
    monkeypatch.setattr(sys, "argv", ["comparison.py", str(tmp_path), "--out", str(tmp_path / "comparison.json")])
    comparison.main()
    commands = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("infomax")]
    assert sorted(words[words.index("--budget") + 1] for words in commands) == ["42epochs", "60s"]
    assert all(words[words.index("--seeds") + 1] == "3" for words in commands)


class Ended:
    """A command that has ended well."""

    returncode = 0

    def __init__(self, words):
        self.words = words
