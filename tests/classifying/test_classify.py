"""infomax classify fit, run and test, as a user types them."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars
import pytest
import torch
from PIL import Image

import infomax as package
from command import run_command
from feature_files import save_small_encoder, write_images
from infomax.classifying.classifier import NONE, load_classifier
from infomax.classifying.options import ClassifyFitOptions, ClassifyRunOptions, ClassifyTestOptions
from infomax.runtime.json_lines import read_json_lines
from infomax.runtime.options import option_fields

COUNTS = {"dark": 12, "light": 9, "red": 3, "rare": 1}
COLOURS = {
    "dark": (30, 30, 40),
    "light": (220, 220, 210),
    "red": (220, 30, 30),
    "rare": (30, 220, 30),
    "blue": (20, 20, 230),
}


def write_class(folder, name, count, seed=0):
    """Writes images of about one colour."""
    rng = np.random.default_rng(seed)
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.array(COLOURS[name]) + rng.integers(-15, 15, 3) + rng.integers(-30, 30, (20, 24, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an encoder, labelled images, others to test on, and a classifier."""
    folder = tmp_path_factory.mktemp("classify")
    save_small_encoder(folder / "a")
    for name, count in COUNTS.items():
        write_class(folder / "photos", name, count)
    for name in ("dark", "light", "blue"):
        write_class(folder / "new", name, 4, seed=1)
    package.classify_fit(folder / "a", data=folder / "photos", out=folder / "colours")
    return folder


@pytest.fixture
def infomax(monkeypatch, capsys, place):
    monkeypatch.chdir(place)
    return lambda *words: run_command(monkeypatch, capsys, *words)


def test_fit_says_what_was_decided(infomax, place, tmp_path):
    code, out, err = infomax("classify", "fit", "a", "--data", "photos", "--out", str(tmp_path / "c"))
    assert code == 0, err
    for words in (
        "classes of fewer than 5 images, of which little can be learned: rare (1), red (3)",
        "each image is held out once, 24 in all (--seed 0); penalty ",
        "temperature ",
        f"an image is {NONE} above a distance of ",
        "(--none-share 0.05)",
    ):
        assert words in err, words
    assert "a linear classifier of 4 classes on 128 features of a, fitted on 25 images" in out
    assert re.search(r"accuracy on held-out images: \d+\.\d % \(95 % interval \d+\.\d to \d+\.\d, 24 images\)", out)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "classifier.json", "classifier.safetensors", "encoder.json", "encoder.safetensors",
    ]  # fmt: skip
    assert str(place) not in (tmp_path / "c" / "classifier.json").read_text()


def test_the_folder_works_elsewhere_and_without_the_encoder(place, tmp_path):
    shutil.copytree(place / "a", tmp_path / "gone")
    first = package.classify_fit(tmp_path / "gone", data=place / "photos", out=tmp_path / "c")
    shutil.rmtree(tmp_path / "gone")
    assert first.description.encoder.licence == "The licence of gone, whose weights these are, applies."
    again = package.classify_fit(tmp_path / "c", data=place / "photos", out=tmp_path / "d")  # it is an encoder, too
    assert again.description.encoder == replace(first.description.encoder, name="c")
    assert torch.equal(again.weight, first.weight)
    shutil.move(tmp_path / "c", tmp_path / "moved")
    images = [place / "new" / "dark" / "0.png", place / "new" / "light" / "1.png"]
    predictions = package.classify_run(tmp_path / "moved", images)
    assert [x.best for x in predictions] == ["dark", "light"]
    assert [x.name for x in predictions] == [str(path) for path in images]
    again = package.classify_run(first, [Image.open(path) for path in images])
    assert [x.probability for x in again] == pytest.approx([x.probability for x in predictions], abs=1e-6)


