"""Pretraining end to end at toy size: the run folder, resuming, and what is refused before anything is written."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import infomax
from infomax.data import fingerprints
from infomax.data.augmentation.make_views import make_views
from infomax.data.loading.training import training_batches
from infomax.data.sources.location import open_source
from infomax.evaluation.run import evaluate
from infomax.methods.base import Progress
from infomax.recipes.building import build_method, build_optimizer, learning_rate
from infomax.recipes.customise import customise, customise_experiment
from infomax.recipes.registry import get_experiment, get_recipe, methods_with_papers
from infomax.recipes.schema import OptimizerSettings
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints, threads
from infomax.runtime.locks import FolderLock
from infomax.training.engine import Engine
from infomax.training.loop import train
from infomax.training.options import LaunchOptions
from infomax.training.pretrain import pretrain
from toy_data import TOY, write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """24 labelled images of 12 pixels for training, 10 for testing."""
    return write_toy(tmp_path_factory.mktemp("toy"), train=24, test=10, side=12)


def go(out, data, method="mira", **options) -> Run:
    settings = {"image_size": 8, "epochs": 4, "batch_size": 8, "quiet": True, **options}
    return pretrain(data=data, method=method, out=out, overrides=TOY[method], **settings)


def test_a_quiet_run_says_what_was_decided_about_the_images_and_no_more(toy, tmp_path, capsys):
    go(tmp_path / "run", toy, "mveb", epochs=1, batch_size=10)
    err = capsys.readouterr().err
    assert "trains on " in err
    assert "tests on " in err
    assert "each epoch leaves out 4 of the 24 images" in err
    assert "recipe" not in err


def weights(run: Run) -> dict[str, torch.Tensor]:
    return checkpoints.load(checkpoints.newest_readable(run.path / "checkpoints"))["method"]


@pytest.mark.parametrize("method", methods_with_papers())
def test_a_run_leaves_everything_that_the_folder_should_have(toy, tmp_path, method):
    run = go(tmp_path / "run", toy, method)
    names = {path.name for path in run.path.iterdir()}
    expected = {"config.json", "metrics.jsonl", "checkpoints", "encoder.safetensors", "encoder.json", "views.png"}
    assert names == expected | {"tensorboard"}
    changes = {"image_size": 8, "epochs": 4, "batch_size": 8, "overrides": TOY[method]}
    assert run.recipe == customise_experiment(get_experiment("small", method), images=24, **changes)
    assert run.config["data"] == toy
    assert torch.__version__.startswith(run.config["versions"]["torch"])
    rows = run.read_rows("metrics.jsonl")
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [3, 6, 9, 12]  # the end of each epoch
    assert all(np.isfinite(row["loss"]) and row["images_per_second"] > 0 and 0 <= row["waiting"] <= 1 for row in steps)
    rates = [
        learning_rate(run.recipe.optimizer, Progress(row["step"] - 1, 12, row["epoch"]), epochs=4) for row in steps
    ]
    assert [row["learning_rate"] for row in steps] == pytest.approx(rates)
    assert sum("knn_top1" in row for row in rows) == 4
    with Image.open(run.path / "views.png") as picture:
        assert picture.size[0] > 100
    assert infomax.load(run)(torch.zeros(2, 3, 8, 8)).shape == (2, 128)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(toy, tmp_path):
    a, b, c = (weights(go(tmp_path / name, toy, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert all(torch.equal(a[name], b[name]) for name in a)
    name = "encoder.backbone.0.weight"
    assert not torch.equal(a[name], c[name])


def test_a_finished_run_that_is_resumed_stays_as_it_is(toy, tmp_path):
    run = go(tmp_path / "run", toy)
    before = weights(run)
    pretrain(out=run.path, resume=True, quiet=True)
    assert all(torch.equal(before[name], value) for name, value in weights(run).items())


def test_resuming_as_another_run_is_refused_with_the_difference(toy, tmp_path):
    run = go(tmp_path / "run", toy, epochs=1)
    before = sorted(path.stat().st_mtime_ns for path in run.path.rglob("*"))
    for change, message in (
        ({"method": "carl"}, "method: mira there, carl asked for"),
        ({"data": "digits"}, "the images of digits are not those .*: 24 then, 1438 now"),
        ({"overrides": ["epochs=9"]}, "epochs: 1 there, 9 asked for"),
        ({"overrides": ["method.beta=0.5"]}, r"method.beta: 0\.66.* there, 0.5 asked for"),
    ):
        with pytest.raises(ValueError, match=message):
            pretrain(out=run.path, resume=True, quiet=True, **change)
    assert sorted(path.stat().st_mtime_ns for path in run.path.rglob("*")) == before
    with pytest.raises(ValueError, match="not a run folder"):
        pretrain(out=tmp_path / "nothing", resume=True)


def test_nothing_is_overwritten_without_being_told(toy, tmp_path):
    run = go(tmp_path / "run", toy, epochs=1)
    with pytest.raises(ValueError, match="--resume .* --overwrite"):
        go(run.path, toy, epochs=1)
    (run.path / "mark").touch()
    go(run.path, toy, epochs=1, overwrite=True)
    assert not (run.path / "mark").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").touch()
    with pytest.raises(ValueError, match="not a run folder; choose another"):
        go(other, toy, overwrite=True)
    assert (other / "precious.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mirra"}, "--method .*did you mean mira"),
        ({"data": "missing"}, "no such folder or file"),
        ({"batch_size": 25}, "a step takes 25 images.*more than the 24 images.*--batch-size of at most 24"),
        ({"device": "gpu"}, "--device must be one of auto, cpu, cuda"),
        ({"recipe": "smal"}, "the recipe for .*did you mean small|there is no recipe .*did you mean small"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(toy, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        pretrain(**{"data": toy, "out": tmp_path / "run", "quiet": True, **options})
    assert not (tmp_path / "run").exists()


def test_a_damaged_image_leaves_no_folder_behind(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(8):
        (tmp_path / "images" / f"{i}.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        pretrain(data=str(tmp_path / "images"), out=tmp_path / "run", batch_size=4, quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", methods_with_papers())
def test_a_loss_that_is_not_a_number_stops_the_run(toy, tmp_path, method):
    with pytest.raises(
        FloatingPointError, match=r"the (loss|gradient).* at step \d+.*infomax replay .*--learning-rate"
    ):
        go(tmp_path / "run", toy, method, learning_rate=1e30)


def test_resuming_on_other_images_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(8):
        Image.new("RGB", (9, 9), (i, i, i)).save(tmp_path / "images" / f"{i}.png")
    run = go(tmp_path / "run", str(tmp_path / "images"), epochs=1, workers=0)
    pretrain(out=run.path, resume=True, quiet=True, workers=0)
    assert len(run.config["resumed"]) == 1
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "8.png")
    with pytest.raises(ValueError, match="not those that the run was started with: 8 then, 9 now"):
        pretrain(out=run.path, resume=True, quiet=True, workers=0)
    with pytest.raises(ValueError, match="give one of them"):
        pretrain(out=run.path, resume=True, overwrite=True)


def test_a_run_folder_among_its_own_images_is_refused(tmp_path):
    for i in range(8):
        Image.new("RGB", (9, 9), (i, i, i)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="is inside --data"):
        go(tmp_path / "run", str(tmp_path))


def test_a_torn_last_line_of_the_metrics_is_left_out(toy, tmp_path):
    run = go(tmp_path / "run", toy, epochs=1)
    whole = run.read_rows("metrics.jsonl")
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')
    assert run.read_rows("metrics.jsonl") == whole
    pretrain(out=run.path, resume=True, quiet=True)
    assert run.read_rows("metrics.jsonl") == whole


def test_a_folder_of_files_without_labels(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(12):
        size = (20 + i, 30 - i, 3)
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / "images" / f"{i}.jpg")
    run = go(tmp_path / "run", str(tmp_path / "images"), epochs=1, batch_size=6, workers=2)
    rows = [row for row in run.read_rows("metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == [2]
    assert "knn_top1" not in rows[0]
    features, names = infomax.embed(run.path, str(tmp_path / "images"), workers=0)
    assert features.shape == (12, 128)
    assert names[0] == "0.jpg"


def test_mira_keeps_its_prototypes_for_the_first_epoch_of_a_run(toy, tmp_path):
    run = go(tmp_path / "run", toy, epochs=1)
    drawn = build_method(run.recipe).prototypes.weight
    assert torch.equal(weights(run)["prototypes.weight"], drawn)


def test_views_are_those_of_the_recipe_seed_and_epoch(toy):
    recipe = customise(get_recipe("carl", "small"), image_size=8, batch_size=8, seed=5)
    images = open_source(toy).train
    (batch,) = training_batches(images, recipe.views, batch_size=8, seed=5, steps=range(10, 11))
    assert batch.epoch == 3
    got = Engine(recipe, steps_per_epoch=3, device=torch.device("cpu")).views(batch)
    pixels = torch.from_numpy(images.pixels[batch.index])
    want = make_views(pixels, recipe.views, seed=5, epoch=3, index=batch.index)
    assert all(torch.equal(a, b) for a, b in zip(got.global_crops, want, strict=True))


def test_multi_crop_trains(toy, tmp_path):
    run = go(tmp_path / "run", toy, "mveb", views="dino-wide", image_size=16, epochs=1)
    assert next(row["step"] for row in run.read_rows("metrics.jsonl") if "loss" in row) == 3


def test_learning_rates_of_both_laws():
    step, epoch = (
        OptimizerSettings(name="sgd", learning_rate=1.0, warmup_epochs=2, per_epoch=by) for by in (False, True)
    )

    def at(settings, t):
        return learning_rate(settings, Progress(step=t, total_steps=100, epoch=t // 10), epochs=10)

    assert at(step, 0) == pytest.approx(1 / 21)
    assert (at(step, 20), at(step, 60)) == pytest.approx((1.0, 0.5))
    assert (at(epoch, 0), at(epoch, 9), at(epoch, 10), at(epoch, 19)) == (0.0, 0.0, 1.0, 1.0)
    assert at(epoch, 60) == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("lars", "Lars"), ("adam", "Adam")])
def test_optimizers_hold_every_trainable_parameter_once(name, kind):
    recipe = customise(get_recipe("mira", "digits"), overrides=[f"optimizer.name={name}"])
    method = build_method(recipe)
    optimizer = build_optimizer(method, recipe.optimizer)
    assert type(optimizer).__name__ == kind
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in method.parameters() if p.requires_grad)


def test_a_run_that_lost_its_encoder_says_so(toy, tmp_path):
    run = go(tmp_path / "run", toy, epochs=1)
    (run.path / "encoder.json").unlink()
    with pytest.raises(ValueError, match="not a run folder with an encoder"):
        infomax.load(run.path)
    (run.path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        _ = run.config
    shutil.rmtree(run.path)
    with pytest.raises(ValueError, match="no such folder or file"):
        _ = run.config


def test_a_run_can_be_judged_from_another_folder(toy, tmp_path, monkeypatch):
    shutil.copy(toy, tmp_path / "toy.npz")
    monkeypatch.chdir(tmp_path)
    run = go("run", "toy.npz", epochs=1)
    data = run.config["data"]
    assert data == str(tmp_path / "toy.npz")
    monkeypatch.chdir("/")
    assert len(evaluate("knn", tmp_path / "run", data=data)) == 3


def test_config_is_plain_json(toy, tmp_path):
    run = go(tmp_path / "run", toy, epochs=1)
    config = json.loads((run.path / "config.json").read_text())
    assert config["recipe"]["method"]["name"] == "mira"
    settings = {"recipe", "data", "images", "left_out_of_epoch", "fingerprint", "shorter_side", "launch"}
    settings |= {"train_split", "tests_on", "notes", "no_labels_reason"}
    assert set(config) == settings | {"changes", "command", "started", "commit", "machine", "versions"}


@pytest.mark.parametrize(("batch_size", "line"), [(7, "each epoch leaves out 3 of the 24 images, "), (8, "")])
def test_images_that_fill_no_batch_are_said_before_the_first_step(toy, tmp_path, capsys, batch_size, line):
    run = go(tmp_path / "run", toy, epochs=1, batch_size=batch_size, quiet=False)
    lines = [text for text in capsys.readouterr().err.splitlines() if "leaves out" in text]
    assert lines == ([f"{line}others each time: a step takes 7"] if line else [])
    assert run.config["left_out_of_epoch"] == 24 % batch_size


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
@pytest.mark.parametrize("method", methods_with_papers())
def test_every_method_trains_on_a_gpu(toy, tmp_path, method, precision):
    run = go(tmp_path / "run", toy, method, device="cuda", precision=precision, recipe="small")
    assert all(np.isfinite(row["loss"]) for row in run.read_rows("metrics.jsonl") if "loss" in row)
    assert infomax.load(run.path)(torch.zeros(2, 3, 8, 8)).isfinite().all()


def test_images_may_lie_beside_the_run_but_not_around_it(toy, tmp_path):
    """A list in the same folder forbids nothing; a folder of images does, also where only some of it is trained on."""
    for i in range(10):
        Image.new("RGB", (12, 12), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "list.txt").write_text("".join(f"{i}.png\n" for i in range(8)))
    assert go(tmp_path / "run", str(tmp_path / "list.txt"), epochs=1).path.is_dir()
    with pytest.raises(ValueError, match=r"--out .* is inside --data"):
        go(tmp_path / "other", str(tmp_path), epochs=1, subset=str(tmp_path / "list.txt"))


def test_what_is_said_of_the_images_is_never_ignored(tmp_path):
    with pytest.raises(ValueError, match=r"--subset none\.txt: cannot be read"):
        pretrain(data="digits", out=tmp_path / "run", subset="none.txt")
    assert not (tmp_path / "run").exists()


def test_each_rank_sees_that_its_images_are_those_of_the_run(toy, tmp_path):
    run = go(tmp_path / "run", toy, epochs=1)
    arrays = dict(np.load(toy))
    np.savez(tmp_path / "x.npz", **{name: x[::-1] for name, x in arrays.items()})
    config = {**run.config, "data": str(tmp_path / "x.npz")}
    (run.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"the images of .*x\.npz are not those of the run on rank 0"):
        train(run, LaunchOptions(device="cpu", workers=0, quiet=True))


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_that_another_process_writes_is_refused_and_left_alone(toy, tmp_path, options):
    run = go(tmp_path / "run", toy, epochs=1) if options else Run(tmp_path / "run")
    run.path.mkdir(exist_ok=True)
    with FolderLock(run.path):
        before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
        with pytest.raises(ValueError, match=r"run is being written by process \d+ on host \S+ since"):
            go(run.path, toy, epochs=1, **options)
        assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    go(run.path, toy, epochs=1, **options)
    assert not list(run.path.glob(".*"))


def image_folder(root, count=24, *, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(count):
        (root / str(i % 2)).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / str(i % 2) / f"{i:02d}.bmp")  # all files of one size
    return root


def test_a_run_that_another_thread_writes_is_said_to_be_written(tmp_path):
    run = go(data="digits", out=tmp_path / "run", epochs=1, batch_size=700)
    with FolderLock(run.path), ThreadPoolExecutor(1) as threads:
        for options in ({}, {"overwrite": True}, {"resume": True}):
            words = {"data": "digits", "out": run.path, "quiet": True, **options}
            with pytest.raises(ValueError, match=f"run is being written by process {os.getpid()} "):
                threads.submit(pretrain, **words).result()
    with pytest.raises(ValueError, match="run exists; choose another, or --resume"):
        pretrain(data="digits", out=run.path)


def test_a_run_whose_images_are_there_but_damaged_is_not_said_to_have_moved_images(tmp_path):
    run = go(data=str(image_folder(tmp_path / "images")), out=tmp_path / "run", epochs=1, workers=0)
    for file in (tmp_path / "images").rglob("*.bmp"):
        file.unlink()
    with pytest.raises(ValueError, match="the images that it was trained on cannot be opened: ") as raised:
        pretrain(out=run.path, resume=True, quiet=True)
    assert "moved" not in str(raised.value)


def test_a_run_goes_on_where_its_images_were_moved_to(tmp_path, capsys):
    """Also in later starts, in ranks, and in an evaluation that names no images."""
    options = {"out": tmp_path / "run", "workers": 0}
    run = go(data=str(image_folder(tmp_path / "old")), epochs=1, **options)
    (tmp_path / "old").rename(tmp_path / "renamed")
    with pytest.raises(ValueError, match=r"--resume .*run: the images .* cannot be opened: .* name their .* by --data"):
        pretrain(resume=True, quiet=True, **options)
    pretrain(resume=True, quiet=True, data=tmp_path / "renamed", **options)
    assert run.config["data"] == str(tmp_path / "old")
    assert run.config["resumed"][-1]["data"] == run.location.data == str(tmp_path / "renamed")
    pretrain(resume=True, quiet=True, **options)
    train(run, LaunchOptions(device="cpu", workers=0, quiet=True))
    assert "were copied or changed" not in capsys.readouterr().err  # all bytes are compared
    assert evaluate("knn", run, workers=0)


def test_files_that_were_replaced_under_the_same_names_are_noticed(tmp_path):
    options = {"out": tmp_path / "run", "workers": 0}
    go(data=str(image_folder(tmp_path / "a")), epochs=1, **options)
    times = [(path, path.stat().st_mtime_ns) for path in (tmp_path / "a").rglob("*.bmp")]
    image_folder(tmp_path / "a", seed=1)
    for path, time in times:
        os.utime(path, ns=(time, time))
    with pytest.raises(ValueError, match="are not those that the run was started with"):
        pretrain(resume=True, quiet=True, **options)


def test_a_line_says_if_files_were_changed_that_are_compared_by_a_sample(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fingerprints, "LARGE", 600)
    monkeypatch.setattr(fingerprints, "SAMPLED_CONTENTS", 3)
    options = {"out": tmp_path / "run", "workers": 0}
    run = go(data=str(image_folder(tmp_path / "a")), epochs=1, **options)
    for start, line in ((0, False), (1, True), (2, False)):
        if start == 1:
            file = tmp_path / "a" / "0" / "02.bmp"
            file.write_bytes(file.read_bytes()[:-1] + b"x")
        capsys.readouterr()
        pretrain(resume=True, quiet=True, **options)
        assert ("files of" in capsys.readouterr().err) == line
    assert run.config["times"] == run.config["resumed"][0]["times"] != run.times_hash


def test_a_run_says_and_keeps_what_it_trains_on_and_tests_on(tmp_path, capsys):
    pixels, labels = np.random.default_rng(0).integers(0, 255, (10, 12, 12, 3)).astype(np.uint8), np.arange(10) % 2
    np.savez(tmp_path / "x.npz", X_train=pixels, y_train=labels, X_val=pixels, y_val=labels + 1, X_test=pixels)
    data = str(tmp_path / "x.npz")
    run = go(tmp_path / "run", data, quiet=False, epochs=1)
    notes = [
        "val: 5 images left out, of classes without training images: 2 (5)",
        "test is not tested on: it has no array of labels; found X_train, y_train, X_val, y_val",
    ]
    lines = [
        "trains on train: 10 images in 2 classes: 0, 1",
        "tests on val: 5 images",
        *notes,
    ]
    err = capsys.readouterr().err
    assert [line for line in err.splitlines() if line.startswith(data)] == [f"{data}: {line}" for line in lines]
    config = run.config
    assert [config[key] for key in ("train_split", "tests_on", "no_labels_reason")] == ["train", "val", ""]
    assert config["notes"] == notes
    go(tmp_path / "quiet", data, epochs=1)
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith(data)] == [
        f"{data}: {line}" for line in lines
    ]


def test_labels_that_are_none_stop_no_training_and_are_said(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 255, (10, 12, 12, 3)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.eye(14)[:10])
    run = go(tmp_path / "run", str(tmp_path / "x.npz"), quiet=False, epochs=1)
    cause = "the data has no labels: array labels is one-hot, of shape [10, 14]; argmax(1) makes one label of each row"
    assert f"no labels to evaluate by: {cause}" in capsys.readouterr().err
    assert run.config["no_labels_reason"] == cause
    with pytest.raises(ValueError, match=r"has no labels to evaluate by: the data has no labels: array labels is one"):
        evaluate("knn", run.path)


def test_the_range_of_numbers_is_kept_with_the_run(tmp_path, capsys):
    """CT scans: the run remembers the range that is given, for resuming and for its evaluations."""
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "scans" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        numbers = rng.integers(-1000, 1000, (12, 12)) + 900 * (number % 2)
        Image.fromarray(numbers.astype(np.int32)).save(folder / f"{number}.tif")
    data, options = str(tmp_path / "scans"), {"epochs": 1, "workers": 0}
    with pytest.raises(ValueError, match="--value-range 5: want LOW,HIGH"):
        go(tmp_path / "run", data, value_range="5", **options)
    assert not (tmp_path / "run").exists()
    run = go(tmp_path / "run", data, value_range="-1000,2000", max_megapixels=1, **options)
    assert run.config["value_range"] == "-1000,2000"
    assert (run.location.value_range, run.location.max_megapixels) == ("-1000,2000", 1)
    with pytest.raises(ValueError, match="value_range: -1000,2000 there, 0,1 asked for"):
        pretrain(out=run.path, resume=True, value_range="0,1", quiet=True)
    rows = evaluate("knn", run.path, k=(1,), no_baselines=True, workers=0)
    assert rows[0].top1 == evaluate("knn", run.path, data=data, k=(1,), no_baselines=True, workers=0)[0].top1
    features, _ = infomax.embed(run.path, data, value_range="-1000,2000", workers=0)
    assert torch.equal(infomax.embed(run.path, data, workers=0)[0], features)
    assert "--value-range -1000,2000 is taken, with which" in capsys.readouterr().err
    with pytest.raises(ValueError, match="value_range=-1000,1000: .* keeps the range of the images"):
        infomax.embed(run.path, data, value_range="-1000,1000", workers=0)


def test_one_image_alone_is_refused_in_plain_words(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (12, 12), (9, 90, 200)).save(tmp_path / "images" / "a.png")
    with pytest.raises(ValueError, match="is one image alone; training compares images with each other"):
        pretrain(data=str(tmp_path / "images"), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_quota_and_other_threads_are_said_and_kept(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(threads, "_own_quota", lambda: 0.5)
    monkeypatch.setattr(threads, "cores_to_run_on", lambda: 8)
    run = go(tmp_path / "run", toy, quiet=False, epochs=1)
    launch = run.config["launch"]
    assert (launch["cores"], launch["threads"]) == (0.5, 1)
    assert capsys.readouterr().err.count("a quota leaves 0.5 of 8 cores") == 1
    monkeypatch.setattr(threads, "_own_quota", lambda: 4.0)
    for thread_count, is_said in ((1, False), (2, True), (2, False)):
        torch.set_num_threads(thread_count)
        pretrain(out=run.path, resume=True, quiet=True)
        err = capsys.readouterr().err
        assert ("was trained by 1 thread(s) and goes on with 2" in err) == is_said
        assert "a quota leaves" not in err  # what is quiet says nothing of it
