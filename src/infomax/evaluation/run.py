"""Evaluates an encoder by a protocol and keeps the rows: what the command ``infomax evaluate`` and Python share."""

import os
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from infomax.data.loading.unreadable import UnreadableImageError, name_all_unreadable
from infomax.data.pixel_format import PixelFormat
from infomax.data.range_notes import note_range
from infomax.data.sources.given import GivenImages, open_given
from infomax.data.sources.location import DataLocation
from infomax.data.sources.named import NAMED_DATASETS
from infomax.data.splits import (
    Source,
    all_images,
    describe_splits,
    has_several_classes,
    no_labels_error,
    origin_of_test_images,
    why_not_labelled,
)
from infomax.evaluation.options import EvaluationData, EvaluationOptions
from infomax.evaluation.protocol import Protocol, ProtocolOptions
from infomax.evaluation.protocols import PROTOCOLS
from infomax.evaluation.result_row import ResultRow
from infomax.evaluation.results import append_result, hash_hits
from infomax.evaluation.value_range import PIXEL_OPTIONS, check_pixel_options, taken_pixel_format, trained_value_range
from infomax.models.backbone_names import check_encoder_name
from infomax.runs.run_folder import Run, kept_epoch_of, run_of, trained_steps_of
from infomax.runs.training_verdicts import standing_verdicts
from infomax.runtime.checks import choose
from infomax.runtime.devices import check_ranks
from infomax.runtime.failures import MachineError, describe_machine_failure
from infomax.runtime.identity import specification_hash
from infomax.runtime.options import option_fields
from infomax.runtime.ranks import device_of, rank_from_environment
from infomax.runtime.stages import importing_torch
from infomax.runtime.text import note, show


