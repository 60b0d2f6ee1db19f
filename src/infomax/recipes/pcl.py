"""Holds the settings and recipes of PCL; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, fields
from typing import Any

from infomax.data.augmentation.views import ViewSet
from infomax.data.augmentation.views import moco as moco_views
from infomax.recipes.cpu import IMAGES_SEEN, LOW_RATE_ADAMW, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.moco import MocoSettings
from infomax.recipes.published import imagenet as imagenet_recipe
from infomax.recipes.schema import OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class PclSettings(MocoSettings):
    """A frozen dataclass that holds the settings of PCL: those of MoCo v2, and of the clusters."""

    name = "pcl"

    queue_size: int = 16384
    """Number of keys of earlier batches that a query is compared with."""
    clusters: tuple[int, ...] = (25000, 50000, 100000)
    """Number of clusters of each clustering; at most the number of images."""
    warmup_epochs: int = 20
    """Epochs at the start without prototypes."""
    iterations: int = 20
    """Iterations of k-means before each epoch."""
    smoothing: float = 10.0
    """Constant that keeps the concentration of small clusters low."""

    def build(self, encoder):  # pyrefly: ignore[bad-override]
        from infomax.methods.moco import Moco
        from infomax.methods.pcl import Pcl

        of_moco = {field.name: getattr(self, field.name) for field in fields(MocoSettings)}
        others = {name: value for name, value in vars(self).items() if name not in of_moco}
        return Pcl(Moco(encoder, **of_moco), **others)


RECIPES = Experiments("pcl")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the embedded digits: the small encoder. Decisions: cpu-recipes, moco-small, pcl-small."""
    settings = _small(hidden=256, dimension=64, queue_size=1024, clusters=(25, 50, 100), warmup_epochs=8)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes,
    searched-settings, moco-small, pcl-small."""
    sizes = {"hidden": 512, "dimension": 128, "queue_size": 4096, "clusters": (25, 50, 100)}
    settings = _small(**sizes, warmup_epochs=epochs // 10, temperature=0.1)
    return small_recipe(settings, LOW_RATE_ADAMW, epochs=epochs)


@RECIPES.add("imagenet", 8.35, reported_in("mira-2", row="PCL"))
def imagenet_200() -> Recipe:
    """The paper's run of 200 epochs, in MIRA's Table 2. Paper: 67.6 % linear top-1. Cost: 8.35 EFLOP. Decisions:
    moco-imagenet, pcl-embeddings, pcl-negatives."""
    sgd = OptimizerSettings(name="sgd", learning_rate=0.03, weight_decay=1e-4, decay_all=True, per_epoch=True)
    views = ViewSet(global_crops=moco_views(224))
    return imagenet_recipe(PclSettings(), sgd, views, batch_size=256, epochs=200)


def _small(**others: Any) -> PclSettings:
    """Returns the settings of our own recipes, of short runs."""
    return PclSettings(**others, projector_norm=True, momentum=0.9, momentum_end=0.99, symmetric=True)


METHOD = MethodSpec(settings=PclSettings, recipes=RECIPES, default_for_large_images="imagenet_200")
