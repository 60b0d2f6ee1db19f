"""Rows are compared if they are of the same images under the same conditions, and in no other case."""

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.selection import select_images
from infomax.data.splits import LabelledImages, Source
from infomax.evaluation.intervals import DRAWN, MATCHED, RESAMPLED, Difference, compare_shares, half_interval
from infomax.evaluation.paired import (
    NOT_KEPT,
    OTHER_IMAGES,
    compare_rows,
    hash_images,
    pack_draws,
    pack_hits,
    unpack_right,
)
from infomax.evaluation.protocols.few_shot import FewShotRow
from infomax.evaluation.protocols.knn import KnnRow
from infomax.evaluation.results import append_result, hash_hits, read_results, with_hits
from infomax.evaluation.rows import LinearRow, TransferRow
from infomax.evaluation.run import evaluate
from infomax.evaluation.scores import judge
from infomax.models.encoders import build_encoder, save_encoder
from infomax.recipes.registry import get_recipe
from infomax.runs.run_folder import create_run_folder

COMMON: dict[str, Any] = {"data": "toy", "encoder": "0", "metric": "top1", "classes": 3, "seconds": 1.0, "top5": 1.0}


def row(right: np.ndarray, *, images: str = "same", **changes: Any) -> KnnRow:
    values = {**COMMON, "representation": "trained encoder", "test_images": len(right), "labelled_images": 9}
    values |= {"k": 20, "temperature": 0.07, "top1": float(right.mean()), "hits": pack_hits(right, images=images)}
    return KnnRow(**{**values, **changes})


RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.random(50) < 0.8, RNG.random(50) < 0.6


def test_rows_of_the_same_images_are_compared_image_by_image():
    found = compare_rows(row(FIRST), row(SECOND, representation="raw pixels", encoder="", recipe="x"))
    assert found == compare_shares(FIRST, SECOND)
    assert found.kind == MATCHED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": "others"}, OTHER_IMAGES),
        ({"test_images": 49}, OTHER_IMAGES),
        ({"labelled_images": 8}, OTHER_IMAGES),
        ({"classes": 4}, OTHER_IMAGES),
        ({"images": ""}, NOT_KEPT),
        ({"hits": None}, NOT_KEPT),
        ({"hits": {"images": "same", "right": "!"}}, NOT_KEPT),
        ({"hits": pack_hits(SECOND[:40], images="same")}, NOT_KEPT),
        ({"hits": pack_hits(FIRST, images="same"), "top1": 0.5}, NOT_KEPT),
        ({"k": 5}, "measured with another k"),
        ({"subset_file": "10percent.txt"}, "measured with another subset file"),
        ({"data": "digits"}, "measured with another data"),
        ({"metric": "top5"}, "no right and wrong of single images is behind top5"),
    ],
)
def test_rows_of_other_images_or_conditions_are_not(changes, reason):
    assert compare_rows(row(FIRST), row(SECOND, **changes)) == reason
    assert isinstance(compare_rows(row(SECOND, **changes), row(FIRST)), str)


def test_rows_of_two_protocols_are_not_compared():
    values = {
        key: value for key, value in vars(row(SECOND)).items() if key not in ("k", "temperature", "leave_one_out")
    }
    linear = LinearRow(**{**values, "protocol": "linear"})
    assert compare_rows(row(FIRST), linear) == "measured with another protocol"


def test_a_learning_rate_that_was_searched_is_no_condition_and_a_given_one_is():
    values = {**COMMON, "representation": "a", "test_images": 50, "probe": "mira", "seed": 0}
    first, second = (
        LinearRow(**values, learning_rate=rate, top1=float(right.mean()), hits=pack_hits(right, images="x"))
        for right, rate in ((FIRST, 0.1), (SECOND, 0.3))
    )
    assert compare_rows(first, second) == "measured with another learning rate"
    searched = (replace(x, learning_rates=(0.1, 0.3)) for x in (first, second))
    assert isinstance(compare_rows(*searched), Difference)


