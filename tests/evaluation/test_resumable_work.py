"""Folders of long evaluations: known by their specification, and never mistaken for another's."""

import multiprocessing
import time
from dataclasses import dataclass, replace

import pytest
import torch

from infomax.data.augmentation.views import Preprocessing
from infomax.evaluation.resumable_work import ResumableWork
from infomax.runtime.identity import specification_hash


@dataclass(frozen=True)
class Specification:
    encoder: str = "abc"
    preprocessing: Preprocessing = Preprocessing(resize=16, size=16)
    rates: tuple[float, ...] = (0.1, 1.0)


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_hash_of_the_specification_names_the_folder(tmp_path):
    folder = ResumableWork.in_cache(Specification()).folder
    assert folder == tmp_path / "infomax" / "unfinished" / specification_hash(Specification())
    assert ResumableWork.in_cache(Specification()).folder == folder
    assert ResumableWork.in_cache(Specification(rates=(0.1,))).folder != folder


def test_states_and_rows_are_kept_until_they_are_not_needed(tmp_path):
    work = ResumableWork(Specification(), tmp_path / "work")
    assert work.newest_state("part") is None
    for step in (1, 2):
        work.save("part", {"step": step, "weight": torch.full((2,), float(step))})
    again = ResumableWork(Specification(), tmp_path / "work")
    assert again.newest_state("part")["weight"].tolist() == [2.0, 2.0]
    assert again.finished_row("part") is None
    again.finish("part", {"top1": 0.5})
    assert again.finished_row("part") == {"top1": 0.5}
    assert again.newest_state("part") is None
    assert again.finished_row("another") is None
    again.discard()
    assert not (tmp_path / "work").exists()


def test_what_differs_is_named(tmp_path):
    ResumableWork(Specification(), tmp_path / "work")
    other = replace(Specification(), preprocessing=Preprocessing(resize=18, size=16))
    with pytest.raises(ValueError, match=r"settings: preprocessing.resize was 16, is 18. Name another folder"):
        ResumableWork(other, tmp_path / "work")
    with pytest.raises(ValueError, match=r"rates was \[0.1, 1.0\], is \[3.0\]"):
        ResumableWork(Specification(rates=(3.0,)), tmp_path / "work")
    (tmp_path / "work" / "specification.json").write_text("{")
    with pytest.raises(ValueError, match="specification.json is damaged"):
        ResumableWork(Specification(), tmp_path / "work")


def test_without_a_folder_nothing_is_kept(tmp_path):
    work = ResumableWork(Specification(), None)
    work.save("part", {"step": 1})
    work.finish("part", {"top1": 0.5})
    assert work.newest_state("part") is work.finished_row("part") is work.resume_hint is None
    work.discard()
    assert not list(tmp_path.iterdir())


def test_the_same_evaluation_in_two_processes_is_computed_by_both_and_kept_by_one(tmp_path, capsys):
    folder = ResumableWork.in_cache(Specification()).folder
    assert folder is not None
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(there,))
    process.start()
    here.recv()
    second = ResumableWork.in_cache(Specification())
    assert f"by process {process.pid} on host" in (line := capsys.readouterr().err)
    assert line.endswith("the same evaluation; this one keeps no unfinished work\n")
    assert second.folder is None
    with pytest.raises(ValueError, match="is being written by process"):
        ResumableWork(Specification(), folder)
    process.kill()
    process.join()
    again = ResumableWork.in_cache(Specification()).newest_state("part")
    assert again is not None
    assert again["step"] == 1


def hold(connection) -> None:
    work = ResumableWork.in_cache(Specification())
    work.save("part", {"step": 1})
    connection.send(None)
    time.sleep(60)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, capsys):
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work = ResumableWork.in_cache(Specification())
    assert "unfinished work is not kept" in capsys.readouterr().err
    work.save("part", {"step": 1})
    work.finish("part", {"top1": 0.5})
    assert work.newest_state("part") is None
    assert work.resume_hint is None


@pytest.mark.parametrize("name", ["{tmp}/run", "../run", "a/b"])
def test_a_part_cannot_be_named_by_a_path_whose_folder_would_be_removed(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    work = ResumableWork.in_cache(Specification())
    with pytest.raises(ValueError, match="must have the name of a folder, not"):
        work.finish(name.format(tmp=tmp_path), {})
    assert (tmp_path / "run").is_dir()
