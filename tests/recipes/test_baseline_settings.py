"""Tests the recipes of baselines against settings and results that were typed again from their papers and code."""

import re

import pytest

from infomax.papers.published import table
from infomax.recipes.registry import baselines, experiments
from infomax.recipes.schema import flat_settings

BASELINES = {
    name: e
    for name, e in experiments().items()
    if e.method in baselines() and not e.description.startswith("Our own recipe")
}


def settings(optimizer, rate, decay, warmup, batch, epochs, **others):
    """Returns settings by their keys; a dot in a key of ``others`` is written as two underscores."""
    shared = {"name": optimizer, "learning_rate": rate, "weight_decay": decay, "warmup_epochs": warmup}
    return (
        {f"optimizer.{name}": value for name, value in shared.items()}
        | {"batch_size": batch, "epochs": epochs}
        | {key.replace("__", "."): value for key, value in others.items()}
    )


SOLO = {
    "encoder__backbone": "resnet18",
    "encoder__stem_padding": 2,
    "optimizer__trust": 0.02,
    "optimizer__clip_steps": True,
}
DEEPCLUSTER_SOLO = {"method__heads": 3, "method__prototypes": 3000, "optimizer__end": 0.0006, **SOLO}
DEEPCLUSTER = {"optimizer__warmup_start": 0.3, "optimizer__end": 0.0048, "method__heads": 3, "method__prototypes": 3000}
BARLOW_SOLO = {"method__hidden": 2048, "method__dimension": 2048, "method__loss_scale": 0.1, **SOLO}
VICREG = {"method__invariance": 25, "method__variance": 25, "method__covariance": 1}
VICREG_SOLO = {**VICREG, "method__variance": 50, "optimizer__trust": 0.02}
BYOL_SOLO = {
    "method__hidden": 4096,
    "method__dimension": 256,
    "method__predictor_hidden": 4096,
    "method__momentum": 0.99,
    **SOLO,
}
SIMCLR_200 = {"method__hidden": 512, "method__hidden_norm": False, "method__temperature": 0.5}
SIMCLR_SOLO = {
    "method__hidden": 2048,
    "method__dimension": 256,
    "method__temperature": 0.2,
    "views__global_crops__1__scale": (0.08, 1),
    "views__global_crops__1__brightness": 0.8,
    "views__global_crops__1__blur": 0,
    "views__global_crops__1__solarize": 0,
    "encoder__zero_init_residual": False,
    **SOLO,
}
SIMCLR_IMAGENET = {
    "method__hidden": 2048,
    "method__hidden_layers": 1,
    "method__dimension": 128,
    "method__output_norm": True,
    "method__temperature": 0.1,
    "views__global_crops__0__scale": (0.08, 1),
    "views__global_crops__0__hue": 0.2,
    "views__global_crops__1__blur": 0.5,
}
SIMCLR_SIMSIAM = SIMCLR_IMAGENET | {"method__hidden_layers": 2}
CARL = {
    "encoder__backbone": "resnet18",
    "encoder__stem": "imagenet",
    "optimizer__momentum": 0.9,
    "optimizer__decay_all": True,
    "optimizer__end": 0,
    "method__hidden": 512,
    "method__dimension": 128,
}
CARL_32 = {"preprocessing__size": 32, "views__global_crops__0__saturation": 0.4, "views__global_crops__1__blur": 0}
CARL_96 = {"preprocessing__size": 96, "views__global_crops__0__saturation": 0.8, "views__global_crops__1__blur": 0.5}
SIMCLR_CARL = CARL | {"method__hidden_layers": 1, "method__hidden_norm": True, "method__output_norm": False}
SIMCLR_CARL_32 = SIMCLR_CARL | CARL_32 | {"method__temperature": 0.5}
BYOL_CARL = CARL | {"method__predictor_hidden": 512, "method__momentum": 0.996, "optimizer__per_epoch": False}
MOCO_CARL = CARL | {
    "method__projector_norm": False,
    "method__temperature": 0.2,
    "method__queue_size": 65536,
    "method__momentum": 0.999,
    "method__momentum_end": 0.999,
    "method__symmetric": False,
    "optimizer__per_epoch": True,
}
SPECTRAL_CIFAR = {
    "encoder__backbone": "resnet18",
    "encoder__stem_padding": 1,
    "optimizer__decay_all": True,
    "method__hidden": 2048,
    "method__hidden_layers": 1,
    "method__dimension": 1000,
    "method__mu": 1,
    "views__global_crops__1__saturation": 0.4,
    "views__global_crops__1__blur": 0,
}
SIMSIAM = {
    "method__hidden": 2048,
    "method__dimension": 2048,
    "method__predictor_hidden": 512,
    "optimizer__constant_predictor": True,
    "optimizer__decay_all": True,
}
SIMSIAM_SOLO = {**SIMSIAM, "encoder__backbone": "resnet18", "encoder__stem_padding": 2}
SIMSIAM_IMAGENET = {
    **SIMSIAM,
    "optimizer__per_epoch": True,
    "views__global_crops__0__saturation": 0.4,
    "views__global_crops__1__blur": 0.5,
}
SWAV = {
    "optimizer__end": 0.0048,
    "optimizer__warmup_start": 0.3,
    "optimizer__trust": 0.001,
    "optimizer__clip_steps": False,
    "optimizer__decay_all": True,
    "method__hidden": 2048,
    "method__dimension": 128,
    "method__prototypes": 3000,
    "method__freeze_prototypes_steps": 313,
    "method__temperature": 0.1,
    "method__epsilon": 0.05,
    "method__iterations": 3,
    "method__queue": 0,
}
SWAV_TWO_CROPS = SWAV | {"method__hidden_layers": 1, "views__global_crops__1__saturation": 0.8}
SWAV_SIMSIAM = SWAV_TWO_CROPS | {"method__hidden_layers": 2}
SWAV_MULTICROP = SWAV | {
    "views__global_crops__1__saturation": 0.8,
    "views__local_crops__5__blur": 0.5,
}
SWAV_SOLO = {
    "method__hidden": 2048,
    "method__dimension": 128,
    "method__prototypes": 3000,
    "method__queue": 3840,
    "method__queue_from_epoch": 50,
    "views__global_crops__1__brightness": 0.8,
    "optimizer__end": 0.0006,
    **SOLO,
}
SWAV_CIFAR = SWAV_SOLO | {
    "method__freeze_prototypes_steps": 390,
    "views__global_crops__0__blur": 0,
    "optimizer__decay_all": True,
}
MOCO_SOLO = {
    "method__hidden": 2048,
    "method__dimension": 256,
    "method__temperature": 0.2,
    "method__momentum": 0.99,
    "method__momentum_end": 0.999,
    "method__symmetric": True,
    "optimizer__decay_all": True,
    "encoder__backbone": "resnet18",
}
MOCO_CIFAR = {**MOCO_SOLO, "encoder__stem_padding": 2, "method__queue_size": 32768}
MOCO = {
    "method__hidden": 2048,
    "method__dimension": 128,
    "method__temperature": 0.2,
    "method__queue_size": 65536,
    "method__momentum": 0.999,
    "method__momentum_end": 0.999,
    "method__symmetric": False,
    "optimizer__per_epoch": True,
    "optimizer__decay_all": True,
    "views__global_crops__0__scale": (0.2, 1.0),
}
INFOMIN = MOCO | {
    "method__temperature": 0.15,
    **{
        f"views__global_crops__{i}__{name}": value
        for i in range(2)
        for name, value in {
            "scale": (0.2, 1.0),
            "bicubic": False,
            "flip": 0.5,
            "jitter": 0.8,
            "brightness": 0.8,
            "contrast": 0.8,
            "saturation": 0.8,
            "hue": 0.2,
            "blur": 0.5,
            "randaugment": 2,
            "randaugment_magnitude": 10,
            "randaugment_std": 0.5,
            "randaugment_probability": 0.5,
            "randaugment_increasing": False,
            "grayscale": 0.2,
            "solarize": 0,
        }.items()
    },
}
MOCOV3 = {"method__hidden": 4096, "method__dimension": 256, "method__momentum": 0.99}
MOCOV3_SOLO = {**MOCOV3, "method__temperature": 0.2, "method__projector_layers": 2}
MOCOV3_R50 = {**MOCOV3, "method__temperature": 1.0, "views__global_crops__1__scale": (0.2, 1.0)}
MOCOV3_LONG = {**MOCOV3_R50, "method__momentum": 0.996}
MOCOV3_VIT = {**MOCOV3, "method__temperature": 0.2, "method__projector_layers": 3, "method__predictor_norm": True}
NNCLR_SOLO = {
    "method__hidden": 2048,
    "method__dimension": 256,
    "method__predictor_hidden": 4096,
    "method__temperature": 0.2,
    "method__queue_size": 65536,
    "encoder__backbone": "resnet18",
    "optimizer__trust": 0.02,
    "optimizer__clip_steps": True,
}
RESSL_SOLO = {
    "method__hidden": 4096,
    "method__dimension": 256,
    "method__student_temperature": 0.1,
    "method__teacher_temperature": 0.04,
    "method__queue_size": 65536,
    "method__momentum": 0.99,
    "method__momentum_end": 1.0,
    "optimizer__decay_all": True,
    "encoder__backbone": "resnet18",
    "views__global_crops__1__jitter": 0,
}
DENSECL = {
    "method__hidden": 2048,
    "method__dimension": 128,
    "method__projector_norm": False,
    "method__temperature": 0.2,
    "method__queue_size": 65536,
    "method__momentum": 0.999,
    "method__momentum_end": 0.999,
    "method__symmetric": False,
    "method__dense_weight": 0.5,
}
PCL = {"method__queue_size": 16384, "method__clusters": (25000, 50000, 100000), "method__warmup_epochs": 20}
RESSL = {
    "method__hidden": 4096,
    "method__dimension": 512,
    "method__queue_size": 131072,
    "method__momentum_end": 0.999,
    "views__global_crops__0__scale": (0.2, 1.0),
    "views__global_crops__0__blur": 0.5,
    "views__global_crops__1__grayscale": 0,
}
DINO_SOLO = {
    "method__hidden": 2048,
    "method__dimension": 256,
    "method__prototypes": 4096,
    "method__momentum": 0.9995,
    "method__projector_norm": False,
    "optimizer__decay_all": False,
    **SOLO,
}
TWIST = {"method__hidden": 4096, "method__classes": 32768, "views__global_crops__0__blur": 1}
TWIST_MULTICROP = {"method__hidden": 4096, "method__classes": 4096, "views__local_crops__11__blur": 0.5}
WMSE = {
    "method__hidden": 1024,
    "method__dimension": 64,
    "method__size": 128,
    "encoder__stem_padding": 2,
    "views__global_crops__1__brightness": 0.8,
    "views__global_crops__1__solarize": 0,
}
EXPECTED = {
    "twist/imagenet_100": (70.4, settings("lars", 4, 1.5e-6, 10, 2048, 100, **TWIST)),
    "twist/imagenet_200": (70.9, settings("lars", 4, 1.5e-6, 10, 2048, 200, **TWIST)),
    "twist/imagenet_400": (71.8, settings("lars", 4, 1.5e-6, 10, 2048, 400, **TWIST)),
    "twist/imagenet_800": (72.6, settings("lars", 4, 1.5e-6, 10, 2048, 800, **TWIST)),
    "twist/imagenet_multicrop_100": (72.9, settings("lars", 4, 1.5e-6, 10, 2048, 100, **TWIST_MULTICROP)),
    "twist/imagenet_multicrop_200": (73.7, settings("lars", 4, 1.5e-6, 10, 2048, 200, **TWIST_MULTICROP)),
    "twist/imagenet_multicrop_400": (74.4, settings("lars", 4, 1.5e-6, 10, 2048, 400, **TWIST_MULTICROP)),
    "twist/imagenet_multicrop_800": (74.1, settings("lars", 4, 1.5e-6, 10, 2048, 800, **TWIST_MULTICROP)),
    "self_classifier/imagenet_multicrop_800": (
        74.1,
        settings(
            "larc",
            3.2,
            1e-6,
            10,
            4096,
            800,
            optimizer__warmup_start=0.2,
            optimizer__end=0.0032,
            optimizer__decay_all=True,
            optimizer__trust=0.001,
            method__hidden=4096,
            method__dimension=128,
            method__row_temperature=0.1,
            method__column_temperature=0.05,
            method__queue_size=262144,
        ),
    ),
    "dino/cifar10": (89.52, settings("larc", 0.3, 1e-6, 10, 256, 1000, **DINO_SOLO)),
    "dino/cifar100": (66.76, settings("larc", 0.3, 1e-6, 10, 256, 1000, **DINO_SOLO)),
    "dino/imagenet100": (
        74.92,
        settings("larc", 0.3, 1e-6, 10, 256, 400, **(DINO_SOLO | {"encoder__stem_padding": 1})),
    ),
    "dino/imagenet_multicrop_800": (
        75.3,
        settings(
            "lars",
            4.8,
            1e-6,
            10,
            4096,
            800,
            optimizer__clip_norm=None,
            optimizer__end=0.0048,
            optimizer__decay_all=False,
            method__hidden=4096,
            method__hidden_layers=1,
            method__dimension=256,
            method__projector_norm=True,
            method__prototypes=60000,
            method__momentum=0.996,
            method__temperature_start=0.04,
            method__temperature_end=0.07,
            method__temperature_epochs=50,
            method__student_temperature=0.1,
            method__centre_momentum=0.9,
            method__freeze_prototypes_epochs=1,
        ),
    ),
    "deepcluster/cifar10": (88.85, settings("larc", 0.6, 1e-6, 10, 256, 1000, **DEEPCLUSTER_SOLO)),
    "deepcluster/cifar100": (63.61, settings("larc", 0.6, 1e-6, 10, 256, 1000, **DEEPCLUSTER_SOLO)),
    "deepcluster/imagenet100": (75.36, settings("larc", 0.6, 1e-6, 10, 256, 400, method__heads=3, optimizer__end=6e-4)),
    "deepcluster/imagenet_400": (70.2, settings("larc", 4.8, 1e-6, 10, 4096, 400, **DEEPCLUSTER)),
    "deepcluster/imagenet_multicrop_800": (75.2, settings("larc", 4.8, 1e-6, 10, 4096, 800, **DEEPCLUSTER)),
    "barlow/cifar10": (92.1, settings("larc", 0.3, 1e-4, 10, 256, 1000, **BARLOW_SOLO, method__off_diagonal=0.0051)),
    "barlow/cifar100": (70.9, settings("larc", 0.3, 1e-4, 10, 256, 1000, **BARLOW_SOLO, method__off_diagonal=0.0051)),
    "barlow/imagenet100": (
        80.38,
        settings("larc", 0.3, 1e-4, 10, 256, 400, method__loss_scale=0.1, optimizer__trust=0.02),
    ),
    "barlow/imagenet": (
        73.2,
        settings("lars", 1.6, 1e-6, 10, 2048, 1000, method__dimension=8192, optimizer__vector_rate=0.0048 / 0.2),
    ),
    "moco/cifar10": (92.94, settings("sgd", 0.3, 1e-4, 10, 256, 1000, **MOCO_CIFAR)),
    "moco/cifar100": (69.89, settings("sgd", 0.3, 1e-4, 10, 256, 1000, **MOCO_CIFAR)),
    "moco/imagenet100": (79.28, settings("sgd", 0.3, 1e-4, 10, 256, 400, method__queue_size=65536, **MOCO_SOLO)),
    "moco/cifar10_carl": (71.62, settings("sgd", 0.03, 1e-4, 0, 256, 200, **MOCO_CARL, **CARL_32)),
    "moco/cifar100_carl": (44.35, settings("sgd", 0.03, 1e-4, 0, 256, 200, **MOCO_CARL, **CARL_32)),
    "moco/stl10_carl": (75.46, settings("sgd", 0.03, 1e-4, 0, 256, 200, **MOCO_CARL, **CARL_96)),
    "moco/imagenet_100_symmetric": (
        67.4,
        settings("sgd", 0.03, 1e-4, 0, 256, 100, **(MOCO | {"method__symmetric": True})),
    ),
    "moco/imagenet_200": (None, settings("sgd", 0.03, 1e-4, 0, 256, 200, **MOCO)),
    "moco/imagenet_800": (71.1, settings("sgd", 0.03, 1e-4, 0, 256, 800, **MOCO)),
    "moco/imagenet_infomin_100": (None, settings("sgd", 0.03, 1e-4, 0, 256, 100, **INFOMIN)),
    "moco/imagenet_infomin_200": (None, settings("sgd", 0.03, 1e-4, 0, 256, 200, **INFOMIN)),
    "moco/imagenet_infomin_800": (None, settings("sgd", 0.03, 1e-4, 0, 256, 800, **INFOMIN)),
    "mocov3/cifar10": (None, settings("larc", 0.3, 1e-6, 10, 256, 1000, **MOCOV3_SOLO, **SOLO)),
    "mocov3/cifar100": (None, settings("larc", 0.3, 1e-6, 10, 256, 1000, **MOCOV3_SOLO, **SOLO)),
    "mocov3/imagenet100": (None, settings("larc", 0.3, 1e-6, 10, 256, 400, **MOCOV3_SOLO)),
    "mocov3/imagenet_100": (68.9, settings("lars", 9.6, 1e-6, 10, 4096, 100, **MOCOV3_R50)),
    "mocov3/imagenet_300": (None, settings("lars", 4.8, 1e-6, 10, 4096, 300, **MOCOV3_R50)),
    "mocov3/imagenet_800": (73.8, settings("lars", 4.8, 1.5e-6, 10, 4096, 800, **MOCOV3_LONG)),
    "mocov3/imagenet_1000": (74.6, settings("lars", 4.8, 1.5e-6, 10, 4096, 1000, **MOCOV3_LONG)),
    "mocov3/imagenet_vit": (72.5, settings("adamw", 2.4e-3, 0.1, 40, 4096, 300, **MOCOV3_VIT)),
    "nnclr/cifar10": (91.88, settings("larc", 0.4, 1e-5, 10, 256, 1000, encoder__stem_padding=2, **NNCLR_SOLO)),
    "nnclr/cifar100": (69.62, settings("larc", 0.4, 1e-5, 10, 256, 1000, encoder__stem_padding=2, **NNCLR_SOLO)),
    "nnclr/imagenet100": (80.16, settings("larc", 0.4, 1e-5, 10, 256, 400, **NNCLR_SOLO)),
    "densecl/imagenet_200": (None, settings("sgd", 0.03, 1e-4, 0, 256, 200, **DENSECL)),
    "pcl/imagenet_200": (67.6, settings("sgd", 0.03, 1e-4, 0, 256, 200, method__momentum=0.999, **PCL)),
    "ressl/cifar10": (90.63, settings("sgd", 0.05, 1e-4, 10, 256, 1000, encoder__stem_padding=2, **RESSL_SOLO)),
    "ressl/cifar100": (65.92, settings("sgd", 0.05, 1e-4, 10, 256, 1000, encoder__stem_padding=2, **RESSL_SOLO)),
    "ressl/imagenet100": (78.48, settings("sgd", 0.3, 1e-4, 10, 256, 400, **RESSL_SOLO)),
    "ressl/imagenet_200": (None, settings("sgd", 0.05, 1e-4, 5, 256, 200, **RESSL)),
    "ressl/imagenet_multicrop_200": (
        None,
        settings("sgd", 0.05, 1e-4, 5, 256, 200, **RESSL, optimizer__decay_all=False, views__local_crops__3__size=96),
    ),
    "vicreg/cifar10": (
        92.07,
        settings("larc", 0.3, 1e-4, 10, 256, 1000, **{**SOLO, **VICREG_SOLO}, method__hidden=2048),
    ),
    "vicreg/cifar100": (
        68.54,
        settings("larc", 0.3, 1e-4, 10, 256, 1000, **{**SOLO, **VICREG_SOLO}, method__dimension=2048),
    ),
    "vicreg/imagenet100": (79.4, settings("larc", 0.3, 1e-4, 10, 256, 400, **VICREG_SOLO)),
    "vicreg/imagenet": (73.2, settings("lars", 1.6, 1e-6, 10, 2048, 1000, **VICREG, method__hidden=8192)),
    "vicreg/imagenet_100": (68.6, settings("lars", 2.4, 1e-6, 10, 2048, 100, **VICREG, method__dimension=8192)),
    "vicreg/imagenet_100_batch_128": (67.3, settings("lars", 0.4, 1e-6, 10, 128, 100, **VICREG)),
    "vicreg/imagenet_100_batch_256": (67.9, settings("lars", 0.5, 1e-6, 10, 256, 100, **VICREG)),
    "vicreg/imagenet_100_batch_512": (68.2, settings("lars", 0.8, 1e-6, 10, 512, 100, optimizer__end=0.0008)),
    "vicreg/imagenet_100_batch_1024": (68.3, settings("lars", 1.2, 1e-6, 10, 1024, 100, **VICREG)),
    "vicreg/imagenet_100_batch_4096": (67.8, settings("lars", 4.8, 1e-6, 10, 4096, 100, **VICREG)),
    "mvib/cifar10": (
        86.2,
        settings(
            "adam",
            3e-4,
            0,
            0,
            256,
            200,
            method__hidden=512,
            method__dimension=128,
            method__temperature=0.5,
            method__deviation=0.1,
            method__projector_norm=False,
            method__weight=1e-5 / 512,
            optimizer__end=3e-4,
            encoder__backbone="resnet18",
        ),
    ),
    "byol/cifar10": (92.58, settings("larc", 1.0, 1e-5, 10, 256, 1000, **BYOL_SOLO)),
    "byol/cifar100": (70.46, settings("larc", 1.0, 1e-5, 10, 256, 1000, **BYOL_SOLO)),
    "byol/imagenet100": (
        80.32,
        settings("larc", 0.5, 1e-5, 10, 256, 400, method__predictor_hidden=8192, method__momentum=0.99),
    ),
    "byol/imagenet": (74.3, settings("lars", 3.2, 1.5e-6, 10, 4096, 1000, method__momentum=0.996)),
    "byol/imagenet_100": (66.5, settings("lars", 7.2, 1e-6, 10, 4096, 100, method__momentum=0.99)),
    "byol/imagenet_200": (70.6, settings("lars", 4.8, 1e-6, 10, 4096, 200, method__momentum=0.99)),
    "byol/imagenet_400": (73.2, settings("lars", 3.2, 1.5e-6, 10, 4096, 400, method__momentum=0.996)),
    "byol/imagenet_800": (74.3, settings("lars", 3.2, 1.5e-6, 10, 4096, 800, method__momentum=0.996)),
    "byol/cifar10_carl": (None, settings("sgd", 0.03, 1e-4, 0, 256, 200, **BYOL_CARL, **CARL_32)),
    "byol/cifar100_carl": (45.68, settings("sgd", 0.03, 1e-4, 0, 256, 200, **BYOL_CARL, **CARL_32)),
    "byol/stl10_carl": (None, settings("sgd", 0.03, 1e-4, 0, 256, 200, **BYOL_CARL, **CARL_96)),
    "lejepa/imagenet": (
        None,
        settings(
            *("adamw", 5e-4, 0.05, 1, 256, 100),
            encoder__backbone="timm:vit_small_patch16_224",
            method__dimension=64,
            method__weight=0.05,
            method__slices=1024,
            optimizer__warmup_start=5e-6,
            optimizer__end=5e-7,
            views__global_crops__0__blur=0.5,
            views__global_crops__1__solarize=0.2,
            views__local_crops__5__size=96,
        ),
    ),
    "simclr/cifar10": (90.74, settings("larc", 0.4, 1e-4, 10, 256, 1000, **SIMCLR_SOLO)),
    "simclr/cifar100": (65.78, settings("larc", 0.4, 1e-4, 10, 256, 1000, **SIMCLR_SOLO)),
    "simclr/cifar10_200": (85.76, settings("adam", 3e-4, 0, 0, 256, 200, **SIMCLR_200)),
    "simclr/imagenet100": (
        77.48,
        settings(
            *("larc", 0.3, 1e-4, 10, 256, 400),
            **(SIMCLR_SOLO | {"method__dimension": 128, "views__global_crops__1__blur": 0.5}),
        )
        | {"encoder.stem": "imagenet", "encoder.stem_padding": 1, "encoder.zero_init_residual": True},
    ),
    "simclr/cifar10_carl": (None, settings("sgd", 0.03, 1e-4, 0, 256, 200, **SIMCLR_CARL_32)),
    "simclr/cifar100_carl": (47.29, settings("sgd", 0.03, 1e-4, 0, 256, 200, **SIMCLR_CARL_32)),
    "simclr/stl10_carl": (
        None,
        settings("sgd", 0.03, 1e-4, 0, 256, 200, **SIMCLR_CARL, **CARL_96, method__temperature=0.1),
    ),
    "simclr/imagenet": (69.3, settings("lars", 4.8, 1e-6, 10, 4096, 1000, **SIMCLR_IMAGENET)),
    "simclr/imagenet_100_batch_256": (57.5, settings("lars", 0.3, 1e-6, 10, 256, 100, **SIMCLR_IMAGENET)),
    "simclr/imagenet_100_batch_512": (60.7, settings("lars", 0.6, 1e-6, 10, 512, 100, **SIMCLR_IMAGENET)),
    "simclr/imagenet_100_batch_1024": (62.8, settings("lars", 1.2, 1e-6, 10, 1024, 100, **SIMCLR_IMAGENET)),
    "simclr/imagenet_100_batch_2048": (64.0, settings("lars", 2.4, 1e-6, 10, 2048, 100, **SIMCLR_IMAGENET)),
    "simclr/imagenet_100_batch_4096": (64.6, settings("lars", 4.8, 1e-6, 10, 4096, 100, **SIMCLR_IMAGENET)),
    "simclr/imagenet_100_three_layers": (66.5, settings("lars", 4.8, 1e-6, 10, 4096, 100, **SIMCLR_SIMSIAM)),
    "simclr/imagenet_200_three_layers": (68.3, settings("lars", 4.8, 1e-6, 10, 4096, 200, **SIMCLR_SIMSIAM)),
    "simclr/imagenet_400_three_layers": (69.8, settings("lars", 4.8, 1e-6, 10, 4096, 400, **SIMCLR_SIMSIAM)),
    "simclr/imagenet_800_three_layers": (70.4, settings("lars", 4.8, 1e-6, 10, 4096, 800, **SIMCLR_SIMSIAM)),
    "spectral/cifar10": (92.07, settings("sgd", 0.06, 5e-4, 10, 512, 800, **SPECTRAL_CIFAR)),
    "spectral/cifar100": (66.18, settings("sgd", 0.06, 5e-4, 10, 512, 800, **SPECTRAL_CIFAR)),
    "spectral/imagenet": (
        66.97,
        settings("sgd", 0.075, 1e-4, 0, 384, 100, method__hidden=8192, method__dimension=8192, method__mu=10),
    ),
    "simsiam/cifar10": (90.51, settings("sgd", 0.5, 1e-5, 10, 256, 1000, **SIMSIAM_SOLO)),
    "simsiam/cifar100": (66.04, settings("sgd", 0.5, 1e-5, 10, 256, 1000, **SIMSIAM_SOLO)),
    "simsiam/imagenet100": (78.72, settings("sgd", 0.5, 1e-5, 10, 256, 400, **SIMSIAM)),
    "simsiam/imagenet": (71.3, settings("sgd", 0.05, 1e-4, 0, 256, 800, **SIMSIAM_IMAGENET)),
    "simsiam/imagenet_400": (70.8, settings("sgd", 0.05, 1e-4, 0, 256, 400, **SIMSIAM_IMAGENET)),
    "simsiam/imagenet_200": (70.0, settings("sgd", 0.05, 1e-4, 0, 256, 200, **SIMSIAM_IMAGENET)),
    "simsiam/imagenet_100": (68.1, settings("sgd", 0.05, 1e-4, 0, 256, 100, **SIMSIAM_IMAGENET)),
    "simsiam/imagenet_100_batch_128": (67.3, settings("sgd", 0.025, 1e-4, 0, 128, 100, **SIMSIAM_IMAGENET)),
    "simsiam/imagenet_100_batch_512": (68.1, settings("sgd", 0.1, 1e-4, 0, 512, 100, **SIMSIAM_IMAGENET)),
    "simsiam/imagenet_100_batch_1024": (68.0, settings("sgd", 0.2, 1e-4, 10, 1024, 100, **SIMSIAM)),
    "simsiam/imagenet_100_batch_2048": (67.9, settings("sgd", 0.4, 1e-4, 10, 2048, 100, **SIMSIAM)),
    "simsiam/imagenet_100_batch_4096": (64.0, settings("sgd", 0.8, 1e-4, 10, 4096, 100, **SIMSIAM)),
    "swav/cifar10": (89.17, settings("larc", 0.6, 1e-6, 10, 256, 1000, **SWAV_CIFAR)),
    "swav/cifar100": (64.88, settings("larc", 0.6, 1e-6, 10, 256, 1000, **SWAV_CIFAR)),
    "swav/imagenet100": (
        74.28,
        settings(
            "larc", 0.6, 1e-6, 10, 256, 400, **(SWAV_SOLO | {"encoder__stem_padding": 1}), optimizer__decay_all=False
        ),
    ),
    "swav/imagenet_400": (None, settings("larc", 4.8, 1e-6, 10, 4096, 400, **SWAV_TWO_CROPS)),
    "swav/imagenet_100_three_layers": (66.5, settings("larc", 4.8, 1e-6, 10, 4096, 100, **SWAV_SIMSIAM)),
    "swav/imagenet_200_three_layers": (69.1, settings("larc", 4.8, 1e-6, 10, 4096, 200, **SWAV_SIMSIAM)),
    "swav/imagenet_400_three_layers": (70.7, settings("larc", 4.8, 1e-6, 10, 4096, 400, **SWAV_SIMSIAM)),
    "swav/imagenet_800_three_layers": (71.8, settings("larc", 4.8, 1e-6, 10, 4096, 800, **SWAV_SIMSIAM)),
    "swav/imagenet_100_batch_512": (
        62.3,
        settings(
            *("sgd", 0.6, 1e-4, 5, 512, 100),
            method__hidden=2048,
            method__hidden_layers=1,
            method__dimension=128,
            method__prototypes=3000,
            method__freeze_prototypes_steps=2502,
            method__queue=0,
            method__epsilon=0.05,
            views__global_crops__1__solarize=0.2,
        ),
    ),
    "swav/imagenet_multicrop_100": (72.1, settings("larc", 4.8, 1e-6, 10, 4096, 100, **SWAV_MULTICROP)),
    "swav/imagenet_multicrop_200": (73.9, settings("larc", 4.8, 1e-6, 10, 4096, 200, **SWAV_MULTICROP)),
    "swav/imagenet_multicrop_400": (74.6, settings("larc", 4.8, 1e-6, 10, 4096, 400, **SWAV_MULTICROP)),
    "swav/imagenet_multicrop_800": (75.3, settings("larc", 4.8, 1e-6, 10, 4096, 800, **SWAV_MULTICROP)),
    "unigrad/imagenet": (
        None,
        settings(
            *("sgd", 0.2, 1e-4, 5, 1024, 100),
            method__hidden=2048,
            method__dimension=2048,
            method__weight=100,
            method__correlation_momentum=0.99,
            method__momentum=0.996,
            optimizer__end=2e-4,
            optimizer__decay_all=True,
            views__global_crops__1__saturation=0.4,
        ),
    ),
    "wmse/cifar10": (88.67, settings("adam", 2e-3, 1e-6, 10, 256, 1000, **WMSE)),
    "wmse/cifar100": (61.33, settings("adam", 2e-3, 1e-6, 10, 256, 1000, **WMSE)),
    "wmse/imagenet100": (
        69.06,
        settings("adam", 2e-3, 1e-6, 2, 256, 400, **(WMSE | {"encoder__stem_padding": 1})),
    ),
}
"""The linear top-1 accuracy that is printed, and settings, of each recipe."""
AREAS = {
    "deepcluster/cifar10": [(0.08, 1)] * 2,
    "deepcluster/imagenet_400": [(0.08, 1)] * 2,
    "deepcluster/imagenet_multicrop_800": [(0.14, 1)] * 2 + [(0.05, 0.14)] * 6,
    "self_classifier/imagenet_multicrop_800": [(0.4, 1)] * 2 + [(0.05, 0.4)] * 6,
    "twist/imagenet_multicrop_800": [(0.4, 1)] * 2 + [(0.05, 0.4)] * 12,
    "twist/imagenet_800": [(0.08, 1)] * 2,
    "dino/imagenet_multicrop_800": [(0.14, 1)] * 2 + [(0.05, 0.14)] * 6,
    "ressl/imagenet_multicrop_200": [(0.2, 1)] * 2 + [(0.172, 0.86), (0.143, 0.715), (0.114, 0.571), (0.086, 0.429)],
    "swav/cifar10": [(0.08, 1)] * 2,
    "swav/imagenet_400": [(0.08, 1)] * 2,
    "swav/imagenet_800_three_layers": [(0.08, 1)] * 2,
    "swav/imagenet_100_batch_512": [(0.14, 1)] * 2,
    "simclr/cifar100_carl": [(0.08, 1)] * 2,
    "swav/imagenet_multicrop_400": [(0.14, 1)] * 2 + [(0.05, 0.14)] * 6,
}
"""The shares of the image's area that the crops of some recipes take."""


