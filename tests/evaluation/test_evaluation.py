"""k-NN and the linear classifier against independent computations, and the references beside them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ttest_1samp

from infomax.data.augmentation.views import Preprocessing
from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.evaluation import evaluation_batches
from infomax.data.sources.location import open_source
from infomax.data.splits import LabelledImages, Source
from infomax.embeddings.embed import embed
from infomax.evaluation.clusters import compare, default_clusters
from infomax.evaluation.few_shot import few_shot_scores
from infomax.evaluation.intervals import half_interval
from infomax.evaluation.knn_vote import knn_scores
from infomax.evaluation.linear import FEW_PENALTY, linear_scores
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.protocols.few_shot import check_labels
from infomax.evaluation.representations import Features, compare_features
from infomax.evaluation.results import read_results
from infomax.evaluation.run import evaluate
from infomax.evaluation.scores import top_k
from infomax.features.extraction import extract_features, pixel_batches, recalibrate_batch_norm
from infomax.models.encoders import build_encoder, save_encoder
from infomax.reporting.results import lists_table
from infomax.runtime import progress
from infomax.runtime.stages import stages_shown

SETTINGS = {"backbone": "small", "stem": "imagenet", "stem_padding": 1, "zero_init_residual": True, "seed": 0}


def clusters(n=90, classes=5, d=7, noise=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    return centres[labels] + noise * torch.randn(n, d, generator=generator), labels


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
    first, again = (list(few_shot_scores(f, 2, draws=4)) for f in (one, two))
    assert [row["classifier"] for row in first] == ["knn", "linear"]
    for row, other in zip(first, again, strict=True):
        assert row["top1"] == pytest.approx(other["top1"], abs=0.011)
        assert row["labelled_images"] == 10
    assert first[0]["top1"] < next(few_shot_scores(one, 40, draws=4))["top1"]


def test_a_slow_few_shot_classification_names_what_it_classifies_by(monkeypatch, capsys):
    monkeypatch.setattr("infomax.runtime.stages.BEGIN_AFTER", 0.0)
    labels = torch.arange(5).repeat(20)
    x = torch.nn.functional.one_hot(labels).float()
    with stages_shown(True):
        list(few_shot_scores(Features("raw pixels", x, labels, x, labels, 5), 2, draws=20))
    assert "few-shot, raw pixels: 20 draws of 2 labels a class" in capsys.readouterr().err


def test_the_interval_of_few_labels_is_students_over_draws_and_over_images():
    right = np.random.default_rng(0).random((4, 50)) < np.linspace(0.1, 0.9, 50)
    draws, images = (ttest_1samp(right.mean(axis), 0).confidence_interval() for axis in (1, 0))
    halves = [(x.high - x.low) / 2 for x in (draws, images)]
    assert half_interval(right.mean(1), right.mean(0)) == pytest.approx(math.hypot(*halves))


def test_the_interval_of_few_labels_covers_the_accuracy_with_other_draws_and_images():
    """Draws and images both shift what is right: an interval over one of them alone covers it less often."""
    rng, covered, draws_alone = np.random.default_rng(1), [], []
    for _ in range(300):
        of_draws, of_images = rng.normal(0, 0.2, (10, 1)), rng.normal(0, 1, (1, 40))
        right = rng.normal(0, 1, (10, 40)) < of_draws + of_images
        half = half_interval(right.mean(1), right.mean(0))
        covered.append(abs(right.mean() - 0.5) <= half)
        draws_alone.append(abs(right.mean() - 0.5) <= half_interval(right.mean(1), np.ones(1)))
    assert np.mean(covered) >= 0.93
    assert np.mean(draws_alone) < 0.8


def test_equal_draws_of_all_labels_have_the_interval_of_the_images():
    x, labels = clusters(40)
    test, true = clusters(30, seed=3)
    row = next(
        few_shot_scores(
            Features("", x + torch.randn_like(x), labels, test + torch.randn_like(test), true, 5), 40, draws=3
        )
    )
    low, high = row["interval"]
    assert high - low > 0.1


def test_more_labels_than_a_class_has_are_said_and_more_than_any_has_are_refused():
    assert check_labels([5, 20, 8], (1, 5)) == []
    (line,) = check_labels([5, 20, 8], (1, 10))
    assert line == "--labels 10: 2 of 3 classes have fewer labelled images, at least 5, and give all of them"
    with pytest.raises(
        ValueError, match="--labels 30 is more than there are: the largest class has 20 labelled images"
    ):
        check_labels([5, 20, 8], (1, 30))


def test_clusters_are_compared_with_classes_by_three_measures():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=300)
    perfect = compare((labels + 1) % 4 + 2, labels)  # other numbers, and two that stand for nothing
    assert (perfect["nmi"], perfect["ari"], perfect["accuracy"], perfect["used_clusters"]) == (1, 1, 1, 4)
    chance = compare(rng.integers(4, size=300), labels)
    assert abs(chance["ari"]) < 0.02
    assert chance["accuracy"] < 0.4
    half = compare(labels // 2, labels)
    assert half["accuracy"] == pytest.approx(max(np.bincount(labels)[:2]) / 300 + max(np.bincount(labels)[2:]) / 300)


@pytest.fixture
def folder(tmp_path):
    encoder = build_encoder(**SETTINGS)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_encoder(encoder, SETTINGS, Preprocessing(resize=16, size=16, mean=(0.5,) * 3, std=(0.5,) * 3), tmp_path)
    return tmp_path


def test_features_are_those_of_the_encoder_in_evaluation_mode_and_leave_it_as_it_was():
    encoder = build_encoder(**SETTINGS).train()
    images = open_source("digits").test
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    index = np.arange(300)
    features = extract_features(encoder, images, index, Preprocessing(resize=16, size=16))
    assert encoder.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    alone = extract_features(encoder, images, index[290:291], Preprocessing(resize=16, size=16))
    torch.testing.assert_close(features[290:291], alone)


def test_pixels_of_large_images_are_averaged():
    checker = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    images = ArrayImages(np.repeat(checker[None, ..., None], 3, axis=3), None, [])
    how = Preprocessing(resize=64, size=64, mean=(0, 0, 0), std=(1, 1, 1))
    (x,) = pixel_batches(images, np.arange(1), how)
    assert x.shape == (1, 3 * 32 * 32)
    torch.testing.assert_close(x, torch.full_like(x, 0.5))


def test_the_three_representations_are_what_they_say(folder):
    trained, untrained, raw = compare_features(folder, "digits")
    assert [f.name for f in (trained, untrained, raw)] == ["trained encoder", "untrained encoder", "raw pixels"]
    assert trained.train.shape == untrained.train.shape == (1438, 128)
    assert not torch.allclose(trained.train, untrained.train)
    assert raw.test.shape == (359, 3 * 16 * 16)
    digits = open_source("digits")
    how = Preprocessing(resize=16, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    part = LabelledImages(digits.train, np.arange(1438), digits.train.labels)
    again = extract_features(
        recalibrate_batch_norm(build_encoder(**SETTINGS), part, how), digits.test, np.arange(359), how
    )
    torch.testing.assert_close(untrained.test, again)


def test_the_untrained_encoder_has_the_statistics_of_the_images_and_untouched_weights():
    digits, how = open_source("digits"), Preprocessing(resize=16, size=16)
    part = LabelledImages(digits.train, np.arange(512), digits.train.labels[:512])
    fresh, settled = build_encoder(**SETTINGS), recalibrate_batch_norm(build_encoder(**SETTINGS), part, how)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), settled.parameters(), strict=True))
    x = torch.cat(list(evaluation_batches(part.images, part.index, how)))
    first = fresh.backbone[0](x)
    torch.testing.assert_close(settled.backbone[1].running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not settled.training


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_protocols_give_a_row_for_each_representation(folder, protocol):
    rows = evaluate(protocol, folder, data="digits")
    assert [row.representation for row in rows] == ["trained encoder", "untrained encoder", "raw pixels"]
    for row in rows:
        assert (row.labelled_images, row.test_images) == (1438, 359)
        assert 0.3 < row.top1 <= row.top5 <= 1
    assert rows[2].top1 > 0.93  # digits are easy for pixels when all labels are there


def test_one_search_gives_all_settings_of_knn(folder):
    rows = evaluate("knn", folder, data="digits", k=(1, 20), temperature=(0.07, 0.5), no_baselines=True)
    assert [(row.k, row.temperature) for row in rows] == [(1, 0.07), (1, 0.5), (20, 0.07), (20, 0.5)]
    (one,) = evaluate("knn", folder, data="digits", k=(20,), temperature=(0.5,), no_baselines=True)
    assert one.top1 == rows[3].top1
    assert rows[0].top1 == rows[1].top1  # one neighbour decides, whatever its weight


def test_leave_one_out_judges_the_training_images(folder):
    (row,) = evaluate("knn", folder, data="digits", k=(1,), leave_one_out=True, no_baselines=True)
    assert row.test_images == 1438
    features = next(compare_features(folder, "digits"))
    x = features.train / features.train.norm(dim=1, keepdim=True)
    cosine = (x @ x.T).fill_diagonal_(-2)
    expected = (features.train_labels[cosine.argmax(1)] == features.train_labels).float().mean()
    assert row.top1 == pytest.approx(float(expected), abs=1e-3)


def test_leave_one_out_holds_out_no_image(folder, tmp_path, capsys):
    file = tmp_path / "no_test_split.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    np.savez(file, train_x=pixels, train_y=np.repeat(np.arange(3), 4))  # too few of a class for every fifth
    (row,) = evaluate("knn", folder, data=file, k=(1,), leave_one_out=True, no_baselines=True, quiet=False)
    assert (row.labelled_images, row.test_images) == (12, 12)
    said = capsys.readouterr().err
    assert f"{file}: tests each of these images by the others\n" in said
    assert "every fifth" not in said
    with pytest.raises(ValueError, match="no class has the 5 images"):
        evaluate("knn", folder, data=file, k=(1,), no_baselines=True)


def test_few_and_cluster_give_rows_for_each_representation(folder):
    rows = evaluate("few-shot", folder, data="digits", labels=(1, 5), draws=3)
    assert len(rows) == 3 * 2 * 2
    assert rows[0].labelled_images == 10
    assert rows[0].interval[0] < rows[0].top1 < rows[0].interval[1]
    rows = evaluate("cluster", folder, data="digits")
    assert [row.representation for row in rows] == ["trained encoder", "untrained encoder", "raw pixels"]
    assert rows[2].clusters == 10
    assert rows[2].nmi > 0.6
    with pytest.raises(ValueError, match="--clusters must be at most the number of test images, 359"):
        evaluate("cluster", folder, data="digits", clusters=400)


@pytest.fixture
def flat(tmp_path, monkeypatch):
    """Makes a folder of images without classes in three colours, 12 red, 5 green and 3 blue ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat").mkdir()
    for i, colour in enumerate(["red"] * 12 + ["green"] * 5 + ["blue"] * 3):
        image = Image.new("RGB", (20, 20), colour)
        image.putpixel((i, 0), (0, 0, 0))
        image.save(tmp_path / "flat" / f"{colour}-{i:02}.png")
    return tmp_path


