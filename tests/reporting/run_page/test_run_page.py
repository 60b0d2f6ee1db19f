"""The page of runs that were trained, with the images that they were trained on."""

import io
import json
import re
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import infomax
from html_pages import EXPLOITS, CheckedPage
from infomax.data.preview import draw_images
from infomax.models.pretrained import open_encoder
from infomax.reporting.options import ReportOptions
from infomax.reporting.pages.atlas import fit_tile
from infomax.reporting.pages.blocks import Notice, Paragraph, SideBySide
from infomax.reporting.pages.charts import LineChart
from infomax.reporting.pages.gallery import Gallery, RankedRows
from infomax.reporting.pages.titled_gallery import TitledGallery
from infomax.reporting.run_page import build, grouping, groups, maps, neighbours, spectrum, views
from infomax.reporting.run_page.collecting import collect
from infomax.reporting.run_page.images import encode
from infomax.reporting.run_page.shown_runs import open_places
from infomax.runs.run_folder import Run
from toy_data import TOY, write_toy

HEADINGS = [
    "Verdict",
    "Is it better than pixels, and than an untrained encoder?",
    "Curves",
    "What the training sees",
    "Which images does it find alike?",
    "Map of the images",
    "Groups of images",
    "Spectrum",
    "Speed and waiting",
    "Environment, commands and recipe",
    "Results, beside the papers'",
    "How this page was made",
]


def train(folder, images, method="carl", **options) -> Run:
    settings = {"image_size": 8, "batch_size": 16, "workers": 0, "quiet": True, "log": "none", "device": "cpu"}
    options = {"epochs": 2, "overrides": TOY[method], **settings, **options}
    return infomax.pretrain(data=images, out=folder, method=method, **options)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    return write_toy(tmp_path_factory.mktemp("images"), train=48, test=32, side=12)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, images) -> dict[str, Run]:
    """A run of a method with prototypes, which was evaluated, one of MVEB and one of CorInfoMax."""
    folder = tmp_path_factory.mktemp("runs")
    trained = {name: train(folder / name, images, name) for name in ("carl", "mveb", "corinfomax")}
    infomax.evaluate("knn", trained["carl"], k=(3,))
    return trained


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory) -> Run:
    """A run on image files without classes, whose names try to act in the page."""
    folder = tmp_path_factory.mktemp("unlabelled")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"<img src=x onerror=alert({number})>.png")
    return train(folder / "run", folder / "photos", "mveb")


def content_of(*places, **options):
    options = ReportOptions(no_cache=True, **{"out": "page.html", **options})
    return collect(open_places(places), None, options)


def written(tmp_path, *places, **options) -> str:
    out = tmp_path / "page.html"
    infomax.report(*places, out=out, no_cache=True, overwrite=True, **options)
    html = out.read_text()
    CheckedPage(html)
    return html


def headings(html):
    return re.findall(r'<h2 id="[^"]*">(.*?)</h2>', html)


def of_kind(kind, section):
    """The blocks of a kind, those beside each other too."""
    flat = [x for block in section.blocks for x in (block.blocks if isinstance(block, SideBySide) else [block])]
    return [block for block in flat if isinstance(block, kind)]


def test_the_page_of_a_run_has_all_sections_in_their_order(tmp_path, runs, images, capfd):
    html = written(tmp_path, runs["carl"])
    assert [x.replace("&#x27;", "'") for x in headings(html)] == HEADINGS
    assert len(html) < 2e6
    assert "toy.npz" in html
    assert images not in html  # no folder of the machine
    assert str(runs["carl"].path.parent) not in html
    assert "://" not in html.replace("http://www.w3.org/2000/svg", "")


def test_the_page_of_several_runs_begins_with_what_differs(tmp_path, runs):
    html = written(tmp_path, *runs.values())
    assert headings(html)[0] == "What differs between the runs"
    assert "MVEB" in html or "mveb" in html
    assert "Curves" in headings(html)