def test_probabilities_are_those_of_the_module(place):
    classifier = package.load_classifier(place / "colours")
    assert classifier.classes == ("dark", "light", "rare", "red")
    shown = classifier.encoder.preprocessing
    image = Image.open(place / "new" / "dark" / "0.png")
    from infomax.data.images.pillow import PillowImages
    from infomax.data.loading.evaluation import evaluation_batches

    (batch,) = evaluation_batches(PillowImages([image], None, []), np.arange(1), shown, workers=0)
    with torch.no_grad():
        (probabilities,) = classifier(batch)
        (logits,) = classifier.with_head()(batch)
    torch.testing.assert_close(logits.softmax(0), probabilities, atol=1e-5, rtol=1e-5)
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    (prediction,) = package.classify_run(classifier, image)
    best, second = probabilities.topk(2).indices.tolist()
    assert (prediction.best, prediction.second) == (classifier.classes[best], classifier.classes[second])
    assert prediction.probability == pytest.approx(float(probabilities.max()), abs=1e-6)
    assert prediction.second_probability == pytest.approx(float(probabilities[second]), abs=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_run_writes_a_row_for_each_image(infomax, place, tmp_path, suffix):
    file = tmp_path / f"labels{suffix}"
    code, out, err = infomax("classify", "run", "colours", "--data", "new", "--out", str(file), "--none-share", "0.08")
    assert code == 0, err
    assert f"written to {file}" in out
    assert "(--none-share 0.08)" in out
    if suffix == ".csv":
        with file.open(newline="") as opened:
            rows = list(csv.DictReader(opened))
    else:
        rows = read_json_lines(file) if suffix == ".jsonl" else polars.read_parquet(file).to_dicts()
    assert list(rows[0]) == ["name", "label", "probability", "best", "second", "second_probability", "distance"]
    wanted = package.classify_run(place / "colours", place / "new", none_share=0.08)
    assert [row["name"] for row in rows] == [x.name for x in wanted]
    assert [row["label"] for row in rows] == [x.label for x in wanted]
    assert {row["label"] for row in rows if row["name"].startswith("blue")} == {NONE}
    assert {row["label"] for row in rows if row["name"].startswith("dark")} == {"dark"}
    assert [float(row["probability"]) for row in rows] == pytest.approx([x.probability for x in wanted], abs=1e-6)
    assert all(x.label == x.best for x in package.classify_run(place / "colours", place / "new", none_share=0))


def test_test_measures_and_draws(infomax, place, tmp_path):
    out = tmp_path / "t"
    code, text, err = infomax("classify", "test", "colours", "--data", "new", "--out", str(out), "--none-share", "0.08")
    assert code == 0, err
    assert "accuracy 100.0 % (95 % interval 67.6 to 100.0) on 8 images" in text
    assert "not counted: 4 images of classes that the classifier does not know, blue; 4 of them (100.0 %)" in text
    assert sorted(path.name for path in out.iterdir()) == ["classes.csv", "confusion.csv", "confusion.png", "test.json"]
    measured = json.loads((out / "test.json").read_text())
    assert (measured["images"], measured["unknown_images"], measured["accuracy"]) == (8, 4, 1.0)
    with (out / "confusion.csv").open(newline="") as opened:
        rows = {row["class of the image"]: row for row in csv.DictReader(opened)}
    assert (rows["dark"]["dark"], rows["dark"]["light"], rows["light"]["light"]) == ("4", "0", "4")
    with Image.open(out / "confusion.png") as picture:
        assert min(picture.size) > 200
    code, _, err = infomax("classify", "test", "colours", "--data", "new", "--out", str(out))
    assert code == 2
    assert "exists; name another folder, or give --overwrite" in err
    assert infomax("classify", "test", "colours", "--data", "new", "--out", str(out), "--overwrite")[0] == 0


def test_images_that_were_fitted_on_are_noticed(place, infomax, tmp_path):
    _, _, err = infomax("classify", "test", "colours", "--data", "photos", "--out", str(tmp_path / "t"))
    assert "25 images of 25 are the same as one that the classifier was fitted on, so the scores are too high" in err
    assert package.classify_test(place / "colours", place / "new").fitted_images == 0


def test_numbers_of_a_test_are_those_of_scikit_learn(place):
    from sklearn import metrics

    save_small_encoder(place / "d", seed=3)
    classifier = package.classify_fit(place / "d", data="digits", out=place / "digits", overwrite=True, workers=0)
    measured = package.classify_test(classifier, "digits")
    predictions = package.classify_run(classifier, "digits")[-measured.images :]  # the test images come last
    from infomax.data.sources.arrays import open_digits

    true = [str(label) for label in open_digits().test.labels]
    best = [x.best for x in predictions]
    assert measured.accuracy == pytest.approx(metrics.accuracy_score(true, best))
    low, high = measured.interval
    assert low < measured.accuracy < high
    assert low > 0.8
    report = metrics.classification_report(true, best, output_dict=True)
    for scores in measured.classes:
        assert scores.recall == pytest.approx(report[scores.name]["recall"])
        assert scores.precision == pytest.approx(report[scores.name]["precision"])
    labels = [x.label for x in predictions]
    matrix = metrics.confusion_matrix(true, labels, labels=[*classifier.classes, NONE])
    assert np.array(measured.confusion).tolist() == matrix[:-1].tolist()
    assert measured.label_accuracy == pytest.approx(np.mean(np.array(labels) == true))
    assert f"is wrong: {100 * measured.label_accuracy:.1f} %" in measured.lines()[-1]
    assert measured.calibration_error < 0.05
    assert 7 <= measured.none_of_these <= 32  # 18 are expected of 359 at 5 %
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (50, 8, 8, 3), np.uint8)
    assert sum(x.label == NONE for x in package.classify_run(classifier, noise)) >= 45


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("bom.csv", "\ufeffpath,label\ndark/0.png,a\ndark/1.png,b\nlight/0.png,a\nlight/1.png,b\n", 4),
        ("plain.csv", "dark/0.png,a\nlight/0.png,b\nlight/1.png,b\n", 3),
        ("twice.csv", "path,label\ndark/0.png,a\ndark/0.png,a\nlight/1.png,b\n", 2),
    ],
)
def test_labels_from_a_csv(infomax, place, tmp_path, name, content, found):
    beside = place / "photos" / name
    (tmp_path / name).write_text(content, encoding="utf-8")
    shutil.copy(tmp_path / name, beside)
    for number, words in enumerate(
        (["--data", f"photos/{name}"], ["--data", "photos", "--labels", str(tmp_path / name)])
    ):
        code, out, err = infomax("classify", "fit", "a", *words, "--out", str(tmp_path / f"c{number}"))
        assert code == 0, err
        assert f"2 classes on 128 features of a, fitted on {found} images" in out
    beside.unlink()


