"""What is known of a run while it trains, whatever happens to its folder."""

import json
import os
import shutil
import time

import pytest

from infomax.analysis.verdicts import verdicts_of
from infomax.reporting.watch import runs
from infomax.reporting.watch.runs import WatchedRun, WatchedRuns
from infomax.runtime.locks import LOCK_FILE, FolderLock
from watched_runs import (
    EPOCHS,
    TOTAL,
    add_encoder,
    add_rows,
    collapsed_rows,
    finish,
    health_row,
    loss_row,
    make_run,
    rows_until,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a"


@pytest.fixture
def locked(folder):
    """A run of 220 steps that this process writes."""
    run = make_run(folder)
    with FolderLock(folder):
        yield run


def test_a_run_from_its_beginning_to_its_end(folder):
    watched = WatchedRun(folder)
    shown = watched.update()
    assert (shown.phase, shown.describe_phase()) == ("absent", "no such folder or file; waiting for a run")
    folder.mkdir()
    assert watched.update().describe_phase() == "no config.json yet; waiting for a run"
    run = make_run(folder)
    with FolderLock(folder):
        shown = watched.update()
        assert (shown.phase, shown.steps, shown.share) == ("starting", 0, 0.0)
        assert shown.settings.title == f"mveb/digits with epochs={EPOCHS}"
        assert (shown.settings.data, shown.settings.total_steps) == ("digits", TOTAL)
        add_rows(run, rows_until(100))
        shown = watched.update()
        assert (shown.phase, shown.steps, shown.share) == ("running", 100, 100 / TOTAL)
        assert shown.newest("knn_top1") == 0.58
        assert shown.newest("untrained_knn_top1") == 0.471
        assert shown.newest("nothing") is None
        assert shown.seconds_left == pytest.approx((TOTAL - 100) / 2)
        add_rows(run, rows_until(TOTAL)[len(rows_until(100)) :])
        add_encoder(run)
        assert watched.update().phase == "running"  # it scores and saves
    shown = watched.update()
    assert (shown.phase, shown.describe_phase()) == ("finished", "finished")
    assert shown.closing == ("embeddings: effective rank from 48.9 to 40.0, mean cosine from 0.32 to 0.30: no sign of "
                             "collapse or divergence, which does not say that it has learned",)  # fmt: skip


def test_a_run_that_nobody_writes_has_stopped(folder):
    run = make_run(folder)
    watched = WatchedRun(folder)
    command = f"infomax pretrain --out {folder} --resume"
    expected = f"stopped before its first row, no process writes it: {command} goes on"
    assert watched.update().describe_phase() == expected
    add_rows(run, rows_until(60))
    assert WatchedRun(folder).update().describe_phase() == expected.replace("before its first row", "at step 60")
    add_encoder(run, 67)  # saved by Ctrl-C, between two rows
    assert WatchedRun(folder).update().describe_phase() == expected.replace("before its first row", "at step 67")
    add_encoder(run, 40)  # killed, after rows that are trained again
    assert WatchedRun(folder).update().steps == 60
    add_rows(run, [loss_row(TOTAL)])
    add_encoder(run, TOTAL - 20)
    assert WatchedRun(folder).update().phase == "stopped"  # killed before it was saved
    add_encoder(run)
    assert WatchedRun(folder).update().phase == "finished"
    (folder / "encoder.json").unlink()
    assert WatchedRun(folder).update().phase == "finished"  # as a copy without the encoder


def test_rows_of_a_resumed_run_are_those_of_its_file(locked, folder):
    watched = WatchedRun(folder)
    add_rows(locked, rows_until(100))
    assert watched.update().steps == 100
    locked.cut_metrics(40)
    assert (watched.update().steps, len(watched.update().rows)) == (40, len(locked.read_rows("metrics.jsonl")))
    add_rows(locked, [loss_row(60, loss=7.0)])
    shown = watched.update()
    assert [dict(row) for row in shown.rows] == locked.read_rows("metrics.jsonl")
    assert shown.newest("loss") == 7.0


def test_a_run_that_was_extended_has_more_steps(locked, folder):
    finish(locked)
    watched = WatchedRun(folder)
    assert watched.update().share == 1.0
    locked.extend(2 * EPOCHS)
    shown = watched.update()
    assert (shown.settings.total_steps, shown.share) == (2 * TOTAL, 0.5)
    assert "epochs=40" in shown.settings.title


def test_a_run_that_was_overwritten_or_deleted(locked, folder):
    watched = WatchedRun(folder)
    add_rows(locked, rows_until(100))
    watched.update()
    (folder / "metrics.jsonl").unlink()
    make_run(folder, method="carl", overwrite=True)
    shown = watched.update()
    assert (shown.phase, shown.rows, shown.settings.method) == ("starting", (), "carl")
    shutil.rmtree(folder)
    assert (watched.update().phase, watched.update().settings) == ("absent", None)


def test_verdicts_are_those_that_the_run_itself_says(folder):
    run = make_run(folder)
    watched, said = WatchedRun(folder), []
    for row in collapsed_rows(120):
        add_rows(run, [row])
        said.append(tuple(v for v in watched.update().verdicts if v.state != "watching"))
    assert said[-1] == verdicts_of(run)
    assert [(v.name, v.state, v.step) for v in said[-1]] == [("total collapse", "failed", 59)]
    assert "--learning-rate" in said[-1][0].advice
    run.cut_metrics(20)
    assert watched.update().verdicts == ()


def test_what_may_pass_is_named_only_when_healthy_runs_look_healthy(folder):
    run = make_run(folder)
    watched = WatchedRun(folder)
    add_rows(run, [health_row(0), health_row(10, cosine=0.999, level=0.97)])
    assert watched.update().verdicts == ()
    add_rows(run, [health_row(20), health_row(40, cosine=0.999, level=0.97)])
    assert [(v.name, v.state) for v in watched.update().verdicts] == [("total collapse", "watching")]


def test_rows_that_are_overdue_are_named(locked, folder):
    add_rows(locked, rows_until(100))

    def phase(age):
        os.utime(folder / "metrics.jsonl", (time.time() - age,) * 2)
        return WatchedRun(folder).update()

    assert phase(50).phase == "running"
    shown = phase(240)
    assert (shown.phase, shown.describe_phase()) == ("silent", "no news for 4 min: its process still holds the run")
    add_rows(locked, [loss_row(120, seconds=150.0)])  # 100 s after the row before: so long may it take again
    assert phase(240).phase == "running"
    assert phase(501).phase == "silent"


def test_a_run_of_another_machine_is_judged_by_its_rows(folder):
    run = make_run(folder)
    add_rows(run, rows_until(100))
    (folder / LOCK_FILE).write_text(json.dumps({"0": {"pid": 7, "host": "elsewhere"}}))
    assert WatchedRun(folder).update().phase == "running"
    os.utime(folder / "metrics.jsonl", (time.time() - 240,) * 2)
    shown = WatchedRun(folder).update()
    assert shown.describe_phase() == "no news for 4 min: is it still running?"


def test_rows_that_come_although_nothing_is_locked_are_those_of_a_running_run(folder):
    """As a copy that is brought here again and again."""
    run = make_run(folder)
    add_rows(run, rows_until(40))
    watched = WatchedRun(folder)
    assert watched.update().phase == "stopped"
    add_rows(run, [loss_row(60)])
    assert watched.update().phase == "running"
    assert watched.update().phase == "running"


def test_a_clock_that_is_wrong_makes_no_run_silent_or_young(locked, folder):
    add_rows(locked, rows_until(40))
    watched = WatchedRun(folder)
    watched.update()
    for wrong in (-7200, 7200):
        add_rows(locked, [loss_row(60)])
        os.utime(folder / "metrics.jsonl", (time.time() + wrong,) * 2)
        shown = watched.update()
        assert shown.phase == "running"
        assert shown.age < 60


def test_a_damaged_file_is_a_problem_that_is_named(locked, folder):
    add_rows(locked, rows_until(40))
    watched = WatchedRun(folder)
    watched.update()
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config[:50])
    shown = watched.update()
    assert shown.problem.startswith(f"{folder / 'config.json'} is damaged")
    assert shown.steps == 40
    (folder / "config.json").write_text(config)
    add_rows(locked, [loss_row(60)])
    assert (watched.update().problem, watched.update().steps) == ("", 60)


