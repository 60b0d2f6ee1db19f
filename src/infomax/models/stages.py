"""Divides a backbone into stages, in order from the input, so that the first of them can be frozen or trained slowly.

Of timm's models, ours of timm among them, the stages are those of timm's own ``group_matcher``: the stem, and then the
four stages of a ResNet or the blocks of a vision transformer. Models of other libraries have no such list. There the
stages are the modules with numbered names, as ``layer1`` to ``layer4`` or ``encoder.layer.0`` to ``encoder.layer.11``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from infomax.models.encoders import Encoder
from infomax.nn.blocks import Chain

LISTED_STAGES = 8  # of a longer list, a message has the first ones and the last one
NUMBERED = re.compile(r"\D*(?=\d)")
SMALL_STAGES = ("stem", "block1", "block2", "block3")
UNMATCHED = "infomax: matches no stage"


@dataclass(frozen=True)
class BackboneStage:
    """A frozen dataclass that holds a stage of a backbone."""

    name: str
    """``stem``, or the name of the modules of this stage, as ``layer1`` or ``blocks.0``."""
    tensors: tuple[str, ...]
    """Names of the parameters and buffers of this stage in the backbone."""


def backbone_stages(backbone: nn.Module) -> list[BackboneStage]:
    """Returns the stages of a backbone in order from the input; each parameter and buffer belongs to one of them.

    What follows the last block, as the final normalisation, belongs to the last stage.

    Args:
        backbone: The backbone of an :class:`infomax.models.encoders.Encoder`.

    Example:
        >>> from infomax.models.encoders import build_encoder
        >>> from infomax.models.stages import backbone_stages
        >>> [stage.name for stage in backbone_stages(build_encoder("small", stem="cifar", seed=0).backbone)]
        ['stem', 'block1', 'block2', 'block3']
    """
    prefix, network = _without_wrappers(backbone)
    is_timm = hasattr(network, "group_matcher")
    stages = _with_matrices(network, _stages_of_timm(network) if is_timm else _stages_of_modules(network))
    if isinstance(network, Chain) and len(stages) == len(SMALL_STAGES):
        stages = dict(zip(SMALL_STAGES, stages.values(), strict=True))
    return [
        BackboneStage(prefix + name if name.isdecimal() else name, tuple(prefix + tensor for tensor in tensors))
        for name, tensors in stages.items()
    ]


def describe_stages(stages: list[BackboneStage]) -> str:
    """Returns the number and the names of stages, as ``5 stages: stem, layer1, layer2, layer3, layer4``."""
    names = [stage.name for stage in stages]
    if len(names) > LISTED_STAGES:
        names[3:-1] = ["..."]
    return f"{len(stages)} stage{'s' * (len(stages) != 1)}: {', '.join(names)}"


def freeze_stages(encoder: Encoder, count: int, *, title: str = "the encoder") -> None:
    """Freezes the first stages of an encoder: their parameters have no gradient, and their buffers stay as they are.

    From now on their modules are always in evaluation mode, so that BatchNorm keeps its statistics and normalises by
    them, and nothing is dropped at random. As nothing in front of the trained stages needs a gradient, the frozen ones
    run without a graph. A copy of the encoder is frozen likewise.

    Args:
        encoder: The encoder, which is changed.
        count: The number of stages, from 0 to all of them.
        title: The words for the encoder in a message.

    Raises:
        ValueError: If the encoder does not have so many stages.
    """
    if count == 0:
        return
    stages = backbone_stages(encoder.backbone)
    if not 0 < count <= len(stages):
        raise ValueError(f"{title} has {describe_stages(stages)}; --freeze takes 0 to {len(stages)}, but is {count}")
    frozen = {name for stage in stages[:count] for name in stage.tensors}
    for name, parameter in encoder.backbone.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    encoder.frozen_modules = tuple(_modules_within(encoder.backbone, frozen, ""))
    encoder.train(encoder.training)


def rate_factors(encoder: Encoder, *, backbone_rate: float, layer_decay: float) -> dict[Tensor, float]:
    """Returns the factor of the learning rate of each parameter of an encoder.

    The rate of a stage is ``layer_decay`` times that of the stage after it (BEiT; Bao, Dong, Piao, Wei 2022), and that
    of the last stage is ``layer_decay`` times the one of what follows the encoder, which has no factor. All are
    multiplied by ``backbone_rate``.

    Args:
        encoder: The encoder.
        backbone_rate: The factor of all its parameters.
        layer_decay: The further factor from each stage to the one before it.
    """
    parameters = dict(encoder.backbone.named_parameters())
    factors: dict[Tensor, float] = {}
    stages = backbone_stages(encoder.backbone)
    for distance, stage in enumerate(reversed(stages), start=1):
        factor = backbone_rate * layer_decay**distance
        factors |= {parameters[name]: factor for name in stage.tensors if name in parameters}
    return factors


def _without_wrappers(backbone: nn.Module) -> tuple[str, nn.Module]:
    """Returns the network within modules that hold nothing else, and the prefix of its names."""
    prefix, network = "", backbone
    while not hasattr(network, "group_matcher"):
        children = _children_with_tensors(network)
        if len(children) != 1 or _own_tensors(network):
            break
        ((name, network),) = children.items()
        prefix += f"{name}."
    return prefix, network


def _own_tensors(module: nn.Module) -> list[str]:
    """Returns the names of the parameters and buffers that a module holds itself."""
    return [
        *(name for name, _ in module.named_parameters(recurse=False)),
        *(name for name, _ in module.named_buffers(recurse=False)),
    ]


def _tensor_names(module: nn.Module) -> list[str]:
    """Returns the names of all parameters and buffers, in the order in which the modules were defined.

    A tensor that has several names is there once.
    """
    unique = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    names = [
        f"{place}.{name}" if place else name for place, part in module.named_modules() for name in _own_tensors(part)
    ]
    return [name for name in names if name in unique]


def _with_matrices(network: nn.Module, stages: dict[str, list[str]]) -> dict[str, list[str]]:
    """Joins each stage without a matrix, as a BatchNorm beside its convolution, with the one before it."""
    matrices = {name for name, parameter in network.named_parameters() if parameter.ndim > 1}
    joined: dict[str, list[str]] = {}
    for stage, tensors in stages.items():
        if joined and matrices.isdisjoint(tensors):
            tensors = joined.pop(stage := next(reversed(joined))) + tensors
        joined[stage] = tensors
    return joined


def _children_with_tensors(module: nn.Module) -> dict[str, nn.Module]:
    """Returns the children of a module that have any parameter or buffer."""
    return {name: child for name, child in module.named_children() if _tensor_names(child)}


class _Names:
    """Stands in for a module where timm asks for the names of its parameters, so that it groups buffers likewise."""

    def __init__(self, names: list[str]):
        self.names = names

    def named_parameters(self) -> Iterator[tuple[str, None]]:
        return ((name, None) for name in self.names)


def _stages_of_timm(network: Any) -> dict[str, list[str]]:
    """Returns the names of the tensors of each stage, by the names of the stages, as timm groups them."""
    from timm.models import group_parameters  # a model of timm is there, so that timm is imported already

    names = [*_tensor_names(network), UNMATCHED]
    stand_in: Any = _Names(names)
    group_of: Any = group_parameters(stand_in, network.group_matcher(coarse=True), reverse=True)
    unmatched = group_of.pop(UNMATCHED)
    groups = sorted(set(group_of.values()) - {unmatched}) or [unmatched]
    members: dict[int, list[str]] = {group: [] for group in groups}
    for name in names[:-1]:  # what has no group, as the normalisation in a head, follows the blocks
        members[group_of[name] if group_of[name] in members else groups[-1]].append(name)
    return {_stage_name(group, members): members[group] for group in groups}


def _stage_name(group: int, members: dict[int, list[str]]) -> str:
    """Returns the shortest prefix of a stage's first tensor that no other stage has; that of a stem is ``stem``."""
    parts = members[group][0].split(".")
    others = [name.split(".") for other, names in members.items() if other != group for name in names]
    lengths = range(1, len(parts) + 1)
    length = next((n for n in lengths if all(name[:n] != parts[:n] for name in others)), len(parts))
    name = ".".join(parts[:length])
    is_numbered_module = NUMBERED.match(parts[length - 1]) is not None and all(
        other.split(".")[:length] == parts[:length] for other in members[group]
    )
    return "stem" if group == min(members) and not is_numbered_module else name


