"""Runs of methods that remember something of each image: memory and clusters last, and fail, as the weights do."""

import copy
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infomax.methods.base import Views
from infomax.planning.plan import plan
from infomax.runs.run_folder import Run
from infomax.runs.trained_method import load_trained_method
from infomax.runtime import checkpoints
from infomax.runtime.options import pick
from infomax.training import loop
from infomax.training.engine import Engine
from infomax.training.options import PretrainOptions
from infomax.training.prepare import prepare_run
from infomax.training.pretrain import pretrain
from infomax.training.replay import replay
from interrupted_runs import LAUNCH, differing, train_until
from ranks import on_ranks

IMAGES = 53  # of which 5 are left over in each epoch of 3 steps
TOY = {
    "deepcluster": ("method.hidden=16", "method.dimension=8", "method.prototypes=6"),
    "pcl": ("method.hidden=16", "method.dimension=8", "method.clusters=3,4,6", "method.warmup_epochs=1"),
    "self_classifier": ("method.hidden=16", "method.dimension=8", "method.classes=4,6,12", "method.queue_size=20"),
}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    file = tmp_path_factory.mktemp("images") / "toy.npz"
    labels = np.arange(IMAGES) % 2
    pixels = np.random.default_rng(0).integers(0, 120, (IMAGES, 12, 12, 3)) + 120 * labels[:, None, None, None]
    np.savez(file, images=pixels.astype(np.uint8), labels=labels)
    return file


def prepared(out, data, method, **changes) -> Run:
    """Returns a run folder that nothing was trained in yet."""
    options = {"image_size": 8, "epochs": 3, "batch_size": 16, "precision": "64", "overrides": TOY[method], **changes}
    machine = {"device": "cpu", "workers": 0, "quiet": True}
    return prepare_run(pick(PretrainOptions, {"data": data, "method": method, "out": out, **machine, **options})).run


def go(out, data, method, **changes) -> Run:
    settings = {"image_size": 8, "epochs": 3, "batch_size": 16, "quiet": True, "workers": 0, **changes}
    return pretrain(data=str(data), method=method, out=out, overrides=TOY[method], **settings)


def last(run: Run) -> dict:
    return checkpoints.load(checkpoints.newest_readable(run.path / "checkpoints"))


@pytest.mark.parametrize("precision", ["32", "64"])
@pytest.mark.parametrize("method", TOY)
def test_a_resumed_run_has_the_same_bits(arrays, tmp_path, method, precision):
    """It stops within an epoch, and where one begins: its clusters are then computed again."""
    straight = prepared(tmp_path / "straight", arrays, method, precision=precision)
    loop.train(straight, LAUNCH)
    run = prepared(tmp_path / "stopped", arrays, method, precision=precision)
    for stop in (2, 3, 7, None):
        train_until(run, stop)
        assert last(run)["step"] == (stop or 9)
    assert not differing(last(straight), last(run))


@pytest.mark.process
@pytest.mark.parametrize("method", TOY)
def test_a_run_goes_on_with_other_numbers_of_ranks(arrays, tmp_path, method):
    straight = prepared(tmp_path / "straight", arrays, method)
    loop.train(straight, LAUNCH)
    run = prepared(tmp_path / "ranks", arrays, method)
    for world, stop in ((2, 4), (4, 6), (1, None)):
        on_ranks(world, train_until, run, stop)
    for name, tensor in last(straight)["method"].items():
        torch.testing.assert_close(last(run)["method"][name], tensor, rtol=1e-6, atol=1e-8, msg=name)


def poisoned(views: Views) -> Views:
    return views._replace(global_crops=[x * torch.nan for x in views.global_crops])


