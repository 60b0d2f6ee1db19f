"""The head of Mask R-CNN with a C4 backbone: the encoder's last stage, once for boxes and masks together.

torchvision has no such head; it is composed of its modules and losses (docs/decisions.md, detection-c4).
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign


class Res5RoIHeads(RoIHeads):
    """A head that passes what each box shows through the encoder's last stage, for its class, its sides and its mask.

    In training the masks are predicted from the features of those boxes that show an object, which are computed once
    with the features of all boxes. So BatchNorm normalises all boxes of a batch together.

    Args:
        res5: The last stage, with what follows it, as a norm.
        channels: Channels of its output.
        classes: Number of classes, the background included.
        pooled_side: Cells of a side into which a box is divided before the stage.
        options: The options of :class:`torchvision.models.detection.roi_heads.RoIHeads` for boxes.
    """

    def __init__(self, res5: nn.Module, channels: int, classes: int, *, pooled_side: int, **options: Any):
        super().__init__(
            box_roi_pool=MultiScaleRoIAlign(["0"], output_size=pooled_side, sampling_ratio=0),
            box_head=res5,
            box_predictor=FastRCNNPredictor(channels, classes),
            mask_predictor=MaskRCNNPredictor(channels, 256, classes),
            **options,
        )

    def has_mask(self) -> bool:
        """Returns True: masks share the box head."""
        return True

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Returns detections in evaluation mode, and losses in training mode, as torchvision's head does.

        Args:
            features: Feature map ``0``.
            proposals: Boxes of each image.
            image_shapes: Height and width of each image.
            targets: Objects of each image, to train on.
        """
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets or [])
        scores, sides = self.box_predictor(self._pooled(self._passed(features, proposals, image_shapes)))
        found = self.postprocess_detections(scores, sides, proposals, image_shapes)
        detections = [
            {"boxes": boxes, "scores": score, "labels": labels} for boxes, score, labels in zip(*found, strict=True)
        ]
        boxes = [detection["boxes"] for detection in detections]
        if sum(map(len, boxes)):
            logits = self._mask_logits(self._passed(features, boxes, image_shapes))
        else:  # a stage need not take a batch of nothing
            side = 2 * self.box_roi_pool.output_size[0]
            logits = boxes[0].new_zeros(0, scores.shape[1], side, side)
        masks = maskrcnn_inference(logits, [detection["labels"] for detection in detections])
        for detection, mask in zip(detections, masks, strict=True):
            detection["masks"] = mask
        return detections, {}

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Returns the losses of classes, sides and masks."""
        proposals, matched, labels, side_targets = self.select_training_samples(proposals, targets)
        passed = self._passed(features, proposals, image_shapes)
        scores, sides = self.box_predictor(self._pooled(passed))
        class_loss, side_loss = fastrcnn_loss(scores, sides, labels, side_targets)
        shows_object = [torch.where(label > 0)[0] for label in labels]
        mask_loss = maskrcnn_loss(
            self._mask_logits(passed[torch.cat(labels) > 0]),
            [boxes[i] for boxes, i in zip(proposals, shows_object, strict=True)],
            [target["masks"] for target in targets],
            [target["labels"] for target in targets],
            [match[i] for match, i in zip(matched, shows_object, strict=True)],
        )
        return {"loss_classifier": class_loss, "loss_box_reg": side_loss, "loss_mask": mask_loss}

    def _passed(self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
        """Returns the last stage's output for each box, [boxes, channels, side, side]."""
        return self.box_head(self.box_roi_pool(features, boxes, shapes))

    def _mask_logits(self, passed: Tensor) -> Tensor:
        """Returns the mask of each class for each box, [boxes, classes, 2 side, 2 side]."""
        return self.get_submodule("mask_predictor")(passed)

    @staticmethod
    def _pooled(passed: Tensor) -> Tensor:
        return passed.mean(dim=(2, 3))


def res5_with_norm(stage: nn.Module, channels: int, *, norm: bool) -> nn.Sequential:
    """Returns the last stage, followed by a BatchNorm of its output if wanted (MoCo's extra norm)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(stage=stage)
    if norm:
        layers["norm"] = nn.BatchNorm2d(channels)
    return nn.Sequential(layers)
