"""Exports an encoder: what the command ``infomax export`` and Python share."""

import json
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infomax.exporting.export_format import Format
from infomax.exporting.formats import FORMATS, OTHER_NAMES
from infomax.exporting.head import classes_of, output_words
from infomax.exporting.options import ExportOptions
from infomax.exporting.output import (
    CARD,
    DESCRIPTION,
    card_beside,
    check_output,
    move_file,
)
from infomax.exporting.push import check_push
from infomax.exporting.push import push as push_to_hub
from infomax.models.backbone_names import check_encoder_name
from infomax.runtime.checks import choose
from infomax.runtime.failures import MachineError
from infomax.runtime.new_folders import move_folder, partial_folder
from infomax.runtime.options import pick
from infomax.runtime.stages import Stage, importing_torch
from infomax.runtime.text import note

if TYPE_CHECKING:
    from infomax.exporting.check import Comparison
    from infomax.models.encoders import Encoder


@dataclass(frozen=True)
class Export:
    """A frozen dataclass that says what was written, and how it compares with the encoder."""

    path: Path
    """The folder or file."""
    card: Path
    """The model card."""
    format: str
    comparison: "Comparison"
    address: str | None = None
    """Address on the hub, if it was pushed."""


def export(
    encoder: str | PathLike[str],
    *,
    format: str,  # noqa: A002
    out: str | PathLike[str],
    normalise: str = "outside",
    push: str | None = None,
    overwrite: bool = False,
) -> Export:
    """Writes an encoder in the format of another library, with its preprocessing and a model card.

    The export is opened by that library alone, in a process of its own, and its features are compared with the
    encoder's on real images, before it gets its name. If they differ by more than rounding, nothing is written.

    Args:
        encoder: A run folder; timm:NAME, torchvision:NAME or hf:NAME; a checkpoint file; or the folder of a classifier
            by infomax classify fit, which is written with its classes.
        format: Format to write: a folder for timm, torchvision or transformers (huggingface); or one file for infomax
            (safetensors), for onnxruntime and other runtimes (onnx), or for torch alone (torch-export).
        out: Folder to make, or file, whose name ends in .safetensors, .onnx or .pt2.
        normalise: Where pixels are normalised by the mean and standard deviation: outside, by whoever calls the model,
            as for every other format; or inside of the file of onnx or torch-export, which then takes pixels from 0 to
            1.
        push: Name on the hub of Hugging Face to upload the export to, if you are logged in there. A new one is private.
            Default: nowhere.
        overwrite: Replace an export that is there.

    Returns:
        What was written, with the largest difference of its features.

    Raises:
        ValueError: if there is no such encoder or format, or one does not fit the other; naming the package that is
            missing; or if ``out`` is there already.
        MachineError: if the library gives other features than the encoder, or the hub refuses the upload.

    Example:
        >>> import infomax
        >>> infomax.export("runs/a", format="onnx", out="a.onnx").comparison.difference  # doctest: +SKIP
        2.4e-07
    """
    names: dict[str, Any] = {"encoder": encoder, "format": format, "out": out, "normalise": normalise}
    return run_export(pick(ExportOptions, {**names, "push": push, "overwrite": overwrite}))


def run_export(options: ExportOptions) -> Export:
    """Carries out an export; see :func:`export`."""
    kind = _check_options(options)
    with importing_torch():
        from infomax.classifying.classifier import is_classifier, load_classifier
        from infomax.models.pretrained import open_encoder
    if is_classifier(options.encoder):
        encoder = load_classifier(options.encoder).with_head().eval()
    else:
        encoder = _as_float32(open_encoder(options.encoder)).eval()
    _check_fit(encoder, kind)
    from infomax.exporting.check import BATCHES
    from infomax.exporting.reference_images import reference_images

    images, words = reference_images(options.encoder, max(BATCHES), encoder.preprocessing.pixel_format)
    written = _write(encoder, kind, options, images, words)
    if options.push is None:
        return written
    with Stage(f"uploading to {options.push}", at_once=True):
        address = push_to_hub(written.path, options.push)
    return Export(written.path, written.card, written.format, written.comparison, address)


def _check_options(options: ExportOptions) -> Format:
    """Returns the format, after checks that need no torch.

    Raises:
        ValueError: naming the first option that cannot be.
    """
    if (meant := OTHER_NAMES.get(options.format.lower())) is not None:
        raise ValueError(
            f"--format must be one of {', '.join(FORMATS)}, but is {options.format!r}; did you mean {meant}?"
        )
    kind = FORMATS[choose("--format", options.format, FORMATS)]
    check_encoder_name(options.encoder)  # first of all, as nobody installs a package for an encoder that is not there
    choose("--normalise", options.normalise, ("outside", "inside"))
    if options.normalise == "inside" and not kind.takes_normalise:
        fitting = " and ".join(name for name, other in FORMATS.items() if other.takes_normalise)
        raise ValueError(f"--normalise inside is for {fitting}; {kind.library} normalises by its own preprocessing")
    check_output(options.out, kind.suffix, overwrite=options.overwrite)
    if kind.missing:
        raise ValueError(f"--format {kind.name} needs {', '.join(kind.missing)}: {kind.install}")
    if options.push is not None:
        check_push(options.push)
    return kind


