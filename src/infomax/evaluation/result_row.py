"""The row of a result: what was measured, under which conditions, and where it came from.

A protocol has its own row class, with a field for each of its conditions and scores. What a table shows of a row
follows from the fields: one marked :class:`Condition` is a column that tells rows apart, one marked :class:`Score` a
column of results; the others, among them each :class:`Outcome`, are kept in the file alone. Rows are flat:
``pandas.DataFrame(rows)`` makes a frame of them.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from dataclasses import field as dataclass_field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypedDict, get_args, get_origin, get_type_hints

from infomax.runtime.json_values import parse_value, shorten

if TYPE_CHECKING:
    from infomax.papers.published import Column

SUBSETS = {"1percent", "10percent"}
"""Names of files with a share of ImageNet's labels, as the published tables call these shares."""


@dataclass(frozen=True)
class Condition:
    """A frozen dataclass that marks a field as a condition, which tells the rows of one evaluation apart."""

    label: str
    """Name of the column, as ``k``."""


@dataclass(frozen=True)
class Score:
    """A frozen dataclass that marks a field as a score: a share from 0 to 1, an interval of shares, or a number."""

    label: str
    """Name of the column, as ``top-1``."""
    scale: str = ""
    """The least and the greatest value of a number that is no share, as ``-1 to 1``; empty for shares."""


@dataclass(frozen=True)
class Outcome:
    """A frozen dataclass that marks a field as found by the measurement, or as its origin: no table shows it, and two
    rows that differ in nothing but scores and outcomes measure the same."""


class Hits(TypedDict, total=False):
    """A typed dictionary that holds what a row got right, by which another row of the same images is compared with it;
    see :mod:`infomax.evaluation.paired`."""

    images: str
    """Hash of the images that are classified by and of those that are classified."""
    right: str
    """A bit for each image that is classified, 1 if it was right, the first image in the highest bit; bytes in
    base64."""
    labels: str
    """Class of each image, 4 bytes each, compressed and in base64, if the metric is a mean over classes."""
    draws: tuple[float, ...]
    """The accuracy with each draw of the labelled images, if there are several."""
    counts: str
    """The number of draws in which each image was right, 2 bytes each, compressed and in base64."""
    pixels: str
    """Of each image and each class that any mask shows, the pixels that are right, that have the class and that are
    given it, 4 bytes each, compressed and in base64, if the metric is a mean IoU."""


