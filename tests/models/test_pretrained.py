"""Encoders from elsewhere: features of the model that they came from, files loaded whole or not at all, no code run."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from torch import nn

from encoder_files import below, message, resnet, same_features, used, written
from infomax.data.augmentation.views import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from infomax.models.backbone_names import BACKBONES
from infomax.models.encoders import build_encoder, fingerprint, save_encoder
from infomax.models.pretrained import FETCH, open_encoder

IMAGENET = Preprocessing(resize=256, size=224, mean=IMAGENET_MEAN, std=IMAGENET_STD, bicubic=True)
CIFAR = Preprocessing(resize=32, size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD, bicubic=True)


# Run folders


def test_a_run_folder(tmp_path):
    settings = {"backbone": "small", "stem": "cifar", "seed": 3}
    encoder = build_encoder(**settings).eval()
    save_encoder(encoder, settings, CIFAR, tmp_path)
    opened = open_encoder(tmp_path)
    assert same_features(opened, encoder)
    assert opened.preprocessing == CIFAR
    (tmp_path / "encoder.safetensors").write_bytes(safetensors.torch.save({"0.weight": torch.zeros(1)}))
    assert "does not fit" in message(tmp_path)


def test_a_name_of_no_encoder_is_refused(tmp_path):
    assert "want a run folder, a checkpoint file, timm:NAME" in message(tmp_path / "absent.pth")
    assert "want a run folder" in message("time:resnet18")
    assert "not a run folder" in message(tmp_path)


# Checkpoint files


@pytest.mark.parametrize(
    ("backbone", "stem"),
    [(backbone, "imagenet") for backbone in BACKBONES if backbone.startswith("resnet")]
    + [("resnet18", "cifar"), ("resnet50", "cifar")],
)
def test_the_shapes_tell_which_resnet_it_is(tmp_path, backbone, stem):
    source = resnet(backbone, stem)
    encoder = open_encoder(written(tmp_path / "file.pth", source.state_dict()))
    assert not encoder.training
    assert encoder.preprocessing == (CIFAR if stem == "cifar" else IMAGENET)
    assert same_features(encoder, source)


def test_torchvisions_resnet(tmp_path):
    from torchvision.models import resnet50

    source = used(resnet50())
    encoder = open_encoder(written(tmp_path / "file.pt", source.state_dict()))
    source.fc = nn.Identity()
    assert same_features(encoder, source, 64)


HEADS = {
    "fc.0.weight": torch.zeros(3),
    "projection_head.2.bias": torch.zeros(3),
    "prototypes.weight": torch.zeros(3, 3),
    "queue_ptr": torch.zeros(1),
}
LAYOUTS = {
    "plain": lambda weights: {**weights, **HEADS},
    "moco": lambda weights: {"epoch": 3, "arch": "resnet", "state_dict": below("module.encoder_q.", weights | HEADS)},
    "barlow": lambda weights: {"model": below("module.backbone.", weights) | below("module.projector.", HEADS)},
    "dino": lambda weights: {"teacher": below("backbone.", weights), "optimizer": {"state": {0: {"step": 1}}}},
    "vissl": lambda weights: {"a": {"b": {"trunk": below("_feature_blocks.", weights)}}, "best": None},
    "shortcut": lambda weights: {name.replace("downsample", "shortcut"): value for name, value in weights.items()},
    "old": lambda weights: {name: value for name, value in weights.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_common_layouts(tmp_path, layout):
    source = resnet()
    file = written(tmp_path / "file.pth.tar", LAYOUTS[layout](source.state_dict()))
    assert same_features(open_encoder(file), source)


def test_safetensors(tmp_path):
    source = resnet()
    file = written(tmp_path / "file.safetensors", below("encoder.", source.state_dict() | HEADS))
    assert same_features(open_encoder(file), source)


def test_one_of_two_encoders_must_be_chosen(tmp_path):
    query, key = resnet(seed=1), resnet(seed=2)
    weights = below("module.encoder_q.", query.state_dict()) | below("module.encoder_k.", key.state_dict())
    file = written(tmp_path / "file.pth", {"state_dict": weights | {"module.queue": torch.zeros(2)}})
    ambiguous = message(file)
    assert "'state_dict.module.encoder_q.', 'state_dict.module.encoder_k.'" in ambiguous
    assert f"as {file}#state_dict.module.encoder_q." in ambiguous
    assert "choose one" in message(f"{file}#module.")
    assert "choose one" in message(f"{file}#teacher.")
    assert same_features(open_encoder(f"{file}#encoder_q"), query)
    assert same_features(open_encoder(f"{file}#state_dict.module.encoder_k."), key)


def test_an_encoder_beside_a_longer_prefix(tmp_path):
    online, teacher = resnet(seed=1), resnet(seed=2)
    weights = online.state_dict() | below("teacher.", teacher.state_dict())
    file = written(tmp_path / "a#b.pth", weights)
    assert "below '', 'teacher.'" in message(file)
    assert same_features(open_encoder(f"{file}#"), online)
    assert same_features(open_encoder(f"{file}#teacher."), teacher)


def damaged(change):
    weights = resnet().state_dict()
    change(weights)
    return weights


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w: w.pop("conv1.weight"), "1 missing (conv1.weight)"),
        (
            lambda w: [w.pop(name) for name in list(w) if name.startswith("layer4.1.bn")],
            "layer4.1.bn1.bias, layer4.1.bn1.r",
        ),
        (
            lambda w: w.update({f"layer1.0.se{i}.fc.weight": torch.zeros(1) for i in range(4)}),
            "4 unexpected (layer1.0.se0.",
        ),
        (lambda w: w.update({"attnpool.weight": torch.zeros(1)}), "1 unexpected (attnpool.weight)"),
        (lambda w: w.update({"bn1.bias": torch.zeros(65)}), "1 of another shape (bn1.bias (65,) instead of (64,))"),
        (
            lambda w: w.update({"layer1.2.bn1.bias": torch.zeros(64)}),
            "do not fit a ResNet of 3-2-2-2 blocks with the cifar stem: 9 missing",
        ),
        (lambda w: [w.pop(name) for name in list(w) if name.startswith(("layer", "bn"))], "holds no such encoder"),
        (lambda w: w.clear(), "no tensors"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_not_loaded(tmp_path, change, text):
    assert text in message(written(tmp_path / "file.pth", damaged(change)))


class Code:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (self.file,)


def test_code_in_a_file_is_not_run(tmp_path):
    content = {"state_dict": resnet().state_dict(), "args": Code(str(tmp_path / "ran"))}
    for name in (
        (file := written(tmp_path / "file.pth", content)),
        f"timm:resnet18@{file}",
        f"torchvision:resnet18@{file}",
    ):
        assert "nothing of it was run" in message(name)
    assert not (tmp_path / "ran").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
def test_a_torn_file(tmp_path, name):
    file = tmp_path / name
    written(file, resnet().state_dict())
    file.write_bytes(file.read_bytes()[:-1000])
    assert "breaks off" in message(file)


# timm


def test_timm_with_weights_from_a_file(tmp_path):
    import timm

    source = used(timm.create_model("resnet18"))
    file = written(tmp_path / "file.pth", {"state_dict": below("module.", source.state_dict())})
    encoder = open_encoder(f"timm:resnet18.a1_in1k@{file}")
    source.reset_classifier(0)
    assert same_features(encoder, source, 64)
    assert encoder.preprocessing == replace(IMAGENET, resize=235)  # floor of 224 / 0.95
    assert not encoder.training
    weights = below("module.", {**source.state_dict(), "layer5.bias": torch.zeros(1)})
    assert "1 unexpected (layer5.bias)" in message(f"timm:resnet18@{written(tmp_path / 'file.pth', weights)}")
    assert "there is no file" in message(f"timm:resnet18@{tmp_path}/absent.pth")


def test_a_transformer_of_timm(tmp_path):
    import timm

    source = timm.create_model("test_vit").eval()
    encoder = open_encoder(f"timm:test_vit@{written(tmp_path / 'file.safetensors', source.state_dict())}")
    source.reset_classifier(0)
    assert same_features(encoder, source, 160)
    assert encoder.preprocessing == Preprocessing(resize=168, size=160, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Provides an empty cache of Hugging Face's hub, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_timms_own_weights(hub, tmp_path, monkeypatch):
    import timm

    source = used(timm.create_model("test_resnet"))
    snapshot = hub / "models--timm--test_resnet.r160_in1k" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    written(snapshot / "model.safetensors", source.state_dict())
    encoder = open_encoder("timm:test_resnet")
    source.reset_classifier(0)
    assert same_features(encoder, source, 64)
    monkeypatch.chdir(tmp_path)
    exec(FETCH["timm"].format(name="test_resnet"))  # as on a machine with a network
    assert same_features(open_encoder("timm:test_resnet@weights.pth"), source, 64)


def test_timm_without_a_network_or_a_model(hub):
    not_fetched = message("timm:resnet18")
    assert not_fetched.startswith("timm:resnet18: fetch it on a machine with a network, by python")
    assert "and name timm:resnet18@weights.pth here: huggingface.co cannot be reached" in not_fetched
    assert "no timm model resnet5O; did you mean resnet50" in message("timm:resnet5O")
    assert "did you mean resnet18.a1_in1k" in message("timm:resnet18.a1_in1")


# torchvision


@pytest.mark.parametrize(
    ("name", "head", "resize"),
    [
        ("resnet18", "fc", 256),
        ("densenet121", "classifier", 256),
        ("efficientnet_b0", "classifier", 256),
        ("mobilenet_v3_small", "classifier.3", 256),
        ("regnet_y_400mf", "fc", 232),
        ("convnext_tiny", "classifier.2", 236),
        ("swin_t", "head", 232),
    ],
)
def test_torchvision_with_weights_from_a_file(tmp_path, name, head, resize):
    from torchvision.models import get_model

    source = used(get_model(name))
    encoder = open_encoder(f"torchvision:{name}@{written(tmp_path / 'file.pth', {'model': source.state_dict()})}")
    source.set_submodule(head, nn.Identity())
    assert same_features(encoder, source, 64)
    cubic = name in ("efficientnet_b0", "swin_t")
    assert encoder.preprocessing == replace(IMAGENET, resize=resize, bicubic=cubic)


def test_torchvisions_own_weights(tmp_path, monkeypatch, capsys):
    from torchvision.models import ResNet18_Weights, resnet18

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    source = used(resnet18())
    written(cache / ResNet18_Weights.DEFAULT.url.rpartition("/")[2], source.state_dict())
    encoder = open_encoder("torchvision:resnet18")
    source.fc = nn.Identity()
    assert same_features(encoder, source)
    monkeypatch.chdir(tmp_path)
    exec(FETCH["torchvision"].format(name="resnet18"))
    assert same_features(open_encoder("torchvision:resnet18@weights.pth"), source)
    assert capsys.readouterr().out == ""


def test_torchvision_without_a_network_or_a_model(tmp_path, monkeypatch):
    def absent(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", absent)
    assert message("torchvision:resnet18").endswith("resnet18@weights.pth here: download.pytorch.org cannot be reached")
    assert "did you mean resnet18" in message("torchvision:resnet81")
    assert "no weights from a file" in message("torchvision:googlenet@file.pth")


# transformers


def hugging_face(tmp_path, model: str, processor: dict, **settings):
    """Saves a tiny model of transformers; returns it and the name of its folder."""
    transformers = pytest.importorskip("transformers")
    extra = {"add_pooling_layer": False} if settings.pop("no_pooler", False) else {}
    source = getattr(transformers, f"{model}Model")(getattr(transformers, f"{model}Config")(**settings), **extra)
    used(source).save_pretrained(tmp_path)
    normal = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(normal | processor))
    return source, f"hf:{tmp_path}"


VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32}
CROP = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 36},
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "resample": 3,
}
SQUARE = {"image_processor_type": "ViTImageProcessor", "size": 32, "resample": 2}


@pytest.mark.parametrize(
    ("model", "settings", "features"),
    [
        ("Dinov2", VIT | {"patch_size": 8}, lambda out: out.last_hidden_state[:, 0]),
        ("ViT", VIT | {"patch_size": 8}, lambda out: out.pooler_output),
        ("ViT", VIT | {"patch_size": 8, "no_pooler": True}, lambda out: out.last_hidden_state[:, 0]),
        ("IJepa", VIT | {"patch_size": 8}, lambda out: out.last_hidden_state.mean(1)),
        ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, lambda out: out[0].mean((2, 3))),
    ],
)
def test_hugging_face_models(tmp_path, model, settings, features):
    source, name = hugging_face(tmp_path, model, CROP, **settings)
    encoder = open_encoder(name)
    assert not encoder.training
    assert encoder.preprocessing == replace(IMAGENET, resize=36, size=32)
    assert same_features(encoder, lambda x: features(source(x)))
    assert fingerprint(open_encoder(name)) == fingerprint(encoder)  # no weights drawn at random


def test_hugging_face_model_of_images_and_text(tmp_path):
    parts = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vision = parts | {"image_size": 32, "patch_size": 8}
    source, name = hugging_face(tmp_path, "CLIP", SQUARE, text_config=parts, vision_config=vision)
    encoder = open_encoder(name)
    assert same_features(encoder, lambda x: source.vision_model(x).pooler_output)
    assert encoder.preprocessing == replace(IMAGENET, resize=32, size=32, bicubic=False)


@pytest.mark.parametrize(
    ("processor", "resize", "size"),
    [
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 224},
                "crop_pct": 0.875,
                "resample": 3,
            },
            256,
            224,
        ),
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 384},
                "crop_pct": 0.875,
                "resample": 3,
            },
            384,
            384,
        ),
        (SQUARE, 32, 32),
    ],
)
def test_hugging_face_preprocessing(tmp_path, processor, resize, size):
    _, name = hugging_face(tmp_path, "ResNet", processor, embedding_size=8, hidden_sizes=[8], depths=[1])
    assert open_encoder(name).preprocessing == replace(
        IMAGENET, resize=resize, size=size, bicubic=processor["resample"] == 3
    )


def test_hugging_face_refusals(tmp_path, hub):
    small = VIT | {"patch_size": 8}
    _, name = hugging_face(tmp_path, "ViT", SQUARE | {"rescale_factor": 1.0}, **small)
    assert "does more or less than resize" in message(name)
    _, name = hugging_face(tmp_path, "ViT", SQUARE | {"size": {"height": 32, "width": 48}}, **small)
    assert "does more or less than resize" in message(name)
    _, name = hugging_face(tmp_path, "ViT", SQUARE | {"size": 64}, **small)
    assert "takes no image of 64 pixels" in message(name)
    _, name = hugging_face(tmp_path, "ViTMAE", SQUARE, **small)
    assert "hides random parts" in message(name)
    _, name = hugging_face(tmp_path, "ViT", SQUARE, **small)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    gone = next(key for key in weights if key.startswith("encoder") or ".0." in key)
    del weights[gone]
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "1 weights are missing" in message(name)
    assert message("hf:facebook/dinov2-small").startswith("hf:facebook/dinov2-small: is the name right? Then fetch it")


def test_hugging_face_never_runs_the_hubs_code(tmp_path):
    _, name = hugging_face(tmp_path, "ViT", SQUARE, **VIT, patch_size=8)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nclass Config: pass\n")
    message(name)
    assert not (tmp_path / "ran").exists()


def test_transformers_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install transformers" in message("hf:facebook/dinov2-small")


# All


def test_the_global_random_state_is_left_alone(tmp_path):
    file = written(tmp_path / "file.pth", resnet(stem="imagenet").state_dict())
    for name in file, f"timm:resnet18@{file}", f"torchvision:resnet18@{file}":
        state = torch.get_rng_state()
        open_encoder(name)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.process
def test_the_fingerprint_is_the_same_in_another_process():
    code = "from infomax.models.encoders import build_encoder as b, fingerprint as f; "
    code += "print(f(b('small', stem='cifar', seed=3)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint(build_encoder("small", stem="cifar", seed=3))


def test_the_fingerprint_is_of_the_weights_and_the_modules():
    encoder = build_encoder("small", stem="cifar", seed=3)
    expected = fingerprint(encoder)
    assert len(expected) == 12
    assert int(expected, 16) >= 0

    def flipped(name):
        other = build_encoder("small", stem="cifar", seed=3)
        assert fingerprint(other) == expected
        other.state_dict()[name].reshape(-1).view(torch.uint8)[-1] ^= 128  # the sign, of zeros too
        return fingerprint(other)

    assert expected not in [flipped(name) for name in encoder.state_dict()]
    strided = build_encoder("small", stem="imagenet", seed=3)  # the same weights
    assert fingerprint(strided) != expected
    assert fingerprint(encoder.to(memory_format=torch.channels_last)) == expected


def test_functions_in_a_module_have_no_place_in_the_fingerprint():
    class Odd(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function, self.architecture = function, ""

        def extra_repr(self):
            return repr(self.function)

    first, second = (Odd(function) for function in [lambda x: x, lambda x: x])
    assert repr(first) != repr(second)
    assert fingerprint(first) == fingerprint(second)
