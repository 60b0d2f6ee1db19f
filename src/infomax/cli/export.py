"""Defines the command ``infomax export``."""

from infomax.cli.command import Command
from infomax.exporting.options import ExportOptions
from infomax.runtime.text import show


def export(options: ExportOptions) -> None:
    """Carries out ``infomax export``."""
    from infomax.exporting.export import run_export

    written = run_export(options)
    comparison = written.comparison
    show(f"{comparison.library} {comparison.version} alone gives {comparison.words()}")
    show(f"{written.path} is written; {written.card} is its model card, and says how it is opened")
    if written.address is not None:
        show(f"uploaded to {written.address}")


EXPORT = Command(
    "export",
    ExportOptions,
    "Write an encoder for another library, with a model card, and check that it gives the same features there.",
    export,
)
