"""Pages of infomax classify test and run: scores, caveats, mistakes, and names that do nothing."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import infomax as package
from command import run_command
from feature_files import save_small_encoder
from html_pages import PADDED_EXPLOITS, PLAIN, CheckedPage
from infomax.classifying.calibration import BINS, calibration_bins, calibration_error
from infomax.classifying.classifier import load_classifier
from infomax.classifying.confusion import draw_confusion
from infomax.classifying.predicted import PredictedImages, Prediction
from infomax.classifying.predicted_page import predicted_page
from infomax.classifying.tested import ClassifierTest, ClassScores, ImageAnswers
from infomax.classifying.tested_page import classifier_test_page
from infomax.data.images.arrays import ArrayImages

CLASSES = ("dark", "light")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)


class NamedImages(ArrayImages):
    """Images of an array with names of their own."""

    names: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        return self.names[index]


def images_named(name: str) -> NamedImages:
    images = NamedImages(PIXELS, None, [])
    images.names = tuple(f"{name}{i}" for i in range(len(PIXELS)))
    return images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an encoder, labelled images, others, and a classifier."""
    folder = tmp_path_factory.mktemp("classify-pages")
    save_small_encoder(folder / "a")
    rng = np.random.default_rng(0)
    for part, count in (("photos", 12), ("new", 5)):
        for name, level in (("dark", 70), ("light", 130)):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = level + rng.integers(-60, 60, 3) + rng.integers(-60, 60, (20, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / part / name / f"{i}.png")
    package.classify_fit(folder / "a", data=folder / "photos", out=folder / "tones")
    return folder


@pytest.fixture
def infomax(monkeypatch, capsys, place):
    monkeypatch.chdir(place)
    return lambda *words: run_command(monkeypatch, capsys, *words)


def measured(name: str = "", fitted: int = 0, unknown: int = 0) -> ClassifierTest:
    """Returns a test of six images, two of which are named wrongly."""
    names = [f"{name}{c}" for c in CLASSES]
    return ClassifierTest(
        data=f"{name}new", split=name, images=6, accuracy=4 / 6, interval=(0.3, 1.0), mean_recall=4 / 6,
        calibration_error=0.1, mean_probability=0.7, none_share=0.05, none_of_these=1, accuracy_of_others=0.8,
        unknown_images=unknown, unknown_classes=(f"{name}blue",) if unknown else (), unknown_none_of_these=0,
        fitted_images=fitted,
        classes=tuple(
            ClassScores(name=n, images=3, recall=1.0, precision=None, none_of_these=0, taken_for=n) for n in names
        ),
        confusion=((2, 1, 0), (1, 1, 1)),
        calibration=tuple(calibration_bins(torch.tensor([[0.6, 0.4], [0.9, 0.1]]), torch.tensor([1, 0]))),
    )  # fmt: skip


def answers(name: str = "") -> ImageAnswers:
    true, chosen = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0])
    probability = np.array([0.9, 0.8, 0.6, 0.7, 0.7, 0.95])
    return ImageAnswers(images_named(name or "image"), np.arange(6), true, chosen, probability, np.arange(6) == 5)


def predicted(name: str = "") -> PredictedImages:
    label = f"{name}dark"
    predictions = [Prediction(f"{name}{i}", label, 0.5 + 0.1 * i, label, f"{name}light", 0.2, 1.0) for i in range(5)]
    predictions.append(Prediction(f"{name}5", "none of these", 0.4, label, f"{name}light", 0.3, 9.0))
    return PredictedImages(predictions, list(range(6)), [images_named(name or "image")])


def text_of(page) -> str:
    return " ".join(" ".join(CheckedPage(page.html()).text).split())


def renamed(classifier, name: str):
    """Returns a classifier with other names; they stand in its description alone."""
    described = classifier.description
    origin = replace(described.encoder, name=f"{name}encoder")
    fit = replace(described.fit, data=f"{name}data", split=f"{name}split")
    classifier.description = replace(described, classes=(f"{name}dark", f"{name}light"), encoder=origin, fit=fit)
    return classifier


def test_names_and_labels_do_nothing_on_the_pages(place):
    classifier = load_classifier(place / "tones")

    def pages(name: str):
        renamed(classifier, name)
        yield classifier_test_page(measured(name, fitted=1, unknown=2), answers(name), classifier, f"{name}tones")
        yield predicted_page(predicted(name), classifier, 0.05, f"{name}tones")

    described = classifier.description
    plain = [CheckedPage(page.html()).shape() for page in pages(PLAIN)]
    for exploit in PADDED_EXPLOITS:
        classifier.description = described
        assert [CheckedPage(page.html()).shape() for page in pages(exploit)] == plain, exploit


def test_the_most_confident_mistakes_come_first_and_fitted_ones_are_marked(place):
    page = classifier_test_page(measured(), answers(), load_classifier(place / "tones"), "tones")
    section = next(section for section in page.sections if "mistakes" in section.heading)
    (gallery,) = section.blocks
    assert [(x.caption, x.mark) for x in gallery.thumbnails] == [("image5", "fitted on"), ("image2", "")]
    assert gallery.thumbnails[0].details == ("is light", "taken for dark, probability 0.95")
    assert "2 images (33.3 %) are named wrongly; all of them" in section.text
    right = replace(answers(), chosen=answers().true)
    page = classifier_test_page(measured(), right, load_classifier(place / "tones"), "tones")
    assert "Every image is named rightly." in text_of(page)