def test_clusters_of_images_without_labels_are_lists_of_files(folder, flat, capsys):
    (row,) = evaluate("cluster", folder, data="flat", clusters=3, workers=0, out="results.jsonl")
    assert [{name.split("-")[0] for name in names} for names in row.lists] == [{"red"}, {"green"}, {"blue"}]
    assert [len(names) for names in row.lists] == [len(distances) for distances in row.distances] == [12, 5, 3]
    assert all(list(distances) == sorted(distances) for distances in row.distances)
    assert (row.test_images, row.classes, row.clusters, row.used_clusters) == (20, 0, 3, 3)
    assert row.tested_on == "all images"
    assert 0.8 < row.silhouette < 1
    err = capsys.readouterr().err
    assert "3 clusters; they are listed, not compared with classes: the data has no class folders: its images" in err
    assert "the images of each cluster are listed in results.clusters.csv" in err
    lines = (flat / "results.clusters.csv").read_text().splitlines()
    assert lines[0] == "file,cluster,distance"
    assert [line.split(",")[:2] for line in lines[1:13]] == [[name, "1"] for name in row.lists[0]]
    assert len(lines) == 21
    (kept,) = read_results(flat / "results.jsonl")
    assert kept == row
    assert kept.lists is None
    assert "lists" not in (flat / "results.jsonl").read_text().replace("cluster-lists", "")


