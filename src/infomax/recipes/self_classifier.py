"""Holds the settings and recipes of Self-Classifier, as :class:`Experiment` lists them."""

from dataclasses import dataclass

from infomax.data.augmentation.views import ViewSet, dino
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import MethodSettings, OptimizerSettings, Recipe

ROW = "Self-Classifier"


@dataclass(frozen=True, kw_only=True)
class SelfClassifierSettings(MethodSettings):
    """A frozen dataclass that holds the settings of Self-Classifier."""

    name = "self_classifier"

    hidden: int = 4096
    """Width of the projector's hidden layer."""
    dimension: int = 128
    """Width of the projector's output."""
    classes: tuple[int, ...] = (1000, 2000, 4000, 8000)
    """Number of classes of each classifier."""
    row_temperature: float = 0.1
    """Temperature of the softmax over classes."""
    column_temperature: float = 0.05
    """Temperature of the softmax over the batch."""
    queue_size: int = 0
    """Number of embeddings of earlier images that the nearest neighbour of the first view is taken from; 0 for none."""

    def build(self, encoder):
        from infomax.methods.self_classifier import SelfClassifier

        return SelfClassifier(encoder, **vars(self))


RECIPES = Experiments("self_classifier")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes."""
    settings = SelfClassifierSettings(hidden=256, dimension=64, classes=(30, 60, 120))
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = SelfClassifierSettings(hidden=512, dimension=128, classes=(50, 100, 200))
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add("imagenet", 77.6, reported_in("mira-2", row=ROW), reported_in("mveb-1", row=ROW))
def imagenet_multicrop_800() -> Recipe:
    """The official settings for 800 epochs, in MIRA's Table 2 and MVEB's Table 1. Paper: 74.1 % linear top-1. Cost:
    77.6 EFLOP. Decisions: self-classifier-neighbours, self-classifier-batch."""
    larc = OptimizerSettings(
        name="larc",
        learning_rate=3.2,
        end=0.0032,
        weight_decay=1e-6,
        decay_all=True,
        warmup_epochs=10,
        warmup_start=0.2,
    )
    crops = dino(224, global_scale=(0.4, 1.0), local_scale=(0.05, 0.4))
    views = ViewSet(global_crops=crops[0], local_crops=crops[1])
    return imagenet_recipe(SelfClassifierSettings(queue_size=262_144), larc, views, batch_size=4096, epochs=800)


METHOD = MethodSpec(settings=SelfClassifierSettings, recipes=RECIPES, default_for_large_images="imagenet_multicrop_800")
