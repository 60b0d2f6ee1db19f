"""Weights from anybody's file: found under whatever prefix they were saved with, and loaded whole or not at all."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from infomax.models.encoders import Encoder, build_encoder
from infomax.runtime import checkpoints

RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
}
"""By the blocks of each stage, and whether these are bottlenecks."""
EVERY_RESNET = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
HEAD = re.compile(r"[^.]*(fc|linear|head|classif|proj|pred|prototyp|queue|mlp)")
"""What stands beside a ResNet's layers and is no part of the encoder; its layers are conv1, bn1, layer1 to layer4."""
SHOWN = 3  # names in a message


def read_weights(place: str, names: Sequence[str]) -> dict[str, Tensor]:
    """The weights of the one encoder in a file, their common prefix cut off. No code in the file is run.

    An encoder is where more than half of ``names`` stand below one prefix, at any depth of nested dictionaries: so
    ``state_dict``, ``model``, ``module.``, ``backbone.``, ``encoder_q.`` and the like are found, not listed.

    Args:
        place: A safetensors file, or one of torch.save; with ``#PREFIX``, whole or a part of it, where it holds two.
        names: Of the encoder's weights, or some of them.

    Raises:
        ValueError: if the file cannot be read, holds none, or holds several and the prefix chooses none or many.
    """
    file, _, chosen = (place, "", "") if Path(place).is_file() else place.rpartition("#")
    if not Path(file).is_file():
        raise ValueError(f"there is no file {file or place}")
    found, seen = {}, []
    for path, table in _tables(_content(Path(file))):
        starts = _starts(table, set(names))
        seen += [path + name for name in table]
        for start in starts:
            others = tuple(other for other in starts if len(other) > len(start))
            own = {name: value for name, value in table.items() if name.startswith(start)}
            found[path + start] = {n[len(start) :]: own[n] for n in own if not n.startswith(others)}
    if not found:
        raise ValueError(
            f"{file} holds no such encoder: more than half of its names, as {names[0]} and {names[-1]}, must stand "
            f"below one prefix, but there are {', '.join(seen[:SHOWN]) or 'no tensors'}"
        )
    options = [chosen] if chosen in found and file != place else [start for start in found if chosen in start]
    if len(options) != 1:
        listed = ", ".join(repr(start) for start in found)
        raise ValueError(f"{file} holds encoders below {listed}; choose one, as {file}#{next(iter(found))}")
    return found[options[0]]


def _content(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        return checkpoints.load(file)
    except ValueError as error:
        raise ValueError(f"{error}; of a whole model, save the state dict alone") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _tables(content: Any, path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each dictionary with named tensors, below its path."""
    if isinstance(content, Mapping):
        yield path, {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        for key, value in content.items():
            yield from _tables(value, f"{path}{key}.")


def _starts(table: Mapping[str, Tensor], names: set[str]) -> list[str]:
    """The prefixes below which more than half of ``names`` stand."""
    counts = Counter()
    for key in table:
        cuts = [0, *(dot.end() for dot in re.finditer(r"\.", key))]
        counts.update(key[:cut] for cut in cuts if key[cut:] in names)
    return [start for start, count in counts.items() if 2 * count > len(names)]


def fill(backbone: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Load all of ``weights`` into all of ``backbone``.

    Raises:
        ValueError: naming what is missing, unexpected or of another shape; nothing is loaded then.
    """
    own = backbone.state_dict()
    counted = ".num_batches_tracked"  # older files have none, and nothing in evaluation depends on it
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    problems = {
        "missing": [name for name in own if name not in weights and not name.endswith(counted)],
        "unexpected": [name for name in weights if name not in own],
        "of another shape": shapes,
    }
    told = [
        f"{len(listed)} {problem} ({', '.join(listed[:SHOWN])}{', ...' * (len(listed) > SHOWN)})"
        for problem, listed in problems.items()
        if listed
    ]
    if told:
        raise ValueError(f"the weights do not fit {what}: {', '.join(told)}")
    backbone.load_state_dict(weights)


def load_resnet(place: str) -> tuple[Encoder, str]:
    """The ResNet in a file, and its stem, ``imagenet`` or ``cifar``; which one it is, the shapes tell.

    A CIFAR stem is taken to pad by 1 pixel and not to pool, which no shape tells.

    Raises:
        ValueError: as :func:`read_weights` and :func:`fill`, or if it is no ResNet-18, 34, 50 or 101.
    """
    weights = {name: value for name, value in read_weights(place, EVERY_RESNET).items() if not HEAD.match(name)}
    weights = {name.replace(".shortcut.", ".downsample."): value for name, value in weights.items()}  # common for CIFAR
    stages = tuple(len({n.split(".")[1] for n in weights if n.startswith(f"layer{i}.")}) for i in range(1, 5))
    backbone = RESNETS.get((stages, "layer1.0.conv3.weight" in weights))
    if backbone is None:
        raise ValueError(f"its stages have {stages} blocks, which is no ResNet-18, 34, 50 or 101")
    stem = "cifar" if "conv1.weight" in weights and weights["conv1.weight"].shape[2:] == (3, 3) else "imagenet"
    encoder = build_encoder(backbone, stem=stem, seed=0)
    fill(encoder.backbone, weights, f"a {backbone} with the {stem} stem")
    return encoder, stem
