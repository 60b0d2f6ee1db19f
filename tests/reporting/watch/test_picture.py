"""What a terminal shows of runs: the most important, in as much room as there is."""

import re
from dataclasses import replace
from itertools import product

import pytest
from tqdm.utils import disp_len

from infomax.reporting.watch.picture import Look, picture, progress_line
from infomax.reporting.watch.runs import WatchedRun
from infomax.reporting.watch.sparkline import BLOCKS, LETTERS
from infomax.runtime.locks import FolderLock
from watched_runs import TOTAL, add_rows, collapsed_rows, finish, loss_row, make_run, rows_until


@pytest.fixture
def running(tmp_path, monkeypatch):
    """A run at step 100 of 220."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path.__class__("a")
    run = make_run(path)
    add_rows(run, rows_until(100))
    with FolderLock(path):
        yield replace(WatchedRun(path).update(), now=1000.0, changed_at=996.0)


@pytest.fixture
def collapsed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path.__class__("b"))
    add_rows(run, collapsed_rows(120))
    return replace(WatchedRun(run.path).update(), phase="running", now=1000.0, changed_at=996.0)


def text(*snapshots, columns=80, rows=None, is_ascii=False):
    return "\n".join(line.text for line in picture(snapshots, Look(columns, rows, is_ascii)))


def test_a_run_that_trains(running):
    lines = text(running).splitlines()
    assert lines[0] == "a: mveb/digits with epochs=20"
    assert lines[1] == "  digits, 1,438 images, batches of 128"
    assert lines[2].startswith(f"  |{chr(0x2588) * 9}{' ' * 11}| 45%, epoch 10 of 20, step 100 of 220, 256 images/s")
    assert lines[3] == "  10% waiting, 56 s left"
    courses = {line[2:17].strip(): line[17:] for line in lines[4:9]}
    assert list(courses) == ["loss", "k-NN", "effective rank", "mean cosine", "learning rate"]
    assert courses["k-NN"].endswith(" 58.0% (untrained 47.1%)")
    assert courses["effective rank"].endswith(" 40.0 (untrained 48.9)")
    assert courses["mean cosine"].endswith(" 0.300 (untrained 0.320)")
    assert courses["loss"].endswith(" 4.545 (first 4.909)")
    assert courses["learning rate"].endswith(" 0.0545")
    width = courses["loss"].rindex(" 4.545")
    assert courses["loss"][0] == " "  # before the first row
    assert courses["loss"].strip()[0] == BLOCKS[7]
    assert courses["loss"][width - 1] == BLOCKS[0]
    assert lines[9:] == ["  no sign of collapse or divergence", "  running, newest row 4 s ago"]


def test_a_verdict_is_said_with_its_evidence_and_advice(collapsed):
    lines = picture([collapsed], Look(80))
    said = [line for line in lines if line.style == "failed"]
    words = " ".join(line.text.strip() for line in said)
    (verdict,) = collapsed.verdicts
    assert words == f"total collapse, failed since step 59: {verdict.evidence}; {verdict.advice}"
    assert len(said) > 2
    assert "no sign" not in text(collapsed)


def test_nothing_is_judged_too_early(running):
    early = replace(running, rows=running.rows[:3])
    assert "too early to judge its health: verdicts are said from step 30 on" in text(early)


def test_a_finished_run_says_its_closing_lines(tmp_path):
    run = make_run(tmp_path / "a")
    finish(run)
    shown = text(WatchedRun(run.path).update(), columns=120)
    assert "embeddings: effective rank from 48.9 to 40.0" in shown
    assert shown.endswith("\n  finished")
    assert " left" not in shown


@pytest.mark.parametrize("columns", [1, 20, 40, 80, 200])
def test_a_picture_fits(running, collapsed, columns):
    wide = replace(running, settings=replace(running.settings, data="写真" * 40, title="x" * 300))
    cases = ([running], [collapsed], [wide], [wide, collapsed], [wide, collapsed] * 20)
    for snapshots, rows in product(cases, (None, 1, 2, 5, 24)):
        lines = picture(snapshots, Look(columns, rows))
        assert max(disp_len(line.text) for line in lines) <= columns
        assert rows is None or len(lines) <= rows


def test_more_columns_are_used_for_courses(running):
    def course_columns(columns):
        line = next(line for line in text(running, columns=columns).splitlines() if line.startswith("  loss"))
        return len([c for c in line if c in BLOCKS])

    assert course_columns(60) < course_columns(80) < course_columns(200)


def test_a_narrow_window_has_the_values_alone(running):
    line = next(line for line in text(running, columns=40).splitlines() if line.startswith("  k-NN"))
    assert line.endswith(" 58.0%")
    assert len(line) == 39  # the learning rate takes a column more


def test_ascii_alone(running):
    shown = text(running, is_ascii=True)
    assert shown.isascii()
    assert re.search(rf"^  loss +[{re.escape(LETTERS)}]+ 4\.545 ", shown, re.M)
    assert "|#########           | 45%" in shown


def test_one_run_in_a_low_window_keeps_its_state(collapsed):
    lines = text(collapsed, rows=6).splitlines()
    assert len(lines) == 6
    assert lines[0] == "b: mveb/digits with epochs=20"
    assert lines[-1] == "  running, newest row 4 s ago"
    (verdict,) = collapsed.verdicts
    low = text(collapsed, rows=12)  # courses go first
    assert verdict.advice in " ".join(line.strip() for line in low.splitlines())
    assert "  k-NN" not in low
    assert text(collapsed, rows=13).count("\n") == 12


def test_several_runs_have_a_block_each_or_a_line_each(running, collapsed):
    blocks = text(running, collapsed, rows=60)
    assert blocks.count("effective rank") >= 2
    lines = picture([running, collapsed], Look(120, 12))
    assert [line.text.partition(":")[0][-1] for line in lines] == ["a", "b"]
    expected = "a: running, 45%, loss 4.545, k-NN 58.0% (untrained 47.1%), epoch 10 of 20, 56 s left"
    assert lines[0].text == expected
    assert (lines[1].style, "running, total collapse (failed), 55%" in lines[1].text) == ("failed", True)
    many = text(*[running] * 30, rows=10).splitlines()
    assert len(many) == 10
    assert many[-1] == "and 21 more runs, for which there is no room"


def test_a_line_for_a_file(running):
    expected = "epoch 10 of 20, step 100 of 220, loss 4.545, k-NN 58.0% (untrained 47.1%), 256 images/s, 10% waiting"
    assert progress_line(running) == f"{expected}, 56 s left"


def test_an_initial_encoder_is_named(running):
    rows = [*running.rows, loss_row(120, knn_top1=0.7, initial_knn_top1=0.65)]
    shown = text(replace(running, rows=rows, settings=replace(running.settings, initial="timm:resnet18")), columns=120)
    assert "70.0% (initial encoder 65.0%, untrained 47.1%)" in shown
    assert "batches of 128, from timm:resnet18" in shown
    assert "40.0 (first 48.9)" in shown  # the network before the first step is not an untrained one


def test_values_that_are_not_finite(running):
    rows = [*running.rows, loss_row(120, loss=float("nan"), images_per_second=float("inf"), seconds="x")]
    shown = text(replace(running, rows=rows))
    line = next(line for line in shown.splitlines() if line.startswith("  loss"))
    assert "!" in line
    assert "(first 4.909)" in line


def test_names_cannot_act_on_the_terminal(running):
    evil = "\x1b]0;title\x07\x1b[2J\u202egpj.exe\nx"
    verdict = collapsed_verdict = replace_text(running, evil)
    shown = text(verdict, columns=200) + text(collapsed_verdict, running, columns=200, rows=3)
    assert not {"\x1b", "\x07", "\u202e", "\r"} & {*shown}
    assert "\\x1b]0;title" in shown


def replace_text(shown, evil):
    settings = replace(shown.settings, title=evil, data=evil, initial=evil)
    return replace(shown, folder=shown.folder / evil, settings=settings, problem=evil, closing=(evil,))


def test_the_total_is_reached_without_a_time_left(running):
    shown = replace(running, rows=[*running.rows, loss_row(TOTAL)])
    assert " left" not in text(shown)
    assert "100%" in text(shown)
