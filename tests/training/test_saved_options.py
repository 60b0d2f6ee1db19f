"""The options of a run train it again to the bit, whatever was changed of its recipe."""

import numpy as np
import pytest
from PIL import Image

from command import run_command
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.training.saved_options import toml_value
from interrupted_runs import differing

SMALL = ("--epochs", "1", "--batch-size", "256", "--image-size", "8", "--quiet", "--log", "none")
SETS = (
    "--method",
    "mira",
    "--set",
    "method.beta=0.5",
    "--set",
    "views.global_crops.0.scale=0.3,1",
    "--set",
    "optimizer.clip_norm=1",
)


@pytest.fixture
def infomax(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code, out, err = run_command(monkeypatch, capsys, *words)
        assert code == 0, err
        return out

    return run


def state(folder):
    return checkpoints.load(checkpoints.newest_readable(folder / "checkpoints"))


def photographs(folder):
    """Writes labelled images of 16 bits and of 8, in three classes."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog", "eel"):
        (folder / label).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 4096, (12, 12), np.uint16)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    (folder.parent / "classes.txt").write_text("cat\neel\n")


@pytest.mark.parametrize(
    "words",
    [
        ("--data", "digits", "--method", "carl", *SMALL),
        ("--data", "digits", *SMALL, *SETS, "--seed", "3", "--learning-rate", "0.01"),
        ("--data", "digits", "--method", "mveb", *SMALL, "--views", "dino:2+1", "--micro-batch-size", "128"),
        (
            *("--data", "photos", "--classes", "classes.txt", "--value-range", "0,4095", "--workers", "0"),
            *("--epochs", "1", "--image-size", "8", "--quiet", "--batch-size", "8", "--skip-nonfinite", "1"),
        ),
    ],
    ids=["plain", "set", "views", "classes"],
)
def test_the_printed_options_train_the_same_run_to_the_bit(infomax, tmp_path, words):
    if "photos" in words:
        photographs(tmp_path / "photos")
    infomax("pretrain", *words, "--out", "a")
    (tmp_path / "options.toml").write_text(infomax("options", "a"))
    infomax("pretrain", "--options", "options.toml", "--out", "b", "--quiet")
    assert not differing(state(tmp_path / "a"), state(tmp_path / "b"))
    first, second = Run(tmp_path / "a"), Run(tmp_path / "b")
    assert first.recipe == second.recipe
    assert first.location == second.location
    assert {**first.launch, "command": 0} == {**second.launch, "command": 0}
    assert infomax("options", "a").splitlines()[1:] == infomax("options", "b").splitlines()[1:]


def test_a_run_from_weights_is_trained_again_to_the_bit(infomax, tmp_path):
    infomax("pretrain", "--data", "digits", *SMALL, "--out", "first")
    infomax(
        "pretrain", "--data", "digits", *SMALL, "--init", "first", "--freeze", "1", "--method", "carl", "--out", "a"
    )
    text = infomax("options", "a")
    assert 'init = "first"' in text
    (tmp_path / "options.toml").write_text(text)
    infomax("pretrain", "--options", "options.toml", "--out", "b", "--quiet")
    assert not differing(state(tmp_path / "a"), state(tmp_path / "b"))
    assert Run(tmp_path / "a").recipe == Run(tmp_path / "b").recipe


def test_an_initial_encoder_that_has_changed_is_named(infomax, tmp_path, monkeypatch, capsys):
    infomax("pretrain", "--data", "digits", *SMALL, "--out", "first")
    infomax("pretrain", "--data", "digits", *SMALL, "--init", "first", "--out", "a")
    infomax("pretrain", "--data", "digits", *SMALL, "--seed", "5", "--out", "first", "--overwrite")
    code, out, err = run_command(monkeypatch, capsys, "options", "a")
    assert (code, out) == (2, "")
    assert err == "infomax: a: first is no longer the encoder that it started from\n"


def test_an_extended_run_names_its_second_command(infomax, tmp_path):
    infomax("pretrain", "--data", "digits", *SMALL, "--out", "a")
    infomax("pretrain", "--out", "a", "--resume", "--epochs", "3", "--quiet")
    text = infomax("options", "a")
    assert "epochs = 1\n" in text
    assert "infomax pretrain --out DIR --resume --epochs 3" in text


def test_what_is_no_run_folder_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_command(monkeypatch, capsys, "options", "nowhere")
    assert (code, out, err) == (2, "", "infomax: nowhere is not a run folder: no such folder or file\n")


@pytest.mark.parametrize(
    "value", [True, 3, -0.5, 1e-05, 'a"b\\c', "\x07\x7f\x85", "é\U0001f600", [0.2, 1.0], ["a", "b"], "1e5"]
)
def test_values_are_those_that_toml_reads(value):
    import tomllib

    read = tomllib.loads(f"x = {toml_value(value)}")["x"]
    assert (read, type(read)) == (value, type(value))
