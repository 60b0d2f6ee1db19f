"""Settings of every method at toy size. A new method adds a line to TINY, and the contract tests then cover it."""

import torch
from torch import nn

from infomax.methods.base import Method, Progress, Views
from infomax.models.encoders import Encoder
from infomax.recipes.barlow import BarlowSettings
from infomax.recipes.byol import ByolSettings
from infomax.recipes.carl import CarlSettings
from infomax.recipes.corinfomax import CorInfoMaxSettings
from infomax.recipes.deepcluster import DeepClusterSettings
from infomax.recipes.densecl import DenseClSettings
from infomax.recipes.dino import DinoSettings
from infomax.recipes.emp_ssl import EmpSslSettings
from infomax.recipes.lejepa import LeJepaSettings
from infomax.recipes.mira import MiraSettings
from infomax.recipes.mmcr import MmcrSettings
from infomax.recipes.moco import MocoSettings
from infomax.recipes.mocov3 import MocoV3Settings
from infomax.recipes.mveb import MvebSettings
from infomax.recipes.mvib import MvibSettings
from infomax.recipes.nnclr import NnclrSettings
from infomax.recipes.pcl import PclSettings
from infomax.recipes.ressl import ReSslSettings
from infomax.recipes.self_classifier import SelfClassifierSettings
from infomax.recipes.simclr import SimClrSettings
from infomax.recipes.simsiam import SimSiamSettings
from infomax.recipes.spectral import SpectralSettings
from infomax.recipes.swav import SwavSettings
from infomax.recipes.twist import TwistSettings
from infomax.recipes.unigrad import UniGradSettings
from infomax.recipes.vicreg import VicRegSettings
from infomax.recipes.visreg import VisRegSettings
from infomax.recipes.wmse import WmseSettings

IMAGES = 12
TINY = {
    "mira": MiraSettings(hidden=16, dimension=8, prototypes=12, momentum=0.9),
    "mira-no-teacher": MiraSettings(hidden=16, dimension=8, prototypes=12, momentum=None),
    "mira-even": MiraSettings(hidden=16, dimension=8, prototypes=12, momentum=0.9, equipartition=True),
    "corinfomax": CorInfoMaxSettings(hidden=16, dimension=4),
    "corinfomax-branches": CorInfoMaxSettings(hidden=16, dimension=4, shared_weights=False),
    "corinfomax-norm": CorInfoMaxSettings(hidden=16, dimension=4, projector_norm=True),
    "carl": CarlSettings(hidden=16, dimension=8, prototypes=12, kl_epochs=2),
    "carl-cosine": CarlSettings(hidden=16, dimension=8, prototypes=12, kl_epochs=2, kl_decay="cosine"),
    "mveb": MvebSettings(hidden=16, dimension=8, momentum=0.9),
    "mveb-shared": MvebSettings(hidden=16, dimension=8, momentum=None),
    "barlow": BarlowSettings(hidden=16, dimension=8, off_diagonal=0.1),
    "byol": ByolSettings(hidden=16, dimension=8, predictor_hidden=16, momentum=0.9),
    "deepcluster": DeepClusterSettings(hidden=16, dimension=8, heads=3, prototypes=4),
    "densecl": DenseClSettings(hidden=16, dimension=8, queue_size=40, momentum=0.9),
    "densecl-symmetric": DenseClSettings(
        hidden=16, dimension=8, queue_size=40, momentum=0.9, symmetric=True, projector_norm=True
    ),
    "emp_ssl": EmpSslSettings(hidden=16, dimension=8),
    "mmcr": MmcrSettings(hidden=16, dimension=8),
    "mmcr-local": MmcrSettings(hidden=16, dimension=8, weight=0.1),
    "moco": MocoSettings(hidden=16, dimension=8, queue_size=32, momentum=0.9),
    "moco-symmetric": MocoSettings(
        hidden=16, dimension=8, queue_size=32, momentum=0.9, symmetric=True, projector_norm=True
    ),
    "mocov3": MocoV3Settings(hidden=16, dimension=8, momentum=0.9),
    "dino": DinoSettings(hidden=16, dimension=8, prototypes=12, momentum=0.9, temperature_epochs=3),
    "lejepa": LeJepaSettings(hidden=16, dimension=8, slices=20),
    "mvib": MvibSettings(hidden=16, dimension=8),
    "mvib-fixed": MvibSettings(hidden=16, dimension=8, deviation=0.1, projector_norm=False),
    "nnclr": NnclrSettings(hidden=16, dimension=8, predictor_hidden=16, queue_size=32),
    "pcl": PclSettings(hidden=16, dimension=8, queue_size=40, clusters=(3, 4), warmup_epochs=0, iterations=3),
    "ressl": ReSslSettings(hidden=16, dimension=8, projector_norm=False, queue_size=32, momentum=0.9),
    "self_classifier": SelfClassifierSettings(hidden=16, dimension=8, classes=(6, 12)),
    "self_classifier-queue": SelfClassifierSettings(hidden=16, dimension=8, classes=(6, 12), queue_size=20),
    "simclr": SimClrSettings(hidden=16, dimension=8),
    "simsiam": SimSiamSettings(hidden=16, dimension=8, predictor_hidden=8),
    "spectral": SpectralSettings(hidden=16, dimension=8, mu=2.0),
    "twist": TwistSettings(hidden=16, classes=12),
    "vicreg": VicRegSettings(hidden=16, dimension=8),
    "swav": SwavSettings(hidden=16, dimension=8, prototypes=12, freeze_prototypes_steps=3),
    "swav-queue": SwavSettings(
        hidden=16, dimension=8, prototypes=12, queue=20, queue_from_epoch=1, freeze_prototypes_steps=3
    ),
    "unigrad": UniGradSettings(hidden=16, dimension=8, correlation_momentum=0.9, momentum=0.9),
    "visreg": VisRegSettings(hidden=16, dimension=8, slices=20),
    "wmse": WmseSettings(hidden=16, dimension=4, size=6),
}