def test_prototypes_are_those_of_the_trained_networks(runs):
    section = groups.section(content_of(runs["carl"]))
    encoder = open_encoder(runs["carl"].path)
    (shown,) = content_of(runs["carl"]).encoders
    pixels = np.load(runs["carl"].location.data)["test_images"]
    assert len(shown.images) == len(pixels)
    method = shown.method
    with torch.no_grad():
        assigned = method.cluster_logits(shown.features).argmax(1)
    counts = torch.bincount(assigned, minlength=10)
    text = of_kind(Paragraph, section)[0].text
    assert f"{int((counts > 0).sum())} of 10 prototypes have images, {int((counts == 0).sum())} are unused." in text
    assert "some are unused by chance" in text  # 32 images for 10 prototypes
    first = of_kind(TitledGallery, section)[0]
    assert first.heading == f"Prototype {int(counts.argmax()) + 1}, the fullest"
    assert first.text.startswith(f"{int(counts.max())} image")
    assert encoder.width == shown.features.shape[1]


def test_without_prototypes_images_are_grouped_by_k_means(runs):
    section = groups.section(content_of(runs["mveb"]))
    assert "k-means on features at unit length makes 4 clusters" in of_kind(Paragraph, section)[0].text
    sizes = [int(re.match(r"(\d+) image", x.text)[1]) for x in of_kind(TitledGallery, section)]
    assert sum(sizes) == 32
    assert sizes == sorted(sizes, reverse=True)


def test_a_sample_is_clustered_and_the_rest_joins_the_nearest_centre(monkeypatch):
    rng = np.random.default_rng(0)
    centres = np.eye(4)[np.arange(400) % 4]
    features = torch.from_numpy(centres + 0.01 * rng.standard_normal((400, 4))).float()
    monkeypatch.setattr(grouping, "MOST_CLUSTERED", 32)
    made = grouping.by_k_means(features, seed=0)
    assert made.count == 4
    for true in range(4):
        assert len(set(made.assigned[np.arange(400) % 4 == true])) == 1
    assert sorted(made.sizes) == [100] * 4


def test_neighbours_are_those_of_all_pairs(runs):
    (encoder,) = content_of(runs["mveb"]).encoders
    queries = neighbours.draw_queries(len(encoder.images), seed=0)
    assert len(queries) == 12
    assert queries == sorted(queries)
    assert queries[0] < 3  # spread over the whole set
    assert queries[-1] >= 29
    rows = torch.nn.functional.normalize(encoder.features, dim=1).numpy()
    for query, pairs in zip(queries, neighbours.find_neighbours(encoder.features, queries), strict=True):
        cosines = rows @ rows[query]
        cosines[query] = -2
        assert [cosine for _, cosine in pairs] == pytest.approx(sorted(cosines, reverse=True)[:6], abs=1e-5)
        assert query not in [row for row, _ in pairs]


def test_neighbours_say_their_cosine_and_are_marked_if_they_have_another_class(runs):
    content = content_of(runs["mveb"])
    (encoder,), section = content.encoders, neighbours.section(content)
    (rows,) = of_kind(RankedRows, section)
    labels = {encoder.images.names[i]: encoder.images.label(i) for i in range(len(encoder.images))}
    assert len(rows.rows) == 2 * 12
    for number, (first, others) in enumerate(rows.rows):
        assert first.details == (labels[first.caption], "by the untrained encoder" if number % 2 else "by the encoder")
        assert len(others) == neighbours.NEIGHBOURS
        for other in others:
            assert re.fullmatch(r"cosine -?\d\.\d\d", other.details[1])
            assert (other.mark == "other class") == (labels[other.caption] != labels[first.caption])


def test_it_is_counted_how_often_the_nearest_image_has_the_same_class(runs):
    content = content_of(runs["mveb"])
    (encoder,), (notice,) = content.encoders, of_kind(Notice, neighbours.section(content))
    rows = torch.nn.functional.normalize(encoder.features, dim=1)
    cosines = (rows @ rows.T).fill_diagonal_(-2)
    share = (encoder.images.labels[cosines.argmax(1).numpy()] == encoder.images.labels).mean()
    assert notice.heading == f"The nearest other image has the same class for {100 * share:.1f} % of 32 images"


