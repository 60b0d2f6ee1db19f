"""Weights from anybody's file: finds them below any prefix, and loads all of them or none."""

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
"""The name of each ResNet by the number of blocks of each stage, and whether these are bottlenecks."""
NAMES_IN_EVERY_RESNET = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
HEAD = re.compile(r"[^.]*(fc|linear|head|classif|proj|pred|prototyp|queue|mlp)")
"""Matches names beside a ResNet's own layers, conv1, bn1 and layer1 to layer4, that are no part of the encoder."""
LISTED_NAMES = 3  # in a message


def read_weights(location: str, names: Sequence[str]) -> dict[str, Tensor]:
    """Reads the weights of the one encoder in a file, and cuts off their common prefix. No code in the file is run.

    An encoder is where more than half of ``names`` stand below one prefix, at any depth of nested dictionaries. So
    ``state_dict``, ``model``, ``module.``, ``backbone.``, ``encoder_q.`` and the like need no list.

    Args:
        location: A safetensors file, or a file of torch.save. If it holds several encoders, ``FILE#PREFIX`` chooses
            one, by its whole prefix or a part of it.
        names: The names of the encoder's weights, or some of them.

    Returns:
        The weights by their names below the prefix.

    Raises:
        ValueError: If the file cannot be read, if it holds no encoder, or if it holds several and the prefix chooses
            none or many of them.
    """
    file, _, chosen = (location, "", "") if Path(location).is_file() else location.rpartition("#")
    if not Path(file).is_file():
        raise ValueError(f"there is no file {file or location}")
    encoders, all_names = {}, []
    for path, table in _tensor_dictionaries(_read(Path(file))):
        prefixes = _encoder_prefixes(table, set(names))
        all_names += [path + name for name in table]
        for prefix in prefixes:
            longer = tuple(other for other in prefixes if len(other) > len(prefix))
            below = {name: value for name, value in table.items() if name.startswith(prefix)}
            encoders[path + prefix] = {n[len(prefix) :]: below[n] for n in below if not n.startswith(longer)}
    if not encoders:
        raise ValueError(
            f"{file} holds no such encoder: more than half of its names, as {names[0]} and {names[-1]}, must stand "
            f"below one prefix, but there are {', '.join(all_names[:LISTED_NAMES]) or 'no tensors'}"
        )
    exact = chosen in encoders and file != location
    matches = [chosen] if exact else [prefix for prefix in encoders if chosen in prefix]
    if len(matches) != 1:
        listed = ", ".join(repr(prefix) for prefix in encoders)
        raise ValueError(f"{file} holds encoders below {listed}; choose one, as {file}#{next(iter(encoders))}")
    return encoders[matches[0]]


def _read(file: Path) -> Any:
    """Reads a file of tensors without running code in it."""
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        return checkpoints.load(file)
    except ValueError as error:
        raise ValueError(f"{error}; of a whole model, save the state dict alone") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _tensor_dictionaries(content: Any, path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the path of each nested dictionary, and the tensors in it by name."""
    if isinstance(content, Mapping):
        yield path, {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        for key, value in content.items():
            yield from _tensor_dictionaries(value, f"{path}{key}.")


def _encoder_prefixes(table: Mapping[str, Tensor], names: set[str]) -> list[str]:
    """Returns the prefixes in ``table`` below which more than half of ``names`` stand."""
    counts = Counter()
    for key in table:
        cuts = [0, *(dot.end() for dot in re.finditer(r"\.", key))]
        counts.update(key[:cut] for cut in cuts if key[cut:] in names)
    return [prefix for prefix, count in counts.items() if 2 * count > len(names)]


def load_all_weights(backbone: nn.Module, weights: Mapping[str, Tensor], title: str) -> None:
    """Loads all of ``weights`` into all of ``backbone``.

    Args:
        backbone: The module to load into.
        weights: The weights by name.
        title: The words for the module in a message.

    Raises:
        ValueError: If weights are missing, unexpected or of another shape; nothing is loaded then.
    """
    expected = backbone.state_dict()
    optional = ".num_batches_tracked"  # older files have none, and nothing in evaluation depends on it
    other_shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    problems = {
        "missing": [name for name in expected if name not in weights and not name.endswith(optional)],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": other_shapes,
    }
    messages = [
        f"{len(names)} {problem} ({', '.join(names[:LISTED_NAMES])}{', ...' * (len(names) > LISTED_NAMES)})"
        for problem, names in problems.items()
        if names
    ]
    if messages:
        raise ValueError(f"the weights do not fit {title}: {', '.join(messages)}")
    backbone.load_state_dict(weights)


def load_resnet(location: str) -> tuple[Encoder, str]:
    """Loads the ResNet in a file; the shapes of its weights tell which one it is.

    A CIFAR stem is taken to pad by 1 pixel and not to pool, which no shape tells.

    Args:
        location: The file, and a prefix if it holds several encoders, as in :func:`read_weights`.

    Returns:
        The encoder, in training mode on the CPU; and its stem, ``imagenet`` or ``cifar``.

    Raises:
        ValueError: As :func:`read_weights` and :func:`load_all_weights`; or if it is no ResNet-18, 34, 50 or 101.
    """
    weights = read_weights(location, NAMES_IN_EVERY_RESNET)
    weights = {name: value for name, value in weights.items() if not HEAD.match(name)}
    weights = {name.replace(".shortcut.", ".downsample."): value for name, value in weights.items()}  # common for CIFAR
    blocks = tuple(len({n.split(".")[1] for n in weights if n.startswith(f"layer{i}.")}) for i in range(1, 5))
    backbone = RESNETS.get((blocks, "layer1.0.conv3.weight" in weights))
    if backbone is None:
        raise ValueError(f"its stages have {blocks} blocks, which is no ResNet-18, 34, 50 or 101")
    stem = "cifar" if "conv1.weight" in weights and weights["conv1.weight"].shape[2:] == (3, 3) else "imagenet"
    encoder = build_encoder(backbone, stem=stem, seed=0)
    load_all_weights(encoder.backbone, weights, f"a {backbone} with the {stem} stem")
    return encoder, stem
