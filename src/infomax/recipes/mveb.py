"""Holds the settings and recipes of MVEB; a recipe's docstring has the fields that :class:`Experiment` lists."""

from dataclasses import dataclass, replace

from infomax.data.augmentation.views import Preprocessing, View, ViewSet, byol, dino, moco
from infomax.recipes.cpu import IMAGES_SEEN, SMALL_OPTIMIZER, digits_recipe, small_recipe
from infomax.recipes.experiment import Experiments, reported_in
from infomax.recipes.method_spec import MethodSpec
from infomax.recipes.schema import EncoderSettings, MethodSettings, OptimizerSettings, Recipe


@dataclass(frozen=True, kw_only=True)
class MvebSettings(MethodSettings):
    """A frozen dataclass that holds the settings of MVEB."""

    name = "mveb"

    hidden: int = 2048
    """Width of the projector's hidden layers."""
    dimension: int = 2048
    """Width of the projector's output."""
    entropy_weight: float = 0.01
    """Weight of the entropy of the embeddings, beta."""
    eta: float = 0.01
    """Ridge of the score estimator."""
    score_scope: str = "global"
    """Samples that a score is estimated from: global, chunk:n or local."""
    momentum: float | None = 0.996
    """Momentum of the EMA target branch at the start; None shares the online weights."""

    def build(self, encoder):
        from infomax.methods.mveb import Mveb

        return Mveb(encoder, **vars(self))


RECIPES = Experiments("mveb")


@RECIPES.add("digits", None)
def digits() -> Recipe:
    """Our own recipe for the demo: the small encoder learns from the embedded digits. Decisions: cpu-recipes."""
    settings = MvebSettings(hidden=256, dimension=64, momentum=None)
    return digits_recipe(settings, OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=1e-4))


@RECIPES.add(None, None, images_seen=IMAGES_SEEN)
def small(epochs: int) -> Recipe:
    """Our own recipe for photographs on a CPU: the small encoder learns at 32 pixels. Decisions: cpu-recipes."""
    settings = MvebSettings(hidden=512, dimension=128, momentum=None)
    return small_recipe(settings, SMALL_OPTIMIZER, epochs=epochs)


