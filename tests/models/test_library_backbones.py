"""Backbones of other libraries: built without weights, described by their settings, and the same features again."""

import json
from dataclasses import asdict

import pytest
import torch
from tests.encoder_files import used, written
from tests.models.test_pretrained import CROP, VIT, hugging_face

from infomax.data.augmentation.views import Preprocessing
from infomax.models.encoders import build_encoder, fingerprint, load_encoder, save_encoder, untrained_encoder
from infomax.models.pretrained import open_encoder
from infomax.models.state_dicts import load_all_weights

SMALL_PREPROCESSING = Preprocessing(resize=36, size=32)


def opened(tmp_path, name: str):
    """Opens an encoder of another library, with weights from a file that it can read."""
    library, _, model = name.partition(":")
    if library == "hf":
        _, location = hugging_face(tmp_path, model, CROP, **VIT, patch_size=8, no_pooler=model == "ViT")
        return open_encoder(location)
    source = used(build_encoder(name, seed=5).backbone)
    return open_encoder(f"{name}@{written(tmp_path / 'file.safetensors', source.state_dict())}")


@pytest.mark.parametrize(
    "name",
    [
        "timm:test_resnet",
        "timm:test_convnext",
        "timm:test_vit",
        "timm:test_efficientnet",
        "timm:vit_tiny_patch16_224.augreg_in21k",
        "torchvision:resnet18",
        pytest.param("torchvision:vit_b_32", marks=pytest.mark.process),
        "hf:Dinov2",
        "hf:ViT",
    ],
)
@torch.no_grad()
def test_settings_build_the_same_architecture_again(tmp_path, name):
    encoder = opened(tmp_path, name)
    again = build_encoder(**asdict(encoder.settings)).eval()
    load_all_weights(again.backbone, encoder.backbone.state_dict(), name)
    size = encoder.preprocessing.size
    images = torch.randn(2, 3, size, size)
    assert torch.equal(again(images), encoder(images))
    assert (again.settings, again.width) == (encoder.settings, encoder.width)
    assert fingerprint(again) == fingerprint(encoder)


@torch.no_grad()
def test_a_saved_encoder_of_another_library_comes_back(tmp_path):
    encoder = opened(tmp_path, "hf:Dinov2")
    folder = tmp_path / "run"
    folder.mkdir()
    save_encoder(encoder, asdict(encoder.settings), SMALL_PREPROCESSING, folder)
    (tmp_path / "config.json").unlink()  # the run folder has all that is needed
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_encoder(folder)(images), encoder(images))
    assert untrained_encoder(folder).settings == encoder.settings


def test_the_seed_decides_the_weights_of_other_libraries_models_too():
    state = torch.get_rng_state()
    first, again, other = (build_encoder("timm:test_vit", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)


def test_a_transformer_has_positions_for_the_size_and_takes_others():
    encoder = build_encoder("timm:test_vit", image_size=48, seed=0)
    assert (encoder.settings.image_size, encoder.settings.pooling) == (48, "token")
    assert encoder.backbone.pos_embed.shape[1] == 1 + 9  # patches of 16 pixels
    assert encoder(torch.zeros(1, 3, 32, 32)).shape == (1, encoder.width)
    assert build_encoder("timm:test_resnet", seed=0).settings.image_size is None


@torch.no_grad()
def test_pooling_changes_features_and_no_weight():
    token, mean = (build_encoder("timm:test_vit", pooling=pooling, seed=0).eval() for pooling in ("token", "avg"))
    assert list(token.state_dict()) == list(mean.state_dict())
    images = torch.randn(2, 3, 160, 160)
    hidden = mean.backbone.forward_features(images)
    assert torch.equal(token(images), hidden[:, 0])
    assert torch.allclose(mean(images), hidden[:, 1:].mean(1))


@torch.no_grad()
def test_pooling_of_models_of_transformers(tmp_path):
    encoder = opened(tmp_path, "hf:Dinov2")
    config = encoder.settings.architecture_config
    mean = build_encoder("hf:x", pooling="avg", architecture_config=config, seed=0).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(mean(images), mean.backbone.model(images).last_hidden_state[:, 1:].mean(1))
    assert json.loads(config)["model_type"] == "dinov2"


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("convnext_tiny", {}, "timm:convnext_tiny and torchvision:convnext_tiny name models of those libraries"),
        ("resnet20", {}, "did you mean resnet18"),
        ("timm:resnet5O", {}, "no timm model resnet5O; did you mean resnet50"),
        ("torchvision:resnet81", {}, "no torchvision model resnet81; did you mean resnet18"),
        ("timm:resnet18@file.pth", {}, "--init timm:resnet18@file.pth takes weights too"),
        ("timm:test_resnet", {"stem": "cifar"}, "encoder.stem must be imagenet for timm:test_resnet"),
        ("timm:test_resnet", {"image_size": 32}, "encoder.image_size must be none for timm:test_resnet"),
        ("timm:test_resnet", {"pooling": "token"}, "timm:test_resnet has no pooling token: it has no class token"),
        ("timm:test_vit", {"image_size": 5}, "encoder.image_size|5 pixels"),
        ("small", {"pooling": "avg"}, "encoder.pooling must be none for small"),
        ("resnet18", {"image_size": 64}, "encoder.image_size must be none for resnet18"),
        ("resnet18", {"architecture_config": "{}"}, "encoder.architecture_config must be none for resnet18"),
        ("hf:x", {"architecture_config": '{"model_type": "xyz"}'}, "is of no model of transformers"),
        ("torchvision:raft_small", {}, "no torchvision model raft_small"),
    ],
)
def test_what_is_refused(name, options, text):
    with pytest.raises(ValueError, match=text) as raised:
        build_encoder(name, **options, seed=0)
    assert "\n" not in str(raised.value)
