"""Defaults of a training from initial weights: which settings they change, and what a line says of them."""

from dataclasses import replace

import pytest

from infomax.recipes.adapting import (
    adapting_epochs,
    describe_adapting,
    with_adapting_defaults,
)
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_experiment, get_recipe, methods_with_papers


@pytest.mark.parametrize("method", methods_with_papers())
def test_only_the_rate_and_the_frozen_stages_change(method):
    recipe = get_recipe(method, "small")
    adapted = with_adapting_defaults(recipe)
    wanted = (0.1, 2) if method == "carl" else (1.0, 0)
    assert (adapted.optimizer.backbone_rate, adapted.encoder.freeze) == wanted
    whole = replace(
        adapted, optimizer=replace(adapted.optimizer, backbone_rate=1.0), encoder=replace(adapted.encoder, freeze=0)
    )
    assert whole == recipe


def test_epochs_follow_from_the_number_of_images_unless_a_paper_says_them():
    small = get_experiment("small", "mira")
    assert adapting_epochs(small, 1000) == 100
    assert adapting_epochs(get_experiment("small", "carl"), 1000) == 20
    assert adapting_epochs(small, 1_000_000) == 1
    assert adapting_epochs(get_experiment("cifar10", "mira"), 1000) is None


def test_a_line_says_the_settings_and_their_options():
    recipe = customise(with_adapting_defaults(get_recipe("mira", "small")), freeze=2, epochs=30, backbone_rate=0.1)
    assert describe_adapting(recipe) == (
        "with --init, the encoder has 0.1 times the learning rate of the method's heads, 2 stages are frozen, and "
        "it is trained for 30 epochs; --backbone-rate, --freeze and --epochs change that"
    )