def test_means_over_classes_are_compared_by_the_bootstrap_and_draws_two_by_two():
    labels = torch.from_numpy(np.arange(50) % 3)
    scores = [torch.nn.functional.one_hot(labels.where(torch.from_numpy(x), (labels + 1) % 3)) for x in (FIRST, SECOND)]
    fields = {"penalty": 1.0, "penalties": (1.0, 1.0, 1), "solver": "exact", "converged": True, "validation": 0.5}
    fields |= {"train_images": 9, "validation_images": 3, "test_images": 50, "representation": "a"}
    common = {key: value for key, value in COMMON.items() if key not in ("metric", "top5")}
    first, second = (
        TransferRow(**common, **fields, **judge(x.double(), labels, "mean_per_class", images="x")) for x in scores
    )
    found = compare_rows(first, second)
    assert isinstance(found, Difference)
    assert found.value == pytest.approx(first.score - second.score)
    assert found.kind == RESAMPLED
    values = {**common, "metric": "top1", "representation": "a", "test_images": 50, "classifier": "knn", "draws": 3}
    right = np.random.default_rng(0).random((2, 3, 50)) < np.array([0.6, 0.4])[:, None, None]
    few = [
        FewShotRow(
            **values,
            seed=0,
            labels_per_class=1,
            top1=float(np.mean(draws)),
            hits={"images": "x", **pack_draws(draws)},
        )
        for draws in right
    ]
    found = compare_rows(*few)
    assert isinstance(found, Difference)
    assert (found.kind, found.value) == (DRAWN, pytest.approx(right[0].mean() - right[1].mean()))
    gains = right[0].astype(float) - right[1]
    assert found.high - found.value == pytest.approx(half_interval(gains.mean(1), gains.mean(0)))
    for hits in (pack_draws(right[1][:2]), {"draws": pack_draws(right[1])["draws"]}, pack_draws(right[1][:, :49])):
        assert compare_rows(few[0], replace(few[1], hits={"images": "x", **hits})) == NOT_KEPT


