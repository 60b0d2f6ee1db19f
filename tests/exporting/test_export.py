"""infomax export: mistakes, what is left behind, and each format opened by its library alone."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import huggingface_hub
import numpy as np
import pytest
import torch

import infomax
from command import run_command, start_command, wait_for
from encoder_files import used
from infomax.data.augmentation.views import Preprocessing
from infomax.exporting import check, export_format, formats, output, push
from infomax.exporting.export_format import LoadingCode
from infomax.exporting.reference_images import reference_images
from infomax.models.encoders import build_encoder, save_encoder
from infomax.runtime import new_folders
from infomax.runtime.extras import how_to_install
from infomax.runtime.failures import MachineError


def encoder_folder(folder, backbone="small", stem="cifar", size=16, resize=18, **settings):
    """Writes the encoder of a run folder, with statistics that matter."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = build_encoder(backbone, stem=stem, seed=0, **settings)
    used(encoder)
    preprocessing = Preprocessing(resize=resize, size=size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    save_encoder(encoder, asdict(encoder.settings), preprocessing, folder)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder_folder(tmp_path / "run")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--format", "onx", "--out", "a.onnx"), "--format must be one of timm, .*; did you mean onnx?"),
        (("run", "--format", "hf", "--out", "a"), "but is 'hf'; did you mean huggingface?"),
        (("run", "--format", "onnx", "--out", "a"), r"--out a: the format is one file, whose name must end in \.onnx"),
        (("run", "--format", "timm", "--out", "a.pt2"), "--out a.pt2: the format is a folder"),
        (("run", "--format", "timm", "--out", "a"), "timm has no network small; safetensors, onnx, torch-export fit"),
        (("run", "--format", "onnx", "--out", "a.onnx", "--normalise", "in"), "--normalise must be one of outside, "),
        (
            ("run", "--format", "safetensors", "--out", "a.safetensors", "--normalise", "inside"),
            "--normalise inside is for onnx and torch-export",
        ),
        (("rum", "--format", "onnx", "--out", "a.onnx"), "rum is no encoder: .*did you mean run?"),
        (("run", "--format", "onnx"), "--out PATH is missing"),
        (("run", "--to", "onnx", "--out", "a.onnx"), "--to: did you mean --format?"),
        (("run", "--format", "timm", "--out", "."), r"--out \. must name a new folder or file"),
        (("--format", "onnx", "--out", "a.onnx"), "ENCODER is missing"),
        (("run", "--format", "onnx", "--out", "run/encoder.json/a.onnx"), "run/encoder.json is no folder"),
        (("run", "--format", "onnx", "--out", "a.onnx", "--push", "a b/c"), "--push a b/c: "),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder, monkeypatch, capsys, words, message):
    before = sorted(folder.rglob("*"))
    code, out, err = run_command(monkeypatch, capsys, "export", *words)
    lines = [line for line in err.splitlines() if line]
    assert code == 2
    assert out == ""
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines
    assert sorted(folder.rglob("*")) == before


def test_a_package_that_is_missing_is_named_with_what_installs_it(folder, monkeypatch, capsys):
    find_spec = export_format.find_spec
    monkeypatch.setattr(export_format, "find_spec", lambda name: None if name.startswith("onnx") else find_spec(name))
    code, _, err = run_command(monkeypatch, capsys, "export", "run", "--format", "onnx", "--out", "a.onnx")
    assert code == 2
    assert err == f"infomax: --format onnx needs onnx, onnxscript, onnxruntime: {how_to_install('onnx')}\n"
    _, _, err = run_command(monkeypatch, capsys, "export", "nothere", "--format", "onnx", "--out", "a.onnx")
    assert "nothere is no encoder: no such folder or file" in err  # which comes first


def test_what_is_there_is_replaced_only_if_asked_and_only_if_it_is_an_export(tmp_path):
    file, place = tmp_path / "a.onnx", tmp_path / "a"
    for suffix, out in ((".onnx", file), ("", place)):
        output.check_output(out, suffix, overwrite=False)
    file.write_text("x")
    place.mkdir()
    output.check_output(place, "", overwrite=False)  # it is empty
    (place / "photo.jpg").write_text("x")
    with pytest.raises(ValueError, match=r"a\.onnx exists; choose another, or --overwrite"):
        output.check_output(file, ".onnx", overwrite=False)
    output.check_output(file, ".onnx", overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="a exists and is no export of infomax"):
            output.check_output(place, "", overwrite=overwrite)
    (place / output.DESCRIPTION).write_text("{}")
    output.check_output(place, "", overwrite=True)
    with pytest.raises(ValueError, match="a exists; choose another"):
        output.check_output(place, "", overwrite=False)
    file.unlink()
    (tmp_path / "a.onnx.md").write_text("mine")
    with pytest.raises(ValueError, match=r"a\.onnx\.md exists"):
        output.check_output(file, ".onnx", overwrite=False)
    (tmp_path / "b.onnx").mkdir()
    with pytest.raises(ValueError, match=r"b\.onnx exists and is no export"):
        output.check_output(tmp_path / "b.onnx", ".onnx", overwrite=True)


