"""A folder with a state dict that fits torchvision's own model to the last key, the classifier left out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infomax.data.pixel_format import RGB
from infomax.exporting.export_format import Format, LoadingCode, quoted
from infomax.exporting.formats.timm import shapes
from infomax.exporting.head import classes_of, head_tensors
from infomax.exporting.preparation import prepare_by_torchvision, prepare_numbers, reading_code

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder

WEIGHTS = "weights.pth"


def torchvision_name(encoder: "Encoder") -> str | None:
    """Returns torchvision's name for an encoder's network; None if there is none by that name."""
    settings = encoder.settings
    library, colon, name = settings.backbone.partition(":")
    if not colon:
        return library if library.startswith("resnet") and settings.stem == "imagenet" else None
    from torchvision import models

    name = name.partition(".")[0]
    return name if library in ("torchvision", "timm") and name in models.list_models(module=models) else None


def _arguments(encoder: "Encoder", name: str) -> dict[str, Any]:
    """Returns the arguments with which torchvision builds the network."""
    from infomax.models.library_backbones import AUXILIARY

    size = encoder.settings.image_size
    arguments: dict[str, Any] = {} if size is None or not name.startswith("vit_") else {"image_size": size}
    if name in AUXILIARY:  # it would take seconds to draw weights
        arguments |= {"transform_input": True, "aux_logits": AUXILIARY[name], "init_weights": False}
    return arguments


def _build(encoder: "Encoder", name: str) -> tuple[Any, str]:
    """Builds torchvision's network without weights and without its classifier, the last layer, which it names."""
    import torch
    from torch import nn
    from torchvision import models

    from infomax.models.input_channels import set_input_channels

    with torch.device("meta"):  # only its keys and shapes are wanted
        network = models.get_model(name, weights=None, **_arguments(encoder, name))
        if encoder.settings.channels != RGB.channels:
            set_input_channels(network, encoder.settings.channels)
    classifier = [n for n, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    network.set_submodule(classifier, nn.Identity())
    return network, classifier


def misfit(encoder: "Encoder") -> str:
    """Returns why torchvision cannot build an encoder's network; empty if it can."""
    settings = encoder.settings
    name = torchvision_name(encoder)
    if name is None:
        if settings.stem != "imagenet" and settings.backbone.startswith("resnet"):
            return f"torchvision's {settings.backbone} has no stem for small images (encoder.stem={settings.stem})"
        if settings.backbone == "vit_small":
            return "torchvision has no vision transformer of this width and number of heads"
        return f"torchvision has no network {settings.backbone}"
    network, _ = _build(encoder, name)
    expected, weights = shapes(network), shapes(encoder.backbone)
    if different := sorted(key for key in {*expected, *weights} if expected.get(key) != weights.get(key)):
        return f"torchvision's {name} has other weights than {settings.backbone}, as {different[0]}"
    if classes_of(encoder) and name.startswith("squeezenet"):
        return f"torchvision's {name} has a convolution in the place of a linear classifier"
    return ""


def write(encoder: "Encoder", path: Path, normalise_inside: bool) -> dict[str, str]:
    """Writes the state dict; it holds tensors alone, and so opens without running code."""
    import torch

    name = torchvision_name(encoder)
    assert name is not None
    _, classifier = _build(encoder, name)
    torch.save({**encoder.backbone.state_dict(), **head_tensors(encoder, classifier)}, path / WEIGHTS)
    count = len(classes_of(encoder))
    rest = f"with a classifier of {count} classes" if count else "without its classifier"
    return {"architecture": f"torchvision's {name} {rest}"}


def code(encoder: "Encoder", path: str, normalise_inside: bool) -> LoadingCode:
    """Returns the code by which torchvision opens the folder."""
    name = torchvision_name(encoder)
    assert name is not None
    _, classifier = _build(encoder, name)
    arguments = "".join(f", {key}={value!r}" for key, value in _arguments(encoder, name).items())
    file, layer = f"{path}/{WEIGHTS}", "torch.nn.Identity()"
    if classes := classes_of(encoder):
        layer = f"torch.nn.Linear({encoder.width}, {len(classes)})"
    if encoder.preprocessing.pixel_format.is_rgb:
        imports, prepare, batch = _BY_TRANSFORMS, prepare_by_torchvision(encoder), "prepare(image).unsqueeze(0)"
    else:
        imports, prepare = _BY_NUMBERS, f"\n\n{prepare_numbers(encoder.preprocessing, False)}\n"
        batch = "torch.from_numpy(prepare(image))"
    setup = f"""{imports}

model = torchvision.models.get_model({quoted(name)}, weights=None{arguments})
{_first_layer_code(encoder)}model.set_submodule({quoted(classifier)}, {layer})
model.load_state_dict(torch.load({quoted(file)}, weights_only=True), strict=True)
model.eval()
{prepare}"""
    return LoadingCode(setup, batch, "model(batch)", reading_code(encoder))


_BY_TRANSFORMS = "import torch\nimport torchvision\nfrom torchvision.transforms import v2"
_BY_NUMBERS = "import numpy as np\nimport torch\nimport torchvision\nfrom PIL import Image"


def _first_layer_code(encoder: "Encoder") -> str:
    """Returns the statement that gives torchvision's network a first convolution for other channels than RGB's."""
    from infomax.models.input_channels import first_convolution

    if encoder.settings.channels == RGB.channels:
        return ""
    name, layer = first_convolution(encoder.backbone)
    arguments = f"{layer.in_channels}, {layer.out_channels}, {layer.kernel_size}, {layer.stride}, {layer.padding!r}"
    return f"model.set_submodule({quoted(name)}, torch.nn.Conv2d({arguments}, bias={layer.bias is not None}))\n"


TORCHVISION = Format(
    name="torchvision",
    library="torchvision",
    description="a folder with a state dict for torchvision.models",
    packages=("torchvision",),
    install="pip install torchvision",
    misfit=misfit,
    write=write,
    code=code,
)
