"""All protocols, one file each; :mod:`infomax.evaluation.protocol` says what a protocol is.

To add one, write its file here and its line below; or, in another package, name it by an entry point of the group
``infomax.protocols``. Nothing else lists protocols.
"""

from infomax.evaluation.protocol import Protocol
from infomax.evaluation.protocols import (
    cluster,
    dense,
    detect,
    few_shot,
    finetune,
    knn,
    linear,
    online_linear,
    transfer,
)
from infomax.evaluation.result_row import ResultRow
from infomax.runtime.plugins import registry

ENTRY_POINTS = "infomax.protocols"
"""Group of entry points by which another package adds a protocol; each names a :class:`Protocol`."""


PROTOCOLS = registry(
    Protocol,
    "protocol",
    [
        knn.PROTOCOL,
        linear.PROTOCOL,
        online_linear.PROTOCOL,
        few_shot.PROTOCOL,
        cluster.PROTOCOL,
        finetune.PROTOCOL,
        transfer.PROTOCOL,
        detect.PROTOCOL,
        dense.PROTOCOL,
    ],
    ENTRY_POINTS,
)
"""All protocols by name."""


def row_classes() -> dict[str, type[ResultRow]]:
    """Returns the classes of all rows by the ``protocol`` that their rows name."""
    return {row.protocol: row for protocol in PROTOCOLS.values() for row in protocol.rows}


def protocol_of(row: ResultRow) -> Protocol:
    """Returns the protocol that a row is a result of."""
    return next(protocol for protocol in PROTOCOLS.values() if isinstance(row, protocol.rows))
