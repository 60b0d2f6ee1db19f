"""An encoder that maps all images to one vector is said to have collapsed, and a healthy one never is."""

import numpy as np
import pytest
import torch

from command import run_command
from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.methods.base import Method
from infomax.recipes.registry import methods_with_papers
from infomax.runs.run_folder import Run
from infomax.training.collapse import COLLAPSED, describe_collapse
from infomax.training.pretrain import pretrain
from tiny import tiny_encoder

CPU, SMALL = torch.device("cpu"), Preprocessing(resize=8, size=8)


def arrays(pixels) -> ArrayImages:
    return ArrayImages(np.broadcast_to(pixels, (20, 8, 8, 3)).astype(np.uint8), None, [])


def noise(scale=255):
    return np.random.default_rng(0).integers(0, scale, (20, 8, 8, 3))


@pytest.mark.parametrize(
    ("images", "weights", "sentence"),
    [
        (noise(), 1.0, None),
        (noise(), 1e-3, None),
        (noise(40), 1.0, None),
        (noise(), 0.0, COLLAPSED),
        (0 * noise(), 1.0, None),
        (noise()[:1], 1.0, None),
        (noise(3), 1.0, None),
    ],
)
def test_different_images_with_one_representation_are_a_collapse_and_equal_ones_are_not(images, weights, sentence):
    encoder = tiny_encoder()
    with torch.no_grad():
        encoder.backbone[0].weight.mul_(weights)
    assert describe_collapse(encoder, arrays(images), SMALL, device=CPU) == sentence


def test_one_image_is_no_collapse():
    images = ArrayImages(np.zeros((1, 8, 8, 3), np.uint8), None, [])
    assert describe_collapse(tiny_encoder(), images, SMALL, device=CPU) is None


@pytest.mark.parametrize("method", methods_with_papers())
def test_no_healthy_run_is_said_to_have_collapsed(tmp_path, method, capsys):
    run = pretrain(data="digits", out=tmp_path / "run", method=method, epochs=1, image_size=16, quiet=True)
    assert not run.collapsed
    assert "collapsed" not in capsys.readouterr().err


@pytest.mark.parametrize("labelled", [True, False])
def test_a_collapsed_run_says_so_in_its_last_line_and_in_its_metrics(tmp_path, monkeypatch, capsys, labelled):
    """With labels at each score, without at the end."""
    labels = {"labels": np.arange(20) % 2} if labelled else {}
    np.savez(tmp_path / "x.npz", images=noise().astype(np.uint8), **labels)

    def collapse(method, _):
        with torch.no_grad():
            for parameter in method.eval_encoder.parameters():
                parameter.zero_()

    monkeypatch.setattr(Method, "after_step", collapse)
    words = ("pretrain", "--data", str(tmp_path / "x.npz"), "--out", str(tmp_path / "run"), "--method", "carl")
    code, out, err = run_command(monkeypatch, capsys, *words, "--epochs", "2", "--batch-size", "10")
    assert code == 0
    assert out == f"{tmp_path}/run is done, but its encoder has collapsed: all images have the same representation\n"
    assert err.count(COLLAPSED) == (2 if labelled else 1)
    assert Run(tmp_path / "run").collapsed


def test_measured_values_that_are_not_finite_stop_no_finished_run(tmp_path):
    run = Run(tmp_path)
    run.append_row("metrics.jsonl", {"step": 3, "epoch": 0, "loss": 1.0, "entropy": float("-inf")})
    run.append_row("metrics.jsonl", {"step": 3, "epoch": 0, "collapsed": 1})
    assert run.collapsed