def evaluate(
    protocol: str | ProtocolOptions,
    encoder: str | PathLike[str],
    *,
    data: str | PathLike[str] | Source | GivenImages | None = None,
    targets: Sequence[int | str] | None = None,
    data_dir: str | PathLike[str] | None = None,
    download: bool = False,
    bands: str | None = None,
    layout: str | None = None,
    classes: str | PathLike[str] | None = None,
    subset: str | PathLike[str] | None = None,
    value_range: str | None = None,
    max_megapixels: float | None = None,
    channels: int | None = None,
    no_data: float | None = None,
    show: str | None = None,
    out: str | PathLike[str] | None = None,
    device: str = "auto",
    workers: int | None = None,
    feature_precision: str = "32",
    no_cache: bool = False,
    no_baselines: bool = False,
    quiet: bool = True,
    **options: Any,
) -> list[ResultRow]:
    """Evaluates an encoder by a protocol and returns the rows, as ``infomax evaluate`` does.

    Args:
        protocol: Name of a protocol, as ``knn``, or its options, as ``KnnOptions(k=(1, 20))``;
            ``infomax.evaluation.protocols.PROTOCOLS`` has all protocols.
        encoder: A run folder, or an encoder that was kept in it, as runs/a/epochs/50; timm:NAME, torchvision:NAME or
            hf:NAME; or a checkpoint file of others.
        data: Images with labels: a sub-folder for each class, arrays of labels, or a data set's name. Default: what
            the run was trained on. Or the images themselves: paths of files, whose classes are the sub-folders of the
            folder that they have in common; PIL images; an array of bytes [n, height, width, 3]; or a
            :class:`~infomax.data.splits.Source`.
        targets: The class of each image, if ``data`` is paths, PIL images or an array. Default: the files' folders.
        data_dir: Folder that holds the data sets that are given by name. Default: INFOMAX_DATA, or
            ~/.cache/infomax/data.
        download: Fetch a named data set that is not there.
        bands: Words in names of files that name the bands, as B02,B03,B04, if each band is a file of its own: files
            whose paths differ only in that word are one image, with these channels in this order. Default: one file is
            one image.
        layout: Order of the axes of arrays of images: NHWC if the channels are last, NCHW if they come before height
            and width. Default: found by the sizes.
        classes: Text file with the classes to keep, one on each line. Default: all.
        subset: Text file with the training images to keep, by path or file name, as SimCLR's 1percent.txt; or the word
            1percent or 10percent, for that share of the labelled images. Default: all.
        value_range: Numbers that become black and white in images of more than 8 bits, as 0,4095; or percentiles of the
            data set, as 0.1%,99.9%, which floating-point numbers and those with a sign take. It is one range for all
            images. Default: the format's, or percentiles.
        max_megapixels: Largest number of pixels of an image file, in millions; larger ones are not decoded, as memory
            could end. Default: 120.
        channels: Channels of an image; 3 makes 8-bit RGB of images of one channel, and 1 makes gray of RGB. Default:
            what the images have.
        no_data: Number that stands for no measurement, as -9999; NaN does in any case. Default: what files say.
        show: Channels, counted from 1, that pictures for people show as red, green and blue; or one, in gray. Default:
            the first three.
        out: File that a line is added to for each result. Default: the run's results.jsonl; rows of another encoder
            are not kept.
        device: Kind of device; auto takes a CUDA GPU if there is one.
        workers: Processes that decode image files. Default: one a core, at most 8.
        feature_precision: Bits of each value of a feature; 16 takes half the memory and disk.
        no_cache: Neither keep features on disk nor use those that are there.
        no_baselines: Evaluate the encoder alone, without its baselines: the initial encoder of a run with --init, the
            untrained encoder and the raw pixels.
        quiet: Show no progress bars.
        options: The protocol's own options by name, as ``k=(1, 20)``; ``infomax evaluate PROTOCOL --help`` lists them.

    Returns:
        A row for each result, of the protocol's own class, with scores as shares from 0 to 1. The rows are flat
        dataclasses: ``pandas.DataFrame(rows)`` makes a frame of them.

    Raises:
        ValueError: if there is no such protocol, option, encoder or data set, in one line that says what there is.
        FloatingPointError: if a fine-tuning diverges.
        MachineError: if memory or a process was lost; the rows before are kept.

    Example:
        >>> import infomax
        >>> rows = infomax.evaluate("knn", "runs/a", data="digits", k=(1, 20))  # doctest: +SKIP
        >>> rows[0].representation, rows[0].k, rows[0].top1  # doctest: +SKIP
        ('trained encoder', 1, 0.9610027670860291)
    """
    chosen, chosen_options = choose_protocol(protocol, options)
    named, source, given = _named_or_given(data, targets, bands, layout)
    location = EvaluationData(
        data=named,
        data_dir=None if data_dir is None else fspath(data_dir),
        download=download,
        bands=bands,
        layout=layout,
        classes=None if classes is None else fspath(classes),
        subset=None if subset is None else fspath(subset),
        value_range=value_range,
        max_megapixels=max_megapixels,
        channels=channels,
        no_data=no_data,
        show=show,
    )
    evaluation = EvaluationOptions(
        device=device,
        workers=workers,
        feature_precision=feature_precision,
        no_cache=no_cache,
        no_baselines=no_baselines,
        quiet=quiet,
    )
    request = prepare_evaluation(
        chosen,
        chosen_options,
        encoder,
        location,
        evaluation,
        out=None if out is None else Path(out),
        source=source,
        given=given,
    )
    opened, missing = request.open_data()
    for reason in missing:
        warnings.warn(f"left out: {reason}", stacklevel=2)
    return list(request.rows(opened))


def _named_or_given(
    data: Any, targets: Any, bands: str | None, layout: str | None
) -> tuple[str | None, Source | None, Source | None]:
    """Returns the images that ``data`` of :func:`evaluate` names, or those that it holds.

    Returns:
        Their name, the source itself, or the source of images that were given one by one; one or none of the three.
    """
    several = isinstance(data, list | tuple) and len(data) > 0
    if several and all(isinstance(name, str) and name in {*NAMED_DATASETS, "digits"} for name in data):
        data = ",".join(data)  # data sets of a protocol that takes several
    is_named = data is None or isinstance(data, str | PathLike)
    if targets is not None and (is_named or isinstance(data, Source)):
        raise ValueError("targets are for data that are paths of files, PIL images or an array; a folder has its own")
    if is_named:
        return None if data is None else fspath(data), None, None
    if isinstance(data, Source):
        return None, data, None
    return None, None, open_given(data, targets, bands=bands, layout=layout)


