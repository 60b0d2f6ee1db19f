"""The contract of a protocol: what it is called, what its options are, what its rows hold, and how it runs.

A protocol is one file that ends with ``PROTOCOL = Protocol(...)`` and one line in :mod:`infomax.evaluation.protocols`;
or an entry point of the group ``infomax.protocols`` in another package. Command, Python, reports and sweeps read the
:class:`Protocol` and know nothing else of it. The file must not import torch before ``run`` is called, because
``--help`` reads it too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from infomax.evaluation.options import EvaluationData, EvaluationOptions
from infomax.evaluation.result_row import ResultRow

if TYPE_CHECKING:
    from infomax.data.sources.location import DataLocation
    from infomax.data.splits import Source
    from infomax.papers.published import Column

EncoderName = str | PathLike[str]
"""An encoder by its name: a run folder, ``timm:NAME``, a checkpoint file; see
:func:`infomax.models.pretrained.open_encoder`."""
Run = Callable[[EncoderName, "Source", Any, EvaluationOptions], Iterator[ResultRow]]


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """A frozen dataclass that the options of a protocol inherit from.

    The docstring of the subclass is the help of the command, the text below each field that of the option.
    ``__post_init__`` refuses what is impossible by a ``ValueError``.
    """

    @property
    def uses_labels(self) -> bool:
        """Whether labels of the images are used; if not, nothing is said of those that they have."""
        return True

    @property
    def holds_out(self) -> bool:
        """Whether images are held out to test on; if not, each training image is tested by the others."""
        return True


def _one_data_set(_: Any) -> tuple[str, ...]:
    return ()


def _no_column(_: "Column") -> ProtocolOptions | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A frozen dataclass that holds all that the library knows of one protocol.

    Raises:
        ValueError: if it has no row class, or one that is no :class:`ResultRow` with the name of its protocol.
    """

    name: str
    """The word for it after ``infomax evaluate``, as ``knn``."""
    title: str
    """Its name in a table, as ``k-NN``."""
    options: type[ProtocolOptions]
    """Class of its options."""
    rows: tuple[type[ResultRow], ...]
    """Classes of its rows; most protocols have one."""
    run: Run
    """Computes the results of one encoder on one data set, and yields a row as soon as it is known. It is called with
    the encoder's name, the images, the protocol's options and the :class:`EvaluationOptions`."""
    baselines: bool = False
    """Whether it evaluates the untrained encoder and the raw pixels too, unless ``no_baselines`` forbids it."""
    data: type = EvaluationData
    """Class of the options that say which images; a protocol for several data sets explains them otherwise."""
    needs_labels: bool = False
    """Whether nothing can be computed of images without classes, which are then refused before torch is imported."""
    needs_run: bool = False
    """Whether it is of a whole run, and not of an encoder that was kept within one."""
    default_data: Callable[[Any], tuple[str, ...]] = _one_data_set
    """Returns, of the protocol's options, the names of the data sets that are taken if none is given; ``run`` is called
    for each of those that are there. An empty tuple means that the protocol takes one data set, by default that of the
    run."""
    open_encoder: Callable[[EncoderName, Any, EvaluationOptions], Any] | None = None
    """Opens the encoder once for several data sets, of its name, the protocol's options and the
    :class:`EvaluationOptions`; ``run`` is then given what it returns in place of the name. None leaves that to ``run``,
    data set by data set."""
    open_data: Callable[["DataLocation"], "Source"] | None = None
    """Opens the images at a location, for a protocol whose data are no classes of images; None opens them as all other
    commands do."""
    options_for: Callable[["Column"], ProtocolOptions | None] = _no_column
    """Returns the options that measure what a column of a published table does, on its data set and its share of the
    labels, which are chosen apart; None if this protocol does not measure it."""

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError(f"the protocol {self.name} has no class of rows")
        for row in self.rows:
            if not issubclass(row, ResultRow) or not isinstance(getattr(row, "protocol", None), str):
                raise ValueError(
                    f"{row.__name__} of the protocol {self.name} must be a ResultRow that sets its protocol"
                )
