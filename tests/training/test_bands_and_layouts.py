"""Runs on images whose bands are files, and on arrays of a given layout: kept in the run, and used by what follows."""

import numpy as np
import pytest
from PIL import Image

import infomax
from infomax.runs.run_folder import Run
from toy_data import TOY

pytestmark = pytest.mark.process  # they train
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (20, 12, 12, 3)).astype(np.uint8)
STAINS = ("DAPI", "GFP", "RFP")


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """20 images of cells, each stain in a gray PNG file of its own, in two folders of classes."""
    folder = tmp_path_factory.mktemp("cells")
    for number, image in enumerate(PIXELS):
        for channel, stain in enumerate(STAINS):
            file = folder / f"class {number % 2}" / f"{number:02d} {stain}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(image[..., channel]).save(file)
    return folder


@pytest.fixture(scope="module")
def run(cells, tmp_path_factory):
    options = {"image_size": 8, "epochs": 1, "batch_size": 8, "quiet": True, "overrides": TOY["mveb"]}
    return infomax.pretrain(
        data=str(cells), bands=",".join(STAINS), method="mveb", out=tmp_path_factory.mktemp("runs") / "a", **options
    )


def test_a_run_keeps_its_bands(run, cells, monkeypatch, tmp_path):
    assert run.config["bands"] == "DAPI,GFP,RFP"
    assert run.config["images"] == 20
    assert any("3 files are the bands of an image" in note for note in run.config["notes"])
    assert run.location.bands == "DAPI,GFP,RFP"
    monkeypatch.chdir(tmp_path)
    rows = infomax.evaluate("knn", run.path, k=(1,), quiet=True, no_baselines=True)
    assert rows[0].test_images == 4
    with pytest.raises(ValueError, match="20 now, or others of these names or in another order"):
        infomax.pretrain(data=str(cells), bands="GFP,DAPI,RFP", method="mveb", out=run.path, resume=True, quiet=True)


def test_bands_in_the_order_of_files_and_an_array_have_the_same_features(run, cells):
    files = sorted(str(file) for file in cells.rglob("*.png"))
    features, names = infomax.embed(run.path, files, bands="DAPI,GFP,RFP", workers=0)
    assert names[:2] == [str(cells / "class 0" / "00 *.png"), str(cells / "class 0" / "02 *.png")]
    in_order = PIXELS[[*range(0, 20, 2), *range(1, 20, 2)]]
    for array, layout in ((in_order, None), (in_order.transpose(0, 3, 1, 2), "NCHW")):
        of_array, _ = infomax.embed(run.path, array, layout=layout, workers=0)
        np.testing.assert_allclose(of_array, features, atol=5e-3)  # arrays are resized without rounding to bytes
        assert (of_array - features.flip(0)).abs().max() > 2e-2
    rows = infomax.evaluate(
        "knn", run.path, data=files, bands="DAPI,GFP,RFP", k=(1,), quiet=True, no_baselines=True, no_cache=True
    )
    assert rows[0].test_images == 4


def test_a_run_on_an_array_keeps_its_layout(tmp_path):
    np.savez(tmp_path / "x.npz", images=PIXELS[:, :3, :3].transpose(0, 3, 1, 2), labels=np.arange(20) % 2)
    options = {"image_size": 8, "epochs": 1, "batch_size": 8, "quiet": True, "overrides": TOY["mveb"]}
    infomax.pretrain(data=str(tmp_path / "x.npz"), layout="NCHW", method="mveb", out=tmp_path / "run", **options)
    assert Run(tmp_path / "run").location.layout == "NCHW"
    assert any(
        "3 channels of 3 x 3 pixels, the channels first" in note for note in Run(tmp_path / "run").config["notes"]
    )
    rows = infomax.evaluate("knn", tmp_path / "run", k=(1,), quiet=True, no_baselines=True)
    assert rows[0].test_images == 4