def test_an_exception_leaves_nothing_and_a_killed_process_no_more_than_the_next_one_removes(tmp_path):
    out = tmp_path / "new" / "a*"

    def interrupted():
        with new_folders.partial_folder(out) as partial:
            (partial / "x").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]
    of_the_dead = out.with_name(".a*.1-00.partial")
    of_the_dead.mkdir()
    of_another = out.with_name(".ab.1-00.partial")
    of_another.mkdir()
    with new_folders.partial_folder(out) as alive, new_folders.partial_folder(out):
        assert alive.is_dir()
        assert alive.is_absolute()
        assert not of_the_dead.exists()
    assert list(tmp_path.rglob("*")) == [tmp_path / "new", of_another]


def test_a_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path):
    out = tmp_path / "a"
    out.mkdir()
    (out / "old").write_text("x")
    with pytest.raises(OSError, match="No such file"):
        new_folders.move_folder(tmp_path / "missing", out, tmp_path / "trash")
    assert [file.name for file in out.iterdir()] == ["old"]


def test_nobody_is_logged_in(folder, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    words = ("export", "run", "--format", "onnx", "--out", "a.onnx", "--push", "me/a")
    code, _, err = run_command(monkeypatch, capsys, *words)
    assert code == 2
    assert "--push me/a: nobody is logged in; hf auth login does it" in err


def test_what_a_library_raises_while_it_writes_is_one_line(folder, monkeypatch, capsys):
    def fail(encoder, path, inside):
        path.write_text("half")
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setitem(formats.FORMATS, "onnx", replace(formats.FORMATS["onnx"], write=fail))
    before = sorted(folder.rglob("*"))
    code, _, err = run_command(monkeypatch, capsys, "export", "run", "--format", "onnx", "--out", "a.onnx")
    assert code == 1
    assert "--format onnx cannot be written (RuntimeError: no kernel for this); nothing was written" in err
    assert sorted(folder.rglob("*")) == before


class Hub:
    """Stands in for the hub's interface, which needs a network and an account, and notes what is uploaded."""

    uploads: tuple = ()
    exists, fails = False, False

    def repo_exists(self, name):
        return Hub.exists

    def create_repo(self, name, *, private, exist_ok):
        assert private
        assert exist_ok
        return f"https://hub.invalid/{name}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        if Hub.fails:
            raise OSError("the network\nis gone")
        Hub.uploads = (*Hub.uploads, *sorted(file.name for file in folder_path.iterdir()))

    def upload_file(self, *, repo_id, path_or_fileobj, path_in_repo, commit_message):
        assert path_or_fileobj.is_file()
        Hub.uploads = (*Hub.uploads, path_in_repo)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(Hub, "uploads", ())
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(push, "is_reachable", lambda *_: True)
    return Hub


def test_a_folder_or_a_file_with_its_card_is_pushed(tmp_path, hub, capsys):
    (tmp_path / "a").mkdir()
    for name in ("config.json", "README.md"):
        (tmp_path / "a" / name).write_text("x")
    assert push.push(tmp_path / "a", "me/a") == "https://hub.invalid/me/a"
    assert hub.uploads == ("README.md", "config.json")
    assert "me/a is new on the hub, and private" in capsys.readouterr().err
    hub.uploads, hub.exists = (), True
    for name in ("b.onnx", "b.onnx.md"):
        (tmp_path / name).write_text("x")
    push.push(tmp_path / "b.onnx", "me/b")
    assert hub.uploads == ("b.onnx", "README.md")
    assert capsys.readouterr().err == ""
    hub.exists = False


def test_without_a_network_the_export_stays(tmp_path, hub, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.setattr(hub, "fails", True)
    with pytest.raises(MachineError, match="OSError: the network is gone; .*a stays where it is; hf upload me/a"):
        push.push(tmp_path / "a", "me/a")
    monkeypatch.setattr(push, "is_reachable", lambda *_: False)
    with pytest.raises(MachineError, match="cannot be reached; .*a stays where it is"):
        push.push(tmp_path / "a", "me/a")
    assert (tmp_path / "a").is_dir()


BACKBONES = {
    "small": {"stem": "cifar"},
    "resnet18": {"stem": "imagenet", "size": 64, "resize": 73},
    "timm:test_vit": {"stem": "imagenet", "size": 160, "resize": 183, "pooling": "avg"},
    "timm:test_convnext": {"stem": "imagenet", "size": 64, "resize": 64},
    "timm:test_efficientnet": {"stem": "imagenet", "size": 64, "resize": 73},
    "torchvision:shufflenet_v2_x0_5": {"stem": "imagenet", "size": 64, "resize": 73},
}
CASES = [
    *(("small", name) for name in ("safetensors", "onnx", "torch-export")),
    *(("resnet18", name) for name in ("torchvision", "huggingface")),
    ("timm:test_vit", "timm"),
    pytest.param("resnet18", "onnx", marks=pytest.mark.slow),
    pytest.param("timm:test_vit", "huggingface", marks=pytest.mark.slow),
    pytest.param("timm:test_convnext", "onnx", marks=pytest.mark.slow),
    pytest.param("timm:test_efficientnet", "timm", marks=pytest.mark.slow),
    pytest.param("torchvision:shufflenet_v2_x0_5", "torchvision", marks=pytest.mark.slow),
]


@pytest.mark.process
@pytest.mark.parametrize(("backbone", "name"), CASES)
def test_each_format_gives_the_same_features_in_its_own_library(tmp_path, monkeypatch, backbone, name):
    """The export itself compares; this test opens the result once more, from its place, by the code on its card."""
    monkeypatch.chdir(tmp_path)
    run = encoder_folder(tmp_path / "run", backbone, **BACKBONES[backbone])
    kind = formats.FORMATS[name]
    written = infomax.export(run, format=name, out=f"given{kind.suffix}")
    assert written.comparison.relative < 1e-5
    assert written.comparison.pixel_difference < 0.5
    text = written.card.read_text()
    assert written.comparison.words() in text
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {"run", written.path.name, *([written.card.name] if kind.suffix else [])}
    )


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CONFIGS = {
    "vit": {"model_type": "vit", **SIZES, "image_size": 32, "patch_size": 8},
    "dinov2": {"model_type": "dinov2", **SIZES, "image_size": 32, "patch_size": 8},
    "clip": {"model_type": "clip_vision_model", **SIZES, "image_size": 32, "patch_size": 8},
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1]},
}


