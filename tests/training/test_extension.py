"""Finished runs that are extended: a new schedule from there, exact under interruption, and said everywhere."""

import shutil

import numpy as np
import pytest

from infomax.recipes.registry import methods_with_papers
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.training.pretrain import pretrain
from interrupted_runs import differing, train_until

TOY = {
    "mira": ("method.hidden=16", "method.prototypes=10"),
    "corinfomax": ("method.hidden=16", "method.dimension=4"),
    "carl": ("method.hidden=16", "method.prototypes=10"),
    "mveb": ("method.hidden=16", "method.dimension=8", "method.momentum=0.9"),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    rng, file = np.random.default_rng(0), tmp_path_factory.mktemp("images") / "x.npz"
    np.savez(file, images=rng.integers(0, 255, (48, 12, 12, 3), dtype=np.uint8), labels=np.arange(48) % 2)
    return str(file)


def go(out, images, method="carl", epochs=2, **options) -> Run:
    settings = {"image_size": 8, "batch_size": 16, "quiet": True, "overrides": TOY[method]}
    return pretrain(data=images, method=method, out=out, epochs=epochs, **settings, **options)


def extend(out, epochs) -> Run:
    return pretrain(out=out, resume=True, epochs=epochs, quiet=True)


def stop_within(monkeypatch, run: Run, epochs: int, step: int) -> None:
    """Extends a run, and receives SIGTERM after a step of the extension."""
    with monkeypatch.context() as patch:
        patch.setattr("infomax.training.pretrain.train", lambda run, *_, **__: train_until(run, step))
        extend(run.path, epochs)
    assert state(run)["step"] == step


def state(run: Run) -> dict:
    file = checkpoints.newest_readable(run.path / "checkpoints")
    assert file is not None
    return checkpoints.load(file)


@pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
@pytest.mark.parametrize("method", methods_with_papers())
def test_an_extension_is_exact_under_interruption_also_a_second_one(tmp_path, images, monkeypatch, method):
    straight, stopped = (go(tmp_path / name, images, method) for name in ("straight", "stopped"))
    for epochs, step in ((5, 9), (7, 17)):
        extend(straight.path, epochs)
        stop_within(monkeypatch, stopped, epochs, step)
        extend(stopped.path, epochs)  # the same command goes on
    assert state(straight)["step"] == 21
    assert straight.stages == stopped.stages == (2, 3, 2)
    assert not differing(state(straight), state(stopped))


def test_each_stage_has_a_schedule_of_its_own_and_the_first_one_stays(tmp_path, images):
    short, run = go(tmp_path / "short", images), go(tmp_path / "run", images)
    extend(run.path, 6)
    rows = [row for row in run.read_rows("metrics.jsonl") if "learning_rate" in row]
    assert [(row["step"], row["epoch"]) for row in rows] == [(3 * i + 3, i) for i in range(6)]
    assert rows[1]["loss"] == [row for row in short.read_rows("metrics.jsonl") if "loss" in row][-1]["loss"]
    four = go(tmp_path / "four", images, epochs=4)
    wanted = [row["learning_rate"] for row in four.read_rows("metrics.jsonl") if "learning_rate" in row]
    assert [row["learning_rate"] for row in rows[2:]] == wanted


def test_an_extension_that_goes_back_to_an_earlier_checkpoint_is_exact_too(tmp_path, images, monkeypatch):
    monkeypatch.setattr("infomax.training.loop.SAVE_EVERY", 0.0)
    monkeypatch.setattr("infomax.training.loop.SAVE_SHARE", 1e9)
    straight, run = (go(tmp_path / name, images, "mira") for name in ("straight", "run"))
    checkpoints.list_checkpoints(run.path / "checkpoints")[0].write_bytes(b"")
    for path in (straight.path, run.path):
        extend(path, 4)
    assert not differing(state(straight), state(run))


def test_an_extension_is_recorded_said_and_fits_no_published_column(tmp_path, images, capsys):
    run = go(tmp_path / "run", images)
    capsys.readouterr()
    extend(run.path, 5)
    line = "run is extended to 5 epochs; those that are added, 3, have a schedule of their own"
    assert line in capsys.readouterr().err
    assert run.config["extended"] == [{"step": 6, "epochs": 3}]
    assert run.recipe.epochs == 5
    assert run.finished
    assert run.recipe_title.startswith("carl/small with epochs=2+3, ")
    extend(run.path, 5)  # a job script that says so each time
    assert run.stages == (2, 3)
    with pytest.raises(ValueError, match="epochs: 5 there, 2 asked for; leave that out to go on, or give --overwrite"):
        extend(run.path, 2)


def test_an_unfinished_run_is_not_extended_and_the_message_says_how(tmp_path, images, monkeypatch):
    run = go(tmp_path / "run", images)
    stop_within(monkeypatch, run, 4, 8)
    with pytest.raises(ValueError, match="epochs: 4 there, 6 asked for; finish it first, .* extends it$"):
        extend(run.path, 6)
    assert run.stages == (2, 2)


def test_a_run_whose_checkpoints_are_gone_is_not_extended_and_stays_finished(tmp_path, images):
    run = go(tmp_path / "run", images)
    before = run.config
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(ValueError, match="trained for 6 steps, but its checkpoints are gone"):
        extend(run.path, 5)
    assert run.config == before
    assert run.finished