def test_another_seed_draws_other_images(runs):
    assert neighbours.draw_queries(1000, seed=0) != neighbours.draw_queries(1000, seed=1)
    first, second = (content_of(runs["mveb"], max_images=10, seed=seed).encoders[0].images for seed in (0, 1))
    assert first.names != second.names


def test_a_sample_is_drawn_from_all_images_and_said(runs, capfd):
    content = content_of(runs["mveb"], max_images=10)
    (encoder,) = content.encoders
    assert len(encoder.features) == 10
    assert max(int(name.removeprefix("image ")) for name in encoder.images.names) >= 16  # not the first ones
    line = (
        "shows 10 of 32 test images of toy.npz, drawn from all of them with seed 0; --max-images N takes another number"
    )
    assert f"infomax: {line}" in capfd.readouterr().err
    assert line in content.decisions.lines
    assert line in str(build.build_page(content).sections[-1].blocks)


def test_views_are_those_of_the_training_with_its_seed(runs):
    content = content_of(runs["mveb"])
    section = views.section(content)
    galleries = of_kind(Gallery, section)
    assert len(galleries) == views.ROWS
    captions = [x.caption for x in galleries[0].thumbnails[1:]]
    assert captions == ["epoch 1, view 1", "epoch 1, view 2", "epoch 2, view 1", "epoch 2, view 2"]
    recipe, images = content.runs[0].recipe, content.sources["mveb"].train
    drawn, _ = draw_images(images, recipe.views, seed=recipe.seed, rows=views.ROWS, epochs=2)
    assert galleries[3].thumbnails[4].jpeg == encode(drawn[3].by_epoch[1][1].image, 96)
    assert "with its seed 0" in of_kind(Paragraph, section)[0].text


def test_spectra_are_the_eigenvalues_of_the_covariance(runs):
    (encoder,) = content_of(runs["corinfomax"]).encoders
    spectra = dict(spectrum.spectra_of(encoder, seed=0))
    wanted = np.linalg.eigvalsh(np.cov(encoder.features.double().numpy().T, bias=True))[::-1]
    np.testing.assert_allclose(spectra["features"], wanted, atol=1e-9 * wanted[0])
    embeddings = spectrum.embed(encoder.method, encoder.features).double().numpy()
    own = np.linalg.eigvalsh(np.cov(embeddings.T, bias=True))[::-1]
    np.testing.assert_allclose(spectra["embeddings"], own, atol=1e-6 * own[0])
    matrix = encoder.method.criterion.R1.numpy()
    np.testing.assert_allclose(spectra["R1, CorInfoMax's own covariance"], np.linalg.eigvalsh(matrix)[::-1], atol=1e-12)
    (chart,) = of_kind(LineChart, spectrum.section(content_of(runs["corinfomax"])))
    assert sum(chart.curves[0].y[:1]) <= 1
    assert chart.log_y


def test_the_effective_rank_of_equal_eigenvalues_is_their_number():
    assert spectrum.effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3)
    assert spectrum.effective_rank(torch.zeros(3)) == 0


def test_several_runs_on_the_same_images_are_shown_with_the_same_ones(runs):
    content = content_of(*runs.values())
    assert len({id(encoder.images) for encoder in content.encoders}) == 1
    titles = [chart.title for chart in of_kind(LineChart, spectrum.section(content))]
    assert titles[0] == "Share of the variance: features"


def test_at_most_three_runs_have_a_map_and_this_is_said(tmp_path, runs, capfd):
    copies = [copytree(runs["mveb"].path, tmp_path / str(number)) for number in range(4)]
    content = content_of(*copies)
    assert [encoder.name for encoder in content.encoders] == ["0", "1", "2"]
    assert "neighbours, maps and groups of images are shown of the first 3 runs: 0, 1, 2" in capfd.readouterr().err