def choose_protocol(protocol: str | ProtocolOptions, options: dict[str, Any]) -> tuple[Protocol, ProtocolOptions]:
    """Returns a protocol and its options.

    Args:
        protocol: Name of the protocol, or its options.
        options: Options by name; they replace those in ``protocol``. A list counts as a tuple.

    Raises:
        ValueError: if there is no such protocol or option, naming the nearest one, or a value is impossible.
    """
    if isinstance(protocol, str):
        chosen = PROTOCOLS[choose("the protocol", protocol, PROTOCOLS)]
    else:
        chosen = next((candidate for candidate in PROTOCOLS.values() if type(protocol) is candidate.options), None)
        if chosen is None:
            names = ", ".join(candidate.options.__name__ for candidate in PROTOCOLS.values())
            raise ValueError(f"the protocol must be a name or one of {names}, but is {protocol!r}")
    defaults = {field.name: field.default for field in option_fields(chosen.options)}
    values: dict[str, Any] = {}
    for name, value in options.items():
        choose(f"the option of {chosen.name}", name, defaults)
        if isinstance(defaults[name], tuple) and not isinstance(value, list | tuple):
            raise ValueError(f"{name} must be several values, as ({value!r},), but is {value!r}")
        values[name] = tuple(value) if isinstance(value, list) else value
    return chosen, chosen.options(**values) if isinstance(protocol, str) else replace(protocol, **values)


