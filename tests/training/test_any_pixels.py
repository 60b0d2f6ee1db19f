"""Training on images as microscopes, satellites, scanners and depth cameras write them, and what is done afterwards."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import infomax
from deep_files import make_cells, make_depth, make_dicoms, make_tiles
from infomax.data.loading.evaluation import evaluation_batches
from infomax.data.sources.location import DataLocation
from infomax.recipes.registry import methods_with_papers
from infomax.runs.run_folder import Run
from infomax.training import loop

KINDS = {"tiles": (make_tiles, 5), "dicoms": (make_dicoms, 1), "cells": (make_cells, 2), "depth": (make_depth, 1)}
SMALL = {"recipe": "small", "epochs": 2, "batch_size": 8, "image_size": 16, "quiet": True, "workers": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("any")
    for name, (make, _) in KINDS.items():
        make(root / name, count=24)
    return root


pytestmark = pytest.mark.filterwarnings("ignore:a batch of 8 gives a poor covariance")


def train(folder: Path, out: Path, **options):
    infomax.pretrain(data=str(folder), out=out, **{**SMALL, **options})
    return Run(out)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run.path / "encoder.safetensors")


@pytest.fixture(scope="module")
def cells_run(folders, tmp_path_factory):
    """A run on images of two channels, which tests read alone."""
    return train(folders / "cells", tmp_path_factory.mktemp("cells") / "a")


@pytest.mark.parametrize(("method", "kind"), [*zip(methods_with_papers(), KINDS, strict=True)])
def test_each_kind_is_trained_on_evaluated_and_embedded(folders, tmp_path, method, kind, capsys):
    channels = KINDS[kind][1]
    run = train(folders / kind, tmp_path / "a", method=method)
    recipe = run.recipe
    assert recipe.encoder.channels == len(recipe.views.mean) == channels
    assert recipe.preprocessing.pixel_format.is_deep
    assert f"{channels} channel" in capsys.readouterr().err
    assert any(f"{channels} channel" in note for note in json.loads((run.path / "config.json").read_text())["notes"])
    encoder = infomax.load(run.path)
    assert encoder.preprocessing == recipe.preprocessing
    features, _ = infomax.embed(run.path, data=str(folders / kind))
    assert features.shape == (24, encoder.width)
    assert features.isfinite().all()
    (row, *_) = infomax.evaluate("knn", run.path, k=[1])
    assert row


@pytest.mark.process
@pytest.mark.parametrize(("method", "kind"), [*zip(methods_with_papers(), KINDS, strict=True)])
def test_a_training_that_is_resumed_ends_with_the_same_bits(folders, tmp_path, monkeypatch, method, kind):
    whole = train(folders / kind, tmp_path / "whole", method=method)
    train_step = loop.train_step

    def train_step_then_terminate(engine, microbatches, **owned):
        step = train_step(engine, microbatches, **owned)
        if engine.steps_done == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step

    monkeypatch.setattr(loop, "train_step", train_step_then_terminate)
    with pytest.raises(SystemExit):
        train(folders / kind, tmp_path / "parts", method=method)
    monkeypatch.setattr(loop, "train_step", train_step)
    parts = train(folders / kind, tmp_path / "parts", method=method, resume=True)
    assert all(torch.equal(value, weights(parts)[name]) for name, value in weights(whole).items())


@pytest.mark.process
def test_crops_of_workers_and_kept_images_are_the_same(folders, tmp_path):
    runs = [
        train(folders / "tiles", tmp_path / f"{workers}{kept}", workers=workers, keep_decoded=kept)
        for workers, kept in ((0, "off"), (2, "auto"))
    ]
    assert all(torch.equal(value, weights(runs[1])[name]) for name, value in weights(runs[0]).items())


def test_files_and_an_array_of_the_same_numbers_are_preprocessed_alike(folders, cells_run, tmp_path):
    source = DataLocation(str(folders / "cells")).open()
    values = np.stack([source.train.read(i).values for i in range(len(source.train))])
    np.save(tmp_path / "cells.npy", values.transpose(0, 3, 1, 2))
    preprocessing, index = cells_run.recipe.preprocessing, np.arange(len(values))
    array = DataLocation(str(tmp_path / "cells.npy")).open().train
    (from_files,) = evaluation_batches(source.train, index, preprocessing, workers=0)
    (from_array,) = evaluation_batches(array, index, preprocessing)
    torch.testing.assert_close(from_files, from_array, rtol=0, atol=1e-3)


@pytest.mark.process
def test_an_initial_encoder_of_rgb_gets_a_first_layer_for_other_channels(folders, tmp_path, capsys):
    rgb = train(Path("digits"), tmp_path / "rgb", recipe="digits", epochs=1, batch_size=256, image_size=None)
    run = train(folders / "cells", tmp_path / "cells", init=str(rgb.path), recipe="digits", quiet=False)
    assert "its first layer for RGB is adapted to 2 channels" in capsys.readouterr().err
    initial = safetensors.torch.load_file(run.path / "initial.safetensors")
    before = weights(rgb)
    name = next(iter(k for k, v in before.items() if v.ndim == 4))
    torch.testing.assert_close(initial[name], before[name][:, :2] * 1.5)
    assert infomax.load(run.path).settings.channels == 2


def test_an_encoder_keeps_its_channels_and_its_range(folders, cells_run):
    run = cells_run
    with pytest.raises(ValueError, match="channels=3: .* was trained on 2 channels, 16-bit"):
        infomax.evaluate("knn", run.path, channels=3)
    with pytest.raises(ValueError, match="value_range=.?0,1.?: .* keeps the range of the images"):
        infomax.evaluate("knn", run.path, value_range="0,1")
    with pytest.raises(ValueError, match="5 channels of uint16, and the encoder takes 2 channels, 16-bit$"):
        infomax.embed(run.path, data=str(folders / "tiles"))
    assert run.recipe_title.startswith("mveb/small with 2 channels, 16-bit, ")
    assert "mean" not in run.recipe_title


def test_a_folder_of_two_kinds_says_both(folders, tmp_path):
    (tmp_path / "mixed").mkdir()
    for kind in ("tiles", "cells"):
        for number, file in enumerate(sorted((folders / kind).rglob("*.tif"))[:4]):
            (tmp_path / "mixed" / f"{kind}{number}.tif").write_bytes(file.read_bytes())
    message = "has 2 channels of float32, and .* has 5 channels of uint16; train on images of one kind"
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "mixed", tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("channels", "deep", "line"),
    [
        (3, True, "randaugment: before it, views of these images of 16 bits are rounded to 256 levels"),
        (2, True, "saturation, hue, grayscale, randaugment: not done to images of 2 channels"),
        (3, False, ""),
    ],
)
def test_what_randaugment_does_to_such_images_is_said(channels, deep, line, tmp_path, capsys):
    dtype = np.uint16 if deep else np.uint8
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(0, 255, (24, 16, 16, channels), dtype))
    options = {**SMALL, "value_range": "0,255" if deep else None, "method": "moco", "recipe": "small", "epochs": 1}
    infomax.pretrain(data=str(tmp_path / "x.npz"), out=tmp_path / "run", views="infomin", **options)
    lines = [each for each in capsys.readouterr().err.splitlines() if "randaugment" in each and "x.npz" not in each]
    assert len(lines) == bool(line)
    assert all(line in each for each in lines)
