"""The contract of backbones of other libraries, of four families: they train, resume, and share a batch as ours do."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from infomax.models.encoders import build_encoder, initial_encoder, load_encoder
from infomax.nn.batch_norm import GlobalBatchNormAct, synchronise_batch_norm
from infomax.planning.plan import plan
from infomax.planning.step_cost import count_step_cost
from infomax.recipes.registry import methods_with_papers
from infomax.runs.run_folder import Run
from infomax.runtime import checkpoints
from infomax.runtime.options import pick
from infomax.training import loop
from infomax.training.options import PretrainOptions
from infomax.training.prepare import prepare_run
from infomax.training.pretrain import pretrain
from infomax.training.replay import replay
from interrupted_runs import LAUNCH, differing, train_until
from ranks import on_ranks
from toy_data import TOY, write_toy

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
FAMILIES = {
    "ResNet": "timm:test_resnet",
    "ConvNeXt": "timm:test_convnext",
    "ViT": "timm:test_vit",
    "EfficientNet": "timm:test_efficientnet",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """16 labelled images of 36 pixels for training, 6 for testing."""
    return write_toy(tmp_path_factory.mktemp("toy"), train=16, test=6, side=36)


def options(out, data, method="mira", **changes) -> PretrainOptions:
    settings = {"image_size": 32, "epochs": 2, "batch_size": 8, "device": "cpu", "workers": 0, "quiet": True}
    overrides = (*TOY[method], *changes.pop("overrides", ()))
    return pick(
        PretrainOptions, {"data": data, "method": method, "out": out, "overrides": overrides, **settings} | changes
    )


def prepared(*args, **changes) -> Run:
    prepared_run = prepare_run(options(*args, **changes))
    prepared_run.lock.release()
    return prepared_run.run


def last(run: Run) -> dict:
    return checkpoints.load(checkpoints.newest_readable(run.path / "checkpoints"))


PAIRS = tuple(zip(FAMILIES, methods_with_papers(), strict=True))
"""Each family once, and each method once."""


@pytest.mark.parametrize(
    ("family", "method"),
    [
        pytest.param(family, method, marks=() if (family, method) in PAIRS else pytest.mark.slow)
        for family in FAMILIES
        for method in methods_with_papers()
    ],
)
def test_each_method_trains_each_family(toy, tmp_path, family, method):
    run = prepared(tmp_path / "run", toy, method, backbone=FAMILIES[family], epochs=1)
    loop.train(run, LAUNCH)
    encoder = load_encoder(run.path)
    before = build_encoder(**asdict(encoder.settings))
    moved = [n for n, p in encoder.named_parameters() if not torch.equal(p, before.get_parameter(n))]
    assert len(moved) > 0.5 * len(list(encoder.parameters()))
    assert initial_encoder(run.path) is None
    assert encoder.settings.image_size == (32 if family == "ViT" else None)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_run_ends_with_the_same_bits(toy, tmp_path, family):
    straight, run = (prepared(tmp_path / name, toy, "mveb", backbone=FAMILIES[family]) for name in "ab")
    loop.train(straight, LAUNCH)
    train_until(run, 3)
    assert last(run)["step"] == 3
    loop.train(run, LAUNCH)
    assert last(run)["step"] == 4
    assert not differing(last(straight), last(run))


@pytest.mark.process
@pytest.mark.parametrize(
    ("family", "micro_batch_size"), [*((family, None) for family in FAMILIES), ("EfficientNet", 4)]
)
def test_two_ranks_compute_what_one_does(toy, tmp_path, family, micro_batch_size):
    changes = {"backbone": FAMILIES[family], "precision": "64", "micro_batch_size": micro_batch_size}
    alone, together = (prepared(tmp_path / name, toy, "mira", **changes) for name in "ab")
    loop.train(alone, LAUNCH)
    on_ranks(2, train_until, together)
    for name, tensor in last(alone)["method"].items():
        torch.testing.assert_close(last(together)["method"][name], tensor, rtol=1e-6, atol=1e-8, msg=name)


def test_batch_norm_that_holds_an_activation_keeps_it_on_several_ranks():
    encoder = build_encoder("timm:test_efficientnet", seed=0).double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    expected = encoder(images)
    again = synchronise_batch_norm(build_encoder("timm:test_efficientnet", seed=0).double(), torch.device("cpu"))
    assert any(isinstance(layer, GlobalBatchNormAct) for layer in again.modules())
    torch.testing.assert_close(again(images), expected)


def test_batch_norm_of_an_unknown_kind_is_refused_on_several_ranks():
    class Shifted(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) + 1

    with pytest.raises(ValueError, match="layers of the class Shifted cannot take the batch of several devices"):
        synchronise_batch_norm(nn.Sequential(Shifted(3)), torch.device("cpu"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_counts_what_a_pass_of_the_network_computes(toy, tmp_path, family):
    recipe = prepared(tmp_path / "run", toy, "carl", backbone=FAMILIES[family]).recipe
    cost = count_step_cost(recipe)
    encoder = build_encoder(**recipe.encoder.architecture(), seed=0).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.zeros(1, 3, 32, 32))
    assert cost.encoder_flops == counter.get_total_flops() > 0
    weights = sum(p.nbytes for p in encoder.parameters())
    assert cost.memory.gradients >= weights
    assert cost.memory.peak > 2 * weights
    assert cost.flops > 3 * 2 * cost.images * cost.encoder_flops * 0.8  # forward and backward of two views


def test_a_plan_of_another_librarys_backbone(toy):
    planned = plan(data=toy, backbone="timm:test_vit", image_size=32, epochs=1, batch_size=8, gpu=["A100"])
    assert planned.gpus[0].fits
    assert planned.recipe.encoder.image_size == 32


@pytest.mark.parametrize("family", ["ViT", "EfficientNet"])
def test_a_failed_step_is_replayed(toy, tmp_path, family, monkeypatch):
    run = prepared(tmp_path / "run", toy, "carl", backbone=FAMILIES[family])
    train_step, broken = loop.train_step, []

    def break_a_weight(engine, microbatches, **owned):
        if engine.steps_done == 1:
            name, weight = next(iter(engine.method.encoder.named_parameters()))
            broken.append(name)
            weight.data.fill_(torch.nan)
        return train_step(engine, microbatches, **owned)

    monkeypatch.setattr(loop, "train_step", break_a_weight)
    with pytest.raises(FloatingPointError, match="step 2"):
        loop.train(run, LAUNCH)
    result = replay(run.path / "nonfinite" / "step-00000002")
    assert f"encoder.{broken[0]}" in result.parameters


def test_a_recipe_names_size_and_pooling_of_a_transformer(toy, tmp_path):
    run = prepared(tmp_path / "a", toy, backbone="timm:test_vit", overrides=("encoder.pooling=avg",))
    assert (run.recipe.encoder.image_size, run.recipe.encoder.pooling) == (32, "avg")
    assert "encoder.image_size=32" in run.config["changes"]
    run = prepared(tmp_path / "b", toy, backbone="timm:test_vit", views="dino:2+2", image_size=112)
    assert run.recipe.views.local_crops[0].size == 48
    loop.train(run, LAUNCH)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"backbone": "timm:resnet5O"}, "no timm model resnet5O; did you mean resnet50"),
        ({"backbone": "test_vit"}, "--backbone must be one of small, .*timm:test_vit"),
        ({"backbone": "timm:test_vit", "image_size": 24}, "timm:test_vit takes no image of 24 pixels"),
        ({"backbone": "timm:inception_v3"}, "inception_v3 takes no images of 32 pixels"),
        ({"backbone": "torchvision:inception_v3", "image_size": 299}, "gives no vector for an image in training"),
        ({"backbone": "timm:test_resnet", "overrides": ("encoder.image_size=32",)}, "image_size must be none"),
        ({"backbone": "timm:test_resnet", "overrides": ("encoder.stem=cifar",)}, "encoder.stem must be imagenet"),
        ({"overrides": ("encoder.init=runs/a",)}, "--init NAME says which weights"),
    ],
)
def test_what_a_backbone_cannot_do_is_refused_before_anything_is_written(toy, tmp_path, changes, text):
    with pytest.raises(ValueError, match=text) as raised:
        prepared(tmp_path / "run", toy, **changes)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_model_of_transformers_trains_from_its_configuration(toy, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    config.save_pretrained(tmp_path / "model")
    run = pretrain(**vars(options(tmp_path / "run", toy, backbone=f"hf:{tmp_path / 'model'}", epochs=1)))
    (tmp_path / "model" / "config.json").unlink()
    assert json.loads(run.recipe.encoder.architecture_config)["model_type"] == "dinov2"
    assert load_encoder(run)(torch.zeros(1, 3, 32, 32)).shape == (1, 16)
