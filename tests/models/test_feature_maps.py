"""Feature maps: their mean is a convolutional network's features, and the tokens of a transformer stand in place."""

import json

import pytest
import torch
from torch import nn

from infomax.models.encoders import Encoder, build_encoder
from infomax.models.feature_maps import feature_map
from infomax.models.library_backbones import build_hugging_face


@pytest.mark.parametrize(
    ("backbone", "options", "size", "cells"),
    [
        ("small", {"stem": "cifar"}, 20, (5, 5)),
        ("resnet18", {"stem": "cifar"}, 32, (4, 4)),
        ("timm:test_resnet", {}, 64, (2, 2)),
        ("torchvision:resnet18", {}, 64, (2, 2)),
        ("torchvision:squeezenet1_1", {}, 64, (3, 3)),
    ],
)
def test_the_mean_of_a_convolutional_map_is_the_features(backbone, options, size, cells):
    encoder = build_encoder(backbone, **options, seed=0).eval()
    images = torch.randn(2, 3, size, size, generator=torch.manual_seed(0))
    to_map, found = feature_map(encoder, size)
    with torch.no_grad():
        maps, features = to_map(images), encoder(images)
    assert found == tuple(maps.shape[2:]) == cells
    torch.testing.assert_close(maps.mean((2, 3)), features, rtol=1e-4, atol=1e-5)


def bare_vit_small() -> tuple[Encoder, nn.Module]:
    encoder = build_encoder("vit_small", seed=0).eval()
    network = encoder.backbone
    network.blocks, network.norm = nn.Identity(), nn.Identity()
    nn.init.zeros_(network.pos_embed)
    return encoder, network.patch_embed.proj


def bare_torchvision() -> tuple[Encoder, nn.Module]:
    from torchvision.models import VisionTransformer

    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16, "num_classes": 4}
    network = VisionTransformer(image_size=64, patch_size=16, **sizes)
    network.heads, network.encoder.layers, network.encoder.ln = nn.Identity(), nn.Identity(), nn.Identity()
    nn.init.zeros_(network.encoder.pos_embedding)
    encoder = Encoder(network, 16).eval()
    encoder.settings = build_encoder("small", seed=0).settings
    return encoder, network.conv_proj


def bare_hugging_face() -> tuple[Encoder, nn.Module]:
    pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = json.dumps({"model_type": "dinov2_with_registers", "image_size": 64, "patch_size": 16, **sizes})
    network = build_hugging_face(config, pooling=None)
    settings = build_encoder("small", seed=0).settings
    model = network.model
    model.encoder.layer, model.layernorm = nn.ModuleList(), nn.Identity()
    nn.init.zeros_(model.embeddings.position_embeddings)
    encoder = Encoder(network, 16).eval()
    encoder.settings = settings
    return encoder, model.embeddings.patch_embeddings.projection


@pytest.mark.parametrize("make", [bare_vit_small, bare_torchvision, bare_hugging_face])
def test_without_blocks_the_map_of_a_transformer_is_its_patches_in_place(make):
    encoder, patches = make()
    images = torch.randn(2, 3, 64, 64, generator=torch.manual_seed(0))
    to_map, cells = feature_map(encoder, 64)
    assert cells == (4, 4)
    with torch.no_grad():
        torch.testing.assert_close(to_map(images), patches(images), rtol=1e-4, atol=1e-5)


def test_what_gives_no_map_is_said_in_one_line():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3 * 32 * 32, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.last(self.first(x.flatten(1)))

    encoder = Encoder(Flat(), 8).eval()
    encoder.settings = build_encoder("small", seed=0).settings
    with pytest.raises(ValueError, match=r"^runs/a gives no feature map of several cells for images of 32 pixels$"):
        feature_map(encoder, 32, title="runs/a")
    with pytest.raises(ValueError, match=r"^runs/a takes no images of 48 pixels: "):
        feature_map(encoder, 48, title="runs/a")
    resnet = build_encoder("timm:test_resnet", seed=0).eval()
    with pytest.raises(ValueError, match="a feature map of one cell for images of 32 pixels"):
        feature_map(resnet, 32)