def _as_float32(encoder: "Encoder") -> "Encoder":
    """Returns the encoder in float32, in which all formats are written; a line says if it was trained in another."""
    import torch

    others = {str(p.dtype).removeprefix("torch.") for p in encoder.parameters() if p.dtype != torch.float32}
    if others:
        note(f"the weights are rounded from {', '.join(sorted(others))} to float32")
    return encoder.float()


def _check_fit(encoder: "Encoder", kind: Format) -> None:
    """Raises ValueError, naming the formats that fit, if the encoder does not fit the format."""
    if reason := kind.misfit(encoder):
        fitting = [name for name, other in FORMATS.items() if other is not kind and not other.misfit(encoder)]
        raise ValueError(f"--format {kind.name}: {reason}; {', '.join(fitting)} fit")


def _write(encoder: "Encoder", kind: Format, options: ExportOptions, images: list[Any], words: str) -> Export:
    """Writes the export beside its place, compares it with the encoder, and moves it to its place."""
    from infomax.exporting.check import check_tensors, compare_export

    out, inside = options.out, options.normalise == "inside"
    with partial_folder(out) as folder:
        path, exchange = folder / out.name, folder / "exchange"
        exchange.mkdir()
        if not kind.suffix:
            path.mkdir()
        with Stage(f"writing {kind.name}"):
            facts = _write_format(encoder, kind, path, inside)
        with Stage(f"opening it with {kind.library} alone"):
            comparison = compare_export(encoder, kind, path, images, exchange, normalise_inside=inside)
            if kind.name == "safetensors":
                check_tensors(path, encoder.backbone.state_dict(), exchange)
        content = _card(encoder, kind, options, facts=facts, comparison=comparison, images=words)
        if kind.suffix:
            (folder / "card.md").write_text(content, encoding="utf-8")
            move_file(path, folder / "card.md", out)
        else:
            (path / CARD).write_text(content, encoding="utf-8")
            _describe(encoder, kind, path / DESCRIPTION, comparison)
            move_folder(path, out, folder / "replaced")
    card = card_beside(out) if kind.suffix else out / CARD
    return Export(out, card, kind.name, comparison)


def _write_format(encoder: "Encoder", kind: Format, path: Path, inside: bool) -> dict[str, str]:
    """Writes the format alone; what a library raises becomes one line."""
    try:
        return kind.write(encoder, path, inside)
    except (ValueError, OSError):  # a mistake of the user, or a full disk
        raise
    except Exception as error:  # of many kinds, and with many lines
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise MachineError(f"--format {kind.name} cannot be written ({reason}); nothing was written") from error


def _card(encoder: "Encoder", kind: Format, options: ExportOptions, **known: Any) -> str:
    """Returns the text of the model card."""
    from infomax.classifying.classifier import is_classifier, read_description
    from infomax.exporting.card import CardContent, card_text
    from infomax.exporting.program import input_words
    from infomax.models.encoders import fingerprint
    from infomax.runs.run_folder import kept_epoch_of, run_of

    inside, folder = options.normalise == "inside", Path(options.encoder)
    return card_text(
        CardContent(
            title=options.out.stem if kind.suffix else options.out.name,
            kind=kind,
            code=kind.code(encoder, options.out.name, inside),
            input_words=input_words(encoder, inside),
            preprocessing=encoder.preprocessing,
            width=encoder.width,
            parameters=sum(parameter.numel() for parameter in encoder.parameters()),
            encoder_name=options.encoder,
            fingerprint=fingerprint(encoder),
            run=run_of(options.encoder),
            kept_epoch=kept_epoch_of(options.encoder),
            classifier=read_description(folder) if is_classifier(folder) else None,
            **known,
        )
    )


def _describe(encoder: "Encoder", kind: Format, file: Path, comparison: "Comparison") -> None:
    """Writes what the encoder is, by which a folder is also known for an export."""
    description = {
        "format": kind.name,
        "encoder": asdict(encoder.settings),
        "preprocessing": asdict(encoder.preprocessing),
        "width": encoder.width,
        "output": output_words(encoder),
        **({"classes": list(classes)} if (classes := classes_of(encoder)) else {}),
        "comparison": asdict(comparison),
    }
    file.write_text(json.dumps(description, indent=1), encoding="utf-8")
