"""Stages of backbones: each parameter and buffer is in one of them, in order from the input, in all libraries."""

import copy

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from infomax.models.encoders import Encoder, build_encoder
from infomax.models.stages import backbone_stages, describe_stages, freeze_stages, rate_factors
from infomax.nn.batch_norm import batch_norms, synchronise_batch_norm

BLOCKS_12 = [f"blocks.{i}" for i in range(12)]
OURS = {
    "small": ["stem", "block1", "block2", "block3"],
    "resnet18": ["stem", "layer1", "layer2", "layer3", "layer4"],
    "vit_small": ["stem", *BLOCKS_12],
}
TIMM = {
    "resnet26": OURS["resnet18"],
    "convnext_atto": ["stem", *(f"stages.{i}" for i in range(4))],
    "vit_tiny_patch16_224": ["stem", *BLOCKS_12],
    "efficientnet_b0": ["stem", *(f"blocks.{i}" for i in range(7))],
    "swin_tiny_patch4_window7_224": ["stem", *(f"layers.{i}" for i in range(4))],
    "regnetx_002": ["stem", "s1", "s2", "s3", "s4"],
    "densenet121": ["stem", *(f"features.denseblock{i}" for i in range(1, 5))],
    "mixer_s32_224": ["stem", *(f"blocks.{i}" for i in range(8))],
    "mobilenetv3_small_050": ["stem", *(f"blocks.{i}" for i in range(6))],
    "beit_base_patch16_224": ["stem", *BLOCKS_12],
    "pvt_v2_b0": ["stem", *(f"stages.{i}" for i in range(4))],
    "nfnet_f0": ["stem", *(f"stages.{i}" for i in range(4))],
    "vgg11_bn": [f"features.{i}" for i in (0, 4, 8, 11, 15, 18, 22, 25, 26)],
}
TORCHVISION = {
    "resnet18": OURS["resnet18"],
    "convnext_tiny": [f"features.{i}" for i in range(8)],
    "vit_b_16": ["stem", *(f"encoder.layers.encoder_layer_{i}" for i in range(12))],
    "efficientnet_b0": [f"features.{i}" for i in range(9)],
    "densenet121": ["stem", *(f"features.denseblock{i}" for i in range(1, 5))],
    "shufflenet_v2_x0_5": ["stem", "stage2", "stage3", "stage4"],
    "maxvit_t": ["stem", *(f"blocks.{i}" for i in range(4))],
}
DEPTH = 3


