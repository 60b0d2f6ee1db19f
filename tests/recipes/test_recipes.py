"""Tests recipes: the papers' settings, a round trip through JSON, and a user's changes."""

import json
from dataclasses import replace

import pytest

from infomax.recipes.cpu import IMAGES_SEEN
from infomax.recipes.customise import customise, customise_experiment
from infomax.recipes.registry import (
    METHODS,
    default_recipe_name,
    experiments,
    get_experiment,
    get_recipe,
    methods_with_papers,
    recipe_from_json,
)
from infomax.recipes.schema import Recipe, to_json
from infomax.runs.run_folder import changed_settings


@pytest.mark.parametrize("name", experiments())
def test_a_recipe_survives_json(name):
    recipe = experiments()[name].recipe()
    assert recipe_from_json(json.loads(json.dumps(to_json(recipe)))) == recipe


def test_mira_cifar10_is_the_papers():
    r = get_recipe("mira", "cifar10")
    m = r.method
    assert (m.hidden, m.dimension, m.prototypes, m.iterations) == (2048, 256, 3000, 30)
    assert (m.student_temperature, m.teacher_temperature, m.beta, m.beta_start) == (0.1, 0.225, 2 / 3, 0.7)
    assert (m.momentum, m.freeze_prototypes_epochs) == (0.99, 1)
    assert (r.optimizer.name, r.optimizer.learning_rate, r.optimizer.weight_decay) == ("sgd", 0.3, 1e-4)
    assert (r.optimizer.warmup_epochs, r.batch_size, r.epochs, r.optimizer.decay_all) == (10, 256, 1000, False)
    assert (r.encoder.backbone, r.encoder.stem, r.encoder.stem_padding) == ("resnet18", "cifar", 2)


def test_corinfomax_cifar10_is_the_papers():
    r = get_recipe("corinfomax", "cifar10")
    m = r.method
    assert (m.hidden, m.dimension, m.projector_norm) == (2048, 64, False)
    assert (m.attraction, m.forgetting, m.epsilon) == (250, 0.01, 1e-8)
    o = r.optimizer
    assert (o.learning_rate, o.warmup_epochs, o.warmup_start, o.end) == (0.5, 10, 0.003, 1e-6)
    assert (o.per_epoch, o.decay_all, r.batch_size, r.epochs) == (True, True, 512, 1000)
    assert (r.preprocessing.resize, r.preprocessing.size) == (36, 32)


def test_carl_cifar10_is_the_papers():
    r = get_recipe("carl", "cifar10")
    m = r.method
    assert (m.dimension, m.kl_start, m.kl_end, m.kl_epochs) == (128, 4.0, 1.5, 100)
    assert (r.optimizer.learning_rate, r.optimizer.warmup_epochs, r.batch_size, r.epochs) == (0.03, 0, 256, 200)
    stl = get_recipe("carl", "stl10").method
    assert (stl.kl_start, stl.kl_end) == (2.0, 1.0)


def test_mveb_imagenet_is_the_papers():
    r = get_recipe("mveb", "imagenet")
    m = r.method
    assert (m.hidden, m.dimension, m.entropy_weight, m.eta, m.momentum) == (2048, 2048, 0.01, 0.01, 0.996)
    assert (r.optimizer.name, r.optimizer.learning_rate, r.optimizer.weight_decay) == ("lars", 6.4, 1e-6)
    assert (r.batch_size, r.epochs, len(r.views.local_crops), r.views.local_crops[0].scale) == (
        4096,
        800,
        6,
        (0.05, 0.4),
    )


def test_mveb_batch_size_study_is_the_papers():
    r = get_recipe("mveb", "imagenet_batch_256")
    assert (r.method.hidden, r.method.dimension, r.method.momentum, r.method.entropy_weight) == (8192, 8192, None, 0.01)
    assert (r.optimizer.learning_rate, r.batch_size, r.epochs, r.views.global_crops[0].scale) == (
        0.05,
        256,
        100,
        (0.2, 1.0),
    )


@pytest.mark.parametrize(
    ("data", "side", "gpu", "name"),
    [("digits", 8, True, "digits"), ("x", 32, False, "small"), ("x", 500, False, "small"), ("x", 32, True, "cifar10")],
)
def test_default_recipe_suits_images_and_machine(data, side, gpu, name):
    assert default_recipe_name("mira", data=data, side=side, gpu=gpu) == name


def test_large_images_on_a_gpu_get_the_methods_large_recipe():
    names = [default_recipe_name(method, data="x", side=300, gpu=True) for method in methods_with_papers()]
    assert names == ["imagenet100", "imagenet100", "stl10", "imagenet_batch_256"]


