"""A folder that transformers opens without code of its own."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infomax.exporting.export_format import Format, LoadingCode, quoted
from infomax.exporting.formats.timm import misfit as timm_misfit
from infomax.exporting.formats.timm import write as write_timm_folder
from infomax.exporting.head import classes_of
from infomax.runtime.extras import how_to_install

if TYPE_CHECKING:
    from infomax.models.encoders import Encoder

PIL_BILINEAR, PIL_BICUBIC = 2, 3


def _is_transformers(encoder: "Encoder") -> bool:
    return encoder.settings.backbone.startswith("hf:")


def misfit(encoder: "Encoder") -> str:
    """Returns why transformers cannot open an encoder's network; empty if it can.

    It opens its own networks, and those of timm. Any other would need a folder with code, which whoever opens it has to
    trust and run (docs/decisions.md, export-no-code).
    """
    pixel_format = encoder.preprocessing.pixel_format
    if not pixel_format.is_rgb:
        return f"the image processors of transformers take 8-bit RGB, and the encoder takes {pixel_format}"
    if _is_transformers(encoder):
        return "" if not classes_of(encoder) else "its own networks have classifiers of other kinds in transformers"
    if classes_of(encoder) or not timm_misfit(encoder):
        return timm_misfit(encoder)
    return (
        f"{timm_misfit(encoder)}, and so a folder for transformers would have to carry code, which whoever opens it "
        "must trust (decision export-no-code)"
    )


def write(encoder: "Encoder", path: Path, normalise_inside: bool) -> dict[str, str]:
    """Writes the configuration, the weights and the configuration of the image processor."""
    if not _is_transformers(encoder):
        return write_timm_folder(encoder, path, normalise_inside)
    network: Any = encoder.backbone
    network.model.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(_processor_config(encoder), indent=2))
    return {"architecture": f"{type(network.model).__name__} of transformers"}


def _processor_config(encoder: "Encoder") -> dict[str, Any]:
    """Returns the configuration of CLIP's image processor, which resizes, crops the centre and normalises."""
    shown = encoder.preprocessing
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": shown.resize},
        "resample": PIL_BICUBIC if shown.bicubic else PIL_BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": shown.size, "width": shown.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(shown.mean),
        "image_std": list(shown.std),
    }


def code(encoder: "Encoder", path: str, normalise_inside: bool) -> LoadingCode:
    """Returns the code by which transformers opens the folder."""
    kind = "AutoModelForImageClassification" if classes_of(encoder) else "AutoModel"
    setup = f"""from transformers import AutoImageProcessor, {kind}

model = {kind}.from_pretrained({quoted(path)}{_options(encoder)}).eval()
processor = AutoImageProcessor.from_pretrained({quoted(path)})
"""
    return LoadingCode(setup, 'processor(image, return_tensors="pt")["pixel_values"]', _features(encoder))


def _options(encoder: "Encoder") -> str:
    """Returns the arguments that leave out a pooler without weights, which transformers would draw at random."""
    network: Any = getattr(encoder.backbone, "model", None)
    is_without = _is_transformers(encoder) and hasattr(network, "pooler") and network.pooler is None
    return ", add_pooling_layer=False" if is_without else ""


def _features(encoder: "Encoder") -> str:
    """Returns the expression of the features, as the encoder pools them."""
    outputs = "model(pixel_values=batch)"
    if classes_of(encoder):
        return f"{outputs}.logits"
    if not _is_transformers(encoder):
        return f"{outputs}.pooler_output"
    import torch

    size = encoder.preprocessing.size
    network: Any = encoder.backbone
    with torch.no_grad():
        images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        output, features = network.model(pixel_values=images), network(images)
    pooled, hidden = getattr(output, "pooler_output", None), output.last_hidden_state
    candidates = {f"{outputs}.pooler_output.flatten(1)": pooled if pooled is None else pooled.flatten(1)}
    if hidden.ndim == 4:
        candidates[f"{outputs}.last_hidden_state.mean((2, 3))"] = hidden.mean((2, 3))
    else:
        candidates[f"{outputs}.last_hidden_state[:, 0]"] = hidden[:, 0]
        candidates[f"{outputs}.last_hidden_state.mean(1)"] = hidden.mean(1)
        candidates[f"{outputs}.last_hidden_state[:, 1:].mean(1)"] = hidden[:, 1:].mean(1)
    for expression, value in candidates.items():
        if value is not None and value.shape == features.shape and torch.equal(value, features):
            return expression
    raise ValueError(f"--format huggingface: {encoder.settings.backbone} pools its features as transformers does not")


HUGGING_FACE = Format(
    name="huggingface",
    library="transformers",
    description="a folder for transformers.AutoModel",
    packages=("transformers", "timm"),
    install=how_to_install("huggingface"),
    misfit=misfit,
    write=write,
    code=code,
)