def test_one_image_a_class_is_not_calibrated(infomax, place, tmp_path):
    (tmp_path / "l.csv").write_text("dark/0.png,a\nlight/0.png,b\n")
    words = ("--data", "photos", "--labels", str(tmp_path / "l.csv"), "--out", str(tmp_path / "c"))
    code, _, err = infomax("classify", "fit", "a", *words)
    assert code == 0, err
    assert "no class has two images, so none can be held out: probabilities are not calibrated" in err
    _, _, err = infomax("classify", "run", str(tmp_path / "c"), "--data", "new", "--out", str(tmp_path / "l2.csv"))
    assert "probabilities are not calibrated" in err


def test_images_that_cannot_be_read_are_left_out_and_counted(infomax, place, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "p")
    (tmp_path / "p" / "dark" / "3.png").write_bytes(b"no image")
    (tmp_path / "p" / "rare" / "0.png").write_bytes(b"no image")
    code, out, err = infomax("classify", "fit", "a", "--data", str(tmp_path / "p"), "--out", str(tmp_path / "c"))
    assert code == 0, err
    assert "left out: 2 images that cannot be read, as " in err
    assert "3 classes on 128 features of a, fitted on 23 images" in out
    assert load_classifier(tmp_path / "c").description.fit.unreadable == 2
    shutil.rmtree(tmp_path / "p" / "light")
    broken = str(tmp_path / "p")
    code, _, err = infomax("classify", "run", "colours", "--data", broken, "--out", str(tmp_path / "l.csv"))
    assert code == 0
    with (tmp_path / "l.csv").open(newline="") as opened:
        names = [row["name"] for row in csv.DictReader(opened)]
    assert len(names) == 14
    assert not {"dark/3.png", "rare/0.png"} & set(names)
    for file in (tmp_path / "p").rglob("*.png"):
        file.write_bytes(b"no image")
    code, _, err = infomax("classify", "run", "colours", "--data", broken, "--out", str(tmp_path / "m.csv"))
    assert (code, "no image can be classified, as " in err) == (2, True), err