def test_a_method_that_is_not_installed_here_is_shown_too(folder):
    run = make_run(folder)
    config = run.config
    config["recipe"]["method"] = {"name": "yours", "weight": 1.0}
    (folder / "config.json").write_text(json.dumps(config))
    add_rows(run, rows_until(40))
    assert WatchedRun(folder).update().settings.title.startswith("yours/digits")


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}, {"batch_size": -5}])
def test_impossible_numbers_are_no_error(folder, change):
    run = make_run(folder)
    config = run.config
    config["recipe"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    add_rows(run, rows_until(40))
    assert 0 <= WatchedRun(folder).update().share <= 1


def test_a_folder_of_runs_stands_for_the_runs_in_it(tmp_path):
    runs_folder = tmp_path / "sweep"
    with FolderLock(make_run(runs_folder / "b").path):
        watched = WatchedRuns([runs_folder])
        assert [shown.folder.name for shown in watched.update()] == ["b"]
        make_run(runs_folder / "a")
        assert [shown.folder.name for shown in watched.update()] == ["a", "b"]
    with FolderLock(runs_folder):  # as its sweep holds it
        for name in "ab":
            finish(runs_folder / name)
        assert not watched.are_finished(watched.update())
    assert watched.are_finished(watched.update())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "a run folder is wanted, as runs/a"),
        (("photos",), "photos is not a run folder: it has no config.json"),
        (("file",), "file is not a run folder, but a file"),
    ],
)
def test_what_can_become_no_run_is_refused(tmp_path, monkeypatch, names, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        WatchedRuns([tmp_path.__class__(name) for name in names])


def test_a_run_is_only_looked_at(folder):
    """Nothing in the folder changes, and nothing is added."""
    run = make_run(folder)
    finish(run)
    files = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    os.chmod(folder, 0o500)
    watched = WatchedRuns([folder])
    for _ in range(3):
        watched.update()
    os.chmod(folder, 0o700)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()} == files


def test_the_time_left_is_that_of_the_last_rows(locked, folder):
    """Not of the whole run, whose first steps may have been slow."""
    slow = [loss_row(step, seconds=100.0 * step) for step in range(1, 11)]
    fast = [loss_row(step, seconds=1000 + step / 10) for step in range(11, 11 + runs.RECENT_ROWS)]
    add_rows(locked, slow + fast)
    assert WatchedRun(folder).update().seconds_left == pytest.approx((TOTAL - 60) / 10)
