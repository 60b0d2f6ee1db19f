"""Frozen stages and rates of the encoder: in the engine, on ranks, in checkpoints, in plans and from the command."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from infomax.data.images.arrays import ArrayImages
from infomax.data.loading.training import training_batches
from infomax.nn.optimizers import set_learning_rate
from infomax.planning.step_cost import count_step_cost
from infomax.recipes.building import build_method, build_optimizer, describe_trained
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.recipes.schema import OptimizerSettings, Recipe
from infomax.runtime.collectives import rank, world_size
from infomax.training.engine import Engine
from infomax.training.loop import train_step
from infomax.training.pretrain import pretrain
from ranks import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* gives a poor covariance")
LENGTH, STEPS = 24, 3
SIZES = {
    "mira": ("method.hidden=16", "method.prototypes=10", "method.momentum=0.9"),
    "corinfomax": ("method.hidden=16", "method.dimension=4"),
    "carl": ("method.hidden=16", "method.prototypes=10"),
    "mveb": ("method.hidden=16", "method.dimension=8", "method.momentum=0.9"),
}
FROZEN = ("backbone.0.", "backbone.1.", "backbone.3.")  # the stem and the first block of the small encoder


def recipe(method: str, *overrides: str, **changes) -> Recipe:
    defaults = {"image_size": 8, "batch_size": 12, "epochs": 2, "precision": "64"}
    return customise(get_recipe(method, "small"), **{**defaults, **changes, "overrides": [*SIZES[method], *overrides]})


def trained(plan: Recipe, *, stop: int = STEPS, start: dict | None = None) -> Engine:
    engine = Engine(plan, steps_per_epoch=LENGTH // plan.batch_size, device=torch.device("cpu"))
    set_statistics(engine.method)
    if start is not None:
        engine.load(start)
    pixels = np.random.default_rng(0).integers(0, 256, (LENGTH, 10, 10, 3)).astype(np.uint8)
    images = ArrayImages(pixels, None, [])
    sizes = {"batch_size": plan.batch_size, "micro_batch_size": plan.micro_batch_size}
    for step in range(engine.steps_done, stop):
        shares = {"rank": rank(), "world_size": world_size(), "steps": range(step, step + 1)}
        train_step(engine, list(training_batches(images, plan.views, seed=plan.seed, **sizes, **shares)))
    return engine


def set_statistics(method: torch.nn.Module) -> None:
    """Sets the statistics of frozen BatchNorm layers to numbers whose mean over microbatches would be rounded."""
    for name, buffer in method.named_buffers():
        if is_frozen(name) and buffer.is_floating_point():
            numbers = torch.rand(len(buffer), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            buffer.copy_(0.5 + numbers)


def is_frozen(name: str) -> bool:
    return any(f"{part}{prefix}" in name for part in ("encoder.", "module.0.") for prefix in FROZEN)


def check_frozen(engine: Engine) -> None:
    """Checks that what is frozen has its initial bits, in the teacher too, and that all else has moved."""
    initial = build_method(engine.recipe)
    set_statistics(initial)
    before, after = initial.state_dict(), engine.method.state_dict()
    names = [name for name in after if is_frozen(name)]
    assert len(names) == 18 * (1 + ("teacher.module.0.backbone.0.weight" in after))
    assert [name for name in names if not torch.equal(after[name], before[name])] == []
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert "encoder.backbone.4.conv1.weight" in moved
    assert "encoder.backbone.4.norm1.running_mean" in moved
    teacher = [name for name in names if name.startswith("teacher.module.0.")]
    assert all(torch.equal(after[name], after[name.replace("teacher.module.0.", "encoder.")]) for name in teacher)
    frozen = [p for name, p in engine.method.named_parameters() if is_frozen(name)]
    assert all(p.grad is None and p not in engine.optimizer.state for p in frozen)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
@pytest.mark.parametrize("method", SIZES)
def test_frozen_stages_keep_every_bit(method, micro_batch_size):
    """In microbatches too, where the mean of six equal statistics would be rounded."""
    decaying = ("optimizer.weight_decay=0.1", "optimizer.decay_all=true")
    plan = recipe(method, *decaying, freeze=2, micro_batch_size=micro_batch_size)
    check_frozen(trained(plan))


@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_frozen_stages_keep_every_bit_in_each_precision(precision):
    """The first steps under float16 are left out, until the loss is scaled little enough."""
    plan = recipe("mira", "optimizer.clip_norm=0.1", freeze=2, precision=precision, epochs=5)
    check_frozen(trained(plan, stop=10))


def check_on_rank(micro_batch_size: int | None) -> dict[str, list[float]]:
    plan = recipe("mira", "optimizer.layer_decay=0.5", freeze=2, micro_batch_size=micro_batch_size)
    engine = trained(plan)
    check_frozen(engine)
    return {name: x.double().flatten().tolist() for name, x in engine.method.state_dict().items()}


@pytest.mark.process
@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_two_ranks_are_as_one_and_keep_every_frozen_bit(micro_batch_size):
    if micro_batch_size:
        on_ranks(3, check_on_rank, micro_batch_size)
        return
    alone, *ranks = (check_on_rank(None), *on_ranks(2, check_on_rank, None))
    for state in ranks:
        assert all(state[name] == pytest.approx(alone[name], rel=1e-7, abs=1e-9) for name in alone)


@pytest.mark.parametrize("method", SIZES)
def test_with_all_stages_frozen_the_heads_are_trained(method):
    engine = trained(recipe(method, freeze=4))
    initial = build_method(engine.recipe)
    set_statistics(initial)
    before, after = initial.state_dict(), engine.method.state_dict()
    changed = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert "encoder" not in changed
    assert "projector" in changed


@pytest.mark.parametrize("name", ["sgd", "lars", "adam", "adamw"])
def test_each_parameter_is_stepped_at_its_own_rate(name):
    """Each group steps as an optimiser of its own would, whose whole rate is that of the group."""
    rates = {"backbone_rate": 0.1, "layer_decay": 0.5}
    settings = OptimizerSettings(name=name, learning_rate=0.2, weight_decay=0.01, **rates)
    method = build_method(recipe("carl", precision="32"))
    alone = copy.deepcopy(method)
    together, before = build_optimizer(method, settings), copy.deepcopy(method.state_dict())
    expected = {"encoder.backbone.0.weight": 0.1 / 16, "encoder.backbone.5.norm2.bias": 0.05, "assigner.weight": 1.0}
    single = {}
    for key, factor in expected.items():
        layer = torch.nn.Module()
        layer.weight = dict(alone.named_parameters())[key]
        whole = OptimizerSettings(name=name, learning_rate=0.2 * factor, weight_decay=0.01)
        single[key] = build_optimizer(layer, whole)
    set_learning_rate(together, 0.2)
    for _ in range(3):
        for own, other in zip(method.parameters(), alone.parameters(), strict=True):
            own.grad = torch.randn_like(own)
            other.grad = own.grad.clone()
        together.step()
        for optimizer in single.values():
            optimizer.step()
    for key in expected:
        torch.testing.assert_close(dict(method.named_parameters())[key], dict(alone.named_parameters())[key])
        assert not torch.equal(dict(method.named_parameters())[key], before[key])


def test_the_schedule_multiplies_all_rates():
    engine = trained(recipe("carl", "optimizer.layer_decay=0.5", backbone_rate=0.1), stop=2)
    factors = sorted({group["rate_factor"] for group in engine.optimizer.param_groups})
    assert factors == pytest.approx([0.1 * 0.5**4, 0.1 * 0.5**3, 0.1 * 0.5**2, 0.1 * 0.5, 1])
    for group in engine.optimizer.param_groups:
        assert group["lr"] == engine.learning_rate * group["rate_factor"]
    assert 0 < engine.learning_rate < engine.recipe.optimizer.learning_rate


def test_without_factors_the_groups_are_as_they_were():
    groups = trained(recipe("carl"), stop=1).optimizer.param_groups
    assert len(groups) == 2
    assert all("rate_factor" not in group for group in groups)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_a_resumed_run_has_the_same_bits(name):
    plan = recipe("mveb", f"optimizer.name={name}", "optimizer.layer_decay=0.7", freeze=1, backbone_rate=0.3)
    whole = trained(plan).state()["method"]
    resumed = trained(plan, start=copy.deepcopy(trained(plan, stop=1).state())).state()["method"]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_plan_counts_what_freezing_saves():
    costs = [count_step_cost(recipe("mira", freeze=count, precision="32", image_size=32)) for count in range(5)]
    assert len({(cost.online_flops, cost.target_flops) for cost in costs}) == 1
    for whole, frozen in zip(costs[1:], costs, strict=False):
        assert whole.backward_flops < frozen.backward_flops
        assert whole.memory.activations < frozen.memory.activations
        assert whole.memory.gradients < frozen.memory.gradients
        assert whole.memory.optimizer < frozen.memory.optimizer
    slower = recipe("mira", "optimizer.layer_decay=0.5", backbone_rate=0.1, precision="32", image_size=32)
    assert count_step_cost(slower) == costs[0]


def test_what_is_trained_is_one_line():
    assert describe_trained(recipe("carl")) is None
    assert describe_trained(recipe("carl", freeze=1)).endswith("encoder: stage stem is frozen with random weights")
    plan = recipe("carl", freeze=2, backbone_rate=0.1)
    assert describe_trained(replace(plan, encoder=replace(plan.encoder, init="runs/a"))) == (
        "trains 0.287 of 0.307 million weights of the encoder: stages stem to block1 are frozen, rates are 0.1 times"
    )
    assert describe_trained(recipe("carl", "optimizer.layer_decay=0.75")).endswith(
        "encoder: rates are 0.75 times those of the next stage"
    )
    assert describe_trained(recipe("carl", freeze=4)).startswith("trains none of the 0.307 million weights")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("encoder.freeze=-1", "encoder.freeze must be at least 0"),
        ("optimizer.backbone_rate=0", "backbone_rate must be above 0"),
        ("optimizer.layer_decay=0", r"layer_decay must be in \(0, 1\]"),
        ("optimizer.layer_decay=1.5", r"layer_decay must be in \(0, 1\]"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        recipe("carl", setting)


TINY = {"data": "digits", "method": "carl", "epochs": 1, "quiet": True}


def test_a_stage_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"^small has 4 stages: stem, block1, block2, block3; --freeze takes 0 to 4"):
        pretrain(**TINY, freeze=5, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_says_what_it_trains_and_resumes_with_the_same_stages_alone(tmp_path, capsys):
    run = pretrain(**{**TINY, "quiet": False}, freeze=2, backbone_rate=0.5, out=tmp_path / "run")
    assert "stages stem to block1 are frozen with random weights, rates are 0.5 times" in capsys.readouterr().err
    settings = run.config["recipe"]
    assert (settings["encoder"]["freeze"], settings["optimizer"]["backbone_rate"]) == (2, 0.5)
    assert "freeze" not in (run.path / "encoder.json").read_text()
    pretrain(**TINY, freeze=2, out=tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="was started otherwise: encoder.freeze"):
        pretrain(**TINY, freeze=1, out=tmp_path / "run", resume=True)


def test_a_run_from_weights_keeps_them_in_frozen_stages_and_says_its_defaults(tmp_path, capsys):
    first = pretrain(**TINY, out=tmp_path / "first")
    options = {"data": "digits", "method": "mira", "init": first.path, "freeze": 2, "epochs": 1, "backbone_rate": 0.1}
    run = pretrain(**options, out=tmp_path / "second")
    settings = run.config["recipe"]
    assert settings["optimizer"]["backbone_rate"] == 0.1
    printed = capsys.readouterr().err
    assert "stages stem to block1 are frozen, rates are 0.1 times" in printed
    assert "2 stages are frozen, and it is trained for 1 epoch; --backbone-rate" in printed
    before, after = (safetensors.torch.load_file(x.path / "encoder.safetensors") for x in (first, run))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith(("0.", "1.", "3."))}