@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        ("vit", "token"),
        ("convnext", None),
        *(pytest.param(kind, None, marks=pytest.mark.slow) for kind in ("dinov2", "clip")),
    ],
)
def test_models_of_transformers_go_back_to_transformers(tmp_path, kind, pooling):
    settings = {"pooling": pooling, "architecture_config": json.dumps(CONFIGS[kind]), "size": 32, "resize": 36}
    run = encoder_folder(tmp_path / "run", f"hf:{kind}", "imagenet", **settings)
    written = infomax.export(run, format="huggingface", out=tmp_path / "given")
    assert written.comparison.relative < 1e-5
    assert written.comparison.pixel_difference < 1


@pytest.mark.process
@pytest.mark.parametrize(("backbone", "name"), [("small", "onnx"), ("resnet18", "timm")])
def test_the_code_on_the_card_computes_the_features_of_an_image(tmp_path, monkeypatch, backbone, name):
    monkeypatch.chdir(tmp_path)
    run = encoder_folder(tmp_path / "run", backbone, **BACKBONES[backbone])
    written = infomax.export(run, format=name, out=f"given{formats.FORMATS[name].suffix}")
    reference_images("none", 8)[0][3].save(tmp_path / "cat.jpg")
    program = written.card.read_text().partition("```python\n")[2].partition("```")[0]
    program += "values = features.detach().numpy() if hasattr(features, 'detach') else features\n"
    program += "import numpy, sys; numpy.save('features.npy', values); assert 'infomax' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", program], check=True)
    expected, _ = infomax.embed(run, [tmp_path / "cat.jpg"])
    assert np.abs(np.load("features.npy") - expected.numpy()).max() < 0.01 * expected.abs().max()