FIT = ("fit", "a", "--out", "x", "--data")
PHOTOS = (*FIT, "photos")
NEW = ("run", "colours", "--data", "new", "--out")
NO_LABELS = "has no labels for a classifier: "
MISTAKES = [
    (("fit", "a", "--out", "x"), "--data DIR|FILE|NAME is missing"),
    (("fit", "a", "--data", "photos"), "--out DIR is missing"),
    (("fit", "nothing", "--data", "photos", "--out", "x"), "nothing is no encoder"),
    ((*FIT, "nothing"), "--data nothing: no such folder or file"),
    ((*FIT, "empty"), "--data empty: no images in"),
    ((*FIT, "photos/dark"), NO_LABELS),
    ((*FIT, "single"), f"--data single {NO_LABELS}the data has one class only, dark"),
    ((*FIT, "several.npz"), "marks several classes an image"),
    (("fit", "a", "--data", "photos", "--out", "colours"), "--out colours exists; name another folder, or give --ov"),
    (("fit", "a", "--data", "photos", "--out", "a", "--overwrite"), "--out a exists and is no classifier"),
    (("fit", "a", "--data", "photos", "--out", "photos/x"), "--out photos/x is inside --data photos"),
    ((*PHOTOS, "--none-share", "1"), "--none-share must be a number in [0, 1), but is 1.0"),
    ((*PHOTOS, "--penalty", "0"), "--penalty must be a number in (0, inf), but is 0.0"),
    ((*PHOTOS, "--epochs", "3"), "--epochs 3 is for --finetune"),
    ((*PHOTOS, "--labels", "three.csv"), "line 2, 'dark/0.png,a,b', has 3 columns; a path and a class are wanted"),
    ((*PHOTOS, "--labels", "missing.csv"), "names 'dark/99.png', which is no file"),
    ((*PHOTOS, "--labels", "columns.csv"), "1 of 3 lines do; if it names the columns, they must be path and label"),
    ((*PHOTOS, "--labels", "differ.csv"), "gives another class than a line before"),
    ((*PHOTOS, "--labels", "nothing.csv"), "--labels nothing.csv: "),
    ((*FIT, "several.npz", "--labels", "differ.csv"), "names images below --data, which must be a folder"),
    (("run", "a", "--data", "new"), "a is no classifier: it has no classifier.json; infomax classify fit makes one"),
    (("run", "nothing", "--data", "new"), "nothing is no classifier: no such folder or file"),
    ((*NEW, "x.txt"), "the suffix of --out must be one of .csv, .jsonl, .parquet"),
    ((*NEW, "differ.csv"), "--out differ.csv exists; name another file, or give --overwrite"),
    (("run", "colours", "--data", "empty"), "--data empty: no images in"),
    (("run", "cut", "--data", "new"), "cut/classifier.safetensors"),
    (("run", "swapped", "--data", "new"), "swapped is damaged: its encoder is another one"),
    (("run", "garbled", "--data", "new"), "garbled/classifier.json"),
    (("run", "narrow", "--data", "new"), "weight is of shape [4, 100], for 4 classes and 128 features"),
    (("test", "colours", "--data", "new/dark"), NO_LABELS),
    (("test", "colours", "--data", "unknown"), "none of which the classifier knows: dark, light, rare, red"),
]


