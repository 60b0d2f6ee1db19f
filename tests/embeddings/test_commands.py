"""The commands embed, search, duplicates and clusters, as a user types them."""

import csv
import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import infomax as package
from command import run_command
from feature_files import save_small_encoder, write_images
from html_pages import CheckedPage
from infomax.embeddings.feature_file import read_features
from infomax.embeddings.usual_cosine import usual_cosine
from infomax.features.extraction import extract_features
from infomax.models.encoders import load_encoder
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.runs.run_folder import create_run_folder
from infomax.runtime.extras import how_to_install
from infomax.runtime.json_lines import read_json_lines

CLASSES = {"cat": 6, "dog": 5}
EXPLOIT = "<script>alert(1)</script>\"onerror='x'.png".replace("/", "\u2215")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an encoder, another one, images in two classes, and the features of the images."""
    folder = tmp_path_factory.mktemp("embeddings")
    save_small_encoder(folder / "a")
    save_small_encoder(folder / "b", seed=1)
    names = [f"{name}/{i}.png" for name, count in CLASSES.items() for i in range(count)]
    write_images(folder / "images", [*names, f"dog/{EXPLOIT}"])
    large = Image.open(folder / "images/cat/0.png").resize((40, 48), Image.Resampling.NEAREST)
    large.save(folder / "images/dog/large.png")
    shutil.copy(folder / "images/cat/0.png", folder / "images/dog/copy.png")
    return folder


@pytest.fixture
def infomax(monkeypatch, capsys, place):
    monkeypatch.chdir(place)
    return lambda *words: run_command(monkeypatch, capsys, *words)


@pytest.fixture
def features(infomax, place):
    file = place / "f.parquet"
    if not file.exists():
        assert infomax("embed", "a", "--data", "images", "--out", "f.parquet")[0] == 0
    return file


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".npy"])
def test_embed_writes_the_features_of_all_images(infomax, place, suffix):
    code, out, err = infomax("embed", "a", "--data", "images", "--out", f"g{suffix}", "--no-cache")
    assert (code, "14 images, 128 features each in float32" in out) == (0, True), out + err
    assert "images/s" in out
    table = read_features(place / f"g{suffix}")
    wanted, names = package.embed(place / "a", place / "images")
    np.testing.assert_array_equal(table.features, wanted.numpy())
    assert list(table.names) == names
    assert table.labels == [name.split("/")[0] for name in names]


def test_embed_takes_features_from_the_cache(infomax, place, features):
    _, out, _ = infomax("embed", "a", "--data", "images", "--out", "h.npz")
    assert "all of them were in the cache" in out
    np.testing.assert_array_equal(read_features(place / "h.npz").features, read_features(features).features)


def test_images_that_are_almost_black_to_the_encoder_are_said_by_all_that_use_it(infomax, place, tmp_path):
    numbers = np.random.default_rng(0).integers(300, 2737, (16, 20, 20), np.uint16)
    for number, image in enumerate(numbers):
        (tmp_path / "deep" / "xy"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "deep" / "xy"[number % 2] / f"{number}.png")
    data, cure = ("--data", str(tmp_path / "deep")), ": --value-range 0,4095 (12 bits) would use the whole range"
    for words in (
        ("embed", "a", *data, "--out", str(tmp_path / "f.npz")),
        ("search", str(tmp_path / "f.npz"), "--query", str(tmp_path / "deep/x/0.png")),
        ("evaluate", "knn", "a", *data, "--no-baselines", "--out", str(tmp_path / "r.jsonl")),
        ("classify", "fit", "a", *data, "--out", str(tmp_path / "c")),
    ):
        code, _, err = infomax(*words)
        assert (code, cure in err) == (0, True), f"{words}: {err}"
    code, _, err = infomax("embed", "a", *data, "--value-range", "0,4095", "--out", str(tmp_path / "g.npz"))
    assert (code, "no number is above" in err, "of the 0 to 255 of 8-bit RGB" in err) == (0, False, True)


@pytest.fixture
def damaged(tmp_path):
    """A folder of 12 images, of which two cannot be read."""
    names = [f"{name}/{i}.png" for name in ("x", "y") for i in range(6)]
    write_images(tmp_path / "damaged", names)
    for name in ("x/2.png", "y/5.png"):
        (tmp_path / "damaged" / name).write_bytes((tmp_path / "damaged" / name).read_bytes()[:60])
    return tmp_path / "damaged"


def test_all_images_that_cannot_be_read_are_named_at_once(infomax, place, features, damaged, tmp_path):
    words = "2 of 12 images cannot be read: x/2.png, y/5.png; the first: "
    for command in (
        ("embed", "a", "--data", str(damaged), "--out", str(tmp_path / "f.npz")),
        ("embed", "a", "--data", str(damaged), "--out", str(tmp_path / "f.npz"), "--skip-unreadable", "0.16"),
        ("search", "f.parquet", "--query", str(damaged)),
        ("evaluate", "knn", "a", "--data", str(damaged), "--no-baselines", "--out", str(tmp_path / "r.jsonl")),
    ):
        code, _, err = infomax(*command)
        assert (code, words in err) == (2, True), f"{command}: {err}"
        cure = "--skip-unreadable 0.17" if command[0] == "embed" else "mend the files, or move them elsewhere"
        assert err.endswith(f"{cure}\n")
    assert not (tmp_path / "f.npz").exists()
    with pytest.raises(ValueError, match="2 of 12 images cannot be read"):
        package.embed(place / "a", damaged)


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".npy"])
def test_images_that_cannot_be_read_are_left_out_if_asked_for(infomax, place, damaged, tmp_path, suffix):
    file = tmp_path / f"f{suffix}"
    command = ("embed", "a", "--data", str(damaged), "--out", str(file), "--skip-unreadable", "0.2")
    code, out, err = infomax(*command)
    assert (code, "10 images" in out, "2 that cannot be read are left out" in out) == (0, True, True), err
    assert "left out: 2 of 12 images cannot be read: x/2.png, y/5.png" in err
    table = read_features(file)
    assert list(table.origin.left_out) == ["x/2.png", "y/5.png"]
    names = [str(path.relative_to(damaged)) for path in sorted(damaged.glob("*/*")) if path.stat().st_size > 60]
    assert list(table.names) == names
    assert table.labels == [name[0] for name in names]
    wanted, given = package.embed(place / "a", [str(damaged / name) for name in names])
    np.testing.assert_allclose(table.features, wanted.numpy(), atol=1e-6)  # each name has the features of its image
    again, kept = package.embed(place / "a", damaged, skip_unreadable=0.2)
    assert (kept, len(given)) == (names, len(again))
    page = tmp_path / "s.html"
    code, out, err = infomax("search", str(file), "--query", "y/4.png", "--out", str(page))
    note = "2 images have no features, for they could not be read: x/2.png, y/5.png."
    assert (code, note in out, note in page.read_text()) == (0, True, True)
    assert "cannot be read<" not in page.read_text()  # each row has its image


def test_features_of_an_unfinished_encoder_are_said_to_be(infomax, place, tmp_path):
    data = {"data": str(place / "images"), "images": 1000, "fingerprint": "0"}
    recipe = customise(get_recipe("mveb", "small"), epochs=400, batch_size=100)
    save_small_encoder(tmp_path / "run")
    create_run_folder(tmp_path / "run", recipe, data=data, launch={}, overwrite=False)
    encoder = tmp_path / "run" / "encoder.json"
    encoder.write_text(json.dumps({**json.loads(encoder.read_text()), "steps": 58}))
    run, file = str(tmp_path / "run"), str(tmp_path / "f.npz")
    code, _, err = infomax("embed", run, "--out", file)
    assert (code, f"{run} is unfinished: 58 of 4000 steps\n" in err) == (0, True), err
    note = "The encoder that the features are of is unfinished: 58 of 4000 steps."
    page = tmp_path / "s.html"
    search = ("search", file, "--query", "cat/0.png", "--out", str(page))
    for command in (search, ("duplicates", file)):
        code, out, err = infomax(*command)
        assert (code, note in out) == (0, True), err
    assert note in page.read_text()
    code, _, err = infomax("classify", "fit", run, "--data", "images", "--out", str(tmp_path / "c"))
    assert (code, "is unfinished: 58 of 4000 steps" in err) == (0, True), err
    encoder.write_text(json.dumps({**json.loads(encoder.read_text()), "steps": 4000}))
    _, _, err = infomax("embed", run, "--out", file, "--overwrite")
    assert "unfinished" not in err
    assert read_features(tmp_path / "f.npz").origin.notes == ()


def test_embed_does_not_replace_the_images_themselves(infomax, place):
    np.savez(place / "pixels.npz", images=np.zeros((3, 8, 8), np.uint8))
    content = (place / "pixels.npz").read_bytes()
    code, _, err = infomax("embed", "a", "--data", "pixels.npz", "--out", "pixels.npz", "--overwrite")
    assert code == 2
    assert "--out pixels.npz holds the images of --data pixels.npz" in err
    assert (place / "pixels.npz").read_bytes() == content


def test_embed_in_half_precision(infomax, place):
    code, _, err = infomax("embed", "a", "--data", "images", "--feature-precision", "16", "--out", "half.npy")
    assert code == 0, err
    table = read_features(place / "half.npy")
    assert table.features.dtype == np.float16
    assert table.origin.precision == "16"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed", "a", "--out", "x.npz"], "--data is wanted: a is not a run folder"),
        (["embed", "a", "--data", "images", "--out", "x.csv"], "the suffix of --out must be one of .parquet"),
        (
            ["embed", "a", "--data", "images", "--out", "f.parquet"],
            "f.parquet exists; name another file, or give",
        ),
        (
            ["embed", "a", "--data", "images", "--out", "no/x.npz"],
            "--out no/x.npz: no such folder or file; name a folder",
        ),
        (["embed", "nothing", "--data", "images", "--out", "x.npz"], "nothing is no encoder"),
        (["embed", "a", "--data", "empty", "--out", "x.npz"], "--data empty: no images in"),
        (["search", "f.parquet"], "--query FILE|DIR|NAME|FEATURES is missing"),
        (["search", "f.parquet", "--query", "cat/00.png"], "did you mean cat/0.png?"),
        (["search", "f.parquet", "--query", "words.txt"], "words.txt"),
        (["search", "f.parquet", "--query", "cat/0.png", "-k", "0"], "--k must be a whole number of at least 1"),
        (["search", "f.parquet", "--query", "images/cat/0.png", "--encoder", "b"], "--encoder b has other weights"),
        (
            ["search", "f.parquet", "--query", "cat/0.png", "--engine", "fais"],
            "--engine must be one of exact, faiss, but is 'fais'; did you mean faiss?",
        ),
        (["search", "f.parquet", "--query", "cat/0.png", "--out", "x.pdf"], "the suffix of --out must be one of .html"),
        (["search", "images", "--query", "cat/0.png"], "there are no features"),
        (["duplicates", "f.parquet", "--above", "2"], "--above must be a cosine above 0 and at most 1, but is 2"),
        (
            ["duplicates", "f.parquet", "--data", "images/cat"],
            "--data images/cat has images without cat/0.png in its place, but the features are of 14",
        ),
        (["clusters", "f.parquet", "-k", "15"], "--k must be at most the number of images, 14, but is 15"),
    ],
)
def test_a_mistake_is_one_line(infomax, place, features, words, message):
    (place / "empty").mkdir(exist_ok=True)
    (place / "words.txt").write_text("no image\n")
    before = sorted(place.iterdir())
    code, out, err = infomax(*words)
    assert code == 2, out + err
    assert message in err.splitlines()[-1]
    assert sorted(place.iterdir()) == before


def test_search_finds_the_images_with_the_highest_cosine(infomax, place, features):
    table = read_features(features)
    encoder = load_encoder(place / "a")
    unit = torch.nn.functional.normalize(torch.from_numpy(np.array(table.features)))
    matches = package.search(features, "images/cat/3.png", k=4)
    own = list(table.names).index("cat/3.png")
    cosines, rows = (unit @ unit[own]).topk(4)
    assert [match.row for match in matches] == rows.tolist()
    np.testing.assert_allclose([match.cosine for match in matches], cosines, atol=1e-6)
    assert (matches[0].name, matches[0].label, matches[0].rank) == ("cat/3.png", "cat", 1)
    assert encoder.preprocessing == table.origin.preprocessing
    named = package.search(features, "cat/3.png", k=3)  # which leaves itself out
    assert [match.row for match in named] == rows.tolist()[1:]


def test_search_for_the_images_of_a_folder_and_of_another_file(infomax, place, features):
    code, _, err = infomax("search", "f.parquet", "--query", "images/cat", "-k", "2", "--out", "cats.jsonl")
    assert code == 0, err
    lines = read_json_lines(place / "cats.jsonl")
    assert len(lines) == CLASSES["cat"]
    assert [line["matches"][0]["name"] for line in lines[1:]] == [f"cat/{i}.png" for i in range(1, 6)]
    assert set(lines[0]["matches"][0]) == {"name", "label", "cosine"}
    infomax("embed", "a", "--data", "images/cat", "--out", "cats.npz")
    by_features = package.search(features, place / "cats.npz", k=2)
    assert [x.name for x in by_features] == [match["name"] for line in lines for match in line["matches"]]
    infomax("embed", "b", "--data", "images/cat", "--out", "of-b.npz")
    code, _, err = infomax("search", "f.parquet", "--query", "of-b.npz")
    assert code == 2
    assert "of-b.npz has features of " in err


def test_a_search_says_which_cosine_is_usual(infomax, features):
    _, out, _ = infomax("search", "f.parquet", "--query", "cat/0.png", "-k", "2")
    usual = usual_cosine(read_features(features))
    assert out.splitlines()[-1] == usual.describe()
    assert f"two images of this file have a cosine of {usual.median:.3f} (median), 1 of 100 pairs one above" in out
    assert "(all 91 pairs)" in out


def test_a_page_of_a_search_reads_the_query_with_one_line(infomax, place, features):
    code, _, err = infomax("search", "f.parquet", "--query", "images/cat/3.png", "--out", "cat.html")
    assert (code, err.count("reading images/cat/3.png: 1 image")) == (0, 1), err


def test_faiss_finds_the_same_images(infomax, place, features, monkeypatch):
    for engine in ("exact", "faiss"):
        words = ("--query", "images/cat", "-k", "5", "--engine", engine, "--out", f"{engine}.jsonl")
        assert infomax("search", "f.parquet", *words)[0] == 0
    exact, faiss = (
        [match for line in read_json_lines(place / f"{engine}.jsonl") for match in line["matches"]]
        for engine in ("exact", "faiss")
    )
    np.testing.assert_allclose([x["cosine"] for x in faiss], [x["cosine"] for x in exact], atol=1e-6)
    is_copy = {"dog/copy.png": "cat/0.png"}  # of two equal images either one may come first
    assert [is_copy.get(x["name"], x["name"]) for x in faiss] == [is_copy.get(x["name"], x["name"]) for x in exact]
    monkeypatch.setitem(sys.modules, "faiss", None)  # as if it were not installed
    code, _, err = infomax("search", "f.parquet", "--query", "images/cat", "--engine", "faiss")
    assert code == 2
    assert f"--engine faiss needs the package faiss-cpu: {how_to_install('faiss')}; " in err.splitlines()[-1]


def test_duplicates_keep_the_image_with_the_most_pixels(infomax, place, features):
    code, out, err = infomax("duplicates", "f.parquet", "--above", "0.9999", "--out", "d.csv", "--overwrite")
    assert code == 0, err
    with (place / "d.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    group = {row["image"]: row for row in rows if row["group"] == "1"}
    assert {"cat/0.png", "dog/copy.png", "dog/large.png"} <= set(group)
    assert [name for name, row in group.items() if row["keep"]] == ["dog/large.png"]
    assert group["dog/large.png"]["size"].startswith("40 x 48")
    assert "images have features with a cosine of 0.9999 or more to another image's" in out
    assert {row["cosine to kept"] for row in rows if row["keep"]} == {""}


def test_a_large_group_of_duplicates_is_warned_of(infomax, place, features):
    warning = "group 1 holds 14 of 14 images, with cosines to the kept one down to "
    for suffix in (".html", ".jsonl"):
        code, out, err = infomax("duplicates", "f.parquet", "--above", "0.01", "--out", f"all{suffix}")
        assert code == 0, err
        assert out.count(f"Warning: {warning}") == 2
        assert out.splitlines()[-1].startswith(f"Warning: {warning}")  # what is above has scrolled away
        assert "raise --above or use a better encoder" in out
    assert f"<p>G{warning[1:]}" in (place / "all.html").read_text()
    (line,) = read_json_lines(place / "all.jsonl")
    assert line["warning"].startswith(warning)
    assert line["compared"] == "features: each image has a cosine of 0.01 or more to another one of the group"
    assert line["duplicates"][0]["cosine_to_kept"] >= line["duplicates"][-1]["cosine_to_kept"]
    _, out, _ = infomax("duplicates", "f.parquet", "--above", "0.9999")
    assert "Warning" not in out


def test_duplicates_of_images_that_are_gone(infomax, place, features, tmp_path):
    shutil.copytree(place / "images", tmp_path / "moved")
    assert infomax("embed", "a", "--data", str(tmp_path / "moved"), "--out", "m.npz")[0] == 0
    shutil.move(tmp_path / "moved", tmp_path / "elsewhere")
    code, _, err = infomax("duplicates", "m.npz", "--above", "0.9999")
    assert code == 0, err
    assert "the first image of each group is kept, as the sizes of the images are not known" in err
    code, _, err = infomax("duplicates", "m.npz", "--out", "m.html")
    assert code == 2
    assert "--data says where the images that the features are of are now" in err
    words = ("duplicates", "m.npz", "--data", str(tmp_path / "elsewhere"), "--above", "0.9999", "--out", "m.html")
    assert infomax(*words)[0] == 0


def test_clusters_need_no_labels(infomax, place, features):
    code, out, err = infomax("clusters", "f.parquet", "-k", "3", "--out", "c.jsonl", "--overwrite")
    assert code == 0, err
    lines = read_json_lines(place / "c.jsonl")
    assert len(lines) == 3
    names = [name for line in lines for name in line["images"]]
    assert sorted(names) == sorted(read_features(features).names)
    assert [len(line["images"]) for line in lines] == sorted((len(line["images"]) for line in lines), reverse=True)
    assert all(line["distances"] == sorted(line["distances"]) for line in lines)
    assert re.search(r"14 images in 3 clusters; silhouette -?0\.\d", out)
    assert "--out FILE.html" not in err
    _, _, err = infomax("clusters", "f.parquet")
    assert "infomax: 3 clusters, the root of half the number of images (--k N gives another number)" in err
    assert "infomax: --out FILE.html shows the images of each cluster, --out FILE.jsonl names them" in err


@pytest.mark.parametrize("command", ["search", "duplicates", "clusters"])
def test_pages_show_images_and_names_inject_nothing(infomax, place, features, command):
    words = {
        "search": ["--query", f"dog/{EXPLOIT}", "-k", "13"],
        "duplicates": ["--above", "0.01"],
        "clusters": ["-k", "2"],
    }
    file = place / f"{command}.html"
    code, _, err = infomax(command, "f.parquet", *words[command], "--out", str(file))
    assert code == 0, err
    page = CheckedPage(file.read_text())  # which allows nothing that a name could have brought
    thumbnails = [attributes for tag, attributes in page.elements if tag == "li" and "data-thumbnail" in attributes]
    assert len(thumbnails) == 14
    assert any(EXPLOIT in text for text in page.text)


def test_features_are_those_of_the_encoder_alone(place, features):
    """The file's numbers are what the encoder computes of the decoded image."""
    table, encoder = read_features(features), load_encoder(place / "a")
    from infomax.data.sources.location import open_source

    images = open_source(str(place / "images")).train
    wanted = extract_features(encoder, images, np.array([4, 7]), encoder.preprocessing, workers=0)
    np.testing.assert_allclose(table.features[[4, 7]], wanted, atol=1e-6)
    assert json.loads(json.dumps(table.origin.data))["data"] == str(place / "images")
