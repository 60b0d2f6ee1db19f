"""Weights from anybody's file: finds them below any prefix and in any known layout, and loads all of them or none."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from infomax.models.layouts import LAYOUTS, Layout, Weights
from infomax.models.sharded_files import read_weights_file
from infomax.runtime.text import note

LISTED_NAMES = 3  # in a message
DEEPEST_MODULE = 50  # levels; a file may hold a module that is a part of itself
OPTIMIZER_NAMES = ("exp_avg", "exp_avg_sq", "momentum_buffer", "mu", "step")
"""What optimizers keep of each parameter."""
HUGGING_FACE_NAMES = re.compile(r"(^|\.)(embeddings\.|encoder\.(layers?|stages)\.\d+\.(attention|layers?)\b)")


@dataclass(frozen=True)
class Location:
    """A frozen dataclass that holds the parts of ``FILE#PREFIX,heads=N,padding=N``; all but the file may be missing."""

    file: str
    prefix: str = ""
    """The prefix of the encoder to take, or a part of it."""
    chosen: bool = False
    """Whether the user gave a prefix, which may be empty."""
    heads: int | None = None
    """The number of attention heads of a transformer."""
    padding: int | None = None
    """The padding of a ResNet's stem for small images, in pixels."""


def parse_location(text: str) -> Location:
    """Splits ``FILE#PREFIX,heads=N,padding=N`` into its parts.

    Raises:
        ValueError: If there is no such file, or a number is none.
    """
    if Path(text).is_file():
        return Location(text)
    file, _, fragment = text.rpartition("#")
    if not Path(file or text).exists():
        raise ValueError(f"there is no file {file or text}")
    if not file:
        return Location(text)
    numbers: dict[str, int] = {}
    while match := re.search(r"(?:^|,)(heads|padding)=([^,]*)$", fragment):
        if not re.fullmatch(r"\d{1,4}", match[2]):
            raise ValueError(f"{match[1]} must be a number from 0 to 9999, but is {match[2]!r}")
        numbers[match[1]] = int(match[2])
        if match.start() == 0:
            return Location(file, heads=numbers.get("heads"), padding=numbers.get("padding"))
        fragment = fragment[: match.start()]
    return Location(file, fragment, chosen=True, heads=numbers.get("heads"), padding=numbers.get("padding"))


@dataclass(frozen=True)
class FoundWeights:
    """A frozen dataclass that holds the weights of one encoder in a file."""

    weights: Weights
    """The weights by our names, or by those of the model that they are for."""
    prefix: str
    """Their common prefix in the file."""
    layout: Layout
    """The layout that they had there."""
    beside: frozenset[str] = frozenset()
    """The names of the other weights of the module that has the encoder as a part, as ``classifier.weight``."""


def find_encoder(location: Location) -> FoundWeights:
    """Finds the one encoder in a file: weights of any known layout below any prefix. No code in the file is run.

    An encoder is where more than half of a layout's names stand below one prefix, at any depth of nested dictionaries.
    So ``state_dict``, ``model``, ``module.``, ``backbone.``, ``encoder_q.`` and the like need no list.

    Args:
        location: A safetensors file, or a file of torch.save. If it holds several encoders, the prefix chooses one.

    Raises:
        ValueError: If the file cannot be read, if it holds no encoder, or if it holds several and the prefix chooses
            none or many of them.
    """
    encoders, tables = {}, list(_tensor_dictionaries(read_weights_file(Path(location.file))))
    for path, table in tables:
        for layout in LAYOUTS:
            for prefix, weights in _weights_below_prefixes(table, layout.names, layout.required):
                if path + prefix not in encoders and layout.fits(weights):
                    beside = _names_beside(table, prefix)
                    encoders[path + prefix] = FoundWeights(layout.rename(weights), path + prefix, layout, beside)
    if not encoders:
        raise ValueError(_why_no_encoder(location.file, tables))
    return _choose(location, encoders)


