"""Train image encoders without labels by information maximisation: MIRA, CorInfoMax, CARL and MVEB.

The names below load what they need when they are first used, because torch takes seconds to import. The
losses are in :mod:`infomax.methods` and need torch alone.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infomax.encoders import Encoder as Encoder
    from infomax.encoders import load_encoder as load
    from infomax.evaluation.features import embed as embed
    from infomax.pretraining import pretrain as pretrain
    from infomax.runs import Run as Run

__version__ = version("infomax")
__all__ = ["Encoder", "Run", "embed", "load", "pretrain"]

_HOME = {
    "Encoder": ("encoders", "Encoder"),
    "Run": ("runs", "Run"),
    "embed": ("evaluation.features", "embed"),
    "load": ("encoders", "load_encoder"),
    "pretrain": ("pretraining", "pretrain"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'infomax' has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(import_module(f"infomax.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
