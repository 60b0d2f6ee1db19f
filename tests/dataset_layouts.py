"""Writes tiny copies of the data sets that have a name, in the layouts in which their authors published them.

Each image of a copy has one colour of its own, so that tests notice if an image was taken for another.
"""

import io
import json
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from scipy.io import savemat

VOC = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep"
)
VOC_CLASSES = [*VOC.split(), "sofa", "train", "tvmonitor"]


def colour(number: int) -> tuple[int, int, int]:
    """Returns a colour that stands for a number."""
    return 8 + 16 * (number % 16), 8 + 16 * (number // 16 % 16), 8 + 16 * (number // 256)


def number(image: Image.Image) -> int:
    """Returns the number that an image's colour stands for; a JPEG's rounding does not matter."""
    red, green, blue = (np.asarray(image)[3, 3] - 8 + 4) // 16
    return int(red) + 16 * int(green) + 256 * int(blue)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


class Paint:
    """Writes images, whose colours stand for the order in which they are written."""

    def __init__(self):
        self.count = 0

    def __call__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), colour(self.count)).save(path, "JPEG")
        self.count += 1


class Python2(pickle._Pickler):
    """A pickler that writes strings and bytes as byte strings of Python 2, as CIFAR was written."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def _string(self, text):
        content = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = _string


def python2(content) -> bytes:
    file = io.BytesIO()
    Python2(file, 2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar(root: Path, folder: str, batches: list[str], meta: str, prefix: str, classes: int, dumps=python2) -> None:
    rng = np.random.default_rng(0)
    for i, batch in enumerate(batches):
        n = 3 + i
        content = {
            "batch_label": f"batch {i}",
            f"{prefix}labels": rng.integers(0, classes, n).tolist(),
            "data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
            "filenames": [f"{i}_{j}.png" for j in range(n)],
        }
        if prefix:
            content["coarse_labels"] = [0] * n
        write(root / folder / batch, dumps(content))
    names = [f"class {i}" for i in range(classes)]
    write(root / folder / meta, dumps({f"{prefix}label_names": names, "num_vis": 3072}))


def cifar10(root: Path, **options) -> None:
    batches = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    cifar(root, "cifar-10-batches-py", batches, "batches.meta", "", 10, **options)


def cifar100(root: Path, **options) -> None:
    cifar(root, "cifar-100-python", ["train", "test"], "meta", "fine_", 100, **options)


def stl10(root: Path) -> None:
    rng, folder = np.random.default_rng(0), root / "stl10_binary"
    for split, n in (("train", 4), ("test", 3), ("unlabeled", 5)):
        write(folder / f"{split}_X.bin", rng.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8).tobytes())
        if split != "unlabeled":
            write(folder / f"{split}_y.bin", rng.permutation(np.arange(1, 11, dtype=np.uint8))[:n].tobytes())
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    write(folder / "class_names.txt", "".join(f"{name}\n" for name in names))


def imagenet(root: Path, folder: str = "imagenet", wnids: tuple[str, ...] = ("n02", "n01", "n10")) -> None:
    paint = Paint()
    for wnid in wnids:
        for i in (1, 10, 2):
            paint(root / folder / "train" / wnid / f"{wnid}_{i}.JPEG")
        for i in (4, 3):
            paint(root / folder / "val" / wnid / f"ILSVRC2012_val_{i:08d}.JPEG")


def tiny_imagenet(root: Path) -> None:
    paint, folder, lines = Paint(), root / "tiny-imagenet-200", []
    for wnid in ("n02", "n01", "n10"):
        for i in (1, 10, 2):
            paint(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
        write(folder / "train" / wnid / f"{wnid}_boxes.txt", f"{wnid}_1.JPEG\t0\t0\t5\t5\n")
    for i, wnid in enumerate(("n10", "n01", "n02", "n10")):
        paint(folder / "val" / "images" / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t5\t5\n")
    write(folder / "val" / "val_annotations.txt", "".join(lines))
    write(folder / "wnids.txt", "n10\nn02\nn01\n")


def aircraft(root: Path) -> None:
    paint, data = Paint(), root / "fgvc-aircraft-2013b" / "data"
    variants = ["A310", "707-320", "Falcon 900", "F-16A/B"]
    write(data / "variants.txt", "".join(f"{variant}\n" for variant in variants))
    for split, order in (("train", (2, 0, 3, 1, 2)), ("val", (1, 2, 0, 3)), ("test", (3, 3, 1, 0, 2, 1))):
        names = [f"{1000 + paint.count + i:07d}" for i in range(len(order))]
        for name in names:
            paint(data / "images" / f"{name}.jpg")
        lines = [f"{name} {variants[i]}\n" for name, i in zip(names, order, strict=True)]
        write(data / f"images_variant_{split}.txt", "".join(lines))


def caltech101(root: Path, folder: str = "caltech101") -> None:
    paint = Paint()
    for name, n in (("accordion", 33), ("Faces", 34), ("BACKGROUND_Google", 35), ("airplanes", 31)):
        for i in range(1, n + 1):
            paint(root / folder / "101_ObjectCategories" / name / f"image_{i:04d}.jpg")
    write(root / folder / "Annotations" / "README", "outlines\n")


def cars(root: Path) -> None:
    paint, folder = Paint(), root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo"], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names[None]})
    for split, path, order in (
        ("train", "devkit/cars_train_annos.mat", (3, 1, 2, 2)),
        ("test", "cars_test_annos_withlabels.mat", (2, 3, 1)),
    ):
        fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
        rows = np.zeros((1, len(order)), [(field, object) for field in fields])
        for i, label in enumerate(order):
            rows[0, i] = (1.0, 1.0, 5.0, 5.0, np.uint8(label), f"{i + 1:05d}.jpg")
            paint(folder / f"cars_{split}" / f"{i + 1:05d}.jpg")
        savemat(folder / path, {"annotations": rows})


def dtd(root: Path, folder: str = "dtd/dtd") -> None:
    paint = Paint()
    for partition in (1, 2):
        for split, n in (("train", 3), ("val", 1), ("test", 2)):
            lines = []
            for name in ("zigzagged", "banded", "polka-dotted"):
                for i in range(n):
                    lines.append(f"{name}/{name}_{partition}{split}{i}.jpg\n")
                    paint(root / folder / "images" / lines[-1].strip())
            write(root / folder / "labels" / f"{split}{partition}.txt", "".join(lines))


def flowers(root: Path) -> None:
    paint, folder = Paint(), root / "flowers-102"
    labels = np.array([[5, 5, 1, 102, 7, 7, 1, 102, 3, 3]], np.uint8)
    for i in range(labels.size):
        paint(folder / "jpg" / f"image_{i + 1:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": labels})
    splits = {"trnid": [[9, 1, 4, 10]], "valid": [[2, 3]], "tstid": [[8, 5, 6, 7]]}
    savemat(folder / "setid.mat", {key: np.array(ids, np.uint16) for key, ids in splits.items()})


def food101(root: Path) -> None:
    paint, folder = Paint(), root / "food-101"
    for split, n in (("train", 3), ("test", 2)):
        lists = {name: [f"{name}/{split}{i}" for i in range(n)] for name in ("waffles", "apple_pie", "beignets")}
        for images in lists.values():
            for image in images:
                paint(folder / "images" / f"{image}.jpg")
        write(folder / "meta" / f"{split}.json", json.dumps(lists))


def pets(root: Path) -> None:
    paint, folder = Paint(), root / "oxford-iiit-pet"
    breeds = ["Abyssinian", "american_bulldog", "american_pit_bull_terrier"]
    for split, order in (("trainval", (1, 3, 2, 1)), ("test", (2, 1, 3))):
        lines = []
        for label in order:
            name = f"{breeds[label - 1]}_{paint.count}"
            lines.append(f"{name} {label} {1 if label == 1 else 2} {label}\n")
            paint(folder / "images" / f"{name}.jpg")
        write(folder / "annotations" / f"{split}.txt", "".join(lines))


def sun397(root: Path, beside: bool = False) -> None:
    paint, folder = Paint(), root / "SUN397"
    classes = ["/a/abbey", "/a/apartment_building/outdoor", "/b/bar", "/b/basement"]
    write(folder / "ClassName.txt", "".join(f"{name}\n" for name in classes))
    for split, order in (("Training", (1, 0, 3, 2, 2)), ("Testing", (3, 1, 2, 0))):
        lines = []
        for label in order:
            lines.append(f"{classes[label]}/sun_{paint.count:04d}.jpg\n")
            paint(folder / lines[-1].strip()[1:])
        write((root if beside else folder) / f"{split}_01.txt", "".join(lines))


def voc2007(root: Path) -> None:
    """Writes images; number i shows classes i and i - 5, and class i + 1 only as difficult, modulo 20."""
    paint, folder = Paint(), root / "VOCdevkit" / "VOC2007"
    main = folder / "ImageSets" / "Main"
    for split, n in (("train", 22), ("val", 20), ("test", 21)):
        images = range(paint.count, paint.count + n)
        write(main / f"{split}.txt", "".join(f"{i:06d}\n" for i in images))
        for column, name in enumerate(VOC_CLASSES):
            shown = {column: 1, (column - 1) % 20: 0, (column + 5) % 20: 1}
            write(main / f"{name}_{split}.txt", "".join(f"{i:06d} {shown.get(i % 20, -1):2d}\n" for i in images))
        for i in images:
            paint(folder / "JPEGImages" / f"{i:06d}.jpg")
            marks = ((i, 0), (i + 1, 1), (i - 5, 0))
            objects = "".join(
                f"<object><name>{VOC_CLASSES[c % 20]}</name><difficult>{d}</difficult></object>" for c, d in marks
            )
            write(folder / "Annotations" / f"{i:06d}.xml", f"<annotation>{objects}</annotation>")


LAYOUTS = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "stl10": stl10,
    "tiny-imagenet": tiny_imagenet,
    "imagenet": imagenet,
    "aircraft": aircraft,
    "caltech101": caltech101,
    "cars": cars,
    "dtd": dtd,
    "flowers": flowers,
    "food101": food101,
    "pets": pets,
    "sun397": sun397,
    "voc2007": voc2007,
}
