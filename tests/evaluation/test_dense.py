"""Dense features: exact counts, the classes of cells and pixels, folders that are wrong, and the whole protocol."""

import json
import os
from dataclasses import replace
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from coco_folders import annotation, toy_content, write_coco
from infomax.data.augmentation.views import Preprocessing
from infomax.data.sources.location import DataLocation
from infomax.evaluation.dense import cells, evaluate
from infomax.evaluation.dense.classifiers import CellBank, KnnCells, fit_linear
from infomax.evaluation.dense.confusion import (
    class_counts,
    confusion_matrix,
    image_values,
    iou,
    mean_iou,
    mean_iou_interval,
    pixel_accuracy,
)
from infomax.evaluation.dense.dense_row import DenseRow
from infomax.evaluation.dense.evaluate import DenseSetting, evaluate_dense
from infomax.evaluation.dense.mask_folder import open_dense
from infomax.evaluation.intervals import weighted_interval
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.paired import NOT_KEPT, OTHER_IMAGES, compare_over_seeds, compare_rows, pack_pixels
from infomax.evaluation.protocols.dense import DenseOptions
from infomax.evaluation.resumable_work import ResumableWork
from infomax.models.encoders import build_encoder, save_encoder
from mask_folders import SIDES, save_mask, toy_mask, write_masked
from ranks import on_ranks

ALONE = EvaluationOptions(device="cpu", workers=1, no_baselines=True, no_cache=True)