def moved(tmp_path, run) -> Run:
    """A copy of a run whose images are no longer where they were."""
    folder = copytree(run.path, tmp_path / "moved")
    config = json.loads((folder / "config.json").read_text())
    config["data"] = str(tmp_path / "gone" / "toy.npz")
    (folder / "config.json").write_text(json.dumps(config))
    return Run(folder)


def test_images_that_are_gone_cost_their_sections_and_one_line(tmp_path, runs, images, capfd):
    run = moved(tmp_path, runs["carl"])
    html = written(tmp_path, run)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "its images are not shown" in line]
    assert line.endswith("gone/toy.npz is not there any more; data=DIR says where it is now")
    assert "The images of moved are not there" in html
    assert str(tmp_path) not in html.split("How this page was made")[-1]
    assert {"Which images does it find alike?", "Groups of images", "Spectrum"} & {*headings(html)} == set()
    assert "Which images does it find alike?" in headings(written(tmp_path, run, data=images))


def test_other_images_than_those_of_the_training_are_named_so(tmp_path, runs, capfd):
    other = write_toy(tmp_path, train=20, test=20, side=12)
    content = content_of(runs["carl"], data=other)
    assert content.other_images == {"carl": "it was trained on 48 images, and these are 20"}
    assert "not the views of the training itself" in str(views.section(content).blocks)
    assert "carl: it was trained on 48 images" in capfd.readouterr().err


def test_names_of_files_cannot_act_in_the_page(tmp_path, unlabelled):
    html = written(tmp_path, unlabelled)
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(" in html


def test_names_of_classes_and_runs_cannot_act_in_the_page(tmp_path, runs):
    names = [name for name in EXPLOITS if name.isprintable() and name.isascii()]
    pixels = np.random.default_rng(0).integers(0, 256, (4 * len(names), 12, 12, 3), np.uint8)
    labels = np.array(names * 4)
    np.savez(tmp_path / "classes.npz", train_images=pixels, train_labels=labels, test_images=pixels, test_labels=labels)
    folder = copytree(runs["carl"].path, tmp_path / "<img src=x onerror=alert(1)>")
    html = written(tmp_path, folder, runs["mveb"], data=tmp_path / "classes.npz")
    assert not [name for name in names if "<" in name and name in html]
    assert "&lt;img src=x onerror=alert(1)&gt;: " in html  # the run's name
    assert "alert(1)&lt;/script&gt;" in html  # that of a class


def test_a_run_without_labels_has_all_that_needs_none(tmp_path, unlabelled):
    html = written(tmp_path, unlabelled)
    assert headings(html)[:5] == HEADINGS[:5]
    assert "Not known: there are no labels to compare by" in html
    assert "same class" not in html
    assert "All 30 training images of photos" in html


def test_an_encoder_that_maps_all_images_to_one_vector_has_a_page(tmp_path, runs):
    folder = copytree(runs["mveb"].path, tmp_path / "flat")
    file = folder / "encoder.safetensors"
    save_file({name: torch.zeros_like(x) if x.is_floating_point() else x for name, x in load_file(file).items()}, file)
    content = content_of(folder)
    text = " ".join(block.text for block in of_kind(Paragraph, groups.section(content)))
    assert "1 of 4 clusters have images, 3 are unused" in text
    assert str(folder) not in written(tmp_path, folder)


def test_a_run_without_an_encoder_shows_what_is_there(tmp_path, runs):
    folder = copytree(runs["mveb"].path, tmp_path / "young")
    for name in ("encoder.json", "encoder.safetensors"):
        (folder / name).unlink()
    rmtree(folder / "checkpoints")
    content = content_of(folder)
    assert content.missing == {"young": "its folder has no encoder yet"}
    (notice,) = of_kind(Notice, neighbours.section(content))
    assert notice.evidence == "its folder has no encoder yet"
    assert "Curves" in headings(written(tmp_path, folder))


def test_a_run_without_checkpoints_is_shown_by_its_features_alone(tmp_path, runs, capfd):
    folder = copytree(runs["carl"].path, tmp_path / "exported")
    rmtree(folder / "checkpoints")
    content = content_of(folder)
    assert "k-means" in of_kind(Paragraph, groups.section(content))[0].text
    assert (
        "exported: neither prototypes nor embeddings are shown, as its folder keeps no checkpoint"
        in capfd.readouterr().err
    )
    (chart,) = of_kind(LineChart, spectrum.section(content))
    assert [curve.name for curve in chart.curves] == ["features", "features of the untrained encoder"]


def test_a_file_of_results_of_others_has_its_tables(tmp_path, runs):
    results = tmp_path / "others.jsonl"
    infomax.evaluate("knn", runs["carl"], k=(3,), out=results, no_baselines=True)
    html = written(tmp_path, results)
    assert [x.replace("&#x27;", "'") for x in headings(html)] == [
        "Results, beside the papers'",
        "How this page was made",
    ]


def test_an_image_that_cannot_be_read_costs_the_sections_that_need_it(tmp_path, unlabelled, capfd):
    photos = copytree(unlabelled.location.data, tmp_path / "photos")
    next(photos.iterdir()).write_bytes(b"no image")
    content = content_of(unlabelled, data=str(photos))
    assert content.encoders == ()
    assert "no other image is taken in its place" in content.missing["run"]


def test_an_interruption_leaves_no_file(tmp_path, runs, monkeypatch):
    def interrupt(content):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "SECTIONS", (*build.SECTIONS, interrupt))
    with pytest.raises(KeyboardInterrupt):
        infomax.report(runs["mveb"], out=tmp_path / "page.html", no_cache=True)
    assert [*tmp_path.iterdir()] == []


