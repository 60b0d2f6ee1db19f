"""Makes encoders whose features tell them apart, and files of their weights."""

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from infomax.models.encoders import build_encoder
from infomax.models.pretrained import open_encoder


def used(model: nn.Module) -> nn.Module:
    """Gives the model BatchNorm statistics and residual branches that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def resnet(backbone="resnet18", stem="cifar", seed=0):
    return used(build_encoder(backbone, stem=stem, seed=seed).backbone)


def written(file: Path, content) -> str:
    if file.suffix == ".safetensors":
        safetensors.torch.save_file(content, file)
    else:
        torch.save(content, file)
    return str(file)


def below(prefix: str, weights: dict) -> dict:
    return {prefix + name: value for name, value in weights.items()}


@torch.no_grad()
def same_features(encoder, source, size=32) -> bool:
    x = torch.randn(2, 3, size, size)
    features = encoder(x)
    assert features.std() > 1e-3
    assert features.shape == (2, encoder.width)
    return torch.allclose(features, source(x), rtol=1e-5, atol=1e-5)


def message(name) -> str:
    """Returns the one-line message of the error that opening an encoder raises."""
    with pytest.raises(ValueError, match=re.escape(str(name).partition("#")[0])) as raised:
        open_encoder(name)
    text = str(raised.value)
    assert "\n" not in text
    return text