@pytest.mark.process
def test_onnx_takes_any_batch_and_says_how_images_are_prepared(tmp_path):
    import onnx
    import onnxruntime

    run = encoder_folder(tmp_path / "run")
    encoder = infomax.load(run)
    file = tmp_path / "a.onnx"
    for normalise in ("outside", "inside"):
        infomax.export(run, format="onnx", out=file, normalise=normalise, overwrite=True)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        assert (given.name, given.shape[1:]) == ("images", [3, 16, 16])
        assert isinstance(given.shape[0], str)
        for count in (1, 2, 5, 17):
            images = torch.rand(count, 3, 16, 16)
            mean, std = (torch.tensor(x).reshape(1, 3, 1, 1) for x in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
            with torch.no_grad():
                expected = encoder((images - mean) / std)
            pixels = images if normalise == "inside" else (images - mean) / std
            (features,) = session.run(None, {"images": pixels.numpy()})
            assert np.abs(features - expected.numpy()).max() < 1e-5 * expected.abs().max()
        model = onnx.load(file)
        onnx.checker.check_model(model)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(properties["preprocessing.mean"]) == [0.5, 0.4, 0.3]
        assert json.loads(properties["infomax"])["preprocessing"]["resize"] == 18
        assert ("normalises itself" in properties["input"]) == (normalise == "inside")
        assert f"Opset {model.opset_import[0].version};" in (tmp_path / "a.onnx.md").read_text()


def break_onnx(path):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("layer2.0.conv1.weight"))
    values = numpy_helper.to_array(weight).copy()
    values[3] *= -1
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


def break_timm(path):
    import safetensors.torch

    weights = safetensors.torch.load_file(path / "model.safetensors")
    weights["layer2.0.conv1.weight"][3] *= -1
    safetensors.torch.save_file(weights, path / "model.safetensors")


def break_preprocessing(path):
    config = json.loads((path / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.485, 0.456, 0.406]
    (path / "config.json").write_text(json.dumps(config))


def break_torchvision(path):
    torch.save({}, path / "weights.pth")


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("onnx", break_onnx, "gives other features than the encoder: the largest difference is"),
        ("timm", break_timm, "gives other features than the encoder"),
        ("timm", break_preprocessing, "prepares images otherwise than the encoder: pixels differ by"),
        ("torchvision", break_torchvision, "torchvision does not open the export"),
    ],
)
def test_an_export_that_differs_is_an_error_and_leaves_no_file(tmp_path, monkeypatch, capsys, name, damage, message):
    """ResNets came out wrong in ONNX by some versions of torch (pytorch issues 166797 and 169178)."""
    kind = formats.FORMATS[name]

    def write_and_damage(encoder, path, inside):
        facts = kind.write(encoder, path, inside)
        damage(path)
        return facts

    monkeypatch.setitem(formats.FORMATS, name, replace(kind, write=write_and_damage))
    run = encoder_folder(tmp_path / "run", "resnet18", "imagenet", size=64, resize=64)
    out = tmp_path / f"given{kind.suffix}"
    code, printed, err = run_command(monkeypatch, capsys, "export", str(run), "--format", name, "--out", str(out))
    assert code == 1
    assert printed == ""
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.process
def test_a_format_that_needs_infomax_in_the_process_is_refused(tmp_path):
    """The comparison runs the library alone: this is what it does if that is not so."""
    run = encoder_folder(tmp_path / "run")
    encoder = infomax.load(run)
    kind = formats.FORMATS["torch-export"]

    def code_with_infomax(encoder, path, inside):
        code = kind.code(encoder, path, inside)
        return LoadingCode(f"import infomax\n{code.setup}", code.prepare, code.encode)

    with_infomax = replace(kind, code=code_with_infomax)
    kind.write(encoder, tmp_path / "a.pt2", False)
    images, _ = reference_images("none", 8)
    (tmp_path / "x").mkdir()
    with pytest.raises(MachineError, match="opens the export only with infomax"):
        check.compare_export(encoder, with_infomax, tmp_path / "a.pt2", images, tmp_path / "x", normalise_inside=False)


def test_the_difference_is_given_beside_the_largest_value():
    comparison = check.Comparison("onnxruntime", "1", difference=6e-7, scale=3.0, pixel_difference=0.0)
    sizes = "the same features at batches of 1, 3 and 8"
    assert comparison.words() == f"{sizes}: largest difference 6e-07, which is 2e-07 times the largest feature"


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_export_that_is_interrupted_leaves_nothing(tmp_path, number):
    encoder_folder(tmp_path / "run", "resnet18", "imagenet", size=64, resize=73)
    process = start_command(tmp_path, "export", "run", "--format", "onnx", "--out", "a.onnx")
    wait_for(lambda: list(tmp_path.glob(".a.onnx.*.partial")), process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, 143), err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