@pytest.fixture(scope="module")
def mistaken(place):
    """Data and folders that are wrong in one way each."""
    import safetensors.torch

    (place / "empty").mkdir()
    write_class(place / "single", "dark", 6)
    np.savez(
        place / "several.npz",
        images=np.zeros((4, 8, 8), np.uint8),
        labels=np.tri(4, dtype=int),
    )
    (place / "three.csv").write_text("path,label,more\ndark/0.png,a,b\nlight/0.png,c,d\n")
    (place / "missing.csv").write_text("dark/0.png,a\ndark/99.png,b\n")
    (place / "columns.csv").write_text("file,species\ndark/0.png,a\nlight/0.png,b\n")
    (place / "differ.csv").write_text("dark/0.png,a\ndark/0.png,b\nlight/0.png,b\n")
    for name in ("cut", "swapped", "garbled", "narrow"):
        shutil.copytree(place / "colours", place / name)
    file = place / "cut" / "classifier.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    save_small_encoder(place / "b", seed=5)
    shutil.copy(place / "b" / "encoder.safetensors", place / "swapped" / "encoder.safetensors")
    (place / "garbled" / "classifier.json").write_text('{"kind": "linear"')
    tensors = safetensors.torch.load_file(place / "narrow" / "classifier.safetensors")
    tensors["weight"] = tensors["weight"][:, :100].contiguous()
    safetensors.torch.save_file(tensors, place / "narrow" / "classifier.safetensors")
    write_images(place / "unknown", ["tulip/1.png", "rose/1.png"])
    return place


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(infomax, mistaken, words, message):
    before = sorted(mistaken.rglob("*"))
    code, out, err = infomax("classify", *words)
    assert (code, out) == (2, ""), err
    assert message in err.splitlines()[-1]
    assert sorted(mistaken.rglob("*")) == before


def test_finetuning_changes_the_encoder_and_holds_out_a_fifth(infomax, place, tmp_path):
    out = tmp_path / "c"
    words = ("--data", "photos", "--finetune", "--epochs", "2", "--workers", "0", "--out", str(out))
    code, text, err = infomax("classify", "fit", "a", *words)
    assert code == 0, err
    tuned, frozen = load_classifier(out), load_classifier(place / "colours")
    held_out = tuned.description.fit.held_out.images
    assert 3 <= held_out <= 6
    assert f"a fifth of each class is held out, {held_out} images in all" in err
    assert f"fine-tunes for 2 epochs, 2 steps of {25 - held_out} images" in err
    assert re.search(r"accuracy on the held-out images \d+\.\d %, with the encoder as it was \d+\.\d %", err)
    assert "a fine-tuned classifier of 4 classes" in text
    assert (tuned.description.kind, tuned.description.fit.epochs) == ("fine-tuned", 2)
    assert len(tuned.known.held_out) == held_out
    assert tuned.description.encoder.hash != frozen.description.encoder.hash
    images = [place / "new" / "dark" / "0.png", place / "new" / "light" / "1.png"]
    assert [x.best for x in package.classify_run(tuned, images)] == ["dark", "light"]
    assert package.classify_test(tuned, place / "photos").fitted_images == 25


def test_a_class_of_the_reserved_name_is_refused(place, tmp_path):
    write_images(tmp_path / "p", [f"{NONE}/1.png", "b/1.png"])
    with pytest.raises(ValueError, match=f"has a class '{NONE}', which is what images of no class are called"):
        package.classify_fit(place / "a", data=tmp_path / "p", out=tmp_path / "c")


def test_an_interruption_leaves_nothing(place, tmp_path, monkeypatch):
    from infomax.classifying import fit

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "solve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        package.classify_fit(place / "a", data=place / "photos", out=tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_python_has_the_words_of_the_command():
    import inspect

    doors = {
        package.classify_fit: ClassifyFitOptions,
        package.classify_run: ClassifyRunOptions,
        package.classify_test: ClassifyTestOptions,
    }
    for function, options in doors.items():
        fields = {field.name: field for field in option_fields(options)}
        parameters = inspect.signature(function).parameters
        named = {name for name, x in parameters.items() if x.kind is not x.VAR_KEYWORD and name != "quiet"}
        assert named <= fields.keys()
        for name in named:
            default = parameters[name].default
            assert default is inspect.Parameter.empty or default == fields[name].default
    with pytest.raises(ValueError, match="a keyword must be one of .*did you mean device"):
        package.classify_fit("a", data="b", out="c", devise="cpu")


