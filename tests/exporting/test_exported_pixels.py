"""Exports of encoders of any number of channels and depth: how they prepare arrays, and what no library can do."""

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

import infomax
from command import run_command
from encoder_files import used
from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.evaluation import evaluation_batches
from infomax.data.pixel_format import PixelFormat
from infomax.exporting.card import preprocessing_words
from infomax.exporting.preparation import prepare_numbers
from infomax.exporting.reference_images import reference_images
from infomax.models.encoders import build_encoder, save_encoder

FORMATS = {
    "tiles": PixelFormat(channels=5, low=(0.0,) * 5, high=(3000.0,) * 5, no_data=7.0, fill=(0.1, 0.2, 0.3, 0.4, 0.5)),
    "cells": PixelFormat(channels=2, low=(200.0, -100.0), high=(2400.0, 1700.0)),
    "depth": PixelFormat(channels=1, low=(0.5,), high=(4.0,), fill=(0.6,)),
    "gray": PixelFormat(channels=1),
}


def preprocessing_of(pixel_format: PixelFormat, size: int = 16) -> Preprocessing:
    mean = tuple(0.3 + 0.1 * i for i in range(pixel_format.channels))
    return Preprocessing(resize=size + 2, size=size, mean=mean, std=(0.2,) * len(mean), pixel_format=pixel_format)


def encoder_folder(folder, kind, backbone="small", stem="cifar", size=16):
    folder.mkdir()
    encoder = build_encoder(backbone, stem=stem, seed=0, channels=FORMATS[kind].channels)
    used(encoder)
    save_encoder(encoder, asdict(encoder.settings), preprocessing_of(FORMATS[kind], size), folder)
    return folder


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("is_inside", [False, True])
def test_the_code_of_the_card_prepares_arrays_as_infomax_does(kind, is_inside):
    preprocessing = preprocessing_of(FORMATS[kind])
    (values, *_), words = reference_images("none", 8, FORMATS[kind])
    assert words == "arrays of random numbers"
    values = np.asarray(values)[:90].copy()  # not square
    if FORMATS[kind].no_data is not None:
        values[20:60, 30:50] = FORMATS[kind].no_data
    names = {}
    exec("import numpy as np\nfrom PIL import Image\n" + prepare_numbers(preprocessing, is_inside), names)
    prepared = names["prepare"](values)
    (expected,) = evaluation_batches(ArrayImages(values[None], None, []), np.arange(1), preprocessing)
    expected = expected.numpy()
    if is_inside:
        expected = expected * 0.2 + np.array(preprocessing.mean).reshape(1, -1, 1, 1)
    assert prepared.dtype == np.float32
    np.testing.assert_allclose(prepared, expected, atol=2e-3)


def test_the_card_says_what_an_image_is_and_how_its_numbers_become_the_input():
    words = preprocessing_words(preprocessing_of(FORMATS["tiles"]))
    assert "an array [H, W, 5] of 5 channels" in words
    assert "from 0 to 3000 become 0 to 1" in words
    assert "NaN, infinite numbers and 7 are no measurements, and become (0.1, 0.2, 0.3, 0.4, 0.5)" in words
    assert "over the standard deviation (0.2, 0.2, 0.2, 0.2, 0.2), of its channels" in words
    assert "from (200, -100) to (2400, 1700) become 0 to 1" in preprocessing_words(preprocessing_of(FORMATS["cells"]))
    assert "red, green and blue" in preprocessing_words(Preprocessing(resize=18, size=16))


def test_transformers_which_prepares_rgb_alone_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    encoder_folder(tmp_path / "run", "tiles")
    words = ("run", "--format", "huggingface", "--out", "given")
    monkeypatch.chdir(tmp_path)
    code, _, err = run_command(monkeypatch, capsys, "export", *words)
    assert code == 2
    assert "image processors of transformers take 8-bit RGB, and the encoder takes 5 channels, 16-bit" in err
    assert "safetensors, onnx, torch-export fit" in err
    assert not (tmp_path / "given").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("timm", "depth"), ("torchvision", "cells"), ("safetensors", "gray")])
def test_the_program_on_the_card_computes_the_features_of_an_array(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    run = encoder_folder(tmp_path / "run", kind, "resnet18", "imagenet", size=32)
    written = infomax.export(run, format=name, out="given.safetensors" if name == "safetensors" else "given")
    assert written.comparison.relative < 1e-5
    assert written.comparison.pixel_difference < 0.1
    card = written.card.read_text()
    assert "arrays of random numbers" in card
    values = np.asarray(reference_images("none", 8, FORMATS[kind])[0][3])
    np.save("image.npy", values)
    program = card.partition("```python\n")[2].partition("```")[0]
    program += "np.save('features.npy', features.detach().numpy())\n"
    subprocess.run([sys.executable, "-c", program], check=True)
    expected, _ = infomax.embed(run, data=values[None])
    assert np.abs(np.load("features.npy") - expected.numpy()).max() < 0.01 * expected.abs().max()


@pytest.mark.process
def test_onnx_and_torch_export_take_all_channels_with_the_normalisation_inside(tmp_path):
    run = encoder_folder(tmp_path / "run", "tiles")
    written = infomax.export(run, format="onnx", out=tmp_path / "a.onnx", normalise="inside")
    assert "images [B, 5, 16, 16] in float32: pixels from 0 to 1" in written.card.read_text()
    assert written.comparison.relative < 1e-5
    assert written.comparison.pixel_difference < 0.1