def test_distances_are_those_to_the_mean_of_the_cluster(folder, flat):
    (row,) = evaluate("cluster", folder, data="flat", clusters=3, workers=0)
    assert not (flat / "results.clusters.csv").exists()  # nothing is written that nobody asked for
    features, names = embed(folder, "flat", workers=0)
    x = torch.nn.functional.normalize(features, dim=1)
    for members, distances in zip(row.lists, row.distances, strict=True):
        own = x[[names.index(name) for name in members]]
        expected = (own - own.mean(0)).norm(dim=1)
        torch.testing.assert_close(torch.tensor(distances), expected, atol=1e-5, rtol=1e-3)


def test_the_number_of_clusters_without_labels_has_a_default_that_is_said(folder, flat, capsys):
    assert [default_clusters(n) for n in (2, 100, 1000, 10_000)] == [2, 7, 22, 71]
    (row,) = evaluate("cluster", folder, data="flat", workers=0)
    assert row.clusters == 3
    assert (
        "3 clusters, the root of half the number of images (--clusters N gives another number)"
        in capsys.readouterr().err
    )


def test_images_with_labels_are_listed_if_that_is_asked_for(folder, photos, capsys):
    (row,) = evaluate("cluster", folder, data="photos", no_labels=True, clusters=2, workers=0)
    assert sum(map(len, row.lists)) == row.test_images == 12
    assert "2 clusters; they are listed, not compared with classes: no labels are wanted" in capsys.readouterr().err
    (row,) = evaluate("cluster", folder, data=photos, no_labels=True, clusters=2, workers=0)
    assert sorted(name for names in row.lists for name in names) == photos
    (row,) = evaluate("cluster", folder, data=[Image.open(path) for path in photos], clusters=2)
    assert sorted(name for names in row.lists for name in names) == sorted(map(str, range(12)))


