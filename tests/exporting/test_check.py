"""The comparison of an export with its encoder, and the model card."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import infomax
from infomax.exporting import card, check, reference_images
from infomax.exporting.check import Comparison
from infomax.exporting.formats import FORMATS
from infomax.models.encoders import fingerprint
from infomax.runs.run_folder import Run
from infomax.runtime.failures import MachineError

SAME = Comparison("timm", "1.0", 1e-6, 2.0, 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"difference": 1e-4}, ""),
        ({"difference": 1e-3}, "other features"),
        ({"difference": float("nan")}, "other features"),
        ({"difference": float("inf")}, "other features"),
        ({"pixel_difference": 1.5}, "prepares images otherwise"),
        ({"pixel_difference": float("nan")}, "prepares images otherwise"),
        ({"scale": 0.0, "difference": 0.0}, ""),
        ({"scale": 0.0, "difference": 1e-3}, "other features"),
    ],
)
def test_more_than_rounding_is_a_mismatch(changes, message):
    comparison = replace(SAME, **changes)
    if not message:
        check._check_comparison(comparison)
        return
    with pytest.raises(MachineError, match=f"{message}.*nothing was written"):
        check._check_comparison(comparison)


def test_pixels_may_be_shifted_by_one_but_not_normalised_otherwise():
    images = np.random.default_rng(0).normal(size=(2, 3, 12, 12)).astype(np.float32)
    assert check.mean_pixel_difference(images, images, 0.25) == 0
    assert check.mean_pixel_difference(np.roll(images, (1, -1), (2, 3)), images, 0.25) == 0
    assert check.mean_pixel_difference(np.roll(images, 2, 3), images, 0.25) > 10
    assert check.mean_pixel_difference(images + 0.03, images, 0.25) == pytest.approx(255 * 0.03 * 0.25, rel=1e-3)
    assert check.mean_pixel_difference(images[:, :, 1:], images, 0.25) == float("inf")


def test_an_encoder_with_infinite_features_is_not_compared():
    encoder = torch.nn.Flatten()
    with pytest.raises(ValueError, match="infinite or NaN"):
        check.reference_features(encoder, torch.full((8, 3, 2, 2), float("nan")))


def test_images_are_the_runs_own_or_else_photographs(tmp_path, trained_run):
    own, words = reference_images.reference_images(trained_run, 8)
    assert words == "images that it was trained on"
    photographs, words = reference_images.reference_images("timm:resnet18", 8)
    assert "scikit-learn" in words
    gone = tmp_path / "gone"
    gone.mkdir()
    config = json.loads((trained_run.path / "config.json").read_text())
    (gone / "config.json").write_text(json.dumps({**config, "data": str(tmp_path / "photos")}))
    assert reference_images.reference_images(gone, 8)[1] == words
    for images in (own, photographs):
        assert len(images) == 8
        assert len({image.tobytes() for image in images}) == 8
        assert all(image.mode == "RGB" and image.width == image.height for image in images)


def test_large_and_oblong_images_become_square():
    assert reference_images.square(Image.new("RGBA", (3000, 2000))).size == (1024, 1024)
    assert reference_images.square(Image.new("L", (5, 9))).size == (5, 5)


def content(run, **changes) -> card.CardContent:
    encoder = infomax.load(run)
    kind = FORMATS["onnx"]
    known = {
        "title": "digits",
        "kind": kind,
        "code": kind.code(encoder, "digits.onnx", False),
        "facts": {"architecture": "a graph", "opset": "20"},
        "input_words": "images",
        "preprocessing": encoder.preprocessing,
        "width": encoder.width,
        "parameters": 300_000,
        "comparison": SAME,
        "images": "images that it was trained on",
        "encoder_name": str(run.path),
        "fingerprint": fingerprint(encoder),
        "run": run,
    }
    return card.CardContent(**{**known, **changes})


def test_the_card_is_filled_from_the_run(trained_run):
    text = card.card_text(content(trained_run))
    assert text.startswith("---\npipeline_tag: image-feature-extraction\n")
    assert "license:" not in text
    assert "MIT" not in text
    for words in (
        "trained without labels by carl",
        "1,438 images without labels: digits.",
        "carl/digits with ",
        "epochs=2",
        "steps of 700 images in ",
        "| trained encoder |",
        "| raw pixels |",
        "1438 labelled and 359 test images of digits in 10 classes",
        "k-NN",
        "95 %",
        "The images were 8 images that it was trained on",
        "## Licence\n\nNot stated here: whoever trained these weights decides on it.",
        "resized to 8 pixels on its shorter side",
        'onnxruntime.InferenceSession("digits.onnx"',
        "Opset 20",
    ):
        assert words in text, words
    assert str(trained_run.path.parent) not in text


def test_scores_of_another_state_of_the_encoder_are_left_out(trained_run):
    rows = card.current_rows(trained_run, fingerprint(infomax.load(trained_run)))
    assert {row.representation for row in rows} >= {"trained encoder", "raw pixels"}
    assert card.current_rows(trained_run, "0123456789ab") == []
    assert "None yet" in card.card_text(content(trained_run, fingerprint="0123456789ab"))


def test_the_newest_of_two_equal_measurements_counts(trained_run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "encoder.json", "encoder.safetensors", "metrics.jsonl"):
        (folder / name).write_bytes((trained_run.path / name).read_bytes())
    lines = (trained_run.path / "results.jsonl").read_text().splitlines()
    newer = [json.dumps({**json.loads(line), "seconds": 12345.0}) for line in lines]
    (folder / "results.jsonl").write_text("\n".join([*lines, *newer]) + "\n")
    rows = card.current_rows(Run(folder), fingerprint(infomax.load(folder)))
    assert len(rows) == len(lines)
    assert {row.seconds for row in rows} == {12345.0}
    (folder / "results.jsonl").write_text('{"protocol": "none"}\n')
    assert "could not be read" in card.card_text(content(Run(folder)))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"),
        ("cifar10", "cifar10"),
        ("hf:ylecun/mnist", "hf:ylecun/mnist"),
        ("/home/me/secret/photos", "photos"),
        ("/home/me/secret/photos/", "photos"),
        ("/a/cats,/b/dogs", "cats, dogs"),
        ("wds:/mnt/x/shards.tar", "shards.tar"),
        ("hf:/home/me/parquet", "parquet"),
        ("images", "images"),
    ],
)
def test_a_card_names_data_without_folders(data, name):
    assert card.public_data_name(data) == name


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("carl/small with epochs=3", "carl/small with epochs=3"),
        ("encoder.init=/home/me/x/w.pth", "encoder.init=w.pth"),
        ("encoder.init=timm:vit@/home/me/w.pth#a/b", "encoder.init=timm:vit@w.pth#a/b"),
        ("~/runs/a", "a"),
        ("hf:facebook/dinov2", "hf:facebook/dinov2"),
    ],
)
def test_absolute_paths_are_cut_down_to_their_last_name(text, public):
    assert card.without_folders(text) == public
    assert card.without_folders({"a": [text]}) == {"a": [public]}


def test_initial_weights_keep_their_licence_and_are_named_without_their_folder(trained_run, tmp_path):
    assert card.licence_words(None, "timm:resnet50").startswith("The licence of timm:resnet50")
    options = {"epochs": 1, "image_size": 8, "batch_size": 700, "quiet": True}
    run = infomax.pretrain(data="digits", init=trained_run, out=tmp_path / "second", method="carl", **options)
    text = card.card_text(content(run))
    assert "began with the weights of digits, whose licence applies" in text
    assert "- Initial weights: digits\n" in text
    assert "license:" not in text
    assert str(tmp_path) not in text
    assert str(trained_run.path.parent) not in text
