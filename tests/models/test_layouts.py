"""Checkpoints in the layouts of other libraries open by their file alone, with the features of the model they are of.

The files are made from tiny models of timm and torchvision by the names that each library has for the same weights.
"""

import json
import re
from dataclasses import asdict

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import ConvNeXt, ResNet, VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock, Bottleneck

from encoder_files import below, message, used, written
from infomax.data.augmentation.views import CIFAR10_MEAN, IMAGENET_MEAN
from infomax.models.architectures import describe
from infomax.models.encoders import build_encoder
from infomax.models.layouts import LAYOUTS, drop_zero_biases, sine_positions
from infomax.models.pretrained import open_encoder
from infomax.models.state_dicts import FoundWeights, Location

TRANSFORMER = {"embed_dim": 128, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 48, "num_classes": 0}


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every weight numbers that matter, but for fixed positions."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return used(model)


def transformer(seed: int = 0, **options) -> nn.Module:
    return shaken(timm.create_model("vit_base_patch16_224", **{**TRANSFORMER, **options}), seed)


def renamed(weights: dict, *rules: tuple[str, str]) -> dict:
    """Renames weights by regular expressions, one after another."""
    result = {}
    for name, value in weights.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


@torch.no_grad()
def assert_same_bits(encoder, source, size: int) -> None:
    """Checks that features are the same to the bit, those of a network that is built by the settings too."""
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    expected = source(images)
    assert expected.std() > 1e-2
    assert torch.equal(encoder(images), expected)
    assert encoder.width == expected.shape[1]
    again = build_encoder(**asdict(encoder.settings)).eval()
    again.backbone.load_state_dict(encoder.backbone.state_dict())
    assert torch.equal(again(images), expected)


# Vision transformers


