"""Networks are timed by a pass of few images, and bfloat16 is proposed where it is measured to be faster."""

from dataclasses import replace

import pytest
import torch

import infomax
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.training import network_time, prepare
from infomax.training.network_time import describe_bfloat16, estimate_seconds


def test_the_time_of_a_run_grows_with_it_and_changes_no_random_numbers():
    state = torch.random.get_rng_state()
    short, long = (estimate_seconds(customise(get_recipe("carl", "small"), epochs=n), 600) for n in (1, 1000))
    assert 0 < 20 * short < long
    assert torch.equal(state, torch.random.get_rng_state())


def test_other_networks_are_timed_too_unless_they_are_large(monkeypatch):
    recipe = customise(get_recipe("carl", "small"), backbone="resnet18", image_size=16, epochs=1)
    assert estimate_seconds(recipe, 600) > 0
    assert estimate_seconds(replace(recipe, precision="64"), 600) is None
    monkeypatch.setattr(network_time, "MOST_PARAMETERS", 11_000_000)
    assert estimate_seconds(recipe, 600) is None
    assert estimate_seconds(customise(recipe, backbone="small"), 600) > 0


@pytest.mark.parametrize(
    ("instructions", "seconds", "line"),
    [
        (
            True,
            {"32": 150.0, "bf16": 100.0},
            "--precision bf16 makes the networks about 1.5 times faster here",
        ),
        (True, {"32": 110.0, "bf16": 100.0}, None),
        (True, {"32": 30.0, "bf16": 10.0}, None),
        (True, {"32": None, "bf16": None}, None),
        (False, {"32": 150.0, "bf16": 100.0}, None),
    ],
    ids=["faster", "not clearly", "short run", "large network", "no instructions"],
)
def test_bfloat16_is_proposed_where_a_long_run_gains(monkeypatch, instructions, seconds, line):
    monkeypatch.setattr(network_time, "has_bfloat16", lambda: instructions)
    monkeypatch.setattr(network_time, "estimate_seconds", lambda recipe, images: seconds[recipe.precision])
    recipe = get_recipe("carl", "small")
    said = describe_bfloat16(recipe, 600)
    assert said == line or said.startswith(line)
    assert describe_bfloat16(customise(recipe, epochs=1), 600) is None  # nothing is timed for so few images
    assert describe_bfloat16(recipe, 600, 59.0) is None  # a time that is known is taken


@pytest.mark.parametrize("precision", [None, "32"], ids=["the recipe's", "chosen"])
def test_a_run_says_so_unless_the_precision_was_chosen(precision, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "describe_bfloat16", lambda recipe, images, seconds: f"{recipe.method.name} is faster")
    infomax.pretrain(
        data="digits", method="carl", quiet=False, epochs=1, precision=precision, out=tmp_path / "run", device="cpu"
    )
    assert ("infomax: carl is faster\n" in capsys.readouterr().err) == (precision is None)


def test_networks_are_timed_in_the_precision_of_the_recipe():
    recipe = replace(customise(get_recipe("mveb", "small"), epochs=1), precision="bf16")
    kinds = set()

    def note_kind(module, inputs, output):
        kinds.add(output.dtype)

    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda m, i, o: note_kind(m, i, o) if isinstance(m, torch.nn.Conv2d) else None
    )
    try:
        assert estimate_seconds(recipe, 600) > 0
        assert kinds == {torch.bfloat16}
        assert estimate_seconds(replace(recipe, precision="32"), 600) > 0
        assert kinds == {torch.bfloat16, torch.float32}
    finally:
        handle.remove()