@pytest.mark.parametrize("count", [1, 7, 8, 9, 359])
def test_hits_are_a_bit_each(count):
    right = np.random.default_rng(count).random(count) < 0.5
    hits = pack_hits(right)
    assert (unpack_right(hits, count) == right).all()
    assert len(hits["right"]) <= 4 * (count // 24 + 1)
    assert unpack_right(hits, count + 8) is None


def labelled(pixels: np.ndarray, labels: np.ndarray, classes: list[str]) -> LabelledImages:
    return LabelledImages(ArrayImages(pixels, labels, classes), np.arange(len(pixels)), labels)


def test_the_hash_changes_with_pixels_labels_order_and_classes_and_not_with_the_place(tmp_path):
    pixels, labels = np.random.default_rng(0).integers(0, 255, (6, 4, 4, 3), np.uint8), np.arange(6) % 2
    whole = hash_images(labelled(pixels, labels, ["a", "b"]))
    assert whole == hash_images(labelled(pixels.copy(), labels.copy(), ["a", "b"]))
    darker, swapped = pixels.copy(), pixels[::-1].copy()
    darker[0, 0, 0, 0] ^= 1
    others = [
        labelled(darker, labels, ["a", "b"]),
        labelled(swapped, labels, ["a", "b"]),
        labelled(pixels, 1 - labels, ["a", "b"]),
        labelled(pixels, labels, ["a", "c"]),
        LabelledImages(ArrayImages(pixels, labels, ["a", "b"]), np.arange(5), labels[:5]),
    ]
    hashes = [hash_images(part) for part in others]
    assert len({whole, *hashes}) == 6
    assert hash_images(others[0], others[1]) != hash_images(others[1], others[0])
    chosen = select_images(others[0].images, np.arange(6), labels, ["a", "b"])
    assert hash_images(LabelledImages(chosen, np.arange(6), labels)) == hashes[0]


def toy(seed: int = 0) -> Source:
    """Images of two classes, which differ in brightness."""
    rng, labels = np.random.default_rng(seed), np.arange(40) % 2
    pixels = (rng.integers(0, 150, (40, 8, 8, 3)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    train, test = (ArrayImages(pixels[part], labels[part], ["dark", "light"]) for part in (slice(24), slice(24, 40)))
    return Source("toy", train, test)


@pytest.fixture
def encoders(tmp_path):
    """Folders of two encoders."""
    settings = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True}
    preprocessing = Preprocessing(resize=16, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        with_seed = {**settings, "seed": seed}
        save_encoder(build_encoder(**with_seed), with_seed, preprocessing, tmp_path / str(seed))
    return [tmp_path / str(seed) for seed in range(2)]


@pytest.mark.parametrize("protocol", ["knn", "linear", "few-shot"])
def test_an_evaluation_keeps_hits_by_which_another_one_is_compared(tmp_path, encoders, protocol):
    files = [tmp_path / f"{i}.jsonl" for i in range(2)]
    options = {"few-shot": {"labels": (2,), "draws": 3}}.get(protocol, {})
    computed = [
        evaluate(protocol, name, data=toy(), out=file, workers=0, no_cache=True, **options)
        for name, file in zip(encoders, files, strict=True)
    ]
    read = [with_hits(read_results(file), file) for file in files]
    assert read == computed
    assert [x.hits for rows in read for x in rows] == [x.hits for rows in computed for x in rows]
    for first, second in zip(*read, strict=True):
        assert first.hits_hash == hash_hits(first)
        assert isinstance(compare_rows(first, second), Difference)
        assert "hits" not in json.loads(json.dumps(first.to_json()))
    pixels = [next(x for x in rows if x.representation == "raw pixels") for rows in read]
    assert compare_rows(*pixels).value == 0
    (elsewhere, *_) = evaluate(protocol, encoders[1], data=toy(1), workers=0, no_cache=True, **options)
    assert compare_rows(read[0][0], elsewhere) == OTHER_IMAGES


def test_hits_that_were_changed_or_lost_are_as_if_they_had_not_been_kept(tmp_path):
    file = tmp_path / "results.jsonl"
    kept = row(FIRST)
    kept = replace(kept, hits_hash=hash_hits(kept))
    append_result(file, kept)
    append_result(file, replace(row(SECOND), hits_hash=None, hits=None))
    assert [x.hits for x in with_hits(read_results(file), file)] == [kept.hits, None]
    beside = tmp_path / "results.hits.jsonl"
    line = json.loads(beside.read_text())
    beside.write_text(json.dumps({**line, "images": "others"}) + "\n" + json.dumps(line)[:-9])
    assert [x.hits for x in with_hits(read_results(file), file)] == [None, None]
    beside.write_text(json.dumps({**line, "right": 3}) + "\n")
    with pytest.raises(ValueError, match=r"results.hits.jsonl, row 1: right must be a text, but is 3"):
        with_hits(read_results(file), file)
    beside.unlink()
    assert [x.hits for x in with_hits(read_results(file), file)] == [None, None]


def test_a_result_whose_hits_cannot_be_written_is_kept_and_that_is_said(tmp_path, capsys):
    file = tmp_path / "results.jsonl"
    (tmp_path / "results.hits.jsonl").mkdir()
    append_result(file, replace(row(FIRST), hits_hash="0"))
    assert len(read_results(file)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "results.hits.jsonl cannot be written (Is a directory): the result is kept, but not which images" in line


def test_a_result_names_the_verdicts_that_stand_at_the_end_of_the_training(tmp_path, encoders, capsys):
    """They are those of the rows of the metrics; a run whose health was not measured has none, which is not known."""
    data = {"data": "toy", "images": 1000, "fingerprint": "0"}
    run = create_run_folder(
        tmp_path / "run", get_recipe("mveb", "digits"), data=data, launch={"device": "cpu"}, overwrite=False
    )
    for file in encoders[0].iterdir():
        shutil.copy(file, run.path)

    def verdicts():
        (row,) = evaluate("knn", run, data=toy(), k=(1,), no_baselines=True, no_cache=True, workers=0)
        assert read_results(run.path / "results.jsonl")[-1] == row
        return row.verdicts

    assert verdicts() is None
    collapsed = {"epoch": 5, "health_rows": 64, "embedding_mean_cosine": 0.999, "embedding_collapse_level": 0.97}
    for step in (0, 50, 60, 70):
        run.append_row("metrics.jsonl", {"step": step, **collapsed, **({} if step else {"embedding_mean_cosine": 0.3})})
    assert verdicts() == ("total collapse",)
    run.append_row("metrics.jsonl", {"step": "x"})
    assert verdicts() is None
    assert "the verdicts on the training are not known: " in capsys.readouterr().err
