"""Encoders that a run keeps on the way: the same bits, whatever interrupts it, and each an encoder for all commands."""

import json

import pytest

import infomax
from command import run_command
from infomax.models.encoders import fingerprint, load_encoder
from infomax.models.pretrained import open_encoder
from infomax.reporting.comparison import report
from infomax.runs.run_folder import Run, kept_epoch_of, run_of, trained_steps_of
from infomax.runtime import checkpoints
from infomax.training.kept_epochs import parse_keep_epochs
from infomax.training.pretrain import pretrain
from infomax.training.saved_options import saved_options
from interrupted_runs import train_until
from toy_data import TOY, write_toy

STEPS = 3  # of an epoch


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    return write_toy(tmp_path_factory.mktemp("images"), train=48, test=16, side=12)


def go(out, images, epochs=4, method="carl", **options) -> Run:
    settings = {"image_size": 8, "batch_size": 16, "workers": 0, "quiet": True, "overrides": TOY[method]}
    return pretrain(data=images, method=method, out=out, epochs=epochs, **{**settings, **options})


def go_on(run, **options) -> Run:
    return pretrain(out=run.path, resume=True, quiet=True, **options)


def stop_at(run, images, monkeypatch, step, **options) -> Run:
    """Trains a run until a step, where it is interrupted."""
    with monkeypatch.context() as patch:
        patch.setattr("infomax.training.pretrain.train", lambda run, *_, **__: train_until(run, step))
        return go(run, images, **options)


def kept(run: Run) -> dict[int, str]:
    """Returns the hash of each kept encoder by its epoch."""
    return {epoch: fingerprint(load_encoder(run.kept_encoder(epoch))) for epoch in run.kept_epochs}


@pytest.mark.parametrize("method", ["carl", "mira"])  # without a teacher, and with one
def test_kept_encoders_are_those_of_a_run_that_stopped_there(tmp_path, images, monkeypatch, method):
    run = go(tmp_path / "run", images, method=method, keep_epochs=(3, 1, 4))
    stopped = {
        epoch: stop_at(tmp_path / f"{epoch}", images, monkeypatch, STEPS * epoch, method=method) for epoch in (1, 3)
    }
    assert kept(run) == {
        **{epoch: fingerprint(infomax.load(other)) for epoch, other in stopped.items()},
        4: fingerprint(infomax.load(run)),
    }
    assert [trained_steps_of(run.kept_encoder(epoch)) for epoch in (1, 3, 4)] == [3, 9, 12]
    assert run.config["launch"]["keep_epochs"] == [1, 3, 4]
    assert not list((run.path / "epochs").glob(".*"))
    assert stopped[1].kept_epochs == ()
    assert open_encoder(run.kept_encoder(1)).preprocessing == infomax.load(run).preprocessing


def test_an_interrupted_run_keeps_the_same_ones(tmp_path, images, monkeypatch):
    straight = go(tmp_path / "straight", images, keep_epochs=["1,2"])
    run = stop_at(tmp_path / "run", images, monkeypatch, 4, keep_epochs=["1,2"])
    assert run.kept_epochs == (1,)
    assert kept(go_on(run)) == kept(straight)
    for stop in (3, 5):  # with the end of the epoch in the checkpoint, which was lost before it was written, and after
        again = stop_at(tmp_path / f"{stop}", images, monkeypatch, stop, keep_epochs=[1])
        (again.kept_encoder(1) / "encoder.json").write_text("{}")
        if stop == 3:
            (again.kept_encoder(1) / "encoder.json").unlink()
        else:
            for file in checkpoints.list_checkpoints(again.path / "checkpoints"):
                file.unlink()
            (again.path / "encoder.json").unlink()  # as if it was killed before its first save
        assert kept(go_on(again)) == {1: kept(straight)[1]}


def test_what_is_kept_can_be_added_to_a_run_that_goes_on_but_not_what_is_over(tmp_path, images):
    run = go(tmp_path / "run", images, epochs=2, keep_epochs=[1])
    before = run.config
    with pytest.raises(ValueError, match="^keep_epochs=3: the run has 2 epochs; give at most 2$"):
        infomax.pretrain(out=run.path, resume=True, keep_epochs=[3], quiet=True)
    assert run.config == before
    go_on(run, keep_epochs=[2])  # its last step was the end of it
    assert run.kept_epochs == (1, 2)
    go_on(run, epochs=5, keep_epochs=[4, 1])
    assert (run.kept_epochs, run.stages) == ((1, 2, 4), (2, 3))
    assert kept(run)[4] != fingerprint(infomax.load(run))
    with pytest.raises(ValueError, match="--keep-epochs 3: .*run is past the end of that epoch, whose encoder was not"):
        go_on(run, keep_epochs=[3])
    assert go_on(run).epochs_to_keep == (1, 2, 4)  # those from before stay
    assert saved_options(run).options["keep_epochs"] == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["5"], "--keep-epochs 5: the run has 4 epochs; give at most 4"),
        (["0"], "--keep-epochs wants epochs, whole numbers from 1 up, as 50,100,150, but has '0'"),
        (["1,1"], "--keep-epochs has epoch 1 twice"),
        (["1", "--keep-epochs", "01"], "--keep-epochs has epoch 1 twice"),
        (["1,"], "--keep-epochs wants epochs, whole numbers from 1 up, as 50,100,150, but has ''"),
        (["1.5"], "--keep-epochs wants epochs, whole numbers from 1 up, as 50,100,150, but has '1.5'"),
        (["-1"], "--keep-epochs wants "),
    ],
)
def test_impossible_epochs_are_refused_in_one_line(tmp_path, images, monkeypatch, capsys, words, message):
    options = ["--data", images, "--batch-size", "16", "--image-size", "8", "--epochs", "4", "--out", "run"]
    monkeypatch.chdir(tmp_path)
    code, out, err = run_command(monkeypatch, capsys, "pretrain", *options, "--keep-epochs", *words)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"infomax: {message}")
    assert not (tmp_path / "run").exists()


