"""Times steps of other libraries' networks beside a bare loop of torch, and compares their features with timm's own.

python benchmarks/backbones.py [--photographs FOLDER] [--quick]

Each family trains at 96 pixels, 16 images a step, from weights drawn at random, by MIRA with its EMA teacher. The bare
loop has timm's own model in the same method, the same views, loss and optimiser, and nothing else. Features are those
of 200 photographs, by our preprocessing and by timm's own transform; without a folder the photographs are drawn at
random. Writes docs/results/backbones.json. It takes some ten minutes, or two with --quick.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from turns import DEVICE, Row, row, turns

from infomax.data.loading.workers import Batch
from infomax.data.sources.given import open_given
from infomax.features.extraction import extract_features
from infomax.methods.base import Method, Progress, Views
from infomax.models.encoders import Encoder, build_encoder
from infomax.models.pretrained import open_encoder
from infomax.recipes.building import build_optimizer, learning_rate
from infomax.recipes.registry import get_experiment
from infomax.recipes.schema import Recipe
from infomax.runs.provenance import provenance
from infomax.training.engine import Engine
from infomax.training.initial import settle_recipe
from infomax.training.loop import train_step

OUT = Path(__file__).parent.parent / "docs" / "results" / "backbones.json"
FAMILIES = {
    "ResNet": "resnet18",
    "ConvNeXt": "convnext_atto",
    "ViT": "vit_tiny_patch16_224",
    "EfficientNet": "efficientnet_b0",
}
SIZE, BATCH, PHOTOGRAPHS = 96, 16, 200
STEPS = 1000  # of an epoch, so that no step is the last one of it


def recipe_of(name: str) -> Recipe:
    """Returns the recipe of a model's steps."""
    changes = {"backbone": f"timm:{name}", "image_size": SIZE, "batch_size": BATCH, "epochs": 10}
    return settle_recipe(get_experiment("small", "mira"), images=STEPS * BATCH, initial=None, changes=changes)


def engine_step(engine: Engine, views: list[Tensor]) -> None:
    """Makes one step of the engine with these views."""
    train_step(engine, [Batch(torch.empty(0), 0, np.arange(BATCH), {}, views)])


def bare_method(recipe: Recipe, name: str, weights: dict[str, Tensor]) -> Method:
    """Returns the recipe's method around timm's own model."""
    model: Any = timm.create_model(name, num_classes=0, **({"img_size": SIZE} if name.startswith("vit") else {}))
    with torch.no_grad():
        encoder = Encoder(model, model.eval()(torch.zeros(1, 3, SIZE, SIZE)).shape[1]).train()
    method = recipe.method.build(encoder)
    method.load_state_dict(weights)
    method.joint_forward = recipe.joint_forward
    return method.to(DEVICE, memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]


