"""Which encoders fit which format, and what each format writes."""

import json
from dataclasses import asdict

import pytest
import torch

from encoder_files import used
from infomax.data.augmentation.views import Preprocessing
from infomax.exporting.export_format import LoadingCode
from infomax.exporting.formats import FORMATS, OTHER_NAMES, timm
from infomax.exporting.options import ExportOptions
from infomax.models.encoder_files import load_encoder_file, save_encoder_file
from infomax.models.encoders import build_encoder
from infomax.models.pretrained import open_encoder
from infomax.runtime.options import option_fields

ANY = {"safetensors", "onnx", "torch-export"}
FITS = {
    ("small", "cifar"): ANY,
    ("small", "imagenet"): ANY,
    ("resnet18", "imagenet"): ANY | {"timm", "torchvision", "huggingface"},
    ("resnet18", "cifar"): ANY,
    ("vit_small", "imagenet"): ANY | {"timm", "huggingface"},
    ("timm:test_vit", "imagenet"): ANY | {"timm", "huggingface"},
    ("timm:resnet18", "imagenet"): ANY | {"timm", "torchvision", "huggingface"},
    ("timm:resnet18d", "imagenet"): ANY | {"timm", "huggingface"},
    ("torchvision:shufflenet_v2_x0_5", "imagenet"): ANY | {"torchvision"},
}


def encoder(backbone="small", stem="cifar", size=16, resize=18, **settings):
    """An encoder as a run folder gives it, with statistics that matter."""
    built = build_encoder(backbone, stem=stem, seed=0, **settings)
    used(built)
    built.preprocessing = Preprocessing(resize=resize, size=size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    return built


@pytest.mark.parametrize(("backbone", "stem"), FITS)
def test_each_encoder_fits_these_formats_and_every_refusal_has_a_reason(backbone, stem):
    reasons = {name: kind.misfit(encoder(backbone, stem)) for name, kind in FORMATS.items()}
    assert {name for name, reason in reasons.items() if not reason} == FITS[backbone, stem]
    assert all("\n" not in reason for reason in reasons.values())


def test_the_reasons_name_what_is_missing():
    assert FORMATS["timm"].misfit(encoder()) == "timm has no network small"
    assert "must trust" in FORMATS["huggingface"].misfit(encoder())
    assert "stem for small images" in FORMATS["torchvision"].misfit(encoder("resnet18"))
    assert "has other weights than timm:efficientnet_b0" in FORMATS["torchvision"].misfit(
        encoder("timm:efficientnet_b0", "imagenet")
    )


def test_each_format_has_one_file_of_its_name_and_other_names_lead_to_formats():
    for name, kind in FORMATS.items():
        assert kind.name == name
        assert kind.write.__module__ == f"infomax.exporting.formats.{name.replace('-', '_')}"
    assert set(OTHER_NAMES.values()) <= FORMATS.keys()
    (field,) = (field for field in option_fields(ExportOptions) if field.name == "format")
    assert field.shown.metavar == "|".join(FORMATS)


def test_timm_resizes_to_exactly_the_size_of_the_preprocessing():
    import math

    for resize in range(1, 400):
        for size in range(1, resize + 1):
            assert math.floor(size / timm.crop_share(resize, size)) == resize


@pytest.mark.parametrize("pooling", ["token", "avg"])
@pytest.mark.parametrize("image_size", [None, 32])
@pytest.mark.parametrize(
    "options", [None, '{"num_heads": 4, "reg_tokens": 2, "init_values": 0.1}', '{"fc_norm": true}']
)
def test_timm_builds_a_transformer_with_its_size_pooling_and_options(pooling, image_size, options):
    """The arguments on file give the same network: the same names, shapes and features."""
    import timm as library

    settings = {"pooling": pooling, "image_size": image_size, "architecture_config": options}
    ours = encoder("timm:test_vit", "imagenet", size=32, resize=36, **settings)
    architecture, arguments = timm.timm_arguments(ours)
    theirs = library.create_model(architecture, num_classes=0, **arguments).eval()
    theirs.load_state_dict(ours.backbone.state_dict(), strict=True)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(theirs(images), ours(images))


def test_timm_builds_a_transformer_with_its_options():
    """The number of heads is in no shape."""
    import timm as library

    options = {"embed_dim": 48, "depth": 1, "num_heads": 12, "patch_size": 4}
    config = json.dumps(options)
    ours = build_encoder("timm:vit_base_patch16_224", image_size=16, architecture_config=config, seed=0).eval()
    architecture, arguments = timm.timm_arguments(ours)
    theirs = library.create_model(architecture, num_classes=0, **arguments).eval()
    theirs.load_state_dict(ours.backbone.state_dict(), strict=True)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(theirs(images), ours(images))


@pytest.mark.parametrize("backbone", ["small", "timm:test_vit"])
def test_a_file_of_safetensors_holds_an_encoder_whole(tmp_path, backbone):
    ours = encoder(backbone, "imagenet", size=32, resize=36)
    save_encoder_file(ours, tmp_path / "a.safetensors")
    again = open_encoder(tmp_path / "a.safetensors")
    assert (again.preprocessing, again.settings) == (ours.preprocessing, ours.settings)
    assert not again.training
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), ours(images))


def test_a_file_whose_description_is_wrong_is_named_in_one_line(tmp_path):
    import safetensors.torch

    ours = encoder()
    description = {"encoder": asdict(ours.settings), "preprocessing": asdict(ours.preprocessing)}
    weights = {name: value.contiguous() for name, value in ours.backbone.state_dict().items()}
    import json

    cases = {
        "{": "infomax is damaged",
        json.dumps({**description, "encoder": {**description["encoder"], "backbone": "os.mkdir"}}): "backbone must be",
        json.dumps({**description, "encoder": {**description["encoder"], "stem": "imagenet"}}): "",
        json.dumps({**description, "encoder": {**description["encoder"], "backbone": "resnet18"}}): "do not fit",
        json.dumps({"encoder": description["encoder"]}): "preprocessing",
    }
    file = tmp_path / "a.safetensors"
    for content, message in cases.items():
        safetensors.torch.save_file(weights, file, metadata={"infomax": content})
        if not message:  # the other stem has the same weights
            assert open_encoder(file).settings.stem == "imagenet"
            continue
        with pytest.raises(ValueError, match=message) as raised:
            open_encoder(file)
        assert str(file) in str(raised.value)
        assert "\n" not in str(raised.value)
    safetensors.torch.save_file(weights, file)
    assert load_encoder_file(file) is None  # then it is a checkpoint like any other
    file.write_bytes(b"no safetensors")
    assert load_encoder_file(file) is None


@pytest.mark.parametrize("name", FORMATS)
def test_the_code_of_each_format_is_python_that_needs_no_infomax(name):
    fitting = encoder("resnet18", "imagenet")
    kind = FORMATS[name]
    for inside in (False, True) if kind.takes_normalise else (False,):
        code = kind.code(fitting, 'a "quoted" place', inside)
        assert isinstance(code, LoadingCode)
        compile(code.with_image(), name, "exec")
        assert ("import infomax" in code.setup or "from infomax" in code.setup) == (name == "safetensors")