def test_epochs_are_read_from_numbers_and_from_words():
    assert parse_keep_epochs([3, "1", "2, 10"]) == (1, 2, 3, 10)
    assert parse_keep_epochs([]) == ()


def test_rows_of_a_kept_encoder_say_its_epoch_and_stand_beside_those_of_the_last(tmp_path, images, monkeypatch, capsys):
    run = go(tmp_path / "run", images, keep_epochs=[1])
    monkeypatch.chdir(run.path / "epochs")
    for place, name in ((run.kept_encoder(1), "run/epochs/1"), ("1", "in its folder")):
        assert (run_of(place).path.resolve(), kept_epoch_of(place)) == (run.path, 1), name
    assert (run_of(run.path / "epochs" / "2"), kept_epoch_of(run.path)) == (None, None)
    assert kept_epoch_of("nothing/epochs/3") is None
    with pytest.raises(
        ValueError, match="1 is not a run folder: it has no config.json; it is an encoder that .*run kept"
    ):
        report(run.kept_encoder(1))
    for place in (run.path, run.kept_encoder(1)):
        code, out, err = run_command(monkeypatch, capsys, "evaluate", "knn", str(place), "--no-cache", "--workers", "0")
        assert code == 0, err
    lines = out.splitlines()
    assert lines[3].startswith("trained encoder, epoch 1")
    assert lines[4].startswith("untrained encoder ")
    assert lines[-2] == f"trained by {run.recipe_title}, of which this is the encoder after epoch 1"
    rows = [row for row in infomax_rows(run) if row["representation"] == "trained encoder"]
    assert [(row.get("epoch"), row["trained_steps"]) for row in rows] == [(None, 12), (1, 3)]
    assert rows[1]["encoder"] == kept(run)[1]
    (table,) = report(run.path).results
    assert {"run", "run, epoch 1"} <= {line[0].text for line in table.rows}
    assert "unfinished" not in str(report(run.path))


def infomax_rows(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.path / "results.jsonl").read_text().splitlines()]


def test_a_kept_encoder_has_the_baselines_and_the_card_of_its_run(tmp_path, images):
    first = go(tmp_path / "first", images, epochs=2, keep_epochs=[1])
    run = go(tmp_path / "run", images, init=first.kept_encoder(1), keep_epochs=[2])
    rows = infomax.evaluate("knn", run.kept_encoder(2), no_cache=True, workers=0)
    assert [row.representation for row in rows] == [
        "trained encoder",
        "initial encoder",
        "untrained encoder",
        "raw pixels",
    ]
    assert rows[1].encoder == kept(first)[1]
    infomax.export(run.kept_encoder(2), format="safetensors", out=tmp_path / "e.safetensors")
    card = next(tmp_path.glob("e*.md")).read_text()
    assert "- The encoder was kept after epoch 2 of 4" in card
    assert "6 steps of 16 images" in card
    assert f"{100 * rows[0].top1:.1f}" in card


def test_a_disk_that_cannot_keep_an_encoder_stops_the_run_which_keeps_it_later(tmp_path, images):
    straight = go(tmp_path / "straight", images, keep_epochs=[1, 3])
    blocked = tmp_path / "blocked"

    def block(report):
        if report.step == 8:  # of twelve
            (blocked / "epochs").rename(blocked / "aside")
            (blocked / "epochs").touch()

    with pytest.raises(OSError, match="the encoder of epoch 3 cannot be kept: .*; step 9 is saved, and resume=True"):
        infomax.pretrain(**options(blocked, images), keep_epochs=[1, 3], on_step=block)
    (blocked / "epochs").unlink()
    (blocked / "aside").rename(blocked / "epochs")
    assert kept(go_on(Run(blocked))) == kept(straight)


def options(out, images):
    settings = {"image_size": 8, "batch_size": 16, "workers": 0, "quiet": True, "overrides": TOY["carl"]}
    return {"data": images, "method": "carl", "out": out, "epochs": 4, **settings}


@pytest.mark.process
def test_the_first_of_two_ranks_keeps_the_encoder(tmp_path, images):
    run = go(tmp_path / "run", images, epochs=2, keep_epochs=[1], devices=2, device="cpu")
    assert [file.name for file in (run.path / "epochs").iterdir()] == ["1"]
    assert trained_steps_of(run.kept_encoder(1)) == STEPS