class BareLoop:
    """A training loop with nothing but forward, loss, backward, update and EMA, on given views."""

    def __init__(self, recipe: Recipe, method: Method):
        self.recipe, self.method, self.steps_done = recipe, method.train(), 0
        self.optimizer = build_optimizer(method, recipe.optimizer, fused=DEVICE.type == "cuda")

    def step(self, views: list[Tensor]) -> None:
        """Makes one step."""
        total = self.recipe.epochs * STEPS
        now = Progress(self.steps_done, total, self.steps_done // STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe.optimizer, now, epochs=self.recipe.epochs)
        self.optimizer.zero_grad()
        given = Views(views, [])
        self.method.loss(self.method.online(given), self.method.target(given), now).total.backward()
        self.method.after_backward(now)
        self.optimizer.step()
        self.steps_done += 1
        self.method.after_step(Progress(self.steps_done, total, self.steps_done // STEPS))


def step_row(family: str, name: str, repeats: int) -> Row:
    """Compares the engine's step with the bare loop's."""
    recipe = recipe_of(name)
    engine = Engine(recipe, steps_per_epoch=STEPS, device=DEVICE)
    alone = BareLoop(recipe, bare_method(recipe, name, {n: x.clone() for n, x in engine.method.state_dict().items()}))
    views = [torch.randn(BATCH, 3, SIZE, SIZE, device=DEVICE).to(memory_format=torch.channels_last) for _ in range(2)]
    contestants: dict[str, Callable[[], Any]] = {
        "infomax": partial(engine_step, engine, views),
        "bare loop": partial(alone.step, views),
    }
    seconds = turns(contestants, repeats)
    ends = zip(engine.method.state_dict().values(), alone.method.state_dict().values(), strict=True)
    largest = max(float((a.double() - b.double()).abs().max()) for a, b in ends)
    return row(f"{family}, {name}", seconds, "infomax", "bare loop", weights_differ_by=largest)


def photographs(folder: str | None, temporary: str) -> list[Path]:
    """Returns 200 files of photographs; without a folder, of smooth noise."""
    if folder is not None:
        files = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
        return files[:: max(1, len(files) // PHOTOGRAPHS)][:PHOTOGRAPHS]
    rng, files = np.random.default_rng(0), []
    for number in range(PHOTOGRAPHS):
        waves = (rng.normal(size=(12, 16, 3)) * 60 + 128).clip(0, 255).astype(np.uint8)
        files.append(Path(temporary, f"{number}.jpg"))
        Image.fromarray(waves).resize((500, 375), Image.Resampling.BICUBIC).save(files[-1], quality=95)
    return files


def used(model: nn.Module) -> None:
    """Gives BatchNorm layers statistics, so that features are not those of a fresh network."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)  # pyrefly: ignore[bad-argument-type]
            nn.init.uniform_(layer.running_var, 0.5, 2)  # pyrefly: ignore[bad-argument-type]


@torch.no_grad()
def features_row(family: str, name: str, files: list[Path], temporary: str) -> Row:
    """Compares our features with those of timm's own model, of the same tensors and of the same files."""
    torch.manual_seed(0)
    weights = f"{temporary}/{name}.safetensors"
    source = build_encoder(f"timm:{name}", seed=0).backbone
    used(source)
    safetensors.torch.save_file(source.state_dict(), weights)
    encoder = open_encoder(f"timm:{name}@{weights}")
    theirs: Any = timm.create_model(name, num_classes=0).eval()
    theirs.load_state_dict(safetensors.torch.load_file(weights))
    transform: Any = create_transform(**resolve_model_data_config(theirs))
    tensors = [transform(Image.open(file).convert("RGB")) for file in files]
    batches = torch.stack(tensors).split(20)
    of_theirs = torch.cat([theirs(batch) for batch in batches])
    of_same_tensors = torch.cat([encoder(batch) for batch in batches])
    images = open_given([str(file) for file in files], in_order=True).train
    of_files = extract_features(encoder, images, np.arange(len(files)), encoder.preprocessing)
    scale = float(of_theirs.abs().max())
    similarity = nn.functional.cosine_similarity(of_files, of_theirs)
    return {
        "name": f"{family}, {name}",
        "images": len(files),
        "same_tensors_differ_by": float((of_same_tensors - of_theirs).abs().max()) / scale,
        "files_differ_by": float((of_files - of_theirs).abs().max()) / scale,
        "least_cosine": float(similarity.min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photographs", help="a folder of photographs")
    parser.add_argument("--quick", action="store_true", help="few turns")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    repeats = 5 if arguments.quick else 25
    torch.set_num_threads(1)  # so that processor time is the time of a step
    steps = []
    for family, name in FAMILIES.items():
        steps.append(step_row(family, name, repeats))
        print(family, f"{steps[-1]['ratio']:.3f}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        files = photographs(arguments.photographs, temporary)
        features = [features_row(family, name, files, temporary) for family, name in FAMILIES.items()]
    kind = "of real photographs" if arguments.photographs else "of smooth noise"
    kept = {
        "command": f"python benchmarks/backbones.py{' --photographs FOLDER' * bool(arguments.photographs)}",
        **{key: value for key, value in provenance().items() if key != "command"},
        "device": DEVICE.type,
        "kind": kind,
        "steps": steps,
        "features": features,
    }
    arguments.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