def _stages_of_modules(network: nn.Module) -> dict[str, list[str]]:
    """Returns the names of the tensors of each stage, by the names of the stages, which are numbered modules."""
    stages: dict[str, list[str]] = {}
    prefixes = _numbered_modules(network)
    current = "stem"
    for tensor in _tensor_names(network):
        prefix = next((prefix for prefix in prefixes if tensor.startswith(prefix)), None)
        if prefix is not None:
            current = prefixes[prefix]
        stages.setdefault(current, []).append(tensor)
    return stages


def _numbered_modules(network: nn.Module) -> dict[str, str]:
    """Returns the names of the stages by the prefixes of their tensors.

    From the outermost module on, the child with the most tensors is followed until there are several children whose
    names differ by a number alone. A list of modules beside that of the blocks that is as long, as that of the patch
    embeddings in PVT, is divided likewise.
    """
    place, level, parent = "", network, None
    while True:
        children = _children_with_tensors(level)
        names = _largest_series(children)
        if names or not children:
            break
        name = max(children, key=lambda name: len(_tensor_names(children[name])))
        parent, level = (place, level), children[name]
        place += f"{name}."
    if not names:
        names, place, parent = list(_children_with_tensors(network)), "", None
        children = _children_with_tensors(network)
    prefixes = {f"{place}{name}.": f"{place}{name}" for name in names}
    if parent is not None and isinstance(level, nn.ModuleList):
        for name, sibling in parent[1].named_children():
            if sibling is not level and isinstance(sibling, nn.ModuleList) and len(sibling) == len(level):
                prefixes |= {f"{parent[0]}{name}.{number}.": f"{place}{number}" for number in names}
    return prefixes


def _largest_series(children: dict[str, nn.Module]) -> list[str]:
    """Returns the children whose names differ by a number alone, two or more; of several series the largest."""
    series: dict[str, list[str]] = {}
    for name in children:
        if (match := NUMBERED.match(name)) is not None:
            series.setdefault(match.group(), []).append(name)
    longer = [names for names in series.values() if len(names) > 1]
    return max(longer, key=lambda names: sum(len(_tensor_names(children[name])) for name in names), default=[])


def _modules_within(module: nn.Module, frozen: set[str], place: str) -> Iterator[str]:
    """Yields the names of the outermost modules whose tensors are all frozen."""
    names = [f"{place}.{name}" if place else name for name in _tensor_names(module)]
    if names and frozen.issuperset(names):
        yield place
        return
    for name, child in module.named_children():
        yield from _modules_within(child, frozen, f"{place}.{name}" if place else name)
