"""Transfer on tiny copies of the eleven data sets in their true layouts, and its choices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dataset_layouts import LAYOUTS
from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.images.selection import Subset
from infomax.data.sources.location import open_source
from infomax.data.splits import Source
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocols.transfer import TRANSFER_SETS
from infomax.evaluation.transfer import PENALTIES, metric_of, parts, score, to_transfer, transfer
from infomax.models.encoders import build_encoder, save_encoder

SETTINGS = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder")
    save_encoder(
        build_encoder(**SETTINGS), SETTINGS, Preprocessing(resize=20, size=16, mean=(0.5,) * 3, std=(0.5,) * 3), place
    )
    return place


MANY_CLASSES = ("cars", "sun397")


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.process if x in MANY_CLASSES else ()) for x in TRANSFER_SETS]
)
def test_each_of_the_eleven_goes_from_its_files_to_its_metric(name, folder, tmp_path):
    LAYOUTS[name](tmp_path)
    source = open_source(name, data_dir=str(tmp_path))
    if source.val is None and len(source.train) < 5:  # a copy of four images has no fifth
        source = replace(source, train=repeated(source.train))
    split = parts(source)
    own = source.val is not None
    images = len(split.train.index) + len(split.val.index)
    assert images == len(source.train) + (len(source.val) if own else 0)
    if not own:
        assert len(split.val.index) == len(source.train) // 5
        assert not set(split.val.index) & set(split.train.index)
    row = transfer(folder, source, evaluation=EvaluationOptions(workers=0))
    expected = {"aircraft": "mean_per_class", "caltech101": "mean_per_class", "flowers": "mean_per_class"}
    expected |= {"pets": "mean_per_class", "voc2007": "map11"}
    assert row.metric == expected.get(name, "top1")
    assert 0 <= row.score <= 1
    assert row.test_images == len(source.test)
    assert row.penalty in PENALTIES


def test_the_seed_decides_the_fifth_that_validates(folder):
    source = open_source("digits")
    first, again, other = (parts(source, seed=seed).val.index.tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other
    rows = [transfer(folder, source, seed=seed, evaluation=EvaluationOptions(workers=0)) for seed in (0, 1)]
    assert [row.seed for row in rows] == [0, 1]
    assert rows[0].validation != rows[1].validation


def repeated(images):
    """The same images several times over."""
    index = np.tile(np.arange(len(images)), 5)
    return Subset(images, index, images.labels[index], images.classes)


def made(n, seed, several=False):
    """Images of 16 pixels whose class is a faint colour."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(5, size=n)
    pixels = rng.integers(0, 160, (n, 16, 16, 3))
    pixels[np.arange(n), :, :, labels % 3] += (18 * (labels + 1))[:, None, None]
    names = [str(i) for i in range(5)]
    shown = np.eye(5, dtype=np.int64)[labels] | np.eye(5, dtype=np.int64)[rng.integers(5, size=n)]
    return ArrayImages(pixels.clip(0, 255).astype(np.uint8), shown if several else labels, names)


def test_the_fifth_to_validate_by_is_that_of_the_published_results():
    split = parts(Source("made", made(50, 0), made(20, 1)))
    order = np.arange(50)
    np.random.seed(0)
    np.random.shuffle(order)
    assert sorted(order[:10]) == list(split.val.index)
    assert sorted(order[10:]) == list(split.train.index)


def test_a_folder_without_splits_has_all_three():
    split = parts(Source("made", made(100, 0)))
    groups = [set(part.index) for part in (split.train, split.val, split.test)]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 100
    assert 15 <= len(groups[2]) <= 20