def test_every_recipe_of_a_baseline_has_an_expectation():
    assert sorted(EXPECTED) == sorted(BASELINES)


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_are_the_published_ones(name):
    ours, (_, papers) = flat_settings(BASELINES[name].recipe()), EXPECTED[name]
    assert {key: ours[key] for key in papers} == {key: pytest.approx(value) for key, value in papers.items()}


SOLO_VIEWS = {
    "barlow/cifar10": (0.08, 0.4, 0.2, (0, 0), (0, 0.2)),
    "barlow/cifar100": (0.08, 0.4, 0.2, (0, 0), (0, 0.2)),
    "barlow/imagenet100": (0.08, 0.4, 0.2, (1, 0.1), (0, 0.2)),
    "moco/cifar10": (0.08, 0.4, 0.4, (0, 0), (0, 0)),
    "moco/cifar100": (0.08, 0.4, 0.4, (0, 0), (0, 0)),
    "moco/imagenet100": (0.08, 0.4, 0.4, (0.5, 0.5), (0, 0)),
    "mocov3/cifar10": (0.2, 0.4, 0.4, (1, 0.1), (0, 0.2)),
    "mocov3/cifar100": (0.2, 0.4, 0.4, (1, 0.1), (0, 0.2)),
    "mocov3/imagenet100": (0.2, 0.4, 0.2, (1, 0.1), (0, 0.2)),
    "nnclr/cifar10": (0.08, 0.4, 0.2, (0, 0), (0, 0.2)),
    "nnclr/cifar100": (0.08, 0.4, 0.2, (0, 0), (0, 0.2)),
    "nnclr/imagenet100": (0.08, 0.4, 0.2, (1, 0.1), (0, 0.2)),
    "ressl/cifar10": (0.08, 0.4, 0.2, (0, 0), (0, 0)),
    "ressl/cifar100": (0.08, 0.4, 0.2, (0, 0), (0, 0)),
    "ressl/imagenet100": (0.08, 0.4, 0.4, (0.5, 0), (0, 0)),
    "vicreg/cifar10": (0.2, 0.4, 0.2, (0, 0), (0.1, 0.1)),
    "vicreg/cifar100": (0.2, 0.4, 0.2, (0, 0), (0.1, 0.1)),
    "vicreg/imagenet100": (0.2, 0.4, 0.2, (0.5, 0.5), (0.1, 0.1)),
    "byol/cifar10": (0.08, 0.4, 0.2, (0, 0), (0, 0.2)),
    "byol/cifar100": (0.08, 0.4, 0.2, (0, 0), (0, 0.2)),
    "byol/imagenet100": (0.08, 0.4, 0.2, (1, 0.1), (0, 0.2)),
    "simsiam/cifar10": (0.08, 0.4, 0.4, (0, 0), (0, 0)),
    "simsiam/cifar100": (0.08, 0.4, 0.4, (0, 0), (0, 0)),
    "simsiam/imagenet100": (0.08, 0.4, 0.4, (0.5, 0.5), (0, 0)),
    "simclr/imagenet100": (0.08, 0.8, 0.8, (0.5, 0.5), (0, 0)),
    "wmse/imagenet100": (0.08, 0.8, 0.8, (0.2, 0.2), (0, 0)),
}
"""The least area, brightness, saturation, and the blur and the solarisation of both views in solo-learn's scripts."""