def opened(folder):
    return open_dense(DataLocation(data=str(folder)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The folder of an untrained small encoder for images of 64 pixels."""
    folder = tmp_path_factory.mktemp("encoder")
    settings = {"backbone": "small", "stem": "cifar", "stem_padding": 1, "zero_init_residual": True, "seed": 0}
    save_encoder(build_encoder(**settings), settings, Preprocessing(resize=64, size=64), folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_masked(tmp_path_factory.mktemp("masked"))


def test_counts_and_scores_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, jaccard_score
    from sklearn.metrics import confusion_matrix as oracle

    draw = np.random.default_rng(0)
    total = np.zeros((3, 7), np.int64)
    masks = [(draw.integers(0, 6, (9, 11)), draw.integers(0, 7, (9, 11))) for _ in range(5)]
    for true, predicted in masks:
        true[draw.random(true.shape) < 0.2] = 255
        matrix = confusion_matrix(true.astype(np.uint8), predicted.astype(np.uint8), 7)
        seen = true != 255
        np.testing.assert_array_equal(matrix, oracle(true[seen], predicted[seen], labels=range(7)))
        total += class_counts(matrix)
    true, predicted = (np.concatenate([pair[i].ravel() for pair in masks]) for i in range(2))
    true, predicted = true[true != 255], predicted[true != 255]
    by_class = jaccard_score(true, predicted, labels=range(7), average=None, zero_division=0)
    np.testing.assert_allclose(iou(total), by_class, rtol=1e-12)
    assert mean_iou(total) == pytest.approx(by_class[:6].mean(), rel=1e-12)  # no pixel has class 6
    assert pixel_accuracy(total) == accuracy_score(true, predicted)


def test_iou_by_hand():
    """Two of three pixels of class 1 are found, and one of class 0 is taken for it; one is ignored."""
    true = np.array([[0, 0, 1], [1, 1, 255]], np.uint8)
    predicted = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    counts = class_counts(confusion_matrix(true, predicted, 3))
    assert iou(counts).tolist() == [1 / 3, 2 / 4, 0]
    assert mean_iou(counts) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert pixel_accuracy(counts) == 3 / 5


def test_the_interval_weighs_images_anew():
    same = np.tile(np.array([[6, 2], [8, 4], [9, 3]]), (4, 1, 1))
    assert mean_iou_interval(same) == pytest.approx((mean_iou(same[0]),) * 2)
    assert mean_iou_interval(same[:1]) is None
    same[0] = [[0, 0], [8, 4], [4, 8]]
    low, high = mean_iou_interval(same)
    assert low < mean_iou(same.sum(0)) < high


def row_of(by_image, **fields):
    """Returns a row with the counts of each image [n, 3, classes]."""
    values = {"data": "x", "representation": "a", "encoder": "a", "metric": "mean_iou", "classes": 4, "seconds": 1.0}
    values |= {"classifier": "knn", "image_size": 64, "cells": [8, 8], "positions": 9, "used_positions": 9, "seed": 0}
    values |= {"mean_iou": mean_iou(by_image.sum(0)), "pixel_accuracy": 0.5, "iou_by_class": [], **fields}
    values |= {"test_images": len(by_image), "hits": pack_pixels(by_image, images="the images")}
    return DenseRow.from_json(values)


def counts_of(seed, images=30, classes=4, share=0.6):
    """Returns counts of each image whose last class no mask shows."""
    draw = np.random.default_rng(seed)
    true = draw.integers(0, 900, (images, classes)) * (np.random.default_rng(9).random((images, classes)) < 0.7)
    true[:, -1] = 0
    right = (true * np.clip(share + draw.normal(0, 0.2, true.shape), 0, 1)).astype(int)
    return np.stack([right, true, right + draw.integers(0, 300, true.shape)], 1)


def test_differences_weigh_the_same_images_alike_for_both():
    first, second = counts_of(0, share=0.8), counts_of(1)
    weights = np.random.default_rng(0).exponential(size=(1000, 30, 1, 1))
    gains = [mean_iou((w * first).sum(0)) - mean_iou((w * second).sum(0)) for w in weights]
    difference = compare_rows(row_of(first), row_of(second))
    assert (difference.low, difference.high) == pytest.approx(weighted_interval(np.array(gains), 30))
    assert difference.value == pytest.approx(mean_iou(first.sum(0)) - mean_iou(second.sum(0)))
    assert difference.verdict == "clearly better"
    assert difference.kind.startswith("points on the same test images")


def test_the_values_of_images_move_the_mean_iou_as_their_weights_do():
    """By a difference quotient: each image counts a little more."""
    by_image = counts_of(0)
    values, small = image_values(by_image), 1e-7
    assert values.mean() == pytest.approx(mean_iou(by_image.sum(0)))
    for image in (0, 7, 29):
        moved = mean_iou(by_image.sum(0) + small * by_image[image]) - mean_iou(by_image.sum(0))
        assert (values[image] - values.mean()) / 30 == pytest.approx(moved / small, abs=1e-6)


def test_a_class_of_one_image_is_in_the_interval_of_the_score():
    """It is never right; in redrawn images it would be missing in a third of them, and the mean be higher."""
    by_image = counts_of(0)
    by_image[1:, :, 2], by_image[0, :, 2] = 0, (0, 50, 0)
    low, high = mean_iou_interval(by_image)
    assert low < mean_iou(by_image.sum(0)) < high
    assert high - mean_iou(by_image.sum(0)) < 0.06


def test_seeds_of_a_training_are_compared_over_images_too():
    rows = [(row_of(counts_of(seed, share=0.8)), row_of(counts_of(10 + seed))) for seed in range(3)]
    over_seeds = compare_over_seeds(rows)
    assert over_seeds.value == pytest.approx(np.mean([a.mean_iou - b.mean_iou for a, b in rows]))
    assert over_seeds.verdict == "clearly better"


def test_pixels_that_are_damaged_are_not_compared():
    by_image, other = counts_of(0), row_of(counts_of(1))
    row = row_of(by_image)
    assert compare_rows(replace(row, mean_iou=0.5), other) == NOT_KEPT
    for text in ("", "no base64!", "AAAA", row.hits["pixels"][:-8]):
        assert compare_rows(replace(row, hits={**row.hits, "pixels": text}), other) == NOT_KEPT
    assert compare_rows(row_of(by_image[:1]), row_of(counts_of(1)[:1])) == "one test image alone"


@pytest.mark.parametrize("sides", [(37, 23), (5, 4), (3, 50)])
def test_scores_are_enlarged_as_torch_does(sides, monkeypatch):
    monkeypatch.setattr(cells, "STRIP_NUMBERS", 100)  # several strips
    scores = torch.randn(6, 5, 4, generator=torch.manual_seed(0), dtype=torch.float64)
    expected = F.interpolate(scores[None], sides, mode="bilinear", align_corners=False)[0].argmax(0)
    np.testing.assert_array_equal(cells.best_at_pixels(scores, *sides), expected.numpy())


def test_cells_are_chosen_evenly_and_never_ignored_ones():
    assert cells.cell_quota(10, 4).tolist() == [2, 3, 2, 3]
    assert cells.cell_quota(2, 5).sum() == 2
    labels = np.full((4, 4), 255, np.uint8)
    labels[1, 1:] = 2
    assert cells.choose_cells(labels, 5, (0, 0)).tolist() == [5, 6, 7]
    assert set(cells.choose_cells(labels, 2, (0, 0))) < {5, 6, 7}


def test_a_linear_classifier_of_cells_lacks_classes_that_it_has_not_seen():
    draw = torch.manual_seed(0)
    labels = torch.tensor([0, 2, 4]).repeat(40)
    features = 5 * F.one_hot(labels, 5).float() + 100 + torch.randn(120, 5, generator=draw)
    bank = CellBank(features, labels, torch.arange(120) // 12)
    linear, penalty = fit_linear(bank, 6)
    scores = linear.scores(features, 6)
    assert (scores.argmax(1) == labels).float().mean() > 0.95
    assert (scores[:, [1, 3, 5]].amax(1) < scores[:, [0, 2, 4]].amin(1)).all()
    assert penalty in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    only, _ = fit_linear(CellBank(features, torch.full_like(labels, 3), bank.images), 6)
    assert (only.scores(features, 6).argmax(1) == 3).all()
    votes = KnnCells(bank, 5, 0.07).scores(features[:4], 6)
    torch.testing.assert_close(votes.sum(1), torch.ones(4))


def test_an_untrained_encoder_tells_colours_apart(encoder, folder):
    setting = DenseSetting(positions=1500)
    linear, knn = evaluate_dense(encoder, opened(folder), setting, ALONE)
    assert (linear.classifier, knn.classifier) == ("linear", "knn")
    assert linear.mean_iou > 0.8
    assert linear.pixel_accuracy > 0.9
    assert knn.mean_iou > 0.8
    assert linear.positions == linear.used_positions == 1500
    assert linear.labelled_images == 6
    assert linear.cells == (16, 16)
    pixels = sum((mask := toy_mask(100 + i)).size for i in range(3))
    assert sum(c["pixels"] for c in linear.iou_by_class) == pixels == 3 * mask.size
    assert linear.mean_iou == pytest.approx(np.mean([c["iou"] for c in linear.iou_by_class]))
    finer, _ = evaluate_dense(encoder, opened(folder), DenseSetting(size=128, positions=1500), ALONE)
    assert finer.mean_iou > 0.9
    assert finer.cells == (32, 32)
    (without,) = evaluate_dense(
        encoder, opened(folder), DenseSetting(classifier=("linear",), ignore_background=True), ALONE
    )
    assert {c["name"] for c in without.iou_by_class} == {"1", "2", "3"}
    assert without.classes == 3
    assert without.pixel_accuracy > 0.9


def test_what_was_computed_is_not_computed_again(encoder, folder, monkeypatch, tmp_path):
    """A process that dies in the test goes on with its bank and its counted images, to the same row."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cells, "IMAGES_AT_ONCE", 1)
    monkeypatch.setattr(evaluate, "IMAGES_AT_ONCE", 1)
    monkeypatch.setattr(evaluate, "SAVE_EVERY", 0.0)
    kept = EvaluationOptions(device="cpu", workers=1, no_baselines=True)
    setting, source = DenseSetting(classifier=("linear",), positions=600), opened(folder)
    (whole,) = evaluate_dense(encoder, source, setting, ALONE)
    read, seen, last = cells.read_masked, [], source.test.name(2)

    def broken(images, masks, index, *rest):
        if images.root.parent.name == "val" and images.name(index) == last and not fixed:
            raise ValueError("the disk is gone")
        seen.append((images.root.parent.name, index))
        return read(images, masks, index, *rest)

    monkeypatch.setattr(cells, "read_masked", broken)
    fixed = False
    with pytest.raises(ValueError, match="the disk is gone"):
        list(evaluate_dense(encoder, source, setting, kept))
    fixed = True
    monkeypatch.delattr(evaluate, "fit_linear")
    seen.clear()
    (resumed,) = evaluate_dense(encoder, source, setting, kept)
    assert ("train", 0) not in seen
    assert ("val", 0) not in seen
    assert ("val", 2) in seen
    assert (resumed.mean_iou, resumed.interval) == (whole.mean_iou, whole.interval)
    seen.clear()
    (again,) = evaluate_dense(encoder, source, setting, kept)
    assert not seen
    assert again == resumed


def rows_of_a_rank(encoder, folder, work):
    """Returns what the rows say, and of each save of the bank the images that are done and those whose cells it has."""
    os.environ["XDG_CACHE_HOME"] = str(work)
    saved, save = [], ResumableWork.save

    def note_save(self, name, state):
        if name == "bank":
            saved.append((state["step"], len(state["images"].unique())))
        save(self, name, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResumableWork, "save", note_save)
        options = EvaluationOptions(device="cpu", workers=1, no_baselines=True)
        rows = list(evaluate_dense(encoder, opened(folder), DenseSetting(positions=601), options))
    names = ("mean_iou", "interval", "used_positions", "iou_by_class", "hits", "penalty")
    return [[getattr(row, name) for name in names] for row in rows], saved


@pytest.mark.process
def test_ranks_share_the_images_and_give_the_rows_of_one(encoder, folder, tmp_path, monkeypatch):
    """Three batches to train on and two to test on, so that the second rank has none in a step."""
    monkeypatch.setattr(cells, "IMAGES_AT_ONCE", 2)
    monkeypatch.setattr(evaluate, "IMAGES_AT_ONCE", 2)
    monkeypatch.setattr(evaluate, "SAVE_EVERY", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    rows, saved = rows_of_a_rank(encoder, folder, tmp_path / "one")
    assert saved == [(2, 2), (4, 4), (6, 6)]
    assert on_ranks(2, rows_of_a_rank, encoder, folder, tmp_path / "two") == [(rows, [(4, 4), (6, 6)])] * 2


def test_rows_on_the_same_images_are_compared_image_by_image(encoder, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    setting = DenseSetting(classifier=("linear",), positions=600)
    kept = EvaluationOptions(device="cpu", workers=1, no_cache=True)
    trained, _, pixels = evaluate_dense(encoder, opened(folder), setting, kept)
    assert str(compare_rows(trained, trained)) == "+0.0 (+0.0 to +0.0): not clearly better"
    difference = compare_rows(trained, pixels)
    assert difference.value == pytest.approx(trained.mean_iou - pixels.mean_iou)
    assert difference.low <= difference.value <= difference.high
    assert compare_rows(replace(trained, positions=9), pixels) == "measured with another positions"
    assert not isinstance(compare_rows(replace(trained, cells=(9, 9)), pixels), str)
    copied = opened(copytree(folder, tmp_path / "elsewhere"))
    (elsewhere,) = evaluate_dense(encoder, copied, setting, ALONE)
    assert not isinstance(compare_rows(replace(elsewhere, data=pixels.data), pixels), str)
    save_mask(toy_mask(3), tmp_path / "elsewhere/val/masks/0.png")
    (other,) = evaluate_dense(encoder, opened(tmp_path / "elsewhere"), setting, ALONE)
    assert compare_rows(replace(other, data=pixels.data), pixels) == OTHER_IMAGES


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
def test_layouts(layout, tmp_path):
    source = opened(write_masked(tmp_path, layout=layout))
    np.testing.assert_array_equal(source.train_masks.read(2), toy_mask(2))
    assert (len(source.train), len(source.test)) == (6, 3)


def test_the_layouts_of_voc_and_ade(tmp_path):
    voc = tmp_path / "voc"
    (voc / "JPEGImages").mkdir(parents=True)
    (voc / "ImageSets/Segmentation").mkdir(parents=True)
    for split, names in (("train", "abc"), ("val", "de")):
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            Image.new("RGB", SIDES[::-1]).save(voc / f"JPEGImages/{name}.jpg")
            save_mask(toy_mask(i), voc / f"SegmentationClass/{name}.png")
    assert (len(opened(voc).train), len(opened(voc).test)) == (3, 2)
    ade = write_masked(tmp_path / "ade", layout="{kind}/{split}")
    (ade / "masks").rename(ade / "annotations")
    for kind in ("images", "annotations"):
        (ade / kind / "train").rename(ade / kind / "training")
        (ade / kind / "val").rename(ade / kind / "validation")
    assert (opened(ade).train_split, opened(ade).test_split) == ("training", "validation")


def test_what_is_left_out_is_said(tmp_path):
    folder = write_masked(tmp_path)
    (folder / "train/masks/0.png").unlink()
    (folder / "val/images/1.png").unlink()
    mask = np.full(SIDES, 255, np.uint8)
    mask[:16] = 9
    save_mask(mask, folder / "val/masks/0.png")
    notes = "\n".join(opened(folder).notes)
    assert "1 image of train left out, without a mask: 0.png" in notes
    assert "1 mask of val left out, whose image is not there: 1.png" in notes
    assert "there is no classes.txt: the classes are the 5 numbers in the masks" in notes
    assert "37.5% of the pixels of val are ignored: their number is 255" in notes
    assert "train has no pixel of 1 of 5 classes: 9" in notes


def wrong_size(folder):
    save_mask(toy_mask(0, (64, 64)), folder / "train/masks/3.png")


def colours(folder):
    Image.new("RGB", SIDES[::-1]).save(folder / "train/masks/3.png")


def unknown_class(folder):
    (folder / "classes.txt").write_text("ground\nred\ngreen\n")


def broken(folder):
    (folder / "val/masks/1.png").write_bytes(b"no image")


def one_split(folder):
    (folder / "val").rename(folder / "other")


def two_of_a_name(folder):
    Image.new("RGB", SIDES[::-1]).save(folder / "train/images/3.jpg")


def two_layouts(folder):
    write_masked(folder, layout="{kind}/{split}")


def twice(folder):
    (folder / "classes.txt").write_text("a\nb\nc\na\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_size, r"3.png has 64 x 64 pixels, but its image 3.png has 48 x 64"),
        (colours, r"3.png has colours \(RGB\), but a mask has numbers of classes: want a palette or gray PNG"),
        (unknown_class, r"has the number 3, which is no class: classes.txt has 3 lines, for the numbers 0 to 2"),
        (broken, r"1.png cannot be read as a PNG"),
        (one_split, r"there are masks for train alone"),
        (two_of_a_name, r"has 3.jpg and 3.png, of which one has the mask"),
        (two_layouts, r"several folders may be the masks of the train images: "),
        (twice, r"classes.txt names a twice"),
    ],
)
def test_a_wrong_folder_is_one_line(spoil, message, tmp_path):
    spoil(write_masked(tmp_path))
    with pytest.raises(ValueError, match=message) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


def test_no_folder_of_masks(tmp_path):
    with pytest.raises(ValueError, match="has no masks for train and val; want train/images and train/masks"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"--subset x is not for infomax evaluate dense"):
        open_dense(DataLocation(data=str(tmp_path), subset="x"))


def test_objects_of_coco_become_masks(tmp_path):
    """Crowds are ignored, the smaller object is on top, and the rest is background."""
    pytest.importorskip("faster_coco_eval")
    content = toy_content(1)
    runs = {"size": [64, 64], "counts": [0, 64 * 20, 64 * 44]}  # the left 20 columns
    content["annotations"] = [
        annotation(1, 10, 3, (10, 10, 8, 8)),
        annotation(2, 10, 7, (8, 8, 40, 40)),
        annotation(3, 10, 3, (0, 0, 20, 64), iscrowd=1, segmentation=runs),
        annotation(4, 10, 3, (50, 50, 9, 9), segmentation=[]),
    ]
    source = opened(write_coco(tmp_path, content))
    expected = np.zeros((64, 64), np.uint8)
    expected[:, :20], expected[8:48, 8:48], expected[10:18, 10:18] = 255, 2, 1
    np.testing.assert_array_equal(source.train_masks.read(0), expected)
    notes = "\n".join(source.notes)
    assert "the pixels of 1 crowd of train are ignored" in notes
    assert "1 object of val without a mask left out: their pixels are background" in notes
    assert "of objects that overlap, the smaller one is on top" in notes
    assert source.class_names == ("background", "red", "green")


def test_a_mask_that_does_not_fit_its_image_is_named_when_it_is_read(tmp_path, encoder):
    pytest.importorskip("faster_coco_eval")
    source = opened(write_coco(tmp_path))
    Image.new("RGB", (32, 64)).save(tmp_path / "train2017/1.png")
    with pytest.raises(ValueError, match=r"the mask of 1.png in .* has 64 x 64 pixels, but the image has 32 x 64"):
        list(evaluate_dense(encoder, source, DenseSetting(), ALONE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier": ("tree",)}, "--classifier"),
        ({"classifier": ()}, "--classifier wants one of linear, knn"),
        ({"positions": 0}, "--positions must be a whole number of at least 1, but is 0"),
        ({"size": 5000}, "--size must be at most 4096 pixels, but is 5000"),
        ({"temperature": 0.0}, "--temperature"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        DenseOptions(**options)


def test_background_cannot_be_ignored_if_there_is_none(tmp_path, encoder):
    folder = write_masked(tmp_path)
    for file in folder.rglob("masks/*.png"):
        save_mask(np.where(np.asarray(Image.open(file)), np.asarray(Image.open(file)), 4).astype(np.uint8), file)
    with pytest.raises(ValueError, match="--ignore-background ignores class 0, but"):
        list(evaluate_dense(encoder, opened(folder), DenseSetting(ignore_background=True), ALONE))


def test_a_row_is_the_same_after_json(encoder, folder):
    (row,) = evaluate_dense(encoder, opened(folder), DenseSetting(classifier=("knn",), positions=50), ALONE)
    assert type(row).from_json(json.loads(json.dumps(row.to_json()))) == row
