"""The last lines of a run say what was gained, from its metrics alone."""

import re

import numpy as np
import pytest
import torch

import infomax
from command import run_command
from infomax.evaluation.intervals import compare_shares
from infomax.evaluation.run import evaluate
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.runs.run_folder import Run, create_run_folder
from infomax.training.closing import closing_lines, describe_gains, describe_spread, trains_little

TINY = ["--image-size", "8", "--batch-size", "16", "--device", "cpu", "--workers", "0", "--log", "none"]


def arrays(folder, *, labels: bool):
    rng = np.random.default_rng(0)
    classes = np.arange(80) % 2
    images = (rng.integers(0, 150, (80, 8, 8)) + 40 * classes[:, None, None]).astype(np.uint8)
    np.savez(folder / "toy.npz", images=images, **({"labels": classes} if labels else {}))
    return str(folder / "toy.npz")


def test_a_run_with_labels_ends_with_what_it_gained_over_its_references(tmp_path, monkeypatch, capsys):
    words = ["pretrain", "--data", arrays(tmp_path, labels=True), "--method", "mveb", "--epochs", "2", *TINY]
    code, out, err = run_command(monkeypatch, capsys, *words, "--out", str(tmp_path / "a"))
    assert code == 0, err
    first, few, last = out.splitlines()
    assert re.fullmatch(r"\d+ steps of 16 images change an encoder little: the recipe itself has [\d,]+ steps", few)
    number = r"[+-]\d+\.\d"
    gain = rf"{number} \({number} to {number}\) over {{}}: (not clearly better|clearly better|clearly worse)"
    pattern = (
        rf"k-NN (\d+\.\d) % of 16 test images: {gain.format('the untrained encoder')}; {gain.format('the raw pixels')}"
    )
    found = re.fullmatch(pattern, first)
    assert found, first
    assert last.startswith(f"{tmp_path / 'a'} is done; infomax evaluate knn")
    run = Run(tmp_path / "a")
    rows = {x.representation: x for x in evaluate("knn", run, no_cache=True, workers=0)}
    metrics = {key: value for row in run.read_rows("metrics.jsonl") for key, value in row.items()}
    assert metrics["untrained_knn_top1"] == pytest.approx(rows["untrained encoder"].top1)
    assert metrics["knn_over_untrained"] == pytest.approx(metrics["knn_top1"] - metrics["untrained_knn_top1"])
    assert metrics["pixels_knn_top1"] == pytest.approx(rows["raw pixels"].top1)
    assert float(found[1]) == pytest.approx(100 * rows["trained encoder"].top1, abs=0.05)
    code, again, _ = run_command(monkeypatch, capsys, "pretrain", "--out", str(tmp_path / "a"), "--resume")
    assert (code, again) == (0, out)  # a finished run says the same again


def test_the_untrained_encoder_is_that_of_evaluate_with_more_than_a_thousand_images(tmp_path):
    """The statistics of its BatchNorm layers are of the same images: one of the digits would tell 1,000 from all."""
    options = {"data": "digits", "method": "mira", "recipe": "digits", "epochs": 1, "workers": 0, "quiet": True}
    run = infomax.pretrain(**options, out=tmp_path / "run")
    rows = {row.representation: row for row in evaluate("knn", run, no_cache=True, workers=0)}
    (untrained,) = (row["untrained_knn_top1"] for row in run.read_rows("metrics.jsonl") if "untrained_knn_top1" in row)
    assert untrained == pytest.approx(rows["untrained encoder"].top1)


def test_the_gain_is_paired(tmp_path):
    first, second = np.arange(50) < 40, np.arange(50) < 35
    gain = compare_shares(first, second)
    keys = ("knn_over_untrained", "knn_over_untrained_low", "knn_over_untrained_high")
    rows = [
        {"step": 5, "knn_top1": 0.2},
        {"step": 10, "knn_top1": 0.8},
        {"step": 10, "knn_test_images": 50, **dict(zip(keys, (gain.value, gain.low, gain.high), strict=True))},
    ]
    assert (
        describe_gains(rows, 10)
        == f"k-NN 80.0 % of 50 test images: {gain.numbers} over the untrained encoder: {gain.verdict}"
    )
    assert describe_gains(rows, 5) == ""
    assert describe_gains(rows[:2], 10) == ""