@pytest.mark.parametrize("name", SOLO_VIEWS)
def test_views_are_those_of_the_scripts_of_solo_learn(name):
    scale, brightness, saturation, blur, solarize = SOLO_VIEWS[name]
    crops = BASELINES[name].recipe().views.global_crops
    for view in crops:
        assert (view.scale, view.brightness, view.saturation) == ((scale, 1.0), brightness, saturation)
        assert (view.contrast, view.hue, view.grayscale, view.bicubic) == (view.brightness, brightness / 4, 0.2, True)
    assert (tuple(v.blur for v in crops), tuple(v.solarize for v in crops)) == (blur, solarize)


@pytest.mark.parametrize("name", AREAS)
def test_crops_have_the_published_areas(name):
    views = BASELINES[name].recipe().views
    assert [view.scale for view in (*views.global_crops, *views.local_crops)] == AREAS[name]


MISPRINTED = {("dino/imagenet_multicrop_800", "mveb-1"): "crops"}
"""Conditions that a table prints otherwise than the run had them (decisions: dino-imagenet)."""


@pytest.mark.parametrize("name", EXPECTED)
def test_results_are_those_of_the_recipe(name):
    """The main number is the one that was typed here, and each number has the recipe's conditions."""
    experiment, recipe = BASELINES[name], BASELINES[name].recipe()
    main = experiment.main_number
    assert (main.value if main else None) == EXPECTED[name][0]
    crops = [view.size for view in recipe.views.local_crops]
    actual = {"backbone": recipe.encoder.backbone.replace("vit_small", "vit-s"), "epochs": recipe.epochs}
    actual |= {"batch_size": recipe.batch_size, "multi_crop": bool(crops), "schedule_epochs": recipe.epochs}
    actual |= {
        "crops": "+".join([f"{len(recipe.views.global_crops)}x224", *([f"{len(crops)}x{crops[0]}"] if crops else [])])
    }
    for number in experiment.numbers():
        printed = {key: value for key, value in vars(number.conditions).items() if value is not None}
        wrong = MISPRINTED.get((name, number.table.id))
        assert wrong is None or printed[wrong] != actual[wrong]
        printed = {key: printed[key] for key in printed if key in actual and key != wrong}
        assert printed == {key: actual[key] for key in printed}, (number.table.id, number.column.name, number.value)


@pytest.mark.parametrize("name", EXPECTED)
def test_docstring_says_what_the_decorator_says(name):
    experiment = BASELINES[name]
    description, main = experiment.description, experiment.main_number
    assert re.findall(r"([\d.]+) % linear top-1", description) == ([f"{main.value:g}"] if main else [])
    assert re.findall(r"Cost: ([\d.]+) EFLOP\.", description) == [f"{experiment.exaflops:g}"]
    for cells in experiment.cells:
        paper, number = cells.table.partition("-")[0], table(cells.table).number.partition(",")[0]
        assert number in description or paper not in description.lower(), cells.table
