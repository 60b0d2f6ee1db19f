"""The linear layer of a classifier that is exported: the formats ask this file for it, and for its classes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from infomax.models.encoders import Encoder


def classes_of(encoder: "Encoder") -> tuple[str, ...]:
    """Returns the classes whose logits an encoder gives, as a classifier does; none of one that gives features."""
    from infomax.classifying.classifier import EncoderWithHead

    return encoder.classes if isinstance(encoder, EncoderWithHead) else ()


def head_tensors(encoder: "Encoder", name: str) -> "dict[str, Tensor]":
    """Returns weights and biases of the linear layer by the name of the layer; nothing if there is none."""
    head: Any = getattr(encoder, "head", None)
    return {f"{name}.{key}": value for key, value in head.state_dict().items()} if classes_of(encoder) else {}


def output_name(encoder: "Encoder") -> str:
    """Returns what an encoder gives, in one word: ``logits`` or ``features``."""
    return "logits" if classes_of(encoder) else "features"


def output_words(encoder: "Encoder") -> str:
    """Returns words for what an encoder gives."""
    if classes := classes_of(encoder):
        return f"logits [B, {len(classes)}] of the classes, whose softmax gives their probabilities"
    return f"features [B, {encoder.width}]"