@pytest.mark.parametrize("method", TOY)
def test_a_step_that_fails_changes_nothing_and_the_run_goes_on(arrays, tmp_path, monkeypatch, capsys, method):
    train_step, states = loop.train_step, []

    def watched_train_step(engine, microbatches, **owned):
        before, views = copy.deepcopy(engine.method.state_dict()), engine.views
        if engine.steps_done in (1, 3):
            monkeypatch.setattr(engine, "views", lambda batch: poisoned(views(batch)))
        try:
            return train_step(engine, microbatches, **owned)
        except FloatingPointError:
            states.append([name for name, x in engine.method.state_dict().items() if not torch.equal(x, before[name])])
            raise
        finally:
            monkeypatch.setattr(engine, "views", views)

    monkeypatch.setattr(loop, "train_step", watched_train_step)
    run = go(tmp_path / "run", arrays, method, skip_nonfinite=2)
    assert "skipped, 2 of at most 2" in capsys.readouterr().err
    assert states == [[], []]
    assert last(run)["step"] == 9


@pytest.mark.parametrize("method", TOY)
def test_a_failed_step_is_kept_and_replayed(arrays, tmp_path, method):
    with pytest.raises(FloatingPointError, match="infomax replay"):
        go(tmp_path / "run", arrays, method, learning_rate=1e30)
    (folder,) = (tmp_path / "run" / "nonfinite").iterdir()
    assert json.loads((folder / "report.json").read_text())["images"] == IMAGES
    result = replay(folder, device="cpu")
    assert result.error or not np.isfinite(result.loss) or result.gradients


@pytest.mark.parametrize("method", TOY)
def test_a_finished_run_can_be_extended_and_read(arrays, tmp_path, method):
    run = go(tmp_path / "run", arrays, method, epochs=2)
    before = last(run)["method"]
    pretrain(out=run.path, resume=True, epochs=4, quiet=True)
    after = last(Run(run.path))
    assert after["step"] == 12
    weights = [name for name in before if name.endswith("projector.0.weight") and "teacher" not in name]
    assert weights
    assert not any(torch.equal(after["method"][name], before[name]) for name in weights)
    trained = load_trained_method(Run(run.path))
    logits = trained.cluster_logits(torch.randn(4, trained.encoder.width))
    assert logits is None or logits.isfinite().all()


@pytest.mark.parametrize("method", TOY)
def test_networks_are_as_before_when_an_epoch_begins(arrays, tmp_path, method, monkeypatch):
    """Neither weights nor running statistics change, and only what is kept between steps does."""
    begin_epoch, changed = Engine.begin_epoch, set()

    def watched(engine, read_epoch):
        before = copy.deepcopy(engine.method.state_dict())
        begin_epoch(engine, read_epoch)
        changed.update(name for name, x in engine.method.state_dict().items() if not torch.equal(x, before[name]))

    monkeypatch.setattr(Engine, "begin_epoch", watched)
    go(tmp_path / "run", arrays, method)
    assert changed or method == "self_classifier"  # whose queue changes with each step alone
    assert {name.split(".")[0] for name in changed} <= {"memory", "clusterings"}


def shards(folder: Path) -> str:
    """Writes a few images as a shard, and returns its name as --data takes it."""
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number in range(20):
            file = io.BytesIO()
            Image.new("RGB", (12, 12), (number, 0, 0)).save(file, "png")
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(file.getvalue())
            tar.addfile(entry, io.BytesIO(file.getvalue()))
    return f"wds:{folder / '0.tar'}"


@pytest.mark.parametrize("method", TOY)
def test_a_stream_has_no_positions(tmp_path, method):
    words = f"--method {method} keeps .* by their positions, but --data .* is read as a stream, which has none"
    for function in (plan, pretrain):
        out = {} if function is plan else {"out": tmp_path / "run"}
        with pytest.raises(ValueError, match=words):
            function(data=shards(tmp_path), method=method, batch_size=4, overrides=TOY[method], **out)
    assert not (tmp_path / "run").exists()


def test_more_clusters_than_images_are_an_error_before_the_start(arrays, tmp_path):
    with pytest.raises(ValueError, match="method.prototypes must be at most the number of images, 53, but is 54"):
        pretrain(data=str(arrays), method="deepcluster", overrides=["method.prototypes=54"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