def tiny_encoder(norm: bool = True, pooled_side: int = 2) -> Encoder:
    width = 6 if pooled_side > 1 else 24
    layers = [nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width) if norm else nn.Identity()]
    return Encoder(nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(pooled_side), nn.Flatten()), 24)


def tiny_method(name: str, dtype: torch.dtype = torch.float64) -> Method:
    """Returns a method at the beginning of its first epoch."""
    torch.manual_seed(1)
    pooled_side = 1 if TINY[name].name == "densecl" else 2  # it compares what an encoder pools into its features
    method = TINY[name].build(tiny_encoder(pooled_side=pooled_side))
    method.prepare(IMAGES)
    begin_epoch(method.to(dtype), tiny_views(dtype=dtype))
    return method


def begin_epoch(method: Method, views: Views, step: int = 0) -> None:
    """Lets a method that remembers images see those of an epoch, which are one batch; the networks stay as they are."""
    buffers = {name: x.clone() for name, x in method.named_buffers() if "running" in name or "tracked" in name}
    if method.remembers_images:
        with torch.no_grad():
            method.before_epoch(progress(step), lambda network: [(views.positions, network(views))])
        method.load_state_dict(buffers, strict=False)


def tiny_views(
    batch: int = IMAGES, local_crops: int = 0, dtype: torch.dtype = torch.float64, seed: int = 0, global_crops: int = 2
) -> Views:
    generator = torch.Generator().manual_seed(seed)

    def view(side: int) -> torch.Tensor:
        return torch.randn(batch, 3, side, side, generator=generator, dtype=dtype)

    crops = [view(8) for _ in range(global_crops)], [view(6) for _ in range(local_crops)]
    return Views(*crops, positions=torch.arange(batch))


def progress(step: int, steps_per_epoch: int = 3, epochs: int = 4) -> Progress:
    return Progress(step=step, total_steps=steps_per_epoch * epochs, epoch=step // steps_per_epoch)