def test_the_penalty_is_chosen_on_validation_and_fitted_to_both(folder):
    """Shuffling the test labels changes neither the choice nor the classifier; the classifier is scikit-learn's."""
    source = Source("made", made(150, 0), made(80, 1), val=made(60, 2))
    what = to_transfer(folder, EvaluationOptions())
    row = transfer(what, source)
    worse = replace(source, test=replace(source.test, labels=np.random.default_rng(0).permutation(source.test.labels)))
    other = transfer(what, worse)
    assert (row.penalty, row.validation) == (other.penalty, other.validation)
    assert row.top1 > other.top1 + 0.2
    x = {name: what.features(getattr(source, name), name).double().numpy() for name in ("train", "val", "test")}
    y = {name: getattr(source, name).labels for name in ("train", "val", "test")}
    found = []
    for penalty in PENALTIES:
        model = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=5000).fit(x["train"], y["train"])
        found.append((model.predict(x["val"]) == y["val"]).mean())
    assert row.validation == pytest.approx(max(found), abs=1.5 / 60)
    assert found[PENALTIES.index(row.penalty)] >= max(found) - 1.5 / 60
    both = np.concatenate([x["train"], x["val"]]), np.concatenate([y["train"], y["val"]])
    model = LogisticRegression(C=1 / row.penalty, tol=1e-8, max_iter=5000).fit(*both)
    assert row.top1 == pytest.approx((model.predict(x["test"]) == y["test"]).mean(), abs=1.1 / 80)


@pytest.mark.parametrize("several", [False, True])
def test_as_published_stops_early_and_says_so(folder, several, monkeypatch):
    source = Source("made", made(80, 0, several), made(60, 1, several), val=made(40, 2, several))
    assert metric_of(source) == ("map11" if several else "top1")
    what, few = to_transfer(folder, EvaluationOptions()), [1e-6, 1e-1, 1e2]
    exact = transfer(what, source, penalties=few)
    early = transfer(what, source, penalties=few, as_published=True)
    assert (exact.solver, early.solver) == ("exact", "scikit-learn")
    assert exact.converged
    assert early.score == pytest.approx(exact.score, abs=0.12)
    monkeypatch.setattr("infomax.evaluation.transfer.MOST_ITERATIONS", 3)
    earlier = transfer(what, source, penalties=few, as_published=True)
    assert not earlier.converged


def test_two_classes_as_published(folder):
    def two(n, seed):
        images = made(n, seed)
        return replace(images, labels=(images.labels > 2).astype(np.int64), classes=["a", "b"])

    source = Source("made", two(80, 0), two(60, 1), val=two(40, 2))
    exact = transfer(folder, source, penalties=[1.0])
    early = transfer(folder, source, penalties=[0.5], as_published=True)  # one plane, of which half is each class's
    assert early.top1 == pytest.approx(exact.top1, abs=0.04)


def test_images_are_shown_whole_but_for_what_is_not_square(folder):
    what = to_transfer(folder, EvaluationOptions())
    assert what.encoder.preprocessing.resize == what.encoder.preprocessing.size == 16


def test_images_are_resized_cubically_whatever_the_encoder_does(tmp_path):
    """The published procedure says how, MVEB's Sec. 6.4 too."""
    linear = Preprocessing(resize=20, size=16, bicubic=False)
    save_encoder(build_encoder(**SETTINGS), SETTINGS, linear, tmp_path)
    assert to_transfer(tmp_path, EvaluationOptions()).encoder.preprocessing.bicubic


def test_what_transfer_refuses():
    with pytest.raises(ValueError, match="has no labels to evaluate by"):
        parts(Source("made", ArrayImages(np.zeros((9, 4, 4, 3), np.uint8), None, [])))
    with pytest.raises(ValueError, match="has 4 training images; a fifth to validate by is none"):
        parts(Source("made", made(4, 0), made(4, 1)))


def test_scores_of_one_hot_labels_are_those_of_classes():
    rng = np.random.default_rng(0)
    scores, labels = torch.from_numpy(rng.normal(size=(30, 4))), rng.integers(4, size=30)
    assert score(scores, labels, "top1") == pytest.approx((scores.argmax(1).numpy() == labels).mean())
