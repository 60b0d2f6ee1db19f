"""All protocols, one file each; :mod:`infomax.evaluation.protocol` says what a protocol is.

To add one, write its file here and its line below; or, in another package, name it by an entry point of the group
``infomax.protocols``. Nothing else lists protocols.
"""

import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points

from infomax.evaluation.protocol import Protocol
from infomax.evaluation.protocols import cluster, few_shot, finetune, knn, linear, transfer
from infomax.evaluation.result_row import ResultRow

ENTRY_POINTS = "infomax.protocols"
"""Group of entry points by which another package adds a protocol; each names a :class:`Protocol`."""


def _installed(entries: Iterable[EntryPoint]) -> Iterator[Protocol]:
    """Yields the protocols of other packages; one that cannot be loaded is left out with a warning."""
    for entry in entries:
        try:
            protocol = entry.load()
            if not isinstance(protocol, Protocol):
                raise TypeError(f"it is a {type(protocol).__name__}, not a Protocol")
        except Exception as error:  # a package's fault must not stop the commands that do not need it
            warnings.warn(f"the protocol {entry.name} ({entry.value}) is left out: {error}", stacklevel=2)
        else:
            yield protocol


def _by_name(protocols: Iterable[Protocol]) -> dict[str, Protocol]:
    """Returns the protocols by their names.

    Raises:
        ValueError: if two protocols have one name.
    """
    named: dict[str, Protocol] = {}
    for protocol in protocols:
        if protocol.name in named:
            raise ValueError(f"two protocols are named {protocol.name}: uninstall one of the packages that bring them")
        named[protocol.name] = protocol
    return named


PROTOCOLS = _by_name(
    [
        knn.PROTOCOL,
        linear.PROTOCOL,
        few_shot.PROTOCOL,
        cluster.PROTOCOL,
        finetune.PROTOCOL,
        transfer.PROTOCOL,
        *_installed(entry_points(group=ENTRY_POINTS)),
    ]
)
"""All protocols by name."""


def row_classes() -> dict[str, type[ResultRow]]:
    """Returns the classes of all rows by the ``protocol`` that their rows name."""
    return {row.protocol: row for protocol in PROTOCOLS.values() for row in protocol.rows}


def protocol_of(row: ResultRow) -> Protocol:
    """Returns the protocol that a row is a result of."""
    return next(protocol for protocol in PROTOCOLS.values() if isinstance(row, protocol.rows))