@dataclass(frozen=True)
class OpenedData:
    """A frozen dataclass that holds the images of one data set, and where they are."""

    source: Source
    location: DataLocation | None
    """None if the images were given themselves."""
    identity: str = ""
    """What tells images that were given one by one from others of the same name, in the hash of an evaluation."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """A frozen dataclass that holds one evaluation that is possible, as far as that is known before it starts."""

    protocol: Protocol
    options: ProtocolOptions
    encoder: str
    run: Run | None
    """The run, if the encoder is that of a run folder or was kept within one."""
    location: EvaluationData
    """The images; ``data`` is None if ``source`` is given or the protocol's own data sets are taken."""
    source: Source | None
    evaluation: EvaluationOptions
    out: Path | None
    """File that rows are added to."""
    identity: str = ""
    """As in :class:`OpenedData`, of ``source``."""

    @property
    def limits(self) -> dict[str, str]:
        """The files that say which classes and images are kept, by the fields of a row."""
        files = {"classes_file": self.location.classes, "subset_file": self.location.subset}
        return {name: file for name, file in files.items() if file is not None}

    def open_data(self) -> tuple[list[OpenedData], list[str]]:
        """Opens the data sets before anything is computed.

        Returns:
            The data sets, and for each one of the protocol's own that is not there the reason.

        Raises:
            ValueError: if a data set that was named, or every one of the protocol's own, is not there.
        """
        if self.source is not None:
            return [OpenedData(self.source, None, self.identity)], []
        names = self.protocol.default_data(self.options)
        if self.location.data is not None:
            return [self._open(name) for name in split_data(self.location.data, several=bool(names))], []
        opened, missing = [], []
        for name in names:
            try:
                opened.append(self._open(name))
            except ValueError as error:
                missing.append(str(error))
        if not opened:
            raise ValueError(f"none of the {len(names)} data sets is there: {missing[0]}")
        return opened, missing

    def _open(self, data: str) -> OpenedData:
        parts: dict[str, Any] = {**self.location.given_location(), "data": data}
        location = DataLocation(**parts)
        with _machine_failures_described():
            if self.protocol.open_data is not None:
                return OpenedData(self.protocol.open_data(location), location)
            source = location.open(download=self.location.download)
            wants_labels = self.protocol.needs_labels and not has_several_classes(source)
            reason = why_not_labelled(source, hold_out=self.options.holds_out) if wants_labels else ""
            if reason:  # which is said before torch is imported
                raise no_labels_error(source, reason)
            return OpenedData(source, location)

    def rows(self, opened: Sequence[OpenedData], *, command: str | None = None) -> Iterator[ResultRow]:
        """Evaluates the encoder on each data set, and yields a row as soon as it is computed and kept.

        On several ranks each of them yields the rows, and the first one keeps them.

        Args:
            opened: The data sets of :meth:`open_data`.
            command: The command that asked for it, if one did.

        Raises:
            MachineError: if memory or a process was lost.
        """
        with importing_torch():
            from infomax.runtime.collectives import rank
        from infomax.runtime.threads import threads_within_quota

        with threads_within_quota():
            yield from self._computed_rows(opened, command, is_first_rank=rank() == 0)

    def _computed_rows(
        self, opened: Sequence[OpenedData], command: str | None, is_first_rank: bool
    ) -> Iterator[ResultRow]:
        """Yields the rows of :meth:`rows`."""
        encoder: Any = self.encoder
        if self.protocol.open_encoder is not None:
            with _machine_failures_described():
                encoder = self.protocol.open_encoder(encoder, self.options, self.evaluation)
        pixel_format = taken_pixel_format(self.encoder)
        for data in opened:
            if is_first_rank:
                notes_alone = self.evaluation.quiet or not self.options.uses_labels
                noted = note_range(data.source, pixel_format)
                lines = describe_splits(
                    noted,
                    to_train=False,
                    notes_alone=notes_alone,
                    is_trained_on=self._is_trained_on(data),
                    hold_out=self.options.holds_out,
                )
                for line in lines:
                    show(line, file=sys.stderr)
            computed = self.protocol.run(encoder, data.source, self.options, self.evaluation)
            while True:
                with _machine_failures_described(), _unreadable_named(data.source, pixel_format):
                    row = next(computed, None)
                if row is None:
                    break
                row = replace(row, **self._origin(row, data), command=command)
                if self.out is not None and is_first_rank:
                    if (file := row.write_beside(self.out)) is not None:
                        note(f"{row.words_beside} {file}")
                    append_result(self.out, row)
                yield row

    def _is_trained_on(self, data: OpenedData) -> bool:
        """Returns whether the run was trained on a data set, as far as its name and place tell."""
        if self.run is None or data.location is None:
            return False
        return data.location.resolved().data == self.run.location.resolved().data

    def _origin(self, row: ResultRow, data: OpenedData) -> dict[str, Any]:
        """Returns the fields of a row that say where it came from."""
        place = data.source.name + data.identity if data.location is None else data.location
        evaluation = evaluation_hash(self.options, place, self.evaluation.feature_precision)
        origin = row.tested_on or origin_of_test_images(data.source) or None
        fields: dict[str, Any] = {
            **self.limits,
            "evaluation": evaluation,
            "tested_on": origin,
            "hits_hash": hash_hits(row),
        }
        if self.run is not None and row.representation == "trained encoder":
            fields |= {"recipe": self.run.recipe_title, "trained_steps": trained_steps_of(Path(self.encoder))}
            fields["epoch"] = kept_epoch_of(self.encoder)
            fields["verdicts"] = self.verdicts
        return fields

    @cached_property
    def verdicts(self) -> tuple[str, ...] | None:
        """Names of the verdicts that stand at the end of the run's training; None if they are not known."""
        if self.run is None:
            return None
        try:
            verdicts = standing_verdicts(self.run)
        except (ValueError, OSError) as error:  # the evaluation does without
            note(f"the verdicts on the training are not known: {error}")
            return None
        return None if verdicts is None else tuple(verdict.name for verdict in verdicts)

    def describe_training(self) -> str | None:
        """Returns words for how the encoder was trained; None if it is of no run."""
        if self.run is None:
            return None
        if (epoch := kept_epoch_of(self.encoder)) is not None:
            return f"trained by {self.run.recipe_title}, of which this is the encoder after epoch {epoch}"
        progress = self.run.progress(self.run.trained_steps)
        return f"trained by {self.run.recipe_title}{f', unfinished: {progress}' if progress else ''}"


def split_data(data: str, *, several: bool) -> list[str]:
    """Returns the data sets that ``--data`` names, each as it names one.

    Args:
        data: Data sets by name with commas between, or any other images.
        several: Whether the protocol takes several data sets.
    """
    names = data.split(",") if several else [data]
    if set(names) <= {*NAMED_DATASETS, "digits"}:
        return names
    return [data]  # folders, which may have commas between them too


def evaluation_hash(options: ProtocolOptions, data: DataLocation | str, feature_precision: str) -> str:
    """Returns the hash of all that decides the results of an encoder, but the encoder itself.

    Rows of one encoder with the same hash and the same conditions measure the same.

    Args:
        options: The protocol's options.
        data: Where the images are; or a name, if they were given themselves.
        feature_precision: Bits of each value of a feature, ``32`` or ``16``.
    """
    place = data if isinstance(data, str) else data.resolved()
    return specification_hash({"options": options, "data": place, "feature_precision": feature_precision})


