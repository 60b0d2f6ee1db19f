"""Holds the settings and recipes of Spectral; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import Preprocessing, ViewSet, moco
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class SpectralSettings(MethodSettings):
    """A frozen dataclass that holds the settings of Spectral."""

    name = "spectral"

    hidden: int = 8192
    """Width of the projector's hidden layers."""
    hidden_layers: int = 2
    """Number of the projector's hidden layers."""
    dimension: int = 8192
    """Width of the projector's output."""
    mu: float = 10.0
    """Largest squared length of an embedding; a longer one is scaled down to it."""

    def build(self, encoder):
        from infomax.methods.spectral import Spectral

        return Spectral(encoder, **vars(self))


RECIPES = Experiments("spectral")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, searched-settings."""
    settings = SpectralSettings(hidden=256, hidden_layers=1, dimension=128, mu=2.0)
    return digits_recipe(settings, OptimizerSettings(name="adamw", learning_rate=0.006, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = SpectralSettings(hidden=512, hidden_layers=1, dimension=256, mu=1.0)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add("cifar10", 0.266, reported_in("corinfomax-1", "CIFAR-10"))
def cifar10() -> Recipe:
    """The official run, in CorInfoMax's Table 1, CIFAR-10. Paper: 92.07 % linear top-1. Cost: 0.266 EFLOP. Decisions:
    spectral-runs."""
    return _cifar()


@RECIPES.add("cifar100", 0.266, reported_in("corinfomax-1", "CIFAR-100"))
def cifar100() -> Recipe:
    """The official run, in CorInfoMax's Table 1, CIFAR-100. Paper: 66.18 % linear top-1. Cost: 0.266 EFLOP. Decisions:
    spectral-runs."""
    return _cifar()


@RECIPES.add("imagenet", 6.46, reported_in("corinfomax-1", "IN-1K"))
def imagenet() -> Recipe:
    """The official run of 100 epochs, in CorInfoMax's Table 1, ImageNet. Paper: 66.97 % linear top-1. Cost: 6.46 EFLOP.
    Decisions: spectral-runs."""
    sgd = OptimizerSettings(name="sgd", learning_rate=0.05 * 384 / 256, weight_decay=1e-4, decay_all=True)
    return imagenet_recipe(SpectralSettings(), sgd, ViewSet(global_crops=moco(224)), batch_size=384, epochs=100)


def _cifar() -> Recipe:
    """Returns the recipe of the official code for CIFAR: ResNet-18, 800 epochs of batches of 512."""
    view = replace(moco(32)[0], blur=0.0)
    return Recipe(
        method=SpectralSettings(hidden=2048, hidden_layers=1, dimension=1000, mu=1.0),
        encoder=EncoderSettings(backbone="resnet18", stem="cifar", zero_init_residual=False),
        views=ViewSet(global_crops=(view, view)),
        preprocessing=Preprocessing(resize=32, size=32),
        optimizer=OptimizerSettings(
            name="sgd", learning_rate=0.03 * 512 / 256, weight_decay=5e-4, decay_all=True, warmup_epochs=10
        ),
        batch_size=512,
        epochs=800,
    )


METHOD = MethodSpec(settings=SpectralSettings, recipes=RECIPES, default_for_large_images="imagenet")
