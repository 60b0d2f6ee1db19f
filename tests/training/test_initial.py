"""Runs that start from given weights: what they take and keep, and what is refused before anything is written."""

from dataclasses import replace

import pytest
import torch
from tests.encoder_files import used, written
from tests.training.test_backbones import FAMILIES, last, options, prepared, toy

from command import run_command
from infomax.evaluation.run import evaluate
from infomax.experiments.options import SweepOptions
from infomax.experiments.sweep import define_sweep
from infomax.experiments.sweep_results import collect_results
from infomax.models.encoders import build_encoder, fingerprint, initial_encoder, load_encoder, untrained_encoder
from infomax.models.pretrained import open_encoder
from infomax.planning.plan import plan
from infomax.recipes.building import build_method
from infomax.recipes.registry import methods_with_papers
from infomax.runs.run_folder import Run
from infomax.runtime.options import pick
from infomax.training import loop
from infomax.training.initial import read_initial_weights
from infomax.training.prepare import prepare_run
from infomax.training.pretrain import pretrain
from interrupted_runs import LAUNCH, differing, train_until

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
__all__ = ["toy"]  # a fixture


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The name of an encoder of each family, with weights in a file."""
    folder, names = tmp_path_factory.mktemp("weights"), {}
    for family, name in FAMILIES.items():
        source = used(build_encoder(name, seed=7).backbone)
        names[family] = f"{name}@{written(folder / f'{family}.safetensors', source.state_dict())}"
    source = used(build_encoder("resnet18", stem="cifar", seed=7).backbone)
    names["file"] = written(folder / "file.pth", {"state_dict": source.state_dict()})
    return names


def weights_of(encoder) -> dict:
    return encoder.backbone.state_dict()


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("family", [*FAMILIES, "file"])
def test_a_run_starts_from_the_weights_with_their_architecture_and_preprocessing(toy, tmp_path, files, family, capsys):
    given = open_encoder(files[family])
    run = prepared(tmp_path / "run", toy, init=files[family], quiet=False)
    recipe, preprocessing = run.recipe, given.preprocessing
    assert equal(read_initial_weights(run), weights_of(given))
    assert recipe.encoder.init == files[family]
    assert recipe.encoder.init_fingerprint == fingerprint(given)
    assert recipe.encoder.backbone == given.settings.backbone
    assert (recipe.views.mean, recipe.views.std) == (preprocessing.mean, preprocessing.std)
    resize = round(preprocessing.resize * 32 / preprocessing.size)
    assert recipe.preprocessing == replace(preprocessing, size=32, resize=resize)
    assert f"starts from {files[family]} ({given.settings.backbone}, {fingerprint(given)})" in capsys.readouterr().err
    method = build_method(recipe, read_initial_weights(run))
    assert equal(weights_of(method.encoder), weights_of(given))
    assert equal(weights_of(method.eval_encoder), weights_of(given))  # the teacher, a copy


def test_without_a_size_views_have_that_of_the_weights_and_the_cost_is_said(toy, tmp_path, files, capsys):
    run = prepared(tmp_path / "run", toy, init=files["ResNet"], image_size=None, epochs=1, quiet=False)
    assert run.recipe.views.global_crops[0].size == run.recipe.preprocessing.size == 160
    lines = capsys.readouterr().err
    assert "views of 160 pixels, which is their size too; --image-size changes it" in lines
    assert "1 epochs at 160 pixels take about" in lines
    assert "--image-size 64 takes about" in lines


@pytest.mark.parametrize("method", methods_with_papers())
def test_training_changes_the_weights_and_keeps_the_initial_ones(toy, tmp_path, files, method):
    given = open_encoder(files["ViT"])
    run = prepared(tmp_path / "run", toy, method, init=files["ViT"], epochs=1, learning_rate=1e-4)
    loop.train(run, LAUNCH)
    assert equal(weights_of(initial_encoder(run.path)), weights_of(given))
    assert not equal(weights_of(load_encoder(run.path)), weights_of(given))
    assert not equal(weights_of(untrained_encoder(run.path)), weights_of(given))
    name = "patch_embed.proj.weight"  # near where it started, and not at other random weights
    encoders = (load_encoder(run.path), given, untrained_encoder(run.path))
    trained, started, random = (weights_of(encoder)[name] for encoder in encoders)
    assert (trained - started).abs().max() < 0.2 * (random - started).abs().max()


def test_a_run_goes_on_without_the_weights_that_it_was_given(toy, tmp_path):
    file = tmp_path / "given.safetensors"
    written(file, used(build_encoder("timm:test_convnext", seed=7).backbone).state_dict())
    init = f"timm:test_convnext@{file}"
    straight, run = (prepared(tmp_path / name, toy, "mveb", init=init) for name in "ab")
    file.unlink()
    loop.train(straight, LAUNCH)
    train_until(run, 1)
    pretrain(out=run.path, resume=True, quiet=True, device="cpu", workers=0, init=init)
    assert not differing(last(straight), last(run))
    with pytest.raises(ValueError, match=f"encoder.init: {init} there, other asked for"):
        pretrain(out=run.path, resume=True, quiet=True, init="other")


@pytest.mark.filterwarnings("ignore:.*few images")
def test_a_run_can_start_from_a_run(toy, tmp_path):
    first = pretrain(**vars(options(tmp_path / "first", toy, epochs=1)))
    second = prepared(tmp_path / "second", toy, init=str(first.path), image_size=None, method="carl")
    assert equal(read_initial_weights(second), weights_of(load_encoder(first)))
    assert second.recipe.encoder.architecture() == first.recipe.encoder.architecture()
    assert second.recipe.views.global_crops[0].size == 32
    assert second.recipe.preprocessing == first.recipe.preprocessing
    again = pretrain(**vars(options(first.path, toy, init=str(first.path), overwrite=True, epochs=1)))  # on itself
    assert not equal(read_initial_weights(again), weights_of(load_encoder(again)))


def test_pooling_may_differ_from_that_of_the_initial_weights(toy, tmp_path, files):
    run = prepared(tmp_path / "run", toy, init=files["ViT"], overrides=("encoder.pooling=avg",))
    assert run.recipe.encoder.pooling == "avg"
    loop.train(run, LAUNCH)
    images = torch.randn(2, 3, 32, 32)
    given, ours = open_encoder(files["ViT"]), initial_encoder(run.path)
    with torch.no_grad():
        assert torch.allclose(ours(images), given.backbone.forward_features(images)[:, 1:].mean(1), atol=1e-6)


def test_a_plan_is_of_the_initial_encoder(toy, files):
    planned = plan(data=toy, init=files["EfficientNet"], epochs=1, batch_size=8, gpu=["A100"], image_size=64)
    assert planned.recipe.encoder.backbone == "timm:test_efficientnet"


def test_runs_of_a_sweep_start_from_the_same_weights(toy, tmp_path, files):
    words = {"init": files["ResNet"], "data": toy, "image_size": 32, "epochs": 1, "batch_size": 8, "device": "cpu"}
    what = ("carl/small", "mveb/small")
    chosen = pick(SweepOptions, {"what": what, "out": tmp_path / "s", "evaluate": ("knn",), **words})
    defined = define_sweep(chosen)
    assert all(f"--init {files['ResNet']}" in line for line in defined.commands())
    for run in defined.runs:
        prepare_run(run.options).lock.release()
        assert Run(run.folder).recipe == run.specification.recipe
    assert len(define_sweep(chosen).runs) == 2  # what is in the folder is not of another sweep


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"backbone": "resnet50"}, "--backbone resnet50 contradicts --init .*, whose backbone is timm:test_resnet"),
        ({"overrides": ("encoder.backbone=small",)}, "encoder.backbone=small contradicts --init"),
        ({"overrides": ("encoder.stem_padding=2",)}, "encoder.stem_padding=2 contradicts --init"),
        ({"init": "runs/none"}, "runs/none is no encoder: no such folder or file"),
        ({"init": "timm:test_resnet@none.pth"}, "there is no file none.pth"),
    ],
)
def test_contradictions_and_missing_weights_are_refused(toy, tmp_path, files, changes, text):
    with pytest.raises(ValueError, match=text) as raised:
        prepared(tmp_path / "run", toy, **{"init": files["ResNet"], **changes})
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def half(file, content: bytes) -> None:
    file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (half, "breaks off"),
        (lambda file, _: file.write_text("version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer"),
        (lambda file, _: written(file, weights_of(build_encoder("timm:test_convnext", seed=0))), "no such encoder"),
        (
            lambda file, _: written(
                file, {k: v for k, v in weights_of(build_encoder("timm:test_resnet", seed=0)).items() if "bn1" not in k}
            ),
            "do not fit test_resnet: .* missing",
        ),
    ],
)
def test_damaged_files_are_one_line_and_exit_code_2(toy, tmp_path, monkeypatch, capsys, damage, text):
    file = tmp_path / "file.safetensors"
    written(file, weights_of(build_encoder("timm:test_resnet", seed=0)))
    damage(file, file.read_bytes())
    words = ["pretrain", "--data", toy, "--init", f"timm:test_resnet@{file}", "--out", str(tmp_path / "run")]
    code, _, printed = run_command(monkeypatch, capsys, *words)
    assert code == 2
    (line,) = [line for line in printed.splitlines() if "file.safetensors:" in line or f"{file} " in line]
    assert all(word in line for word in text.split(" .* "))
    assert str(file) in line
    assert not (tmp_path / "run").exists()


def test_a_run_that_lost_its_initial_weights_says_so(toy, tmp_path, files):
    run = prepared(tmp_path / "run", toy, init=files["ResNet"])
    (run.path / "initial.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*initial.safetensors"):
        loop.train(run, LAUNCH)


def test_every_score_stands_beside_that_of_the_initial_encoder(toy, tmp_path, files, capsys):
    run = pretrain(**vars(options(tmp_path / "run", toy, "carl", init=files["ResNet"], epochs=1, quiet=False)))
    rows = list(evaluate("knn", run, no_cache=True, quiet=True, workers=0))
    names = ["trained encoder", "initial encoder", "untrained encoder", "raw pixels"]
    assert [row.representation for row in rows] == names
    given = open_encoder(files["ResNet"])
    given.preprocessing = run.recipe.preprocessing
    assert rows[1].encoder == fingerprint(given)
    scores = next(row for row in reversed(run.read_rows("metrics.jsonl")) if "knn_top1" in row)
    assert scores["initial_knn_top1"] == pytest.approx(rows[1].top1)
    gains = run.read_rows("metrics.jsonl")[-1]
    assert gains["knn_over_initial"] == pytest.approx(scores["knn_top1"] - scores["initial_knn_top1"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "over the initial encoder" in line]
    assert line.startswith(f"infomax: k-NN {100 * scores['knn_top1']:.1f} % of {rows[0].test_images} test images: ")
    assert line.index("the initial encoder") < line.index("the untrained encoder") < line.index("the raw pixels")


def test_a_finished_run_without_its_initial_weights_is_finished_all_the_same(toy, tmp_path, files, capsys):
    run = prepared(tmp_path / "run", toy, "carl", init=files["ResNet"])
    train_until(run, 1)
    (run.path / "initial.safetensors").unlink()
    loop.train(run, LAUNCH)
    assert run.finished
    assert "not compared with its initial encoder: there is no file" in capsys.readouterr().err


def test_a_sweep_has_a_line_for_the_initial_encoder(toy, tmp_path, files):
    words = {"init": files["ResNet"], "data": toy, "image_size": 32, "epochs": 1, "batch_size": 8, "device": "cpu"}
    chosen = {"what": ("carl/small",), "out": tmp_path / "s", "evaluate": ("knn",), "seeds": 2, **words}
    defined = define_sweep(pick(SweepOptions, chosen))
    commands = [argv for run in defined.runs for argv in run.remaining if argv[0] == "evaluate"]
    assert ["--no-baselines" in argv for argv in commands] == [False, True]  # it is the same for all seeds
    run = prepare_run(defined.runs[0].options)
    run.lock.release()
    loop.train(run.run, LAUNCH)
    rows = list(evaluate("knn", run.run, no_cache=True, quiet=True, workers=0))
    result = collect_results(define_sweep(pick(SweepOptions, chosen)))
    assert (result.cells[0].line, result.cells[0].scores) == ("initial encoder", (100 * rows[1].top1,))
    assert result.cells[1].scores == (100 * rows[0].top1,)
    assert "initial encoder  " in result.table().text()
