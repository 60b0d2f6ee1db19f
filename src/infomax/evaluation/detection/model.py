"""Builds Mask R-CNN around the stages of an encoder, whose weights it takes as they are."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from infomax.evaluation.detection.res5_heads import Res5RoIHeads, res5_with_norm
from infomax.evaluation.detection.schedule import DetectorSetting
from infomax.models.encoders import Encoder
from infomax.models.stages import backbone_stages, describe_stages, freeze_stages
from infomax.nn.batch_norm import batch_norms, synchronise_batch_norm
from infomax.runtime.collectives import world_size

RATIOS = (0.5, 1.0, 2.0)
"""Heights of anchors over their widths."""
FPN_ANCHOR = 8
"""Side of a level's anchors over its stride."""
C4_ANCHORS = (2, 4, 8, 16, 32)
"""Sides of C4's anchors over its stride."""
FPN_CHANNELS = 256
POOLED_SIDE = 14
PROBED_SIDE = 64  # pixels of the image by which the stages are measured


@dataclass(frozen=True)
class ResidualStages:
    """A frozen dataclass that holds what an encoder is made of, from the image to its last feature map."""

    network: nn.Module
    """The module whose children are the stem and the stages, in their order."""
    names: tuple[str, ...]
    """Names of the stages' modules, without the stem."""
    channels: tuple[int, ...]
    """Channels of each stage's output."""
    strides: tuple[int, ...]
    """Pixels of the image by which each stage's cells stand apart."""