def find_weights(location: Location, names: Collection[str]) -> FoundWeights:
    """Finds the weights of one model in a file, whose names are those of the model or of a known layout.

    Args:
        location: A safetensors file, or a file of torch.save. If it holds several encoders, the prefix chooses one.
        names: The names of the model's weights.

    Raises:
        ValueError: As :func:`find_encoder`.
    """
    expected = set(names)
    plain = Layout("ResNet", "the model itself", tuple(names))
    encoders: dict[str, FoundWeights] = {}
    tables = list(_tensor_dictionaries(read_weights_file(Path(location.file))))
    for path, table in tables:
        for layout in (plain, *LAYOUTS):
            for prefix, below in _weights_below_prefixes(table, layout.names, layout.required):
                if not layout.fits(below):
                    continue
                weights = layout.rename(below)
                known = len(expected.intersection(weights))
                other = encoders.get(path + prefix)
                better = other is None or known > len(expected.intersection(other.weights))
                if 2 * known > len(expected) and better:
                    encoders[path + prefix] = FoundWeights(weights, path + prefix, layout)
    if not encoders:
        all_names = [path + name for path, table in tables for name in table]
        first, last = plain.names[0], plain.names[-1]
        raise ValueError(
            f"{location.file} holds no such encoder: more than half of its names, as {first} and {last}, must stand "
            f"below one prefix, but there are {', '.join(all_names[:LISTED_NAMES]) or 'no tensors'}"
        )
    return _choose(location, encoders)


def _names_beside(table: Weights, prefix: str) -> frozenset[str]:
    """Returns the names in the module that has the encoder as a part, as ``classifier.weight`` beside ``backbone.``."""
    parent = re.sub(r"[^.]*\.$", "", prefix)
    return frozenset(n.removeprefix(parent) for n in table if n.startswith(parent) and not n.startswith(prefix))


def _choose(location: Location, encoders: Mapping[str, FoundWeights]) -> FoundWeights:
    """Returns the encoder that the user chose, or the only one.

    Raises:
        ValueError: If the prefix chooses none or many of them.
    """
    if location.chosen and location.prefix in encoders:
        return encoders[location.prefix]
    matches = [prefix for prefix in encoders if location.prefix in prefix]
    # "backbone." is a part of "momentum_backbone." too.
    whole = [prefix for prefix in matches if f".{location.prefix.rstrip('.')}." in f".{prefix}"]
    if len(whole) == 1 and location.prefix:
        matches = whole
    if len(matches) != 1:
        listed = ", ".join(repr(prefix) for prefix in encoders)
        raise ValueError(
            f"{location.file} holds encoders below {listed}; choose one, as {location.file}#{next(iter(encoders))}"
        )
    return encoders[matches[0]]


def _weights_below_prefixes(
    table: Weights, names: Collection[str], required: Collection[str]
) -> Iterator[tuple[str, Weights]]:
    """Yields each prefix in a table below which an encoder stands, and the weights there by the rest of their names."""
    prefixes = _encoder_prefixes(table, set(names), required)
    for prefix in prefixes:
        longer = tuple(other for other in prefixes if len(other) > len(prefix))
        below = [name for name in table if name.startswith(prefix) and not name.startswith(longer)]
        yield prefix, {name[len(prefix) :]: table[name] for name in below}


def _why_no_encoder(file: str, tables: list[tuple[str, Weights]]) -> str:
    """Returns the message about a file that holds no encoder of a known layout."""
    names = [path + name for path, table in tables for name in table]
    listed = ", ".join(names[:LISTED_NAMES])
    if not names:
        return f"{file} holds no such encoder: there are no tensors in it"
    if all(name.rpartition(".")[2] in OPTIMIZER_NAMES for name in names):
        return f"{file} holds the state of an optimizer alone, as {listed}, and no weights"
    if any(name.endswith("patch_embed.proj.0.weight") for name in names):
        return f"{file} holds a vision transformer with a stem of convolutions, as MoCo v3's vit_conv, which timm lacks"
    hint = "timm:NAME@FILE and torchvision:NAME@FILE load others"
    if any(HUGGING_FACE_NAMES.search(name) for name in names):
        hint += ", and hf:FOLDER those of transformers, with the config.json beside them"
    return (
        f"{file} holds no such encoder: neither a ResNet nor a vision transformer or ConvNeXt under names that are "
        f"known here, but {listed}; {hint}"
    )


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


def _encoder_prefixes(table: Mapping[str, Tensor], names: set[str], required: Collection[str]) -> list[str]:
    """Returns the prefixes in ``table`` below which more than half of ``names`` stand, and all of ``required``."""
    counts = Counter()
    for key in table:
        cuts = [0, *(dot.end() for dot in re.finditer(r"\.", key))]
        counts.update(key[:cut] for cut in cuts if key[cut:] in names)
    return [
        prefix
        for prefix, count in counts.items()
        if 2 * count > len(names) and all(prefix + name in table for name in required)
    ]


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