def test_images_that_were_fitted_on_are_a_caveat_on_the_page_and_in_the_picture(place):
    classifier = load_classifier(place / "tones")
    page = classifier_test_page(measured(fitted=3, unknown=2), answers(), classifier, "tones")
    first, second = page.sections[0].blocks
    caveat = "3 images of 8 are the same as one that the classifier was fitted on, so the scores are too high"
    assert (first.kind, first.evidence) == ("warning", caveat)
    assert second.heading == "2 images of unknown classes are not counted"
    assert classifier_test_page(measured(), answers(), classifier, "tones").sections[0].heading == "Scores"
    counts = np.eye(2, dtype=int)
    pictures = [
        np.asarray(Image.open(io.BytesIO(draw_confusion(counts, CLASSES, CLASSES, "t", w)))) for w in ("", caveat)
    ]
    without, red = ((x[..., 0] > 120) & (x[..., 1] < 60) & (x[..., 2] < 60) for x in pictures)
    assert without.sum() == 0
    assert red.sum() > 100
    assert red[:, -2:].sum() == 0  # all letters are in the picture


def test_bins_are_those_of_the_calibration_error():
    rng = np.random.default_rng(0)
    probabilities = torch.from_numpy(rng.dirichlet([1, 1, 1], 500))
    labels = torch.from_numpy(rng.integers(0, 3, 500))
    bins = calibration_bins(probabilities, labels)
    assert sum(x.images for x in bins) == 500
    error = sum(x.images * abs(x.mean_probability - x.accuracy) for x in bins) / 500
    assert error == pytest.approx(calibration_error(probabilities, labels))
    assert all(x.low <= x.mean_probability < x.high for x in bins)
    assert len(bins) < BINS  # no probability of three classes is below a third
    (only,) = calibration_bins(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert (only.low, only.high, only.accuracy) == (14 / 15, 1.0, 1.0)


def test_the_command_writes_a_page_in_place_of_a_folder(infomax, place, tmp_path):
    words = ("classify", "test", "tones", "--data", "new", "--out", str(tmp_path / "t.html"))
    code, out, err = infomax(*words)
    assert code == 0, err
    assert out.splitlines()[-1] == f"written to {tmp_path / 't.html'}"
    text = " ".join(CheckedPage((tmp_path / "t.html").read_text()).text)
    accuracy = package.classify_test(place / "tones", place / "new").accuracy
    assert f"The most probable class is right for {100 * accuracy:.1f} % of 10 images (95 % interval " in text
    for heading in ("Which class is taken for which", "Share that is right by probability", "The classifier"):
        assert heading in text
    assert [path.name for path in tmp_path.iterdir()] == ["t.html"]
    code, _, err = infomax(*words)
    assert (code, "t.html exists; name another file, or give --overwrite" in err) == (2, True)
    assert infomax(*words, "--overwrite")[0] == 0
    code, _, err = infomax("classify", "test", "tones", "--data", "new", "--out", str(tmp_path / "no" / "t.html"))
    assert (code, "no such folder" in err) == (2, True)


def test_a_folder_has_the_bins_and_a_page_has_the_caveat(infomax, place, tmp_path):
    for name in ("t", "t.html"):
        code, _, err = infomax("classify", "test", "tones", "--data", "photos", "--out", str(tmp_path / name))
        assert code == 0, err
        assert "24 images of 24 are the same as one that the classifier was fitted on" in err
    content = json.loads((tmp_path / "t" / "test.json").read_text())
    assert sum(x["images"] for x in content["calibration"]) == content["images"] == 24
    assert "24 images of 24 are the same as one" in (tmp_path / "t.html").read_text()


def test_a_page_of_labels_shows_the_least_certain_first(infomax, place, tmp_path):
    file = tmp_path / "labels.html"
    code, out, err = infomax("classify", "run", "tones", "--data", "new", "--out", str(file), "--none-share", "0")
    assert code == 0, err
    assert out.splitlines()[-1] == f"written to {file}"
    text = " ".join(CheckedPage(file.read_text()).text)
    predictions = sorted(
        package.classify_run(place / "tones", place / "new", none_share=0), key=lambda x: x.probability
    )
    uncertain = text.partition("Labels that are wrong are most often among these")[2]
    assert uncertain.index(predictions[0].name) < uncertain.index(predictions[1].name)
    assert "10 images" in text


def test_a_label_s_images_are_cut_and_it_is_said(place):
    many = PredictedImages(
        [Prediction(str(i), "dark", 0.9, "dark", "light", 0.1, 1.0) for i in range(30)],
        [i % 6 for i in range(30)],
        [images_named("a")],
    )
    page = predicted_page(many, load_classifier(place / "tones"), 0.05, "tones")
    (section,) = [section for section in page.sections if section.heading == "dark: 30 images"]
    assert section.text == "The most certain first; 6 more are not shown"
    assert len(section.blocks[0].thumbnails) == 24
