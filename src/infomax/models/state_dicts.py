"""Weights from anybody's file: finds them below any prefix, and loads all of them or none."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from infomax.models.encoders import Encoder, build_encoder
from infomax.models.foreign_files import read_tensors
from infomax.runtime.text import note

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
UNUSED = re.compile(r"mask_token$|decoder_(embed|pos_embed|blocks|norm|pred)\b|(queue|queue_ptr)$")
"""Matches weights of pretraining that no model uses for inference: the mask token of masked-image methods, the decoder
of MAE and the queue of MoCo."""
STEM_KERNEL = (3, 3)  # of a CIFAR stem
LISTED_NAMES = 3  # in a message
DEEPEST_MODULE = 50  # levels; a file may hold a module that is a part of itself


def read_weights(
    location: str,
    names: Sequence[str],
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> dict[str, Tensor]:
    """Reads the weights of the one encoder in a file, and cuts off their common prefix. No code in the file is run.

    An encoder is where more than half of ``names`` stand below one prefix, at any depth of nested dictionaries. So
    ``state_dict``, ``model``, ``module.``, ``backbone.``, ``encoder_q.`` and the like need no list.

    Args:
        location: A safetensors file, or a file of torch.save. If it holds several encoders, ``FILE#PREFIX`` chooses
            one, by its whole prefix or a part of it.
        names: The names of the encoder's weights, or some of them.
        rename: Gives the weights of each dictionary in the file the names to look for.

    Returns:
        The weights by their names below the prefix.

    Raises:
        ValueError: If the file cannot be read, if it holds no encoder, or if it holds several and the prefix chooses
            none or many of them.
    """
    file, _, chosen = (location, "", "") if Path(location).is_file() else location.rpartition("#")
    if not Path(file or location).exists():
        raise ValueError(f"there is no file {file or location}")
    encoders, all_names = {}, []
    for path, tensors in _tensor_dictionaries(read_tensors(Path(file or location))):
        table = rename(tensors)
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


def _tensor_dictionaries(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the path of each nested dictionary, and the tensors in it by name.

    A whole module, which a file keeps as a dictionary of its parameters, buffers and modules, is one dictionary.
    """
    seen, waiting = set(), [("", content)]
    while waiting:
        path, table = waiting.pop()
        if not isinstance(table, dict) or id(table) in seen:
            continue
        seen.add(id(table))
        if _is_module(table):
            yield path, dict(_module_tensors(table))
            continue
        # The methods are those of the class: a file may give a dictionary an attribute of the same name.
        items = [(str(key), value) for key, value in dict.items(table)]
        yield path, {key: value for key, value in items if isinstance(value, Tensor)}
        waiting += [(f"{path}{key}.", value) for key, value in reversed(items)]


def _is_module(table: dict[Any, Any]) -> bool:
    return all(isinstance(dict.get(table, part), dict) for part in ("_parameters", "_buffers", "_modules"))


def _module_tensors(module: dict[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yields the parameters and buffers of a whole module in a file, by their names in its state dict."""
    for part in ("_parameters", "_buffers"):
        for name, value in dict.items(module[part]):
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, child in dict.items(module["_modules"]):
        if isinstance(child, dict) and _is_module(child) and depth < DEEPEST_MODULE:
            yield from _module_tensors(child, f"{prefix}{name}.", depth + 1)


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


def leave_out(weights: Mapping[str, Tensor], unused: Callable[[str], bool], location: str) -> dict[str, Tensor]:
    """Returns the weights but the unused ones, and names those in a line on the standard error."""
    left_out = [name for name in weights if unused(name)]
    if left_out:
        parts = Counter(re.split(r"\.(?=\d|weight$|bias$)", name)[0] for name in left_out)
        listed = ", ".join(parts)
        note(f"{location}: left out, as inference does not use them: {listed}")
    return {name: value for name, value in weights.items() if name not in set(left_out)}


def _name_children(table: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names the layers of a ResNet that was saved as ``nn.Sequential`` of its children, as lightly's tutorials do.

    Child 0 is the first convolution, 1 its BatchNorm, and four in a row are the stages: 4 to 7 behind an activation and
    max-pooling, 3 to 6 behind an activation alone, and 2 to 5 if neither is a child. A stem of 7x7 without a pooling
    among its children is left as it is, because no encoder here has such a stem.
    """
    renamed = dict(table)
    for key, kernel in table.items():
        if not re.search(r"(^|\.)0\.weight$", key) or kernel.ndim != 4 or kernel.shape[1] != 3:
            continue
        prefix = key.removesuffix("0.weight")
        stages = [n for n in range(2, 9) if f"{prefix}{n}.0.conv1.weight" in table]
        pooled = stages[:1] == [4] or tuple(kernel.shape[2:]) == STEM_KERNEL
        if (
            f"{prefix}1.running_mean" not in table
            or stages not in ([2, 3, 4, 5], [3, 4, 5, 6], [4, 5, 6, 7])
            or not pooled
        ):
            continue
        layers = {"0": "conv1", "1": "bn1", **{str(n): f"layer{i}" for i, n in enumerate(stages, start=1)}}
        for name in table:
            child, dot, rest = name.removeprefix(prefix).partition(".")
            if name.startswith(prefix) and dot and child in layers:
                renamed[f"{prefix}{layers[child]}.{rest}"] = renamed.pop(name)
    return renamed


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
    weights = read_weights(location, NAMES_IN_EVERY_RESNET, _name_children)
    weights = leave_out(weights, lambda name: HEAD.match(name) is not None, location)
    weights = {name.replace(".shortcut.", ".downsample."): value for name, value in weights.items()}  # common for CIFAR
    blocks = tuple(len({n.split(".")[1] for n in weights if n.startswith(f"layer{i}.")}) for i in range(1, 5))
    backbone = RESNETS.get((blocks, "layer1.0.conv3.weight" in weights))
    if backbone is None:
        raise ValueError(f"its stages have {blocks} blocks, which is no ResNet-18, 34, 50 or 101")
    cifar = "conv1.weight" in weights and weights["conv1.weight"].shape[2:] == STEM_KERNEL
    stem = "cifar" if cifar else "imagenet"
    encoder = build_encoder(backbone, stem=stem, seed=0)
    load_all_weights(encoder.backbone, weights, f"a {backbone} with the {stem} stem")
    return encoder, stem
