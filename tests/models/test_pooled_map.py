"""The map that an encoder pools, beside the features of the same pass, against the map that evaluation takes."""

import copy

import pytest
import torch
from torch import nn

from infomax.models.encoders import Encoder, build_encoder
from infomax.models.feature_maps import feature_map
from infomax.models.pooled_map import keep_pooled_map


def features_and_map(encoder, pooled, images):
    pooled.start()
    return encoder(images), pooled.take()


@pytest.mark.parametrize(
    ("backbone", "averages"),
    [
        ("small", True),
        ("resnet18", True),
        ("torchvision:resnet18", True),
        ("timm:test_efficientnet", True),  # with squeeze-and-excitation blocks, which pool maps too
        ("timm:test_convnext", False),  # normalises what it has pooled
    ],
)
def test_the_map_is_that_of_evaluation_and_has_the_gradient_of_its_pass(backbone, averages):
    encoder = build_encoder(backbone, seed=0)
    before = {name: x.clone() for name, x in encoder.state_dict().items()}
    pooled = keep_pooled_map(encoder)
    assert encoder.training
    assert all(torch.equal(before[name], x) for name, x in encoder.state_dict().items())
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    features, last_map = features_and_map(encoder.eval(), pooled, images)
    to_map, cells = feature_map(encoder, 96)
    assert last_map.shape == (2, encoder.width, *cells)
    torch.testing.assert_close(last_map, to_map(images))
    assert torch.allclose(last_map.mean((2, 3)), features, atol=1e-5) == averages
    last_map.sum().backward()
    assert next(encoder.parameters()).grad.abs().sum() > 0


def test_a_pass_that_nobody_waits_for_leaves_nothing_in_memory():
    encoder = build_encoder("small", seed=0)
    pooled = keep_pooled_map(encoder)
    encoder(torch.zeros(2, 3, 16, 16))
    assert pooled._map is None
    features_and_map(encoder, pooled, torch.zeros(2, 3, 16, 16))
    assert pooled._map is None


def test_a_copy_has_a_map_of_its_own():
    module = nn.Module()
    module.encoder = build_encoder("small", seed=0)
    module.pooled = keep_pooled_map(module.encoder)
    other = copy.deepcopy(module)
    module.pooled.start()
    other.pooled.start()
    images = torch.randn(2, 3, 16, 16)
    other.encoder(2 * images), module.encoder(images)
    assert not torch.equal(module.pooled.take(), other.pooled.take())


@pytest.mark.parametrize("backbone", ["vit_small", "timm:test_vit", "torchvision:mobilenet_v2"])
def test_an_encoder_without_a_pooling_layer_is_refused_by_name(backbone):
    with pytest.raises(ValueError, match=f"^{backbone} has no layer that pools a feature map into its features"):
        keep_pooled_map(build_encoder(backbone, seed=0))


def test_what_a_block_pools_within_the_network_is_not_taken():
    """Here the features are pooled by a function, and by no layer."""

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            return x * self.pool(x).sigmoid()

    class Network(nn.Sequential):
        def forward(self, x):
            return super().forward(x).mean((2, 3))

    with pytest.raises(ValueError, match="the encoder has no layer that pools"):
        keep_pooled_map(Encoder(Network(nn.Conv2d(3, 4, 3), Gate()), 4))