def test_changes_of_every_kind():
    r = customise(
        get_recipe("mira", "cifar10"),
        backbone="small",
        epochs=50,
        learning_rate=0.7,
        image_size=64,
        overrides=[
            "method.momentum=none",
            "optimizer.decay_all=true",
            "views.global_crops.1.blur=0.25",
            "views.global_crops.0.scale=0.3,0.9",
            "optimizer.name=lars",
        ],
    )
    assert (r.encoder.backbone, r.epochs, r.optimizer.learning_rate, r.optimizer.name) == ("small", 50, 0.7, "lars")
    assert (r.method.momentum, r.optimizer.decay_all) == (None, True)
    assert (r.views.global_crops[1].blur, r.views.global_crops[0].scale, r.views.global_crops[0].blur) == (
        0.25,
        (0.3, 0.9),
        0.0,
    )
    assert ([view.size for view in r.views.global_crops], r.preprocessing.size, r.preprocessing.resize) == (
        [64, 64],
        64,
        64,
    )


def test_fewer_epochs_shorten_the_warm_up():
    assert customise(get_recipe("mira", "cifar10"), epochs=5).optimizer.warmup_epochs == 0
    assert customise(get_recipe("mira", "cifar10"), epochs=10).optimizer.warmup_epochs == 1
    assert customise(get_recipe("mira", "cifar10"), epochs=11).optimizer.warmup_epochs == 10


def test_changes_that_depend_on_each_other_come_in_any_order():
    for changes in (["epochs=5", "optimizer.warmup_epochs=2"], ["optimizer.warmup_epochs=2", "epochs=5"]):
        r = customise(get_recipe("mira", "cifar10"), overrides=changes)
        assert (r.epochs, r.optimizer.warmup_epochs) == (5, 2)


def test_views_keep_normalisation_and_shrink_in_proportion():
    r = customise(get_recipe("mira", "cifar10"), views="dino", image_size=56)
    assert len(r.views.local_crops) == 6
    assert (r.views.global_crops[0].size, r.views.local_crops[0].size) == (56, 24)
    assert r.views.mean == get_recipe("mira", "cifar10").views.mean


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet81"}, "--backbone .*resnet81.*did you mean resnet101"),
        ({"views": "dyno"}, "--views .*did you mean dino"),
        ({"precision": "8"}, "--precision must be one of 64, 32, bf16, 16"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 1}, "^--batch-size must be at least 2"),
        ({"learning_rate": -1.0}, "^--learning-rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning-rate must be a finite number, but is 'nan'"),
        ({"image_size": 2}, "--image-size must be at least 8"),
        ({"overrides": ["method.bta=1"]}, "method.bta.*did you mean beta"),
        ({"overrides": ["method.beta=x"]}, "method.beta must be a finite number, but is 'x'"),
        ({"overrides": ["epochs=1.5"]}, "epochs must be a whole number"),
        ({"overrides": ["method"]}, "want key=value"),
        ({"overrides": ["method=carl"]}, "method is a group; set one of method.hidden"),
        ({"overrides": ["views.global_crops=1"]}, "views.global_crops is a group"),
        ({"overrides": ["preprocessing.size=64"]}, "preprocessing.size must be from 1 to resize, 32"),
        ({"overrides": ["views.std=0,1,1"]}, "std must be above 0"),
        ({"overrides": ["views.global_crops.0.hue=0.7"]}, "nor hue above 0.5"),
        ({"epochs": -5}, "^--epochs must be at least 1, but is -5"),
        ({"overrides": ["optimizer.momentum=7"]}, "^--set optimizer.momentum must be in"),
        ({"overrides": ["views.global_crops.7.blur=1"]}, "must be one of 0, 1"),
        ({"overrides": ["views.global_crops.0.blur=2"]}, "blur must be a probability"),
        ({"overrides": ["views.global_crops.0.scale=1"]}, "2 values"),
        ({"overrides": ["optimizer.decay_all=maybe"]}, "true, false"),
        ({"overrides": ["epochs.x=1"]}, "below a single value"),
        ({"backbone": "vit_small"}, "encoder.stem must be imagenet for vit_small"),
        (
            {"backbone": "vit_small", "image_size": 40, "overrides": ["encoder.stem=imagenet"]},
            "multiples of 16 pixels, not 40",
        ),
    ],
)
def test_impossible_changes_are_refused_with_what_would_be_right(changes, message):
    with pytest.raises(ValueError, match=message):
        customise(get_recipe("mira", "cifar10"), **changes)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"--method .*did you mean mveb"):
        get_recipe("mved", "small")
    with pytest.raises(
        ValueError,
        match="no recipe .* for carl; infomax recipes carl lists them; did you mean cifar10",
    ):
        get_recipe("carl", "cifar11")