def with_sines(model: nn.Module, *, rows_first: bool = False) -> nn.Module:
    """Gives a transformer the fixed positions of MAE, or of MoCo v3."""
    side, width = model.patch_embed.grid_size[0], model.embed_dim
    positions = sine_positions(side, width)
    if rows_first:
        positions = torch.cat([positions[:, width // 2 :], positions[:, : width // 2]], 1)
    with torch.no_grad():
        model.pos_embed.copy_(F.pad(positions, (0, 0, 1, 0)))
    return model


def dino(model):
    other = {name: value + 1 for name, value in model.state_dict().items()}
    heads = {"mlp.0.weight": torch.zeros(2, 2), "last_layer.weight_g": torch.zeros(2, 1)}
    return {
        "student": below("module.backbone.", other) | below("module.head.", heads),
        "teacher": below("backbone.", model.state_dict()) | below("head.", heads),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
    }


def mae(model):
    decoder = {"decoder_embed.weight": torch.zeros(2, 2), "decoder_blocks.0.norm1.weight": torch.zeros(2)}
    decoder |= {
        "head.bias": torch.zeros(2),
        "mask_token": torch.zeros(1, 1, 2),
        "decoder_pos_embed": torch.zeros(1, 3, 2),
    }
    return {"model": model.state_dict() | decoder}


def moco(model):
    head = {"head.0.weight": torch.zeros(2, 2), "head.1.running_mean": torch.zeros(2)}
    momentum = {name: value + 1 for name, value in model.state_dict().items()}
    weights = below("module.base_encoder.", model.state_dict() | head)
    weights |= below("module.momentum_encoder.", momentum | head)
    return {"arch": "vit_small", "state_dict": weights | {"module.predictor.0.weight": torch.zeros(2, 2)}}


def i_jepa(model):
    predictor = {"predictor_blocks.0.attn.qkv.weight": torch.zeros(3, 1), "mask_token": torch.zeros(1, 1, 1)}
    other = {name: value + 1 for name, value in model.state_dict().items()}
    return {
        "encoder": below("module.", other),
        "predictor": below("module.", predictor),
        "target_encoder": below("module.", model.state_dict()),
    }


def lightly(model):
    beside = {"mask_token": torch.zeros(1, 1, 128)}
    return {"state_dict": below("backbone.", below("vit.", model.state_dict()) | beside)}


def solo_learn(model):
    beside = {"classifier.weight": torch.zeros(3, 3), "projector.0.weight": torch.zeros(3, 3)}
    momentum = {name: value + 1 for name, value in model.state_dict().items()}
    weights = below("backbone.", model.state_dict()) | below("momentum_backbone.", momentum)
    return {"state_dict": weights | beside, "pytorch-lightning_version": "2.1.2"}


def vissl(model):
    trunk = {"base_model": {"model": {"trunk": model.state_dict() | {"masked_embed": torch.zeros(1, 128)}}}}
    return {"classy_state_dict": trunk, "phase": 3}


def openmmlab(model):
    rules = (
        (r"^norm\.", "ln1."), (r"\.norm([12])\.", r".ln\1."), (r"^blocks\.", "layers."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."), (r"\.mlp\.fc2\.", ".ffn.layers.1."),
        (r"^patch_embed\.proj\.", "patch_embed.projection."), (r"\.ls1\.gamma", ".attn.gamma1.weight"),
        (r"\.ls2\.gamma", ".ffn.gamma2.weight"),
    )  # fmt: skip
    return {"state_dict": below("backbone.", renamed(model.state_dict(), *rules)), "meta": {"epoch": 3}}


def dino_v2(model):
    weights = renamed(model.state_dict(), (r"^reg_token$", "register_tokens"))
    if "register_tokens" in weights:  # where the class token has a position of its own
        half = weights["cls_token"] / 2
        weights |= {"cls_token": half, "pos_embed": torch.cat([half, weights["pos_embed"]], 1)}
    return weights | {"mask_token": torch.zeros(1, 128)}


def dino_v2_in_parts(model):
    return renamed(dino_v2(model), (r"^blocks\.(\d+)\.", r"blocks.\1.\1."))


NO_TOKEN = {"class_token": False, "global_pool": "avg", "fc_norm": False}
TRANSFORMERS = {
    "timm": ({}, lambda model: model.state_dict(), ""),
    "whole module": ({}, lambda model: {"net": nn.DataParallel(model)}, ""),
    "DINO": ({}, dino, "#teacher"),
    "MAE": ({}, mae, ""),
    "MAE, fine-tuned": ({"global_pool": "avg", "fc_norm": True}, mae, ""),
    "MoCo v3": ({}, moco, "#base_encoder"),
    "I-JEPA": (NO_TOKEN, i_jepa, "#target_encoder"),
    "lightly": ({}, lightly, ""),
    "solo-learn": ({}, solo_learn, "#backbone."),
    "VISSL": ({}, vissl, ""),
    "mmselfsup": ({"init_values": 0.5}, openmmlab, ""),
    "DINOv2": ({"init_values": 0.5}, dino_v2, ""),
    "DINOv2 with registers": ({"init_values": 0.5, "reg_tokens": 3, "no_embed_class": True}, dino_v2, ""),
    "DINOv2 in parts": ({"init_values": 0.5}, dino_v2_in_parts, ""),
    "without biases": ({"qkv_bias": False, "mlp_ratio": 2.5}, lambda model: model.state_dict(), ""),
}  # fmt: skip


@pytest.mark.parametrize("layout", TRANSFORMERS)
def test_a_vision_transformer(tmp_path, layout, capsys):
    options, make, choice = TRANSFORMERS[layout]
    source = transformer(**options)
    encoder = open_encoder(written(tmp_path / "file.pth", make(source)) + choice)
    assert_same_bits(encoder, source, 48)
    assert (encoder.preprocessing.resize, encoder.preprocessing.size) == (55, 48)
    assert encoder.preprocessing.mean == IMAGENET_MEAN
    assert encoder.settings.image_size == 48
    lines = capsys.readouterr().err.splitlines()
    assert "taken to have 2 heads (of 64 numbers, as is usual; no shape tells;" in lines[-1]
    assert f"{tmp_path}/file.pth{choice}: a vision transformer of 2 blocks of width 128 for patches of 8" in lines[-1]
    assert "images are resized to 55 and cropped to 48 pixels, with ImageNet's mean and deviation" in lines[-1]


def test_a_gated_transformer_of_dino_v2(tmp_path):
    options = {"mlp_ratio": 16 / 3, "init_values": 0.5, "img_size": 28, "patch_size": 14}
    source = shaken(timm.create_model("vit_giant_patch14_dinov2", **{**TRANSFORMER, **options}))
    weights = renamed(dino_v2(source), (r"\.fc1\.", ".w12."), (r"\.fc2\.", ".w3."))
    assert_same_bits(open_encoder(written(tmp_path / "file.pth", weights)), source, 28)


def test_torchvisions_transformer(tmp_path):
    source = shaken(VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=128, mlp_dim=256))
    encoder = open_encoder(written(tmp_path / "file.pth", source.state_dict()))
    source.heads = nn.Identity()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():  # torch's attention sums in another order than timm's
        assert torch.allclose(encoder(images), source(images), rtol=0, atol=1e-5)


def test_a_transformer_for_cifar(tmp_path):
    encoder = open_encoder(written(tmp_path / "file.pth", transformer(img_size=32, patch_size=4).state_dict()))
    assert (encoder.preprocessing.resize, encoder.preprocessing.size) == (32, 32)
    assert encoder.preprocessing.mean == CIFAR10_MEAN


@pytest.mark.parametrize("rows_first", [False, True])
def test_small_transformers_with_fixed_positions_have_twelve_heads(tmp_path, rows_first, capsys):
    source = with_sines(transformer(embed_dim=192, num_heads=12, depth=1), rows_first=rows_first)
    file = written(tmp_path / "file.pth", moco(source))
    assert_same_bits(open_encoder(f"{file}#module.base_encoder."), source, 48)
    assert "12 heads (as MoCo v3 and solo-learn have at this width with fixed positions" in capsys.readouterr().err
    source = with_sines(transformer(embed_dim=192, num_heads=3, depth=1), rows_first=rows_first)
    file = written(tmp_path / "file.pth", lightly(source))  # whose transformers are timm's
    assert_same_bits(open_encoder(file), source, 48)


def test_the_user_says_how_many_heads_there_are(tmp_path, capsys):
    source = transformer(num_heads=8)
    file = written(tmp_path / "file.pth", dino(source))
    assert_same_bits(open_encoder(f"{file}#teacher,heads=8"), source, 48)
    assert "8 heads (as given)" in capsys.readouterr().err
    file = written(tmp_path / "file.pth", source.state_dict())
    assert_same_bits(open_encoder(f"{file}#heads=8"), source, 48)
    assert "heads must divide the width 128, but is 3" in message(f"{file}#heads=3")
    assert "heads must be a number from 0 to 9999, but is 'many'" in message(f"{file}#heads=many")
    odd = written(tmp_path / "odd.pth", transformer(embed_dim=96, num_heads=3).state_dict())
    assert f"{odd}#heads=N says how many heads it has" in message(odd)
    assert "heads and padding are for a file alone" in message(f"timm:vit_base_patch16_224@{file}#heads=8")


def test_the_encoder_of_two_is_chosen_by_a_part_of_its_prefix(tmp_path):
    source = transformer()
    file = written(tmp_path / "file.ckpt", solo_learn(source))
    assert "below 'state_dict.backbone.', 'state_dict.momentum_backbone.'; choose one" in message(file)
    for choice in ("backbone", "backbone.", "state_dict.backbone."):
        assert_same_bits(open_encoder(f"{file}#{choice}"), source, 48)


# DINOv3

DINO_V3 = {"embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 0, "global_pool": "token"}


def dino_v3(model: nn.Module) -> dict:
    weights = renamed(
        model.state_dict(),
        (r"^reg_token$", "storage_tokens"), (r"\.gamma_([12])$", r".ls\1.gamma"),
        (r"\.fc1_g\.", ".w1."), (r"\.fc1_x\.", ".w2."), (r"\.mlp\.fc2\.", ".mlp.w3." if gated(model) else ".mlp.fc2."),
    )  # fmt: skip
    for name in [name for name in weights if name.endswith("qkv.weight")]:
        width = weights[name].shape[1]
        query, value = (weights.pop(name.replace("qkv.weight", f"{x}_bias"), torch.zeros(width)) for x in "qv")
        weights[name.replace("qkv.weight", "qkv.bias")] = torch.cat([query, torch.ones(width), value])
        if not bool(query.any()):
            weights[name.replace("qkv.weight", "qkv.bias")] = torch.zeros(3 * width)
        weights[name.replace("qkv.weight", "qkv.bias_mask")] = torch.ones(3 * width)
    return weights | {"mask_token": torch.zeros(1, 128), "rope_embed.periods": torch.zeros(16)}


def gated(model: nn.Module) -> bool:
    return hasattr(model.blocks[0].mlp, "fc1_g")


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_plus_patch16_dinov3_qkvb"])
def test_dino_v3(tmp_path, name, capsys):
    source = shaken(timm.create_model(name, **DINO_V3))
    encoder = open_encoder(written(tmp_path / "file.pth", {"teacher": below("backbone.", dino_v3(source))}))
    assert_same_bits(encoder, source, 64)
    assert (encoder.settings.backbone, encoder.settings.pooling) == (f"timm:{name}", "token")
    assert "a DINOv3 transformer of 2 blocks of width 128 for patches of 16 and 4 registers" in capsys.readouterr().err
    assert_same_bits(open_encoder(written(tmp_path / "file.pth", source.state_dict())), source, 64)


# ConvNeXts

SIZES = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


def convnext_by_its_authors(model: nn.Module) -> dict:
    weights = renamed(
        model.state_dict(),
        (r"^stem\.", "downsample_layers.0."), (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"\.blocks\.", "."), (r"\.conv_dw\.", ".dwconv."), (r"\.mlp\.fc([12])\.", r".pwconv\1."),
        (r"\.mlp\.grn\.weight$", ".grn.gamma"), (r"\.mlp\.grn\.bias$", ".grn.beta"), (r"^head\.norm\.", "norm."),
    )  # fmt: skip
    weights = {name: value[None, None, None] if ".grn." in name else value for name, value in weights.items()}
    return weights | {"head.weight": torch.zeros(3, 32), "norms.3.weight": torch.zeros(32)}


@pytest.mark.parametrize("version", ["convnext_tiny", "convnextv2_tiny", "convnext_atto"])
@pytest.mark.parametrize("make", [convnext_by_its_authors, lambda model: model.state_dict()])
def test_a_convnext(tmp_path, version, make):
    if version == "convnext_atto" and make is convnext_by_its_authors:
        pytest.skip("only timm has convolutions in it")
    source = shaken(timm.create_model(version, num_classes=0, **SIZES))
    encoder = open_encoder(written(tmp_path / "file.pth", {"model": make(source)}))
    assert_same_bits(encoder, source, 64)
    assert encoder.preprocessing.size == 224


def test_torchvisions_convnext(tmp_path):
    widths = (*SIZES["dims"], None)
    blocks = [CNBlockConfig(widths[i], widths[i + 1], SIZES["depths"][i]) for i in range(4)]
    source = shaken(ConvNeXt(blocks))
    encoder = open_encoder(written(tmp_path / "file.pth", source.state_dict()))
    source.classifier[2] = nn.Identity()
    assert_same_bits(encoder, source, 64)


# ResNets


@pytest.mark.parametrize(
    ("blocks", "groups", "width"),
    [((1, 1, 1, 1), 1, 64), ((1, 2, 1, 1), 32, 4), ((1, 1, 1, 2), 1, 128)],
)
def test_a_resnet_of_other_blocks(tmp_path, blocks, groups, width):
    source = shaken(ResNet(Bottleneck, list(blocks), groups=groups, width_per_group=width))
    encoder = open_encoder(written(tmp_path / "file.pth", source.state_dict()))
    source.fc = nn.Identity()
    assert_same_bits(encoder, source, 64)


def test_the_names_of_further_resnets():
    for name in ("resnet26", "resnet152", "wide_resnet50_2", "resnext50_32x4d", "resnext101_64x4d"):
        with torch.device("meta"):
            source = timm.create_model(name, num_classes=0)
        assert described(source.state_dict()).backbone == f"timm:{name}"


LARGE = ("vit_giant_patch14_dinov2", "vit_7b_patch16_dinov3", "convnextv2_huge")


@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch8_224", "vit_huge_patch14_gap_224", "vit_small_patch14_reg4_dinov2", "convnext_base",
        "convnext_atto", *(pytest.param(name, marks=pytest.mark.process) for name in LARGE),
    ],
)  # fmt: skip
def test_the_names_of_published_models(name):
    """The settings of a published model are its name alone, so that timm loads what is exported."""
    with torch.device("meta"):
        source = timm.create_model(name, num_classes=0)
    settings = described({key: torch.zeros(1).expand(value.shape) for key, value in source.state_dict().items()})
    assert (settings.backbone, settings.architecture_config) == (f"timm:{name}", None)


def described(weights: dict):
    """Returns the settings of an encoder with these weights."""
    layout = next(
        layout
        for layout in LAYOUTS
        if 2 * len(set(layout.names) & set(weights)) > len(layout.names) and layout.fits(weights)
    )
    weights = drop_zero_biases(layout.rename(weights))
    return describe(weights, FoundWeights(weights, "", layout), Location("")).settings


def test_a_sequence_without_an_activation_has_none(tmp_path, capsys):
    """lightly's ResNets have a function there, which ``nn.Sequential`` of their children does not have."""
    resnet = shaken(ResNet(BasicBlock, [1, 1, 1, 1]))
    resnet.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    layers = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
    source = nn.Sequential(resnet.conv1, resnet.bn1, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    file = written(tmp_path / "file.ckpt", {"state_dict": below("backbone.", source.state_dict())})
    encoder = open_encoder(file)
    assert_same_bits(encoder, source, 32)
    assert encoder.settings.stem == "cifar_linear"
    assert "no activation follows its stem, as the sequence has none" in capsys.readouterr().err


def test_solo_learns_stem_pads_by_two_pixels(tmp_path, capsys):
    source = shaken(ResNet(BasicBlock, [1, 1, 1, 1]))
    source.conv1, source.maxpool = nn.Conv2d(3, 64, 3, padding=2, bias=False), nn.Identity()
    source.fc = nn.Identity()
    file = written(tmp_path / "file.ckpt", solo_learn(source))
    assert_same_bits(open_encoder(f"{file}#backbone."), source, 32)
    assert "to pad by 2 pixels (as solo-learn's, which has a classifier beside" in capsys.readouterr().err
    file = written(tmp_path / "file.ckpt", {"state_dict": below("backbone.", source.state_dict())})
    assert_same_bits(open_encoder(f"{file}#padding=2"), source, 32)
    assert open_encoder(file).settings.stem_padding == 1
    assert "padding=1 is for ResNets, and this is a vision transformer" in message(
        written(tmp_path / "vit.pth", transformer().state_dict()) + "#padding=1"
    )


# Into a model of a name


def test_a_named_model_takes_weights_of_other_names(tmp_path):
    source = shaken(timm.create_model("convnext_atto", num_classes=0))
    weights = convnext_by_its_authors(source)
    weights = {name: value for name, value in weights.items() if name.startswith(("down", "stages", "norm."))}
    encoder = open_encoder(f"timm:convnext_atto@{written(tmp_path / 'file.pth', {'model': weights})}")
    assert_same_bits(encoder, source, 64)


def test_a_named_model_takes_positions_of_another_size(tmp_path, capsys):
    source = shaken(timm.create_model("test_vit", num_classes=0, img_size=96))
    file = written(tmp_path / "file.pth", source.state_dict())
    encoder = open_encoder(f"timm:test_vit@{file}")
    assert_same_bits(encoder, source, 96)
    assert (encoder.preprocessing.resize, encoder.preprocessing.size) == (101, 96)
    assert "has positions for images of 96 pixels, which are taken instead of test_vit's own" in capsys.readouterr().err
    written(tmp_path / "file.pth", source.state_dict() | {"pos_embed": torch.zeros(1, 30, 64)})
    assert "1 of another shape (pos_embed (1, 30, 64) instead of (1, 101, 64))" in message(f"timm:test_vit@{file}")


# What is not taken


def test_models_that_are_others(tmp_path):
    with torch.device("meta"):
        models = {
            "deep": timm.create_model("resnet18d"),
            "se": timm.create_model("legacy_seresnet18"),
            "swin": timm.create_model("swin_tiny_patch4_window7_224"),
            "v2": timm.create_model("resnetv2_50"),
        }
    files = {}
    for name, model in models.items():
        weights = {key: torch.zeros(value.shape) for key, value in model.state_dict().items()}
        files[name] = written(tmp_path / f"{name}.pth", weights)
    assert "of which there are several kinds; timm:NAME@" in message(files["deep"])
    for name in ("se", "swin", "v2"):
        assert "timm:NAME@" in message(files[name])


def test_transformers_that_cannot_be_built(tmp_path):
    weights = transformer().state_dict()
    for change, text in (
        ({"pos_embed": torch.zeros(1, 40, 128)}, "has 40 positions, which are no square of patches and a class token"),
        ({"patch_embed.proj.weight": torch.zeros(128, 1, 8, 8)}, "takes patches of 1 x 8 x 8"),
        ({"blocks.0.attn.relative_position_bias_table": torch.zeros(3)}, "1 unexpected (blocks.0.attn.relative"),
        ({"blocks.0.mlp.fc1.weight": torch.zeros(3)}, "blocks.0.mlp.fc1.weight has the shape (3,)"),
        ({"blocks.1.norm1.weight": torch.zeros(64)}, "1 of another shape (blocks.1.norm1.weight (64,) instead of"),
    ):
        assert text in message(written(tmp_path / "file.pth", weights | change))
    stem = {name.replace("proj.", "proj.0."): value for name, value in weights.items()}
    assert "a stem of convolutions, as MoCo v3's vit_conv" in message(written(tmp_path / "file.pth", stem))
    no_positions = {name: value for name, value in weights.items() if name != "pos_embed"}
    assert "without positions of its own; timm:NAME@" in message(written(tmp_path / "file.pth", no_positions))


def test_a_file_of_an_optimizer_and_one_of_transformers(tmp_path):
    state = {"optimizer": {"state": {i: {"exp_avg": torch.zeros(2), "step": torch.zeros(1)} for i in range(2)}}}
    assert "holds the state of an optimizer alone, as optimizer.state.0.exp_avg" in message(
        written(tmp_path / "file.pth", state)
    )
    weights = {
        "embeddings.cls_token": torch.zeros(1),
        "encoder.layer.0.attention.attention.query.weight": torch.zeros(1),
    }
    assert "hf:FOLDER those of transformers" in message(written(tmp_path / "file.safetensors", weights))


# Weights in several files


def parts(folder, weights: dict, count: int = 2) -> list:
    """Writes weights as files of the hub, and their index."""
    names = list(weights)
    files = [folder / f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    for i, file in enumerate(files):
        safetensors.torch.save_file({name: weights[name].clone() for name in names[i::count]}, file)
    index = {"weight_map": {name: files[i % count].name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


def test_weights_in_several_files(tmp_path):
    source = transformer()
    files = parts(tmp_path, source.state_dict(), 3)
    for name in (files[0], files[2], tmp_path / "model.safetensors.index.json"):
        assert_same_bits(open_encoder(name), source, 48)
    files[1].unlink()
    text = message(files[0])
    assert "is of weights in 3 files, of which 1 are missing: model-00002-of-00003.safetensors" in text
    index = tmp_path / "model.safetensors.index.json"
    assert "of which 1 are missing" in message(index)
    for content in ("[]", "{}", '{"weight_map": {"a": 3}}', '{"weight_map": []}', "no"):
        index.write_text(content)
        assert "is no index of" in message(index)
    index.write_text('{"weight_map": {"a": "../model-00001-of-00003.safetensors"}}')
    assert "is no index of files beside it" in message(index)