@torch.no_grad()
def residual_stages(encoder: Encoder, title: str) -> ResidualStages:
    """Returns the stages of a ResNet, or of the small encoder.

    Args:
        encoder: The encoder.
        title: Words for it in a message.

    Raises:
        ValueError: if it is no such network: if the mean of its last stage is not its features.
    """
    if not (pixel_format := encoder.preprocessing.pixel_format).is_rgb:
        raise ValueError(f"detection takes encoders of 8-bit RGB images; {title} takes {pixel_format}")
    network, prefix = encoder.backbone, ""
    while len(children := dict(network.named_children())) == 1:
        ((name, network),) = children.items()
        prefix += f"{name}."
    stages = backbone_stages(encoder.backbone)
    modules = [sorted({t.removeprefix(prefix).partition(".")[0] for t in stage.tensors}) for stage in stages[1:]]
    refusal = f"--arch takes ResNets, and {title} has {describe_stages(stages)}"
    children = dict(network.named_children())
    if len(stages) < 4 or any(len(names) != 1 or names[0] not in children for names in modules):
        raise ValueError(refusal)
    names = tuple(name for (name,) in modules)
    was_training = encoder.training
    encoder.eval()
    image = torch.linspace(-1, 1, 3 * PROBED_SIDE**2, device=_device_of(encoder)).view(1, 3, PROBED_SIDE, PROBED_SIDE)
    try:
        maps = IntermediateLayerGetter(network, {name: name for name in names})(image)
        features = encoder(image)
        is_same = all(x.ndim == 4 for x in maps.values()) and features.allclose(maps[names[-1]].mean((2, 3)), atol=1e-4)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{refusal}, which do not follow each other") from error
    finally:
        encoder.train(was_training)
    if not is_same:
        raise ValueError(f"{refusal}; the mean of the last one is not its features")
    channels = tuple(maps[name].shape[1] for name in names)
    strides = tuple(PROBED_SIDE // maps[name].shape[-1] for name in names)
    return ResidualStages(network, names, channels, strides)


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


class Detector(nn.Module):
    """A module that trains and applies Mask R-CNN around a copy of an encoder.

    Args:
        encoder: The encoder, which does not change.
        categories: Number of categories, without the background.
        setting: How it is built.
        title: Words for the encoder in a message.
        device: The device that it is put on.

    Raises:
        ValueError: if the encoder is no ResNet, or has fewer stages than are to be frozen.

    Attributes:
        network: torchvision's module: images and objects to losses in training mode, images to detections otherwise.
    """

    def __init__(
        self, encoder: Encoder, categories: int, setting: DetectorSetting, *, title: str, device: torch.device
    ):
        super().__init__()
        own = copy.deepcopy(encoder).requires_grad_(True)
        if setting.norm == "frozen":
            for norm in batch_norms(own):
                norm.requires_grad_(False)
        stages = residual_stages(own, title)
        freeze_stages(own, setting.freeze, title=title)
        still = [own.backbone.get_submodule(name) for name in own.frozen_modules]
        if setting.norm == "frozen":
            still += batch_norms(own)
        parts = {id(part) for module in still for part in module.modules()}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(setting.seed)
            build = _build_fpn if setting.arch == "fpn" else _build_c4
            network = build(stages, categories + 1, setting)
            _initialise_predictors(network)
        network.transform = SidesTransform(setting, list(encoder.preprocessing.mean), list(encoder.preprocessing.std))
        self._still = [name for name, module in network.named_modules() if id(module) in parts]
        network = network.to(device)
        self.network: nn.Module = synchronise_batch_norm(network, device) if world_size() > 1 else network

    def train(self, mode: bool = True) -> "Detector":
        """Sets training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for name in self._still:
            self.network.get_submodule(name).eval()
        return self

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> dict | list:
        """Returns the losses in training mode, and the detections of each image otherwise."""
        return self.network(images, targets)


class SidesTransform(GeneralizedRCNNTransform):
    """A transform that resizes images to a side that is drawn in training, and to another one in a test.

    Args:
        setting: Says which sides.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """

    def __init__(self, setting: DetectorSetting, mean: list[float], std: list[float]):
        super().__init__(setting.test_side, setting.longest_side(setting.test_side), mean, std)
        self._train_sides, self._test_side = setting.train_sides, setting.test_side

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple:
        """Returns an image and its objects at a side that is drawn, or at that of a test."""
        sides = self._train_sides if self.training else (self._test_side,)
        self.min_size: Any = sides
        self.max_size = DetectorSetting.longest_side(max(sides))
        return super().resize(image, target)


def _build_fpn(stages: ResidualStages, classes: int, setting: DetectorSetting) -> MaskRCNN:
    """Returns Mask R-CNN with a feature pyramid: torchvision's, with the norms and the head that are wanted."""
    norm = nn.BatchNorm2d if setting.norm == "sync" else None
    levels = [str(i) for i in range(len(stages.names))]
    return_layers = dict(zip(stages.names, levels, strict=True))
    backbone = BackboneWithFPN(stages.network, return_layers, list(stages.channels), FPN_CHANNELS, norm_layer=norm)
    strides = (*stages.strides, 2 * stages.strides[-1])  # the last level is pooled
    anchors = AnchorGenerator(tuple((FPN_ANCHOR * stride,) for stride in strides), (RATIOS,) * len(strides))
    with_head = {}
    if setting.head == "conv":
        box_head = FastRCNNConvFCHead((FPN_CHANNELS, 7, 7), [256] * 4, [1024], norm_layer=norm)
        predictor = FastRCNNPredictor(1024, classes)
        with_head = {"box_head": box_head, "box_predictor": predictor}
    return MaskRCNN(
        backbone,
        None if with_head else classes,
        rpn_anchor_generator=anchors,
        rpn_post_nms_top_n_train=1000,
        box_batch_size_per_image=setting.boxes_per_image,
        box_roi_pool=MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
        mask_roi_pool=MultiScaleRoIAlign(levels, output_size=14, sampling_ratio=2),
        mask_head=MaskRCNNHeads(FPN_CHANNELS, [256] * 4, 1, norm_layer=norm),
        **({"mask_predictor": MaskRCNNPredictor(256, 256, classes)} if with_head else {}),
        **with_head,
    )


def _build_c4(stages: ResidualStages, classes: int, setting: DetectorSetting) -> GeneralizedRCNN:
    """Returns Mask R-CNN on the last stage but one, whose head is the last stage."""
    *_, before, last = stages.names
    stride, channels = stages.strides[-2], stages.channels[-2]
    backbone: nn.Module = IntermediateLayerGetter(stages.network, {before: "0"})
    anchors = AnchorGenerator((tuple(stride * times for times in C4_ANCHORS),), (RATIOS,))
    proposals = RegionProposalNetwork(
        anchors,
        RPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 12_000, "testing": 6_000},
        post_nms_top_n={"training": 2_000, "testing": 1_000},
        nms_thresh=0.7,
    )
    heads = Res5RoIHeads(
        res5_with_norm(stages.network.get_submodule(last), stages.channels[-1], norm=setting.norm == "sync"),
        stages.channels[-1],
        classes,
        pooled_side=POOLED_SIDE,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=setting.boxes_per_image,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
    )
    return GeneralizedRCNN(backbone, proposals, heads, nn.Identity())


def _initialise_predictors(network: nn.Module) -> None:
    """Draws the first weights of the last layers as Detectron2 does: small, with biases of 0."""
    heads: Any = network.roi_heads
    for layer, std in (
        (heads.box_predictor.cls_score, 0.01),
        (heads.box_predictor.bbox_pred, 0.001),
        (heads.mask_predictor.mask_fcn_logits, 0.001),
    ):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
