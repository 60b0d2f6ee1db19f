"""Encoders: shapes, stems, the same weights from the same seed, and files that load whole or not at all."""

import json
import math

import pytest
import safetensors.torch
import torch

from infomax.data.augmentation.views import Preprocessing
from infomax.models.encoders import build_encoder, load_encoder, save_encoder, untrained_encoder

SETTINGS = {"backbone": "small", "stem": "cifar", "stem_padding": 1, "zero_init_residual": True, "seed": 3}
PREPROCESSING = Preprocessing(resize=16, size=16, mean=(0.5,) * 3, std=(0.5,) * 3, bicubic=False)


@pytest.mark.parametrize(("backbone", "width"), [("small", 128), ("resnet18", 512), ("resnet50", 2048)])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_images_become_features_of_the_stated_width(backbone, width, stem):
    encoder = build_encoder(backbone, stem=stem, seed=0).eval()
    assert encoder.width == width
    with torch.no_grad():
        assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, width)


@pytest.mark.parametrize(("padding", "side"), [(1, 32), (2, 34)])
def test_cifar_stem_keeps_the_size_of_its_padding(padding, side):
    network = build_encoder("resnet18", stem="cifar", stem_padding=padding, seed=0).backbone
    assert network.maxpool(network.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 64, side, side)


def test_imagenet_stem_quarters_the_size():
    network = build_encoder("resnet18", stem="imagenet", seed=0).backbone
    assert network.maxpool(network.conv1(torch.zeros(1, 3, 64, 64))).shape == (1, 64, 16, 16)


def test_vision_transformer_is_moco_v3s():
    vit = build_encoder("vit_small", stem="imagenet", seed=0)
    network = vit.backbone
    assert vit.width == 384
    assert (len(network.blocks), network.blocks[0].attn.num_heads) == (12, 12)
    for side in (224, 96):
        assert vit(torch.zeros(1, 3, side, side)).shape == (1, 384)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    # Patch in row 3, column 5; the second frequency of 96.
    place = network.pos_embed[0, 1 + 3 * 14 + 5]
    step = 10000 ** (-1 / 96)
    expected = [math.sin(5 * step), math.cos(5 * step), math.sin(3 * step), math.cos(3 * step)]
    assert place[[1, 97, 193, 289]].tolist() == pytest.approx(expected)
    assert not network.pos_embed[0, 0].any()
    assert float(network.patch_embed.proj.weight.std()) == pytest.approx(math.sqrt(6 / (768 + 384) / 3), rel=0.02)


@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_start_at_zero_where_asked(zero):
    network = build_encoder("resnet18", stem="cifar", zero_init_residual=zero, seed=0).backbone
    assert bool((network.layer1[0].bn2.weight == 0).all()) == zero


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone():
    state = torch.get_rng_state()
    first, again, other = (build_encoder("small", stem="cifar", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))


def test_resnets_have_torchvisions_parameter_names():
    from torchvision.models import resnet18

    ours = build_encoder("resnet18", stem="imagenet", seed=0).backbone.state_dict()
    theirs = {name: value for name, value in resnet18().state_dict().items() if not name.startswith("fc.")}
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


def trained(tmp_path):
    encoder = build_encoder(**SETTINGS)
    encoder(torch.randn(8, 3, 16, 16))  # moves BatchNorm's statistics
    with torch.no_grad():
        encoder.backbone[0].weight.add_(0.1)
    save_encoder(encoder, SETTINGS, PREPROCESSING, tmp_path)
    return encoder


def test_a_saved_encoder_comes_back_bit_for_bit(tmp_path):
    encoder = trained(tmp_path)
    loaded = load_encoder(tmp_path)
    assert not loaded.training
    assert loaded.preprocessing == PREPROCESSING
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(loaded(x), encoder.eval()(x))
    assert not list(tmp_path.glob(".*"))


def test_the_untrained_encoder_is_the_one_that_training_started_from(tmp_path):
    trained(tmp_path)
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(untrained_encoder(tmp_path)(x), build_encoder(**SETTINGS).eval()(x))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    trained(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "encoder.safetensors")
    del weights["0.weight"]
    safetensors.torch.save_file(weights, tmp_path / "encoder.safetensors")
    with pytest.raises(ValueError, match="0.weight"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"encoder.safetensors is a text file"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*encoder.safetensors"):
        load_encoder(tmp_path)


def test_a_folder_without_an_encoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a run folder with an encoder"):
        load_encoder(tmp_path)
    for folder, reason in (
        (tmp_path, "it has no encoder.json"),
        (tmp_path / "none", "no such folder or file"),
        ("timm:resnet51", "infomax.models.pretrained.open_encoder opens checkpoint files and timm:"),
    ):
        with pytest.raises(ValueError, match=f"^{folder} is not a run folder with an encoder: {reason}"):
            load_encoder(folder)
    with pytest.raises(ValueError, match="want the path of a run folder, not a value of type int"):
        load_encoder(3)
    (tmp_path / "encoder.json").write_text(json.dumps({"encoder": {"backbone": "small"}}))
    with pytest.raises(ValueError, match=r"encoder.json: encoder.stem is missing"):
        load_encoder(tmp_path)