@RECIPES.add("cifar10", 0.0902, reported_in("mveb-text-7.6"))
def cifar10() -> Recipe:
    """Sec. 7.6, CIFAR-10: ResNet-18 with Adam. Paper: 90.42 % linear top-1. Cost: 0.0902 EFLOP. Decisions: mveb-cifar,
    mveb-cifar-probe."""
    half = (0.5, 0.5, 0.5)
    view = View(size=32, bicubic=False, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    return Recipe(
        method=MvebSettings(),
        encoder=EncoderSettings(backbone="resnet18", stem="cifar"),
        views=ViewSet(global_crops=(view, view), mean=half, std=half),
        preprocessing=Preprocessing(resize=32, size=32, mean=half, std=half),
        optimizer=OptimizerSettings(name="adam", learning_rate=3e-4, end=3e-4),
        batch_size=256,
        epochs=200,
    )


@RECIPES.add("cifar10", 0.0677)
def cifar10_speedrun() -> Recipe:
    """Our own recipe for CIFAR-10 in little time: the run of Sec. 7.6 with fewer epochs, half precision, joint forward
    passes and a learning rate that falls to 0. Cost: 0.0677 EFLOP. Decisions: mveb-speedrun."""
    adam = OptimizerSettings(name="adam", learning_rate=1e-3, warmup_epochs=5)
    return replace(cifar10(), optimizer=adam, epochs=150, precision="bf16", joint_forward=True)


@RECIPES.add(
    "imagenet",
    94.4,
    reported_in("mveb-1", multi_crop=True),
    reported_in("mveb-2", backbone="resnet50"),
    *(reported_in(f"mveb-{number}") for number in ("3", "4-linear", "4-finetune", "5")),
)
def imagenet() -> Recipe:
    """The paper's main run: Table 1, with multi-crop, for many GPUs; also Tables 2 to 5. Paper: 76.9 % linear top-1.
    Cost: 94.4 EFLOP. Decisions: mveb-imagenet, mveb-scope."""
    global_crops, local_crops = dino(224, global_scale=(0.4, 1.0), local_scale=(0.05, 0.4))
    return _imagenet(ViewSet(global_crops=global_crops, local_crops=local_crops))


@RECIPES.add("imagenet", 66.6, reported_in("mveb-1", multi_crop=False), reported_in("mveb-7", "ResNet-50 (23M)"))
def imagenet_two_crops() -> Recipe:
    """Table 1, two crops; also Table 7. Paper: 74.6 % linear top-1. Cost: 66.6 EFLOP. Decisions: mveb-imagenet,
    mveb-scope."""
    return _imagenet(ViewSet(global_crops=byol(224)))


@RECIPES.add("imagenet", 41.7, reported_in("mveb-2", backbone="resnet18"))
def imagenet_resnet18() -> Recipe:
    """Table 2, ResNet-18 with multi-crop. Paper: 64.9 % linear top-1. Cost: 41.7 EFLOP. Decisions: mveb-imagenet,
    mveb-scope."""
    return replace(imagenet(), encoder=EncoderSettings(backbone="resnet18", stem="imagenet"))


@RECIPES.add("imagenet", 84.4, reported_in("mveb-2", backbone="resnet34"))
def imagenet_resnet34() -> Recipe:
    """Table 2, ResNet-34 with multi-crop. Paper: 69.6 % linear top-1. Cost: 84.4 EFLOP. Decisions: mveb-imagenet,
    mveb-scope."""
    return replace(imagenet(), encoder=EncoderSettings(backbone="resnet34", stem="imagenet"))


@RECIPES.add("imagenet", 180, reported_in("mveb-2", backbone="resnet101"))
def imagenet_resnet101() -> Recipe:
    """Table 2, ResNet-101 with multi-crop. Paper: 78.2 % linear top-1. Cost: 180 EFLOP. Decisions: mveb-imagenet,
    mveb-scope."""
    return replace(imagenet(), encoder=EncoderSettings(backbone="resnet101", stem="imagenet"))


@RECIPES.add("imagenet", 28.4, reported_in("mveb-7", "ViT-s (21M)"))
def imagenet_vit() -> Recipe:
    """Table 7, ViT-S/16 with the settings of MoCo v3. Paper: 73.4 % linear top-1. Cost: 28.4 EFLOP. Decisions:
    mveb-vit, mveb-scope."""
    first, second = byol(224)
    return Recipe(
        method=MvebSettings(score_scope="chunk:128", momentum=0.99),
        encoder=EncoderSettings(backbone="vit_small", stem="imagenet"),
        views=ViewSet(global_crops=(replace(first, bicubic=False), replace(second, bicubic=False))),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=OptimizerSettings(
            name="adamw", learning_rate=1.5e-4 * 4096 / 256, weight_decay=0.1, decay_all=True, warmup_epochs=40
        ),
        batch_size=4096,
        epochs=300,
        precision="bf16",
    )


@RECIPES.add("imagenet", 6.46, reported_in("mveb-6", "128"))
def imagenet_batch_128() -> Recipe:
    """Table 6, batch 128. Paper: 67.8 % linear top-1. Cost: 6.46 EFLOP. Decisions: mveb-study, mveb-scope."""
    return _study(128)


@RECIPES.add("imagenet", 6.46, reported_in("mveb-6", "256"))
def imagenet_batch_256() -> Recipe:
    """Table 6, batch 256: two crops, weights shared by both branches. Paper: 68.5 % linear top-1. Cost: 6.46 EFLOP.
    Decisions: mveb-study, mveb-scope."""
    return _study(256)


@RECIPES.add("imagenet", 6.46, reported_in("mveb-6", "512"))
def imagenet_batch_512() -> Recipe:
    """Table 6, batch 512. Paper: 68.8 % linear top-1. Cost: 6.46 EFLOP. Decisions: mveb-study, mveb-scope."""
    return _study(512)


@RECIPES.add("imagenet", 6.46, reported_in("mveb-6", "1024"), reported_in("mveb-text-7.2", moving_average=False))
def imagenet_batch_1024() -> Recipe:
    """Table 6, batch 1024; Sec. 7.2, shared weights. Paper: 68.9 % linear top-1. Cost: 6.46 EFLOP. Decisions:
    mveb-study, mveb-scope."""
    return _study(1024)


@RECIPES.add("imagenet", 6.45, reported_in("mveb-6", "2048"))
def imagenet_batch_2048() -> Recipe:
    """Table 6, batch 2048. Paper: 68.9 % linear top-1. Cost: 6.45 EFLOP. Decisions: mveb-study, mveb-scope."""
    return _study(2048)


@RECIPES.add("imagenet", 6.44, reported_in("mveb-6", "4096"))
def imagenet_batch_4096() -> Recipe:
    """Table 6, batch 4096. Paper: 69 % linear top-1. Cost: 6.44 EFLOP. Decisions: mveb-study, mveb-scope."""
    return _study(4096)


@RECIPES.add("imagenet", 8.63, reported_in("mveb-text-7.2", moving_average=True))
def imagenet_momentum() -> Recipe:
    """Sec. 7.2, a moving average as the target. Paper: 71.2 % linear top-1. Cost: 8.63 EFLOP. Decisions: mveb-study,
    mveb-scope."""
    return _study(1024, momentum=0.996, rate=0.1)


@RECIPES.add("imagenet", 6.46, reported_in("mveb-text-7.3"))
def imagenet_entropy_0001() -> Recipe:
    """Sec. 7.3 and Figure 4, beta 0.001: the encoder collapses. Paper: 0 % linear top-1. Cost: 6.46 EFLOP. Decisions:
    mveb-figure, mveb-study, mveb-scope."""
    return _study(1024, entropy_weight=0.001)


def _imagenet(views: ViewSet) -> Recipe:
    """Returns a recipe with a ResNet-50, a batch of 4096, LARS, and a moving average as the target."""
    rate = 0.4 * 4096 / 256
    return Recipe(
        method=MvebSettings(score_scope="chunk:128"),
        encoder=EncoderSettings(backbone="resnet50", stem="imagenet"),
        views=views,
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=OptimizerSettings(
            name="lars",
            learning_rate=rate,
            weight_decay=1e-6,
            warmup_epochs=10,
            warmup_start=rate / 1000,
            end=rate / 1000,
        ),
        batch_size=4096,
        epochs=800,
        precision="bf16",
    )


def _study(
    batch_size: int, *, momentum: float | None = None, rate: float = 0.05, entropy_weight: float = 0.01
) -> Recipe:
    """Returns the recipe of a run of Sec. 7: ResNet-50 for 100 epochs, two crops, a wide projector, by SGD."""
    peak = rate * batch_size / 256
    return Recipe(
        method=MvebSettings(
            hidden=8192, dimension=8192, momentum=momentum, entropy_weight=entropy_weight, score_scope="chunk:128"
        ),
        encoder=EncoderSettings(backbone="resnet50", stem="imagenet"),
        views=ViewSet(global_crops=moco(224)),
        preprocessing=Preprocessing(resize=256, size=224),
        optimizer=OptimizerSettings(
            name="sgd",
            learning_rate=peak,
            weight_decay=1e-4,
            decay_all=True,
            warmup_epochs=5,
            warmup_start=peak / 1000,
            end=peak / 1000,
        ),
        batch_size=batch_size,
        epochs=100,
        precision="bf16",
    )


METHOD = MethodSpec(
    settings=MvebSettings,
    recipes=RECIPES,
    default_for_large_images="imagenet_batch_256",
    paper="MVEB",
    conditions={name: name for name in ("dimension", "entropy_weight")} | {"momentum": "moving_average"},
)
