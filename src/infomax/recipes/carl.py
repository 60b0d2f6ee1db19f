"""CARL's settings and recipes."""

from dataclasses import dataclass

from infomax.data.views import CIFAR10_MEAN, CIFAR10_STD, Preprocessing, ViewSet, simclr
from infomax.recipes.cpu import digits_recipe, small_recipe
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class CarlSettings(MethodSettings):
    name = "carl"

    hidden: int = 512
    """Width of the projector's hidden layer."""
    dimension: int = 128
    """Width of the projector's output."""
    prototypes: int = 100
    """Number of clusters."""
    kl_start: float = 4.0
    """Weight of the uniformity loss at the start."""
    kl_end: float = 1.5
    """The same from ``kl_epochs`` on."""
    kl_epochs: int = 100
    """Epochs over which the weight falls."""

    def build(self, encoder):
        from infomax.methods.carl import Carl

        return Carl(encoder, **vars(self))


_OPTIMIZER = OptimizerSettings(name="sgd", learning_rate=0.03, weight_decay=1e-4, decay_all=True)


def digits() -> Recipe:
    """Ours, for the demo."""
    settings = CarlSettings(hidden=256, dimension=64, prototypes=50, kl_epochs=30)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


def small() -> Recipe:
    """Ours, for photographs on a CPU."""
    settings = CarlSettings(kl_epochs=10)
    return small_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


def cifar10() -> Recipe:
    """Table 1, CIFAR-10 after 200 epochs: ResNet-18. The paper's table cannot be read with certainty for CARL."""
    return Recipe(
        name="cifar10",
        method=CarlSettings(),
        encoder=EncoderSettings(backbone="resnet18", stem="imagenet", zero_init_residual=False),
        views=ViewSet(full=simclr(32), mean=CIFAR10_MEAN, std=CIFAR10_STD),
        preprocessing=Preprocessing(resize=32, size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD),
        optimizer=_OPTIMIZER,
        batch_size=256,
        epochs=200,
    )


def stl10() -> Recipe:
    """Table 1, STL-10 after 200 epochs: ResNet-18, 96 pixels. The paper's table cannot be read with certainty."""
    return Recipe(
        name="stl10",
        method=CarlSettings(kl_start=2.0, kl_end=1.0),
        encoder=EncoderSettings(backbone="resnet18", stem="imagenet", zero_init_residual=False),
        views=ViewSet(full=simclr(96)),
        preprocessing=Preprocessing(resize=96, size=96),
        optimizer=_OPTIMIZER,
        batch_size=256,
        epochs=200,
    )


SETTINGS = CarlSettings
RECIPES = (digits, small, cifar10, stl10)
PHOTOGRAPHS = stl10  # the default for large images on a GPU