@dataclass(frozen=True)
class RowField:
    """A frozen dataclass that describes one field of a row class."""

    name: str
    type: Any
    """Without ``Annotated``."""
    required: bool
    mark: Condition | Score | Outcome | None


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A frozen dataclass that holds one result. Protocols inherit from it, and set ``protocol`` to their own name.

    Shares are from 0 to 1. A field that is None does not apply to the result, and is left out of the file.
    """

    protocol: str
    """Name by which the row's class is found again."""
    data: Annotated[str, Condition("data")]
    """Name of the data set."""
    representation: str
    """``trained encoder`` for that of a run folder, the name of another encoder, or the name of a baseline."""
    encoder: str
    """Hash of the encoder's architecture and weights; empty for raw pixels."""
    metric: str
    """Name of the field with the main score."""
    interval: Annotated[tuple[float, float] | None, Score("95 %")] = None
    """The 95 % interval of the main score."""
    classes: int
    """Number of classes; 0 for images without labels."""
    labelled_images: int | None = None
    """Number of labelled images that are classified by."""
    test_images: int
    """Number of images that are classified."""
    tested_on: Annotated[str | None, Outcome()] = None
    """Where the images that are classified come from: the name of a split, or the rule by which they are held out."""
    seconds: Annotated[float, Outcome()]
    """Time that it took to compute the result."""
    epoch: int | None = None
    """Epoch, from 1, after which the encoder was kept within its run; None for the encoder of a whole run, and for all
    others."""
    recipe: str | None = None
    """Recipe by which the run's encoder was trained, with the settings that were changed."""
    trained_steps: Annotated[int | None, Outcome()] = None
    """Steps that the run's encoder was trained for."""
    command: Annotated[str | None, Outcome()] = None
    """The command that computed the result."""
    classes_file: str | None = None
    """File with the classes that were kept."""
    subset_file: str | None = None
    """File with the labelled images that were kept."""
    evaluation: Annotated[str | None, Outcome()] = None
    """Hash of the protocol's options, the images' location and the features' precision; see
    :func:`infomax.evaluation.run.evaluation_hash`."""
    verdicts: Annotated[tuple[str, ...] | None, Outcome()] = None
    """Names of the verdicts on the training of the run's encoder that were in force at its end, as ``total collapse``;
    None if nothing is known of its training."""
    hits_hash: Annotated[str | None, Outcome()] = None
    """Hash of ``hits``, under which the file of hits beside the results has them."""
    hits: Annotated[Hits | None, Outcome()] = dataclass_field(default=None, compare=False, repr=False)
    """What the row got right. It is kept in a file of its own, and a row that is read has none until
    :func:`infomax.evaluation.results.with_hits` adds it."""

    @property
    def title(self) -> str:
        """Name of the row in a table: the representation, and the epoch of an encoder that was kept within its run."""
        return self.representation if self.epoch is None else f"{self.representation}, epoch {self.epoch}"

    @property
    def score(self) -> float:
        """The main score, from 0 to 1."""
        return getattr(self, self.metric)

    @property
    def variant(self) -> str:
        """Name of the way in which a classifier was trained, if the protocol has several; else empty."""
        return ""

    @property
    def image_counts(self) -> dict[str, int]:
        """Numbers of images by the word for them, as far as they are known."""
        counts = {"labelled": self.labelled_images, "test": self.test_images}
        return {word: count for word, count in counts.items() if count is not None}

    @property
    def subset(self) -> str:
        """The share of the labelled images, as the published tables call it; empty if it is none of theirs."""
        stem = Path(self.subset_file or "").stem
        return stem if stem in SUBSETS else ""

    def fits(self, column: "Column") -> bool:
        """Returns whether a column of a published table measures what this row does.

        The conditions of pretraining are compared elsewhere. A protocol with conditions of its own, as the number of
        neighbours, overrides this method and calls it.
        """
        conditions = (self.protocol, self.data, self.subset)
        if conditions != (column.protocol, column.data, column.subset) or self.classes_file is not None:
            return False
        if self.subset_file is not None and not self.subset:
            return False  # labels of a share that no paper has are not all labels
        return getattr(self, column.metric, None) is not None

    def write_beside(self, results: Path) -> Path | None:
        """Writes what belongs to the row and is too long for a line of results, and returns the file that it is in.

        Most rows have nothing of the kind. A protocol that has overrides this method.

        Args:
            results: The file that the row's line is added to.

        Returns:
            The file; None if there is none.
        """
        return None

    @property
    def words_beside(self) -> str:
        """The words before the name of the file that :meth:`write_beside` returns, which say what it holds."""
        return "more of the result is kept in"

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain values for a line of JSON; those that are None, and the hits, are left
        out."""
        return {name: _plain(value) for name, value in vars(self).items() if value is not None and name != "hits"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], *, where: str = "the row") -> Self:
        """Builds a row from what :meth:`to_json` gave.

        Args:
            values: Fields by name.
            where: Words for the row in an error's message, as its file and number.

        Raises:
            ValueError: naming the key, if one is missing, unknown or of another type.
        """
        fields_by_name = {field.name: field for field in row_fields(cls)}
        for key in values:
            if key not in fields_by_name:
                near = get_close_matches(key[:60], fields_by_name, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{where}: {shorten(key)} is no key of a {cls.__name__}{hint}")
        parsed = {}
        for name, field in fields_by_name.items():
            if name not in values:
                if field.required:
                    raise ValueError(f"{where}: the key {name!r} of a {cls.__name__} is missing")
                continue
            parsed[name] = parse_value(values[name], field.type, f"{where}: the key {name!r}")
        row = cls(**parsed)
        scores = {name for name, field in fields_by_name.items() if isinstance(field.mark, Score)}
        if row.metric not in scores or type(getattr(row, row.metric)) not in (int, float):
            raise ValueError(f"{where}: the key 'metric' must name a score of the row, but is {shorten(row.metric)}")
        return row


@cache
def row_fields(cls: type[ResultRow]) -> tuple[RowField, ...]:
    """Returns the fields of a row class in their order, those of :class:`ResultRow` first."""
    hints = get_type_hints(cls, include_extras=True)
    described = []
    for field in fields(cls):
        hint, mark = hints[field.name], None
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            mark = next((note for note in notes if isinstance(note, Condition | Score | Outcome)), None)
        required = field.default is MISSING and field.default_factory is MISSING
        described.append(RowField(field.name, hint, required, mark))
    return tuple(described)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
