"""Training on images as microscopes, satellites, scanners and depth cameras write them, and what is done afterwards."""

import json
from pathlib import Path

import pytest
import torch

import infomax
from deep_files import make_cells, make_depth, make_dicoms, make_tiles
from infomax.recipes.registry import methods_with_papers
from infomax.runs.run_folder import Run

KINDS = {"tiles": (make_tiles, 5), "dicoms": (make_dicoms, 1), "cells": (make_cells, 2), "depth": (make_depth, 1)}
SMALL = {"recipe": "small", "epochs": 2, "batch_size": 8, "image_size": 16, "quiet": True, "workers": 0}
    "recipe": "small",
    "epochs": 2,
    "batch_size": 8,
    "image_size": 16,
    "quiet": True,
    "workers": 0,
    "log": ["none"],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("any")
    for name, (make, _) in KINDS.items():
        make(root / name, count=24)
    return root


def train(folder: Path, out: Path, **options):
    infomax.pretrain(data=str(folder), out=out, **{**SMALL, **options})
    return Run(out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", methods_with_papers())
def test_each_method_trains_on_each_kind_and_goes_on(folders, tmp_path, kind, method):
    channels = KINDS[kind][1]
    whole = train(folders / kind, tmp_path / "whole", method=method)
    recipe = whole.recipe
    assert recipe.encoder.channels == len(recipe.views.mean) == channels
    assert recipe.preprocessing.pixel_format.is_deep
    notes = json.loads((tmp_path / "whole" / "config.json").read_text())["notes"]
    assert any(f"{channels} channel" in note for note in notes)
    rows = infomax.evaluate("knn", tmp_path / "whole", k=[1], quiet=True)
    assert rows
    encoder = infomax.load(tmp_path / "whole")
    features, _ = infomax.embed(encoder, data=str(folders / kind))
    assert features.shape == (24, encoder.width)
    assert torch.isfinite(features).all()
    assert features.std(0).max() > 0
