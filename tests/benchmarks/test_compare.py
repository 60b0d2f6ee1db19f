"""A change that makes something slower is seen in two results of the benchmark of speed."""

import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "compare.py"
specification = importlib.util.spec_from_file_location("compare", FILE)
compare = importlib.util.module_from_spec(specification)
specification.loader.exec_module(compare)


def kept(folder: Path, name: str, **ratios: float) -> str:
    rows = [{"name": row, "ratio": ratio} for row, ratio in ratios.items()]
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"commit": name, "rates": {"memory": 1.0}, "steps": [*rows, {"name": "a count"}]}))
    return str(file)


@pytest.mark.parametrize(
    ("now", "code"),
    [
        ({"mira": 0.5, "carl": 2.0}, 0),
        ({"mira": 0.54, "carl": 1.0}, 0),
        ({"mira": 0.56, "carl": 1.0}, 1),
        ({"mira": 0.5, "mveb": 9.0}, 0),
        ({"mveb": 0.1}, 1),
    ],
    ids=["same", "a little", "worse", "new", "nothing in common"],
)
def test_a_ratio_that_is_a_tenth_worse_is_an_error(tmp_path, now, code, capsys):
    assert compare.main(kept(tmp_path, "old", mira=0.5, carl=2.0), kept(tmp_path, "new", **now)) == code
    assert ("WORSE steps: mira" in capsys.readouterr().out) == (now.get("mira", 0) > 0.55)