class Wrapped(nn.Module):
    """A model of transformers, as :func:`infomax.models.pretrained.open_encoder` wraps it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model


def tensors(module: nn.Module) -> list[str]:
    return [name for name, _ in (*module.named_parameters(), *module.named_buffers())]


def check_partition(backbone: nn.Module, names: list[str]) -> None:
    stages = backbone_stages(backbone)
    assert [stage.name for stage in stages] == names
    divided = [name for stage in stages for name in stage.tensors]
    assert len(set(divided)) == len(divided)
    assert set(divided) == set(tensors(backbone))


@pytest.mark.parametrize("backbone", OURS)
def test_stages_of_our_backbones(backbone):
    check_partition(build_encoder(backbone, stem="imagenet", seed=0).backbone, OURS[backbone])


@pytest.mark.parametrize("name", TIMM)
def test_stages_of_timms_families(name):
    with torch.device("meta"):
        check_partition(timm.create_model(name, num_classes=0), TIMM[name])


@pytest.mark.parametrize("name", TORCHVISION)
def test_stages_of_torchvisions_families(name):
    with torch.device("meta"):
        check_partition(models.get_model(name, weights=None), TORCHVISION[name])


@pytest.mark.parametrize(
    ("name", "sizes", "place"),
    [
        ("ViT", {"num_hidden_layers": DEPTH}, "layers"),
        ("Dinov2", {"num_hidden_layers": DEPTH}, "encoder.layer"),
        ("CLIPVision", {"num_hidden_layers": DEPTH}, "encoder.layers"),
        ("ConvNext", {"num_stages": DEPTH, "depths": [1] * DEPTH, "hidden_sizes": [8] * DEPTH}, "encoder.stages"),
        ("ResNet", {"depths": [1] * DEPTH, "hidden_sizes": [8] * DEPTH}, "encoder.stages"),
    ],
)
def test_stages_of_families_of_transformers(name, sizes, place):
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes))
    check_partition(Wrapped(model), ["stem", *(f"{place}.{i}" for i in range(DEPTH))])


def test_stages_of_any_other_module():
    check_partition(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)), ["0", "3"])
    named = nn.ModuleDict({"patches": nn.Conv2d(3, 4, 3), "head": nn.Linear(4, 2)})
    check_partition(named, ["patches", "head"])
    check_partition(nn.Linear(3, 2), ["stem"])


def resnet() -> Encoder:
    return Encoder(timm.create_model("resnet10t", num_classes=0), 512)


def test_the_last_normalisation_belongs_to_the_last_block():
    *_, last = backbone_stages(build_encoder("vit_small", stem="imagenet", seed=0).backbone)
    assert {"norm.weight", "blocks.11.mlp.fc2.bias"} <= set(last.tensors)


@pytest.mark.parametrize("count", [-1, 6])
def test_a_stage_that_is_not_there_is_one_line_with_all_stages(count):
    encoder = resnet()
    message = f"resnet10t has 5 stages: stem, layer1, layer2, layer3, layer4; --freeze takes 0 to 5, but is {count}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        freeze_stages(encoder, count, title="resnet10t")
    assert all(p.requires_grad for p in encoder.parameters())
    vit = build_encoder("vit_small", stem="imagenet", seed=0)
    assert describe_stages(backbone_stages(vit.backbone)) == ("13 stages: stem, blocks.0, blocks.1, ..., blocks.11")


def test_frozen_stages_have_no_gradient_no_graph_and_stay_in_evaluation_mode():
    encoder = resnet().train()
    before = copy.deepcopy(encoder.state_dict())
    freeze_stages(encoder, 3)
    frozen = ("conv1", "bn1", "layer1", "layer2")
    network = encoder.backbone
    outputs = {}
    for name in ("layer2", "layer3"):
        network.get_submodule(name).register_forward_hook(lambda *x, name=name: outputs.update({name: x[-1]}))
    for again in (copy.deepcopy(encoder), encoder):  # a copy, as of an EMA teacher, is frozen likewise
        again.eval()
        assert not any(norm.training for norm in batch_norms(again))
        again.train()
        for name, parameter in again.backbone.named_parameters():
            assert parameter.requires_grad != name.startswith(frozen), name
        for name, module in again.backbone.named_modules():
            assert module.training != name.startswith(frozen), name
    torch.manual_seed(0)
    encoder(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert not outputs["layer2"].requires_grad
    assert outputs["layer3"].requires_grad
    for name, tensor in encoder.state_dict().items():
        is_frozen = name.removeprefix("backbone.").startswith(frozen)
        if "running" in name or "tracked" in name:
            assert torch.equal(tensor, before[name]) == is_frozen, name
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name


def test_all_stages_frozen_leave_the_whole_backbone_in_evaluation_mode():
    encoder = resnet()
    freeze_stages(encoder, 5)
    encoder.train()
    assert encoder.frozen_modules == ("",)
    assert not any(module.training for module in encoder.backbone.modules())
    assert not any(p.requires_grad for p in encoder.parameters())


def test_a_frozen_batch_norm_is_not_synchronised():
    """On many ranks the layers get another class, and must still normalise by the statistics that they have."""
    encoder = resnet().double()
    freeze_stages(encoder, 5)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    alone = encoder.train()(images)
    synchronise_batch_norm(encoder, torch.device("cpu"))
    torch.testing.assert_close(encoder.train()(images), alone, rtol=0, atol=0)


def test_dropout_in_a_frozen_block_drops_nothing():
    vit = Encoder(timm.create_model("vit_tiny_patch16_224", num_classes=0, drop_path_rate=0.5, proj_drop_rate=0.5), 192)
    freeze_stages(vit, 13)
    images = torch.randn(2, 3, 224, 224)
    assert torch.equal(vit.train()(images), vit(images))


def test_rates_fall_by_one_factor_from_stage_to_stage():
    vit = build_encoder("vit_small", stem="imagenet", seed=0)
    factors = rate_factors(vit, backbone_rate=0.5, layer_decay=0.75)
    by_name = {name: factors[p] for name, p in vit.backbone.named_parameters()}
    assert len(by_name) == len(factors)
    assert by_name["norm.weight"] == by_name["blocks.11.attn.qkv.weight"] == pytest.approx(0.5 * 0.75)
    assert by_name["blocks.0.norm1.weight"] == pytest.approx(0.5 * 0.75**12)
    assert by_name["cls_token"] == by_name["patch_embed.proj.weight"] == pytest.approx(0.5 * 0.75**13)
