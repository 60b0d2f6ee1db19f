"""k-NN and the linear classifier against independent computations, and the references beside them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from infomax.data.images import ArrayImages
from infomax.data.inference import evaluation_batches
from infomax.data.sources import open_source
from infomax.data.splits import Labelled, Source
from infomax.data.views import Preprocessing
from infomax.encoders import build_encoder, save_encoder
from infomax.evaluation.features import Features, compare_features, embed, extract, pixels, settle
from infomax.evaluation.few_labels import few_label_accuracy
from infomax.evaluation.knn import knn_scores
from infomax.evaluation.linear import FEW_PENALTY, linear_scores, logistic_regression
from infomax.evaluation.protocols import knn, linear
from infomax.evaluation.scores import top_k

SETTINGS = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": 0}


def clusters(n=90, classes=5, d=7, noise=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    return centres[labels] + noise * torch.randn(n, d, generator=generator), labels


@pytest.mark.parametrize(("queries", "k"), [(3, 20), (1500, 20), (40, 1), (40, 500)])
def test_knn_equals_a_loop_over_queries(queries, k):
    """Few queries, more than one chunk of them, one neighbour, and more neighbours than the bank has."""
    bank, labels = clusters(seed=1)
    x, _ = clusters(queries, seed=2)
    got = knn_scores(bank, labels, x, classes=5, k=k, temperature=0.07)
    b, q = (v.double().numpy() / np.linalg.norm(v.double().numpy(), axis=1, keepdims=True) for v in (bank, x))
    for i in range(0, queries, 7):
        similarity = b @ q[i]
        nearest = np.argsort(-similarity, kind="stable")[:k]
        votes = np.bincount(labels[nearest], np.exp(similarity[nearest] / 0.07), minlength=5)
        np.testing.assert_allclose(got[i] / got[i].sum(), votes / votes.sum(), rtol=1e-3, atol=1e-6)


def test_knn_survives_a_tiny_temperature():
    bank, labels = clusters()
    scores = knn_scores(bank, labels, bank, classes=5, temperature=1e-3)
    assert scores.isfinite().all()
    assert top_k(scores, labels) == 1.0


def test_top_k_counts_and_breaks_ties_by_the_first_class():
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.2, 0.2], [0.0, 0.1, 0.9]])
    labels = torch.tensor([2, 0, 1])
    assert top_k(scores, labels, 1) == pytest.approx(1 / 3)
    assert top_k(scores, labels, 2) == 1.0
    assert top_k(scores, labels, 5) == 1.0
    assert top_k(scores, torch.tensor([2, 1, 1]), 1) == 0.0


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_logistic_regression_reaches_scikit_learns_optimum(penalty):
    x, labels = clusters(200)
    weight, bias = logistic_regression(x.double(), labels, classes=5, penalty=penalty)
    oracle = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10_000).fit(x.double().numpy(), labels)
    assert np.abs(weight.numpy() - oracle.coef_).max() < 2e-3 / penalty**0.5
    probability = (x.double() @ weight.T + bias).softmax(1).numpy()
    np.testing.assert_allclose(probability, oracle.predict_proba(x.double().numpy()), atol=2e-3)


def test_linear_classifier_chooses_its_penalty_without_the_test_set():
    """Shifting the test features changes the scores but not the choice."""
    x, labels = clusters(300, noise=2.0)
    test, _ = clusters(50, seed=5)
    _, penalty = linear_scores(x, labels, test, classes=5)
    _, again = linear_scores(x, labels, test * -100, classes=5)
    assert penalty == again
    _, few = linear_scores(x[:10], labels[:10], test, classes=5)
    assert few == FEW_PENALTY


def test_linear_classifier_does_not_care_for_the_scale_of_features():
    x, labels = clusters(300)
    test, true = clusters(100, seed=5)
    a, _ = linear_scores(x, labels, test, classes=5)
    b, _ = linear_scores(1000 * x + 5, labels, 1000 * test + 5, classes=5)
    torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
    assert top_k(a, true) > 0.8


def test_few_labels_are_drawn_alike_for_every_representation():
    """A representation and its double, rotated, see the same draws and score the same."""
    train, labels = clusters(400)
    test, true = clusters(100, seed=5)
    rotation = torch.linalg.qr(torch.randn(7, 7)).Q
    one, two = (Features("", train @ r, labels, test @ r, true, 5) for r in (torch.eye(7), rotation))
    first = few_label_accuracy(one, 2, draws=4)
    assert first == pytest.approx(few_label_accuracy(two, 2, draws=4), abs=0.011)
    assert first[0] < few_label_accuracy(one, 40, draws=4)[0]


@pytest.fixture
def folder(tmp_path):
    encoder = build_encoder(**SETTINGS)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_encoder(encoder, SETTINGS, {"resize": 16, "size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3}, tmp_path)
    return tmp_path


def test_features_are_those_of_the_encoder_in_evaluation_mode_and_leave_it_as_it_was():
    encoder = build_encoder(**SETTINGS).train()
    images = open_source("digits").test
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    index = np.arange(300)
    features = extract(encoder, images, index, Preprocessing(resize=16, size=16))
    assert encoder.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    alone = extract(encoder, images, index[290:291], Preprocessing(resize=16, size=16))
    torch.testing.assert_close(features[290:291], alone)


def test_pixels_of_large_images_are_averaged():
    checker = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    images = ArrayImages(np.repeat(checker[None, ..., None], 3, axis=3), None, [])
    how = Preprocessing(resize=64, size=64, mean=(0, 0, 0), std=(1, 1, 1))
    x = pixels(images, np.arange(1), how)
    assert x.shape == (1, 3 * 32 * 32)
    torch.testing.assert_close(x, torch.full_like(x, 0.5))


def test_the_three_representations_are_what_they_say(folder):
    trained, untrained, raw = compare_features(folder, open_source("digits"))
    assert [f.name for f in (trained, untrained, raw)] == ["trained encoder", "untrained encoder", "raw pixels"]
    assert trained.train.shape == untrained.train.shape == (1438, 128)
    assert not torch.allclose(trained.train, untrained.train)
    assert raw.test.shape == (359, 3 * 16 * 16)
    digits = open_source("digits")
    how = Preprocessing(resize=16, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    part = Labelled(digits.train, np.arange(1438), digits.train.labels)
    again = extract(settle(build_encoder(**SETTINGS), part, how), digits.test, np.arange(359), how)
    torch.testing.assert_close(untrained.test, again)


def test_the_untrained_encoder_has_the_statistics_of_the_images_and_untouched_weights():
    digits, how = open_source("digits"), Preprocessing(resize=16, size=16)
    part = Labelled(digits.train, np.arange(512), digits.train.labels[:512])
    fresh, settled = build_encoder(**SETTINGS), settle(build_encoder(**SETTINGS), part, how)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), settled.parameters(), strict=True))
    x = torch.cat(list(evaluation_batches(part.images, part.index, how)))
    first = fresh.backbone[0](x)
    torch.testing.assert_close(settled.backbone[1].running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not settled.training


@pytest.mark.parametrize("protocol", [knn, linear])
def test_protocols_give_a_row_for_each_representation(folder, protocol):
    rows = protocol(folder, "digits")
    assert [row["representation"] for row in rows] == ["trained encoder", "untrained encoder", "raw pixels"]
    for row in rows:
        assert (row["labelled_images"], row["test_images"]) == (1438, 359)
        assert 0.3 < row["top1"] <= row["top5"] <= 1
    assert rows[2]["top1"] > 0.93  # digits are easy for pixels when all labels are there


def test_knn_refuses_impossible_settings(folder):
    with pytest.raises(ValueError, match="--k must be at least 1"):
        knn(folder, "digits", k=0)
    with pytest.raises(ValueError, match="--temperature"):
        knn(folder, "digits", temperature=0)


def test_images_without_labels_cannot_be_judged_by(folder, tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((5, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="has no labels"):
        knn(folder, str(tmp_path / "x.npz"))


def test_labels_of_a_class_that_only_the_test_split_has(folder):
    x = np.zeros((10, 8, 8, 3), np.uint8)
    source = Source("x", ArrayImages(x, np.zeros(10, int), ["0"]), ArrayImages(x, np.full(10, 1), ["0", "1"]))
    trained, *_ = compare_features(folder, source)
    scores = knn_scores(trained.train, trained.train_labels, trained.test, classes=trained.classes)
    assert top_k(scores, trained.test_labels) == 0.0


def test_embed_gives_features_and_names(folder, tmp_path):
    from PIL import Image

    for name in ("b/2.png", "a/1.png"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True)
        Image.new("RGB", (20, 30), (9, 8, 7)).save(tmp_path / "pictures" / name)
    features, names = embed(folder, str(tmp_path / "pictures"), workers=0)
    assert features.shape == (2, 128)
    assert names == ["a/1.png", "b/2.png"]


def test_embed_tells_the_images_of_two_arrays_apart(folder):
    features, names = embed(folder, "digits")
    assert len(features) == len(set(names)) == 1797
    assert (names[0], names[-1]) == ("train/0", "test/358")
    with pytest.raises(ValueError, match="--device"):
        embed(folder, "digits", device="gpu")


def test_evenly_takes_all_or_the_stated_number():
    part = Labelled(open_source("digits").train, np.arange(100), np.arange(100))
    assert part.evenly(100) is part
    assert list(part.evenly(3).index) == [0, 49, 99]