def test_without_labels_the_spread_of_the_embeddings_is_said():
    rows = [
        {"step": 0, "embedding_effective_rank": 49.23, "embedding_mean_cosine": 0.801},
        {"step": 9, "loss": 1.0},
        {"step": 10, "embedding_effective_rank": 57.1, "embedding_mean_cosine": 0.6},
    ]
    assert describe_spread(rows) == "embeddings: effective rank from 49.2 to 57.1, mean cosine from 0.80 to 0.60"
    assert describe_spread([{"step": 1, "loss": 1.0}]) == ""


def test_a_run_without_labels_says_nothing_of_k_nn(tmp_path, monkeypatch, capsys):
    words = ["pretrain", "--data", arrays(tmp_path, labels=False), "--method", "mveb", "--epochs", "2", *TINY]
    code, out, err = run_command(monkeypatch, capsys, *words, "--out", str(tmp_path / "a"))
    assert code == 0, err
    assert "k-NN" not in out
    first, few, last = out.splitlines()
    assert few.startswith("10 steps of 16 images change an encoder little: the recipe itself has ")
    assert re.fullmatch(
        r"embeddings: effective rank from [\d.]+ to [\d.]+, mean cosine from .* to .*: too early to judge its health.*",
        first,
    )
    assert f"infomax report {tmp_path / 'a'} --out report.html" in last


def test_the_verdicts_that_stand_are_said_at_the_end_with_their_evidence(tmp_path):
    data = {"data": "toy", "images": 1000, "fingerprint": "0"}
    run = create_run_folder(tmp_path / "run", get_recipe("mveb", "digits"), data=data, launch={}, overwrite=False)
    assert closing_lines(run) == []
    collapsed = {"epoch": 5, "health_rows": 64, "embedding_mean_cosine": 0.999, "embedding_collapse_level": 0.97}
    for step in (0, 50, 60, 70):
        run.append_row("metrics.jsonl", {"step": step, **collapsed, **({} if step else {"embedding_mean_cosine": 0.3})})
    first, second = closing_lines(run)
    assert first == "embeddings: mean cosine from 0.30 to 1.00"
    assert second.startswith("total collapse, failed since step 70: ")


def test_a_sign_that_is_too_short_for_a_verdict_is_not_called_none(tmp_path):
    data = {"data": "toy", "images": 1000, "fingerprint": "0"}
    run = create_run_folder(tmp_path / "run", get_recipe("mveb", "digits"), data=data, launch={}, overwrite=False)
    for step, cosine in ((0, 0.3), (10, 0.999)):
        row = {"embedding_mean_cosine": cosine, "embedding_collapse_level": cosine, "health_rows": 64}
        run.append_row("metrics.jsonl", {"step": step, "epoch": 0, **row})
    assert closing_lines(run) == ["embeddings: mean cosine from 0.30 to 1.00"]
    run.append_row("metrics.jsonl", {"step": 11, "epoch": 0, **row, "embedding_mean_cosine": 0.4})
    spread = "embeddings: mean cosine from 0.30 to 0.40: "
    assert closing_lines(run) == [f"{spread}too early to judge its health: verdicts are said from step 30 on"]
    (tmp_path / "run" / "encoder.json").write_text('{"steps": 30}')
    assert closing_lines(run)[0] == f"{spread}no sign of collapse or divergence, which does not say that it has learned"


@pytest.mark.parametrize(
    ("epochs", "batch_size", "little"),
    [(1, 128, True), (9, 128, True), (10, 128, False), (3, 8, True), (5, 8, False)],
)
def test_a_training_is_little_by_its_steps_or_by_the_images_it_shows(epochs, batch_size, little):
    """The recipe shows each of 1,438 images 80 times; a smaller batch makes more steps and shows no more images."""
    recipe = customise(get_recipe("mveb", "digits"), epochs=epochs, batch_size=batch_size)
    assert trains_little(recipe, 1438, recipe.steps(1438)) == little


def test_scoring_references_leaves_the_random_state_and_the_encoder_alone(tmp_path, monkeypatch, capsys):
    """The encoder is saved before; so is the caller's random state, which the run does not use."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    words = ["pretrain", "--data", arrays(tmp_path, labels=True), "--method", "mveb", "--epochs", "1", *TINY]
    assert run_command(monkeypatch, capsys, *words, "--out", str(tmp_path / "a"))[0] == 0
    assert torch.equal(torch.get_rng_state(), before)