def test_python_returns_the_tables_and_writes_the_page(tmp_path, runs):
    report = infomax.report(runs["carl"], out=tmp_path / "page.html", no_cache=True)
    assert report.results
    assert str(infomax.report(runs["carl"])) == str(report)
    assert infomax.report(runs["mveb"], out=tmp_path / "other.html", no_cache=True).tables == ()


def test_a_missing_device_is_a_mistake_and_no_missing_image(tmp_path, runs):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="device=cuda: torch finds no CUDA device"):
        infomax.report(runs["mveb"], out=tmp_path / "page.html", device="cuda")


def test_the_map_shows_all_images_with_their_classes_prototypes_and_clusters(runs):
    content = content_of(runs["carl"])
    (encoder,) = content.encoders
    (block,) = maps.section(content).blocks
    assert [layer.name for layer in block.layers] == ["class", "prototype", "cluster"]
    assert [*block.layers[0].values] == [*encoder.images.labels]
    assert [*block.layers[1].values] == [*encoder.prototypes.assigned]
    assert block.layers[1].categories[0] == "prototype 1"
    assert sorted(block.points.atlas_index) == [*range(32)]  # each image has a picture of its own
    assert block.names == list(encoder.images.names)
    assert block.caption.startswith("All 32 test images of toy.npz. ")


def test_maps_of_several_runs_share_the_room_of_the_page(runs, monkeypatch):
    monkeypatch.setattr(maps, "POINTS_OF_SEVERAL", 20)
    monkeypatch.setattr(maps, "MOST_PICTURES", 30)
    content = content_of(*runs.values())
    first, second, third = maps.section(content).blocks
    assert {len(block.names) for block in (first, second, third)} == {20}
    assert first.atlas.count == 10
    assert (first.points.atlas_index >= 0).sum() == 10
    assert "20 of them are on the map, drawn with seed 0" in first.caption
    sheet = np.asarray(Image.open(io.BytesIO(first.atlas.sheets[0])).convert("RGB"), float)
    shown = content.encoders[0].images
    for row in np.flatnonzero(first.points.atlas_index >= 0):  # each image has its own tile
        top, left = (maps.TILE * x for x in divmod(int(first.points.atlas_index[row]), first.atlas.columns))
        tile = fit_tile(shown.images.open(shown.names.index(first.names[row])), maps.TILE)
        difference = np.abs(sheet[top : top + maps.TILE, left : left + maps.TILE] - np.asarray(tile, float))
        assert difference.mean() < 20  # a JPEG's; tiles of other images differ by 40 and more
    assert first.names == second.names