def test_clusters_that_cannot_be_are_refused_before_anything_is_computed(folder, flat, capsys):
    for data, options, message in (
        ("flat", {"clusters": 21}, "clusters.* must be at most the number of images, 20, but is 21"),
        ("flat/red-00.png", {}, "flat/red-00.png has one image; clusters are made of at least 2"),
        ("flat", {"clusters": 1}, "clusters.* must be a whole number of at least 2, but is 1"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate("cluster", folder, data=data, workers=0, no_cache=True, **options)


def test_images_that_are_the_same_leave_clusters_empty_and_that_is_said(folder, flat, capsys):
    (row,) = evaluate("cluster", folder, data=np.zeros((6, 8, 8, 3), np.uint8), clusters=4)
    assert (row.clusters, row.used_clusters, row.silhouette, len(row.lists)) == (4, 1, 0.0, 1)
    assert "1 of 4 clusters have an image" in capsys.readouterr().err


def test_lists_of_clusters_are_a_table_of_sizes_and_nearest_files(folder, flat):
    (row,) = evaluate("cluster", folder, data="flat", clusters=3, workers=0)
    table = lists_table(row)
    assert [line[1].text for line in table.rows] == ["12", "5", "3"]
    assert table.rows[2][0].text == f"3: {', '.join(row.lists[2])}"
    many = replace(row, lists=(("x" * 99,),) * 30, distances=((0.0,),) * 30)
    assert lists_table(many).notes[0] == "and 10 smaller ones"
    assert table.notes == ("distance: the mean one of its images to its centre, of features at unit length",)
    assert lists_table(many).rows[0][0].text == f"1: ...{'x' * 15}"
    wide = lists_table(replace(row, lists=(("x" * 99,) * 9,) * 20, distances=((0.0,) * 9,) * 20))
    assert max(map(len, wide.text().splitlines())) <= 80
    assert lists_table(evaluate("knn", folder, data="digits", no_baselines=True)[0]) is None


def test_features_in_half_precision_score_alike(folder):
    (half,) = evaluate("knn", folder, data="digits", no_baselines=True, feature_precision="16")
    (full,) = evaluate("knn", folder, data="digits", no_baselines=True)
    assert half.top1 == pytest.approx(full.top1, abs=0.01)
    with pytest.raises(ValueError, match="--feature-precision must be 32 or 16, but is '8'"):
        EvaluationOptions(feature_precision="8")


def test_knn_refuses_impossible_settings(folder):
    with pytest.raises(ValueError, match="--k must be a whole number of at least 1"):
        evaluate("knn", folder, data="digits", k=(5, 0))
    with pytest.raises(ValueError, match="--temperature must be a number in"):
        evaluate("knn", folder, data="digits", temperature=(0,))
    with pytest.raises(ValueError, match="want at least one value"):
        evaluate("knn", folder, data="digits", k=())


def test_images_without_labels_cannot_be_judged_by(folder, tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((5, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="has no labels"):
        evaluate("knn", folder, data=str(tmp_path / "x.npz"))


def test_labels_of_a_class_that_only_the_test_split_has(folder):
    x = np.zeros((10, 8, 8, 3), np.uint8)
    source = Source("x", ArrayImages(x, np.zeros(10, int), ["0"]), ArrayImages(x, np.full(10, 1), ["0", "1"]))
    trained = next(compare_features(folder, source))
    scores = knn_scores(trained.train, trained.train_labels, trained.test, classes=trained.classes)
    assert top_k(scores, trained.test_labels) == 0.0


def test_embed_gives_features_and_names(folder, tmp_path):
    for name in ("b/2.png", "a/1.png"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True)
        Image.new("RGB", (20, 30), (9, 8, 7)).save(tmp_path / "pictures" / name)
    features, names = embed(folder, str(tmp_path / "pictures"), workers=0)
    assert features.shape == (2, 128)
    assert names == ["a/1.png", "b/2.png"]


def test_embed_says_how_far_it_is_unless_it_is_quiet(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    pixels = np.random.default_rng(0).integers(0, 255, (12, 20, 24, 3), np.uint8)
    embed(folder, pixels)
    assert "images: 12 of 12 images" in capsys.readouterr().err
    embed(folder, pixels, quiet=True)
    assert "12 of 12" not in capsys.readouterr().err


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Makes a folder of two classes, and the working folder the one that it is in; returns the files."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for path in (tmp_path / "photos" / label / f"{i}.png" for label in ("cat", "dog") for i in range(6)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(path)
    return sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "photos").glob("*/*.png"))


def test_embed_takes_files_pil_images_and_arrays_in_their_order(folder, photos):
    """The features are those of the folder, whatever the images are given as."""
    of_folder, names = embed(folder, "photos", workers=0)
    assert [f"photos/{name}" for name in names] == photos
    features, names = embed(folder, (path for path in [*photos[::-1], photos[0]]), workers=0)
    assert names == [*photos[::-1], photos[0]]
    torch.testing.assert_close(features, torch.cat([of_folder.flip(0), of_folder[:1]]))
    features, names = embed(folder, [Image.open(path) for path in photos])
    assert names == [str(i) for i in range(12)]
    torch.testing.assert_close(features, of_folder)
    for one, name in ((photos[3], photos[3]), ([photos[3]], photos[3]), (Image.open(photos[3]), "0")):
        features, names = embed(folder, one, workers=0)
        assert names == [name]
        torch.testing.assert_close(features, of_folder[3:4])
    pixels = np.stack([np.asarray(Image.open(path)) for path in photos])
    features, names = embed(folder, pixels)
    assert names == [str(i) for i in range(12)]
    torch.testing.assert_close(features, of_folder, atol=0.1 * float(of_folder.std()), rtol=0)  # resized by torch


def test_embed_names_what_is_no_image(folder, photos):
    with open("torn.png", "wb") as file:
        file.write(b"nothing")
    for data, message in (
        ([], "data: is empty"),
        (["no.png"], "data: no such file: no.png"),
        (
            [photos[0], "torn.png"],
            "torn.png cannot be read as an image: .*; mend the files",
        ),
        ("torn.png", "torn.png cannot be read as an image"),
    ):
        with pytest.raises(ValueError, match=message):
            embed(folder, data, workers=0)


def test_evaluate_takes_files_whose_folders_are_the_classes(folder, photos):
    options = {"k": (1,), "no_baselines": True, "workers": 0}
    (expected,) = evaluate("knn", folder, data="photos", **options)
    (row,) = evaluate("knn", folder, data=photos, **options)
    assert row.data == "12 files in photos"
    assert (row.top1, row.labelled_images, row.test_images, row.classes) == (expected.top1, 10, 2, 2)
    targets = [path.split("/")[1] for path in photos]
    images = [Image.open(path) for path in photos]
    for data in (photos, images):
        (row,) = evaluate("knn", folder, data=data, targets=targets, **options)
        assert (row.top1, row.labelled_images, row.classes) == (expected.top1, 10, 2)
    rows = evaluate("few-shot", folder, data=images, targets=targets, no_baselines=True, labels=(1, 2), draws=2)
    assert [row.labelled_images for row in rows] == [2, 2, 4, 4]


def test_evaluations_of_other_files_have_another_hash(folder, photos):
    options = {"k": (1,), "no_baselines": True, "workers": 0}
    others = [*photos[:-1], "photos/dog/other.png"]
    Image.new("RGB", (20, 24)).save(others[-1])
    hashes = [evaluate("knn", folder, data=data, **options)[0].evaluation for data in (photos, photos, others)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_evaluate_chooses_among_files_as_among_those_of_a_folder(folder, photos, tmp_path):
    (tmp_path / "some.txt").write_text("".join(f"{path}\n" for path in photos[:5] + photos[6:]))
    (row,) = evaluate("knn", folder, data=photos, subset="some.txt", k=(1,), no_baselines=True, workers=0)
    assert (row.labelled_images + row.test_images, row.subset_file) == (11, "some.txt")
    with pytest.raises(ValueError, match="download is for data sets by name"):
        evaluate("knn", folder, data=photos, download=True)


def test_evaluate_says_why_files_have_no_classes(folder, photos):
    for data, message in (
        (photos[:3], "3 files in photos/cat has no labels to evaluate by: .* lie in one folder, as photos/cat/0.png"),
        (photos[0], "photos/cat/0.png has no labels to evaluate by: the data is one file, which has no class"),
        (Image.open(photos[0]), "a PIL image has no labels to evaluate by: .*; targets=.* gives the class of each"),
        ([], "data: is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate("knn", folder, data=data, workers=0)
    with pytest.raises(ValueError, match="targets are for data that are paths of files"):
        evaluate("knn", folder, data="photos", targets=[1])


def test_embed_tells_the_images_of_two_arrays_apart(folder):
    features, names = embed(folder, "digits")
    assert len(features) == len(set(names)) == 1797
    assert (names[0], names[-1]) == ("train/0", "test/358")
    with pytest.raises(ValueError, match="--device"):
        embed(folder, "digits", device="gpu")


def test_embed_takes_all_images_by_the_names_of_their_splits_and_says_what_is_left_out(folder, tmp_path, capsys):
    pixels, labels = np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3), np.uint8), np.arange(20) % 2
    without_labels = {"train_images": pixels[:10], "test_images": pixels[10:]}
    np.savez(tmp_path / "unlabelled.npz", **without_labels)
    names = embed(folder, tmp_path / "unlabelled.npz")[1]
    assert (len(names), names[0], names[-1]) == (20, "train/0", "test/9")

    np.savez(tmp_path / "half.npz", **without_labels, train_labels=labels[:10])
    assert embed(folder, tmp_path / "half.npz")[1][-1] == "test/9"
    assert "test is not tested on" in capsys.readouterr().err

    arrays = {"val_images": pixels[10:15], "val_labels": labels[10:15], "train_labels": labels[:10]}
    np.savez(tmp_path / "val.npz", **without_labels, **arrays)
    assert embed(folder, tmp_path / "val.npz")[1][-1] == "val/4"


def test_evenly_takes_all_or_the_stated_number():
    part = LabelledImages(open_source("digits").train, np.arange(100), np.arange(100))
    assert part.subsample(100) is part
    assert list(part.subsample(3).index) == [0, 49, 99]