def test_names_of_classes_do_not_act_in_the_picture():
    from infomax.classifying.confusion import draw_confusion

    names = ["$x^2$", "\x1b[31mred", "\u4eba", "a" * 200]
    content = draw_confusion(np.arange(16).reshape(4, 4), names, names, "$t$")
    assert content.startswith(b"\x89PNG")
    many = [f"class {i}" for i in range(60)]
    large = draw_confusion(np.eye(60, dtype=int), many, many, "t")
    import io

    with Image.open(io.BytesIO(large)) as picture:
        assert 1000 < picture.size[0] < 3000


@pytest.mark.process
def test_nothing_in_the_folder_is_run_or_pickled(place):
    """A process in which pickle refuses everything opens the folder."""
    code = (
        "import pickle\n"
        "def refuse(*_, **__): raise SystemExit('pickle was used')\n"
        "import infomax; infomax.load_classifier\n"
        "import torch\n"
        "pickle.load = pickle.loads = pickle.Unpickler = torch.load = refuse\n"
        f"print(infomax.load_classifier({str(place / 'colours')!r}).classes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "('dark', 'light', 'rare', 'red')", done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("small", "onnx"),
        ("resnet18", "timm"),
        pytest.param("small", "torch-export", marks=pytest.mark.slow),
        *(pytest.param("resnet18", name, marks=pytest.mark.slow) for name in ("torchvision", "huggingface")),
        *(pytest.param(f"timm:{x}", "timm", marks=pytest.mark.slow) for x in ("test_vit", "test_convnext")),
    ],
)
def test_a_classifier_is_exported_with_its_head(place, tmp_path, monkeypatch, backbone, name):
    from exporting.test_export import BACKBONES, encoder_folder

    monkeypatch.chdir(tmp_path)
    encoder_folder(tmp_path / "run", backbone, **BACKBONES[backbone])
    classifier = package.classify_fit("run", data=place / "photos", out="c", workers=0)
    shutil.rmtree("run")
    suffix = {"onnx": ".onnx", "torch-export": ".pt2"}.get(name, "")
    written = package.export("c", format=name, out=f"given{suffix}")
    assert written.comparison.relative < 1e-5
    assert written.comparison.output == "logits"
    text = written.card.read_text()
    assert "0. dark (12 images)" in text
    assert "pipeline_tag: image-classification" in text
    program = text.partition("```python\n")[2].partition("```")[0]
    Image.open(place / "new" / "light" / "0.png").save("cat.jpg", quality=100)
    program += "values = logits.detach().numpy() if hasattr(logits, 'detach') else logits\n"
    program += "import numpy, sys; numpy.save('logits.npy', values); assert 'infomax' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", program], check=True)
    (logits,) = torch.from_numpy(np.load("logits.npy"))
    (prediction,) = package.classify_run(classifier, "cat.jpg")
    assert logits.softmax(0).max() == pytest.approx(prediction.probability, abs=0.02)
    assert classifier.classes[int(logits.argmax())] == prediction.best
    if name == "huggingface":
        assert json.loads((tmp_path / "given" / "config.json").read_text())["label_names"] == list(classifier.classes)


def test_formats_that_cannot_hold_a_classifier_say_so(infomax):
    code, _, err = infomax("export", "colours", "--format", "safetensors", "--out", "x.safetensors")
    assert code == 2
    assert "infomax opens the folder of a classifier itself" in err
    code, _, err = infomax("export", "colours", "--format", "timm", "--out", "x")
    assert "timm has no network small; onnx, torch-export fit" in err
