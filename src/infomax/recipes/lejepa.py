"""Holds the settings and recipes of LeJEPA; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import ViewSet, dino
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class LeJepaSettings(MethodSettings):
    """A frozen dataclass that holds the settings of LeJEPA."""

    name = "lejepa"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 512
    """Width of the projector's output."""
    weight: float = 0.05
    """Share of SIGReg in the loss; the distance of the views has the rest."""
    slices: int = 1024
    """Number of random directions of a step."""
    limit: float = 3.0
    """End of the integral over characteristic functions, from 0."""
    knots: int = 17
    """Number of points at which they are compared."""

    def build(self, encoder):
        from infomax.methods.lejepa import LeJepa

        return LeJepa(encoder, **vars(self))


RECIPES = Experiments("lejepa")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, searched-settings."""
    settings = LeJepaSettings(hidden=256, dimension=64, weight=0.025)
    return digits_recipe(settings, OptimizerSettings(name="adamw", learning_rate=0.006, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = LeJepaSettings(hidden=512, dimension=128)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add("imagenet", 10.9)
def imagenet() -> Recipe:
    """lightly's benchmark: ViT-S/16 with 2 global and 6 local crops for 100 epochs, which lightly gives 64 % in linear
    top-1. Cost: 10.9 EFLOP. Decisions: lejepa-imagenet."""
    global_crops, local_crops = dino(224, global_scale=(0.3, 1.0), local_scale=(0.05, 0.3))
    rate = 5e-4
    return replace(
        imagenet_recipe(
            LeJepaSettings(dimension=64),
            OptimizerSettings(
                name="adamw",
                learning_rate=rate,
                weight_decay=0.05,
                decay_all=True,
                warmup_epochs=1,
                warmup_start=rate / 100,
                end=rate / 1000,
            ),
            ViewSet(global_crops=tuple(replace(view, blur=0.5) for view in global_crops), local_crops=local_crops),
            batch_size=256,
            epochs=100,
        ),
        encoder=EncoderSettings(
            backbone="timm:vit_small_patch16_224", stem="imagenet", image_size=224, pooling="token"
        ),
    )


METHOD = MethodSpec(settings=LeJepaSettings, recipes=RECIPES, default_for_large_images="imagenet")