def test_a_name_may_say_the_method_or_not():
    assert get_experiment("carl/stl10").name == get_experiment("stl10").name == "carl/stl10"
    assert get_experiment("cifar10").name == "mveb/cifar10"
    assert get_experiment("cifar10", "mveb").name == get_experiment("mveb/cifar10", "mveb").name == "mveb/cifar10"
    with pytest.raises(ValueError, match="did you mean cifar100_attraction_125"):
        get_experiment("cifar100_atraction_125")
    with pytest.raises(ValueError, match="the method of the recipe mirra/small must be one of .*did you mean mira"):
        get_experiment("mirra/small")
    with pytest.raises(ValueError, match="--recipe mira/small is not of --method carl"):
        get_experiment("mira/small", "carl")


def test_a_setting_of_all_views_is_set_by_one_key():
    recipe = customise(get_recipe("mira", "small"), views="dino:2+3")
    changes = ["views.rotate90=true", "views.noise_std=0.1,0.2", "views.local_crops.1.rotate90=false"]
    views = customise(recipe, overrides=changes).views
    assert [view.rotate90 for view in (*views.global_crops, *views.local_crops)] == [1.0, 1.0, 1.0, 0.0, 1.0]
    assert {view.noise_std for view in (*views.global_crops, *views.local_crops)} == {(0.1, 0.2)}
    for change, message in (
        ("views.rotate90=2", "--set views.rotate90 must be a probability in"),
        ("views.rotate90=often", "--set views.rotate90 must be a finite number, but is 'often'"),
        ("views.size=64", "--set views.size: the setting must be one of global_crops.*rotate90"),
        ("views.noise_std=0.1", "--set views.noise_std must be 2 values"),
        ("views.mean=true,0,0", "--set views.mean"),
    ):
        with pytest.raises(ValueError, match=message):
            customise(recipe, overrides=[change])


def test_any_number_of_global_and_local_crops_is_possible():
    views = customise(get_recipe("carl", "small"), views="byol:3+2", image_size=56).views
    assert [view.solarize for view in views.global_crops] == [0.0, 0.2, 0.0]
    assert [view.size for view in views.local_crops] == [24, 24]
    assert len(customise(get_recipe("corinfomax", "small"), views="dino:2+0").views.local_crops) == 0
    recipe = customise(get_recipe("mira", "small"), views="dino-wide:4+8")
    assert recipe_from_json(json.loads(json.dumps(to_json(recipe)))) == recipe
    assert len(customise(recipe, image_size=64).views.global_crops) == 4


@pytest.mark.parametrize("views", ["byol:1+2", "byol:2", "byol:a+b", "byol:2+-1", "bol:2+2"])
def test_impossible_numbers_of_views_are_refused(views):
    with pytest.raises(ValueError, match="--views"):
        customise(get_recipe("mira", "small"), views=views)


def test_global_crops_have_one_size():
    with pytest.raises(ValueError, match=r"views.global_crops must be of one size, but is \[32, 16\]"):
        customise(get_recipe("mira", "small"), overrides=["views.global_crops.1.size=16"])


def test_a_recipe_of_another_version_is_refused():
    plain = to_json(get_recipe("mira", "small"))
    plain["method"]["magic"] = 3
    with pytest.raises(ValueError, match="method.magic is no key that this version knows"):
        recipe_from_json(plain)
    plain["method"] = {"name": "nova"}
    with pytest.raises(ValueError, match="nova"):
        recipe_from_json(plain)


def test_warm_up_must_end_before_the_run():
    recipe = get_recipe("mira", "small")
    with pytest.raises(ValueError, match="warmup_epochs must be below epochs"):
        replace(recipe, optimizer=replace(recipe.optimizer, warmup_epochs=recipe.epochs))
    assert isinstance(recipe, Recipe)


@pytest.mark.parametrize("method", METHODS)
def test_our_own_recipe_for_photographs_sees_a_number_of_images(method):
    """713 images of which each is seen 20 times would be 40 steps. More than two crops of an image are so many more
    views, and fewer images are seen."""
    experiment = get_experiment("small", method)
    seen = IMAGES_SEEN * 2 // len(experiment.recipe().views.global_crops)
    assert experiment.images_seen == seen
    for images, epochs in ((713, round(seen / 713)), (50_000, seen // 50_000), (2_000_000, 1)):
        assert experiment.recipe(images=images).epochs == epochs
        assert customise_experiment(experiment, images=images).epochs == epochs
    assert experiment.recipe().epochs == seen // 50_000
    for changes in ({"epochs": 7}, {"overrides": ("epochs=7",)}, {"epochs": 7, "overrides": ("seed=1",)}):
        recipe = customise_experiment(experiment, images=713, **changes)
        assert recipe.epochs == 7
        assert changed_settings(recipe)[0] == "epochs=7"
        assert getattr(recipe.method, "kl_epochs", 3) == 3  # which follow the epochs
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        customise_experiment(experiment, images=713, epochs=0)
    papers = get_experiment("carl/cifar10")
    assert customise_experiment(papers, images=713).epochs == papers.recipe().epochs == 200
