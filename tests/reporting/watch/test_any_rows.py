"""Whatever stands in the files of a run, it is shown or named, and nothing fails."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infomax.reporting.watch.follow import RunLines
from infomax.reporting.watch.live_page import live_page
from infomax.reporting.watch.picture import Look, picture
from infomax.reporting.watch.runs import WatchedRun
from watched_runs import health_row, loss_row, make_run

KEYS = sorted({*loss_row(1), *health_row(0), "knn_top1", "untrained_knn_top1", "prototypes", "verdict", "state", "own"})
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
OPTIONAL = dict.fromkeys([key for key in KEYS if key != "step"], VALUES)
ROWS = st.lists(st.fixed_dictionaries({"step": st.integers(0, 2**62)}, optional=OPTIONAL), max_size=8)


@pytest.fixture(scope="module")
def run():
    with tempfile.TemporaryDirectory() as folder:
        yield make_run(Path(folder) / "a")


@given(rows=ROWS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_are_shown(run, rows):
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = WatchedRun(run.path).update()
    assert len(shown.rows) == len(rows)
    assert picture([shown], Look(80, 24))
    assert RunLines(1.0).new_lines(shown, 0.0)
    assert "<h1>" in live_page([shown], "/").html


@given(config=st.one_of(VALUES, st.dictionaries(st.sampled_from(["recipe", "data", "images", "changes"]), VALUES)))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_settings_are_shown_or_named(run, config):
    folder = run.path.parent / "b"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    shown = WatchedRun(folder).update()
    assert shown.problem
    assert str(folder / "config.json") in "".join(line.text.strip() + " " for line in picture([shown], Look(300)))
    assert live_page([shown], "/").html
