"""Overfits Mask R-CNN to a few photographs of COCO, on one core of a CPU: what it learns must show in the AP.

    python benchmarks/detection.py --data coco128/ --out docs/results/detection.json

The same images are trained on and tested on, so the AP says that boxes, masks, losses, statistics of BatchNorm and
scores fit each other, and nothing about other images. They are the first ones, by their number in COCO, all of whose
objects have a box of at least a tenth of the image: the images are made small, and small objects would be a few pixels.
The encoder is an untrained ResNet of 0.4 million parameters.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

from infomax.data.augmentation.views import Preprocessing
from infomax.data.sources.location import DataLocation
from infomax.evaluation.detection.coco_folder import open_coco
from infomax.evaluation.detection.detect import detect
from infomax.evaluation.detection.schedule import DetectorSetting
from infomax.evaluation.options import EvaluationOptions
from infomax.evaluation.representations import Representation
from infomax.models.encoders import build_encoder, fingerprint
from infomax.runs.provenance import provenance

BACKBONE = "timm:test_resnet"
LEAST_SHARE = 0.1  # of an image that each of its objects' boxes covers


def few_images(data: Path, count: int, folder: Path) -> list[int]:
    """Writes a folder in COCO's format whose images to train and to test on are the same few.

    Args:
        data: Folder with the images and one JSON of objects.
        count: Number of images.
        folder: The new folder.

    Returns:
        The images' numbers.
    """
    (json_file,) = [*data.glob("*.json"), *data.glob("annotations/instances_train*.json")]
    content = json.loads(json_file.read_text())
    areas = {image["id"]: image["width"] * image["height"] for image in content["images"]}
    shares: dict[int, list[float]] = {}
    for annotation in content["annotations"]:
        _, _, width, height = annotation["bbox"]
        image = annotation["image_id"]
        shares.setdefault(image, []).append(width * height / areas[image])
    kept = sorted(image for image, of_objects in shares.items() if min(of_objects) >= LEAST_SHARE)[:count]
    images = [image for image in content["images"] if image["id"] in kept]
    objects = [annotation for annotation in content["annotations"] if annotation["image_id"] in kept]
    (folder / "annotations").mkdir()
    (folder / "images").symlink_to((data / "images").resolve())
    for split in ("train", "val"):
        file = folder / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps({**content, "images": images, "annotations": objects}))
    return kept


def overfit(data: Path, count: int, setting: DetectorSetting) -> dict:
    """Trains and tests on the same images, and returns the row with the seconds of one core."""
    encoder = build_encoder(BACKBONE, seed=0)
    encoder.preprocessing = Preprocessing(resize=setting.test_side, size=setting.test_side)
    representation = Representation("untrained", fingerprint(encoder), lambda *_: torch.empty(0), encoder)
    with tempfile.TemporaryDirectory() as folder:
        image_ids = few_images(data, count, Path(folder))
        source = open_coco(DataLocation(folder))
        start = time.process_time()
        row = detect(
            representation, source, setting, evaluation=EvaluationOptions(device="cpu", no_cache=True, quiet=False)
        )
        seconds = time.process_time() - start
    values = {key: value for key, value in row.to_json().items() if key not in ("data", "pictures_hash")}
    made = {"backbone": BACKBONE, "image_ids": image_ids, "least_share": LEAST_SHARE, "cpu_seconds": round(seconds)}
    return {**made, "objects": len(source.to_test[1].order), **values}


def main() -> None:
    """Measures, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and one JSON of objects")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=700)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made = provenance() | {"command": "python benchmarks/detection.py"}  # no folder of this machine
    setting = DetectorSetting(
        arch="c4",
        budget=arguments.iterations,
        batch_size=4,
        learning_rate=0.02,
        boxes_per_image=32,
        train_sides=(192,),
        test_side=192,
        evaluate_every=100,
    )
    row = overfit(arguments.data, arguments.images, setting)
    arguments.out.write_text(json.dumps({**made, "threads": 1, "result": row}, indent=1) + "\n")
    print(os.linesep.join(f"{key}: {value}" for key, value in row.items() if "ap" in key))


if __name__ == "__main__":
    main()