def prepare_evaluation(
    protocol: Protocol,
    options: ProtocolOptions,
    encoder: str | PathLike[str],
    location: EvaluationData,
    evaluation: EvaluationOptions,
    *,
    out: Path | None = None,
    source: Source | None = None,
    given: Source | None = None,
) -> EvaluationRequest:
    """Checks an evaluation and completes what was not said: the images of a run, and its file of results.

    Args:
        protocol: The protocol.
        options: The protocol's options.
        encoder: Name of the encoder.
        location: The images, as far as they are said.
        evaluation: Device, workers and cache, and whether there are baselines.
        out: File to add rows to; None takes that of a run folder, and none for another encoder.
        source: The images themselves.
        given: Images that were given one by one, of which ``location`` chooses some and says how they are decoded.

    Raises:
        ValueError: if no images are named, or ``out`` cannot be written.
    """
    named = [word for word, value in vars(location).items() if value]
    if source is not None and named:
        raise ValueError(f"{', '.join(named)} cannot be given with data that are the images themselves: choose before")
    check_encoder_name(encoder)
    name = fspath(encoder)
    run = run_of(name)
    if out is None and run is not None:
        out = run.path / "results.jsonl"
    if out is not None and (out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK)):
        raise ValueError(f"--out {out} must be a file that can be written, in a folder that is there")
    check_pixel_options(name, **{key: getattr(location, key) for key in PIXEL_OPTIONS})
    identity = ""
    if given is not None:
        if run is not None and location.value_range is None:
            location = replace(location, value_range=trained_value_range(name))
        source, identity = _choose_of(given, location)
    elif source is None and location.data is None and not protocol.default_data(options):
        if run is None:
            raise ValueError(f"--data is wanted: {name} is not a run folder, which would say what it was trained on")
        location_options = {key: value for key, value in vars(location).items() if value is not None}
        location = replace(location, **{**vars(run.location), **location_options})
    elif run is not None and source is None and location.value_range is None:  # other images, of the same brightness
        location = replace(location, value_range=trained_value_range(name))
    return EvaluationRequest(
        protocol=protocol,
        options=options,
        encoder=name,
        run=run,
        location=location,
        source=source,
        evaluation=evaluation,
        out=out,
        identity=identity,
    )


def _choose_of(given: Source, location: EvaluationData) -> tuple[Source, str]:
    """Returns the images that were given one by one, as far as they are chosen, and what tells them from others.

    Raises:
        ValueError: if an option is for data sets that have a name.
    """
    for option, value in (("data_dir", location.data_dir), ("download", location.download)):
        if value:
            raise ValueError(f"{option} is for data sets by name, as cifar10, not for images that are given themselves")
    parts: dict[str, Any] = {**location.given_location(), "data": given.name}
    source = DataLocation(**parts).select(given)
    hashes = [images.fingerprint() for images in (source.train, source.test) if images is not None]
    return source, f" {' '.join(hashes)} {location.value_range}"


@contextmanager
def _machine_failures_described() -> Generator[None]:
    try:
        yield
    except Exception as error:
        cure = "--feature-precision 16, or a smaller --batch-size, takes less"
        if (failure := describe_machine_failure(error, cure)) is None:
            raise
        raise MachineError(f"{failure}. What was computed is kept, and the same command goes on") from error


@contextmanager
def _unreadable_named(source: Source, pixel_format: PixelFormat) -> Generator[None]:
    """Makes the error of an image that cannot be read name all those that cannot."""
    try:
        yield
    except UnreadableImageError as error:
        raise name_all_unreadable(error, all_images(source)[0].values(), pixel_format) from error


@contextmanager
def launched_ranks(evaluation: EvaluationOptions) -> Generator[EvaluationOptions]:
    """Joins the ranks that torchrun or srun started, if they did, until the block ends.

    Yields:
        The options for this rank; only the first one shows progress bars.
    """
    info = rank_from_environment()
    if info is None:
        yield evaluation
        return
    from infomax.runtime.collectives import process_group

    kind = evaluation.network_device.type
    check_ranks(kind, info.world_size)
    device = device_of(kind, info.local_rank)
    with process_group(info.rank, info.world_size, device=device):
        yield replace(evaluation, quiet=evaluation.quiet or info.rank > 0)
